"""One way to call any network: (rows, n_bins) float32 in, (rows, n_AMPs) out, checked.

Keras models, objects with ``.predict`` (scikit-learn), PyTorch modules and plain callables (JAX, a lambda) all
become a `Predictor`. No framework is imported here: what a model can do is asked of the model itself.
"""

import functools
import math
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

LAYOUTS = ("channel", "flat")  # (rows, n_bins, 1) and (rows, n_bins), in the order they are tried
MAX_BATCH = 5120  # rows per call; more is hardly quicker on a CPU
MAX_OUTPUT = 2_000_000  # numbers in the output of the widest layer; keeps an LSTM of 52 bins near 100 MB
CALLS_AT_ONCE = 3  # of a network that allows it: one is always in the network while others prepare and add up
SETTLED = weakref.WeakSet()  # Keras models for which `_settle` was called
TORCH_LOCK = threading.Lock()  # for the mode of a module is changed and restored around each call
PROBE_ROWS = 3  # more than one, so that an output of the wrong shape cannot pass by accident


class ModelLoader:
    """A model given as a recipe, loaded once in every process that uses it.

    Small to pickle, so it is what an executor with worker processes should be given instead of a model.

    Parameters
    ----------
    load : callable
        Importable function that returns the model, for example ``keras.models.load_model``.
    *args : hashable
        Its arguments, for example the path of the file. A file that changed on disk is loaded again.

    Examples
    --------
    >>> loader = ModelLoader(keras.models.load_model, "model_0.keras")  # doctest: +SKIP
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


@dataclass(frozen=True)
class Predictor:
    """A model with its input layout and number of outputs settled.

    Attributes
    ----------
    model : object
        Keras model, object with ``.predict``, PyTorch module, callable, or a `ModelLoader` of one of these.
    n_amps : int or None
        Columns the output must have; None accepts any.
    layout : {"channel", "flat"}
        Whether the model reads (rows, n_bins, 1) or (rows, n_bins).
    """

    model: object
    n_amps: int | None
    layout: str

    @functools.cached_property
    def loaded(self):
        """The model itself."""
        return self.model.get() if isinstance(self.model, ModelLoader) else self.model

    @functools.cached_property
    def is_thread_safe(self):
        """Whether several threads may call the model at a time: known of Keras on TensorFlow, not asked of others."""
        return _is_keras(self.loaded) and sys.modules["keras"].backend.backend() == "tensorflow"

    @functools.cached_property
    def function(self):
        """The quickest way into the model; ``predict_on_batch`` spares Keras the set-up of each ``predict``."""
        model = self.loaded
        if _is_keras(model):
            return model.predict_on_batch
        if callable(getattr(model, "predict", None)):
            return model.predict
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(model, torch.nn.Module):
            return functools.partial(_call_torch, torch, model)
        if callable(model):
            return model
        raise ValueError(f"model: expected .predict, or a callable, received {type(model).__name__}")

    def __call__(self, rows, auxiliary=None, name="the rows"):
        """Return the model's answer for ``rows`` (rows, n_bins) as an array (rows, n_amps), scaled units.

        ``auxiliary`` is the second input of a two-input model, (rows, k), or (k,) for the same in all rows; the model
        then receives the list [rows, auxiliary].

        Raises
        ------
        ValueError
            If the output is not (rows, n_amps) or not finite; ``name`` says in the message where.
        """
        inputs = rows[:, :, None] if self.layout == "channel" else rows
        if auxiliary is not None:
            inputs = [inputs, np.array(np.broadcast_to(auxiliary, (len(rows), auxiliary.shape[-1])))]  # (rows, k)
        try:
            output = self.function(inputs)
        except StopIteration:  # it would end a loop over chunks as if all were done
            raise ValueError(f"model: expected an answer for {name}, received StopIteration") from None
        if hasattr(output, "detach"):  # a tensor that still carries its gradient
            output = output.detach().cpu()
        try:
            output = np.asarray(output)
        except (TypeError, ValueError):  # rows of several lengths
            raise ValueError(f"model: expected an array, received {type(output).__name__}") from None
        if output.dtype.kind in "bcOSUMm":
            raise ValueError(f"model: expected real numbers, received {output.dtype}")
        if output.dtype.kind != "f":  # bfloat16, or integers, whose differences could wrap around
            output = output.astype(float)
        if output.shape == (len(rows),) and self.n_amps in (None, 1):
            output = output[:, None]
        if output.ndim != 2 or len(output) != len(rows) or self.n_amps not in (None, output.shape[1]):
            columns = "n_AMPs" if self.n_amps is None else self.n_amps
            raise ValueError(f"model: expected output ({len(rows)}, {columns}), received {output.shape}")
        finite = np.isfinite(output)
        if not finite.all():
            row = int(np.argmin(finite.all(axis=1)))
            raise ValueError(f"model: expected finite output, received {output[row]} for row {row} of {name}")
        return output


def _is_keras(model):
    """Whether this is a Keras model that answers as Keras does, not by a ``predict`` of its own."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model) and type(model).predict is keras.Model.predict


def _call_torch(torch, module, inputs):
    """Run a bare PyTorch module in evaluation mode, without gradients, and leave the mode of each part as it was."""
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
    """Return ``function(item)``, which calls these models, for each item: in threads where all models allow it.

    ``chunk`` has inputs to try. Results are in the order of the items.
    """
    if len(items) == 1 or not all(predict.is_thread_safe for predict in predictors):
        return [function(item) for item in items]
    for network, predict in enumerate(predictors):
        _settle(predict, chunk.spectra[network, 0], None if chunk.auxiliary is None else chunk.auxiliary[network, 0])
    with ThreadPoolExecutor(CALLS_AT_ONCE) as threads:
        return list(threads.map(function, items))


def _settle(predict, spectrum, auxiliary):
    """Show a Keras model two sizes of batches before threads call it, so that none of them finds it untraced.

    TensorFlow would count the tracing of one for all, and warn.
    """
    if predict.loaded not in SETTLED:
        for rows in (2, PROBE_ROWS):
            predict(np.repeat(spectrum[None], rows, axis=0), auxiliary)
        SETTLED.add(predict.loaded)


@dataclass(frozen=True)
class Probe:
    """What one call of a model tells: its input layout, number of outputs, and a good number of rows per call."""

    layout: str
    n_amps: int
    batch_size: int


def probe_model(model, spectrum, n_amps=None, auxiliary=None, layout=None):
    """Settle how a model wants its input.

    ``layout`` is taken if given; else what the model declares (Keras ``input_shape``, scikit-learn
    ``n_features_in_``); else (rows, n_bins, 1) is tried, then (rows, n_bins).

    Parameters
    ----------
    model : object
        See `Predictor`.
    spectrum : ndarray of shape (n_bins,)
        One scaled spectrum to try.
    n_amps : int or None
        Number of outputs expected, if known.
    auxiliary : ndarray of shape (k,) or None
        Second input of that spectrum.
    layout : {"channel", "flat"} or None
        The user's own choice.

    Returns
    -------
    Probe

    Raises
    ------
    ValueError
        If ``layout`` is unknown, the model takes neither, or it declares another number of bins.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"input_layout: expected one of {LAYOUTS} or None, received {layout!r}")
    whole = model.get() if isinstance(model, ModelLoader) else model
    rows = np.repeat(spectrum[None].astype(np.float32), PROBE_ROWS, axis=0)  # (3, n_bins)
    layouts = [layout] if layout else _declared_layout(whole, len(spectrum))
    failures = []
    for candidate in layouts:
        try:
            answers = Predictor(whole, n_amps, candidate)(rows, auxiliary, "the first spectrum")
            return Probe(candidate, answers.shape[1], _good_batch_size(whole))
        except Exception as error:  # a model may refuse a shape with any exception of its own
            if len(layouts) == 1:
                raise
            failures.append(error)
    reasons = "; ".join(f"{where}: {' '.join(str(why).split())}" for where, why in zip(layouts, failures, strict=True))
    raise ValueError(
        f"model: expected one that takes (N, {len(spectrum)}, 1) or (N, {len(spectrum)}), received errors: {reasons}"
    ) from failures[-1]


def _good_batch_size(model):
    """Rows per call that are quick and keep the widest layer of a Keras model small; no measurement, so repeatable."""
    widest = 1
    for layer in getattr(model, "layers", ()):
        try:
            widest = max(widest, math.prod(n or 1 for n in layer.output.shape[1:]))
        except (AttributeError, ValueError):  # a layer of several outputs, or never called
            continue
    return min(max(MAX_OUTPUT // widest, 64), MAX_BATCH)


def _declared_layout(model, n_bins):
    """Layouts to try for a model, fewer when the model says what it takes."""
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, dict):
        shape = next(iter(shape.values()))
    elif isinstance(shape, list):
        shape = shape[0]
    if shape is None and isinstance(getattr(model, "n_features_in_", None), int):
        shape = (None, model.n_features_in_)
    if shape is None or len(shape) not in (2, 3):
        return list(LAYOUTS)
    if shape[1] not in (None, n_bins):
        raise ValueError(f"org_spectrum: expected {shape[1]} bins as the model does, received {n_bins}")
    return ["flat" if len(shape) == 2 else "channel"]
