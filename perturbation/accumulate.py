"""From a plan to sums over spectra: run the chunks, read the store, add up in the order of the spectra."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from perturbation.engine import run_chunks
from perturbation.moments import RunningMoments, RunningShares, RunningSums


@dataclass
class Totals:
    """Sums over the spectra of a plan, scaled units.

    Attributes
    ----------
    moments : RunningMoments
        Of the maps.
    shares : RunningShares
        Of the maps.
    others : RunningSums
        Of what else the engine returns for a spectrum.
    used : ndarray of shape (n_used,)
        Rows of the spectra that were added.
    per_spectrum : ndarray of shape (n_used, n_AMPs, n_columns) or None
        The maps, NaN where a spectrum does not enter an AMP.
    """

    moments: RunningMoments
    shares: RunningShares
    others: RunningSums
    used: np.ndarray
    per_spectrum: np.ndarray | None


def accumulate(model, plan, executor=None, store=None, keep_spectra=True, tolerance=None, progress=False):
    """Perturb the spectra of the plan that are not in the store yet, and add all up.

    Parameters
    ----------
    model : object
    plan : plan.Plan
    executor, store, keep_spectra, tolerance, progress
        As in ``sensitivity_map``.

    Returns
    -------
    Totals
    """
    used, shape = plan.used, plan.shape
    if store is not None and not (hasattr(store, "keys") and hasattr(store, "update")):
        raise ValueError(f"store: expected a mutable mapping of int to arrays, received {type(store).__name__}")
    stored = np.array([store is not None and int(row) in store for row in used], dtype=bool)
    expected = (plan.settings.n_arrays, *shape)
    for row in used[stored][:1].tolist():
        stored_arrays(store, row, expected)
    chunks = plan.survey.chunks(used[~stored], plan.chunk_size)
    answers = in_order(used[~stored], run_chunks(model, chunks, plan.settings, executor), store)

    totals = Totals(
        RunningMoments(*shape),
        RunningShares(*shape),
        RunningSums(plan.settings.n_arrays - 1, *shape),
        used,
        np.full((len(used), *shape), np.nan) if keep_spectra else None,
    )
    row_sums = RunningMoments(shape[0], 1)  # of each AMP's map over all bins
    with progress_bar(len(used), progress, executor) as advance:
        for k, row in enumerate(used.tolist()):
            arrays = stored_arrays(store, row, expected) if stored[k] else next(answers)
            spectrum_map = arrays[0]
            wanted = plan.wanted[row]
            totals.moments.add(spectrum_map, wanted)
            totals.shares.add(spectrum_map, wanted)
            totals.others.add(arrays[1:], wanted)
            if keep_spectra:
                totals.per_spectrum[k, wanted] = spectrum_map[wanted]
            advance()
            if tolerance is not None:
                row_sums.add(spectrum_map.sum(axis=1, keepdims=True), wanted)
                if row_sums.within(tolerance):
                    totals.used = used[: k + 1]
                    totals.per_spectrum = totals.per_spectrum[: k + 1] if keep_spectra else None
                    break
    return totals


def stored_arrays(store, row, expected):
    """Return what the store has of one spectrum, checked."""
    try:
        arrays = np.asarray(store[row], dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"store: expected maps {expected}, received {type(store[row]).__name__} for {row}") from None
    if arrays.shape != expected:
        raise ValueError(f"store: expected maps {expected}, received {arrays.shape} for spectrum {row}")
    if not np.isfinite(arrays).all():
        raise ValueError(f"store: expected finite maps, received NaN or infinity for spectrum {row}")
    return arrays


def in_order(rows, results, store):
    """Yield the arrays of one spectrum after the other, in the order of ``rows``.

    A chunk goes to the store as soon as it ends; one that ends before its turn waits for it.
    """
    waiting = {}
    for row in rows.tolist():
        while row not in waiting:
            chunk, arrays = next(results)
            finished = dict(zip(chunk.indices.tolist(), arrays, strict=True))
            if store is not None:
                store.update(finished)
            waiting.update(finished)
        yield waiting.pop(row)


@contextmanager
def progress_bar(total, shown, executor):
    """Yield a function to call after each spectrum; the bar shows the executor's workers where it counts them."""
    if not shown:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="spectrum", desc="sensitivity") as bar:

        def advance():
            if hasattr(executor, "n_workers"):
                bar.set_postfix(workers=executor.n_workers, refresh=False)
            bar.update()

        yield advance


def map_arrays(plan, totals):
    """Return the arrays of a `SensitivityMap`, by name, in the units of the plan."""
    unit, square = plan.unit, plan.unit**2
    count, standard_error = totals.moments.count, totals.moments.standard_error
    tested = np.where(plan.method.labels >= 0, 1.0, np.nan)
    arrays = {"mean": totals.moments.mean * square, "repeat_error": np.zeros(plan.shape)}
    if plan.method.rule is None:
        arrays["repeat_error"] = np.sqrt(totals.others.total[0]) / count * square
        # The noise of the repeats is a lower bound (spectra do not differ less than not at all)
        arrays["standard_error"] = np.fmax(standard_error * square, arrays["repeat_error"])
    else:
        distance, slope, curvature = totals.others.total / count
        arrays |= {"quadrature_error": distance * square, "slope": slope * unit, "curvature": curvature * unit}
        arrays["standard_error"] = np.where(count > 1, standard_error * square, arrays["quadrature_error"])
    _, arrays["share_error"] = totals.shares.result()
    if totals.per_spectrum is not None:
        arrays["per_spectrum"] = totals.per_spectrum * square
    return {name: array * tested for name, array in arrays.items()}
