"""The exact map: the mean over the noise along each direction, from predictions at a few points (nodes) of it.

Below, g(z) = f(x + z d) - f(x) is the change of a prediction when spectrum x is moved by z standard deviations along
the direction d.
"""

import functools
from dataclasses import dataclass
from itertools import zip_longest
from statistics import NormalDist

import numpy as np

from perturbation.predictors import side_by_side

RULES = ("auto", "hermite", "spline", "midpoints")
MAX_NODES = 200
HERMITE_UP_TO = 5  # nodes; "auto" takes the spline for more
GRID = np.linspace(-10, 10, 2001)
DENSITY = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()


@dataclass(frozen=True)
class Rule:
    """A quadrature rule: its nodes, and how the values of g there become means over z, a standard normal variable."""

    name: str
    n_nodes: int  # the centre (z = 0) included if the number is odd
    nodes: np.ndarray  # (n,) standard deviations, ascending, in pairs of opposite sign, without the centre, where g = 0
    root: np.ndarray  # (n_terms, n): E[g^2] is approximated by the sum of (root @ g)^2
    lower_root: np.ndarray  # the same for a rule of lower degree on the same nodes; the difference estimates the error
    slope: np.ndarray  # (n,): E[g'(z)] = E[z g(z)] (Stein's lemma) is approximated by slope @ g
    curvature: np.ndarray  # (n,): E[g''(z)] = E[(z^2 - 1) g(z)] is approximated by curvature @ g

    @functools.cached_property
    def terms(self):
        """The roots as lists of lists of (node, weight), and slope and curvature as one of (node, both weights)."""
        forms = [[_terms(weights) for weights in root if weights.any()] for root in (self.root, self.lower_root)]
        return *forms, list(enumerate(np.stack([self.slope, self.curvature]).T[:, :, None, None, None]))


def _terms(weights):
    """Return the weights that are not zero, as a list of (node, weight)."""
    return [(node, float(weights[node])) for node in np.flatnonzero(weights)]


@functools.lru_cache(maxsize=16)
def make_rule(name, n_nodes):
    """Return the `Rule` called ``name``, one of `RULES`, with 2 to 200 nodes."""
    if name == "auto":
        name = "hermite" if n_nodes <= HERMITE_UP_TO else "spline"
    return {"hermite": _hermite, "spline": _spline, "midpoints": _midpoints}[name](n_nodes)


def _hermite(n_nodes):
    """Gauss-Hermite: exact where g is a polynomial of degree up to n_nodes - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    off_centre = np.abs(nodes) > 1e-9
    nodes, weights = nodes[off_centre], weights[off_centre]
    nodes = (nodes - nodes[::-1]) / 2  # pairs to the last bit
    curvature = weights * (nodes**2 - 1 if n_nodes > 2 else 1)
    root, lower_root = _diagonal(nodes, weights), _diagonal(nodes, np.where(_every_other(nodes), weights, 0))
    slope = weights * nodes / (weights @ nodes**2)
    return Rule("hermite", n_nodes, nodes, root, lower_root, slope, curvature / (curvature @ nodes**2 / 2))


def _midpoints(n_nodes):
    """Medians of intervals of equal probability, for functions with steps. Not exact even for linear g."""
    nodes = np.array([NormalDist().inv_cdf((k + 0.5) / n_nodes) for k in range(n_nodes)])
    nodes = (nodes - nodes[::-1]) / 2
    nodes = nodes[np.abs(nodes) > 1e-9]
    weights = np.ones(len(nodes))
    root = np.diag(np.sqrt(weights / n_nodes))
    lower_root = _diagonal(nodes, np.where(np.arange(len(nodes)) % 2 == 0, weights, 0))
    slope, curvature = nodes / (nodes @ nodes), nodes**2 / (nodes**2 @ nodes**2 / 2)
    return Rule("midpoints", n_nodes, nodes, root, lower_root, slope, curvature)


def _spline(n_nodes):
    """Mean square of a cubic spline through equally spaced nodes: exact for quadratic g, and good for kinks.

    The distance of the outer nodes is near the best one for networks and a random forest (benchmarks/quadrature.py).
    """
    pairs = n_nodes // 2
    distance = 1.6 * pairs**0.36 * np.arange(1, pairs + 1) / pairs
    nodes = np.concatenate([-distance[::-1], distance])
    curves, kept = _curves(nodes), _every_other(nodes)
    lower_root = np.zeros((kept.sum(), len(nodes)))
    lower_root[:, kept] = _root_of_mean_square(nodes[kept], _curves(nodes[kept]))
    slope, curvature = curves @ (DENSITY * GRID), curves @ (DENSITY * (GRID**2 - 1))
    return Rule("spline", n_nodes, nodes, _root_of_mean_square(nodes, curves), lower_root, slope, curvature)


def _every_other(nodes):
    """Choose every other pair of nodes, beginning with the outermost; of a single pair the positive side."""
    if len(nodes) == 2:
        return nodes > 0
    rank = np.arange(len(nodes) // 2) % 2 == 0
    return np.concatenate([rank, rank[::-1]])


def _diagonal(nodes, weights):
    """Root of a rule of weights, scaled to be exact for linear g."""
    return np.diag(np.sqrt(weights / (weights @ nodes**2)))


def _root_of_mean_square(nodes, curves):
    """Return R with |R g|^2 = E[(sum_i g_i curve_i)^2], scaled to be exact for linear g."""
    form = (curves * DENSITY) @ curves.T
    values, vectors = np.linalg.eigh(form / (nodes @ form @ nodes))
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def _curves(nodes):
    """Curve over `GRID` for a value of 1 at each node, 0 at the others: (n, n_grid); 0 at the centre.

    A parabola is fitted to the points, and a natural spline drawn through what is left of them.
    """
    if len(nodes) == 1:  # a straight line
        return GRID[None] / nodes[0]
    powers = np.stack([nodes, nodes**2], axis=1)  # (n, 2)
    weights = np.exp(-(nodes**2) / 2)[:, None]
    fit = np.linalg.solve(powers.T @ (weights * powers), (weights * powers).T)  # (2, n)
    left = np.eye(len(nodes)) - powers @ fit
    return fit.T @ np.stack([GRID, GRID**2]) + left.T @ _natural_splines(nodes)


def _natural_splines(nodes):
    """Natural cubic splines over `GRID`, 1 at a node, 0 at the others and the centre, straight beyond: (n, n_grid)."""
    knots = np.sort(np.append(nodes, 0.0))
    values = (knots == nodes[:, None]).astype(float)  # (n, n_knots)
    step = np.diff(knots)
    system = np.diag(2 * (step[1:] + step[:-1])) + np.diag(step[1:-1], 1) + np.diag(step[1:-1], -1)
    bend = np.zeros_like(values)  # second derivatives at the knots
    bend[:, 1:-1] = np.linalg.solve(system, 6 * np.diff(np.diff(values, axis=1) / step, axis=1).T).T
    inside = np.clip(GRID, knots[0], knots[-1])
    k = np.clip(np.searchsorted(knots, inside) - 1, 0, len(step) - 1)
    b = (inside - knots[k]) / step[k]
    a = 1 - b
    curves = a * values[:, k] + b * values[:, k + 1]
    curves += ((a**3 - a) * bend[:, k] + (b**3 - b) * bend[:, k + 1]) * step[k] ** 2 / 6
    first = (values[:, 1] - values[:, 0]) / step[0] - step[0] * bend[:, 1] / 6  # slopes at the ends
    last = (values[:, -1] - values[:, -2]) / step[-1] + step[-1] * bend[:, -2] / 6
    beyond = GRID - inside
    return curves + np.where(beyond < 0, first[:, None], last[:, None]) * beyond


N_ARRAYS = 4  # of each spectrum: its map, the distance to that of the lower rule, slope, curvature


def moved_rows(spectra, noise, which, n_at_once, nodes):
    """Return spectra (n, n_bins) as they are, then moved by each node along some directions, ``which`` (a slice of K).

    ``noise`` holds errors (n or 1, n_bins) of bins, which move one at a time, or directions (n or 1, n_directions,
    n_bins). The result is (1 + n_nodes * n_at_once, n, n_bins); where K < n_at_once, the other rows are copies.
    """
    nodes = nodes.astype(spectra.dtype)
    rows = np.empty((1 + len(nodes) * n_at_once, *spectra.shape), spectra.dtype)
    rows[:] = spectra
    moved = rows[1:].reshape(len(nodes), n_at_once, *spectra.shape)  # a view
    if noise.ndim == 2:
        along = nodes[:, None, None] * noise.T[which]  # (n_nodes, K, n or 1)
        own = np.einsum("zknk->zkn", moved[:, : along.shape[1], :, which])  # of each row the bin that moves
        own[:] = along + spectra.T[which]
    else:
        along = nodes[:, None, None, None] * noise[:, which].swapaxes(0, 1)  # (n_nodes, K, n or 1, n_bins)
        moved[:, : along.shape[1]] += along
    return rows


def changes(predictions, n_nodes):
    """Return f(x') - f(x), (n_nodes, K, n, n_AMPs), from the predictions (1 + n_nodes * K, n, n_AMPs), as float64."""
    moved = predictions[1:].reshape(n_nodes, -1, *predictions.shape[1:])
    return np.subtract(moved, predictions[0], dtype=np.float64)


def summed(change, rule, again=None):
    """Return mean square, its distance to that of the lower rule, slope and curvature: (4, K, n, n_AMPs).

    ``change`` is (n_nodes, K, n, n_AMPs), ``again`` that in a second call; for models that predict at random, the
    product of the two takes the place of the square. Node by node, so that no last bit depends on how many numbers
    there are.
    """
    root, lower_root, slope_and_curvature = rule.terms
    out = np.empty((N_ARRAYS, *change.shape[1:]))
    out[0] = _mean_square(change, root, again)
    np.abs(out[0] - _mean_square(change, lower_root, again), out=out[1])
    if again is not None:
        change = (change + again) / 2
    out[2:] = _weighted(change, slope_and_curvature)
    return out


def _mean_square(change, root, again):
    """Return the sum of the squares of ``root @ change``, or of its products with ``root @ again``."""
    total = 0.0
    for terms in root:
        first = _weighted(change, terms)
        total += first * (first if again is None else _weighted(again, terms))
    return total


def _weighted(change, terms):
    """Return the sum over nodes of weight times change."""
    (node, weight), *others = terms
    total = weight * change[node]
    for node, weight in others:
        total += weight * change[node]
    return total


def even_share(total, most):
    """Largest share, at most ``most`` (but one), that cuts ``total`` into parts of nearly the same size."""
    parts = -(-total // max(most, 1))
    return -(-total // parts)


def call_shape(rule, n_directions, batch_size, n_spectra):
    """Return how many spectra, and how many of their directions, go into one call of at most ``batch_size`` rows.

    All ``n_spectra`` of the test are divided evenly, so that few rows are predicted for nothing. The shape depends on
    the whole test and not on the chunk, so no prediction does.
    """
    rows = 1 + len(rule.nodes) * n_directions  # 209 for 52 bins and five nodes
    if rows <= batch_size:
        return even_share(n_spectra, batch_size // rows), n_directions
    return 1, even_share(n_directions, (batch_size - 1) // len(rule.nodes))


def map_chunk(predictors, chunk, plan):
    """Return the arrays of each spectrum of a chunk: (n, 4, n_rows, K), scaled units (squared, for the first two).

    Every call has the same shape: short ones are filled up with the last spectrum, and with directions of no length.
    """
    n, n_directions, nodes = len(chunk.indices), len(plan.labels), plan.rule.nodes
    n_spectra, n_at_once = plan.call_shape
    results = np.empty((n, N_ARRAYS, plan.n_rows, n_directions))

    def one_call(corner):
        start, first = corner
        some = np.minimum(np.arange(start, start + n_spectra), n - 1)
        here = slice(first, min(first + n_at_once, n_directions))
        name = f"the call for spectra {chunk.indices[some[0]]} to {chunk.indices[some[-1]]}"
        changed, again = [], []
        for network, predict in enumerate(predictors):
            noise = chunk.noise[network] if chunk.noise.shape[1] == 1 else chunk.noise[network][some]
            rows = moved_rows(chunk.spectra[network][some], noise, here, n_at_once, nodes)
            auxiliary = None if chunk.auxiliary is None else np.tile(chunk.auxiliary[network][some], (len(rows), 1))
            for kept in (changed, again)[: 1 + plan.asks_twice]:
                given = rows.copy() if plan.asks_twice else rows  # a model may write on what it is given
                predictions = predict(given.reshape(-1, rows.shape[-1]), auxiliary, name)
                kept.append(changes(predictions.reshape(*rows.shape[:2], -1), len(nodes)))
        pairs = zip_longest(plan.with_mean(changed), plan.with_mean(again))
        sums = [summed(change, plan.rule, second) for change, second in pairs]  # (4, K, n, n_AMPs) of each network
        part = results[start : start + n_spectra]
        for k, of_network in enumerate(sums):
            rows = slice(k * plan.n_amps, (k + 1) * plan.n_amps)
            part[:, :, rows, here] = of_network[:, : here.stop - first, : len(part)].transpose(2, 0, 3, 1)

    corners = [(start, first) for start in range(0, n, n_spectra) for first in range(0, n_directions, n_at_once)]
    side_by_side(predictors, one_call, corners, chunk)
    return results
