"""From checked arguments to a plan: which spectra are perturbed how, in which chunks and calls of the model."""

from dataclasses import dataclass, replace

import numpy as np

from perturbation.arguments import (
    abundance_cuts,
    direction_array,
    errors_or_covariances,
    find_amps,
    float32_array,
    float_array,
    group_labels,
    positive_integer,
    quadrature_rule,
    scaling,
    seed_of,
    select_spectra,
)
from perturbation.engine import CHUNKS_AHEAD, covariance_root, make_chunks, time_chunk
from perturbation.predictors import CALLS_AT_ONCE, Predictor, probe_model
from perturbation.quadrature import N_ARRAYS, Rule, call_shape

CHUNK_SIZE = 16  # spectra between two additions to a store, in this process
EXACT_CHUNK_SIZE = 300  # the same of the exact map, whose calls overlap within a chunk; fewer where bins are many
CHUNK_SECONDS = 1.0  # of work in a task of a worker: fifty times what handing it over takes
CHUNK_BYTES = 4e6  # of maps that come back from it, so that those that wait for their turn fit the memory


@dataclass(frozen=True)
class Plan:
    """All that is settled before the first spectrum is perturbed, for K networks (K = 1 but for the folds of a run).

    Attributes
    ----------
    spectra, noise : ndarray
        Transit depths (N, n_bins); errors (N, n_bins), covariances (N or 1, n_bins, n_bins) or directions
        (N or 1, n_directions, n_bins) of them. None in the copy that travels to workers.
    is_covariance : bool
    x_mean, x_std : ndarray of shape (K, n_bins)
        How each network wants its spectra scaled.
    auxiliary : ndarray of shape (K, N, k) or None
    scheme : {"halving", "single", "groups", "directions"}
    labels : ndarray of shape (n_columns,)
        Group of each bin in one repeat, -1 for a bin that never moves; the number of each direction.
    shuffle : bool
        New random groups in every repeat.
    rule : quadrature.Rule or None
        Quadrature along directions; None: random repeats.
    repeat : int
        Random repeats; 0 with quadrature.
    seed : int
    layouts : tuple of str
        Input layout of each network.
    n_amps : int
    weights : ndarray of shape (K, n_AMPs) or None
        What each network's scaled prediction counts in their mean, which is scaled as that of the first. None for one.
    amps : list of amps.AMP
        Empty where nothing names them.
    wanted : ndarray of shape (N, n_rows) of bool
        Which spectra enter which row of the map.
    unit : ndarray of shape (n_rows, 1)
        Standard deviation of each AMP; ones for a map in scaled units.
    batch_size, chunk_size : int
        Rows in a call of a network, spectra in a chunk.
    """

    spectra: np.ndarray | None
    noise: np.ndarray | None
    is_covariance: bool
    x_mean: np.ndarray
    x_std: np.ndarray
    auxiliary: np.ndarray | None
    scheme: str
    labels: np.ndarray
    shuffle: bool
    rule: Rule | None
    repeat: int
    seed: int = 0
    layouts: tuple = ("flat",)
    n_amps: int = 0
    weights: np.ndarray | None = None
    amps: tuple = ()
    wanted: np.ndarray | None = None
    unit: np.ndarray | None = None
    batch_size: int = 1
    chunk_size: int = 1

    @property
    def n_rows(self):
        """Rows of the map: the AMPs of each network, and of the mean of several."""
        return self.n_amps * (1 if self.weights is None else len(self.weights) + 1)

    @property
    def n_arrays(self):
        """Arrays (n_rows, n_columns) of one spectrum: map and variance, or those of `quadrature.map_chunk`."""
        return 2 if self.rule is None else N_ARRAYS

    @property
    def shape(self):
        """Shape of a map, (n_rows, n_columns): a column is a bin or a direction."""
        return self.n_rows, len(self.labels)

    @property
    def used(self):
        """Rows of the spectra that enter any AMP, ascending."""
        return np.flatnonzero(self.wanted.any(axis=1))

    def first(self):
        """Return one scaled spectrum and its auxiliary input for each network, to try it with."""
        return [
            ((self.spectra[0] - mean) / std, None if self.auxiliary is None else self.auxiliary[network, 0])
            for network, (mean, std) in enumerate(zip(self.x_mean, self.x_std))
        ]

    def without_data(self):
        """Return the plan without its spectra, small enough to travel to a worker with every chunk."""
        return replace(self, spectra=None, noise=None, auxiliary=None, wanted=None)

    def predictors(self, models):
        """Return how to call each of the models."""
        return [Predictor(model, self.n_amps, layout) for model, layout in zip(models, self.layouts, strict=True)]

    def with_mean(self, changes):
        """Return the changes of each network's predictions (..., n_AMPs), and of their mean if there are several."""
        if self.weights is None:
            return changes
        return [*changes, sum(change * weight for change, weight in zip(changes, self.weights))]


def plan_spectra(
    spectra, errors, covariance, directions, scalings, auxiliary, scheme="single", groups=None, nodes="auto",
    rule="auto", repeat=1,
):  # fmt: skip
    """Check spectra, what moves them, and how; return the first part of a `Plan`.

    ``scalings`` has (x_mean, x_std) of each network, ``auxiliary`` an array of each or None.
    """
    spectra = float_array("org_spectrum", spectra, "(N, n_bins)", ndim=2)
    n, n_bins = spectra.shape
    noise, is_covariance = None, False
    if errors is not None or directions is None:
        noise, is_covariance = errors_or_covariances(errors, n, n_bins, covariance)
    if directions is not None:
        if groups is not None:
            raise ValueError("groups: expected None, as directions are given, received both")
        noise, is_covariance = direction_array(directions, n, n_bins), False
    scalings = [scaling("x_mean", mean, "x_std", std, (1, n_bins)) for mean, std in scalings]
    x_mean, x_std = (np.stack([np.broadcast_to(array, n_bins) for array in arrays]) for arrays in zip(*scalings))
    if auxiliary[0] is None:
        auxiliary = None
    else:
        given = [float_array("auxiliary", array, f"({n}, k)", ndim=2, length=n) for array in auxiliary]
        auxiliary = np.stack([float32_array("auxiliary", array) for array in given])
    with np.errstate(over="ignore"):
        extremes = (np.stack([spectra.min(axis=0), spectra.max(axis=0)])[:, None] - x_mean) / x_std
        moves = None if is_covariance else _greatest(noise.reshape(-1, n_bins)) / x_std
    float32_array("org_spectrum, scaled by x_mean and x_std", extremes)
    if moves is not None:
        float32_array(f"{'org_error' if directions is None else 'directions'}, scaled by x_std", moves)

    labels, shuffle, scheme = group_labels(scheme, groups, n_bins)
    if directions is not None:
        labels, shuffle, scheme = np.arange(noise.shape[1]), False, "directions"
    repeat = positive_integer("repeat", repeat)
    rule = quadrature_rule(nodes, rule, scheme)
    return Plan(
        spectra, noise, is_covariance, x_mean, x_std, auxiliary, scheme, labels, shuffle, rule,
        repeat if rule is None else 0,
    )  # fmt: skip


def _greatest(values):
    """Return the greatest size in each column, (n,), of (N, n): without a copy of what may be a large survey."""
    return np.maximum(values.max(axis=0), -values.min(axis=0))


def finish_plan(
    plan, models, y_scalings, scaled=False, y_test=None, gases=None, abundance=None, no_spectra=None, rng=None,
    input_layout=None, batch_size=None, chunk_size="auto", executor=None,
):  # fmt: skip
    """Try the models, choose the spectra of each AMP and the size of calls and chunks; return the whole `Plan`.

    ``y_scalings`` has (y_mean, y_std) of each network.
    """
    if scaled and y_scalings[0][1] is None:
        y_std = n_amps = None
    else:
        y_std = np.stack([scaling("y_data_mean", mean, "y_data_std", std)[1] for mean, std in y_scalings])
        n_amps = y_std.shape[1]
    batch_size = None if batch_size is None else positive_integer("batch_size", batch_size)
    is_auto = isinstance(chunk_size, str) and chunk_size == "auto"
    chunk_size = CHUNK_SIZE if is_auto else positive_integer("chunk_size", chunk_size, ' or "auto"')
    if no_spectra is not None:
        no_spectra = None if no_spectra == -1 else positive_integer("no_spectra", no_spectra, ", or None (-1) for all")
    seed = seed_of(rng)

    probes = []
    for model, (spectrum, auxiliary) in zip(models, plan.first(), strict=True):
        trial = model, spectrum, n_amps, auxiliary, input_layout
        probes.append(probe_model(*trial) if executor is None else executor.submit(probe_model, *trial).result())
        n_amps = probes[0].n_amps
    amps = find_amps(gases, n_amps)
    wanted = select_spectra(y_test, abundance_cuts(abundance, amps), amps, no_spectra, len(plan.spectra), n_amps)
    unit = np.ones((len(models), n_amps)) if scaled else y_std
    weights = None
    if len(models) > 1:
        weights = (np.ones_like(unit) if y_std is None else y_std / y_std[0]) / len(models)
        wanted, unit = np.tile(wanted, len(models) + 1), np.concatenate([unit, unit[:1]])
    if plan.rule is not None:
        plan = _along_directions(plan, np.flatnonzero(wanted.any(axis=1)))
    plan = replace(
        plan, seed=seed, layouts=tuple(probe.layout for probe in probes), n_amps=n_amps, weights=weights, amps=amps,
        wanted=wanted, unit=unit.reshape(-1, 1), batch_size=batch_size or min(probe.batch_size for probe in probes),
        chunk_size=chunk_size,
    )  # fmt: skip
    if is_auto and executor is not None:
        chunk_size = _good_size(models, plan, executor)
    elif is_auto and plan.rule is not None:
        chunk_size = max(chunk_size, min(4 * CALLS_AT_ONCE * _whole_calls(plan, 1), EXACT_CHUNK_SIZE))
    return replace(plan, chunk_size=_whole_calls(plan, chunk_size))


def _whole_calls(plan, chunk_size):
    """Return the next number of spectra that fills whole calls of the network."""
    if plan.rule is None:
        return chunk_size
    at_once, _ = call_shape(plan.rule, len(plan.labels), plan.batch_size)
    return -(-chunk_size // at_once) * at_once


def _good_size(models, plan, executor):
    """Return how many spectra a task gets: `CHUNK_SECONDS` of work, as a worker measures it, but tasks for all."""
    few = _whole_calls(plan, 1)
    trial = next(make_chunks(replace(plan, chunk_size=few), plan.used[:few]))
    seconds = executor.submit(time_chunk, models, trial, plan.without_data()).result()
    fair = -(-len(plan.used) // getattr(executor, "chunks_ahead", CHUNKS_AHEAD))
    answer = 8 * plan.n_arrays * np.prod(plan.shape)
    return max(1, int(min(CHUNK_SECONDS / max(seconds, 1e-9), fair, CHUNK_BYTES / answer)))


def _along_directions(plan, rows):
    """Return the plan with covariances turned into the error of each bin alone; those of ``rows`` are checked."""
    if not plan.is_covariance:
        return plan
    if len(plan.noise) == 1:
        covariance_root(plan.noise[0], "all spectra")
    else:
        for row in rows:
            covariance_root(plan.noise[row], f"spectrum {row}")
    variances = np.diagonal(plan.noise, axis1=1, axis2=2)
    errors = np.sqrt(np.maximum(variances, 0))
    return replace(plan, noise=np.broadcast_to(errors, plan.spectra.shape), is_covariance=False)
