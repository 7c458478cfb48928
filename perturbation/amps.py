"""The table of atmospheric (and planetary) model parameters (AMPs): what a network is trained to return.

Each AMP is learnt in *retrieval space*: log10 for volume mixing ratios, planet mass and cloud-top pressure, linear for
radius and temperature (Yip et al. 2021, Section 3). Look an AMP up by its key ("H2O", "Mp"), never by its plot label.
``constants`` re-exports every name; the table is here so that ``import sensitivity`` needs this package alone.
"""

from dataclasses import dataclass, replace

JUPITER_MASS = 1.898e27  # kg, M_J of figures
JUPITER_RADIUS = 6.9911e7  # m, volumetric mean radius; the equatorial one (7.1492e7 m) is 2.3 % larger
BAR = 1e5  # Pa


@dataclass(frozen=True)
class AMP:
    """One atmospheric model parameter."""

    key: str  # plain name, used in files, settings and code
    label: str  # for plots, may hold LaTeX
    unit: str = ""  # of the linear quantity; empty for a volume mixing ratio
    scale: str = "linear"  # how it is learnt: "log10" or "linear"
    kind: str = "planet"  # or "molecule", which has an absorption signature and may have an abundance cut
    plot_unit: str = ""  # unit shown in figures
    plot_factor: float = 1.0  # linear quantity in ``unit`` divided by this gives ``plot_unit``
    colour: str = "#595959"  # in every figure, colour-blind-safe (Okabe and Ito 2008, extended)

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
        AMP("SO2", r"SO$_2$", scale="log10", kind="molecule", colour="#56B4E9"),
        AMP("Na", "Na", scale="log10", kind="molecule", colour="#999933"),
        AMP("K", "K", scale="log10", kind="molecule", colour="#AA4499"),
        AMP("haze_factor", "haze factor", scale="log10", colour="#44AA99"),
        AMP("haze_slope", "haze slope", colour="#88CCEE"),
        AMP("cloud_fraction", "cloud fraction", colour="#661100"),
        AMP("T_gradient", r"d$T$/dlog $P$", "K", plot_unit="K per decade", colour="#CC6677"),
    )
}

PAPER_AMPS = ("H2O", "CH4", "CO", "CO2", "NH3", "Mp", "Rp", "Tp", "Pclouds")  # the nine of the paper, in its order

# Where each molecule or atom absorbs most strongly between 0.5 and 9 micron: (low, high) of each band, micron.
# Centres of the vibrational bands in studies/molecules.py, widths rounded by eye at R ~ 50.
BANDS = {
    "H2O": ((1.33, 1.50), (1.75, 2.00), (2.45, 3.00), (5.0, 7.5)),
    "CH4": ((1.62, 1.80), (2.15, 2.45), (3.10, 3.65), (7.2, 8.0)),
    "CO": ((2.29, 2.45), (4.40, 5.10)),
    "CO2": ((1.95, 2.10), (2.65, 2.85), (4.15, 4.50)),
    "NH3": ((1.48, 1.56), (1.93, 2.10), (2.15, 2.35), (2.85, 3.15), (5.7, 6.7)),
    "SO2": ((3.94, 4.10), (7.15, 7.55), (8.3, 9.0)),
    "Na": ((0.57, 0.61),),
    "K": ((0.755, 0.785),),
}


def amp(key, unit=None, scale=None):
    """Return the AMP called ``key``, with the unit and scale that a data set states, if it does.

    A key that is not in the table gets a plain label. A known AMP in another unit than the table's is shown in that.
    """
    plain = (unit or "").replace("$", r"\$")  # a dollar sign would begin LaTeX
    known = AMPS.get(key, AMP(key, key.replace("$", r"\$"), plot_unit=plain))
    if unit is not None and unit != known.unit:  # the table's conversion holds for the table's unit only
        known = replace(known, plot_unit=plain, plot_factor=1.0)
    return replace(known, unit=known.unit if unit is None else unit, scale=known.scale if scale is None else scale)


BY_NAME = {text.lower(): amp for amp in AMPS.values() for text in (amp.key, amp.label)}


def find_amp(name):
    """Look an AMP up by key or plot label, in any case; a plain one if the table has none of that name."""
    return name if isinstance(name, AMP) else BY_NAME.get(str(name).strip().lower()) or amp(str(name))
