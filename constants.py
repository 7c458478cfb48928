"""Names, units and random streams that every package uses. The table of AMPs is in ``perturbation/amps.py``."""

import enum

import numpy as np

from perturbation import __version__ as VERSION  # noqa: F401
from perturbation.amps import AMP, AMPS, BANDS, JUPITER_MASS, JUPITER_RADIUS, PAPER_AMPS, amp  # noqa: F401

SUN_RADIUS = 6.957e8  # m
GRAVITATIONAL_CONSTANT = 6.6743e-11  # m3 / (kg s2)

NETWORKS = ("mlp", "cnn", "lstm", "hybrid")  # Yip et al. 2021, Section 3

DATA_FORMATS = {  # name in config.yaml: what a user's file or folder must hold
    "challenge": "a folder with SpectralData.hdf5, AuxillaryTable.csv and Ground Truth Package/ "
    "(Ariel Data Challenge 2022 or 2023, ABC level 2)",
    "abc1": "a folder with observations.hdf5 and all_data.csv (ABC level 1)",
    "paper": "spectra.npy (N, 3, n_bins) and a CSV of the AMPs in one folder",
    "hela": "a JSON with metadata, training_data and testing_data (HELA)",
    "hdf5": "an HDF5 file with /spectra, /errors, /wavelength and /amps",
}


@enum.unique
class Stream(enum.IntEnum):
    """The random streams of a run and of the studies, by name: each kind of draw has its own.

    The comment behind a name lists the keys of its streams. A number must never change, or a seed gives other results.
    """

    TEST_SPLIT = 1  # which spectra are tested
    FOLD_ORDER = 2  # in which order spectra are dealt out to K folds
    FOLD_SPLIT = 3  # validation spectra of a random fold: fold
    WEIGHTS = 4  # initial weights and the layers' own seeds: fold
    DROPOUT = 5  # fold, epoch, layer
    TRAINING = 6  # order and fresh noise of an epoch: fold, epoch
    FIXED_NOISE = 7  # noise of a copy that stays: fold, copy
    VALIDATION_NOISE = 8  # fold
    TEST_NOISE = 9
    SENSITIVITY = 10  # the sensitivity test: fold, or the number of folds for their mean
    OBSERVATION_NOISE = 11
    STUDY_PLANETS = 20  # test spectra that a study looks at: number of the choice
    STUDY_NOISE = 21  # noise on the training spectra of other estimators: fold
    STUDY_MAPS = 22  # explanations that are compared: number of the explanation
    CORRUPTION = 23  # corrupted test spectra of the faithfulness study
    NESTED_SAMPLING = 24  # planet
    REWEIGHTING = 25  # planet
    BOOTSTRAP = 26
    EMULATOR = 27


def stream(seed, name, *key):
    """Return the ``numpy.random.SeedSequence`` of the run's seed, a `Stream` and a key: the fold, the epoch and so on.

    Streams of other names, keys, lengths of key or seeds share no numbers, whereas the streams of ``[seed]``,
    ``[seed, 0]`` and ``[seed, 0, 0]``, to NumPy, are one.
    """
    return np.random.SeedSequence(seed, spawn_key=(Stream(name), *key))
