"""The planet file: a star, and the ranges that the parameters of its planet are drawn from."""

import logging
import math
from dataclasses import dataclass, field
from types import MappingProxyType

from constants import AMPS, GRAVITATIONAL_CONSTANT, JUPITER_MASS, JUPITER_RADIUS
from runio.config import ConfigError, clip, fill, read_yaml, setting, show
from simulation.atmosphere import GRADIENT_RANGE, MILLIBAR

logger = logging.getLogger(__name__)

MAX_METALS = 0.8  # of the mixing ratios of everything but H2 and He together
MAX_OFFSET = 1e5  # ppm
MIN_TEMPERATURE = 100.0  # K, anywhere in an atmosphere
COLDEST_OPACITY, HOTTEST_OPACITY = 450.0, 2500.0  # K: beyond, opacities are those of these temperatures
MEAN_GRADIENT = 0.6  # K by which the mean over log pressure of a profile falls for each K per decade of its gradient
LEAST_SCALE_HEIGHTS = 25  # radius over scale height: an isothermal atmosphere has no top up to 1e-4 Pa below about 23
LONGEST_NAME = 200
GAS_CONSTANT = 3607.0  # J / (kg K), of H2 and He alone (2.305 g/mol)


Range = list[float] | None  # [low, high]; None: this is absent from all planets


@dataclass
class StarConfig:
    """The star: radius in solar radii, temperature in K."""

    radius: float = setting(1.0, low=0.05, high=20)
    temperature: float = setting(5800.0, low=1500, high=15000)


@dataclass
class BodyConfig:
    """Ranges of the planet's mass and radius at 1e6 Pa, of Jupiter's, and of its temperature [K]."""

    mass: list[float] = setting([0.18, 2.0], low=0.005, high=20)
    radius: list[float] = setting([0.8, 1.4], low=0.1, high=3)
    temperature: list[float] = setting([700.0, 2000.0], low=500, high=2500)


@dataclass
class MoleculesConfig:
    """Range of the volume mixing ratio of each molecule or atom; None leaves it out."""

    H2O: Range = setting(None, low=1e-15, high=0.15)
    CH4: Range = setting(None, low=1e-15, high=0.15)
    CO: Range = setting(None, low=1e-15, high=0.15)
    CO2: Range = setting(None, low=1e-15, high=0.15)
    NH3: Range = setting(None, low=1e-15, high=0.15)
    SO2: Range = setting(None, low=1e-15, high=0.15)
    Na: Range = setting(None, low=1e-15, high=1e-2)
    K: Range = setting(None, low=1e-15, high=1e-2)


@dataclass
class HazeConfig:
    """Ranges of a haze: its factor over Rayleigh scattering of H2 at 0.35 micron, its power of the wavelength (-4)."""

    factor: Range = setting(None, low=1e-4, high=1e12)
    slope: Range = setting(None, low=-30, high=5)


@dataclass
class PlanetConfig:
    """Everything that a planet file states."""

    name: str = setting("planet")
    star: StarConfig = field(default_factory=StarConfig)
    planet: BodyConfig = field(default_factory=BodyConfig)
    molecules: MoleculesConfig = field(default_factory=MoleculesConfig)
    clouds: Range = setting(None, low=1e-3, high=1e6)  # pressure of the cloud top, Pa
    cloud_fraction: Range = setting(None, low=0, high=1)  # share of the limb that clouds and haze cover; None: all
    haze: HazeConfig = field(default_factory=HazeConfig)
    # K per decade of pressure from 1 microbar to 1 bar, positive: hotter below; `planet.temperature` is at 1 mbar.
    temperature_gradient: Range = setting(None, low=-500, high=500)
    errors: list[float] = setting([0.8, 1.5], low=0.1, high=10)  # factors of the observation's errors
    # {instrument: standard deviation, ppm} of what is added to its depths; filled by `load_planet`.
    offsets = MappingProxyType({})

    def priors(self):
        """Return {AMP: (unit, scale, (low, high))} of the AMPs to draw, in SI units, in the order of the columns."""
        ranges = {
            **vars(self.molecules),
            "Mp": [value * JUPITER_MASS for value in self.planet.mass],
            "Rp": [value * JUPITER_RADIUS for value in self.planet.radius],
            "Tp": self.planet.temperature,
            "T_gradient": self.temperature_gradient,
            "Pclouds": self.clouds,
            "cloud_fraction": self.cloud_fraction,
            "haze_factor": self.haze.factor,
            "haze_slope": self.haze.slope,
        }
        return {key: (AMPS[key].unit, AMPS[key].scale, tuple(ends)) for key, ends in ranges.items() if ends is not None}


def load_planet(path):
    """Read a planet file, YAML as in ``data/observations/wasp39b.yaml``: a `PlanetConfig`.

    A ConfigError names the file, the key, what was expected and what was received, in one line.
    """
    source = str(path)
    tree = read_yaml(path)
    offsets = tree.pop("offsets", None) if isinstance(tree, dict) else None
    config = fill(PlanetConfig(), tree, source)
    config.offsets = _checked_offsets(offsets, source)

    def refuse(key, expected, received):
        raise ConfigError(f"{source}: {key}: expected {expected}, received {received}")

    if len(config.name) > LONGEST_NAME:  # it is written into the survey when that has been made
        refuse("name", f"at most {LONGEST_NAME} letters", len(config.name))
    for section, names in (("star", ("radius", "temperature")), ("planet", ("mass", "radius", "temperature"))):
        missing = [name for name in names if name not in (tree.get(section) or {})]
        if missing:
            raise ConfigError(f"{source}: {section}.{missing[0]}: expected in the file; missing")
    sections = {"planet": config.planet, "molecules": config.molecules, "haze": config.haze}
    ranges = {f"{part}.{name}": value for part, node in sections.items() for name, value in vars(node).items()}
    ranges |= {key: getattr(config, key) for key in ("clouds", "cloud_fraction", "temperature_gradient", "errors")}
    for key, value in ranges.items():
        same = key == "errors" and len(value) == 2 and value[0] == value[1]  # errors may stay as they are
        if value is not None and not same and (len(value) != 2 or not value[0] < value[1]):
            refuse(key, "[low, high] with low < high", show(value))
    most = [limits[1] for limits in vars(config.molecules).values() if limits]
    if not most:
        refuse("molecules", "the range of at least one", "none")
    if sum(most) > MAX_METALS:
        refuse("molecules", f"upper ends that add up to at most {MAX_METALS}", f"{sum(most):.3g}")
    if config.haze.slope and not config.haze.factor:
        refuse("haze.slope", "haze.factor beside it", "none")
    if config.cloud_fraction and not (config.clouds or config.haze.factor):
        refuse("cloud_fraction", "clouds or haze.factor beside it", "neither")
    _check_temperatures(config, source)
    return config


def _checked_offsets(offsets, source):
    """Return {instrument: ppm}; "100 ppm" is taken for 100."""
    if offsets is None:
        return {}
    where = f"{source}: offsets"
    if not isinstance(offsets, dict) or not offsets:
        raise ConfigError(f"{where}: expected INSTRUMENT: ppm, received {show(offsets)}")
    checked = {}
    for name, value in offsets.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ConfigError(f"{where}: expected the name of an instrument, received {show(name)}")
        try:
            ppm = float(str(value).removesuffix("ppm"))  # "True" is no number
        except ValueError:
            ppm = math.nan
        if not 0 < ppm <= MAX_OFFSET:
            raise ConfigError(
                f"{where}.{clip(name)}: expected ppm, above 0 and at most {MAX_OFFSET:g}, received {show(value)}"
            )
        checked[name.strip()] = ppm
    return checked


def _check_temperatures(config, source):
    """Refuse priors that hold planets colder than the model can be, or whose atmosphere has no top."""
    planet, gradient = config.planet, config.temperature_gradient or [0.0, 0.0]
    decades = math.log10(GRADIENT_RANGE[1] / MILLIBAR)  # as many from 1 mbar up as down
    coldest = planet.temperature[0] - decades * max(abs(value) for value in gradient)
    if coldest < MIN_TEMPERATURE:
        raise ConfigError(
            f"{source}: temperature_gradient: expected no planet colder than {MIN_TEMPERATURE:g} K anywhere, received "
            f"{coldest:.0f} K {decades:g} decades of pressure from 1 mbar"
        )
    hottest = planet.temperature[1] + decades * max(abs(value) for value in gradient)
    if coldest < COLDEST_OPACITY or hottest > HOTTEST_OPACITY:
        logger.warning(
            "%s: temperature_gradient: temperatures from %.0f to %.0f K, opacities are those of %g to %g K beyond",
            source, coldest, hottest, COLDEST_OPACITY, HOTTEST_OPACITY,
        )  # fmt: skip
    radius = planet.radius[1] * JUPITER_RADIUS
    gravity = GRAVITATIONAL_CONSTANT * planet.mass[0] * JUPITER_MASS / radius**2
    mean_temperature = planet.temperature[1] - MEAN_GRADIENT * min(gradient[0], 0.0)
    scale_heights = radius * gravity / (GAS_CONSTANT * mean_temperature)
    if not math.isfinite(scale_heights) or scale_heights < LEAST_SCALE_HEIGHTS:
        raise ConfigError(
            f"{source}: planet: expected a lightest, largest and hottest planet with a radius of at least "
            f"{LEAST_SCALE_HEIGHTS} scale heights, received {scale_heights:.1f}; raise planet.mass or lower "
            "planet.radius or planet.temperature"
        )
