"""One way to call any network: what is asked of a model, what its answer must be, and stand-ins for frameworks.

The stand-ins hold the rules where a framework is not installed; real ones are in test_sensitivity_models.py.
"""

import contextlib
import sys
import types

import numpy as np
import pytest

from perturbation import predictors
from perturbation.engine import Chunk, run_chunk
from perturbation.plan import Plan
from perturbation.predictors import ModelLoader, Predictor, declared_inputs
from perturbation.probe import MAX_BATCH, MAX_OUTPUT, probe_model

N_BINS, N_AMPS = 4, 2
ROWS = np.arange(12, dtype=np.float32).reshape(3, N_BINS)


def summed(x):
    return np.stack([x.reshape(len(x), -1).sum(axis=1)] * N_AMPS, axis=1)


def answer(model, n_amps=N_AMPS, layout="flat", **options):
    return Predictor(model, n_amps, layout, declared=tuple(declared_inputs(model)))(ROWS, **options)


# Recipes


def test_a_recipe_is_followed_once_until_its_file_changes(tmp_path):
    path, loads = tmp_path / "weights", []

    def load(*args):
        loads.append(args)
        return summed

    path.write_text("one")
    for given in (path, str(path)):
        loader = ModelLoader(load, given, "other")
        assert loader.get() is loader.get() is summed and loads == [(given, "other")]
        path.write_text(f"{given} two")
        loader.get()
        assert loads == [(given, "other")] * 2
        loads.clear()
    missing = ModelLoader(load, tmp_path / "nothing")
    assert missing.get() is missing.get() and len(loads) == 1
    assert np.array_equal(answer(ModelLoader(load, 3)), summed(ROWS))
    with pytest.raises(ValueError, match=r"^load: expected a function that returns a model, received str$"):
        ModelLoader("model.keras")


# What a model is given, and may answer


def test_rows_are_given_in_the_layout_of_the_model():
    shapes = []
    for layout in ("flat", "channel"):
        answer(lambda x: shapes.append(x.shape) or summed(x), layout=layout)
    assert shapes == [(3, N_BINS), (3, N_BINS, 1)]


@pytest.mark.parametrize("auxiliary", [np.array([5.0, 6.0]), np.array([[5.0, 6.0]] * 3)])
def test_the_second_input_has_a_row_for_each_spectrum(auxiliary):
    seen = []
    answer(lambda inputs: seen.append(inputs) or summed(inputs[0]), auxiliary=auxiliary)
    ((rows, second),) = seen
    assert np.array_equal(rows, ROWS) and second.tolist() == [[5, 6]] * 3 and second.flags.owndata


def test_predict_comes_before_a_call_and_one_of_them_there_must_be():
    class Both:
        def predict(self, x):
            return summed(x)

        def __call__(self, x):
            raise AssertionError

    assert np.array_equal(answer(Both()), summed(ROWS))
    called = types.SimpleNamespace(predict=None)
    with pytest.raises(ValueError, match=r"^model: expected .predict, or a callable, received SimpleNamespace$"):
        answer(called)
    called.sample = np.zeros
    with pytest.raises(ValueError, match=r"received SimpleNamespace; for samples, give posterior_summary a function"):
        answer(called)


def test_one_column_may_come_flat():
    for n_amps in (1, None):
        assert answer(lambda x: x[:, 0], n_amps).tolist() == [[0], [4], [8]]
    with pytest.raises(ValueError, match=r"^model: expected output \(3, 2\), received \(3,\)$"):
        answer(lambda x: x[:, 0], 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_numbers_of_other_types_become_floats(dtype):
    found = answer(lambda x: summed(x).astype(dtype))
    assert found.dtype.kind == "f" and np.array_equal(found, summed(ROWS))


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (lambda x: summed(x) > 0, "expected real numbers, received bool"),
        (lambda x: summed(x).astype(object), "expected real numbers, received object"),
        (lambda x: summed(x) * 1j, "expected real numbers, received complex64"),
        (lambda x: summed(x).astype(str), "expected real numbers, received <U"),
        (lambda x: [[1, 2], [3]], "expected an array, received list"),
        (lambda x: summed(x)[:2], r"expected output \(3, 2\), received \(2, 2\)"),
        (lambda x: summed(x)[:, :1], r"expected output \(3, 2\), received \(3, 1\)"),
        (
            lambda x: summed(x)[None],
            r"expected .*, received \(1, 3, 2\); for samples, give posterior_summary\(model\)$",
        ),
        (lambda x: next(iter(())), "expected predictions for these, received StopIteration"),
        (
            lambda x: np.where(summed(x) == 22, np.inf, summed(x)),
            r"expected finite output, received \[inf inf\] for row 1 of these",
        ),
    ],
)
def test_answers_that_are_none_are_refused_in_one_line(output, line):
    with pytest.raises(ValueError, match=f"^model: {line}"):
        answer(output, name="these")


def test_functions_that_hand_arrays_to_pytorch_are_told_to_give_the_module():
    def handed_on(x):
        raise TypeError("linear(): argument 'input' (position 1) must be Tensor, not numpy.ndarray")

    with pytest.raises(ValueError, match=r"^model: expected .* must be Tensor.*; give the PyTorch module itself$"):
        probe(handed_on)
    with pytest.raises(TypeError, match=r"^another$"):
        answer(lambda x: (_ for _ in ()).throw(TypeError("another")))


def test_any_number_of_columns_is_taken_where_none_is_known():
    assert answer(lambda x: x, None).shape == (3, N_BINS)
    with pytest.raises(ValueError, match=r"expected output \(3, n_AMPs\), received \(2, 4\)"):
        answer(lambda x: x[:2], None)


# How a model wants its input


def probe(model, layout=None, n_amps=N_AMPS, auxiliary=None, n_bins=N_BINS):
    return probe_model(model, np.arange(3.0 * n_bins).reshape(3, n_bins), n_amps, auxiliary, layout)


def only(ndim, **attributes):
    """A model that takes arrays of so many dimensions."""

    class Model:
        def predict(self, x):
            assert x.ndim == ndim and x.dtype == np.float32 and len(x) in (1, 12), f"takes {ndim} dimensions"
            return summed(x)

    model = Model()
    vars(model).update(attributes)
    return model


def test_layouts_are_tried_in_turn_and_the_first_that_works_is_taken():
    assert probe(only(3)).predictor.layout == "channel" and probe(only(2)).predictor.layout == "flat"
    assert probe(summed).predictor.layout == "channel"
    assert probe(summed, "flat").predictor.layout == "flat"
    assert probe(ModelLoader(only, 2)).predictor.layout == "flat"
    with pytest.raises(ValueError) as refusal:
        probe(only(5))
    message = str(refusal.value)
    assert message.startswith(
        "model: expected one that takes (N, 4, 1), (N, 4) or (N, 1, 4), received errors: channel: "
    )
    assert [f"{layout}: takes 5 dimensions" in message for layout in predictors.LAYOUTS] == [True] * 3


def test_what_the_user_says_is_tried_alone():
    with pytest.raises(AssertionError, match="takes 2 dimensions"):
        probe(only(2), "channel")
    with pytest.raises(
        ValueError,
        match=r"^input_layout: expected one of \('channel', 'flat', 'channel_first'\) or None, received 'x'$",
    ):
        probe(summed, "x")


@pytest.mark.parametrize(
    ("declared", "layout"),
    [
        ({"input_shape": (None, N_BINS, 1)}, "channel"),
        ({"input_shape": (None, N_BINS)}, "flat"),
        ({"input_shape": (None, None)}, "flat"),
        ({"input_shape": [(None, N_BINS), (None, 7)]}, "flat"),
        ({"input_shape": {"spectrum": (None, N_BINS), "planet": (None, 7)}}, "flat"),
        ({"n_features_in_": N_BINS}, "flat"),
    ],
)
def test_what_a_model_declares_is_tried_alone(declared, layout):
    ndim = {"channel": 3, "flat": 2}[layout]
    assert probe(only(ndim, **declared)).predictor.layout == layout
    with pytest.raises(AssertionError, match="takes 5 dimensions"):
        probe(only(5, **declared))
    if declared != {"input_shape": (None, None)}:  # any number
        with pytest.raises(ValueError, match=r"^org_spectrum: expected 4 bins as the model does, received 5$"):
            probe(only(ndim, **declared), n_bins=5)


@pytest.mark.parametrize("declared", [{"input_shape": (None, 1, N_BINS, 1)}, {"n_features_in_": "four"}])
def test_a_declaration_that_says_nothing_is_passed_over(declared):
    assert probe(only(2, **declared)).predictor.layout == "flat"
    assert probe(only(3, **declared)).predictor.layout == "channel"


def test_a_probe_tells_the_number_of_outputs_and_gives_the_second_input():
    assert probe(summed, n_amps=None).predictor.n_amps == N_AMPS
    of_two = probe(lambda inputs: summed(inputs[0]) + inputs[1][:, :1], auxiliary=np.ones((3, 1)))
    assert of_two.predictor.n_amps == N_AMPS


def layer(*shape):
    return types.SimpleNamespace(output=types.SimpleNamespace(shape=shape))


@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ([], MAX_BATCH),
        ([layer(None, 10)], MAX_BATCH),
        ([layer(None, 1000), layer(None, 20, 100), layer(None, None, 50)], MAX_OUTPUT // 2000),
        ([layer(None, 10**6)], 64),
        ([types.SimpleNamespace(), types.SimpleNamespace(output=[1, 2]), layer(None, 1000)], MAX_OUTPUT // 1000),
    ],
)
def test_batches_are_as_large_as_the_widest_layer_allows(layers, size):
    assert probe(only(3, layers=layers)).batch_size == size


# Stand-ins for frameworks


@pytest.fixture
def keras(monkeypatch):
    module = types.ModuleType("keras")

    class Model:
        calls = ()

        def predict(self, x):
            raise AssertionError("slow")

        def predict_on_batch(self, x):
            self.calls = (*self.calls, len(x[0] if isinstance(x, list) else x))
            return summed(x[0] if isinstance(x, list) else x)

    module.Model = Model
    module.backend = types.SimpleNamespace(backend=lambda: module.name)
    module.name = "tensorflow"
    monkeypatch.setitem(sys.modules, "keras", module)
    return module


def test_keras_is_called_by_batches_and_by_threads_only_on_tensorflow(keras):
    assert np.array_equal(answer(keras.Model()), summed(ROWS))
    assert Predictor(keras.Model(), N_AMPS, "flat").is_thread_safe
    keras.name = "jax"
    assert not Predictor(keras.Model(), N_AMPS, "flat").is_thread_safe
    assert not Predictor(summed, N_AMPS, "flat").is_thread_safe

    class Own(keras.Model):
        def predict(self, x):
            return 2 * summed(x)

    assert np.array_equal(answer(Own()), 2 * summed(ROWS))


@pytest.mark.parametrize("auxiliary", [None, np.array([[1.0], [2.0]], np.float32)])
def test_keras_on_threads_is_traced_before_and_answers_as_alone(keras, auxiliary):
    spectra = ROWS[:2]
    chunk = Chunk(
        np.array([0, 1]), spectra[None], np.ones_like(spectra)[None], None if auxiliary is None else auxiliary[None]
    )
    plan = Plan(
        None, None, False, np.zeros((1, 4)), np.ones((1, 4)), None, "halving", np.array([0, 0, 1, 1]), True, None, 6,
        calls=(Predictor(None, N_AMPS, "flat"),), batch_size=7,
    )  # fmt: skip
    model = keras.Model()
    maps = run_chunk([model], chunk, plan)
    assert model.calls == (2, 3, *[7] * 4)
    run_chunk([model], chunk, plan)
    assert model.calls == (2, 3, *[7] * 8)
    alone = run_chunk([lambda x: summed(x[0] if isinstance(x, list) else x)], chunk, plan)
    assert np.array_equal(maps, alone)


class Tensor:
    """What is asked of a tensor: to be detached, brought back, and read."""

    def __init__(self, array):
        self.array, self.dtype, self.device = array, "float32", "here"

    def detach(self):
        return types.SimpleNamespace(cpu=lambda: self.array)


def test_torch_modules_run_in_evaluation_mode_and_are_left_as_they_were(monkeypatch):
    torch, given, modes = types.ModuleType("torch"), [], []

    class Module:
        training = True

        def __init__(self, *parts):
            self.parts = parts

        def parameters(self):
            return iter([Tensor(np.ones(1))])

        def modules(self):
            return [self, *self.parts]

        def eval(self):
            for part in self.modules():
                part.training = False

        def __call__(self, *tensors):
            modes.append([part.training for part in self.modules()])
            return Tensor(summed(tensors[0]))

    def as_tensor(array, dtype, device):
        given.append((array.shape, dtype, device))
        return array

    vars(torch).update(
        nn=types.SimpleNamespace(Module=Module), no_grad=contextlib.nullcontext, as_tensor=as_tensor, empty=Tensor
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    frozen = Module()
    frozen.training = False
    network = Module(Module(), frozen)
    assert np.array_equal(answer(network), summed(ROWS))
    answer(network, auxiliary=np.ones(2, np.float32))
    assert given == [((3, 4), "float32", "here")] * 2 + [((3, 2), "float32", "here")]
    assert modes == [[False] * 3] * 2 and [part.training for part in network.modules()] == [True, True, False]
    assert not predictors.TORCH_LOCK.locked()
