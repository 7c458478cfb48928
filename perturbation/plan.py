"""From checked arguments to a plan: which spectra are perturbed how, in which chunks and calls of the model."""

import warnings
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
    truth,
    way_with_random_models,
)
from perturbation.engine import CHUNKS_AHEAD, covariance_root, make_chunks, time_chunk
from perturbation.predictors import CALLS_AT_ONCE, Predictor
from perturbation.probe import probe_model
from perturbation.quadrature import N_ARRAYS, Rule, call_shape

TRIED = 3  # spectra that a model is asked about before the test begins
LEAST_STEPS = 32  # float32 steps in one standard deviation of a bin: with fewer, the map is off by a per cent or more
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
        Weight of each network's scaled prediction in their mean, which is scaled as the first is. None for one.
    amps : list of amps.AMP
        Empty where nothing names them.
    wanted : ndarray of shape (N, n_rows) of bool
        Which spectra enter which row of the map.
    unit : ndarray of shape (n_rows, 1)
        Standard deviation of each AMP; ones for a map in scaled units.
    batch_size, chunk_size : int
        Rows in a call of a network, spectra in a chunk.
    call_shape : (int, int)
        Spectra, and directions of each, in a call of a network by quadrature.
    output, auxiliary_first
        As of `predictors.Predictor`.
    stochastic : "subtract", int or None
        What is done about predictions that are random.
    resolution : ndarray of shape (n_rows, 1)
        Distance of neighbouring numbers among predictions, scaled units.
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
    call_shape: tuple = (1, 1)
    output: object = None
    auxiliary_first: bool | None = None
    stochastic: object = None
    resolution: np.ndarray | None = None

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

    @property
    def asks_twice(self):
        """Whether the product of two changes takes the place of the square, as the model predicts at random."""
        return self.stochastic == "subtract"

    def first(self):
        """Return three scaled spectra and their auxiliary inputs for each network, to try it with.

        Where there are fewer, the first is repeated with depths that are a little larger.
        """
        rows = np.minimum(np.arange(TRIED), len(self.spectra) - 1)
        larger = 1 + 1e-3 * (np.arange(TRIED) - rows)[:, None]
        return [
            (
                (self.spectra[rows] - mean) / std * larger,
                None if self.auxiliary is None else self.auxiliary[network, rows],
            )
            for network, (mean, std) in enumerate(zip(self.x_mean, self.x_std))
        ]

    def without_data(self):
        """Return the plan without its spectra, small enough to travel to a worker with every chunk."""
        return replace(self, spectra=None, noise=None, auxiliary=None, wanted=None)

    def predictors(self, models):
        """Return how to call each of the models."""
        askings = self.stochastic if isinstance(self.stochastic, int) else 1
        return [
            Predictor(model, self.n_amps, layout, self.output, self.auxiliary_first, askings)
            for model, layout in zip(models, self.layouts, strict=True)
        ]

    def with_mean(self, changes, again):
        """Return the changes of each network's predictions (..., n_AMPs), and of their mean if there are several.

        Each is a pair with what changed when asked ``again``, or with None if that is empty.
        """
        pairs = [self._and_of_mean(changes), self._and_of_mean(again)]
        return list(zip(pairs[0], pairs[1] or [None] * len(pairs[0])))

    def _and_of_mean(self, changes):
        if self.weights is None or not changes:
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
    name = "org_error" if directions is None else "directions"
    if moves is not None:
        float32_array(f"{name}, scaled by x_std", moves)
    for mean, std in zip(x_mean, x_std):
        _refuse_small_moves(name, spectra, noise, is_covariance, mean, std)

    labels, shuffle, scheme = group_labels(scheme, groups, n_bins)
    if directions is not None:
        labels, shuffle, scheme = np.arange(noise.shape[1]), False, "directions"
    repeat = positive_integer("repeat", repeat)
    rule = quadrature_rule(nodes, rule, scheme)
    return Plan(
        spectra, noise, is_covariance, x_mean, x_std, auxiliary, scheme, labels, shuffle, rule,
        repeat if rule is None else 0,
    )  # fmt: skip


def _refuse_small_moves(name, spectra, noise, is_covariance, x_mean, x_std):
    """Refuse displacements that float32, which networks read, cannot resolve; block by block, as they may be many."""
    for start in range(0, len(spectra), 4096):
        some = slice(start, start + 4096)
        step = np.abs((spectra[some] - x_mean) / x_std) * np.finfo(np.float32).eps
        moves = noise[some] if len(noise) == len(spectra) else noise  # the same for all spectra
        if is_covariance:
            moves = np.sqrt(np.maximum(np.diagonal(moves, axis1=1, axis2=2), 0))
        moves = np.abs(moves) / x_std
        if moves.ndim == 3:  # of a direction, the bin that moves most
            most = moves.argmax(axis=2)  # (n or 1, n_directions)
            step = step[np.arange(len(step))[:, None], most]
            moves = moves.max(axis=2)
        small = (moves > 0) & (moves < LEAST_STEPS * step)
        if small.any():
            where = np.unravel_index(np.argmax(small), small.shape)
            ratio = np.broadcast_to(moves, small.shape)[where] / np.broadcast_to(step, small.shape)[where]
            raise ValueError(
                f"{name}: expected at least {LEAST_STEPS} steps between the float32 numbers that networks read,"
                f" received {ratio:.2g} steps at the scaled spectrum {start + where[0]}: give x_mean and x_std near the"
                " mean and spread of the spectra"
            )


def _greatest(values):
    """Return the greatest size in each column, (n,), of (N, n): without a copy of what may be a large survey."""
    return np.maximum(values.max(axis=0), -values.min(axis=0))


def finish_plan(
    plan, models, y_scalings, scaled=False, y_test=None, gases=None, abundance=None, no_spectra=None, rng=None,
    input_layout=None, batch_size=None, chunk_size="auto", executor=None, output=None, auxiliary_first=None,
    stochastic=None,
):  # fmt: skip
    """Try the models, choose the spectra of each AMP and the size of calls and chunks; return the whole `Plan`.

    ``y_scalings`` has (y_mean, y_std) of each network.
    """
    scaled = truth("scaled", scaled)
    y_std = n_amps = None
    if not (scaled and y_scalings[0][1] is None):
        y_std = [scaling("y_data_mean", mean, "y_data_std", std)[1] for mean, std in y_scalings]
        n_amps = None if np.ndim(y_std[0]) == 0 else len(y_std[0])  # one number holds for all AMPs
    batch_size = None if batch_size is None else positive_integer("batch_size", batch_size)
    is_auto = isinstance(chunk_size, str) and chunk_size == "auto"
    chunk_size = CHUNK_SIZE if is_auto else positive_integer("chunk_size", chunk_size, ' or "auto"')
    if no_spectra is not None:
        no_spectra = None if no_spectra == -1 else positive_integer("no_spectra", no_spectra, ", or None (-1) for all")
    seed = seed_of(rng)

    auxiliary_first = None if auxiliary_first is None else truth("auxiliary_first", auxiliary_first)
    stochastic = None if stochastic is None else way_with_random_models(stochastic)
    probes = []
    for model, (spectra, auxiliary) in zip(models, plan.first(), strict=True):
        trial = model, spectra, n_amps, auxiliary, input_layout, output, auxiliary_first
        probes.append(probe_model(*trial) if executor is None else executor.submit(probe_model, *trial).result())
        n_amps = probes[0].n_amps
    if stochastic is None:
        _warn_of_random(probes, plan.rule)
    amps = find_amps(gases, n_amps)
    wanted = select_spectra(y_test, abundance_cuts(abundance, amps), amps, no_spectra, len(plan.spectra), n_amps)
    unit = np.stack([np.ones(n_amps) if scaled else np.broadcast_to(std, n_amps) for std in y_std or [1] * len(models)])
    weights, resolution = None, np.stack([probe.resolution * probe.size for probe in probes])
    if len(models) > 1:
        weights = np.stack([np.broadcast_to(std / y_std[0], n_amps) for std in y_std]) if y_std else np.ones_like(unit)
        weights = weights / len(models)
        wanted, unit = np.tile(wanted, len(models) + 1), np.concatenate([unit, unit[:1]])
        resolution = np.concatenate([resolution, (resolution * weights).max(axis=0, keepdims=True)])
    if plan.rule is not None:
        plan = _along_directions(plan, np.flatnonzero(wanted.any(axis=1)))
    plan = replace(
        plan, seed=seed, layouts=tuple(probe.layout for probe in probes), n_amps=n_amps, weights=weights, amps=amps,
        wanted=wanted, unit=unit.reshape(-1, 1), batch_size=batch_size or min(probe.batch_size for probe in probes),
        chunk_size=chunk_size, output=output, auxiliary_first=auxiliary_first, stochastic=stochastic,
        resolution=resolution.reshape(-1, 1),
    )  # fmt: skip
    if plan.rule is not None:
        plan = replace(plan, call_shape=call_shape(plan.rule, len(plan.labels), plan.batch_size, len(plan.used)))
    if is_auto and executor is not None:
        chunk_size = _good_size(models, plan, executor)
    elif is_auto and plan.rule is not None:
        chunk_size = max(chunk_size, min(4 * CALLS_AT_ONCE * _whole_calls(plan, 1), EXACT_CHUNK_SIZE))
    return replace(plan, chunk_size=_whole_calls(plan, chunk_size))


def _warn_of_random(probes, rule):
    """Warn where predictions for the same spectrum differ, with the size."""
    scatter = max(probe.scatter.max() for probe in probes)
    if scatter > 0:
        form = np.eye(1) if rule is None else rule.root.T @ rule.root  # of the changes at the nodes, which share f(x)
        added = (np.trace(form) + form.sum()) * scatter**2
        warnings.warn(
            f"model: expected the same predictions when asked twice, received random ones (standard deviation"
            f" {scatter:.2g}, scaled units), which adds about {added:.2g} to every cell of that AMP's map. Say"
            ' stochastic="subtract" to take it out, or stochastic=10 to ask ten times and use the mean',
            stacklevel=5,
        )


def _whole_calls(plan, chunk_size):
    """Return the next number of spectra that fills whole calls of the network."""
    if plan.rule is None:
        return chunk_size
    return -(-chunk_size // plan.call_shape[0]) * plan.call_shape[0]


def _good_size(models, plan, executor):
    """Return how many spectra a task gets: `CHUNK_SECONDS` of work, as a worker measures it, but tasks for all."""
    few = _whole_calls(plan, 1)
    trial = next(make_chunks(replace(plan, chunk_size=few), plan.used[:few]))
    seconds = executor.submit(time_chunk, models, trial, plan.without_data()).result()
    fair = -(-len(plan.used) // getattr(executor, "chunks_ahead", CHUNKS_AHEAD))
    map_bytes = 8 * plan.n_arrays * np.prod(plan.shape)
    return max(1, int(min(CHUNK_SECONDS / max(seconds, 1e-9), fair, CHUNK_BYTES / map_bytes)))


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
