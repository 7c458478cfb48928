"""From checked arguments to a plan: which spectra are perturbed how, in which chunks and calls of the model."""

from dataclasses import dataclass, replace

import numpy as np

from perturbation.arguments import (
    abundance_cuts,
    direction_array,
    errors_or_covariances,
    find_amps,
    float_array,
    group_labels,
    positive_integer,
    quadrature_rule,
    scaling,
    seed_of,
    select_spectra,
)
from perturbation.engine import CHUNKS_AHEAD, Settings, covariance_root, make_chunks, time_chunk
from perturbation.predictors import CALLS_AT_ONCE, probe_model
from perturbation.quadrature import call_shape

CHUNK_SIZE = 16  # spectra between two additions to a store, in this process
EXACT_CHUNK_SIZE = 300  # the same of the exact map, whose calls overlap within a chunk; fewer where bins are many
CHUNK_SECONDS = 1.0  # of work in a task of a worker: fifty times what handing it over takes
CHUNK_BYTES = 4e6  # of maps that come back from it, so that those that wait for their turn fit the memory


@dataclass(frozen=True)
class Survey:
    """Spectra, their errors and how the network wants them scaled.

    Attributes
    ----------
    spectra : ndarray of shape (N, n_bins)
        Transit depths.
    noise : ndarray
        Errors (N, n_bins), covariances (N or 1, n_bins, n_bins) or directions (N or 1, K, n_bins), depth.
    is_covariance : bool
    x_mean, x_std : ndarray of shape (n_bins,)
    auxiliary : ndarray of shape (N, k) or None
    """

    spectra: np.ndarray
    noise: np.ndarray
    is_covariance: bool
    x_mean: np.ndarray
    x_std: np.ndarray
    auxiliary: np.ndarray | None

    def chunks(self, rows, chunk_size):
        """Yield the spectra of ``rows`` in chunks for the engine."""
        return make_chunks(
            rows, chunk_size, self.spectra, self.noise, self.is_covariance, self.x_mean, self.x_std, self.auxiliary
        )

    def first(self):
        """Return one scaled spectrum and its auxiliary input, to try a model with."""
        return (self.spectra[0] - self.x_mean) / self.x_std, None if self.auxiliary is None else self.auxiliary[0]


@dataclass(frozen=True)
class Method:
    """How spectra are perturbed.

    Attributes
    ----------
    scheme : {"halving", "single", "groups", "directions"}
    labels : ndarray of shape (n_columns,)
        Group of each bin in one repeat, -1 for none; the number of each direction.
    shuffle : bool
        New random groups in every repeat.
    rule : rules.Rule or None
        Quadrature along directions; None: random repeats.
    repeat : int
        Random repeats; 0 with quadrature.
    """

    scheme: str
    labels: np.ndarray
    shuffle: bool
    rule: object
    repeat: int


@dataclass(frozen=True)
class Plan:
    """All that is settled before the first spectrum is perturbed.

    Attributes
    ----------
    survey : Survey
    method : Method
    settings : engine.Settings
    amps : list of amps.AMP
        Empty where nothing names them.
    wanted : ndarray of shape (N, n_AMPs) of bool
        Which spectra enter the row of which AMP.
    unit : ndarray of shape (n_AMPs, 1)
        Standard deviation of each AMP; ones for a map in scaled units.
    chunk_size : int
    """

    survey: Survey
    method: Method
    settings: Settings
    amps: list
    wanted: np.ndarray
    unit: np.ndarray
    chunk_size: int

    @property
    def used(self):
        """Rows of the spectra that enter any AMP, ascending."""
        return np.flatnonzero(self.wanted.any(axis=1))

    @property
    def shape(self):
        """Shape of a map, (n_AMPs, n_columns): a column is a bin or a direction."""
        return self.settings.n_amps, len(self.method.labels)


def float32_array(name, values):
    """Return values as float32, as networks take them; one that is too large would arrive as infinity."""
    if np.abs(values).max() > np.finfo(np.float32).max:
        raise ValueError(f"{name}: expected numbers below {np.finfo(np.float32).max:.2g}, received larger ones")
    return values.astype(np.float32)


def check_survey(org_spectrum, org_error, covariance, directions, x_mean, x_std, auxiliary):
    """Return the `Survey` of these arguments of ``sensitivity_map``."""
    spectra = float_array("org_spectrum", org_spectrum, "(N, n_bins)", ndim=2)
    n, n_bins = spectra.shape
    noise, is_covariance = None, False
    if org_error is not None or directions is None:
        noise, is_covariance = errors_or_covariances(org_error, n, n_bins, covariance)
    if directions is not None:
        noise, is_covariance = direction_array(directions, n, n_bins), False
    x_mean, x_std = scaling("x_mean", x_mean, "x_std", x_std, (1, n_bins))
    if auxiliary is not None:
        auxiliary = float32_array("auxiliary", float_array("auxiliary", auxiliary, f"({n}, k)", ndim=2, length=n))
    with np.errstate(over="ignore"):
        extremes = (np.stack([spectra.min(axis=0), spectra.max(axis=0)]) - x_mean) / x_std
        moves = None if is_covariance else _greatest(noise.reshape(-1, n_bins)) / x_std
    float32_array("org_spectrum, scaled by x_mean and x_std", extremes)
    if moves is not None:
        float32_array(f"{'org_error' if directions is None else 'directions'}, scaled by x_std", moves)
    return Survey(
        spectra, noise, is_covariance, np.broadcast_to(x_mean, n_bins), np.broadcast_to(x_std, n_bins), auxiliary
    )


def _greatest(values):
    """Return the greatest size in each column, (n,), of (N, n): without a copy of what may be a large survey."""
    return np.maximum(values.max(axis=0), -values.min(axis=0))


def check_method(survey, scheme, groups, directions, nodes, rule, repeat):
    """Return the `Method` of these arguments of ``sensitivity_map``."""
    if directions is not None and groups is not None:
        raise ValueError("groups: expected None, as directions are given, received both")
    labels, shuffle, scheme = group_labels(scheme, groups, survey.spectra.shape[1])
    if directions is not None:
        labels, shuffle, scheme = np.arange(survey.noise.shape[1]), False, "directions"
    repeat = positive_integer("repeat", repeat)
    rule = quadrature_rule(nodes, rule, scheme)
    return Method(scheme, labels, shuffle, rule, repeat if rule is None else 0)


def make_plan(
    model, survey, method, y_test, y_data_mean, y_data_std, scaled, gases, abundance, no_spectra, rng, input_layout,
    batch_size, chunk_size, executor,
):  # fmt: skip
    """Try the model, choose the spectra of each AMP and the size of calls and chunks; return the `Plan`."""
    if scaled and y_data_std is None:
        y_std = n_amps = None
    else:
        _, y_std = scaling("y_data_mean", y_data_mean, "y_data_std", y_data_std)
        n_amps = len(y_std)
    batch_size = None if batch_size is None else positive_integer("batch_size", batch_size)
    is_auto = isinstance(chunk_size, str) and chunk_size == "auto"
    chunk_size = CHUNK_SIZE if is_auto else positive_integer("chunk_size", chunk_size, ' or "auto"')
    if no_spectra is not None:
        no_spectra = None if no_spectra == -1 else positive_integer("no_spectra", no_spectra, ", or None (-1) for all")
    seed = seed_of(rng)

    spectrum, auxiliary = survey.first()
    trial = model, spectrum, n_amps, auxiliary, input_layout
    probe = probe_model(*trial) if executor is None else executor.submit(probe_model, *trial).result()
    n, n_amps = len(survey.spectra), probe.n_amps
    amps = find_amps(gases, n_amps)
    wanted = select_spectra(y_test, abundance_cuts(abundance, amps), amps, no_spectra, n, n_amps)
    batch_size = batch_size or probe.batch_size
    if method.rule is not None:
        survey = _along_directions(survey, np.flatnonzero(wanted.any(axis=1)))
    settings = Settings(
        method.labels, method.shuffle, method.repeat, batch_size, seed, probe.layout, n_amps, method.rule
    )
    unit = np.ones((n_amps, 1)) if scaled else y_std[:, None]
    plan = Plan(survey, method, settings, amps, wanted, unit, chunk_size)
    if is_auto and executor is not None:
        chunk_size = _good_size(model, plan, executor)
    elif is_auto and method.rule is not None:
        chunk_size = max(chunk_size, min(4 * CALLS_AT_ONCE * _whole_calls(plan, 1), EXACT_CHUNK_SIZE))
    return replace(plan, chunk_size=_whole_calls(plan, chunk_size))


def _whole_calls(plan, chunk_size):
    """Return the next number of spectra that fills whole calls of the network."""
    if plan.method.rule is None:
        return chunk_size
    at_once, _ = call_shape(plan.method.rule, len(plan.method.labels), plan.settings.batch_size)
    return -(-chunk_size // at_once) * at_once


def _good_size(model, plan, executor):
    """Return how many spectra a task gets: `CHUNK_SECONDS` of work, as a worker measures it, but tasks for all."""
    few = _whole_calls(plan, 1)
    trial = next(plan.survey.chunks(plan.used[:few], few))
    seconds = executor.submit(time_chunk, model, trial, plan.settings).result()
    fair = -(-len(plan.used) // getattr(executor, "chunks_ahead", CHUNKS_AHEAD))
    answer = 8 * plan.settings.n_arrays * np.prod(plan.shape)
    return max(1, int(min(CHUNK_SECONDS / max(seconds, 1e-9), fair, CHUNK_BYTES / answer)))


def _along_directions(survey, rows):
    """Return the survey with covariances turned into the error of each bin alone; those of ``rows`` are checked."""
    if not survey.is_covariance:
        return survey
    if len(survey.noise) == 1:
        covariance_root(survey.noise[0], "all spectra")
    else:
        for row in rows:
            covariance_root(survey.noise[row], f"spectrum {row}")
    variances = np.diagonal(survey.noise, axis1=1, axis2=2)
    errors = np.sqrt(np.maximum(variances, 0))
    return replace(survey, noise=np.broadcast_to(errors, survey.spectra.shape), is_covariance=False)
