"""Compare the opacities with tables that they were not fitted to, in bins narrower than their cells; and the CIA knots.

    pip install --no-deps nemesispy==0.0.10
    python -m studies.check_channels

nemesispy (BSD-3) ships k-tables of H2O, CO2, CO and CH4 in the 17 channels of the WASP-43b observations (HST/WFC3
and Spitzer, 1.1-4.5 micron) and a CIA table. Printed per molecule: the effective cross-section of a channel (what a
ray feels, `simulation/opacities.py`) of the shipped opacities, and the mean of the band model alone (the opacities
before), both over the k-table's. Also printed: water's lowest rotational levels and each molecule's integrated
intensity in the band model.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from simulation import cia
from simulation.kdistribution import effective
from simulation.opacities import effective_cross_section
from studies.bandmodel import FINE_GRID, STEP, asymmetric_levels, cross_section
from studies.command import study_parser
from studies.molecules import MOLECULES, REFERENCE_TEMPERATURE

CHANNEL_WIDTH = {True: 0.0350, False: 0.75}  # micron; WFC3 channels (below 2 micron) and Spitzer IRAC
PRESSURE = 1e4  # Pa, roughly where transmission spectra are formed
TEMPERATURES = (700.0, 1000.0, 1500.0, 2000.0)  # K
LOSCHMIDT = 2.686780e19  # molecules per cm3 of an amagat
COLUMNS = {"H2-H2": 0, "H2-He": 1}  # of the CIA table: equilibrium hydrogen


def read_k_table(path):
    """Read a NEMESIS k-table.

    Returns
    -------
    wavelength : numpy.ndarray, shape (n_channels,)
        Channel centres [micron].
    pressure, temperature : numpy.ndarray
        Grids [Pa] and [K].
    k : numpy.ndarray, shape (n_channels, n_pressures, n_temperatures, n_g)
        Cross-sections [cm2].
    weights : numpy.ndarray, shape (n_g,)
    """
    words = np.fromfile(path, dtype="<i4")
    floats = words.view("<f4")
    first, n_channels, step, n_pressures, n_temperatures, n_g = words[0], words[1], floats[3], *words[5:8]
    position = 10 + n_g
    weights = floats[position : position + n_g]
    position += n_g + 2
    pressure = floats[position : position + n_pressures] * 101325.0  # atm to Pa
    position += n_pressures
    temperature = floats[position : position + n_temperatures]
    position += n_temperatures
    uniform = floats[2] + step * np.arange(n_channels)
    wavelength = uniform if step > 0 else floats[position : position + n_channels]
    shape = (n_channels, n_pressures, n_temperatures, n_g)
    k = floats[first - 1 : first - 1 + np.prod(shape)].reshape(shape)
    return wavelength, pressure, temperature, k * 1e-20, weights / weights.sum()  # stored times 1e20


def read_cia_table(path):
    """Read a NEMESIS CIA table: wavenumber [cm-1], temperature [K], coefficient (n, n_T, 9) [cm-1 amagat-2]."""
    raw = Path(path).read_bytes()
    records, position = [], 0
    while position < len(raw):  # Fortran: length, record, length
        length = int(np.frombuffer(raw, "<i4", 1, position)[0])
        records.append(raw[position + 4 : position + 4 + length])
        position += length + 8
    temperature = np.frombuffer(records[0], "<f8")
    coefficient = np.frombuffer(records[1], "<f4").reshape(-1, len(temperature), 9)
    return 10.0 * np.arange(len(coefficient)), temperature, coefficient


def channel_edges(wavelength):
    """Lower and upper edges [micron] of the channels around `wavelength` (n_channels,)."""
    half = np.where(wavelength < 2, *(CHANNEL_WIDTH[short] / 2 for short in (True, False)))
    return wavelength - half, wavelength + half


def channel_means(name, temperature, low, high):
    """Mean band-model cross-section in the channels [cm2], (n_channels,)."""
    sigma = cross_section(name, temperature)
    places = np.searchsorted(FINE_GRID, [1e4 / high, 1e4 / low]).T
    return np.array([sigma[first:last].mean() for first, last in places])


def _print_row(label, temperature, difference, wavelength):
    """Print mean, rms and largest of `difference` (n,) [dex] and where the largest is [micron]."""
    worst = np.argmax(np.abs(difference))
    rms = np.sqrt((difference**2).mean())
    print(
        f"  {label} {temperature:5.0f} K {len(difference):3d} {difference.mean():+6.2f} {rms:5.2f} "
        f"{difference[worst]:+6.2f} {wavelength[worst]:6.2f}"
    )


def compare_molecules(folder):
    """Print log10(ours / k-table), effective, over the channels within four decades of the strongest."""
    print(f"log10(ours / nemesispy k-table), effective, at {PRESSURE:g} Pa: channels, mean, rms, largest, at (micron)")
    for name in ("H2O", "CH4", "CO", "CO2"):
        wavelength, pressures, temperatures, k, weights = read_k_table(folder / f"{name.lower()}wasp43.kta")
        low, high = channel_edges(wavelength)
        at_pressure = np.argmin(np.abs(np.log(pressures / PRESSURE)))
        for temperature in TEMPERATURES:
            logarithm = np.log10(effective(k[:, at_pressure] + 1e-40, weights))  # (n_channels, n_temperatures)
            table = np.array([np.interp(temperature, temperatures, row) for row in logarithm])
            absorbs = table > table.max() - 4
            for label, ours in (
                ("shipped", effective_cross_section(name, low, high, temperature, pressures[at_pressure]) * 1e4),
                ("band model", channel_means(name, temperature, low, high)),
            ):
                difference = (np.log10(ours) - table)[absorbs]
                _print_row(f"{name:4s} {label:10s}", temperature, difference, wavelength[absorbs])


def compare_cia(path):
    """Print the same for the CIA knots, over those within four decades of the strongest."""
    print("log10(CIA knots / nemesispy table): knots, mean, rms, largest, at (micron)")
    wavenumber, temperatures, coefficient = read_cia_table(path)
    for pair, column in COLUMNS.items():
        for temperature in TEMPERATURES:
            row = np.argmin(np.abs(temperatures - temperature))
            reference = np.interp(cia.WAVENUMBER, wavenumber, coefficient[:, row, column], right=0.0)
            covered = reference > 1e-4 * reference.max()
            ours = cia.coefficient(pair, temperatures[row])[covered] * 1e10  # m5 to cm5
            difference = np.log10(ours / (reference[covered] / LOSCHMIDT**2))
            _print_row(pair, temperatures[row], difference, 1e4 / cia.WAVENUMBER[covered])


def main():
    """Print all comparisons."""
    study_parser("check_channels", __doc__).parse_args()
    levels = asymmetric_levels(MOLECULES["H2O"].rotational_constants)[1][0]
    print("H2O J = 1 levels [cm-1]:", np.round(levels, 2), "observed 23.79 37.14 42.37")
    print("integrated cross-section 500-20500 cm-1 [cm/molecule]:")
    for name in MOLECULES:
        totals = [cross_section(name, temperature).sum() * STEP for temperature in (REFERENCE_TEMPERATURE, 1500.0)]
        print(f"  {name:4s} 296 K {totals[0]:.3e}  1500 K {totals[1]:.3e}")
    package = importlib.util.find_spec("nemesispy")
    if package is None:
        sys.exit("check_channels.py: the rest needs nemesispy: pip install --no-deps nemesispy==0.0.10")
    tables = Path(package.submodule_search_locations[0]) / "data"
    compare_molecules(tables / "ktables")
    compare_cia(tables / "cia" / "exocia_hitran12_200-3800K.tab")


if __name__ == "__main__":
    main()
