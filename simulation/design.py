"""What a survey is of: bins, errors, star and priors. `ARIEL` is the shipped one; an observation makes another."""

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass, field

import numpy as np

from constants import AMPS, BANDS, JUPITER_MASS, JUPITER_RADIUS, SUN_RADIUS
from loaders.observation import read_observation
from runio.log import InputError, as_input_error
from simulation.ariel import AIRS_NOISE_RANGE, NOISE_FLOOR, STAR_TEMPERATURE, ariel_grid, noise
from simulation.kdistribution import KDistributions
from simulation.opacities import PART_RESOLUTION
from simulation.planetfile import PlanetConfig, load_planet

logger = logging.getLogger(__name__)

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

REFERENCE_RATIO = {"Na": 1e-6, "K": 1e-6}  # mixing ratio of the single-molecule curves; 1e-4 of all others
CLEAR, HAZE_FREE = 6.0, -10.0  # log10 of the cloud top [Pa] and of the haze's factor that have no visible effect
# Which of a planet's random numbers belongs to which parameter: a further parameter leaves the others unchanged.
DRAWS = (*PRIORS, "noise", "SO2", "Na", "K", "haze_factor", "haze_slope", "cloud_fraction", "T_gradient")
OFFSET_STREAM = 1  # of the offsets of a planet's instruments
ERROR_STEP = 2.0**-27  # 0.0075 ppm: errors are rounded to multiples of this


@dataclass(frozen=True)
class Design:
    """The bins, errors, star and priors of a survey."""

    title: str
    edges: np.ndarray  # (n_bins, 2) of each bin [micron], by ascending centre; gaps and overlaps are allowed
    # {AMP: (unit, scale, (low, high))} of the AMPs that are drawn, in the order of the file's columns. What is missing
    # is absent from all planets (`simulation.forward_model.ABSENT`).
    priors: dict
    star_radius: float  # solar radii of 6.957e8 m
    star_temperature: float  # K
    reference: tuple  # planet of the single-molecule curves, in retrieval space, in the order of `priors`
    errors: np.ndarray | None = None  # (n_bins,) of an observation; None takes those of `simulation.ariel.noise`
    error_scale: tuple = (1.0, 1.0)  # the errors are multiplied by a number that is log-uniform between these
    # {instrument: (standard deviation, bins (n_bins,) of bool)} of what is added to all depths of an instrument.
    offsets: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)  # further attributes of the file: what the design was made from

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
        amps = low + (high - low) * _uniforms(self.priors, n, seed, start)
        return amps.astype(np.float32).astype(np.float64)

    def draw_errors(self, n, seed, start=0):
        """Draw the 1-sigma error of each bin for planets `start` to `start + n - 1`: (n, n_bins), dimensionless."""
        low, high = np.log10(AIRS_NOISE_RANGE if self.errors is None else self.error_scale)
        scale = 10 ** (low + (high - low) * _uniforms(["noise"], n, seed, start)[:, 0])
        errors = noise(scale) if self.errors is None else scale[:, None] * self.errors
        return np.maximum(np.round(errors / ERROR_STEP), 1) * ERROR_STEP

    def draw_offsets(self, n, seed, start=0):
        """Draw what is added to the depths of each instrument, (n, n_offsets); other arguments as of `draw_amps`."""
        if not self.offsets:
            return np.empty((n, 0))
        size = np.array([size for size, _ in self.offsets.values()])
        rows = [
            np.random.default_rng((seed, i, OFFSET_STREAM)).standard_normal(len(size)) for i in range(start, start + n)
        ]
        return np.reshape(rows, (n, len(size))) * size

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


def _uniforms(keys, n, seed, start):
    """Uniform numbers in [0, 1) for some of DRAWS, one row per planet (n, len(keys))."""
    columns = [DRAWS.index(key) for key in keys]
    draws = [np.random.default_rng((seed, i)).random(len(DRAWS)) for i in range(start, start + n)]
    return np.reshape(draws, (n, len(DRAWS)))[:, columns]


ARIEL = Design(
    title="Transmission spectra of H2/He planets on an Ariel-Tier-2-like grid",
    edges=ariel_grid()[2],
    priors=PRIORS,
    star_radius=1.0,
    star_temperature=STAR_TEMPERATURE,
    reference=REFERENCE_PLANET,
)


def survey_design(observation, planet, depth_unit="auto", width="auto", columns="auto"):
    """Return the `Design` of a survey for an observation: its bins and errors, star and priors of its planet file.

    `observation` is a table for `loaders.observation.read_observation`, whose arguments are the others. An InputError
    says which file cannot be used, and why.
    """
    return seen_and_design(observation, planet, depth_unit, width, columns)[1]


def seen_and_design(observation, planet, depth_unit="auto", width="auto", columns="auto"):
    """Return the observation that a survey is made for, read once, and the `Design`; arguments of `survey_design`."""
    config = load_planet(planet)
    with as_input_error():
        seen = read_observation(observation, depth_unit, width, columns)
    seen = dataclasses.replace(seen, planet="" if config.name == PlanetConfig().name else config.name)
    if seen.bin_width is None:
        raise InputError(
            f"{seen.name}: one bin and no width, expected a column of widths: a survey needs the edges of the bins"
        )
    edges = np.column_stack([seen.wavelength - seen.bin_width / 2, seen.wavelength + seen.bin_width / 2])
    _check_covered(edges, seen.name)
    text, too_fine = resolution_text(edges)
    logger.log(logging.WARNING if too_fine else logging.INFO, "%s: %s", seen.name, text)
    design = Design(
        title=f"Transmission spectra of planets like {config.name}, on the bins of an observation",
        edges=edges,
        priors=config.priors(),
        star_radius=config.star.radius,
        star_temperature=config.star.temperature,
        reference=_reference(config),
        errors=seen.error,
        error_scale=tuple(config.errors),
        offsets=_instrument_offsets(config.offsets, seen, planet),
        sources={"observation": seen.name, "planet": str(planet), "resolution": text},
    )
    _warn_if_out_of_reach(design, seen)
    _warn_if_unseen(design, planet)
    return seen, design


def _check_covered(edges, name):
    """Refuse bins outside of the opacities."""
    first, last = KDistributions.load().edges[[0, -1]]
    outside = (edges[:, 0] < first) | (edges[:, 1] > last)
    if outside.any():
        low, high = edges[outside][0]
        raise InputError(
            f"{name}: {outside.sum()} of {len(edges)} bins lie outside of the opacities, the first from "
            f"{low:.4g} to {high:.4g} micron; expected bins within {first:.2f} to {last:.2f} micron"
        )


def _reference(config):
    """Return the planet of the single-molecule curves: the middle of the priors, without clouds and haze."""
    middle = {"Pclouds": CLEAR, "haze_factor": HAZE_FREE}
    for key, (_, scale, limits) in config.priors().items():
        if AMPS[key].kind == "molecule":
            middle[key] = float(np.log10(REFERENCE_RATIO.get(key, 1e-4)))
        elif key not in middle:
            middle[key] = float(np.mean(np.log10(limits) if scale == "log10" else limits))
    return tuple(middle[key] for key in config.priors())


def _instrument_offsets(offsets, seen, planet):
    """Return `Design.offsets`: a name means all instruments of the table that begin with it, in any case."""
    found, taken = {}, np.zeros(len(seen.wavelength), bool)
    for name, ppm in offsets.items():
        names = [] if seen.instrument is None else [str(one).lower() for one in seen.instrument]
        bins = np.array([f"{one} ".startswith(f"{name.lower()} ") for one in names], bool)
        if not bins.any():
            there = ", ".join(dict.fromkeys(map(str, seen.instrument))) if names else "no column of instruments"
            logger.warning("%s: offsets.%s: left out, no such instrument in %s: %s", planet, name, seen.name, there)
            continue
        if (bins & taken).any():
            raise InputError(f"{planet}: offsets.{name}: expected each instrument once")
        taken |= bins
        found[name] = (ppm * 1e-6, bins)
    if found and taken.all():
        logger.warning(
            "%s: offsets of all instruments: a shift of all depths cannot be distinguished from the radius", planet
        )
    return found


def _warn_if_unseen(design, planet):
    """Warn of molecules and atoms none of whose bands is seen by any bin."""
    for name in design.priors:
        bands = BANDS.get(name, ())
        if bands and not any(((design.edges[:, 0] < high) & (design.edges[:, 1] > low)).any() for low, high in bands):
            logger.warning(
                "%s: molecules.%s: no bin lies in its bands (%s micron), so the spectrum says little about it",
                planet, name, ", ".join(f"{low:g}-{high:g}" for low, high in bands),
            )  # fmt: skip


def _warn_if_out_of_reach(design, seen):
    """Warn where no planet of the priors is as large as the observed one, or all are larger."""
    smallest, largest = design.bare_depth(np.array(design.priors["Rp"][2]))
    depth = float(np.median(seen.depth))
    if not smallest < depth < 2 * largest:
        logger.warning(
            "%s: its median depth is %.4g, but planets without an atmosphere have %.4g to %.4g with planet.radius and "
            "star.radius of the planet file; are they right?",
            seen.name, depth, smallest, largest,
        )  # fmt: skip


def resolution_text(edges):
    """Say how bins with `edges` (n_bins, 2) [micron] compare with the opacities; also how many are finer than these."""
    middle, width = edges.mean(axis=1), edges[:, 1] - edges[:, 0]
    cells = KDistributions.load().edges  # micron, ascending
    cell = np.clip(np.searchsorted(cells, middle) - 1, 0, len(cells) - 2)
    narrow = int((width < np.diff(cells)[cell]).sum())
    too_fine = int((middle / width > PART_RESOLUTION).sum())
    text = (
        f"opacities are resolved to R = {PART_RESOLUTION}: {too_fine} of {len(edges)} bins are finer "
        f"(finest R = {(middle / width).max():.0f}); {narrow} are narrower than their cell of the line lists, "
        "where a band model and narrower tables say how absorption is spread within the cell (data/README.md)"
    )
    return text, too_fine
