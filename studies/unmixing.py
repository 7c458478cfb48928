"""Single-bin effects out of a map of the halving scheme: in closed form, or by regression on the groups as drawn.

Exact in expectation for linear models. What they are worth for a network: `faithfulness.py` and docs/explanations.md.
"""

import numpy as np


def unmixed(values, sizes):
    """Per-bin effects v_b from a map of the halving scheme: exact in expectation for a linear model.

    E[map_b] = v_b + p (V - v_b) with V the sum of all v_b and p the chance that two bins share a group. Its sum over
    the L bins is V (1 + p (L - 1)), which gives V, and then v_b = (map_b - p V) / (1 - p). The ranking stays.

    Parameters
    ----------
    values : ndarray (..., n_bins)
    sizes : sequence of int
        Sizes of the groups, ``sensitivity.halving_sizes(n_bins)``.

    Returns
    -------
    ndarray (..., n_bins)
        Noise may make some entries negative.
    """
    n_bins, sizes = np.shape(values)[-1], np.asarray(sizes)
    p = (sizes * (sizes - 1)).sum() / max(n_bins * (n_bins - 1), 1)
    whole = np.sum(values, axis=-1, keepdims=True) / (1 + p * (n_bins - 1))
    return (values - p * whole) / (1 - p)


def unmixed_by_regression(predict, spectra, noise, repeat, rng):
    """Per-bin effects from the draws of the halving scheme by least squares, mean over spectra.

    Each (repeat, group) is one row: its squared change is, for a linear model and in expectation, the sum of v_b over
    the bins of the group, so the v_b follow from regressing the squared changes on the group masks. ``ols`` weighs
    all rows alike; ``wls`` by 1 / size^2, because the variance of a squared change grows as the square of the sum.

    Parameters
    ----------
    predict : callable
        (rows, n_bins) to (rows, n_amps).
    spectra, noise : ndarray (n, n_bins)
        In the same unit as the rows.
    repeat : int
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to ndarray (n_amps, n_bins)
        "ols" and "wls".
    """
    from perturbation.engine import choose_groups, halving_sizes, perturb

    n_bins = spectra.shape[1]
    sizes = np.array(halving_sizes(n_bins))
    labels, n_groups = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    weights = {"ols": np.ones(n_groups), "wls": 1.0 / sizes**2}
    total = dict.fromkeys(weights, 0.0)
    rows = np.empty((repeat, n_groups, n_bins))
    for spectrum, scale in zip(spectra, noise):
        mask = choose_groups(labels, True, repeat, rng)[:, None, :] == np.arange(n_groups)[:, None]
        perturb(spectrum, rng.standard_normal((repeat, n_bins)) * scale, mask, out=rows)
        answers = predict(np.concatenate([spectrum[None], rows.reshape(-1, n_bins)]))
        squares = (answers[1:] - answers[0]).astype(float) ** 2  # (repeat * n_groups, n_amps)
        flat = mask.reshape(-1, n_bins).astype(float)
        for name, weight in weights.items():
            weighted = flat.T * np.tile(weight, repeat)
            total[name] = total[name] + np.linalg.lstsq(weighted @ flat, weighted @ squares, rcond=None)[0].T
    return {name: value / len(spectra) for name, value in total.items()}


def cost_of_a_contrast(sizes):
    """Model evaluations for the difference of two bins to reach a given error, in those of the single-bin scheme.

    For a linear model with L equal effects v, where the squared change of a group of n bins has mean n v and variance
    2 n^2 v^2. With per-repeat variance of one bin minus covariance of two, and len(sizes) evaluations a repeat.

    Returns
    -------
    dict of str to float
        "halving" (as published, or in closed form), "ols" and "wls" (see `unmixed_by_regression`).
    """
    n = np.asarray(sizes, float)
    n_bins = n.sum()
    alone, together = n / n_bins, n * (n - 1) / (n_bins * (n_bins - 1))
    apart = np.outer(n, n) / (n_bins * (n_bins - 1))  # a bin in one group and another bin in another
    np.fill_diagonal(apart, 0)
    published = ((alone - together) * 3 * n**2).sum() - (apart * np.outer(n, n)).sum()
    p = together.sum()
    known = alone - together
    variances = {
        "halving": published / (1 - p) ** 2,
        "ols": (known * 2 * n**2).sum() / (1 - p) ** 2,
        "wls": 1 / (known / (2 * n**2)).sum(),
    }
    return {name: float(v * len(n) / (2 * n_bins)) for name, v in variances.items()}
