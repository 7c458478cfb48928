"""The figures of a run, each with its words: what it shows and how to read it. Nothing unrecorded is said."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from common import metrics
from report import diagnostics, figures, map_figures
from report.best_estimator import best_estimator_of
from report.style import TWO_COLUMNS, bin_ends, with_unit

LOSS = {  # training.loss in words, and as short as an axis label has to be
    "mse": ("mean squared error of the scaled AMPs", "mean squared error, scaled"),
    "log_mse": (
        "mean over the AMPs of the natural logarithm of each scaled AMP's mean squared error in a batch",
        "mean log of squared error, scaled",
    ),
}
FLOOR = (
    " This test redraws groups of bins together and credits each bin with the change of its group. A bin without any"
    " effect therefore stands on a floor, a value above zero. Compare how far bins rise above the lowest ones."
)
KEPT = " Triangles mark the epoch with the least validation loss of each network, from which it was kept."


class Picture(NamedTuple):
    """A figure of the report."""

    figure: Figure
    title: str
    shows: str  # what is drawn
    read: str  # how to read it


def make_figures(run, which="report"):
    """Draw the figures that a ``results.Run`` has the numbers for: {file name: `Picture`}, in the order of the report.

    ``which`` is "none", "report" (those of report.html) or "all" (also those that show the same numbers otherwise).
    """
    if which not in ("none", "report", "all"):
        raise ValueError(f"figures: expected none, report, all, received {which!r}")
    only_all = ONLY_ALL - (set() if run.best.sensitivity_single else {"sensitivity_profiles"})  # instead of the shares
    names = [name for name in MAKERS if which == "all" or (which == "report" and name not in only_all)]
    return {name: picture for name in names if (picture := MAKERS[name](run, TWO_COLUMNS)) is not None}


# --- words for how a run was made ---


def setting(run, dotted):
    """Return a setting of a run, "training.loss" for example; None where it was not recorded."""
    value = run.config
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def among(names):
    """Return names as "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def span(values):
    """Return whole numbers as "30", or as "12 to 30" where they differ."""
    low, high = int(np.min(values)), int(np.max(values))
    return str(low) if low == high else f"{low} to {high}"


def noise_of_test(run):
    """Say which noise the test spectra had: "noisy" alone where it was not recorded."""
    own = run.data.get("noisy")
    return "noisy" if own is None else "noisy as in the data set" if own else "with noise drawn from their errors"


def _spectra(run, number, name):
    """Say how many test spectra (None: not known) the maps of this ``name`` are of, and whether they hold noise."""
    own = run.data.get("noisy")
    noisy = next(one.noisy.get(name) for one in run.networks.values() if getattr(one, name) is not None)
    kind = "noisy " if own or noisy else "" if own is None or noisy is None else "noise-free "
    return f"{'' if number is None else f'{span(number)} '}{kind}test spectra"


def _why_below(run):
    """Say why the validation loss of a run can lie below its training loss."""
    extras = ["dropout"] if setting(run, f"model.{run.model}.dropout") else []
    if run.data.get("noisy") and setting(run, "training.noise") != "none" and setting(run, "training.extra_noise"):
        extras.append("extra noise")  # training spectra have it, validation spectra do not
    text = "Training loss is an average over an epoch in which the weights still change"
    text += f", with {among(extras)}" if extras else ""
    text += ", on spectra with fresh noise" if setting(run, "training.noise") == "fresh" else ""
    text += "; validation loss is that of averaged weights" if setting(run, "training.average_epochs") else ""
    return text + "."


def _whose(run):
    """Return the words for the network that a figure of the best one shows."""
    return f"mean of {len(run.folds)} folds" if run.ensemble else f"the {run.model}"


def _folds_text(run):
    return f" Each prediction is the mean of the predictions of {len(run.folds)} folds." if run.ensemble else ""


def _settings_of(run, maps):
    """Say how maps of the published test were made."""
    one, number = maps[0], [n for m in maps for n in np.ravel(m.n_spectra)]
    drawn = f"{one.nodes} nodes of quadrature ({one.rule})" if one.nodes else f"{one.repeat} repeats"
    return f"scheme {one.scheme}, {drawn}, {_spectra(run, number, 'sensitivity')}"


# --- what the predictions are sensitive to ---


def _shares(run, width):
    exact = run.best.sensitivity_single
    if exact is None:
        return None
    best = best_estimator_of(run)
    figure = map_figures.share_panels(
        run.wavelength, run.bin_width, metrics.shares(exact.mean), exact.share_error, run.amp_table,
        metrics.shares(best.optimal_map) if best else None, width,
    )  # fmt: skip
    spectra = _spectra(run, exact.n_spectra, "sensitivity_single")
    return Picture(
        figure,
        "Which wavelengths each prediction is sensitive to",
        "The share of each wavelength bin in the sensitivity of an AMP. The sensitivity to a bin is the mean squared"
        " change of the prediction when this bin alone is redrawn within its error; it is divided by the sum over all"
        f" bins ({_whose(run)}, exact map of {spectra}, {exact.nodes} nodes). Shaded: one standard error of a share"
        " (jackknife over spectra)."
        + (" Grey: the molecule's known bands." if _has_bands(run) else "")
        + (" Dashed: the best possible estimator of this data set." if best else ""),
        "A network that has learnt the physics is sensitive to the bins where the molecule absorbs, and to bins that"
        " distinguish it from other molecules."
        + (" Where it leaves the dashed line, it weights bins differently from the best estimator." if best else ""),
    )


def _has_bands(run):
    return bool(map_figures.bands_in_range(bin_ends(run.wavelength, run.bin_width), run.amp_table))


def _published(run):
    """Say how the published map that is shown was made."""
    return _settings_of(run, [run.best.sensitivity]) + (f", {_whose(run)}" if run.ensemble else "")


def _curves(run, width):
    published = run.best.sensitivity
    if published is None:
        return None
    floor = published.scheme != "single"
    return Picture(
        map_figures.sensitivity_curves(
            run.wavelength, run.bin_width, published.mean, run.amp_table, run.molecule_curves, run.test_spectrum, width
        ),
        "The published sensitivity test" if floor else "The sensitivity test",
        f"Dots: the sensitivity of every AMP to every wavelength bin ({_published(run)}). {_lines_of(run)}",
        "Noise in bins with dark dots changes the prediction most. A network that has learnt the physics has dark dots"
        " where its molecule absorbs. Colours run from the least value of the AMP to its 95th percentile, so they"
        " cannot be compared between panels." + (FLOOR if floor else ""),
    )


def _lines_of(run):
    """Say what the lines of the curves are."""
    on_curve = sum(a.key in run.molecule_curves for a in run.amp_table)
    if not on_curve:
        return "The lines are the median test spectrum."
    text = "The lines are the transit depth of a reference planet with one molecule alone"
    text += " (grey: with none)" if "none" in run.molecule_curves else ""
    rest = "; parameters without such a line are drawn on the median test spectrum"
    return text + (rest if on_curve < len(run.amp_table) else "") + "."


def _heatmap(run, width):
    if run.best.sensitivity is None:
        return None
    shows = f"The same map, a row per AMP, each from its own least to its greatest value ({_published(run)})."
    read = "A grey row has no value: no spectrum passed the abundance cut, or all bins are equal."
    if _has_bands(run):
        shows += " Blue bars mark known absorption bands of the molecules."
        read = (
            "Dark cells above the bars of a molecule are expected. A dark cell elsewhere is information from an"
            f" overlapping molecule, from the continuum, or from a correlation in the training set. {read}"
        )
    maps = run.best.sensitivity.mean
    figure = map_figures.sensitivity_heatmap(run.wavelength, run.bin_width, maps, run.amp_table, width)
    return Picture(figure, "The published test, all parameters", shows, read)


def _profiles(run, width):
    folds = [fold.sensitivity for fold in run.folds.values() if fold.sensitivity is not None]
    if not folds:
        return None
    mean = diagnostics.mean_map([m.mean for m in folds], [m.standard_error for m in folds])
    several = mean.folds > 1
    over = f", mean of {mean.folds} folds" if several else ""
    redrawn = "alone" if folds[0].scheme == "single" else "together with its group"
    return Picture(
        map_figures.sensitivity_profiles(run.wavelength, run.bin_width, mean, run.amp_table, width),
        "The published test in numbers",
        f"Mean squared change of the AMP ({_settings_of(run, folds)}{over}). Bars are one standard error"
        + (", as if the folds were independent; the band spans the lowest to the highest fold." if several else "."),
        "The square root of a value is the typical change of the prediction when that bin is redrawn within its"
        f" error, {redrawn}. The bars include the spread from spectrum to spectrum, which all bins share, so"
        " differences between bins are more certain than the bars suggest. An axis does not begin at zero where the"
        " least value is more than half the greatest."
        + (" Do not trust a peak that only one fold has." if several else ""),
    )


def _by_abundance(run, width):
    rows = [k for k, a in enumerate(run.amp_table) if a.kind == "molecule"]
    if run.best.thirds is None or not rows:
        return None
    maps, limits = (values[rows] for values in run.best.thirds)
    grouped, molecules = map_figures.bins_averaged(run.wavelength), [run.amp_table[k] for k in rows]
    return Picture(
        map_figures.abundance_panels(run.wavelength, run.bin_width, maps, limits, molecules, width),
        "How the map of a molecule changes with its abundance",
        "Sensitivity of each molecule's prediction, with each bin redrawn alone, for the third of the test spectra with"
        f" the lowest, the middle and the highest abundance ({_whose(run)}). The legend gives the ranges of log₁₀ VMR."
        + (f" {grouped} neighbouring bins are averaged." if grouped > 1 else ""),
        "A molecule that is too scarce to be seen leaves little to be sensitive to, so the lowest third can be weaker"
        " than the middle one. Strong bands saturate at high abundance, and weaker bands take over.",
    )


def _slopes(run, width):
    exact, shifted = run.best.sensitivity_single, run.best.response
    if exact is not None:
        slope, curvature = exact.slope, exact.curvature
        spectra = _spectra(run, exact.n_spectra, "sensitivity_single")
        how = f"averaged over {spectra} ({_whose(run)}, exact map)"
    elif shifted is not None:
        a = np.asarray(shifted.deviations)  # the change is fitted by slope a + curvature a^2 / 2
        fit = np.linalg.lstsq(np.stack([a, a**2 / 2], axis=1), shifted.change.reshape(-1, len(a)).T, rcond=None)[0]
        slope, curvature = fit.reshape(2, *shifted.change.shape[:2])
        how = f"fitted to the response map ({_whose(run)})"
    else:
        return None
    return Picture(
        map_figures.response_slopes(run.wavelength, run.bin_width, slope, curvature, run.amp_table, width),
        "The sign of each bin's effect",
        f"Slope and curvature of each prediction as a function of the depth of one bin, {how}. Each row is"
        " divided by its greatest absolute value, which is printed at the right.",
        "Red: a deeper transit in this bin raises the prediction; blue: it lowers it. A linear network has no"
        " curvature. Where the curvature is red, a shift up and an equal shift down raise the prediction on average;"
        " where it is blue, they lower it. A grey row has no curvature.",
    )


def _response_map(run, width):
    response = run.best.response
    if response is None:
        return None
    deviations, spectra = response.deviations, _spectra(run, response.n_spectra, "response")
    spectra = spectra if response.n_spectra is None else f"the first {spectra}"
    inputs = among(setting(run, "data.auxiliary") or [])
    held = f", with {inputs} at the training mean" if inputs else ""
    return Picture(
        map_figures.response_map(run.wavelength, run.bin_width, deviations, response.change, run.amp_table, width),
        "The response to a shift of one bin",
        f"Change of each AMP when one bin is shifted by {deviations.min():g} to {deviations.max():g} of its standard"
        f" errors, averaged over {spectra}{held} ({_whose(run)}). The numbers above the panels are the ends of the"
        " colour bar.",
        "A column that goes from blue below to red above is a bin whose greater depth raises the prediction. The"
        " sensitivity test squares these changes and loses their sign.",
    )


# --- how good the predictions are ---


def _true_vs_predicted(run, width):
    y_pred = run.best.y_pred
    return Picture(
        figures.true_vs_predicted(run.y_test, y_pred, run.amp_table, metrics.r2(run.y_test, y_pred), width),
        "True and predicted values",
        f"Predictions for {len(run.y_test)} test spectra, {noise_of_test(run)}, that were not used in training, and"
        " their R². Many points are shown as their density (logarithmic colours); the dashed line is a perfect"
        " prediction." + _folds_text(run),
        "Points along the line are good predictions. In a horizontal stripe the network predicts nearly the same value"
        " whatever the truth is, because the spectrum holds no information: a molecule may be too scarce to be seen.",
    )


def _bias_variance(run, width):
    binned = diagnostics.bias_variance(run.y_test, run.best.y_pred)
    return Picture(
        figures.bias_variance(binned, run.amp_table, width),
        "Error along the true value",
        "Median and central 68 % of predicted − true in bins of equal count along the true value (about"
        f" {np.mean(binned[0].count):.0f} spectra each)." + _folds_text(run),
        "The band is wide where an AMP is hard to retrieve. A median above zero on the left and below zero on the"
        " right means that predictions are drawn towards the mean.",
    )


def _bins_text():
    return (
        f"bins along the prediction ({diagnostics.BIN_WIDTH_DEX:g} dex for log mixing ratios;"
        f" {diagnostics.BIN_WIDTH_PER_STD:.2f} standard deviations of the training set for others, but at most"
        f" {diagnostics.BIN_WIDTH_DEX:g} dex; at least {diagnostics.MIN_SPECTRA} spectra)"
    )


def _widths(run):
    """Return the bin widths along the prediction and the tolerances, (n_amps,) each."""
    std = np.mean([np.ravel(f.scaler.y_std) for f in run.folds.values()], axis=0)
    return diagnostics.binning(run.amp_table, std), diagnostics.tolerance(run.amp_table, std)


def _deviation(run, width):
    found = diagnostics.deviation(run.y_test, run.best.y_pred, _widths(run)[0])
    return Picture(
        figures.deviation(found, run.amp_table, width),
        "Error along the predicted value",
        f"Median and central 95 % of predicted − true in {_bins_text()}; grey: spectra per bin." + _folds_text(run),
        "Of a real planet only the prediction is known: find it on the axis and read off how far away the truth is"
        " likely to be. An interval that does not include zero is a bias to correct for.",
    )


def _credibility(run, width):
    along, eps = _widths(run)
    found = diagnostics.credibility(run.y_test, run.best.y_pred, eps, along)
    return Picture(
        figures.credibility(found, run.amp_table, eps, diagnostics.CREDIBILITY_DELTA, width),
        "Credibility",
        f"Probability that the truth is within ε of the prediction, in {_bins_text()}, with 95 % intervals. ε is"
        f" {diagnostics.CREDIBILITY_EPS:g} dex for log mixing ratios, {diagnostics.EPS_PER_STD:.2f} standard"
        f" deviations of the training set for others, but at most {diagnostics.CREDIBILITY_EPS:g} dex."
        + _folds_text(run),
        f"Predictions above the dashed line (δ = {diagnostics.CREDIBILITY_DELTA:g}) are credible by the definition of"
        " Yip et al. (2021).",
    )


def _calibration(run, width):
    if len(run.folds) < 2:
        return None
    folds = np.stack([fold.y_pred for fold in run.folds.values()])
    return Picture(
        figures.calibration(diagnostics.calibration(run.y_test, folds), run.amp_table, width),
        "Is the spread of the folds an error bar?",
        f"Fraction of the truths within k standard deviations (of the {len(run.folds)} folds) of their mean; dashed:"
        " a normal distribution.",
        "Below the dashed line the folds agree with each other better than with the truth. That is expected: their"
        " spread reflects the training and not the photon noise, so it is no error bar of a prediction.",
    )


def _loss_curves(run, width):
    histories = [fold.history for fold in run.folds.values()]
    training, validation = (diagnostics.loss_band(histories, column) for column in ("loss", "val_loss"))
    if training is None:
        return None
    best = [int(np.argmin(h["val_loss"])) + 1 for h in histories if len(h.get("val_loss", ()))]
    words, label = LOSS.get(setting(run, "training.loss"), ("", ""))
    return Picture(
        figures.loss_curves(training, validation, best, with_unit("Loss", label)),
        "Training",
        with_unit("Loss", words)
        + " against epoch"
        + (", mean and range over the folds that were still training." if len(histories) > 1 else ".")
        + (KEPT if best else ""),
        f"Validation loss can lie below training loss. {_why_below(run)} A validation loss that rises while training"
        " loss falls is a sign of over-fitting.",
    )


MAKERS = {  # functions of a run and a width in inches; a Picture, or None without the numbers
    "sensitivity_shares": _shares,
    "sensitivity_curves": _curves,
    "sensitivity_heatmap": _heatmap,
    "sensitivity_profiles": _profiles,
    "sensitivity_by_abundance": _by_abundance,
    "response_slopes": _slopes,
    "response_map": _response_map,
    "true_vs_predicted": _true_vs_predicted,
    "bias_variance": _bias_variance,
    "deviation": _deviation,
    "credibility": _credibility,
    "calibration": _calibration,
    "loss_curves": _loss_curves,
}
ONLY_ALL = {"sensitivity_heatmap", "sensitivity_profiles", "response_map", "calibration"}
