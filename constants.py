"""Names, units and colours used everywhere: the table of atmospheric (and planetary) model parameters.

An AMP is what a network is trained to return. Each is learnt in *retrieval space*: log10 for volume
mixing ratios, planet mass and cloud-top pressure, linear for radius and temperature
(Yip et al. 2021, Section 3). Look an AMP up by its key ("H2O", "Mp"), never by its plot label.
"""

import enum
from dataclasses import dataclass, replace

import numpy as np

VERSION = "0.2.0"

JUPITER_MASS = 1.898e27  # kg, M_J of figures
JUPITER_RADIUS = 6.9911e7  # m, volumetric mean radius; the equatorial one (7.1492e7 m) is 2.3 % larger
SUN_RADIUS = 6.957e8  # m
GRAVITATIONAL_CONSTANT = 6.6743e-11  # m3 / (kg s2)
BAR = 1e5  # Pa

NETWORKS = ("mlp", "cnn", "lstm", "hybrid")  # Yip et al. 2021, Section 3

DATA_FORMATS = {  # name in config.yaml: what a user's file or folder must hold
    "challenge": "a folder with SpectralData.hdf5, AuxillaryTable.csv and Ground Truth Package/ "
    "(Ariel Data Challenge 2022 or 2023, ABC level 2)",
    "abc1": "a folder with observations.hdf5 and all_data.csv (ABC level 1)",
    "paper": "spectra.npy (N, 3, n_bins) and a CSV of the AMPs in one folder",
    "hela": "a JSON with metadata, training_data and testing_data (HELA)",
    "hdf5": "an HDF5 file with /spectra, /errors, /wavelength and /amps",
}


@dataclass(frozen=True)
class AMP:
    """One atmospheric model parameter.

    Attributes
    ----------
    key : str
        Plain name, used in files, configuration and code.
    label : str
        Name for plots (may hold LaTeX).
    unit : str
        Unit of the linear quantity; empty for a volume mixing ratio.
    scale : {"log10", "linear"}
        How the linear quantity is learnt.
    kind : {"molecule", "planet"}
        A molecule has an absorption signature of its own and an abundance cut; a planet parameter has none.
    plot_unit : str
        Unit shown in figures.
    plot_factor : float
        Linear quantity in ``unit`` divided by this gives ``plot_unit``.
    colour : str
        Colour-blind-safe colour of the AMP in every figure (Okabe and Ito 2008, extended).
    """

    key: str
    label: str
    unit: str = ""
    scale: str = "linear"
    kind: str = "planet"
    plot_unit: str = ""
    plot_factor: float = 1.0
    colour: str = "#595959"

    @property
    def retrieval_unit(self):
        """Unit of the AMP in retrieval space, as printed beside numbers."""
        if self.scale == "log10":
            return f"dex({self.unit})" if self.unit else "dex"
        return self.unit


AMPS = {
    amp.key: amp
    for amp in (
        AMP("H2O", r"H$_2$O", scale="log10", kind="molecule", colour="#0072B2"),
        AMP("CH4", r"CH$_4$", scale="log10", kind="molecule", colour="#E69F00"),
        AMP("CO", "CO", scale="log10", kind="molecule", colour="#D55E00"),
        AMP("CO2", r"CO$_2$", scale="log10", kind="molecule", colour="#009E73"),
        AMP("NH3", r"NH$_3$", scale="log10", kind="molecule", colour="#CC79A7"),
        AMP("Mp", r"$M_\mathrm{p}$", "kg", "log10", plot_unit=r"$M_\mathrm{J}$", plot_factor=JUPITER_MASS),
        AMP("Rp", r"$R_\mathrm{p}$", "m", plot_unit=r"$R_\mathrm{J}$", plot_factor=JUPITER_RADIUS, colour="#332288"),
        AMP("Tp", r"$T_\mathrm{p}$", "K", plot_unit="K", colour="#882255"),
        AMP("Pclouds", r"$P_\mathrm{clouds}$", "Pa", "log10", plot_unit="bar", plot_factor=BAR, colour="#117733"),
    )
}

PAPER_AMPS = tuple(AMPS)  # the paper's order: H2O, CH4, CO, CO2, NH3, Mp, Rp, Tp, Pclouds

# Where each molecule absorbs most strongly between 0.5 and 8 micron: (low, high) of each band, micron.
# Band centres of the vibrational bands listed in data/README.md, widths rounded by eye at R ~ 50.
BANDS = {
    "H2O": ((1.33, 1.50), (1.75, 2.00), (2.45, 3.00), (5.0, 7.5)),
    "CH4": ((1.62, 1.80), (2.15, 2.45), (3.10, 3.65), (7.2, 8.0)),
    "CO": ((2.29, 2.45), (4.40, 5.10)),
    "CO2": ((1.95, 2.10), (2.65, 2.85), (4.15, 4.50)),
    "NH3": ((1.48, 1.56), (1.93, 2.10), (2.15, 2.35), (2.85, 3.15), (5.7, 6.7)),
}


def amp(key, unit=None, scale=None):
    """Return the AMP called ``key``, with the unit and scale that a data set states, if it does.

    A key that is not in the table is carried through as it is: plain label, linear unless stated. A known
    AMP in another unit than the table's is shown in that unit.
    """
    plain = (unit or "").replace("$", r"\$")  # a dollar sign would begin LaTeX
    known = AMPS.get(key, AMP(key, key.replace("$", r"\$"), plot_unit=plain))
    if unit is not None and unit != known.unit:  # the table's conversion holds for the table's unit only
        known = replace(known, plot_unit=plain, plot_factor=1.0)
    return replace(
        known,
        unit=known.unit if unit is None else unit,
        scale=known.scale if scale is None else scale,
    )


@enum.unique
class Stream(enum.IntEnum):
    """The random streams of a run and of the studies, by name: whatever is drawn has one of its own.

    Behind a name stands what else a stream goes by. The numbers stay: with others, a seed would give other results.
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
    """Return the random stream of a name as a ``numpy.random.SeedSequence``.

    Streams of other names, keys, lengths of key or seeds share no numbers, whereas the streams of ``[seed]``,
    ``[seed, 0]`` and ``[seed, 0, 0]``, to NumPy, are one.

    Parameters
    ----------
    seed : int
        Of the run, not negative.
    name : Stream
    *key : int
        What tells streams of one name apart: the fold, the epoch and so on, not negative.
    """
    return np.random.SeedSequence(seed, spawn_key=(Stream(name), *key))
