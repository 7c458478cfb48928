"""Arguments of the sensitivity test that NumPy would take at a loss, or that broke it: one line of ValueError each."""

import numpy as np
import pytest

from sensitivity import sensitivity_map

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
    ("a scale that overflows", {"x_std": 1e-300}, "org_spectrum, scaled by x_mean and x_std: expected numbers below"),
    ("auxiliary that overflows", {"auxiliary": np.full((3, 1), 1e300)}, "auxiliary: expected numbers below 3.4e+38"),
    ("a store that is a list", {"store": [], "rng": 0}, "store: expected a mutable mapping of int to arrays"),
    ("a store that is a number", {"store": 3, "rng": 0}, "store: expected a mutable mapping"),
    ("a store of another shape", store(np.zeros((4, 2, 5))), "store: expected maps (4, 2, 4), received (4, 2, 5) for"),
    ("a store of None", store(None), "store: expected maps (4, 2, 4)"),
    ("a store of text", store("map"), "store: expected maps (4, 2, 4), received str for 1"),
    ("a store of NaN", store(np.full((4, 2, 4), np.nan)), "store: expected finite maps, received NaN"),
    ("a store of too many", store(np.zeros((9, 2, 4))), "received (9, 2, 4) for spectrum 1"),
    ("a model that stops", {"model": stops}, "received StopIteration"),
    ("a model of dates", {"model": lambda x: np.zeros((len(x), 2), "datetime64[s]")}, "model: expected"),
    ("a model of ragged rows", {"model": lambda x: [[1, 2]] * (len(x) - 1) + [[1]]}, "model: expected"),
    ("a model of None", {"model": lambda x: None}, "model: expected"),
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
