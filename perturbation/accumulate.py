"""From a plan to sums over spectra: run chunks, read the store, add up in the order of the spectra; and merge maps."""

import warnings
from dataclasses import replace

import numpy as np

from perturbation.engine import run_chunks

JACKKNIFE_GROUPS = 100  # spectra up to this number are left out one at a time, more in this many groups


class RunningMoments:
    """Mean over spectra, the spread about it (Welford) and sums in groups, for each AMP of its own spectra.

    Up to ``n_groups`` spectra of an AMP, each is one group, and leaving groups out is the usual delete-one jackknife;
    with more, spectra are dealt out to the groups in turn.
    """

    def __init__(self, n_amps, n_bins, n_groups=JACKKNIFE_GROUPS):
        self.count, self._rows = np.zeros((n_amps, 1), int), np.arange(n_amps)
        self.mean = np.zeros((n_amps, n_bins))
        self._spread = np.zeros((n_amps, n_bins))  # sum over spectra of (map - mean)^2
        self._sums = np.zeros((n_groups, n_amps, n_bins))

    def add(self, spectrum_map, rows=slice(None)):
        """Add one spectrum's map (n_AMPs, n_bins) to some rows, or to all."""
        spectrum_map, mean = spectrum_map[rows], self.mean[rows]
        self._sums[self.count[rows, 0] % len(self._sums), self._rows[rows]] += spectrum_map
        self.count[rows] += 1
        delta = spectrum_map - mean
        self.mean[rows] = mean = mean + delta / self.count[rows]
        self._spread[rows] += delta * (spectrum_map - mean)

    @property
    def standard_error(self):
        """Spread of the maps of single spectra / sqrt(n): (n_AMPs, n_bins), NaN for one spectrum."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self._spread / (self.count - 1) / self.count)

    @property
    def share_error(self):
        """Jackknife errors of the share of each bin in its AMP's sum; NaN where that is zero, and for one spectrum."""
        n = np.minimum(self.count, len(self._sums))
        if n.max() == 1:
            return np.full(self.mean.shape, np.nan)
        filled = np.arange(len(self._sums))[:, None, None] < n  # (n_groups, n_AMPs, 1)
        filled = filled.all() or filled  # True alone is much quicker
        rest = self._sums.sum(axis=0) - self._sums
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = rest / rest.sum(axis=-1, keepdims=True)
            mean = left_out.sum(axis=0, where=filled) / n
            return np.sqrt((n - 1) / n * np.sum((left_out - mean) ** 2, axis=0, where=filled))

    def within(self, tolerance, fewest=10):
        """Whether every AMP has ``fewest`` spectra and a standard error of at most ``tolerance`` times its mean."""
        return self.count.min() >= fewest and bool(np.all(self.standard_error <= tolerance * self.mean))


class Totals:
    """Sums over the spectra of a plan, in scaled units."""

    def __init__(self, plan, keep_spectra):
        self.plan, self.used, shape = plan, plan.used, plan.shape
        self.moments = RunningMoments(*shape, min(len(self.used), JACKKNIFE_GROUPS))
        self.row_sums = RunningMoments(shape[0], 1, 1)  # of each AMP's map over all columns, where they matter
        self.others = np.zeros((plan.n_arrays - 1, *shape))  # of the arrays beside the map
        # Maps of the spectra that were added, NaN where one does not enter an AMP
        self.per_spectrum = np.full((len(self.used), *shape), np.nan) if keep_spectra else None

    def add(self, k, arrays, rows=slice(None)):
        """Add the arrays (n_arrays, n_rows, n_columns) of the k-th spectrum to some rows, or to all."""
        self.moments.add(arrays[0], rows)
        self.others[:, rows] += arrays[1:, rows]
        if self.per_spectrum is not None:
            self.per_spectrum[k, rows] = arrays[0, rows]

    def arrays(self):
        """Return the arrays of a `SensitivityMap`, by name, in the units of the plan."""
        plan, unit, square = self.plan, self.plan.unit, self.plan.unit**2
        count, standard_error = self.moments.count, self.moments.standard_error
        arrays = {"mean": self.moments.mean * square, "repeat_error": np.zeros(plan.shape)}
        if plan.rule is None:
            arrays["repeat_error"] = np.sqrt(self.others[0]) / count * square
            # The noise of the repeats is a lower bound (the spread over spectra cannot be negative)
            arrays["standard_error"] = np.fmax(standard_error * square, arrays["repeat_error"])
        else:
            distance, slope, curvature = self.others / count
            arrays |= {"quadrature_error": distance * square, "slope": slope * unit, "curvature": curvature * unit}
            arrays["standard_error"] = np.where(count > 1, standard_error * square, arrays["quadrature_error"])
        arrays["share_error"] = self.moments.share_error
        if self.per_spectrum is not None:
            arrays["per_spectrum"] = self.per_spectrum[: len(self.used)] * square
        untested = plan.labels < 0
        if untested.any():
            for array in arrays.values():
                array[..., untested] = np.nan
        return arrays


def accumulate(models, plan, executor=None, store=None, keep_spectra=True, tolerance=None, progress=False):
    """Return the `Totals` of all spectra of the plan; arguments after ``plan`` are those of ``sensitivity_map``."""
    totals, used, expected = Totals(plan, keep_spectra), plan.used.tolist(), (plan.n_arrays, *plan.shape)
    if store is not None and not (hasattr(store, "keys") and hasattr(store, "update")):
        raise ValueError(f"store: expected a mutable mapping of int to arrays, received {type(store).__name__}")
    stored = {row for row in used if store is not None and row in store}
    for row in sorted(stored)[:1]:
        checked(store[row], expected, "store", f"spectrum {row}")
    missing = [row for row in used if row not in stored]
    new = in_order(missing, run_chunks(models, plan, np.array(missing, int), executor), store, expected)
    maps = (checked(store[row], expected, "store", f"spectrum {row}") if row in stored else next(new) for row in used)

    bar = None
    if progress:
        from tqdm import tqdm

        maps = bar = tqdm(maps, total=len(used), unit="spectrum", desc="sensitivity")
    sums_matter = tolerance is not None or plan.is_random
    enters_all = plan.wanted.all(axis=1)
    for k, (arrays, row) in enumerate(zip(maps, used)):
        if bar is not None and hasattr(executor, "n_workers"):
            bar.set_postfix(workers=executor.n_workers, refresh=False)
        rows = slice(None) if enters_all[row] else np.flatnonzero(plan.wanted[row])
        totals.add(k, arrays, rows)
        if sums_matter:
            totals.row_sums.add(arrays[0].sum(axis=1, keepdims=True), rows)
        if tolerance is not None and totals.row_sums.within(tolerance):
            totals.used = totals.used[: k + 1]
            break
    return totals


def checked(maps, shape, source, task):
    """Return maps (..., n_arrays, n_rows, n_columns) as an array of that shape, of which the first are finite."""
    try:
        found = np.asarray(maps, dtype=float)
    except (TypeError, ValueError):
        found = None
    if found is None or found.shape != shape or not np.isfinite(found[..., 0, :, :]).all():
        received = type(maps).__name__ if found is None else "NaN or infinity" if found.shape == shape else found.shape
        raise ValueError(f"{source}: expected finite maps {shape} of {task}, received {received}")
    return found


def in_order(rows, results, store, expected):
    """Yield the arrays of one spectrum after another, in the order of ``rows``; chunks go to the store as they end."""
    waiting = {}
    for row in rows:
        while row not in waiting:
            chunk, arrays = next(results)
            arrays = checked(arrays, (len(chunk.indices), *expected), "executor", chunk.task_name)
            finished = dict(zip(chunk.indices.tolist(), arrays, strict=True))
            if store is not None:
                store.update(finished)
            waiting.update(finished)
        yield waiting.pop(row)


def warn_of_rounding(plan, spectrum_maps):
    """Warn of AMPs whose changes are as small as the steps between the numbers that the model returns.

    ``spectrum_maps`` are the mean maps (n_rows, n_columns) in scaled units. Rounding adds a sixth of the step squared.
    """
    small = spectrum_maps < (4 * plan.step) ** 2
    if not small.any():
        return
    moved = (spectrum_maps > 0) & (plan.labels >= 0)
    lost = [k for k, row in enumerate(small & moved) if 2 * row.sum() > moved[k].sum()]
    if lost:
        warnings.warn(
            f"model: expected predictions finer than their changes, received {_names(plan, lost)} in steps"
            f" of about {plan.step[lost].max():.1g} (scaled units) while half of the bins change them by four"
            " steps at most: return float32 or float64, and AMPs scaled to numbers of order one",
            stacklevel=4,
        )


def warn_of_scatter(plan, totals):
    """Warn of AMPs whose maps are lost in the random part of predictions: the sum is below 3 of its standard errors."""
    rows, counts = totals.row_sums, totals.moments.count[:, 0]
    with np.errstate(invalid="ignore"):
        lost = np.flatnonzero((rows.mean < 3 * rows.standard_error)[:, 0] | (rows.mean[:, 0] < 0))
    if lost.size:
        warnings.warn(
            f"stochastic: expected maps of at least 3 standard errors, received less for {_names(plan, lost)} from"
            f" {counts[lost].min()} spectra, whose shares mean little: more samples per prediction, or more spectra",
            stacklevel=4,
        )


def _names(plan, rows):
    """Return the names of the AMPs of some rows, each once."""
    names = [plan.amps[k % plan.n_amps].key if plan.amps else f"AMP {k % plan.n_amps}" for k in rows]
    return ", ".join(dict.fromkeys(names))


SETTINGS = ("scheme", "repeat", "scaled", "abundance", "amp_names", "nodes", "rule")
MEANS = ("quadrature_error", "slope", "curvature")  # over spectra


def merge_maps(maps):
    """Return the map of all spectra, a `SensitivityMap`, from the maps of parts that share no spectrum.

    ``maps`` are read one at a time and in order; they must have been made with the same settings. The result has no
    ``per_spectrum`` and ``spectra``, and the seed of the first part.

    Except for rounding the numbers do not depend on how the spectra were divided, with two exceptions. ``share_error``
    adds the errors of the parts in quadrature, weighted by the size of their maps, which is right to first order; it is
    NaN if a part is a single spectrum. With random repeats ``standard_error`` may be too large, where that of a part is
    the noise of its repeats and not the spread over its spectra.
    """
    first = None
    count = mean = spread = repeats = shares = 0
    for part in maps:
        if first is None:
            first, sums = part, {name: 0.0 for name in MEANS if getattr(part, name) is not None}
        for name, value in _settings(part).items():
            if value != (expected := _settings(first)[name]):
                raise ValueError(f"maps: expected the {name} {expected!r} of the first, received {value!r}")
        n = np.asarray(part.n_spectra)[:, None]  # (n_AMPs, 1)
        size = n * np.nansum(part.mean, axis=1, keepdims=True)
        # Means and spreads, sums over spectra of (map - mean)^2, as Chan, Golub & LeVeque (1983) update them
        delta, count = part.mean - mean, count + n
        mean = mean + delta * (n / count)
        spread = (
            spread + np.where(n > 1, part.standard_error**2 * n * (n - 1), 0.0) + delta**2 * (n * (count - n) / count)
        )
        repeats = repeats + (n * part.repeat_error) ** 2
        sums = {name: total + n * getattr(part, name) for name, total in sums.items()}
        known = shares is not None and part.share_error is not None
        shares = shares + (size * part.share_error) ** 2 if known else None
    if first is None:
        raise ValueError("maps: expected at least one, received none")
    repeat_error = np.sqrt(repeats) / count
    with np.errstate(invalid="ignore", divide="ignore"):
        standard_error = np.fmax(np.sqrt(spread / (count - 1) / count), repeat_error)
        share_error = None if shares is None else np.sqrt(shares) / (count * np.nansum(mean, axis=1, keepdims=True))
    return replace(
        first, mean=mean, n_spectra=count[:, 0], repeat_error=repeat_error, share_error=share_error,
        standard_error=np.where(count > 1, standard_error, first.standard_error), per_spectrum=None, spectra=None,
        **{name: total / count for name, total in sums.items()},
    )  # fmt: skip


def _settings(one):
    """Return what has to be the same in all parts."""
    groups = None if one.groups is None else one.groups.tolist()
    return {name: getattr(one, name) for name in SETTINGS} | {"shape": one.mean.shape, "groups": groups}
