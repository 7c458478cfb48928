"""The exact map: every direction of a spectrum walked along at a few nodes, many spectra in one call of the network."""

import numpy as np

N_ARRAYS = 4  # of each spectrum: its map, the distance to that of the lower rule, slope, curvature


def moved_spectra(spectra, displacements, nodes):
    """Return each spectrum as it is, then moved by each node along each direction.

    Parameters
    ----------
    spectra : ndarray of shape (n, n_bins)
    displacements : ndarray of shape (K, n or 1, n_bins)
        One standard deviation along each of K directions.
    nodes : ndarray of shape (n_nodes,)
        In standard deviations.

    Returns
    -------
    ndarray of shape (1 + n_nodes * K, n, n_bins), of the type of ``spectra``
    """
    n_nodes, n_directions = len(nodes), len(displacements)
    rows = np.empty((1 + n_nodes * n_directions, *spectra.shape), spectra.dtype)
    rows[0] = spectra
    moved = rows[1:].reshape(n_nodes, n_directions, *spectra.shape)  # a view
    np.multiply(nodes.astype(spectra.dtype)[:, None, None, None], displacements, out=moved)
    moved += spectra
    return rows


def changes(answers, n_nodes):
    """Return f(x') - f(x), (n_nodes, K, n, n_AMPs), from the answers (1 + n_nodes * K, n, n_AMPs), as float64."""
    moved = answers[1:].reshape(n_nodes, -1, *answers.shape[1:])
    return np.subtract(moved, answers[0], dtype=np.float64)


def summed(change, rule):
    """Return mean square, its distance to that of the lower rule, slope and curvature: (4, K, n, n_AMPs).

    Node by node, so that the last bit of a number does not depend on how many numbers there are.
    """
    mean_square, lower = _mean_square(change, rule.root), _mean_square(change, rule.lower_root)
    slope, curvature = _weighted(change, rule.slope), _weighted(change, rule.curvature)
    return np.stack([mean_square, np.abs(mean_square - lower), slope, curvature])


def _mean_square(change, root):
    total = np.zeros(change.shape[1:])
    for row in root:
        total += _weighted(change, row) ** 2
    return total


def _weighted(change, weights):
    """Return the sum over nodes of weight times change."""
    total = np.zeros(change.shape[1:])
    for weight, at_node in zip(weights, change):
        if weight:
            total += weight * at_node
    return total


def call_shape(rule, n_directions, batch_size):
    """Return how many spectra, and how many of their directions, go into one call of at most ``batch_size`` rows.

    The shape of a call depends on neither the chunk nor the number of spectra, so neither does any answer. Spectra
    of more rows than a call may have are cut into parts of nearly the same number of directions.
    """
    n_nodes = len(rule.nodes)
    rows = 1 + n_nodes * n_directions
    if rows <= batch_size:
        return batch_size // rows, n_directions
    most = max((batch_size - 1) // n_nodes, 1)
    parts = -(-n_directions // most)
    return 1, -(-n_directions // parts)


def map_chunk(predict, chunk, settings):
    """Return the arrays of each spectrum of a chunk: (n, 4, n_AMPs, K), scaled units (squared, for the first two).

    Every call has the same shape: short ones are filled up with the last spectrum, and with directions of no length.
    """
    displacements = all_directions(chunk.noise, len(chunk.spectra))  # (K, n, n_bins)
    n, n_directions = len(chunk.spectra), len(displacements)
    n_spectra, n_at_once = call_shape(settings.rule, n_directions, settings.batch_size)
    results = np.empty((n, N_ARRAYS, settings.n_amps, n_directions))

    def one_call(corner):
        start, first = corner
        filled = np.minimum(np.arange(start, start + n_spectra), n - 1)
        some = displacements[first : first + n_at_once]
        along = np.zeros((n_at_once, n_spectra, some.shape[-1]), np.float32)
        along[: len(some)] = some[:, filled]
        sums = summed(_answered_changes(predict, chunk, filled, along, settings.rule.nodes), settings.rule)
        part = results[start : start + n_spectra, :, :, first : first + n_at_once]
        part[:] = sums[:, : len(some), : len(part)].transpose(2, 0, 3, 1)

    corners = [(start, first) for start in range(0, n, n_spectra) for first in range(0, n_directions, n_at_once)]
    predict.side_by_side(one_call, corners, *chunk.first)
    return results


def _answered_changes(predict, chunk, rows, along, nodes):
    """Return the `changes` of some spectra of a chunk, moved along directions (K, len(rows), n_bins): one call."""
    moved = moved_spectra(chunk.spectra[rows], along, nodes)  # (1 + n_nodes * K, len(rows), n_bins)
    auxiliary = None if chunk.auxiliary is None else np.tile(chunk.auxiliary[rows], (len(moved), 1))
    name = f"the call for spectra {chunk.indices[rows[0]]} to {chunk.indices[rows[-1]]}"
    answers = predict(moved.reshape(-1, moved.shape[-1]), auxiliary, name)
    return changes(answers.reshape(*moved.shape[:2], -1), len(nodes))


def all_directions(noise, n):
    """Return one standard deviation along each direction, (K, n, n_bins): a view where there is one for all spectra.

    ``noise`` is (n, n_bins), errors of bins that move one at a time, or (n or 1, K, n_bins).
    """
    if noise.ndim == 2:
        n_bins = noise.shape[1]
        directions = np.zeros((n_bins, n, n_bins), noise.dtype)
        bins = np.arange(n_bins)
        directions[bins, :, bins] = noise.T
        return directions
    return np.broadcast_to(noise.transpose(1, 0, 2), (noise.shape[1], n, noise.shape[2]))
