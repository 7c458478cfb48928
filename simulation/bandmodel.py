"""Band model: smoothed cross-sections of H2O, CH4, CO, CO2, NH3 and SO2 from molecular constants.

The cross-section at wavenumber nu and temperature T is a sum over vibrational bands (`molecules.py`):

    sigma(nu, T) = sum_bands S(296 K) * G(T) / G(296 K) * E(nu, T) / E(origin, 296 K) * shape(nu - origin, T)

- S is the band's integrated intensity, G the harmonic hot-band factor prod_j (1 - exp(-c2 w_j / T))^-n_j for a band
  that adds n_j quanta to mode j of frequency w_j (double-harmonic sum rule);
- E = nu (1 - exp(-c2 nu / T)) is the photon energy with stimulated emission;
- shape is a normalised convolution of the rotational envelope (levels and line strengths of a rigid linear,
  spherical, symmetric or asymmetric top, counted on a 1 cm-1 grid), the anharmonic shifts of the hot bands and a
  Gaussian.

It has no lines and no pressure. `opacities.py` takes from it the shape of the bands inside a spectral cell; how
strong the cell is and what its lines look like comes from line lists.
"""

import numpy as np

from simulation.molecules import MOLECULES, REFERENCE_TEMPERATURE
from simulation.rotors import (
    HALF_WIDTH,
    OFFSET,
    STEP,
    asymmetric_transitions,
    boltzmann,
    envelope,
    linear_envelope,
    spherical_envelope,
    symmetric_envelope,
)

FINE_GRID = np.arange(500.0, 20501.0, STEP)  # cm-1


def _convolve(first, second):
    """Convolution of two profiles on OFFSET, same length, negative rounding noise clipped."""
    size = 4 * HALF_WIDTH + 1
    padded = 1 << (size - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(first, padded) * np.fft.rfft(second, padded), padded)[:size]
    return np.clip(product[HALF_WIDTH : HALF_WIDTH + len(OFFSET)], 0, None)


def _gaussian(standard_deviation):
    """Gaussian on OFFSET of unit sum; `standard_deviation` in cm-1."""
    profile = np.exp(-0.5 * (OFFSET / standard_deviation) ** 2)
    return profile / profile.sum()


def hot_band_shifts(molecule, quanta, temperature, largest_quantum=14, largest_energy=16000.0):
    """Distribution of the band's centre over thermally excited quanta, on OFFSET, of unit sum.

    Each quantum in mode j moves a band that adds `quanta` by sum_k quanta_k x_jk (1 + delta_jk) (anharmonicity).
    """
    profile = np.zeros(len(OFFSET))
    profile[HALF_WIDTH] = 1.0
    for j, (frequency, degeneracy) in enumerate(molecule.modes):
        shift = 0.0
        for k, count in enumerate(quanta):
            row, column = min(j, k), max(j, k)
            shift += count * molecule.anharmonicity[row][column - row] * (2 if k == j else 1)
        if abs(shift) < 1e-9:
            continue
        levels = np.arange(0, min(largest_quantum, int(largest_energy / frequency)) + 1)
        weight = boltzmann(frequency * levels, temperature)
        for i in range(1, degeneracy + quanta[j]):  # degeneracy of the level times (v + n)! / v! for n quanta gained
            weight = weight * (levels + i)
        position = np.clip(shift * levels, -0.9 * HALF_WIDTH, 0.5 * HALF_WIDTH) / STEP
        below = np.floor(position).astype(int)
        spread = np.zeros(len(OFFSET))
        np.add.at(spread, HALF_WIDTH + below, weight * (1 - (position - below)))
        np.add.at(spread, HALF_WIDTH + below + 1, weight * (position - below))
        profile = _convolve(profile, spread / weight.sum())
    return profile


def _rotational_envelope(molecule, band, temperature):
    """Envelope of one band."""
    constants = molecule.rotational_constants
    loss = np.array(band.quanta) @ np.array(molecule.rotation_vibration)
    upper = tuple(constants - loss)
    perpendicular = band.branches == "perpendicular"
    if molecule.rotor == "linear":
        return linear_envelope(temperature, constants, upper, perpendicular)
    if molecule.rotor == "asymmetric":
        offset, strength, lower_energy = asymmetric_transitions(constants, upper, band.branches)
        return envelope(offset, strength * boltzmann(lower_energy, temperature))
    zeta = np.dot(band.quanta, molecule.coriolis) / sum(band.quanta)
    if molecule.rotor == "spherical":
        return spherical_envelope(temperature, constants, upper, zeta)
    return symmetric_envelope(temperature, constants, upper, perpendicular, zeta, molecule.rotor == "symmetric")


def _hot_band_factor(molecule, band, temperature):
    """G(T) / G(296 K) of the double-harmonic sum rule."""
    ratio = 1.0
    for (frequency, _), count in zip(molecule.modes, band.quanta, strict=True):
        cold = 1 - boltzmann(frequency, REFERENCE_TEMPERATURE)
        ratio *= (cold / (1 - boltzmann(frequency, temperature))) ** count
    return ratio


def cross_section(name, temperature):
    """Absorption cross-section (len(FINE_GRID),) [cm2] of a molecule of `MOLECULES` at a temperature [K]."""
    molecule = MOLECULES[name]
    sigma = np.zeros(len(FINE_GRID))
    for band in molecule.bands:
        rotation = _rotational_envelope(molecule, band, temperature)
        if band.herman_wallis:
            rotation = rotation * 10 ** np.clip(band.herman_wallis * OFFSET, -2.0, 2.0)
            rotation = rotation / rotation.sum()
        shape = _convolve(
            _convolve(rotation, hot_band_shifts(molecule, band.quanta, temperature)),
            _gaussian(band.smoothing),
        )
        start = round((band.origin - FINE_GRID[0]) / STEP) - HALF_WIDTH  # fine-grid index of shape[0]
        first, last = max(start, 0), min(start + len(OFFSET), len(FINE_GRID))
        wavenumber = FINE_GRID[first:last]
        photon = wavenumber * (1 - boltzmann(wavenumber, temperature))
        photon = photon / (band.origin * (1 - boltzmann(band.origin, REFERENCE_TEMPERATURE)))
        strength = band.intensity * _hot_band_factor(molecule, band, temperature)
        sigma[first:last] += strength * photon * shape[first - start : last - start] / STEP
    return sigma
