"""What a survey is of: bins, errors, star and priors. `ARIEL` is the shipped one; an observation makes another."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field

import numpy as np

from constants import AMPS, GRAVITATIONAL_CONSTANT, JUPITER_MASS, JUPITER_RADIUS, SUN_RADIUS
from runio.config import ConfigError, fill, read_yaml, setting, show
from simulation.ariel import AIRS_NOISE_RANGE, NOISE_FLOOR, STAR_TEMPERATURE, ariel_grid, noise

# One row per AMP, in the paper's order: key, unit of the linear quantity, scale, prior as (low, high) in that unit.
# A log10 AMP is log-uniform, a linear one uniform.
PRIORS = {
    "H2O": ("", "log10", (1e-7, 1e-3)),
    "CH4": ("", "log10", (1e-8, 1e-3)),
    "CO": ("", "log10", (3e-5, 1e-2)),
    "CO2": ("", "log10", (1e-8, 1e-3)),
    "NH3": ("", "log10", (1e-7, 1e-3)),
    "Mp": ("kg", "log10", (0.18 * JUPITER_MASS, 2.0 * JUPITER_MASS)),
    "Rp": ("m", "linear", (0.8 * JUPITER_RADIUS, 1.4 * JUPITER_RADIUS)),
    "Tp": ("K", "linear", (700.0, 2000.0)),
    "Pclouds": ("Pa", "log10", (1e3, 1e6)),
}
# Planet of the single-molecule curves, in retrieval space: 1 M_J, 1.2 R_J, 1500 K, no cloud above 1e6 Pa.
REFERENCE_PLANET = (-4.0, -4.0, -4.0, -4.0, -4.0, np.log10(JUPITER_MASS), 1.2 * JUPITER_RADIUS, 1500.0, 6.0)

ABSENT = {**dict.fromkeys(("H2O", "CH4", "CO", "CO2", "NH3"), -np.inf), "Pclouds": 6.0}  # of what a design leaves out
ERROR_STEP = 2.0**-27  # 0.0075 ppm: errors are rounded to multiples of this


@dataclass(frozen=True)
class Design:
    """The bins, errors, star and priors of a survey.

    Attributes
    ----------
    title : str
    edges : ndarray (n_bins, 2)
        Lower and upper edge of each bin [micron], by ascending centre; gaps and overlaps are allowed.
    priors : dict
        {AMP: (unit, scale, (low, high))} of the AMPs that are drawn, in the paper's order. A molecule that is missing
        is absent from all planets, and so are clouds.
    star_radius : float
        In solar radii of 6.957e8 m.
    star_temperature : float
        In K.
    reference : tuple of 9 float
        Planet of the single-molecule curves, in retrieval space.
    errors : ndarray (n_bins,) or None
        1-sigma errors of an observation, dimensionless; None takes those of `simulation.ariel.noise`.
    error_scale : (float, float)
        The errors are multiplied by a number that is log-uniform between these.
    sources : dict of str to str
        Further attributes of the file: what the design was made from.
    """

    title: str
    edges: np.ndarray
    priors: dict
    star_radius: float
    star_temperature: float
    reference: tuple
    errors: np.ndarray | None = None
    error_scale: tuple = (1.0, 1.0)
    sources: dict = field(default_factory=dict)

    @property
    def wavelength(self):
        """Bin centres (n_bins,) [micron]."""
        return self.edges.mean(axis=1)

    @property
    def bin_width(self):
        """Full widths (n_bins,) [micron]."""
        return self.edges[:, 1] - self.edges[:, 0]

    def identity(self):
        """Short hash of everything that decides the numbers, for resuming."""
        values = dataclasses.asdict(self)
        del values["title"], values["sources"]
        text = json.dumps(values, default=lambda array: array.tolist())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def limits(self):
        """Prior limits in retrieval space, two arrays (n_amps,)."""
        limits = [np.log10(limit) if scale == "log10" else np.array(limit) for _, scale, limit in self.priors.values()]
        return np.array(limits).T

    def draw_amps(self, n, seed, start=0):
        """Draw the AMPs of planets `start` to `start + n - 1`, (n, n_amps) in retrieval space, exact in float32."""
        low, high = self.limits()
        columns = [list(PRIORS).index(key) for key in self.priors]
        amps = low + (high - low) * _uniforms(n, seed, start)[:, columns]
        return amps.astype(np.float32).astype(np.float64)

    def all_amps(self, amps):
        """Fill in what this design leaves out: (n, n_amps) to (n, 9), as the forward model takes them."""
        columns = dict(zip(self.priors, np.asarray(amps).T, strict=True))
        return np.column_stack([columns.get(key, np.full(len(amps), ABSENT.get(key))) for key in PRIORS])

    def draw_errors(self, n, seed, start=0):
        """Draw the 1-sigma error of each bin for planets `start` to `start + n - 1`: (n, n_bins), dimensionless."""
        low, high = np.log10(AIRS_NOISE_RANGE if self.errors is None else self.error_scale)
        scale = 10 ** (low + (high - low) * _uniforms(n, seed, start)[:, 9])
        errors = noise(scale) if self.errors is None else scale[:, None] * self.errors
        return np.maximum(np.round(errors / ERROR_STEP), 1) * ERROR_STEP

    def bare_depth(self, radius):
        """Transit depth of planets of a `radius` [m] without their atmospheres."""
        return (radius / (self.star_radius * SUN_RADIUS)) ** 2

    def noise_text(self):
        """Say what the errors are, for the file."""
        if self.errors is not None:
            low, high = self.error_scale
            return f"the observation's own errors times {low:g} to {high:g} (log-uniform over planets)"
        return (
            f"photon noise of the star scaled to a median of {AIRS_NOISE_RANGE[0]:g}-{AIRS_NOISE_RANGE[1]:g} ppm "
            f"(log-uniform over planets) in the AIRS bins, {NOISE_FLOOR:g} ppm floor in quadrature"
        )


def _uniforms(n, seed, start):
    """Uniform numbers in [0, 1), one row per planet (N, 10): nine AMPs and the noise level."""
    return np.array([np.random.default_rng((seed, i)).random(10) for i in range(start, start + n)]).reshape(n, 10)


ARIEL = Design(
    title="Transmission spectra of H2/He planets on an Ariel-Tier-2-like grid",
    edges=ariel_grid()[2],
    priors=PRIORS,
    star_radius=1.0,
    star_temperature=STAR_TEMPERATURE,
    reference=REFERENCE_PLANET,
)


def resolution_text(edges):
    """Say how the bins compare with the opacities that the repository ships.

    Parameters
    ----------
    edges : ndarray (n_bins, 2)
        In micron.

    Returns
    -------
    text : str
    too_fine : int
        Number of bins finer than the opacities are resolved.
    """
    from simulation.kdistribution import KDistributions
    from simulation.opacities import PART_RESOLUTION

    middle, width = edges.mean(axis=1), edges[:, 1] - edges[:, 0]
    cells = KDistributions.load().edges  # micron, ascending
    cell = np.clip(np.searchsorted(cells, middle) - 1, 0, len(cells) - 2)
    narrow = int((width < np.diff(cells)[cell]).sum())
    too_fine = int((middle / width > PART_RESOLUTION).sum())
    text = (
        f"opacities are resolved to R = {PART_RESOLUTION}: {too_fine} of {len(edges)} bins are finer "
        f"(finest R = {(middle / width).max():.0f}); {narrow} are narrower than their cell of the line lists, "
        "where a band model says how absorption is spread within the cell (data/README.md)"
    )
    return text, too_fine


MOLECULES = tuple(key for key, amp in AMPS.items() if amp.kind == "molecule")
LEAST_SCALE_HEIGHTS = 25  # radius over scale height: an isothermal atmosphere has no top up to 1e-4 Pa below about 23
LONGEST_NAME = 200
GAS_CONSTANT = 3607.0  # J / (kg K), of H2 and He alone (2.305 g/mol)


@dataclass
class StarConfig:
    """The star."""

    radius: float = setting(1.0, low=0.05, high=20)
    temperature: float = setting(5800.0, low=1500, high=15000)


@dataclass
class BodyConfig:
    """Ranges of the planet's mass, radius and temperature."""

    mass: list[float] = setting([0.18, 2.0], low=0.005, high=20)
    radius: list[float] = setting([0.8, 1.4], low=0.1, high=3)
    temperature: list[float] = setting([700.0, 2000.0], low=500, high=2500)


@dataclass
class MoleculesConfig:
    """Range of the volume mixing ratio of each molecule; None leaves it out."""

    H2O: list[float] | None = setting(None, low=1e-15, high=0.15)
    CH4: list[float] | None = setting(None, low=1e-15, high=0.15)
    CO: list[float] | None = setting(None, low=1e-15, high=0.15)
    CO2: list[float] | None = setting(None, low=1e-15, high=0.15)
    NH3: list[float] | None = setting(None, low=1e-15, high=0.15)


@dataclass
class PlanetConfig:
    """Everything that a planet file states.

    Attributes
    ----------
    name : str
    star : StarConfig
        Radius in solar radii, temperature in K.
    planet : BodyConfig
        Each [low, high]: mass in Jupiter masses, radius at 1e6 Pa in Jupiter radii, temperature in K.
    molecules : MoleculesConfig
        Each [low, high] in volume mixing ratio, or None.
    clouds : list of two float, or None
        Cloud-top pressure in Pa; None for planets without clouds.
    errors : list of two float
        The errors of the observation are multiplied by a number between these.
    """

    name: str = setting("planet")
    star: StarConfig = field(default_factory=StarConfig)
    planet: BodyConfig = field(default_factory=BodyConfig)
    molecules: MoleculesConfig = field(default_factory=MoleculesConfig)
    clouds: list[float] | None = setting(None, low=1e-3, high=1e6)
    errors: list[float] = setting([0.8, 1.5], low=0.1, high=10)

    def priors(self):
        """Return {AMP: (unit, scale, (low, high))} of the AMPs to draw, in SI units, in the paper's order."""
        ranges = {name: getattr(self.molecules, name) for name in MOLECULES}
        ranges["Mp"] = [value * JUPITER_MASS for value in self.planet.mass]
        ranges["Rp"] = [value * JUPITER_RADIUS for value in self.planet.radius]
        ranges |= {"Tp": self.planet.temperature, "Pclouds": self.clouds}
        return {key: (AMPS[key].unit, AMPS[key].scale, tuple(ranges[key])) for key in AMPS if ranges[key] is not None}


def load_planet(path):
    """Read a planet file.

    Parameters
    ----------
    path : path-like
        YAML as in ``data/observations/wasp39b.yaml``.

    Returns
    -------
    PlanetConfig

    Raises
    ------
    ConfigError
        With one line that names the file, the key, what was expected and what was received.
    """
    source = str(path)
    tree = read_yaml(path)
    config = fill(PlanetConfig(), tree, source)
    if len(config.name) > LONGEST_NAME:  # it is written into the survey when that has been made
        raise ConfigError(f"{source}: name: expected at most {LONGEST_NAME} letters, received {len(config.name)}")
    for section, names in (("star", ("radius", "temperature")), ("planet", ("mass", "radius", "temperature"))):
        missing = [name for name in names if name not in (tree.get(section) or {})]
        if missing:
            raise ConfigError(f"{source}: {section}.{missing[0]}: expected in the file; missing")
    ranges = {f"planet.{name}": value for name, value in vars(config.planet).items()}
    ranges |= {f"molecules.{name}": value for name, value in vars(config.molecules).items()}
    ranges |= {"clouds": config.clouds, "errors": config.errors}
    for key, value in ranges.items():
        same = key == "errors" and len(value) == 2 and value[0] == value[1]  # errors may stay as they are
        if value is not None and not same and (len(value) != 2 or not value[0] < value[1]):
            raise ConfigError(f"{source}: {key}: expected [low, high] with low < high, received {show(value)}")
    if all(value is None for value in vars(config.molecules).values()):
        raise ConfigError(f"{source}: molecules: expected the range of at least one, received none")
    _check_extent(config.planet, source)
    return config


def _check_extent(planet, source):
    """Refuse priors that hold planets whose isothermal atmosphere has no top."""
    radius = planet.radius[1] * JUPITER_RADIUS
    gravity = GRAVITATIONAL_CONSTANT * planet.mass[0] * JUPITER_MASS / radius**2
    scale_heights = radius * gravity / (GAS_CONSTANT * planet.temperature[1])
    if not math.isfinite(scale_heights) or scale_heights < LEAST_SCALE_HEIGHTS:
        raise ConfigError(
            f"{source}: planet: expected a lightest, largest and hottest planet with a radius of at least "
            f"{LEAST_SCALE_HEIGHTS} scale heights, received {scale_heights:.1f}; raise planet.mass or lower "
            "planet.radius or planet.temperature"
        )
