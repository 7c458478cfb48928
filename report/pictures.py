"""The figures of a run, each with the words that go with it: what it shows and how to read it."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from common import metrics
from perturbation.result import slope_and_curvature
from report import diagnostics, figures, map_figures
from report.best_estimator import yardstick_of

LOSS = {  # training.loss in words, and as short as an axis label has to be
    "mse": ("mean squared error of the scaled AMPs", "mean squared error, scaled"),
    "log_mse": (
        "mean over the AMPs of the natural logarithm of each scaled AMP's mean squared error in a batch",
        "mean log of squared error, scaled",
    ),
}


def setting(run, dotted):
    """Return a setting of a run, "training.loss" for example; None where it was not recorded."""
    value = run.config
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def loss(run):
    """Return (words, axis label) of the loss that the run was trained with."""
    name = setting(run, "training.loss")
    words, label = LOSS.get(name, (name, name))
    return ("Loss", "Loss") if name is None else (f"Loss ({words})", f"Loss ({label})")


def only_in_training(run):
    """Return what made training spectra harder than validation spectra: names of it, none of them not recorded."""
    extras = []
    if setting(run, f"model.{run.model}.dropout"):
        extras.append("dropout")
    added = setting(run, "training.noise") != "none" and setting(run, "training.extra_noise")
    if survey_noise(run) and added:
        extras.append("extra noise")
    return extras


def survey_noise(run):
    """Say whether the spectra of the run's data set hold noise themselves; None where this was not recorded."""
    noisy = run.data.get("noisy")
    return None if noisy is None else bool(noisy)


def judged_on(run):
    """Say which noise the test spectra had when the networks answered them."""
    own = survey_noise(run)
    if own is None:
        return "noisy"
    return "noisy as they stand in the data set" if own else "with noise drawn from their errors"


def map_spectra(run, attributes):
    """Return "noisy " or "noise-free " for the spectra that a map was made around; nothing where it is not known.

    Parameters
    ----------
    run : results.Run
    attributes : dict
        Of the map; ``noisy`` says whether noise was in its spectra.
    """
    own = survey_noise(run)
    if own or attributes.get("noisy"):
        return "noisy "
    return "" if own is None or "noisy" not in attributes else "noise-free "


def draws(attributes):
    """How the mean of a map was taken: random repeats, or quadrature that draws nothing."""
    nodes = int(attributes.get("nodes", 0))
    return f"{nodes} nodes of quadrature ({attributes['rule']})" if nodes else f"{attributes['repeat']} repeats"


def span(values):
    """Return whole numbers as "30", or as "12 to 30" where they differ."""
    values = [int(v) for v in values]
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def among(names):
    """Return names as "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes
    ----------
    figure : Figure
    title : str
    shows : str
        What is drawn.
    read : str
        How to read it.
    """

    figure: Figure
    title: str
    shows: str
    read: str


def make_figures(run):
    """Draw every figure that a run has the numbers for.

    Parameters
    ----------
    run : results.Run

    Returns
    -------
    dict of str to Picture
        File name (without suffix) to picture, in the order of the report: where the answers come from, then how
        good they are, then how they were trained.
    """
    pictures = {}
    for make in (_shares, _sensitivity, _response, _answers, _trust, _training):
        pictures.update(make(run))
    return pictures


def _shares(run):
    exact = run.best.sensitivity_single
    if exact is None:
        return {}
    yardstick = yardstick_of(run)
    best = None if yardstick is None else metrics.shares(yardstick.optimal_map)
    kind = map_spectra(run, exact)
    bands = map_figures.bands_in_range(run.wavelength, run.amp_table)
    shows = (
        "How much of each AMP's sensitivity every wavelength bin holds: the mean squared change of the answer when that"
        f" bin alone is redrawn within its error, divided by the sum over all bins ({_of_what(run)}, exact map of"
        f" {span(np.ravel(exact['n_spectra']))} {kind}test spectra, {exact['nodes']} nodes). Bars are one"
        " standard error of a share (jackknife over spectra)."
    )
    shows += " Grey: the molecule's known bands." if bands else ""
    shows += " Black: the same for the best possible estimator of this data set." if best is not None else ""
    read = (
        "A network that has learnt the physics rests on the bins where its molecule absorbs, and on those that tell it"
        " apart from the others; the bars say which bins differ."
    )
    read += " Where points leave the black line, the network looks elsewhere than it could." if best is not None else ""
    figure = map_figures.share_panels(
        run.wavelength, metrics.shares(exact["mean"]), exact["share_error"], run.amp_table, best
    )
    return {"sensitivity_shares": Picture(figure, "Which wavelengths each answer rests on", shows, read)}


def _of_what(run):
    """Say which network a picture of the best one shows."""
    return f"mean of {len(run.folds)} folds" if run.ensemble else f"the {run.model}"


def _folds_text(run):
    n = len(run.folds)
    if run.ensemble:
        return f" An answer is the mean of those of {n} folds."
    return "" if n == 1 else f" The {n} folds are pooled."


def _sensitivity(run):
    folds = [fold.sensitivity for fold in run.folds.values() if fold.sensitivity is not None]
    if not folds:
        return {}
    mean = diagnostics.mean_map([m["mean"] for m in folds], [m["standard_error"] for m in folds])
    over_folds = f", mean of {mean.folds} folds" if mean.folds > 1 else ""
    shown, settings = mean.mean, _settings_of(run, folds) + over_folds
    if run.ensemble:
        shown = run.ensemble.sensitivity["mean"]
        settings = f"{_settings_of(run, [run.ensemble.sensitivity])}, {_of_what(run)}"
    floor, redrawn = "", "alone"
    if str(folds[0]["scheme"]) != "single":
        redrawn = "together with its group"
        floor = (
            " Bins that were redrawn in the same group share their changes: a bin that does nothing still stands on"
            " a floor of a fraction of the row's sum. Compare heights above the lowest bins."
        )
    bands = map_figures.bands_in_range(run.wavelength, run.amp_table)
    return {
        "sensitivity_curves": Picture(
            map_figures.sensitivity_curves(
                run.wavelength, shown, run.amp_table, run.molecule_curves, run.test_spectrum, bin_width=run.bin_width
            ),
            "The published map: where each answer comes from" if floor else "Where each answer comes from",
            f"Sensitivity of every AMP at every wavelength bin ({settings}) as dots. {_lines_of(run)}",
            "Dark dots are bins the answer rests on: noise there moves it most. A network that has learnt the"
            " physics is dark where its molecule absorbs. Colours run from the AMP's own least value to its"
            " 95th percentile and saturate there, so they do not compare between panels." + floor,
        ),
        "sensitivity_heatmap": Picture(
            map_figures.sensitivity_heatmap(run.wavelength, shown, run.amp_table),
            "All parameters at a glance",
            f"The same map, a row per AMP, each from its own least to its greatest value ({settings})."
            + (" Blue bars mark known absorption bands of the molecules." if bands else ""),
            (
                "Dark cells above a molecule's own bars are expected. A dark cell elsewhere is information from"
                " elsewhere: an overlapping molecule, the continuum, or a correlation in the training set. "
                if bands
                else ""
            )
            + "A grey row has no value: no spectrum passed the abundance cut, or all bins are alike.",
        ),
        "sensitivity_profiles": Picture(
            map_figures.sensitivity_profiles(run.wavelength, mean, run.amp_table, bin_width=run.bin_width),
            "Sensitivity in numbers",
            "The published test with its scale: mean squared change of the AMP"
            f" ({_settings_of(run, folds)}{over_folds})."
            " Bars are one standard error"
            + (
                ", as if the folds were independent; the band spans the lowest to the highest fold."
                if mean.folds > 1
                else "."
            ),
            "The square root of a value is the typical change of the answer when that bin is redrawn within its"
            f" error, {redrawn}. The bars hold the spread from spectrum to spectrum, which all bins"
            " share: differences between bins are surer than the bars suggest. An axis does not begin at zero where"
            " the least value is more than half the greatest."
            + (" Do not trust a peak that only one fold has." if mean.folds > 1 else ""),
        ),
    }


def _settings_of(run, maps):
    """Say how maps of the published test were made."""
    number = span(n for one in maps for n in np.ravel(one["n_spectra"]))
    kind = map_spectra(run, maps[0])
    return f"scheme {maps[0]['scheme']}, {draws(maps[0])}, {number} {kind}test spectra"


def _lines_of(run):
    """Say what the lines of the curves are."""
    on_curve = [a.label for a in run.amp_table if a.key in run.molecule_curves]
    if not on_curve:
        return "The lines are the median test spectrum."
    text = (
        "The lines are each molecule's own signature, the transit depth of a reference planet with that molecule alone"
    )
    text += " (grey: with none)" if "none" in run.molecule_curves else ""
    rest = "; parameters without one are drawn on the median test spectrum."
    return text + (rest if len(on_curve) < len(run.amp_table) else ".")


def _response(run):
    return {**_slopes(run), **_pushes(run)}


def _slopes(run):
    exact, pushed = run.best.sensitivity_single, run.best.response
    if exact is not None:
        slope, curvature = exact["slope"], exact["curvature"]
        number = span(np.ravel(exact["n_spectra"]))
        how = (
            "from the same evaluations as the exact map, averaged over"
            f" {number} {map_spectra(run, exact)}test spectra ({_of_what(run)})"
        )
    elif pushed is not None:
        slope, curvature = slope_and_curvature(pushed["deviations"], pushed["change"])
        how = "fitted to the response map below"
    else:
        return {}
    figure = map_figures.response_slopes(run.wavelength, slope, curvature, run.amp_table)
    picture = Picture(
        figure,
        "Which way each bin pulls",
        f"Slope and curvature of each AMP's change when one bin is pushed, {how}."
        " Each row is divided by its greatest absolute value, printed at the right.",
        "Red: a deeper transit in this bin raises the answer; blue: it lowers it. Curvature is what a linear"
        " network does not have: red where a push up and an equal push down raise the answer on average, blue"
        " where they lower it. A grey row has none.",
    )
    return {"response_slopes": picture}


def _pushes(run):
    response = run.best.response
    if response is None:
        return {}
    deviations, spectra = response["deviations"], f"{map_spectra(run, response)}test spectra"
    if "n_spectra" in response:
        spectra = f"the first {response['n_spectra']} {spectra}"
    inputs = among(setting(run, "data.auxiliary") or [])
    held = f", with {inputs} at the training mean" if inputs else ""
    picture = Picture(
        map_figures.response_map(run.wavelength, deviations, response["change"], run.amp_table),
        "Signed response map",
        f"Change of each AMP when one bin is pushed from {deviations.min():g} to {deviations.max():g} of its"
        f" standard errors, averaged over {spectra}{held} ({_of_what(run)}). Numbers above the panels are the"
        " colour bar's ends.",
        "A column that goes from blue below to red above is a bin whose greater depth raises the answer. The"
        " sensitivity test squares these changes and so loses their sign.",
    )
    return {"response_map": picture}


def _predictions(run):
    """Return the answers that are judged, (n, n_test, n_amps): the mean of the folds, or the only fold."""
    return np.stack([fold.y_pred for fold in _judged(run)])


def _judged(run):
    return [run.ensemble] if run.ensemble else list(run.folds.values())


def _answers(run):
    y_pred = _predictions(run)
    each = [metrics.scores(run.y_test, f.y_pred, f.scaler["y_std"]) for f in _judged(run)]
    scores = {key: np.mean([one[key] for one in each], axis=0) for key in each[0]}
    binned = diagnostics.bias_variance(run.y_test, y_pred)
    mean = ", the mean over folds" if len(each) > 1 else ""
    return {
        "true_vs_predicted": Picture(
            figures.true_vs_predicted(run.y_test, y_pred, run.amp_table, scores),
            "True against predicted",
            f"Answers to {len(run.y_test)} test spectra, {judged_on(run)}, that training never saw, with R² of"
            f" the score table{mean}. Many points are shown as their density (logarithmic colours); the dashed line is"
            " a perfect answer." + _folds_text(run),
            "A cloud along the line is a good answer. A horizontal stripe is a network that answers the mean"
            " where the spectrum holds no information, as for molecules too scarce to be seen.",
        ),
        "bias_variance": Picture(
            figures.bias_variance(binned, run.amp_table),
            "Error along the truth",
            "Mean and standard deviation of |predicted − true| in bins of equal count along the truth (about"
            f" {np.mean(binned.count):.0f} spectra each); dotted: the signed mean, the bias." + _folds_text(run),
            "Points show where in its range an AMP is hard. A dotted line above zero on the left and below on"
            " the right is a pull towards the mean.",
        ),
    }


def _trust(run):
    y_pred = _predictions(run)
    std = np.mean([np.ravel(f.scaler["y_std"]) for f in run.folds.values()], axis=0)
    width, eps = diagnostics.binning(run.amp_table, std), diagnostics.tolerance(run.amp_table, std)
    bins = (
        f"bins along the prediction ({diagnostics.BIN_WIDTH_DEX:g} dex for log mixing ratios;"
        f" {diagnostics.BIN_WIDTH_PER_STD:.2f} training standard deviations for others, though no more than"
        f" {diagnostics.BIN_WIDTH_DEX:g} dex; at least {diagnostics.MIN_SPECTRA} spectra)"
    )
    pictures = {
        "deviation": Picture(
            figures.deviation(diagnostics.deviation(run.y_test, y_pred, width), run.amp_table),
            "Error seen from the answer",
            f"Median and central 95 % of predicted − true in {bins}; grey: spectra per bin." + _folds_text(run),
            "In use only the answer is known: find it on the axis and read off how far the truth is likely to"
            " be. Bars that do not include zero are a bias to correct for.",
        ),
        "credibility": Picture(
            figures.credibility(
                diagnostics.credibility(run.y_test, y_pred, eps, width), run.amp_table, diagnostics.CREDIBILITY_DELTA
            ),
            "Credibility",
            f"Probability that the truth is within ε of the answer, in {bins}, with 95 % intervals. ε is"
            f" {diagnostics.CREDIBILITY_EPS:g} dex for log mixing ratios, {diagnostics.EPS_PER_STD:.2f} training"
            f" standard deviations for others, though no more than {diagnostics.CREDIBILITY_EPS:g} dex."
            + _folds_text(run),
            f"Answers above the dashed line (δ = {diagnostics.CREDIBILITY_DELTA:g}) can be called credible.",
        ),
    }
    if len(run.folds) > 1:
        folds = np.stack([fold.y_pred for fold in run.folds.values()])
        pictures["calibration"] = Picture(
            figures.calibration(diagnostics.calibration(run.y_test, folds), run.amp_table),
            "Is the spread of the folds an error bar?",
            f"Share of the truths within k standard deviations (of the {len(run.folds)} folds) of their mean;"
            " dashed: a normal distribution.",
            "Below the dashed line the folds agree better with each other than with the truth. That is expected:"
            " their spread knows the training and not the photon noise, so it must not be quoted as the error of"
            " an answer.",
        )
    return pictures


def _training(run):
    histories = [fold.history for fold in run.folds.values()]
    training, validation = (diagnostics.loss_band(histories, column) for column in ("loss", "val_loss"))
    if training is None:
        return {}
    best = [int(np.argmin(h["val_loss"])) + 1 for h in histories if len(h.get("val_loss", ()))]
    name, label = loss(run)
    extras = among(only_in_training(run))
    ax = figures.loss_curves(training, validation, best, label=label)
    return {
        "loss_curves": Picture(
            ax.figure,
            "Training",
            f"{name} against epoch"
            + (", mean and range over the folds that were still training." if len(histories) > 1 else ".")
            + (" Marks at the foot: the epoch of least validation loss, whose network was kept." if best else ""),
            f"Training loss is taken while weights change{' and with ' + extras if extras else ''}, so it can"
            " lie above validation loss. A validation loss that rises while training loss falls is over-fitting.",
        )
    }
