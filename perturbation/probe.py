"""What has to be found out about a model by a few calls, before the sensitivity test begins."""

import math
import sys
import weakref
from dataclasses import dataclass, replace

import numpy as np

from perturbation.predictors import (
    LAYOUTS,
    ModelLoader,
    Predictor,
    as_floats,
    chosen_outputs,
    declared_inputs,
    is_keras,
)

TRIED = 3  # spectra that a model is asked about
MAX_BATCH = 5120  # rows per call; more is hardly quicker on a CPU
MAX_OUTPUT = 2_000_000  # numbers in the output of the widest layer; keeps an LSTM of 52 bins near 100 MB
ROUNDING = 1e-5  # relative difference between predictions for the same spectrum that may be rounding
COMPANY = 1e-3  # relative difference between predictions for a spectrum alone and among others that may be rounding
BFLOAT16 = 2.0**-7  # distance of 1 to the next larger number, as ``numpy.finfo(...).eps``
COPIES = 4  # of each probe row in one call: random predictions of all of them are hardly ever the same by chance
SMALL = 0.1  # added to the size of predictions: those near zero are sums of larger numbers, which were rounded, too
# What was found out about Keras models, with the weights of that time: looking for new ones takes 5 % of a short map
KNOWN = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Probe:
    """What a few calls of a model reveal."""

    predictor: Predictor  # how to call the model, without the model itself
    batch_size: int  # a good number of rows per call
    step: np.ndarray  # (n_amps,) distance of neighbouring numbers of the size of the greatest prediction
    scatter: np.ndarray  # (n_amps,) standard deviation of predictions for the same spectrum: zero unless it is random


def probe_model(
    model, spectra, n_amps=None, auxiliary=None, layout=None, output=None, auxiliary_first=None, x_mean=0.0, x_std=1.0
):  # fmt: skip
    """Find out how a model wants its input, and whether it predicts each row on its own: a `Probe`.

    ``spectra`` (rows, n_bins) are those to try, at most three, ``auxiliary`` (rows, k) their second input. Without a
    ``layout``, and where the model declares none, (rows, n_bins, 1) and (rows, n_bins) are tried, which have to give
    the same predictions, and (rows, 1, n_bins) if neither works.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"input_layout: expected one of {LAYOUTS} or None, received {layout!r}")
    whole, n_bins = model.get() if isinstance(model, ModelLoader) else model, spectra.shape[-1]
    known = KNOWN.setdefault(whole, {}) if is_keras(whole) else {}
    key = n_bins, n_amps, auxiliary is None, layout, str(output), auxiliary_first
    if key not in known:
        inputs = getattr(whole, "inputs", None) if is_keras(whole) else None
        given = 1 if auxiliary is None else 2
        if inputs and len(inputs) != given:
            expected = f"expected {len(inputs) - 1} array(s), as the model has {len(inputs)} input(s)"
            raise ValueError(f"auxiliary: {expected}, received {given - 1}")
        declared = tuple(declared_inputs(whole))
        layouts = [layout] if layout else _declared_layouts(declared, n_bins)
        spectra = np.atleast_2d(spectra)
        # Where there are fewer than three, the last is repeated with depths a little larger
        rows = np.minimum(np.arange(TRIED), len(spectra) - 1)
        larger = 1 + 1e-3 * (np.arange(TRIED) - rows)[:, None]
        few = np.tile(((spectra[rows] - x_mean) / x_std * larger).astype(np.float32), (COPIES, 1))
        second = None if auxiliary is None else np.tile(np.atleast_2d(auxiliary)[rows], (COPIES, 1))
        predict = Predictor(whole, n_amps, LAYOUTS[0], output, auxiliary_first, declared=declared)
        known[key] = _probe(predict, few, second, layouts)
    return known[key]


def _probe(predict, rows, auxiliary, layouts):
    """Return the `Probe` of a model that takes one or more of ``layouts``; ``rows`` holds each spectrum a few times."""
    ways, failures = {}, []
    for layout in layouts:
        if layout == "channel_first" and ways and len(layouts) > 1:
            break
        outputs = []
        way = replace(predict, layout=layout, model=_recorded(predict, outputs))
        try:
            predictions = way(rows.copy(), auxiliary, "the first spectra")
            ways[layout] = way, predictions, max(map(_resolution, chosen_outputs(outputs[0], predict.output)))
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
    settled = replace(predict, model=None, n_amps=predictions.shape[1], layout=layout)
    return Probe(settled, _good_batch_size(predict), resolution * size.astype(float), scatter)


def _recorded(predict, outputs):
    """Return a function from inputs to the outputs of the model, which are also kept in a list.

    A Keras model runs without the graph that ``predict_on_batch`` keeps, which a wrong layout would spoil.
    """

    def run(inputs):
        if is_keras(predict.loaded):
            keras = sys.modules["keras"]
            output = keras.tree.map_structure(keras.ops.convert_to_numpy, predict.loaded(inputs, training=False))
        else:
            output = predict.function(inputs)
        outputs.append(output)
        return output

    return run


def _resolution(output):
    """Relative distance of neighbouring numbers of the type that an output has."""
    is_coarse = "bfloat16" in str(getattr(output, "dtype", ""))
    return BFLOAT16 if is_coarse else np.finfo(as_floats(output).dtype).eps


def _check_each_row(predict, rows, auxiliary, predictions, size):
    """Return the scatter of predictions (n_amps,), zero where they are not random; other rows may not change them."""
    last = slice(len(rows) - 1, None)
    try:
        alone = predict(rows[last].copy(), None if auxiliary is None else auxiliary[last], "the last spectrum alone")[0]
    except Exception:  # a model that cannot take a single row may take two that are the same
        twice = np.repeat(rows[last], 2, axis=0)
        alone = predict(twice, None if auxiliary is None else np.repeat(auxiliary[last], 2, axis=0))[0]
    same = predictions.astype(float).reshape(COPIES, -1, len(size))  # (COPIES, n, n_amps)
    difference = np.maximum(np.abs(alone.astype(float) - predictions[-1]), np.ptp(same, axis=0).max(axis=0))
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


def _declared_layouts(declared, n_bins):
    """Layouts to try for a model, only one where the declared inputs say what it takes."""
    shapes = [shape for _, shape in declared if len(shape) in (2, 3)]
    if not shapes:
        return list(LAYOUTS)
    shape = next((shape for shape in shapes if n_bins in shape[1:]), shapes[0])  # else of any number of bins
    if len(shape) == 2:
        layout, found = "flat", shape[1]
    elif shape[1] == 1 and shape[2] != 1:
        layout, found = "channel_first", shape[2]
    else:
        layout, found = "channel", shape[1]
    if found not in (None, n_bins):
        raise ValueError(f"org_spectrum: expected {found} bins as the model does, received {n_bins}")
    return [layout]
