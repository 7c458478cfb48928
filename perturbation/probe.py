"""What has to be found out about a model by asking it about a few spectra, before the sensitivity test begins."""

import math
import sys
import weakref
from dataclasses import dataclass, replace

import numpy as np

from perturbation.predictors import LAYOUTS, ModelLoader, Predictor, declared_inputs, is_keras

MAX_BATCH = 5120  # rows per call; more is hardly quicker on a CPU
MAX_OUTPUT = 2_000_000  # numbers in the output of the widest layer; keeps an LSTM of 52 bins near 100 MB
ROUNDING = 1e-5  # relative difference between predictions for the same spectrum that may be rounding
COMPANY = 1e-3  # relative difference between predictions for a spectrum alone and among others that may be rounding
SMALL = 0.1  # added to the size of predictions: those near zero are sums of larger numbers, which were rounded, too
KNOWN = weakref.WeakKeyDictionary()  # what was found out about Keras models that were asked before


@dataclass(frozen=True)
class Probe:
    """What a few calls of a model reveal.

    Attributes
    ----------
    layout : str
        Its input layout.
    n_amps : int
        Number of its outputs.
    batch_size : int
        A good number of rows per call.
    size : ndarray of shape (n_amps,)
        Greatest prediction, without its sign.
    resolution : float
        Relative distance of neighbouring numbers of the type of its predictions.
    scatter : ndarray of shape (n_amps,)
        Standard deviation of predictions for the same spectrum: zero unless the model predicts at random.
    """

    layout: str
    n_amps: int
    batch_size: int
    size: np.ndarray
    resolution: float
    scatter: np.ndarray


def probe_model(model, spectra, n_amps=None, auxiliary=None, layout=None, output=None, auxiliary_first=None):
    """Find out how a model wants its input, and whether it predicts each row on its own.

    ``layout`` is taken if given; else what the model declares (Keras ``input_shape``, scikit-learn
    ``n_features_in_``); else (rows, n_bins, 1) and (rows, n_bins) are tried, and (rows, 1, n_bins) if neither works.
    Where both work they have to give the same predictions.

    Parameters
    ----------
    model : object
        See `Predictor`, also for ``n_amps``, ``output`` and ``auxiliary_first``.
    spectra : ndarray of shape (rows, n_bins)
        A few scaled spectra to try.
    auxiliary : ndarray of shape (rows, k) or None
        Second input of those spectra.
    layout : str or None
        The user's own choice.

    Raises
    ------
    ValueError
        If ``layout`` is unknown, the model takes none, it takes two and gives different predictions, it declares
        another number of bins, or its prediction for a row depends on the other rows of the call.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"input_layout: expected one of {LAYOUTS} or None, received {layout!r}")
    whole = model.get() if isinstance(model, ModelLoader) else model
    spectra, auxiliary = np.atleast_2d(spectra), None if auxiliary is None else np.atleast_2d(auxiliary)
    n_bins = spectra.shape[1]
    key = n_bins, n_amps, auxiliary is None, layout, str(output), auxiliary_first
    known = KNOWN.setdefault(whole, {}) if is_keras(whole) else {}
    if key not in known:
        rows = spectra.astype(np.float32)
        predict = Predictor(whole, n_amps, LAYOUTS[0], output, auxiliary_first)
        known[key] = _probe(predict, rows, auxiliary, [layout] if layout else _declared_layouts(whole, n_bins))
    return known[key]


def _probe(predict, rows, auxiliary, layouts):
    """Return the `Probe` of a model that takes one or more of ``layouts``."""
    ways, failures = {}, []
    for layout in layouts:
        if layout == "channel_first" and ways and len(layouts) > 1:
            break
        way = _without_graph(replace(predict, layout=layout))
        try:
            ways[layout] = way, *way.with_resolution(rows.copy(), auxiliary, "the first spectra")
        except Exception as error:  # a model may refuse a shape with any exception
            if len(layouts) == 1:
                raise
            failures.append(error)
    if not ways:
        said = [" ".join(str(error).split()) for error in failures]
        if len(set(said)) == 1 and isinstance(failures[0], ValueError):  # not about the layout
            raise failures[0]
        n_bins = rows.shape[1]
        raise ValueError(
            f"model: expected one that takes (N, {n_bins}, 1), (N, {n_bins}) or (N, 1, {n_bins}),"
            f" received errors: {'; '.join(f'{layout}: {words}' for layout, words in zip(layouts, said))}"
        ) from failures[-1]
    layout, (way, predictions, resolution) = next(iter(ways.items()))
    size = np.abs(predictions).max(axis=0)
    scatter = _check_each_row(way, rows, auxiliary, predictions, size)
    for other, (_, others, _) in list(ways.items())[1:]:
        if np.any(np.abs(others - predictions) > COMPANY * (size + SMALL) + 10 * scatter):
            raise ValueError(
                f"input_layout: expected one of {LAYOUTS}, as the model takes {layout!r} and {other!r} and gives"
                f" different predictions (up to {np.abs(others - predictions).max():.2g}), received None"
            )
    return Probe(layout, predictions.shape[1], _good_batch_size(predict), size.astype(float), resolution, scatter)


def _without_graph(predict):
    """Let a Keras model run without the graph that ``predict_on_batch`` keeps, which a wrong layout would spoil."""
    if not is_keras(predict.loaded):
        return predict

    def run(inputs):
        outputs = predict.loaded(inputs, training=False)
        keras = sys.modules["keras"]
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return replace(predict, model=_Eager(run, predict.loaded))


class _Eager:
    """A function that declares the inputs of the model it runs."""

    def __init__(self, run, model):
        self.run, self.declared = run, declared_inputs(model)

    def __call__(self, inputs):
        return self.run(inputs)

    @property
    def input_shape(self):
        if not self.declared:
            return None
        named = self.declared[0][0] is not None
        return dict(self.declared) if named else [shape for _, shape in self.declared]


def _check_each_row(predict, rows, auxiliary, predictions, size):
    """Ask about one row alone; return the scatter of the predictions, zero where they are not random.

    Raises
    ------
    ValueError
        If a model that is not random predicts a row alone otherwise than among others.
    """
    last = slice(len(rows) - 1, None)
    try:
        alone = predict(rows[last].copy(), None if auxiliary is None else auxiliary[last], "the last spectrum alone")[0]
    except Exception:  # a model that cannot take a single row may take two that are the same
        twice = np.repeat(rows[last], 2, axis=0)
        alone = predict(twice, None if auxiliary is None else np.repeat(auxiliary[last], 2, axis=0))[0]
    difference = np.abs(alone.astype(float) - predictions[-1])
    if np.all(difference <= ROUNDING * (size + SMALL)):
        return np.zeros(len(size))
    again = predict(rows.copy(), auxiliary, "the first spectra") - predictions.astype(float)  # (rows, n_amps)
    scatter = np.sqrt(np.mean(again**2, axis=0) / 2)
    if np.any(scatter > ROUNDING * (size + SMALL)):
        return scatter
    if np.any(difference > COMPANY * (size + SMALL)):
        raise ValueError(
            "model: expected predictions that depend on their own row alone, received different ones for a"
            f" spectrum alone and among {len(rows)} (they differ by up to {difference.max():.2g}): the model uses"
            " statistics of all rows of the call, or returns the rows in another order"
        )
    return np.zeros(len(size))


def _good_batch_size(predict):
    """Rows per call that are quick and keep the widest layer of a Keras model small; no measurement, so repeatable."""
    widest, fixed = 1, predict.fixed_rows
    for layer in getattr(predict.loaded, "layers", ()):
        try:
            widest = max(widest, math.prod(n or 1 for n in layer.output.shape[1:]))
        except (AttributeError, ValueError):  # a layer of several outputs, or never called
            continue
    rows = min(max(MAX_OUTPUT // widest, 64), MAX_BATCH)
    return max(rows // fixed, 1) * fixed if fixed else rows


def _declared_layouts(model, n_bins):
    """Layouts to try for a model, only one when the model says what it takes."""
    shapes = [shape for _, shape in declared_inputs(model) if len(shape) in (2, 3)]
    fitting = [shape for shape in shapes if n_bins in shape[1:]]
    if len(shapes) == 1 or not fitting:
        fitting = shapes[:1]  # the spectrum, of any number of bins or of another
    if not fitting:
        return list(LAYOUTS)
    shape = fitting[0]
    if len(shape) == 2:
        layout, found = "flat", shape[1]
    elif shape[1] == 1 and shape[2] != 1:
        layout, found = "channel_first", shape[2]
    else:
        layout, found = "channel", shape[1]
    if found not in (None, n_bins):
        raise ValueError(f"org_spectrum: expected {found} bins as the model does, received {n_bins}")
    return [layout]
