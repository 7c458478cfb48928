"""Words of the captions that depend on what a run did. They are made from its settings and results, never assumed."""

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
