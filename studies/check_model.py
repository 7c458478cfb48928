"""Numbers behind `data/README.md`: convergence of the forward model and what the shipped spectra contain.

python -m studies.check_model [--n 200]
"""

import time
from pathlib import Path

import h5py
import numpy as np

from constants import SUN_RADIUS
from simulation.design import ARIEL
from simulation.forward_model import NAMES, ForwardModel
from studies.command import study_parser
from studies.fit_couplings import coupled

SHIPPED = Path(__file__).parents[1] / "data" / "ariel_spectra.h5"
SEED = 1


def print_change(label, model, amps, depth, errors):
    """Print how far the depths [ppm] of another model are from `depth` (N, 52): the largest change of each planet."""
    change = np.abs(model.depth(amps) - depth)
    ppm, sigma = change.max(axis=1) * 1e6, (change / errors).max(axis=1)
    percentiles = [np.percentile(values, [50, 90, 99]) for values in (ppm, sigma)]
    print(f"  {label:34s} ppm {np.round(percentiles[0], 2)}   in 1-sigma errors {np.round(percentiles[1], 3)}")


def print_convergence(n):
    """Print changes of the depth with layers, top pressure and parts of the cells."""
    amps, errors = ARIEL.draw_amps(n, SEED), ARIEL.draw_errors(n, SEED)
    model = ForwardModel()
    model.depth(amps[:2])
    start = time.process_time()
    depth = model.depth(amps)
    print(f"processor time per spectrum: {(time.process_time() - start) / n * 1e3:.1f} ms")
    print(f"largest change of each of {n} planets, median, 90 % and 99 %, when instead there are")
    print_change("100 layers", ForwardModel(layers=100), amps, depth, errors)
    print_change("400 layers", ForwardModel(layers=400), amps, depth, errors)
    print_change("240 layers up to 1e-6 Pa", ForwardModel(layers=240, pressure_range=(1e-6, 1e6)), amps, depth, errors)
    few = slice(0, max(n // 4, 1))
    finer = {
        "parts of resolution 1000": {"resolution": 1000},
        "couplings every 125 K": {"temperatures": np.arange(500.0, 2501.0, 125.0)},
        "couplings at 1 mbar": {"pressure": 1e2},
        "couplings at 100 mbar": {"pressure": 1e4},
        "no band shape inside a cell": {"flat": True},
    }
    for label, settings in finer.items():
        print_change(label, ForwardModel(coupled(**settings)), amps[few], depth[few], errors[few])


def print_extended():
    """Print how high the most extended atmosphere of the priors reaches."""
    low, high = ARIEL.limits()
    amps = np.array([*high[:5], low[5], high[6], high[7], high[8]])  # light, large and hot
    model = ForwardModel()
    radius = np.sqrt(model.depth(amps).max()) * SUN_RADIUS
    print(f"most extended planet of the priors: largest transit radius {radius / amps[6]:.2f} x Rp; ", end="")
    deep = ForwardModel(layers=280, pressure_range=(1e-8, 1e6)).depth(amps)
    print(f"a top at 1e-8 Pa adds at most {(deep - model.depth(amps)).max() * 1e6:.0f} ppm")


def print_shipped():
    """Print depths, amplitudes and errors of the shipped file."""
    with h5py.File(SHIPPED) as file:
        spectra, errors, amps = (file[key][()].astype(float) for key in ("spectra", "errors", "amps"))
    bare = (amps[:, 6:7] / SUN_RADIUS) ** 2
    print(f"shipped file: {len(spectra)} spectra, {SHIPPED.stat().st_size / 1e6:.2f} MB")
    print(
        f"  depth {spectra.min():.4f} to {spectra.max():.4f}, at most {(spectra / bare).max():.2f} x the bare planet's"
    )
    amplitude = np.percentile(np.ptp(spectra, axis=1) * 1e6, [1, 25, 50, 75, 99, 100])
    print("  amplitude (largest - smallest bin) 1, 25, 50, 75, 99, 100 % [ppm]:", amplitude.round())
    print("  errors 5, 50, 95 % [ppm]:", np.percentile(errors * 1e6, [5, 50, 95]).round(1))


def print_visible(n):
    """Print the share of planets in which a molecule, the clouds or their absence can be seen at all."""
    amps, errors = ARIEL.draw_amps(n, SEED), ARIEL.draw_errors(n, SEED)
    model = ForwardModel()
    depth = model.depth(amps)
    print(f"share of {n} planets whose spectrum changes by less than 3 sigma (all bins together) without")
    for i, name in enumerate([*NAMES[:5], "clouds"]):
        changed = amps.copy()
        changed[:, i if name in NAMES else 8] = -np.inf if name in NAMES else 6.0
        sigma = np.sqrt((((model.depth(changed) - depth) / errors) ** 2).sum(axis=1))
        print(f"  {name:6s} {(sigma < 3).mean():.2f}")


def main():
    """Print everything; about a minute."""
    parser = study_parser("check_model", __doc__)
    parser.add_argument("--n", type=int, default=200, help="number of planets (default %(default)s)")
    n = parser.parse_args().n
    print_shipped()
    print_extended()
    print_convergence(n)
    print_visible(n)


if __name__ == "__main__":
    main()
