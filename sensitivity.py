"""Which wavelengths does each answer of a network rest on? The sensitivity test of Yip et al. (2021), Section 5.

    >>> import numpy as np
    >>> weights = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])  # a linear model of 3 bins, 2 AMPs
    >>> compute_sensitivity_org(
    ...     lambda x: x @ weights, None, np.zeros((1, 3)), np.ones((1, 3)), np.zeros(2), np.ones(2),
    ...     no_spectra=None, repeat=4000, x_mean=0, x_std=1, scheme="single", rng=0).round(0)
    array([[1., 0., 0.],
           [0., 4., 0.]])

`compute_sensitivty_org` and `compute_sensitivty_std` (the published names; `compute_sensitivity_...` are the
same) return the map; `sensitivity_map` returns it with error bars. Arguments are checked in
`sensitivity_inputs`, the engine is `perturbation`, models are wrapped in `predictors`. No machine-learning
framework is imported.
"""

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perturbation.arguments import (
    abundance_cuts,
    errors_or_covariances,
    find_amps,
    float_array,
    group_labels,
    plain_abundance,
    positive_integer,
    positive_number,
    scaling,
    seed_of,
    select_spectra,
)
from perturbation.engine import RunningMoments, Settings, halving_sizes, make_chunks, run_chunks
from perturbation.predictors import ModelLoader, probe_model

__all__ = [
    "ModelLoader",
    "SensitivityMap",
    "compute_sensitivity_org",
    "compute_sensitivity_std",
    "compute_sensitivty_org",
    "compute_sensitivty_std",
    "halving_sizes",
    "sensitivity_map",
]

ARRAYS = ("mean", "standard_error", "repeat_error", "per_spectrum", "spectra", "groups")  # data sets of a saved map


@dataclass(frozen=True)
class SensitivityMap:
    """A sensitivity map with its error bars.

    Attributes
    ----------
    mean : ndarray of shape (n_AMPs, n_bins)
        Mean squared change of each AMP, in the AMP's retrieval-space unit squared (or scaled units squared).
        NaN for a bin that no group of the user holds.
    standard_error : ndarray of shape (n_AMPs, n_bins)
        1-sigma error of ``mean`` as an estimate of the map of *all spectra like these*: spread over spectra and
        repeats. For a single spectrum there is no spread over spectra, and it is ``repeat_error``. As with any mean
        of few numbers, it is too small for few spectra, the more so where a few planets carry much of the map: on
        the shipped data it had to be 2.2 times as large with 10 spectra, 1.2 with 100 (docs/faithfulness.md).
    repeat_error : ndarray of shape (n_AMPs, n_bins)
        1-sigma Monte Carlo error of ``mean`` for *exactly these spectra*: what more repeats would reduce.
        NaN for one repeat.
    n_spectra : ndarray of shape (n_AMPs,)
        Number of spectra behind each AMP.
    scheme : {"halving", "single", "groups"}
        How bins were grouped.
    repeat : int
        Repeats per spectrum.
    seed : int
        Pass it as ``rng`` to draw the same numbers again.
    scaled : bool
        True if the map is in the network's scaled units.
    abundance : None, (low, high) or dict
        The cut in log10 VMR.
    amp_names : tuple of str
        Keys of the AMPs where known, else empty.
    per_spectrum : ndarray of shape (n_used, n_AMPs, n_bins) or None
        Map of each spectrum, NaN where the abundance cut left it out of an AMP; None if not kept.
    spectra : ndarray of shape (n_used,) or None
        Rows of ``org_spectrum`` of these maps.
    groups : ndarray of shape (n_bins,) or None
        Number of the group of each bin, -1 for none, where they were the user's own.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    repeat_error: np.ndarray
    n_spectra: np.ndarray
    scheme: str
    repeat: int
    seed: int
    scaled: bool = False
    abundance: object = None
    amp_names: tuple = ()
    per_spectrum: np.ndarray | None = None
    spectra: np.ndarray | None = None
    groups: np.ndarray | None = None

    def save(self, target):
        """Write the map to an open ``h5py.Group``, or to a file of its own, which is written whole or not at all.

        Arrays become data sets, the rest attributes.

        Parameters
        ----------
        target : h5py.Group or path
        """
        import h5py

        if not isinstance(target, h5py.Group):
            target = Path(target)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
            try:
                with h5py.File(part, "w") as file:
                    self.save(file)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
            return
        for name in ARRAYS:
            target.pop(name, None)
            if getattr(self, name) is not None:
                target[name] = getattr(self, name)
        target.attrs["scheme"] = self.scheme
        target.attrs["repeat"] = self.repeat
        target.attrs["n_spectra"] = self.n_spectra
        target.attrs["seed"] = str(self.seed)  # up to 128 bits
        target.attrs["scaled"] = self.scaled
        target.attrs["abundance"] = json.dumps(self.abundance)
        target.attrs["amp_names"] = json.dumps(self.amp_names)

    @classmethod
    def load(cls, source):
        """Read a map back from an open ``h5py.Group`` or a file written by `save`.

        Raises
        ------
        ValueError
            If there is no map in it.
        """
        import h5py

        if not isinstance(source, h5py.Group):
            with h5py.File(source, "r") as file:
                return cls.load(file)
        if "mean" not in source or "scheme" not in source.attrs:
            where = f"{source.file.filename}: {source.name}"
            raise ValueError(f"{where}: expected a map written by SensitivityMap.save, received {list(source)}")
        arrays = {name: source[name][()] for name in ARRAYS if name in source}
        abundance = json.loads(source.attrs["abundance"])
        if isinstance(abundance, dict):
            abundance = {name: tuple(cut) for name, cut in abundance.items()}
        return cls(
            **arrays,
            n_spectra=source.attrs["n_spectra"],
            scheme=source.attrs["scheme"],
            repeat=int(source.attrs["repeat"]),
            seed=int(source.attrs["seed"]),
            scaled=bool(source.attrs["scaled"]),
            abundance=tuple(abundance) if isinstance(abundance, list) else abundance,
            amp_names=tuple(json.loads(source.attrs["amp_names"])),
        )


def sensitivity_map(
    model, y_test, org_spectrum, org_error, y_data_mean=None, y_data_std=None, gases=None, no_spectra=100,
    repeat=500, x_mean=None, x_std=None, abundance=None, *, scaled=False, rng=None, scheme="halving", groups=None,
    covariance=None, auxiliary=None, input_layout=None, batch_size=None, keep_spectra=True, progress=False,
    executor=None, chunk_size=16, store=None, tolerance=None,
):  # fmt: skip
    """Sensitivity of each AMP to each wavelength bin, with error bars (Yip et al. 2021, Section 5).

    Parameters
    ----------
    model : object
        The trained network: Keras, any object with ``.predict``, a PyTorch module, any callable that takes and
        returns arrays, or a `ModelLoader`. It reads scaled spectra (rows, n_bins, 1) or (rows, n_bins), float32,
        and returns scaled AMPs (rows, n_AMPs).
    y_test : array of shape (N, n_AMPs) or None
        True AMPs in retrieval space (log10 VMR for molecules); used for the abundance cut only.
    org_spectrum : array of shape (N, n_bins)
        Transit depths, unscaled.
    org_error : array of shape (n_bins,), (N, n_bins), (n_bins, n_bins) or (N, n_bins, n_bins)
        1-sigma errors, the same for all spectra or not, or covariances, unscaled. A bin of zero error never moves.
    y_data_mean, y_data_std : array of shape (n_AMPs,) or (1, n_AMPs)
        Scaling of the AMPs; the mean cancels. May be None if ``scaled``.
    gases : sequence of str, optional
        AMP of each column: a key ("H2O"), plot label or `constants.AMP`; in any case. Default: those of the paper
        if there are nine. Used for the abundance cut and to name the result.
    no_spectra : int or None
        Spectra for each AMP: the first ones of those in its abundance range. None or -1: all of them.
    repeat : int
        Repeats per spectrum.
    x_mean, x_std : float or array of shape (n_bins,)
        Scaling of the spectra. Required.
    abundance : (low, high) or dict of str to (low, high), optional
        Only spectra with low < log10 VMR < high enter the row of a molecule; planet parameters use all spectra.
        A dict cuts the AMPs it names, molecules or not. None: no cut.
    scaled : bool
        Return the map in scaled units squared rather than in the AMPs' own.
    rng : int, sequence of int, numpy.random.Generator, numpy.random.SeedSequence or None
        Source of randomness. Same seed, same map; a Generator moves on. None: fresh entropy. Draws follow the row of
        ``org_spectrum``: parts of a survey tested one after the other need a seed each.
    scheme : {"halving", "single"}
        Random groups of 26, 13, 7, 4, 2 bins (of 52) as published, or each bin alone. Halving credits a bin with the
        effect of its companions: a floor under all bins, p in the notes, of a third of the sum of the single-bin map
        (2 % of its own sum, for 52 bins).
    groups : sequence of index lists, or integer array of shape (n_bins,), optional
        Your own groups (an instrument channel, a band), perturbed jointly; replaces ``scheme``. As an array: the
        number of each bin's group, negative for none. Bins in no group are held fixed and get NaN.
    covariance : bool, optional
        Whether ``org_error`` holds covariances. Default: if it has three axes, or is (n_bins, n_bins) while there
        are not n_bins spectra. With as many spectra as bins, a square array counts as errors.
    auxiliary : array of shape (N, k), optional
        Second input of a two-input model, held fixed. The model receives [spectra, auxiliary].
    input_layout : {"channel", "flat"}, optional
        (rows, n_bins, 1) or (rows, n_bins). Default: as the model declares, else found by trying in this order.
    batch_size : int, optional
        Rows per call of the model, at most; never less than one repeat of one spectrum. Default: up to 5120, fewer
        for a Keras model with wide layers (192 for an LSTM of 52 bins, about 100 MB).
    keep_spectra : bool
        Keep the map of each spectrum. False keeps memory constant in the number of spectra.
    progress : bool
        Show a progress bar over spectra.
    executor : concurrent.futures.Executor, optional
        Where chunks of spectra are run. Default: in this process. For worker processes give a `ModelLoader`.
    chunk_size : int
        Spectra per chunk. Does not change the result.
    store : mutable mapping of int to ndarray of shape (2, n_AMPs, n_bins), optional
        Finished spectra, by row of ``org_spectrum``, in scaled units: those in it are not computed again, others
        are added as their chunk ends. For resuming the same test (same model, spectra, errors, scheme, repeats and
        seed, which is not checked) after an interruption. Needs ``rng``.
    tolerance : float, optional
        Stop before ``no_spectra`` once each AMP's sum of its map over all bins is known to this relative standard
        error, from at least 10 spectra of each AMP. ``n_spectra`` says where; if it is never reached all are used.

    Returns
    -------
    SensitivityMap

    Raises
    ------
    ValueError
        If an argument is not as described, no spectrum is in an AMP's abundance range, or the model's output is
        not (rows, n_AMPs) or not finite. The message says the argument, what was expected and what was received.

    Warns
    -----
    UserWarning
        Once, if some AMPs have fewer than ``no_spectra`` spectra.

    Notes
    -----
    For a linear model with per-bin effect v_b = (w_b s_b)^2 the halving map expects v_b + p (sum(v) - v_b), with
    p = sum_j n_j (n_j - 1) / (n_bins (n_bins - 1)) over group sizes n_j; p = 0 for single bins.

    The same seed gives the same draws for any batch size, and bit-identical maps for any chunking, order or executor
    on one kind of machine. Another batch size may change a model's answers, and so the map, in the last bits.

    A Keras network on TensorFlow is called by three threads at a time, so that one predicts while others draw; any
    other model by one thread at a time, but for those of your own ``executor``.
    """
    spectra = float_array("org_spectrum", org_spectrum, "(N, n_bins)", ndim=2)
    n, n_bins = spectra.shape
    errors, is_covariance = errors_or_covariances(org_error, n, n_bins, covariance)
    x_mean, x_std = scaling("x_mean", x_mean, "x_std", x_std, (1, n_bins))
    x_mean, x_std = np.broadcast_to(x_mean, n_bins), np.broadcast_to(x_std, n_bins)
    if auxiliary is not None:
        auxiliary = float_array("auxiliary", auxiliary, f"({n}, k)", ndim=2, length=n).astype(np.float32)
    if scaled and y_data_std is None:
        y_std = n_amps = None
    else:
        _, y_std = scaling("y_data_mean", y_data_mean, "y_data_std", y_data_std)
        n_amps = len(y_std)
    repeat = positive_integer("repeat", repeat)
    batch_size = None if batch_size is None else positive_integer("batch_size", batch_size)
    chunk_size = positive_integer("chunk_size", chunk_size)
    tolerance = None if tolerance is None else positive_number("tolerance", tolerance)
    if no_spectra is not None:
        no_spectra = None if no_spectra == -1 else positive_integer("no_spectra", no_spectra, ", or None (-1) for all")
    labels, shuffle, scheme = group_labels(scheme, groups, n_bins)
    if store is not None and rng is None:
        raise ValueError("rng: expected the seed of the maps in store, received None")
    seed = seed_of(rng)

    first = (spectra[0] - x_mean) / x_std, n_amps, None if auxiliary is None else auxiliary[0], input_layout
    probe = executor.submit(probe_model, model, *first).result() if executor is not None else probe_model(model, *first)
    n_amps = probe.n_amps
    amps = find_amps(gases, n_amps)
    wanted = select_spectra(y_test, abundance_cuts(abundance, amps), amps, no_spectra, n, n_amps)  # (N, n_AMPs)
    used = np.flatnonzero(wanted.any(axis=1))

    settings = Settings(labels, shuffle, repeat, batch_size or probe.batch_size, seed, probe.layout, n_amps)
    finished = np.array([store is not None and int(i) in store for i in used], dtype=bool)
    for i in used[finished][:1].tolist():
        if np.shape(store[i]) != (2, n_amps, n_bins):
            raise ValueError(f"store: expected maps {(2, n_amps, n_bins)}, received {np.shape(store[i])}")
    missing = used[~finished]
    chunks = make_chunks(missing, chunk_size, spectra, errors, is_covariance, x_mean, x_std, auxiliary)
    answers = _answers(missing, run_chunks(model, chunks, settings, executor), store)

    moments, totals = RunningMoments(n_amps, n_bins), RunningMoments(n_amps, 1)  # totals: sums over bins
    unit = np.ones((n_amps, 1)) if scaled else y_std[:, None] ** 2
    per_spectrum = np.full((len(used), n_amps, n_bins), np.nan) if keep_spectra else None
    with _progress(len(used), progress, executor) as advance:
        for k, i in enumerate(used):
            spectrum_map, variance = store[int(i)] if finished[k] else next(answers)
            moments.add(spectrum_map, variance, wanted[i])
            if keep_spectra:
                per_spectrum[k, wanted[i]] = (spectrum_map * unit)[wanted[i]]
            advance()
            if tolerance is not None:
                total = spectrum_map.sum(axis=1, keepdims=True)
                totals.add(total, np.zeros_like(total), wanted[i])
                if totals.within(tolerance):
                    used = used[: k + 1]
                    break

    tested = np.where(labels >= 0, 1.0, np.nan)
    return SensitivityMap(
        mean=moments.mean * unit * tested,
        standard_error=moments.standard_error * unit * tested,
        repeat_error=moments.repeat_error * unit * tested,
        n_spectra=moments.count[:, 0],
        scheme=scheme,
        repeat=repeat,
        seed=seed,
        scaled=bool(scaled),
        abundance=plain_abundance(abundance),
        amp_names=tuple(amp.key for amp in amps),
        per_spectrum=per_spectrum[: len(used)] * tested if keep_spectra else None,
        spectra=used if keep_spectra else None,
        groups=labels if groups is not None else None,
    )


def compute_sensitivty_org(
    model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases=None, no_spectra=100, repeat=500,
    x_mean=None, x_std=None, abundance=None, **options,
):  # fmt: skip
    """Sensitivity map in the AMPs' own retrieval-space units squared, (n_AMPs, n_bins), as an array.

    Arguments, ``options`` (its keyword-only ones), errors and warnings are those of `sensitivity_map`, which also
    gives error bars. The published name and order of arguments; Yip et al. (2021), Section 5.
    """
    return sensitivity_map(
        model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases, no_spectra, repeat, x_mean, x_std,
        abundance, scaled=False, **{"keep_spectra": False, **options},
    ).mean  # fmt: skip


def compute_sensitivty_std(
    model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases=None, no_spectra=100, repeat=500,
    x_mean=None, x_std=None, abundance=None, **options,
):  # fmt: skip
    """Sensitivity map in the network's scaled units squared, (n_AMPs, n_bins); else as `compute_sensitivty_org`."""
    return sensitivity_map(
        model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases, no_spectra, repeat, x_mean, x_std,
        abundance, scaled=True, **{"keep_spectra": False, **options},
    ).mean  # fmt: skip


compute_sensitivity_org = compute_sensitivty_org
compute_sensitivity_std = compute_sensitivty_std


def _answers(rows, results, store):
    """Yield (map, variance) of one spectrum after the other, in the order of ``rows``.

    A chunk goes to the store as soon as it ends; one that ends before its turn is held until then.
    """
    held = {}
    for row in rows.tolist():
        while row not in held:
            chunk, maps = next(results)
            found = dict(zip(chunk.indices.tolist(), maps, strict=True))
            if store is not None:
                store.update(found)
            held.update(found)
        yield held.pop(row)


@contextmanager
def _progress(total, shown, executor):
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
