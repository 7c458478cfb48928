"""From checked arguments to a plan: which spectra are perturbed how, in which chunks and calls of the model."""

import warnings
from dataclasses import dataclass, replace

import numpy as np

from perturbation import arguments
from perturbation.engine import CHUNKS_AHEAD, covariance_root, make_chunks, time_chunk
from perturbation.predictors import CALLS_AT_ONCE
from perturbation.probe import TRIED, probe_model
from perturbation.quadrature import N_ARRAYS, Rule, call_shape

LEAST_STEPS = 32  # float32 steps in one standard deviation of a bin: with fewer, the map is off by a per cent or more
EPS = float(np.finfo(np.float32).eps)
CHUNK_SIZE = 16  # spectra between two additions to a store, in this process
EXACT_CHUNK_SIZE = 300  # the same of the exact map, whose calls overlap within a chunk; fewer where bins are many
CHUNK_SECONDS = 1.0  # of work in a task of a worker: fifty times what handing it over takes
CHUNK_BYTES = 4e6  # of maps that come back from it, so that those that wait for their turn fit the memory


@dataclass(frozen=True)
class Plan:
    """All that is settled before the first spectrum is perturbed, for K networks (K = 1 but for the folds of a run)."""

    # What moves: transit depths (N, n_bins), and their errors (N, n_bins), covariances (N or 1, n_bins, n_bins) or
    # directions (N or 1, n_directions, n_bins). None in the copy that travels to workers
    spectra: np.ndarray | None
    noise: np.ndarray | None
    is_covariance: bool
    x_mean: np.ndarray  # (K, n_bins), how each network wants its spectra scaled
    x_std: np.ndarray
    auxiliary: np.ndarray | None  # (K, N, k)
    # How it moves
    scheme: str  # "halving", "single", "groups" or "directions"
    labels: np.ndarray  # (n_columns,) group of each bin, -1 for one that never moves; the number of each direction
    shuffle: bool  # new random groups in every repeat
    rule: Rule | None  # quadrature along directions; None: random repeats
    repeat: int  # random repeats; 0 with quadrature
    seed: int = 0
    # What is called, and for which spectra
    calls: tuple = ()  # a Predictor for each network, without the network itself
    weights: np.ndarray | None = None  # (K, n_AMPs) of the scaled predictions in their mean, scaled as the first is
    amps: tuple = ()  # of the columns; empty where nothing names them
    wanted: np.ndarray | None = None  # (N, n_rows) of bool: which spectra enter which row of the map
    used: np.ndarray | None = None  # rows of the spectra that enter any, ascending
    unit: np.ndarray | None = None  # (n_rows, 1) standard deviation of each AMP; ones for a map in scaled units
    batch_size: int = 1  # rows in a call of a network
    chunk_size: int = 1  # spectra in a chunk
    call_shape: tuple = (1, 1)  # spectra, and directions of each, in a call of a network by quadrature
    asks_twice: bool = False  # the product of two changes takes the place of the square, as the model is random
    step: np.ndarray | None = None  # (n_rows, 1) distance of neighbouring numbers among predictions, scaled

    @property
    def is_random(self):
        """Whether something is done about a model that predicts at random."""
        return self.asks_twice or self.calls[0].n_calls > 1

    @property
    def n_amps(self):
        """Columns of the output of each network."""
        return self.calls[0].n_amps

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

    def without_data(self):
        """Return the plan without its spectra, small enough to travel to a worker with every chunk."""
        return replace(self, spectra=None, noise=None, auxiliary=None, wanted=None, used=None)

    def with_mean(self, changes):
        """Return the changes of each network's predictions (..., n_AMPs), and of their mean if there are several."""
        if self.weights is None or not changes:
            return changes
        return [*changes, sum(change * weight for change, weight in zip(changes, self.weights))]


def make_plan(
    networks, y_test, spectra, errors, *, gases=None, no_spectra=100, repeat=500, abundance=None, scaled=False,
    rng=None, scheme="halving", groups=None, covariance=None, input_layout=None, batch_size=None, executor=None,
    chunk_size="auto", directions=None, nodes="auto", rule="auto", output=None, auxiliary_first=None, stochastic=None,
):  # fmt: skip
    """Check arguments, those of `sensitivity.fold_maps`, try the models, and choose sizes of calls and chunks."""
    if executor is not None and not hasattr(executor, "submit"):
        raise ValueError(f"executor: expected a concurrent.futures.Executor, received {type(executor).__name__}")
    spectra = arguments.float_array("org_spectrum", spectra, "(N, n_bins)", ndim=2)
    n, n_bins = spectra.shape
    name, noise, is_covariance, labels, shuffle, scheme = _what_moves(
        errors, covariance, directions, scheme, groups, n, n_bins
    )
    x_mean, x_std = np.empty((2, len(networks), n_bins))
    for k, own in enumerate(networks):
        x_mean[k], x_std[k] = arguments.scaling("x", own.get("x_mean"), own.get("x_std"), n_bins)
        _refuse_what_float32_loses(name, spectra, noise, is_covariance, x_mean[k], x_std[k])
    auxiliary = None
    if networks[0].get("auxiliary") is not None:
        auxiliary = np.stack([arguments.auxiliary_input(own.get("auxiliary"), n) for own in networks])
    repeat, rule = arguments.positive_integer("repeat", repeat), arguments.quadrature_rule(nodes, rule, scheme)

    scaled, y_std, n_amps = arguments.truth("scaled", scaled), None, None
    if not (scaled and networks[0].get("y_data_std") is None):
        y_std = [arguments.scaling("y_data", own.get("y_data_mean"), own.get("y_data_std"))[1] for own in networks]
        n_amps = None if y_std[0].ndim == 0 else len(y_std[0])  # one number holds for all AMPs
    batch_size = None if batch_size is None else arguments.positive_integer("batch_size", batch_size)
    is_auto = isinstance(chunk_size, str) and chunk_size == "auto"
    chunk_size = CHUNK_SIZE if is_auto else arguments.positive_integer("chunk_size", chunk_size, ' or "auto"')
    if no_spectra is not None and no_spectra != -1:
        no_spectra = arguments.positive_integer("no_spectra", no_spectra, ", or None (-1) for all")
    seed = arguments.seed_of(rng)
    auxiliary_first = None if auxiliary_first is None else arguments.truth("auxiliary_first", auxiliary_first)
    if not (stochastic is None or (isinstance(stochastic, str) and stochastic == "subtract")):
        stochastic = arguments.positive_integer("stochastic", stochastic, ' above 1, "subtract" or None', least=2)

    probes, models = [], [own["model"] for own in networks]
    for k, model in enumerate(models):
        second = None if auxiliary is None else auxiliary[k, :TRIED]
        trial = model, spectra[:TRIED], n_amps, second, input_layout, output, auxiliary_first, x_mean[k], x_std[k]
        probes.append(probe_model(*trial) if executor is None else executor.submit(probe_model, *trial).result())
        n_amps = probes[0].predictor.n_amps
    if stochastic is None:
        _warn_of_random(probes, rule)
    calls = tuple(probe.predictor for probe in probes)
    if isinstance(stochastic, int):
        calls = tuple(replace(call, n_calls=stochastic) for call in calls)
    batch_size = batch_size or min(probe.batch_size for probe in probes)

    amps = arguments.find_amps(gases, n_amps)
    cuts = arguments.abundance_cuts(abundance, amps)
    wanted = arguments.select_spectra(y_test, cuts, amps, None if no_spectra == -1 else no_spectra, n, n_amps)
    used = np.flatnonzero(wanted.any(axis=1))
    y_std = np.array([np.ones(n_amps) * std for std in y_std or [1.0] * len(models)])  # (K, n_AMPs)
    unit, weights = np.ones_like(y_std) if scaled else y_std, None
    step = np.array([probe.step for probe in probes])
    if len(models) > 1:
        weights = y_std / y_std[0] / len(models)
        wanted, unit = np.tile(wanted, len(models) + 1), np.concatenate([unit, unit[:1]])
        step = np.concatenate([step, (step * weights).max(axis=0, keepdims=True)])

    shape = 1, 1
    if rule is not None:
        noise, is_covariance = _errors_alone(noise, used, spectra.shape) if is_covariance else noise, False
        shape = call_shape(rule, len(labels), batch_size, len(used))
        if is_auto:
            chunk_size = max(chunk_size, min(4 * CALLS_AT_ONCE * shape[0], EXACT_CHUNK_SIZE))
    plan = Plan(
        spectra, noise, is_covariance, x_mean, x_std, auxiliary, scheme, labels, shuffle, rule,
        repeat if rule is None else 0, seed, calls, weights, amps, wanted, used, unit.reshape(-1, 1), batch_size,
        chunk_size + -chunk_size % shape[0], shape, stochastic == "subtract", step.reshape(-1, 1),
    )  # fmt: skip
    if is_auto and executor is not None:
        return replace(plan, chunk_size=_good_size(models, plan, executor))
    return plan


def _what_moves(errors, covariance, directions, scheme, groups, n, n_bins):
    """Return the argument that moves the spectra, and the plan's noise, is_covariance, labels, shuffle and scheme."""
    labels, shuffle, scheme = arguments.group_labels(scheme, groups, n_bins)
    if errors is None and directions is None:
        raise ValueError("org_error: expected an array, required unless directions are given, received None")
    if errors is not None:
        noise, is_covariance = arguments.errors_or_covariances(errors, n, n_bins, covariance)
    if directions is None:
        return "org_error", noise, is_covariance, labels, shuffle, scheme
    if groups is not None:
        raise ValueError("groups: expected None, as directions are given, received both")
    directions = arguments.direction_array(directions, n, n_bins)
    return "directions", directions, False, np.arange(directions.shape[1]), False, "directions"


def _refuse_what_float32_loses(name, spectra, noise, is_covariance, x_mean, x_std):
    """Refuse scaled spectra and displacements that float32, which networks read, cannot hold, or cannot resolve.

    ``name`` is that of the argument behind ``noise``.
    """
    for start in range(0, len(spectra), 4096):  # as they may be many
        some = slice(start, start + 4096)
        moves = noise[some] if len(noise) == len(spectra) else noise  # the same for all spectra
        if is_covariance:
            moves = np.sqrt(np.maximum(np.diagonal(moves, axis1=1, axis2=2), 0))
        with np.errstate(over="ignore"):
            sizes, moves = np.abs((spectra[some] - x_mean) / x_std), np.abs(moves) / x_std
        arguments.refuse_beyond_float32("org_spectrum, scaled by x_mean and x_std", sizes)
        arguments.refuse_beyond_float32(f"{name}, scaled by x_std", moves)
        if moves.ndim == 3:  # of a direction, the bin that moves most
            most = moves.argmax(axis=2)  # (n or 1, n_directions)
            sizes, moves = sizes[np.arange(len(sizes))[:, None], most], moves.max(axis=2)
        small = moves < LEAST_STEPS * EPS * sizes
        if small.any() and (small := small & (moves > 0)).any():
            raise ValueError(
                f"{name}: expected at least {LEAST_STEPS} steps between the float32 numbers that networks read,"
                f" received fewer at the scaled spectrum {start + np.argmax(small.any(axis=1))}: give x_mean and x_std"
                " near the mean and spread of the spectra"
            )


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


def _good_size(models, plan, executor):
    """Return how many spectra a task gets: `CHUNK_SECONDS` of work, as a worker measures it, but tasks for all."""
    few = plan.call_shape[0]
    trial = next(make_chunks(replace(plan, chunk_size=few), plan.used[:few]))
    seconds = executor.submit(time_chunk, models, trial, plan.without_data()).result()
    fair = -(-len(plan.used) // getattr(executor, "chunks_ahead", CHUNKS_AHEAD))
    map_bytes = 8 * plan.n_arrays * np.prod(plan.shape)
    size = max(1, int(min(CHUNK_SECONDS / max(seconds, 1e-9), fair, CHUNK_BYTES / map_bytes)))
    return size + -size % few  # whole calls


def _errors_alone(covariances, used, shape):
    """Return the error of each bin, (N, n_bins), from covariances; those of the spectra in use are checked."""
    if len(covariances) == 1:
        covariance_root(covariances[0], "org_error")
    else:
        for row in used:
            covariance_root(covariances[row], f"org_error, spectrum {row}")
    return np.broadcast_to(np.sqrt(np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 0)), shape)
