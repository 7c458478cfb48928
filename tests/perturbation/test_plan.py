"""From arguments to a plan: what is handed on, how large calls and chunks are, and numbers that float32 cannot hold."""

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from perturbation.engine import make_chunks
from perturbation.plan import CHUNK_SIZE, make_plan
from perturbation.probe import MAX_BATCH, probe_model

N, N_BINS, N_AMPS = 6, 4, 2
SPECTRA = np.arange(24.0).reshape(N, N_BINS)
ERRORS = np.full((N, N_BINS), 0.5)
X_STD = np.array([1.0, 2, 3, 4])


def model(x):
    return x.reshape(len(x), -1)[:, :N_AMPS] ** 2


def plan_of(spectra=SPECTRA, errors=ERRORS, x_mean=1.0, x_std=X_STD, auxiliary=None, y_data_mean=None,
            y_data_std=None, y_test=None, model=model, **options):  # fmt: skip
    own = {"model": model, "x_mean": x_mean, "x_std": x_std, "y_data_mean": y_data_mean, "y_data_std": y_data_std}
    how = {"scaled": True, "rng": 5, "input_layout": "flat", "scheme": "single", "no_spectra": None} | options
    return make_plan([own | {"auxiliary": auxiliary}], y_test, spectra, errors, **how)


def test_a_plan_holds_what_was_given_and_the_model_is_tried_with_three_spectra():
    seen = []

    def recorded(inputs):
        seen.append([part.copy() for part in inputs])
        return model(inputs[0])

    plan = plan_of(auxiliary=np.ones((N, 1)), model=recorded)
    assert np.array_equal(plan.spectra, SPECTRA) and np.array_equal(plan.noise, ERRORS)
    assert plan.x_mean.tolist() == [[1] * N_BINS] and plan.x_std.tolist() == [X_STD.tolist()]
    assert plan.auxiliary.dtype == np.float32 and not plan.is_covariance
    assert np.array_equal(seen[0][0][:3], ((SPECTRA[:3] - 1) / X_STD).astype(np.float32))
    assert seen[0][1].tolist() == [[1]] * 12
    (chunk,) = make_chunks(replace(plan, chunk_size=N), np.arange(N))
    np.testing.assert_allclose(chunk.spectra[0], (SPECTRA - 1) / X_STD)
    assert chunk.auxiliary.shape == (1, N, 1)
    seen.clear()
    plan_of(SPECTRA[:2], ERRORS[:2], auxiliary=np.ones((2, 1)), model=recorded)
    np.testing.assert_allclose(seen[0][0][:3], (SPECTRA[[0, 1, 1]] - 1) / X_STD * [[1], [1], [1.001]], rtol=1e-6)


def test_directions_come_before_errors_and_covariances_keep_their_axes():
    plan = plan_of(errors=None, directions=np.ones((3, N_BINS)))
    assert plan.noise.shape == (1, 3, N_BINS) and not plan.is_covariance
    plan = plan_of(directions=np.ones((N, 3, N_BINS)), covariance=False)
    assert plan.noise.shape == (N, 3, N_BINS)
    assert plan_of(errors=np.eye(N_BINS), scheme="halving").is_covariance
    with pytest.raises(
        ValueError, match=r"^org_error: expected an array, required unless directions are given, received None$"
    ):
        plan_of(errors=None)
    with pytest.raises(ValueError, match=r"^org_error: expected shape"):  # checked even where it is not used
        plan_of(errors=np.ones((N, 3)), directions=np.ones((3, N_BINS)))


LARGE = 1e40  # more than float32 holds


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("org_spectrum, scaled by x_mean and x_std", {"spectra": np.where(SPECTRA == 7, LARGE, SPECTRA)}),
        ("org_spectrum, scaled by x_mean and x_std", {"spectra": np.where(SPECTRA == 7, -LARGE, SPECTRA)}),
        ("org_spectrum, scaled by x_mean and x_std", {"x_std": 1e-39}),
        ("org_spectrum, scaled by x_mean and x_std", {"x_mean": LARGE}),
        ("org_spectrum, scaled by x_mean and x_std", {"spectra": SPECTRA * 1e300, "x_std": 1e-300}),
        ("org_error, scaled by x_std", {"errors": ERRORS * LARGE}),
        ("org_error, scaled by x_std", {"spectra": SPECTRA * 0, "x_mean": 0.0, "x_std": 1e-39}),
        ("directions, scaled by x_std", {"directions": np.full((1, N_BINS), LARGE)}),
        ("directions, scaled by x_std", {"directions": np.full((1, N_BINS), -LARGE)}),
        ("auxiliary", {"auxiliary": np.full((N, 1), -LARGE)}),
    ],
)
def test_numbers_too_large_for_float32_are_refused_by_name(name, options):
    with pytest.raises(ValueError, match=f"^{name}: expected numbers below 3.4e\\+38, received larger ones$"):
        plan_of(**options)


def test_the_largest_float32_is_taken():
    largest = float(np.finfo(np.float32).max)
    plan = plan_of(auxiliary=np.full((N, 1), largest), model=lambda x: model(x[0]))
    assert plan.auxiliary[0, 0] == np.float32(largest)


def test_plans_of_bins_groups_and_directions():
    single = plan_of()
    assert single.labels.tolist() == [0, 1, 2, 3] and single.rule.n_nodes == 5
    assert (single.scheme, single.shuffle, single.repeat) == ("single", False, 0)
    halving = plan_of(scheme="halving", repeat=7)
    assert (halving.scheme, halving.shuffle, halving.rule, halving.repeat) == ("halving", True, None, 7)
    along = np.ones((3, N_BINS))
    moved = plan_of(directions=along, nodes=3, rule="spline")
    assert moved.labels.tolist() == [0, 1, 2] and (moved.scheme, moved.shuffle) == ("directions", False)
    assert (moved.rule.name, moved.rule.n_nodes) == ("spline", 3)
    with pytest.raises(ValueError, match=r"^groups: expected None, as directions are given, received both$"):
        plan_of(groups=[[0]], directions=along)
    with pytest.raises(ValueError, match=r"^repeat: "):  # checked even where it is not used
        plan_of(repeat=0)


def test_a_plan_holds_what_was_settled():
    plan = plan_of(scaled=False, y_data_mean=[0, 0], y_data_std=[3, 4], gases=["H2O", "Tp"], batch_size=50)
    assert plan.unit.tolist() == [[3], [4]] and [amp.key for amp in plan.amps] == ["H2O", "Tp"]
    assert (plan.batch_size, plan.seed, plan.calls[0].layout, plan.n_amps) == (50, 5, "flat", N_AMPS)
    assert plan.shape == (N_AMPS, N_BINS) and plan.used.tolist() == list(range(N)) and plan.wanted.all()
    scaled = plan_of(y_data_mean=[0, 0], y_data_std=[3, 4])
    assert scaled.unit.tolist() == [[1], [1]] and scaled.amps == [] and scaled.batch_size == MAX_BATCH


def test_the_number_of_amps_is_that_of_their_scaling_where_there_is_one():
    with pytest.raises(ValueError, match=r"^model: expected output \(12, 3\), received \(12, 2\)"):
        plan_of(y_data_mean=np.zeros(3), y_data_std=np.ones(3))
    with pytest.raises(ValueError, match=r"^y_data_mean: expected the number"):
        plan_of(scaled=False)
    with pytest.raises(ValueError, match=r"^y_data_mean: expected the number"):  # one of them is no scaling
        plan_of(y_data_std=np.ones(2))


def test_the_first_spectra_are_chosen_and_minus_one_means_all():
    assert plan_of(no_spectra=2).used.tolist() == [0, 1]
    assert plan_of(no_spectra=-1).used.tolist() == plan_of(no_spectra=None).used.tolist() == list(range(N))
    truth = np.array([[-5.0, 0], [-9, 0], [-5, 0], [-9, 0], [-5, 0], [-9, 0]])
    plan = plan_of(y_test=truth, gases=["H2O", "x"], abundance={"H2O": (-6, -4)}, no_spectra=2)
    assert plan.wanted.T.tolist() == [[True, False, True, False, False, False], [True, True] + [False] * 4]
    assert plan.used.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"no_spectra": 0}, "no_spectra: expected a positive integer, or None (-1) for all, received 0"),
        ({"batch_size": 0}, "batch_size: expected a positive integer, received 0"),
        ({"chunk_size": 0}, 'chunk_size: expected a positive integer or "auto", received 0'),
        ({"chunk_size": "large"}, "chunk_size: expected a positive integer or \"auto\", received 'large'"),
    ],
)
def test_sizes_that_are_none_are_refused_in_one_line(options, line):
    with pytest.raises(ValueError) as caught:
        plan_of(**options)
    assert str(caught.value) == line


# Sizes of chunks. A spectrum has 1 + 4 x 4 rows: five nodes, of which one is the centre of all four bins.


@pytest.mark.parametrize(
    ("batch_size", "given", "taken"),
    [
        (17, "auto", CHUNK_SIZE),
        (17 * 3, "auto", 3 * 12),
        (17 * 100, "auto", 12 * N),
        (17 * 5, "auto", 12 * 3),
        (17 * 3, 1, 3),
        (17 * 3, 3, 3),
        (17 * 3, 4, 6),
        (10, 5, 5),
    ],
)
def test_a_chunk_fills_whole_calls_twelve_if_they_are_small(batch_size, given, taken):
    assert plan_of(batch_size=batch_size, chunk_size=given).chunk_size == taken


def test_chunks_of_random_repeats_are_of_any_size():
    for given, taken in (("auto", CHUNK_SIZE), (5, 5)):
        assert plan_of(scheme="halving", batch_size=51, chunk_size=given).chunk_size == taken


class Here:
    """An executor of this process that keeps the names of what it is given."""

    def __init__(self, seconds=0.01, **attributes):
        self.seconds, self.names, self.tried = seconds, [], []
        vars(self).update(attributes)

    def submit(self, function, *args):
        self.names.append(function.__name__)
        future = Future()
        if function is probe_model:
            future.set_result(function(*args))
        else:
            self.tried.append(len(args[1].indices))
            future.set_result(self.seconds)
        return future


@pytest.mark.parametrize(
    ("executor", "size"),
    [
        (Here(0.01, chunks_ahead=1), 6),  # all there are, for the only worker
        (Here(0.25, chunks_ahead=1), 4),  # a second of work
        (Here(5.0, chunks_ahead=1), 2),  # a whole call at least
        (Here(0.01, chunks_ahead=3), 2),  # a share for each
        (Here(0.01), 2),
        (Here(0.0, chunks_ahead=1), 6),
    ],
)
def test_a_worker_measures_how_many_spectra_fill_a_second(executor, size):
    assert plan_of(batch_size=17 * 2, executor=executor).chunk_size == size
    assert executor.names == ["probe_model", "time_chunk"] and executor.tried == [2]


def test_the_size_of_a_chunk_is_bounded_by_the_maps_that_come_back(monkeypatch):
    monkeypatch.setattr("perturbation.plan.CHUNK_BYTES", 8 * 4 * N_AMPS * N_BINS * 3.5)
    assert plan_of(batch_size=17, executor=Here(chunks_ahead=1)).chunk_size == 3


def test_a_size_that_is_given_is_not_measured():
    executor = Here()
    assert plan_of(batch_size=17, chunk_size=4, executor=executor).chunk_size == 4
    assert executor.names == ["probe_model"]


# Covariances along single bins


def test_bins_of_a_covariance_move_by_their_own_error():
    covariance = np.diag([1.0, 4, 9, 0]) + np.eye(N_BINS, k=1) * 0.1 + np.eye(N_BINS, k=-1) * 0.1
    covariance[3, 2] = covariance[2, 3] = 0
    plan = plan_of(errors=covariance)
    assert plan.noise.shape == (N, N_BINS) and not plan.is_covariance
    assert plan.noise[-1].tolist() == [1, 2, 3, 0]
    each = covariance * np.arange(1.0, N + 1)[:, None, None]
    plan = plan_of(errors=each)
    np.testing.assert_allclose(plan.noise, np.sqrt(np.arange(1, N + 1))[:, None] * [1, 2, 3, 0])


def test_covariances_of_the_spectra_in_use_are_checked_and_named():
    each = np.tile(np.eye(N_BINS), (N, 1, 1))
    each[3, 0, 0] = -1
    assert plan_of(errors=each, no_spectra=3).used.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^org_error, spectrum 3: expected no negative eigenvalue, received -1"):
        plan_of(errors=each, no_spectra=4)
    with pytest.raises(ValueError, match=r"^org_error: expected no negative eigenvalue, received -1"):
        plan_of(errors=-np.eye(N_BINS))
