"""One way to call any network: (rows, n_bins) float32 in, (rows, n_AMPs) out, checked.

Keras models, objects with ``.predict`` (scikit-learn), PyTorch modules and plain callables (JAX, a lambda) all
become a `Predictor`. No framework is imported here: a model is asked what it can do, or is tried, in ``probe``.
"""

import functools
import json
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

LAYOUTS = ("channel", "flat", "channel_first")  # (rows, n_bins, 1), (rows, n_bins) and (rows, 1, n_bins)
CALLS_AT_ONCE = 3  # of a network that allows it: one is always in the network while others prepare and add up
SETTLED = weakref.WeakSet()  # Keras models that threads may call
KERAS_ON_TENSORFLOW = "keras.src.backend.tensorflow.trainer"  # module of its ``predict_on_batch``
GRAPHS = weakref.WeakKeyDictionary()  # {predict function of a Keras model: {shape of a row: function or None}}
TORCH_LOCK = threading.Lock()  # for the mode of a module is changed and restored around each call


class ModelLoader:
    """A model given as a recipe, loaded once in every process that uses it: what worker processes should be given.

    Parameters
    ----------
    load : callable
        Importable function that returns the model, for example ``sensitivity.load_keras``.
    *args : hashable
        Its arguments, for example the path of the file. A file that changed on disk is loaded again.
    """

    def __init__(self, load, *args):
        if not callable(load):
            raise ValueError(f"load: expected a function that returns a model, received {type(load).__name__}")
        self.load, self.args = load, args

    def get(self):
        """Return the model, from this process's memory when it was loaded before."""
        return _load_once(self.load, self.args, tuple(_file_stamp(arg) for arg in self.args))


@functools.lru_cache(maxsize=16)
def _load_once(load, args, _stamps):
    return load(*args)


def _file_stamp(arg):
    if isinstance(arg, str | os.PathLike) and os.path.isfile(arg):
        status = os.stat(arg)
        return status.st_mtime_ns, status.st_size
    return None


def load_keras(path):
    """Load a Keras network for prediction: a ``.keras`` file, or an ``.h5`` file that Keras 2 or 3 wrote.

    Losses, metrics and the optimiser are left out: Keras 3 cannot read those of many files of Keras 2. Nor does it know
    ``time_major`` of recurrent layers; a network that used it is refused by a ValueError.
    """
    import keras

    if not str(path).endswith((".h5", ".hdf5")):
        return keras.models.load_model(path, compile=False)
    import h5py

    def in_keras_3(part):
        if part.get("class_name") == "Policy":  # of mixed precision, which Keras 3 takes by its name
            return part["config"]["name"]
        if part.pop("time_major", False):
            raise ValueError(f"{path}: expected layers with time_major=False, received True for {part.get('name')}")
        return part

    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        with h5py.File(copy, "r+") as file:
            config = json.loads(file.attrs["model_config"], object_hook=in_keras_3)
            file.attrs["model_config"] = json.dumps(config)
        return keras.models.load_model(copy, compile=False)


@dataclass(frozen=True)
class Predictor:
    """A model with everything settled that is needed to call it; ``probe`` settles it, and leaves the model out."""

    model: object  # Keras model, object with ``.predict``, PyTorch module, callable, or a `ModelLoader` of one of these
    n_amps: int | None  # columns the output must have; None accepts any
    layout: str  # one of `LAYOUTS`
    output: object = None  # which of several outputs are meant: str, int or a list of these, put side by side
    auxiliary_first: bool | None = None  # order of two inputs; None: as their declared shapes say, else spectrum first
    n_calls: int = 1  # predictions whose mean is taken, for models that predict at random
    declared: tuple = ()  # what `declared_inputs` says of the model

    @functools.cached_property
    def loaded(self):
        """The model itself."""
        return self.model.get() if isinstance(self.model, ModelLoader) else self.model

    @functools.cached_property
    def is_thread_safe(self):
        """Whether several threads may call the model at a time: known of Keras on TensorFlow, not assumed of others."""
        return is_keras(self.loaded) and sys.modules["keras"].backend.backend() == "tensorflow"

    @functools.cached_property
    def function(self):
        """The quickest way into the model."""
        model = self.loaded
        if is_keras(model):
            return functools.partial(_call_keras, model)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(model, torch.nn.Module):  # even if it defines ``predict``
            return functools.partial(_call_torch, torch, model)
        if callable(getattr(model, "predict", None)):
            return model.predict
        if callable(model):
            return model
        samples = "; for samples, give posterior_summary a function" if hasattr(model, "sample") else ""
        raise ValueError(f"model: expected .predict, or a callable, received {type(model).__name__}{samples}")

    @property
    def fixed_rows(self):
        """Rows that each call must have, where the model was built for one number of rows; else None."""
        rows = self.declared[0][1][0] if self.declared else None
        return rows if isinstance(rows, int) else None

    def __call__(self, rows, auxiliary=None, name="the rows"):
        """Return the model's predictions for ``rows`` (rows, n_bins) as an array (rows, n_amps), scaled units.

        ``auxiliary`` is the second input of a two-input model, (rows, k), or (k,) for the same in all rows. An output
        that is not (rows, n_amps) or not finite is a ValueError, and ``name`` says in the message where.
        """
        if self.n_calls == 1:
            return self._call_once(rows, auxiliary, name)
        each = (self._call_once(rows.copy(), auxiliary, name) for _ in range(self.n_calls))  # it may write on them
        return sum(predictions.astype(float) for predictions in each) / self.n_calls

    def _call_once(self, rows, auxiliary, name):
        """Call the model once, in blocks where it was built for a number of rows."""
        if auxiliary is not None:
            auxiliary = np.array(np.broadcast_to(auxiliary, (len(rows), auxiliary.shape[-1])))  # (rows, k)
        n = self.fixed_rows or len(rows)
        if n == len(rows):
            predictions = self._numbers(rows, auxiliary, name)
        else:
            blocks = np.minimum(np.arange(-(-len(rows) // n) * n), len(rows) - 1).reshape(-1, n)
            second = [None if auxiliary is None else auxiliary[block] for block in blocks]
            parts = [self._numbers(rows[block], more, name) for block, more in zip(blocks, second)]
            predictions = np.concatenate(parts)[: len(rows)]
        finite = np.isfinite(predictions)
        if not finite.all():
            row = int(np.argmin(finite.all(axis=1)))
            raise ValueError(f"model: expected finite output, received {predictions[row]} for row {row} of {name}")
        return predictions

    def _numbers(self, rows, auxiliary, name):
        """Call the model with one block of rows; return its output as numbers (rows, n_amps)."""
        try:
            output = self.function(self.inputs(rows, auxiliary))
        except TypeError as error:
            if "must be Tensor" not in str(error):
                raise
            words = f"expected a function of arrays, received the error: {error}"
            raise ValueError(f"model: {words}; give the PyTorch module itself") from error
        except StopIteration:  # it would end a loop over chunks as if all were done
            raise ValueError(f"model: expected predictions for {name}, received StopIteration") from None
        arrays = [as_floats(part) for part in chosen_outputs(output, self.output)]
        if len(arrays) > 1 or self.n_amps in (None, 1):  # one number for each row may be a column
            arrays = [array[:, None] if array.shape == (len(rows),) else array for array in arrays]
        fits = all(array.ndim == 2 and len(array) == len(rows) for array in arrays)
        if not fits or self.n_amps not in (None, sum(array.shape[1] for array in arrays)):
            columns = "n_AMPs" if self.n_amps is None else self.n_amps
            received = " and ".join(str(array.shape) for array in arrays)
            samples = "; for samples, give posterior_summary(model)" if any(array.ndim == 3 for array in arrays) else ""
            raise ValueError(f"model: expected output ({len(rows)}, {columns}), received {received}{samples}")
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)

    def inputs(self, rows, auxiliary=None):
        """Return what the model is given: (rows, n_bins) in its layout, with the second input if there is one."""
        if self.layout != "flat":
            rows = rows[:, :, None] if self.layout == "channel" else rows[:, None, :]
        if auxiliary is None:
            return rows
        names = [name for name, _ in self.declared]
        first = self.auxiliary_first
        if first is None:
            declared, shapes = [shape[1:] for _, shape in self.declared], (auxiliary.shape[1:], rows.shape[1:])
            first = declared == list(shapes) and shapes[0] != shapes[1]
        pair = [auxiliary, rows] if first else [rows, auxiliary]
        return dict(zip(names, pair)) if names and names[0] is not None else pair


def is_keras(model):
    """Whether this is a Keras model that predicts as Keras does, not by a ``predict`` that overrides it."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model) and type(model).predict is keras.Model.predict


def declared_inputs(model):
    """Return (name or None, shape) of each input that a model declares, rows first; [] where it says nothing."""
    if is_keras(model) and isinstance(getattr(model, "input", None), Mapping):
        return [(name, tuple(tensor.shape)) for name, tensor in model.input.items()]
    shape = getattr(model, "input_shape", None)
    if shape is None and callable(getattr(model, "get_build_config", None)):  # a Keras model that was subclassed
        shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None and isinstance(getattr(model, "n_features_in_", None), int):  # scikit-learn
        shape = (None, model.n_features_in_)
    if isinstance(shape, Mapping):
        return [(name, tuple(part)) for name, part in shape.items()]
    if isinstance(shape, list) and all(isinstance(part, tuple | list) for part in shape):
        return [(None, tuple(part)) for part in shape]
    return [(None, tuple(shape))] if isinstance(shape, tuple | list) else []


def chosen_outputs(output, choice):
    """Return the outputs that are meant, as a list; for a model with several, ``output`` must name them."""
    if isinstance(output, Mapping):
        names = list(output)
    elif isinstance(output, list | tuple) and any(getattr(part, "ndim", 0) > 1 for part in output):
        names = list(range(len(output)))
    else:
        if choice is not None:
            raise ValueError(f"output: expected None, as the model has one output, received {choice!r}")
        return [output]
    if choice is None and len(names) == 1:
        choice = names
    wanted = choice if isinstance(choice, list) else [choice]
    if not wanted or any(isinstance(name, bool) or name not in names for name in wanted):
        raise ValueError(f"output: expected one or a list of the model's outputs {names}, received {choice!r}")
    return [output[name] for name in wanted]


def as_floats(output):
    """Return an output of any type as an array of floats."""
    if hasattr(output, "detach"):  # a tensor that still carries its gradient
        output = output.detach().cpu()
        if str(getattr(output, "dtype", "")) == "torch.bfloat16":  # NumPy has no such type
            output = output.float()
    try:
        output = np.asarray(output)
    except (TypeError, ValueError):  # rows of several lengths
        raise ValueError(f"model: expected an array, received {type(output).__name__}") from None
    if output.dtype.kind in "bcOSUMm":
        raise ValueError(f"model: expected real numbers, received {output.dtype}")
    # Differences of integers could wrap around; "V" is bfloat16 of JAX and TensorFlow
    return output if output.dtype.kind == "f" else output.astype(float)


def _call_keras(model, inputs):
    """Predict as ``predict_on_batch`` does, bit for bit, by the graph behind it where one serves any number of rows."""
    on_tensorflow = getattr(model.predict_on_batch, "__module__", None) == KERAS_ON_TENSORFLOW
    if on_tensorflow and isinstance(inputs, np.ndarray) and inputs.dtype == np.float32:
        model.make_predict_function()  # a new one only where there is none, as after ``compile``
        graphs = GRAPHS.setdefault(model.predict_function, {})
        shape = inputs.shape[1:]
        if shape not in graphs:
            graphs[shape] = _graph(model, shape)
        if graphs[shape] is not None:
            return graphs[shape](inputs)
    return model.predict_on_batch(inputs)


def _graph(model, shape):
    """Return the graph that predicts from rows of that shape (float32) as a function, or None if Keras runs none.

    It is what Keras uses itself, without the Python around it (a third of the time of 209 rows), and holds neither the
    model nor copies of its weights; TensorFlow keeps 0.1 to 1 MB for each until ``keras.utils.clear_session()``.
    It takes one output and one input, declared for any number of rows, not for those of the call that built the model.
    """
    tensorflow, declared = sys.modules["tensorflow"], getattr(model, "inputs", None) or ()
    if len(declared) != 1 or declared[0].shape[0] is not None:
        return None
    rows = tensorflow.TensorSpec((None, *shape), "float32")
    try:
        graph = model.predict_function.get_concrete_function([(rows,)])
    except Exception:  # it runs eagerly, or refuses what ``predict_on_batch`` will refuse, too
        return None
    if not tensorflow.is_tensor(graph.structured_outputs):
        return None
    call, weights, types = tensorflow.raw_ops.StatefulPartitionedCall, graph.captured_inputs, [graph.outputs[0].dtype]
    return lambda inputs: call(args=[tensorflow.constant(inputs), *weights], Tout=types, f=graph)[0].numpy()


def _call_torch(torch, module, inputs):
    """Run a PyTorch module in evaluation mode, without gradients, and leave the mode of each part as it was."""
    weight = next(module.parameters(), torch.empty(0))
    arrays = inputs if isinstance(inputs, list) else [inputs]
    tensors = [torch.as_tensor(array, dtype=weight.dtype, device=weight.device) for array in arrays]
    with TORCH_LOCK:
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            with torch.no_grad():
                return module(*tensors)
        finally:
            for part, training in modes:
                part.training = training


def side_by_side(predictors, function, items, chunk):
    """Return ``function(item)``, which calls these models, for each item in turn: in threads where all models allow it.

    Keras models first see two sizes of batches, so that no thread finds them untraced: TensorFlow would count the
    tracing of one for all, and warn.
    """
    if len(items) == 1 or not all(predict.is_thread_safe for predict in predictors):
        return [function(item) for item in items]
    for network, predict in enumerate(predictors):
        if predict.loaded not in SETTLED:
            auxiliary = None if chunk.auxiliary is None else chunk.auxiliary[network, 0]
            for rows in (2, 3):
                predict(np.repeat(chunk.spectra[network, :1], rows, axis=0), auxiliary)
            SETTLED.add(predict.loaded)
    with ThreadPoolExecutor(CALLS_AT_ONCE) as threads:
        return list(threads.map(function, items))


class PosteriorSummary:
    """Turn a model that predicts a distribution into one that predicts its mean and log standard deviation.

    The map of the means says which bins the estimates come from; the map of the log standard deviations says which bins
    the certainty comes from. The logarithm is natural: a rise of 0.1 is a width that is 10 % larger. Give the result to
    `exact_map` with twice as many ``amp_names``, and with ones for the second half of ``y_data_std``.

    Parameters
    ----------
    model : object
        Keras model, PyTorch module, object with ``.predict`` or function. For (rows, n_bins) it returns one of

        - samples, an array (rows, n_samples, n_AMPs);
        - a pair (mean, spread): means (rows, n_AMPs), and standard deviations (rows, n_AMPs) or covariances
          (rows, n_AMPs, n_AMPs);
        - a distribution with ``mean`` and ``stddev`` or ``variance``, as those of ``torch.distributions``.

        Means and widths of random samples are random: say ``stochastic="subtract"`` to take that out of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from sensitivity import exact_map
    >>> model = posterior_summary(lambda x: (100 * x[:, :1], np.exp(300 * x[:, 1:2])))  # mean, width
    >>> spectra, errors = np.full((1, 3), 0.01), np.full(3, 1e-4)
    >>> exact_map(model, spectra, errors, amp_names=["Tp", "ln width of Tp"], input_layout="flat").mean.round(6)
    array([[0.0001, 0.    , 0.    ],
           [0.    , 0.0009, 0.    ]])
    """

    def __init__(self, model):
        self.model = model

    @property
    def input_shape(self):
        """The shapes of inputs that the model declares, if it does."""
        return [shape for _, shape in declared_inputs(self.model)] or None

    def __call__(self, inputs):
        """Return the means, then the log standard deviations, of the predictions for ``inputs``, (rows, 2 n_AMPs)."""
        mean, width = _moments(Predictor(self.model, None, "flat").function(inputs))
        n = len(inputs[0] if isinstance(inputs, list) else inputs)
        if not isinstance(inputs, Mapping) and mean.ndim == 2 and len(mean) != n:
            raise ValueError(f"model: expected samples or moments of {n} rows, received {len(mean)}: swap the axes")
        if mean.shape != width.shape or mean.ndim != 2:
            raise ValueError(
                f"model: expected means and standard deviations (rows, n_AMPs), received {mean.shape} and {width.shape}"
            )
        if not np.all(width > 0):
            raise ValueError(f"model: expected positive standard deviations, received {width.min():.3g}")
        return np.concatenate([mean, np.log(width)], axis=1)


posterior_summary = PosteriorSummary


def _moments(output):
    """Return mean and standard deviation (rows, n_AMPs) of any output that `posterior_summary` takes."""
    if isinstance(output, list | tuple):
        if len(output) != 2:
            raise ValueError(f"model: expected a pair (mean, spread), received {len(output)} outputs")
        mean, spread = (_doubles(part) for part in output)
        if spread.ndim == 3:
            spread = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 0))
        return mean, spread
    if hasattr(output, "mean") and (hasattr(output, "stddev") or hasattr(output, "variance")):
        spread = _doubles(output.stddev) if hasattr(output, "stddev") else np.sqrt(_doubles(output.variance))
        return _doubles(output.mean), spread
    samples = _doubles(output)
    if samples.ndim != 3 or samples.shape[1] < 2:
        raise ValueError(f"model: expected samples (rows, n_samples, n_AMPs), received {samples.shape}")
    return samples.mean(axis=1), samples.std(axis=1, ddof=1)


def _doubles(output):
    """Return numbers of any type, or what a function of no arguments (TensorFlow Probability) returns, as float64."""
    return as_floats(output() if callable(output) else output).astype(float)
