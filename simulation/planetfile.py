"""The planet file: a star, and the ranges that the parameters of its planet are drawn from."""

import math
from dataclasses import dataclass, field

from constants import AMPS, GRAVITATIONAL_CONSTANT, JUPITER_MASS, JUPITER_RADIUS
from runio.config import ConfigError, fill, read_yaml, setting, show

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
