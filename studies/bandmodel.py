"""Band model: smoothed cross-sections of H2O, CH4, CO, CO2, NH3 and SO2 from molecular constants.

The cross-section at wavenumber nu and temperature T is a sum over vibrational bands (`molecules.py`):

    sigma(nu, T) = sum_bands S(296 K) * G(T) / G(296 K) * E(nu, T) / E(origin, 296 K) * shape(nu - origin, T)

- S is the band's integrated intensity, G the harmonic hot-band factor prod_j (1 - exp(-c2 w_j / T))^-n_j for a band
  that adds n_j quanta to mode j of frequency w_j (double-harmonic sum rule);
- E = nu (1 - exp(-c2 nu / T)) is the photon energy with stimulated emission;
- shape is a normalised convolution of the rotational envelope, the anharmonic shifts of the hot bands and a Gaussian.

An envelope is the histogram of line strength against offset from the band's origin, on `OFFSET`, with unit sum, of a
rigid linear, spherical, symmetric or asymmetric top; levels and strengths follow Herzberg (1945), "Infrared and Raman
Spectra".

It has no lines and no pressure. `fit_couplings.py` takes from it the shape of the bands inside a spectral cell; how
strong the cell is and what its lines look like comes from line lists.
"""

from functools import cache

import numpy as np

from studies.molecules import MOLECULES, REFERENCE_TEMPERATURE

SECOND_RADIATION_CONSTANT = 1.438776877  # hc/k [cm K], CODATA 2018
STEP = 1.0  # cm-1, of the grid on which bands are built
HALF_WIDTH = 3000  # grid steps on either side of a band's origin
OFFSET = np.arange(-HALF_WIDTH, HALF_WIDTH + 1) * STEP  # cm-1 from the band's origin
LARGEST_J_ASYMMETRIC = 38  # H2O levels up to about 20,000 cm-1: enough at 2500 K
FINE_GRID = np.arange(500.0, 20501.0, STEP)  # cm-1


# --- rotational envelopes ---


def envelope(offset, strength):
    """Histogram of line strengths [any unit] against offset from the band's origin [cm-1], of unit sum."""
    index = np.rint(offset / STEP).astype(int) + HALF_WIDTH
    inside = (index >= 0) & (index < len(OFFSET))
    histogram = np.bincount(index[inside], strength[inside], minlength=len(OFFSET))
    return histogram / histogram.sum()


def boltzmann(energy, temperature):
    """Boltzmann factor of an energy [cm-1] at a temperature [K]."""
    return np.exp(-SECOND_RADIATION_CONSTANT * energy / temperature)


def linear_envelope(temperature, constants, upper_constants, perpendicular):
    """Envelope of a linear molecule: P and R branch, and Q for a perpendicular band.

    Strengths are the Hoenl-London factors of a Sigma-Sigma band; a perpendicular band has half of its
    intensity in the Q branch.
    """
    (b_lower,), (b_upper,) = constants, upper_constants
    j = np.arange(0, 220)
    population = boltzmann(b_lower * j * (j + 1), temperature)
    branches = [(j[1:] - 1, j[1:], 1.0 * j[1:]), (j + 1, j, j + 1.0)]  # (upper J, lower J, strength)
    if perpendicular:
        branches = [(upper, lower, strength / 2) for upper, lower, strength in branches]
        branches.append((j[1:], j[1:], j[1:] + 0.5))
    offset = [b_upper * up * (up + 1) - b_lower * low * (low + 1) for up, low, _ in branches]
    strength = [strength * population[low] for _, low, strength in branches]
    return envelope(np.concatenate(offset), np.concatenate(strength))


def spherical_envelope(temperature, constants, upper_constants, zeta):
    """Envelope of a spherical top (CH4) with first-order Coriolis splitting `zeta`; no nuclear-spin weights."""
    (b_lower,), (b_upper,) = constants, upper_constants
    j = np.arange(0, 60)
    lower = b_lower * j * (j + 1)
    population = (2 * j + 1.0) * boltzmann(lower, temperature)
    coriolis = 2 * b_upper * zeta
    offset = [
        b_upper * (j + 1) * (j + 2) - coriolis * (j + 2) - lower,  # R branch
        b_upper * j * (j + 1) - coriolis - lower,  # Q branch
        b_upper * j * (j - 1) + coriolis * (j - 1) - lower,  # P branch
    ]
    strength = [
        (2 * j + 3.0) * population,
        (2 * j + 1.0) * population,
        np.maximum(2 * j - 1.0, 0) * population,
    ]
    return envelope(np.concatenate(offset) + coriolis, np.concatenate(strength))


def _hoenl_london(j, k, delta_j, delta_k):
    """Line-strength factor of a symmetric top (Herzberg 1945), `k` counted along the change `delta_k`."""
    with np.errstate(all="ignore"):  # J = 0 divides by zero; the caller drops what is not finite
        if delta_k == 0:
            return {
                1: ((j + 1) ** 2 - k**2) / ((j + 1) * (2 * j + 1)),
                0: k**2 / (j * (j + 1)),
                -1: (j**2 - k**2) / (j * (2 * j + 1)),
            }[delta_j]
        k = k * delta_k
        return {
            1: (j + k + 2) * (j + k + 1) / ((j + 1) * (2 * j + 1)),
            0: (j + k + 1) * (j - k) / (j * (j + 1)),
            -1: (j - k - 1) * (j - k) / (j * (2 * j + 1)),
        }[delta_j] / 2


def symmetric_envelope(temperature, constants, upper_constants, perpendicular, zeta, threefold=True):
    """Envelope of a symmetric top from constants (B, C): Delta K = 0 or +-1.

    With `threefold` an oblate top (NH3), spin weight 2:1:1 for K a multiple of 3; else a heavy, nearly prolate one with
    (B + C) / 2 for B and A for C (SO2), without spin weights.
    """
    (b_lower, c_lower), (b_upper, c_upper) = constants, upper_constants
    largest_j, largest_k = (44, 44) if threefold else (150, 60)
    j, k = np.meshgrid(np.arange(0, largest_j + 1), np.arange(-largest_k, largest_k + 1), indexing="ij")
    allowed = np.abs(k) <= j
    j, k = j[allowed].astype(float), k[allowed].astype(float)
    lower = b_lower * j * (j + 1) + (c_lower - b_lower) * k**2
    spin = np.where(k % 3 == 0, 2.0, 1.0) if threefold else 1.0
    population = (2 * j + 1) * spin * boltzmann(lower, temperature)
    offsets, strengths = [], []
    for delta_k in (1, -1) if perpendicular else (0,):
        for delta_j in (-1, 0, 1):
            j_upper, k_upper = j + delta_j, k + delta_k
            factor = _hoenl_london(j, k, delta_j, delta_k)
            upper = b_upper * j_upper * (j_upper + 1) + (c_upper - b_upper) * k_upper**2
            upper = upper - 2 * c_upper * zeta * delta_k * k_upper  # Coriolis, zero for a parallel band
            exists = (j_upper >= np.abs(k_upper)) & np.isfinite(factor) & (factor > 0)
            offsets.append((upper - lower)[exists])
            strengths.append((factor * population)[exists])
    return envelope(np.concatenate(offsets), np.concatenate(strengths))


@cache
def asymmetric_levels(constants):
    """Energies (2J+1,) [cm-1] and eigenvectors in the |J, K> basis for each J, from (A, B, C) [cm-1].

    Centrifugal distortion uses H2O's Watson constants (approximate), damped so that levels stay in order.
    """
    a, b, c = constants
    levels = []
    for j in range(LARGEST_J_ASYMMETRIC + 1):
        k = np.arange(-j, j + 1.0)
        square = j * (j + 1)
        diagonal = (b + c) / 2 * (square - k**2) + a * k**2
        distortion = 1.249e-3 * square**2 - 5.77e-3 * square * k**2 + 3.25e-2 * k**4
        diagonal = diagonal / (1 + np.maximum(distortion, 0) / np.maximum(diagonal, 1e-9))
        hamiltonian = np.diag(diagonal)
        for i in range(2 * j - 1):
            coupling = (b - c) / 4 * np.sqrt((square - k[i] * (k[i] + 1)) * (square - (k[i] + 1) * (k[i] + 2)))
            hamiltonian[i, i + 2] = hamiltonian[i + 2, i] = coupling
        levels.append(np.linalg.eigh(hamiltonian))
    return levels


def _direction_cosine(j, j_upper, q):
    """Matrix <J', K + q | D^1_q | J, K> up to a common factor, shape (2J'+1, 2J+1) (Wigner 3j symbols)."""
    matrix = np.zeros((2 * j_upper + 1, 2 * j + 1))
    if j == j_upper == 0:
        return matrix
    k = np.arange(-j, j + 1)
    k = k[np.abs(k + q) <= j_upper]
    if j_upper == j + 1:
        squares = {0: 2.0 * ((j + 1) ** 2 - k * k), 1: (j + k + 1.0) * (j + k + 2), -1: (j - k + 1.0) * (j - k + 2)}
        value = np.sqrt(squares[q]) / np.sqrt((j + 1.0) * (2 * j + 1) * 2)
    elif j_upper == j:
        value = np.sqrt(2.0) * k if q == 0 else -q * np.sqrt((j - q * k) * (j + q * k + 1.0))
        value = value / np.sqrt(j * (j + 1.0) * 2)
    else:
        squares = {0: 2.0 * (j * j - k * k), 1: (j - k) * (j - k - 1.0), -1: (j + k) * (j + k - 1.0)}
        value = (-1 if q == 0 else 1) * np.sqrt(squares[q]) / np.sqrt(j * (2 * j + 1.0) * 2)
    matrix[k + q + j_upper, k + j] = value
    return matrix


@cache
def asymmetric_transitions(constants, upper_constants, branches):
    """Offsets from the origin [cm-1], strengths and lower energies [cm-1] of an asymmetric top, (n_lines,) each.

    (A, B, C) [cm-1] of both vibrational states; `branches` "a-type" or "b-type" is the axis of the transition moment.
    """
    lower_levels, upper_levels = asymmetric_levels(constants), asymmetric_levels(upper_constants)
    offsets, strengths, lower_energies = [], [], []
    for j, (lower, lower_vectors) in enumerate(lower_levels):
        for j_upper in range(max(j - 1, 0), min(j + 2, len(upper_levels))):
            upper, upper_vectors = upper_levels[j_upper]
            if branches == "a-type":
                moment = _direction_cosine(j, j_upper, 0)
            else:
                moment = (_direction_cosine(j, j_upper, 1) - _direction_cosine(j, j_upper, -1)) / np.sqrt(2)
            strength = (upper_vectors.T @ moment @ lower_vectors) ** 2 * (2 * j + 1)
            i_upper, i_lower = np.nonzero(strength > 1e-4)
            offsets.append(upper[i_upper] - lower[i_lower])
            strengths.append(strength[i_upper, i_lower])
            lower_energies.append(lower[i_lower])
    return tuple(np.concatenate(column) for column in (offsets, strengths, lower_energies))


# --- bands ---


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
