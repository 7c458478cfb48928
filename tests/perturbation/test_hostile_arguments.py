"""Arguments of the sensitivity test that NumPy would take at a loss, or that broke it: one line of ValueError each."""

import datetime

import numpy as np
import pytest

from perturbation.directions import dragged, modes, offsets, tilt
from sensitivity import compute_sensitivty_org, sensitivity_map

WEIGHTS = np.array([[1.0, 0.5], [0.0, 2.0], [1.0, 1.0], [0.5, 0.0]])  # 4 bins, 2 AMPs
SPECTRA, ERRORS = np.arange(12.0).reshape(3, 4) / 1000, np.full((3, 4), 1e-4)


class Quantity(np.ndarray):
    """As astropy's: an array with a unit, which np.asarray drops."""

    unit = "ppm"


def stops(x):
    raise StopIteration


def masked(shape):
    return np.ma.masked_all(shape)


def store(values):
    return {"store": {0: np.zeros((4, 2, 4)), 1: values}, "rng": 0}


HOSTILE = [
    ("a unit", {"org_spectrum": SPECTRA.view(Quantity)}, "org_spectrum: expected plain numbers, received Quantity in"),
    ("a unit of errors", {"org_error": ERRORS.view(Quantity)}, "org_error: expected plain numbers"),
    ("a unit of the scaling", {"y_data_std": np.ones(2).view(Quantity)}, "y_data_std: expected plain numbers"),
    ("complex", {"org_spectrum": SPECTRA + 0j}, "org_spectrum: expected real numbers"),
    ("complex errors", {"org_error": ERRORS + 1j}, "org_error: expected real numbers"),
    ("dates", {"org_spectrum": np.zeros((3, 4), "datetime64[s]")}, "org_spectrum: expected real numbers"),
    ("durations", {"org_error": np.ones(4, "timedelta64[s]")}, "org_error: expected real numbers"),
    ("text", {"org_spectrum": np.full((3, 4), "1")}, "org_spectrum: expected real numbers"),
    ("bytes", {"org_error": np.full(4, b"1")}, "org_error: expected real numbers"),
    ("huge integers", {"org_spectrum": [[10**400] * 4] * 3}, "org_spectrum: expected numbers of shape"),
    ("ragged rows", {"org_spectrum": [[1, 2], [3]]}, "org_spectrum: expected numbers of shape"),
    ("objects in three axes", {"org_error": np.full((3, 4, 4), None)}, "org_error: expected"),
    ("dicts in three axes", {"org_error": [[[{}] * 4] * 4] * 3}, "org_error: expected numbers"),
    ("text in three axes", {"org_error": np.full((3, 4, 4), "a")}, "org_error: expected real numbers"),
    ("a mask", {"org_spectrum": masked((3, 4))}, "org_spectrum: expected no masked entries, received 12"),
    ("a masked covariance", {"org_error": masked((3, 4, 4))}, "org_error: expected no masked entries, received 48"),
    ("a mask in the scaling", {"y_data_mean": masked(2)}, "y_data_mean: expected no masked entries"),
    ("units in a list", {"org_spectrum": [row.view(Quantity) for row in SPECTRA]}, "org_spectrum: expected plain"),
    ("units in a tuple", {"y_data_std": (np.ones(1).view(Quantity),) * 2}, "y_data_std: expected plain numbers"),
    ("what to do about a unit", {"auxiliary": np.ones((3, 1)).view(Quantity)}, "give plain numbers in the unit of"),
    ("masks in a list", {"org_error": list(np.ma.masked_less(ERRORS, 1))}, "org_error: expected no masked entries"),
    ("text as objects", {"org_spectrum": np.full((3, 4), "1", object)}, "org_spectrum: expected real numbers"),
    ("complex as objects", {"org_error": np.full((3, 4), 1j, object)}, "org_error: expected real numbers"),
    ("Python's dates", {"org_spectrum": [[datetime.datetime(2026, 1, 1)] * 4] * 3}, "org_spectrum: expected numbers"),
    ("records", {"org_spectrum": np.zeros((3, 4), [("depth", float)])}, "org_spectrum: expected real numbers"),
    ("dates as auxiliary", {"auxiliary": np.zeros((3, 1), "datetime64[s]")}, "auxiliary: expected real numbers"),
    ("a complex scale", {"x_std": 1j}, "x_std: expected real numbers of shape () or (4,)"),
    ("errors that overflow", {"org_error": np.full((3, 4), 1e300)}, "org_error, scaled by x_std: expected"),
    ("directions of NaN", {"directions": [[np.nan] * 4]}, "directions: expected finite numbers, received NaN"),
    ("directions without end", {"directions": [[np.inf] * 4]}, "directions: expected finite numbers"),
    ("one direction as a row", {"directions": np.ones(4)}, "directions: expected shape (K, 4) or (3, K, 4)"),
    ("directions of four axes", {"directions": np.ones((1, 3, 1, 4))}, "directions: expected shape (K, 4)"),
    ("directions of other bins", {"directions": np.ones((1, 5))}, "received (1, 5)"),
    ("directions of two spectra", {"directions": np.ones((2, 1, 4))}, "directions: expected shape (K, 4) or (3, K, 4)"),
    ("no direction", {"directions": np.ones((0, 4))}, "received (0, 4)"),
    ("a direction in words", {"directions": "offset"}, "directions: expected real numbers"),
    ("directions with a unit", {"directions": np.ones((1, 4)).view(Quantity)}, "directions: expected plain numbers"),
    ("masked directions", {"directions": np.ma.masked_all((1, 4))}, "directions: expected no masked entries"),
    ("directions by name", {"directions": {"tilt": np.ones(4)}}, "directions: expected numbers of shape"),
    ("directions that overflow", {"directions": np.full((1, 4), 1e39)}, "directions, scaled by x_std: expected"),
    ("directions and groups", {"directions": np.ones((1, 4)), "groups": [[0, 1]]}, "groups: expected None, as"),
    ("a scale that overflows", {"x_std": 1e-300}, "org_spectrum, scaled by x_mean and x_std: expected numbers below"),
    ("auxiliary that overflows", {"auxiliary": np.full((3, 1), 1e300)}, "auxiliary: expected numbers below 3.4e+38"),
    ("a store that is a list", {"store": [], "rng": 0}, "store: expected a mutable mapping of int to arrays"),
    ("a store that is a number", {"store": 3, "rng": 0}, "store: expected a mutable mapping"),
    ("a store of another shape", store(np.zeros((4, 2, 5))), "finite maps (4, 2, 4) of spectrum 1, received (4, 2, 5)"),
    ("a store of None", store(None), "store: expected finite maps (4, 2, 4) of spectrum 1"),
    ("a store of text", store("map"), "store: expected finite maps (4, 2, 4) of spectrum 1, received str"),
    ("a store of NaN", store(np.full((4, 2, 4), np.nan)), "finite maps (4, 2, 4) of spectrum 1, received NaN"),
    ("a store of too many", store(np.zeros((9, 2, 4))), "finite maps (4, 2, 4) of spectrum 1, received (9, 2, 4)"),
    ("a model that stops", {"model": stops}, "received StopIteration"),
    ("a model of dates", {"model": lambda x: np.zeros((len(x), 2), "datetime64[s]")}, "model: expected"),
    ("a model of ragged rows", {"model": lambda x: [[1, 2]] * (len(x) - 1) + [[1]]}, "model: expected"),
    ("a model of None", {"model": lambda x: None}, "model: expected"),
    ("an executor in words", {"executor": "x"}, "executor: expected a concurrent.futures.Executor, received str"),
    ("covariance in words", {"covariance": "yes"}, "covariance: expected True or False, received 'yes'"),
    ("no model", {"model": None}, "model: expected .predict, or a callable, received NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "piece"), HOSTILE, ids=[row[0] for row in HOSTILE])
def test_hostile_argument_is_refused_in_one_line(name, change, piece):
    arguments = {
        "model": lambda x: np.asarray(x).reshape(len(x), -1) @ WEIGHTS,
        "y_test": None, "org_spectrum": SPECTRA, "org_error": ERRORS, "y_data_mean": np.zeros(2),
        "y_data_std": np.ones(2), "x_mean": 0.0, "x_std": 1.0, "no_spectra": None, "scheme": "single", **change,
    }  # fmt: skip
    with pytest.raises(ValueError) as refusal:
        sensitivity_map(**arguments)
    assert piece in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


LISTS = [
    ({"y_data_std": 1}, "y_data_std: expected a list of 2, one for each model, received int"),
    ({"x_mean": [0]}, "x_mean: expected a list of 2, one for each model, received 1"),
    ({"auxiliary": [None] * 3}, "auxiliary: expected a list of 2, one for each model, received 3"),
    ({"details": "x"}, "details: expected True or False, received 'x'"),
]


@pytest.mark.parametrize(("change", "message"), LISTS)
def test_arguments_of_several_models_are_refused_in_one_line(change, message):
    models = [lambda x: x @ WEIGHTS] * 2
    scaling = {"y_data_mean": [0, 0], "y_data_std": [1, 1], "x_mean": [0, 0], "x_std": [1, 1]}
    with pytest.raises(ValueError) as refusal:
        compute_sensitivty_org(models, None, SPECTRA, ERRORS, **(scaling | change))
    assert str(refusal.value) == message


def test_unknown_option_is_named():
    with pytest.raises(TypeError, match="no_specta: expected an option of sensitivity_map"):
        compute_sensitivty_org(lambda x: x @ WEIGHTS, None, SPECTRA, ERRORS, 0, 1, no_specta=3)


BAD_DIRECTIONS = [
    ("a zero point of NaN", lambda: offsets([0, 1], np.nan), "sigma: expected finite numbers"),
    ("endless zero points", lambda: offsets([0, 1], [np.inf, 1]), "sigma: expected finite numbers"),
    ("zero points with a unit", lambda: offsets([0, 1], np.ones(2).view(Quantity)), "sigma: expected plain numbers"),
    ("a bin without a channel", lambda: offsets([0, np.nan, np.nan], 1), "channel_of_bin: expected numbers, or names"),
    ("a channel of None", lambda: offsets([None, "NRS1"], 1), "received [None, 'NRS1']"),
    ("numbers and names", lambda: offsets([1, "NRS1"], 1), "received [1, 'NRS1']"),
    ("masked channels", lambda: offsets(np.ma.masked_all(2), 1), "channel_of_bin: expected numbers, or names"),
    ("channels of channels", lambda: offsets([[0], [1, 2]], 1), "received [[0], [1, 2]]"),
    ("channels of dicts", lambda: offsets([{}, {}], 1), "received [{}, {}]"),
    ("complex channels", lambda: offsets([1j, 1j], 1), "received [1j, 1j]"),
    ("one name for all", lambda: offsets("NRS1", 1), "received NRS1"),
    ("a tilt over NaN", lambda: tilt([1, np.nan], 1), "wavelength: expected finite numbers"),
    ("a tilt over dates", lambda: tilt(np.array([1, 2], "datetime64[D]"), 1), "wavelength: expected real numbers"),
    ("a tilt of two axes", lambda: tilt([[1, 2]], 1), "wavelength: expected shape (n_bins,), received (1, 2)"),
    ("a tilt of NaN", lambda: tilt([1, 2], np.nan), "sigma: expected finite numbers"),
    ("modes of NaN", lambda: modes([[np.nan, 0], [0, 1]], 1), "covariance: expected finite numbers"),
    ("true modes", lambda: modes(np.eye(2), True), "n: expected a positive integer up to 2, received True"),
    ("no modes", lambda: modes(np.eye(2), 0), "n: expected a positive integer up to 2, received 0"),
    ("masked noise", lambda: modes(np.ma.masked_all((2, 2)), 1), "covariance: expected no masked entries"),
    ("noise of four axes", lambda: modes(np.ones((1, 1, 2, 2)), 1), "covariance: expected shape (n_bins, n_bins)"),
    ("a correlation of 5", lambda: dragged([[1, 5], [5, 1]]), "expected correlations of 1 at most, received 5"),
    ("noise and errors of other spectra", lambda: dragged(np.eye(2)[None].repeat(3, 0), np.ones((4, 2))),
     "errors: expected shape (2,) or (3, 2), received (4, 2)"),
    ("one error for all", lambda: dragged(np.eye(2), 1.0), "errors: expected shape (2,) or (1, 2), received ()"),
    ("no noise", lambda: dragged(None), "covariance: expected"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "piece"), BAD_DIRECTIONS, ids=[row[0] for row in BAD_DIRECTIONS])
def test_hostile_direction_is_refused_in_one_line(name, call, piece):
    with pytest.raises(ValueError) as refusal:
        call()
    assert piece in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_quantities_of_astropy_are_refused():
    units = pytest.importorskip("astropy.units")
    for spectra in (SPECTRA * units.percent, [depth * units.percent for depth in SPECTRA]):
        with pytest.raises(ValueError, match="org_spectrum: expected plain numbers, received Quantity in %; give"):
            sensitivity_map(None, None, spectra, ERRORS, 0.0, 1.0, x_mean=0.0, x_std=1.0)
