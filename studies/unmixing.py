"""The effect of each bin from a map of the halving scheme: in closed form, or by regression on the groups as drawn.

Both are exact in expectation for a linear model. What they gain for a network is measured by `faithfulness.py`.
"""

import numpy as np


def unmixed(values, sizes):
    """Remove the floor from a halving map (..., n_bins) in closed form; ``sizes`` are those of the groups.

    E[map_b] = v_b + p (V - v_b), where V is the sum of all v_b and p the chance that two bins share a group. The sum
    over the L bins is V (1 + p (L - 1)), which gives V, then v_b = (map_b - p V) / (1 - p). The order of the bins
    stays.
    """
    n_bins, sizes = np.shape(values)[-1], np.asarray(sizes)
    p = (sizes * (sizes - 1)).sum() / max(n_bins * (n_bins - 1), 1)
    whole = np.sum(values, axis=-1, keepdims=True) / (1 + p * (n_bins - 1))
    return (values - p * whole) / (1 - p)


def unmixed_by_regression(predict, spectra, noise, repeat, rng):
    """Effects of the bins from the draws of the halving scheme, by least squares: {"ols", "wls"} of (n_amps, n_bins).

    The squared change of a group is, for a linear model and in expectation, the sum of v_b over its bins. ``ols``
    weights all groups equally; ``wls`` by 1 / size^2, since the variance of a squared change grows as the square of
    the sum.
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
        predictions = predict(np.concatenate([spectrum[None], rows.reshape(-1, n_bins)]))
        squares = (predictions[1:] - predictions[0]).astype(float) ** 2  # (repeat * n_groups, n_amps)
        flat = mask.reshape(-1, n_bins).astype(float)
        for name, weight in weights.items():
            weighted = flat.T * np.tile(weight, repeat)
            total[name] = total[name] + np.linalg.lstsq(weighted @ flat, weighted @ squares, rcond=None)[0].T
    return {name: value / len(spectra) for name, value in total.items()}


def cost_of_a_contrast(sizes):
    """Return the evaluations, relative to single bins, for a given error of the difference of two bins of equal effect.

    The squared change of a group of n bins then has mean n v and variance 2 n^2 v^2.
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
