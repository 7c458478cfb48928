"""Where an observation stands among what a run was trained on, and what its errors hold for, in words."""

from dataclasses import dataclass, field

import numpy as np

INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"
MOST_BINS = 5  # that a sentence names
FAR = 5  # standard deviations of the training depths from which on a depth is called unlike them


@dataclass(frozen=True)
class Standing:
    """What is to be known before an answer is believed.

    Attributes
    ----------
    status : {"inside", "outside", "unknown"}
        Of the observation, among the simulated planets.
    sentences : list of str
        The verdict first.
    numbers : dict
        What it rests on, for ``verdict.yaml``.
    """

    status: str
    sentences: list
    numbers: dict = field(default_factory=dict)


def standing(likeness, level, wavelength, beyond=(), noisy=False, n_planets=0, far=0.0):
    """Say what is known of an observation.

    Parameters
    ----------
    likeness : pipeline.reference.Likeness or None
        None where the run keeps no test spectra, or too few.
    level : pipeline.reference.ErrorLevel or None
    wavelength : ndarray (n_bins,)
        Micron.
    beyond : sequence of str
        AMPs whose answer is beyond every simulated planet's truth.
    noisy : bool
        The simulated spectra hold noise themselves.
    n_planets : int
        Test planets that the errors are made of.
    far : float
        Standard deviations of all training depths by which the furthest bin lies from their mean.

    Returns
    -------
    Standing
    """
    sentences, numbers = [], {"test_planets": int(n_planets)}
    status = UNKNOWN if likeness is None else INSIDE
    far = far if likeness is None or likeness.outside else 0.0  # else the comparison has decided
    if beyond or far > FAR or (likeness is not None and likeness.outside):
        status = OUTSIDE
    if likeness is None:
        why = "this run keeps no test spectra: train it again" if level is None else "this run has too few test planets"
        sentences.append(f"Whether the observation is like the simulated planets is not known ({why}).")
    else:
        sentences.append(_of_distance(likeness, wavelength))
        numbers |= {
            "distance": likeness.distance,
            "test_planets_nearer": likeness.nearer,
            "greatest_pull": likeness.greatest_pull,
            "test_planets_pulled_less": likeness.pulled_less,
            "misfit": likeness.misfit,
            "test_planets_fitted_better": likeness.fitted_better,
            "share_of_bins_beyond_all": likeness.beyond,
            "strange_bins_micron": [float(wavelength[b]) for b in likeness.strange_bins],
        }
    if far > FAR:
        sentences.append(
            f"Its furthest bin lies {far:.0f} standard deviations from the training spectra: the network extrapolates."
        )
        numbers["standard_deviations_from_training"] = float(far)
    if beyond:
        sentences.append(f"The answer for {', '.join(beyond)} is beyond that of every simulated planet.")
        numbers["answers_beyond_simulated"] = list(beyond)
    sentences += _of_errors(level, noisy)
    if level is not None:
        numbers |= {"error_level": level.level, "error_level_trained": [level.least, level.greatest]}
    return Standing(status, sentences, {"status": status, **numbers})


def _of_distance(likeness, wavelength):
    bins, words = likeness.strange_bins, "Bins that stand out from the others"
    if likeness.outside and len(bins) == 0:
        bins, words = (
            np.argsort(-np.abs(likeness.pulls), kind="stable")[:3],
            "No bin stands out alone; furthest off are",
        )
    named = ", ".join(f"{wavelength[b]:.3g} µm ({likeness.pulls[b]:+.1f} σ)" for b in bins[:MOST_BINS])
    named += f" and {len(bins) - MOST_BINS} more" if len(bins) > MOST_BINS else ""
    where = f" {words}: {named}." if named else ""
    if likeness.beyond > 0:
        where += f" {likeness.beyond:.0%} of the bins are deeper or shallower than in any simulated planet."
    far = f"{likeness.nearer:.1%} of {likeness.n} simulated test planets lie nearer to those that are answered alike"
    bin_ = (
        f"{likeness.pulled_less:.1%} have a smaller greatest deviation of a bin, {likeness.fitted_better:.1%} less that"
    )
    bin_ += f" their like does not explain ({likeness.misfit:.2f} times the errors)"
    if likeness.outside:
        return (
            "OUTSIDE of what was trained on: hardly any simulated planet is as unlike the others as this spectrum, and"
            f" neither the answers nor their errors can be relied on. {far}; {bin_}.{where}"
        )
    return f"The spectrum looks like the simulated ones: {far}; {bin_}.{where}"


def _of_errors(level, noisy):
    if level is None:
        return ["The errors of the answers hold for spectra with the noise that the run was tested with."]
    trained = f"its errors are {level.level:.2g} times the median of those trained on ({level.least:.2g} to "
    trained += f"{level.greatest:.2g})"
    if noisy:
        text = "The simulated spectra hold noise themselves: the errors of the answers are for that noise, and "
        return [text + trained + ("; they are not right for this observation." if level.other else ".")]
    if level.other:
        return [
            f"The observation is {'noisier' if level.level > 1 else 'less noisy'} than what was trained on: {trained}."
            " The errors of the answers are measured with its own errors, and hold; but a network trained for them"
            " would answer better."
        ]
    return [f"The errors of the answers are measured on test planets with this observation's errors; {trained}."]
