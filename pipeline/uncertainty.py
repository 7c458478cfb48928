"""The error of one answer: how far the truths lie from the answers, among simulated planets answered alike.

Further noise on an observation moves a point estimate far less than the truth may lie from it: a network that answers
the mean of what it cannot see is very sure of it. What it does not know is seen on test planets. Around one answer the
nearest test planets in the space of all answers are taken; their (truth - answer), in units of its local size, give the
quantiles. This is conformal prediction (Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094) with a local scale, made
among neighbours, so that its coverage holds near the answer and not only on average. It was chosen by
``studies/answer_coverage.py``, beside three others.
"""

import numpy as np

LEVELS = {"68": 0.6827, "95": 0.9545}  # one and two standard deviations of a normal distribution
NEIGHBOURS = 200  # test planets that give the quantiles
SCALING_NEIGHBOURS = 50  # test planets that give the size of (truth - answer) around one place
FEWEST = 50  # test planets below which no interval is given: 95 % needs 43 for its two ends
AT_ONCE = 256  # answers, so that memory stays small


def intervals(answers, truths, answer, quantiles=None):
    """Return the intervals that hold the truth behind an answer.

    Parameters
    ----------
    answers, truths : ndarray (n, n_amps)
        Of simulated planets that the network was not trained on, in retrieval space.
    answer : ndarray (m, n_amps)
        The answers that intervals are wanted for.
    quantiles : callable, optional
        Another rule than `local_neighbours`, to compare it with: the same arguments, the same result.

    Returns
    -------
    ndarray (n_levels, 2, m, n_amps)
        Low and high end for each of `LEVELS`; NaN where there are fewer than `FEWEST` planets. An end is never beyond
        the least and greatest truth, unless the answer itself is.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a number is not finite.
    """
    answers, truths, answer = (np.asarray(values, float) for values in (answers, truths, answer))
    if answers.ndim != 2 or answers.shape != truths.shape or answer.shape[1:] != answers.shape[1:]:
        raise ValueError(
            f"answers, truths, answer: expected (n, n_amps), the same, and (m, n_amps), received {answers.shape}, "
            f"{truths.shape}, {answer.shape}"
        )
    for name, values in (("answers", answers), ("truths", truths), ("answer", answer)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    if len(answers) < FEWEST:
        return np.full((len(LEVELS), 2, *answer.shape), np.nan)
    ends = np.array([(1 - level) / 2 for level in LEVELS.values()])
    quantiles = quantiles or local_neighbours
    parts = [quantiles(answers, truths - answers, part, ends) for part in _parts(answer)]
    found = answer + np.concatenate(parts, axis=2)
    least, greatest = truths.min(axis=0), truths.max(axis=0)
    inside = (answer >= least) & (answer <= greatest)
    return np.where(inside, np.clip(found, least, greatest), found)


def local_neighbours(answers, residuals, answer, ends):
    """Return the quantiles of (truth - answer) that a local scale among the nearest planets gives.

    Parameters
    ----------
    answers, residuals : ndarray (n, n_amps)
        Of test planets; residuals are (truth - answer).
    answer : ndarray (m, n_amps)
    ends : ndarray (n_levels,)
        Probability below each low end, and above each high one.

    Returns
    -------
    ndarray (n_levels, 2, m, n_amps)
    """
    near = nearest(answers, answer, NEIGHBOURS)  # (m, k)
    rows, place = np.unique(near, return_inverse=True)
    relative = residuals[rows] / own_size(answers, residuals, rows)
    return conformal_quantiles(relative[place.reshape(near.shape)], ends, axis=1) * local_size(
        answers, residuals, answer
    )


def nearest(answers, answer, k):
    """Return the ``k`` nearest of ``answers`` (n, n_amps) to each ``answer`` (m, n_amps) as rows (m, k).

    Distances are in units of the standard deviation of each AMP's answers.
    """
    scale = np.maximum(answers.std(axis=0), 1e-300)
    here, there = answers / scale, answer / scale
    square = (here**2).sum(axis=1) - 2 * there @ here.T  # (m, n), but for what a row has in common
    k = min(k, len(answers))
    return np.argpartition(square, k - 1, axis=1)[:, :k]


def _parts(values):
    return [values[i : i + AT_ONCE] for i in range(0, len(values), AT_ONCE)]


def local_size(answers, residuals, answer):
    """Return the root mean square of (truth - answer) around each answer, (m, n_amps)."""
    near = nearest(answers, answer, SCALING_NEIGHBOURS)
    return _size(residuals[near])


def own_size(answers, residuals, rows):
    """Return the same around the planets ``rows``, each without itself, (len(rows), n_amps)."""
    sizes = []
    for part in _parts(rows):
        near = nearest(answers, answers[part], SCALING_NEIGHBOURS + 1)
        among = near != part[:, None]  # (m, k + 1)
        among[among.all(axis=1), -1] = False  # twins of it were nearer: any one goes
        sizes.append(_size(residuals[near[among].reshape(len(part), -1)]))
    return np.concatenate(sizes)


def _size(residuals):
    """Return the root mean square over neighbours, (m, k, n_amps) to (m, n_amps); never quite 0."""
    return np.maximum(np.sqrt((residuals**2).mean(axis=1)), 1e-300)


def conformal_quantiles(values, ends, axis):
    """Low and high ends (n_levels, 2, ...) that a further value like these falls between with the given probability.

    The rank is of n + 1 values, that of conformal prediction.
    """
    both = np.stack([ends, 1 - ends], axis=1)
    return np.quantile(values, both, axis=axis, method="weibull")
