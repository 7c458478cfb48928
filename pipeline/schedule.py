"""The learning rate of each step of a training, and when it stops."""

import math

import numpy as np

REFERENCE_BATCH = 64  # training.lr is the learning rate for batches of this size
HIGH_RATE = 0.0035  # for batches of 64; above it the rate grows with the fourth root of lr, or the radius gets worse
LEAST_TRAVEL = 6.0  # steps times peak rate that a training needs: 12 epochs with a quarter of it lose 0.04 in R2
FEW_STEPS = 1000  # with fewer, more epochs help more than any other setting
FEW_SPECTRA, MAX_COPIES = 10_000, 4  # copies: auto: passes of an epoch over a small training set


def passes(settings, n_train):
    """Return how often an epoch shows each training spectrum (``copies``; auto: more often if they are few)."""
    return min(-(-FEW_SPECTRA // n_train), MAX_COPIES) if settings.copies == "auto" else settings.copies


def steps_per_epoch(settings, n_train):
    """Return the number of batches in an epoch of so many training spectra."""
    return -(-n_train * passes(settings, n_train) // settings.batch_size)


def peak_rate(settings, steps):
    """Return the highest learning rate, for ``steps`` batches in an epoch.

    ``lr`` is meant for batches of 64. The noise of a gradient falls with the root of the batch size, and Adam's steps
    may grow by as much. With a cosine the rate is raised where ``lr`` is too low for so few steps (see `LEAST_TRAVEL`),
    and lowered where it is above `HIGH_RATE`. Both are gradual, so that a higher ``lr`` is always a higher rate.
    """
    growth = math.sqrt(settings.batch_size / REFERENCE_BATCH)
    peak = settings.lr * growth
    if settings.schedule == "cosine":
        least = LEAST_TRAVEL / (steps * settings.epochs)
        peak *= max(least / peak, 1.0) ** 0.8
        peak *= max(peak / (HIGH_RATE * growth), 1.0) ** -0.75
    return peak


def rate_note(settings, n_train):
    """Return a line about the learning rate of a training with so many spectra, and about too few steps."""
    steps = steps_per_epoch(settings, n_train)
    peak, total = peak_rate(settings, steps), steps * settings.epochs
    line = (
        f"{total} steps at a learning rate of up to {peak:.3g} (training.lr = {settings.lr:g} is for batches of "
        f"{REFERENCE_BATCH})"
    )
    return line + ("; so few steps leave the network unfinished: more epochs help" if total < FEW_STEPS else "")


def learning_rate(step, steps, val_losses, settings, peak):
    """Return the learning rate of a step (counted from 0 over all epochs), for ``steps`` in an epoch.

    It rises linearly to ``peak`` over ``warmup_epochs``. With ``schedule: cosine`` it falls to ``min_lr`` along half a
    cosine (Loshchilov & Hutter 2017, arXiv:1608.03983). With ``plateau`` it is multiplied by ``plateau_factor`` each
    time the validation loss of the finished epochs has not improved for ``plateau_patience`` epochs (0: constant).
    """
    floor, rate = min(settings.min_lr, peak), peak
    if settings.schedule == "cosine":
        rate = floor + (peak - floor) * (1 + math.cos(math.pi * step / (steps * settings.epochs))) / 2
    elif settings.plateau_patience:
        waited = 0
        for improved in _improvements(val_losses, settings.min_improvement):
            waited = 0 if improved else waited + 1
            if waited >= settings.plateau_patience:
                rate, waited = max(rate * settings.plateau_factor, floor), 0
    return rate * min(1.0, (step + 1) / max(1, settings.warmup_epochs * steps))


def should_stop(val_losses, settings):
    """Say whether the last epoch that improved lies ``stop_patience`` epochs back; never with 0 or a cosine."""
    improved = _improvements(val_losses, settings.min_improvement)
    patience = settings.stop_patience if settings.schedule == "plateau" else 0
    return 0 < patience < len(improved) and not any(improved[-patience:])


def _improvements(val_losses, least):
    """Say for each epoch whether its loss is below the best one before by more than the fraction ``least``."""
    best, improved = np.inf, []
    for loss in val_losses:
        improved.append(best == np.inf or loss < best - least * abs(best))
        best = loss if improved[-1] else best
    return improved
