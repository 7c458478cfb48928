"""Words for how a run was made, for captions and pages; nothing is said that was not recorded."""

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
    """Return the names of what made training spectra harder than validation spectra, as far as it was recorded."""
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


def noise_of_test(run):
    """Say which noise the test spectra had."""
    own = survey_noise(run)
    if own is None:
        return "noisy"
    return "noisy as in the data set" if own else "with noise drawn from their errors"


def map_spectra(run, name):
    """Return "noisy " or "noise-free " for the spectra of the maps of this name; "" where it is not known."""
    own = survey_noise(run)
    noisy = next(one.noisy.get(name) for one in run.networks.values() if getattr(one, name) is not None)
    if own or noisy:
        return "noisy "
    return "" if own is None or noisy is None else "noise-free "


def draws(one):
    """Say how the mean of a map was taken: by random repeats, or by quadrature."""
    return f"{one.nodes} nodes of quadrature ({one.rule})" if one.nodes else f"{one.repeat} repeats"


def span(values):
    """Return whole numbers as "30", or as "12 to 30" where they differ."""
    values = [int(v) for v in values]
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def among(names):
    """Return names as "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def why_below(run):
    """Say why the validation loss of a run can lie below its training loss."""
    extras = among(only_in_training(run))
    text = "Training loss is an average over an epoch in which the weights still change"
    text += f", with {extras}" if extras else ""
    text += ", on spectra with fresh noise" if setting(run, "training.noise") == "fresh" else ""
    if setting(run, "training.average_epochs"):
        text += "; validation loss is that of averaged weights"
    return text + "."
