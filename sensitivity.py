"""Which wavelength bins is each prediction of a network sensitive to? The test of Yip et al. (2021), Section 5.

    >>> import numpy as np
    >>> weights = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])  # a linear model of 3 bins and 2 AMPs
    >>> spectra, errors = np.zeros((1, 3)), np.ones((1, 3))
    >>> exact_map(lambda x: x @ weights, spectra, errors, amp_names=["H2O", "Tp"]).mean.round(6)
    array([[1., 0., 0.],
           [0., 4., 0.]])

`exact_map` is the plain function. `compute_sensitivty_org` and `compute_sensitivty_std` (the published names;
`compute_sensitivity_...` are the same) return the map of the published test, which moves random groups of bins.
`sensitivity_map` has both and every option. `offsets`, `tilt`, `modes` and `dragged` make directions. The engine is the
package `perturbation`; NumPy is all that is imported.
"""

import warnings

import numpy as np

from perturbation.accumulate import accumulate, warn_of_rounding, warn_of_scatter
from perturbation.arguments import float_array, plain_abundance, positive_number, truth
from perturbation.directions import dragged, modes, offsets, tilt
from perturbation.engine import halving_sizes
from perturbation.plan import make_plan
from perturbation.predictors import ModelLoader, load_keras, posterior_summary
from perturbation.quadrature import MAX_NODES
from perturbation.result import SensitivityMap

__all__ = [
    "ModelLoader", "SensitivityMap", "compute_sensitivity_org", "compute_sensitivity_std", "compute_sensitivty_org",
    "compute_sensitivty_std", "dragged", "exact_map", "fold_maps", "halving_sizes", "load_keras", "modes", "offsets",
    "posterior_summary", "sensitivity_map", "tilt",
]  # fmt: skip

MAX_MICRON = 200  # larger numbers are likely to be nanometres, Angstroms or wave numbers


def exact_map(
    model, spectra, errors=None, *, x_mean=None, x_std=None, y_data_mean=None, y_data_std=None, amp_names=None,
    wavelength=None, directions=None, nodes=5, rule="auto", covariance=None, auxiliary=None, input_layout=None,
    output=None, auxiliary_first=None, stochastic=None, batch_size=None, executor=None, keep_spectra=True,
    progress=False,
):  # fmt: skip
    """Mean squared change of each prediction when one bin at a time moves by its error; no random numbers are drawn.

    For a model f, a spectrum x and the error s of a bin, the map is E[(f(x + z s) - f(x))^2] with z normal, averaged
    over the spectra. It is computed by quadrature along the bin.

    Parameters
    ----------
    model : object
        The trained network: Keras, any object with ``.predict``, a PyTorch module, any function that takes and
        returns arrays, or a `ModelLoader`. It reads (rows, n_bins, 1), (rows, n_bins) or (rows, 1, n_bins), float32,
        and returns (rows, n_AMPs).
    spectra : array of shape (N, n_bins) or (n_bins,)
        Transit depths, unscaled.
    errors : array of shape (n_bins,), (N, n_bins), (n_bins, n_bins) or (N, n_bins, n_bins)
        1-sigma errors, the same for all spectra or not, or covariances, of which only the variances matter here;
        unscaled. A bin of zero error never moves. May be None where ``directions`` are given.
    x_mean, x_std : float or array of shape (n_bins,), optional
        Scaling of the spectra that the model reads. Default: it reads transit depths as they are.
    y_data_mean, y_data_std : float or array of shape (n_AMPs,), optional
        Scaling of the AMPs that the model returns. Default: it returns AMPs as they are.
    amp_names : sequence of str, optional
        Names of the AMPs, for the result: ``result["H2O"]``. Default: those of the paper if there are nine.
    wavelength : array of shape (n_bins,), optional
        Micron. Travels with the result.
    directions : array of shape (K, n_bins) or (N, K, n_bins), optional
        What moves instead of single bins: K displacements of one standard deviation each, in transit depth, made by
        `offsets`, `tilt`, `modes`, `dragged` or by hand. The map is then (n_AMPs, K).
    nodes : int
        Points along each bin, from 2 to 200. An odd number counts the centre, which is one evaluation for all bins:
        52 bins with 5 nodes cost 209 evaluations for each spectrum.
    rule : {"auto", "hermite", "spline", "midpoints"}
        How the predictions at the nodes become a mean. "auto" is "hermite" up to 5 nodes and "spline" for more;
        "midpoints" is for trees. See the notes.
    covariance, auxiliary, input_layout, output, auxiliary_first, stochastic, batch_size, executor, keep_spectra, \
progress
        As of `sensitivity_map`.

    Returns
    -------
    SensitivityMap
        In the AMPs' own units squared. Errors and warnings are those of `sensitivity_map`.

    Notes
    -----
    "hermite" (Gauss-Hermite) is exact for f quadratic along the bin with 3 nodes and for f quartic with 5; a linear
    model of weights w has (w s)^2, or (w . d)^2 for a direction d. With kinks (ReLU) "spline", the mean square of a
    cubic spline through equally spaced nodes, is 1.6 to 2.1 times closer with 5 nodes, and 2.3 to 2.6 times with 9; for
    an LSTM, which is smooth, "hermite" is closer with 5. Steps (trees) may hide between nodes: the map of a random
    forest is off by a fifth with 5 nodes, by 4 % with 20 "midpoints" of equal probability.

    ``quadrature_error`` is the distance to a lower rule on the same nodes. With 5 nodes it covered 99 % of the cells of
    the maps of four networks (where it was at least 7 times the true error in all) and 90 % of those of a forest
    (benchmarks/quadrature.py); it covers the error of a single kink 4 times in 5, and of a single step 3 times in 4
    (tests/perturbation/test_quadrature.py). Other rules, and 3 nodes, may cover less often.
    """
    own = {"model": model}
    for name, mean, std in (("x", x_mean, x_std), ("y_data", y_data_mean, y_data_std)):
        if std is None and mean is not None:
            raise ValueError(f"{name}_std: expected a number, as {name}_mean is given, received None")
        own |= {f"{name}_mean": 0.0 if mean is None else mean, f"{name}_std": 1.0 if std is None else std}
    if np.ndim(spectra) == 1:
        spectra, auxiliary = np.asarray(spectra)[None], None if auxiliary is None else np.atleast_2d(auxiliary)
    if isinstance(nodes, str) or nodes is None:
        raise ValueError(f"nodes: expected a number from 2 to {MAX_NODES}, received {nodes!r}")
    try:
        return fold_maps(
            [own | {"auxiliary": auxiliary}], None, spectra, errors, gases=amp_names, no_spectra=None, scheme="single",
            covariance=covariance, directions=directions, nodes=nodes, rule=rule, input_layout=input_layout,
            output=output, auxiliary_first=auxiliary_first, stochastic=stochastic, batch_size=batch_size,
            executor=executor, keep_spectra=keep_spectra, progress=progress, wavelength=wavelength,
        )[0]  # fmt: skip
    except ValueError as error:  # in the names of the arguments here
        for theirs, ours in (("org_spectrum", "spectra"), ("org_error", "errors"), ("gases", "amp_names")):
            if str(error).startswith(theirs):
                raise ValueError(ours + str(error).removeprefix(theirs)) from error
        raise


def sensitivity_map(
    model, y_test, org_spectrum, org_error, y_data_mean=None, y_data_std=None, gases=None, no_spectra=100,
    repeat=500, x_mean=None, x_std=None, abundance=None, *, scaled=False, rng=None, scheme="halving", groups=None,
    covariance=None, auxiliary=None, input_layout=None, batch_size=None, keep_spectra=True, progress=False,
    executor=None, chunk_size="auto", store=None, tolerance=None, directions=None, nodes="auto", rule="auto",
    output=None, auxiliary_first=None, stochastic=None, wavelength=None,
):  # fmt: skip
    """Sensitivity of each AMP to each wavelength bin, with error bars (Yip et al. 2021, Section 5), with every option.

    Parameters
    ----------
    model, wavelength, directions, rule
        As of `exact_map`; ``directions`` replace ``scheme``.
    y_test : array of shape (N, n_AMPs) or None
        True AMPs in retrieval space (log10 VMR for molecules); used for the abundance cut only.
    org_spectrum, org_error
        As ``spectra``, of shape (N, n_bins), and ``errors`` of `exact_map`; groups are drawn from whole covariances.
    y_data_mean, y_data_std : array of shape (n_AMPs,) or (1, n_AMPs)
        Scaling of the AMPs, or one number for all; the mean cancels. May be None if ``scaled``.
    gases : sequence of str, optional
        AMP of each column: a key ("H2O"), plot label or ``constants.AMP``; in any case. Default: those of the paper
        if there are nine. Used for the abundance cut and to name the result.
    no_spectra : int or None
        Spectra for each AMP: the first ones of those in its abundance range. None or -1: all of them.
    repeat : int
        Random repeats per spectrum, where there are any (``nodes``).
    x_mean, x_std : float or array of shape (n_bins,)
        Scaling of the spectra. Required.
    abundance : (low, high) or dict of str to (low, high), optional
        Only spectra with low < log10 VMR < high enter the row of a molecule; planet parameters use all spectra.
        A dict cuts the AMPs it names, molecules or not. None: no cut.
    scaled : bool
        Return the map in scaled units squared rather than in the AMPs' own.
    rng : int, sequence of int, numpy.random.Generator, numpy.random.SeedSequence or None
        Source of randomness. The same seed gives the same map; a Generator moves on. None: fresh entropy. Draws depend
        on the row of ``org_spectrum``: parts of a survey that are tested one after the other need a seed each.
    scheme : {"halving", "single"}
        Random groups of 26, 13, 7, 4, 2 bins (of 52) as published, or each bin alone, by quadrature.
    groups : sequence of index lists, or integer array of shape (n_bins,), optional
        Your own groups of bins (an instrument channel, a band) that move at the same time, each bin by its own
        draw; replaces ``scheme``. As an array: the number of each bin's group, negative for none. Bins in no group do
        not move and get NaN.
    covariance : bool, optional
        Whether ``org_error`` holds covariances. Default: if it has three axes, or is (n_bins, n_bins) while there are
        not n_bins spectra. Where there are, it counts as errors, but a symmetric one may be either and is refused.
    auxiliary : array of shape (N, k), optional
        Second input of a two-input model, held fixed. The model receives [spectra, auxiliary].
    input_layout : {"channel", "flat", "channel_first"}, optional
        (rows, n_bins, 1), (rows, n_bins) or (rows, 1, n_bins). Default: as the model declares, else found by trying;
        where the model takes the first two and gives different predictions, say which.
    batch_size : int, optional
        Rows per call of the model, at most; never less than one repeat of one spectrum, or the nodes of one bin.
        Default: up to 5120, fewer for a Keras model with wide layers (192 for an LSTM of 52 bins, about 100 MB).
    keep_spectra, progress : bool
        Keep the map of each spectrum (False keeps memory constant in their number); show a progress bar over spectra.
    executor : concurrent.futures.Executor, optional
        Where chunks of spectra are run. Default: in this process. For worker processes give a `ModelLoader`.
    chunk_size : int or "auto"
        Spectra per chunk; with quadrature, the next number that fills whole calls. Does not change the result.
        "auto": 16, or with an ``executor`` about a second of work, as one of its workers measures it.
    store : mutable mapping of int to ndarray of shape (2 or, with quadrature, 4, n_AMPs, n_bins), optional
        Finished spectra, by row of ``org_spectrum``, in scaled units, to resume the same test after an interruption.
        Those in it are not computed again; whether they are of the same test is not checked. Random repeats need
        ``rng`` with it.
    tolerance : float, optional
        Stop before ``no_spectra`` once the sum over bins of each AMP's map has at most this relative standard error,
        from at least 10 spectra of each AMP. ``n_spectra`` says where; if it is never reached all are used.
    nodes : int from 2 to 200, "auto" or None
        As of `exact_map`. None: ``repeat`` random draws. "auto": 5 for ``scheme="single"`` and for ``directions``,
        None for halving and for ``groups``, which are always drawn.
    output : str, int or list of these, optional
        Which of several outputs of the model are meant: a key of a dict or a place in a list; a list puts several side
        by side.
    auxiliary_first : bool, optional
        Order of the two inputs. Default: as the model declares its shapes, else the spectrum first.
    stochastic : "subtract" or int, optional
        What is done about a model that predicts at random, as with dropout. "subtract" asks twice and multiplies the
        two changes, which takes the random part out of the mean (cells near zero may come out negative). A number: the
        mean of so many predictions is used. Default: a warning with the size.

    Returns
    -------
    SensitivityMap

    Raises
    ------
    ValueError
        If an argument is not as described, no spectrum is in an AMP's abundance range, the model's output is not
        (rows, n_AMPs) or not finite, or the prediction for a spectrum depends on the others of the call. A UserWarning
        says that there are fewer than ``no_spectra`` spectra, that the model predicts at random (too much so for
        the map, where that is subtracted), or that its numbers are too coarse for their changes. A Keras model is tried
        before its first map alone: randomness and coarseness are those of the weights that it had then.

    Notes
    -----
    For a linear model with per-bin effect v_b = (w_b s_b)^2 the halving map expects v_b + p (sum(v) - v_b), with
    p = sum_j n_j (n_j - 1) / (n_bins (n_bins - 1)) over group sizes n_j: a third for 52 bins, zero for single bins.

    The same seed gives the same draws for any batch size, and bit-identical maps for any chunking, order or executor
    on one kind of machine. Another batch size may change a model's predictions, and so the map, in the last bits.

    A Keras network on TensorFlow is called by three threads at a time, so that one predicts while others draw; any
    other model by one thread at a time, except those of your own ``executor``.
    """
    own = {"model": model, "x_mean": x_mean, "x_std": x_std, "y_data_mean": y_data_mean, "y_data_std": y_data_std}
    return fold_maps(
        [own | {"auxiliary": auxiliary}], y_test, org_spectrum, org_error, gases=gases, no_spectra=no_spectra,
        repeat=repeat, abundance=abundance, scaled=scaled, rng=rng, scheme=scheme, groups=groups, covariance=covariance,
        input_layout=input_layout, batch_size=batch_size, keep_spectra=keep_spectra, progress=progress,
        executor=executor, chunk_size=chunk_size, store=store, tolerance=tolerance, directions=directions, nodes=nodes,
        rule=rule, output=output, auxiliary_first=auxiliary_first, stochastic=stochastic, wavelength=wavelength,
    )[0]  # fmt: skip


def fold_maps(
    networks, y_test, org_spectrum, org_error, *, store=None, executor=None, tolerance=None, keep_spectra=True,
    progress=False, wavelength=None, **options,
):  # fmt: skip
    """Map several networks, and the mean of their predictions, with one set of perturbed spectra.

    Parameters
    ----------
    networks : sequence of dict
        For each network those arguments of `sensitivity_map` that are its own: ``model``, ``x_mean``, ``x_std``,
        ``y_data_mean``, ``y_data_std`` and, for models with two inputs, ``auxiliary``.
    y_test, org_spectrum, org_error, store, executor, tolerance, keep_spectra, progress, wavelength, **options
        The other arguments of `sensitivity_map`, the same for all networks. A ``store`` holds the maps of a spectrum
        below each other, (2 or 4, (K + 1) n_AMPs, n_bins).

    Returns
    -------
    list of SensitivityMap
        The map of each network, bit for bit as `sensitivity_map` gives it with the same seed, then the map of the mean
        of their predictions in the AMPs' own units (with ``scaled``, of their scaled predictions). With ``tolerance``
        all maps stop at the same spectrum, once every one of them has reached it. Of a single network its map alone.
    """
    networks = list(networks)
    if not networks or any("model" not in own for own in networks):
        raise ValueError(f"networks: expected dicts with a model each, received {[list(own) for own in networks]}")
    for unknown in options.keys() - make_plan.__kwdefaults__.keys():
        raise TypeError(f"{unknown}: expected an option of sensitivity_map, received an unknown name")
    tolerance = None if tolerance is None else positive_number("tolerance", tolerance)
    plan = make_plan(networks, y_test, org_spectrum, org_error, executor=executor, **options)
    if store is not None and options.get("rng") is None and plan.rule is None:
        raise ValueError("rng: expected the seed of the maps in store, received None")
    if wavelength is not None:
        wavelength = float_array("wavelength", wavelength, f"({plan.x_mean.shape[1]},)", 1, plan.x_mean.shape[1])
        if wavelength.max() > MAX_MICRON:
            warnings.warn(f"wavelength: expected micron, received numbers up to {wavelength.max():g}", stacklevel=3)
        wavelength = None if plan.scheme == "directions" else wavelength
    keep_spectra, progress = truth("keep_spectra", keep_spectra), truth("progress", progress)
    totals = accumulate([own["model"] for own in networks], plan, executor, store, keep_spectra, tolerance, progress)
    warn_of_rounding(plan, totals.moments.mean)
    if options.get("stochastic"):
        warn_of_scatter(plan, totals)
    common = {
        "scheme": plan.scheme, "repeat": plan.repeat, "seed": plan.seed, "scaled": bool(options.get("scaled")),
        "abundance": plain_abundance(options.get("abundance")), "amp_names": tuple(amp.key for amp in plan.amps),
        "spectra": totals.used if keep_spectra else None, "groups": plan.labels if plan.scheme == "groups" else None,
        "nodes": plan.rule and plan.rule.n_nodes, "rule": plan.rule and plan.rule.name, "wavelength": wavelength,
    }  # fmt: skip
    arrays, n_spectra = totals.arrays(), totals.moments.count[:, 0]
    return [
        SensitivityMap(
            **{name: array[..., rows, :] for name, array in arrays.items()}, n_spectra=n_spectra[rows], **common
        )
        for rows in (slice(start, start + plan.n_amps) for start in range(0, plan.n_rows, plan.n_amps))
    ]


def compute_sensitivty_org(
    model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases=None, no_spectra=100, repeat=500,
    x_mean=None, x_std=None, abundance=None, *, details=False, **options,
):  # fmt: skip
    """Sensitivity map in the AMPs' own retrieval-space units squared, (n_AMPs, n_bins), as an array.

    Arguments, ``options`` (its keyword-only ones), errors and warnings are those of `sensitivity_map`; name and order
    are as published (Yip et al. 2021, Section 5). With ``details`` its `SensitivityMap` is returned, which holds error
    bars too. ``model`` may be a list, such as the networks of all folds, with lists of ``y_data_mean``, ``y_data_std``,
    ``x_mean``, ``x_std`` and ``auxiliary``: then the map of each and of their mean prediction are returned as a list.
    """
    names = ("model", "y_data_mean", "y_data_std", "x_mean", "x_std", "auxiliary")
    own = [model, y_data_mean, y_data_std, x_mean, x_std, options.pop("auxiliary", None)]
    details, is_list = truth("details", details), isinstance(model, list)
    if is_list:
        own = [[None] * len(model) if values is None else values for values in own]
        for name, values in zip(names, own):
            n = len(values) if np.iterable(values) else type(values).__name__
            if n != len(model):
                raise ValueError(f"{name}: expected a list of {len(model)}, one for each model, received {n}")
    maps = fold_maps(
        [dict(zip(names, values)) for values in (zip(*own) if is_list else [own])], y_test, org_spectrum,
        org_error, gases=gases, no_spectra=no_spectra, repeat=repeat, abundance=abundance,
        **{"keep_spectra": False, **options},
    )  # fmt: skip
    maps = maps if details else [one.mean for one in maps]
    return maps if is_list else maps[0]


def compute_sensitivty_std(
    model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases=None, no_spectra=100, repeat=500,
    x_mean=None, x_std=None, abundance=None, **options,
):  # fmt: skip
    """Sensitivity map in the network's scaled units squared, (n_AMPs, n_bins); else as `compute_sensitivty_org`."""
    return compute_sensitivty_org(
        model, y_test, org_spectrum, org_error, y_data_mean, y_data_std, gases, no_spectra, repeat, x_mean, x_std,
        abundance, scaled=True, **options,
    )  # fmt: skip


compute_sensitivity_org = compute_sensitivty_org
compute_sensitivity_std = compute_sensitivty_std
