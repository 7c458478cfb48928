"""Sodium and potassium: the resonance doublets as Voigt profiles.

Line positions are those of the NIST Atomic Spectra Database (D1 and D2 of Na I and K I). Oscillator strengths of Na are
those of VALD3 (log gf -0.194 and 0.108; Ryabchikova et al. 2015, Phys. Scr. 90, 054005). Those of K are within 0.4 % of
what the measured lifetimes of its upper levels give, 26.72 and 26.37 ns (Tiecke, Properties of Potassium, 2011), and
lie 6 % below VALD's. Half widths by collisions with H2 and He are 0.071 (Na) and 0.14 (K) cm-1 per atm at 2000 K, with
(T / 2000 K)^-0.7, and a line ends 4500 cm-1 from its centre: the choices of Pyrat Bay (Cubillos & Blecic 2021, MNRAS
505, 2675), after Iro, Bezard & Guillot 2005, A&A 436, 719, and Baudino et al. 2017, ApJ 850, 150. The natural width is
added. The effective cross-section of Na at 0.5-0.8 micron is within 0.2 dex of that of ExoMolOP at 10 and 100 mbar and
700-2000 K (`python -m studies.check_opacities --exomolop DIR`).

The cores are far narrower than the parts of the wavenumber grid, so a part near a doublet is cut into points, and
the light, not the cross-section, is averaged over them. Farther out a profile is that of Lorentz, whose width is small
beside the distance: a function of temperature and pressure times a function of the wavenumber.
"""

from dataclasses import dataclass

import numpy as np

from simulation.atmosphere import WEIGHTS

LINE_STRENGTH = 8.85282e-13  # pi e2 / (m_e c2) [cm]: integrated cross-section [cm2 cm-1] per oscillator strength
ATMOSPHERE = 101325.0  # Pa
CUTOFF = 4500.0  # cm-1
WIDTH_EXPONENT = -0.7
TEMPERATURES = np.arange(400.0, 2601.0, 200.0)  # K: ln k is linear in between
FINE = 100.0  # cm-1 from a line: parts that reach so near are cut into points
SMALLEST = 1e-40  # cm2
DOPPLER = 7.1623e-7  # full width at half maximum over wavenumber, for 1 K and 1 atomic mass unit


@dataclass(frozen=True)
class Alkali:
    """The doublet of an atom."""

    wavenumber: tuple  # cm-1
    strength: tuple  # oscillator strengths
    half_width: float  # by collisions, cm-1 per atm at 2000 K
    natural: float  # half width by nature, cm-1


ALKALIS = {
    "Na": Alkali((16956.170, 16973.366), (0.320, 0.641), 0.071, 1.63e-4),
    "K": Alkali((12985.186, 13042.896), (0.332, 0.666), 0.14, 1.00e-4),
}


def voigt(distance, gauss, lorentz):
    """Voigt profile [1 / cm-1] at distances [cm-1]; standard deviation and half width [cm-1], shapes that broadcast.

    Weideman's (1994, SIAM J. Numer. Anal. 31, 1497) rational approximation of the complex error function, 16 terms.
    """
    n = 16
    scale = np.sqrt(n / np.sqrt(2))
    angle = np.arange(-2 * n + 1, 2 * n) * np.pi / (2 * n)
    t = scale * np.tan(angle / 2)
    samples = np.concatenate([[0.0], np.exp(-(t**2)) * (scale**2 + t**2)])
    terms = np.real(np.fft.fft(np.fft.fftshift(samples)))[1 : n + 1][::-1] / (4 * n)
    z = (distance + 1j * lorentz) / (gauss * np.sqrt(2))
    ratio = (scale + 1j * z) / (scale - 1j * z)
    series = np.polyval(terms, ratio)
    w = 2 * series / (scale - 1j * z) ** 2 + 1 / np.sqrt(np.pi) / (scale - 1j * z)
    return w.real / (gauss * np.sqrt(2 * np.pi))


def broadening(temperature, pressure):
    """Half width by collisions over that at 2000 K and 1 atm; K and Pa."""
    return (temperature / 2000.0) ** WIDTH_EXPONENT * pressure / ATMOSPHERE


def half_width(atom, temperature, pressure):
    """Lorentz half width [cm-1] of the lines of an `Alkali`; K and Pa."""
    return atom.half_width * broadening(temperature, pressure) + atom.natural


def cross_section(name, wavenumber, temperature, pressure):
    """Cross-section [cm2 per atom] of an atom; `wavenumber` [cm-1], K and Pa in shapes that broadcast."""
    atom = ALKALIS[name]
    wavenumber, temperature, pressure = np.broadcast_arrays(wavenumber, temperature, pressure)
    lorentz = half_width(atom, temperature, pressure)
    total = np.zeros(wavenumber.shape)
    for centre, strength in zip(atom.wavenumber, atom.strength):
        gauss = centre * DOPPLER * np.sqrt(temperature / WEIGHTS[name]) / 2.35482
        distance = np.abs(wavenumber - centre)
        profile = voigt(distance, gauss, lorentz)
        total += LINE_STRENGTH * strength * np.where(distance < CUTOFF, profile, 0.0)
    return total


class AlkaliLines:
    """Light that the doublets of `names`, "Na" and "K", let through, on the parts of a wavenumber grid.

    `cells` (n_parts, 2) are the borders of the parts, low and high [cm-1]; `pressure` (n_levels,) of the levels [Pa].
    """

    def __init__(self, names, cells, pressure):
        self._names = names
        parts, shares, tables, wings, self._counts = [], [], [], [], []
        for name in names:
            lines, strength = np.array(ALKALIS[name].wavenumber), np.array(ALKALIS[name].strength)[:, None]
            near = ((cells[:, 1] > lines[:, None] - FINE) & (cells[:, 0] < lines[:, None] + FINE)).any(axis=0)
            distance = np.abs(cells.mean(axis=1) - lines[:, None])  # (2, n_parts)
            wing = np.where((distance < CUTOFF) & ~near, strength / distance**2, 0.0).sum(axis=0)
            wings.append(wing * LINE_STRENGTH / np.pi * 1e-4)  # m2 per atom, for a half width of 1 cm-1
            cuts = [self._borders(low, high, lines) for low, high in cells[near]]
            points = np.concatenate([[], *((borders[1:] + borders[:-1]) / 2 for borders in cuts)])
            parts.extend(np.flatnonzero(near))
            shares.extend(np.diff(borders) / (borders[-1] - borders[0]) for borders in cuts)
            tables.append([cross_section(name, points, t, pressure[:, None]) for t in TEMPERATURES])
            self._counts.append(len(points))
        self.parts = np.array(parts, int)
        which = np.repeat(np.arange(len(shares)), [len(share) for share in shares])
        self._share = (which == np.arange(len(shares))[:, None]) * np.concatenate([[], *shares])
        self._share = self._share.astype(np.float32)  # (len(self.parts), n_points)
        self._table = np.log(np.maximum(np.concatenate(tables, axis=2), SMALLEST)).astype(np.float32)
        self._wings, self._pressure = np.array(wings), pressure
        self._widths = np.transpose([(ALKALIS[name].half_width, ALKALIS[name].natural) for name in names])

    @staticmethod
    def _borders(low, high, lines):
        """Borders of the points of one part: closer together near a line."""
        away = np.concatenate([[0.0], np.geomspace(0.01, FINE, 24)])
        near = np.concatenate([centre + sign * away for centre in lines for sign in (-1, 1)])
        return np.unique(np.concatenate([[low, high], near[(near > low) & (near < high)]]))

    def wings(self, mix, temperature):
        """Weights (n_levels, 1) of the gas at the levels, and two cross-sections (2, n_parts), zero on `self.parts`.

        The first, for the width by collisions, is that of the weighted sum of the gas; the second, for the natural
        width, that of all gas.
        """
        weights = broadening(temperature, self._pressure)[:, None].astype(np.float32)
        return weights, self._widths * [mix.get(name, 0.0) for name in self._names] @ self._wings

    def light(self, mix, temperature, column):
        """Part of the light let through, (len(self.parts), n_rays); as of `LineAbsorption.light`."""
        place = np.clip((temperature - TEMPERATURES[0]) / 200.0, 0, len(TEMPERATURES) - 1.001)
        below, levels = place.astype(int), np.arange(len(temperature))
        part = (place - below).astype(np.float32)[:, None]
        k = (1 - part) * self._table[below, levels] + part * self._table[below + 1, levels]  # (n_levels, n_points)
        k = np.exp(k, out=k)
        k *= np.repeat([-1e-4 * mix.get(name, 0.0) for name in self._names], self._counts).astype(np.float32)
        light = k.T @ column.T
        return self._share @ np.exp(light, out=light)
