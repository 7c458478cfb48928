"""Planets like an observed one: from an observation and a planet file to a survey that a network can learn from."""

import logging

import numpy as np

from data.design import ABSENT, Design, resolution_text
from loaders.observation import read_observation
from runio.errors import InputError, as_input_error
from runio.planetfile import MOLECULES, load_planet

logger = logging.getLogger(__name__)

REFERENCE_RATIO = 1e-4  # volume mixing ratio of the single-molecule curves


def survey_design(observation, planet, depth_unit="auto", width="auto"):
    """Say what a survey for an observation is of: its bins, errors and star, priors around its planet.

    Parameters
    ----------
    observation : path-like
        Table of wavelength, width, depth and error; see ``loaders.observation.read_observation``.
    planet : path-like
        Planet file; see ``runio.planetfile``.
    depth_unit, width : str
        As of ``read_observation``.

    Returns
    -------
    data.design.Design

    Raises
    ------
    InputError
        If either file cannot be used, or a bin lies outside of the opacities.
    """
    config = load_planet(planet)
    with as_input_error():
        seen = read_observation(observation, depth_unit, width)
    if seen.bin_width is None:
        raise InputError(f"{observation}: no column of widths, expected one: a survey needs the edges of the bins")
    edges = np.column_stack([seen.wavelength - seen.bin_width / 2, seen.wavelength + seen.bin_width / 2])
    _check_covered(edges, observation)
    text, too_fine = resolution_text(edges)
    logger.log(logging.WARNING if too_fine else logging.INFO, "%s: %s", observation, text)
    design = Design(
        title=f"Transmission spectra of planets like {config.name}, on the bins of an observation",
        edges=edges,
        priors=config.priors(),
        star_radius=config.star.radius,
        star_temperature=config.star.temperature,
        reference=_reference(config),
        errors=seen.error,
        error_scale=tuple(config.errors),
        sources={"observation": str(observation), "planet": str(planet), "resolution": text},
    )
    _warn_if_out_of_reach(design, seen)
    return design


def _check_covered(edges, observation):
    from data.kdistribution import KDistributions

    first, last = KDistributions.load().edges[[0, -1]]
    outside = (edges[:, 0] < first) | (edges[:, 1] > last)
    if outside.any():
        low, high = edges[outside][0]
        raise InputError(
            f"{observation}: {outside.sum()} of {len(edges)} bins lie outside of the opacities, the first from "
            f"{low:.4g} to {high:.4g} micron; expected bins within {first:.2f} to {last:.2f} micron"
        )


def _reference(config):
    """Return the planet of the single-molecule curves: the middle of the priors, without clouds."""
    limits = {key: row[2] for key, row in config.priors().items()}
    molecules = [float(np.log10(REFERENCE_RATIO))] * len(MOLECULES)
    mass, radius, temperature = np.mean(np.log10(limits["Mp"])), np.mean(limits["Rp"]), np.mean(limits["Tp"])
    return (*molecules, float(mass), float(radius), float(temperature), ABSENT["Pclouds"])


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
