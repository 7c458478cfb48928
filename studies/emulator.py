"""A fast stand-in for the forward model: transit depth from AMPs in microseconds, for samplers.

    python -m studies.emulator

trains it on the training rows of the shipped data set (the split of seed 0; no test planet is seen), measures its error
on the test planets in units of their noise, and writes `data/emulator.npz`. Training needs TensorFlow; using it needs
only NumPy:

    from studies.emulator import Emulator
    depth = Emulator.load().depth(amps)  # (N, 9) in retrieval space -> (N, 52)

What is learnt is not the depth but the pressure level at which the planet seems to end: the effective height
z = sqrt(depth) R_star - Rp in scale heights, corrected for gravity that falls with height,
ln(P0 / P) = (z / H) / (1 + z / Rp). A closed form for a grey bin gives most of it (`Baseline`); a small network learns
what is left, which is smooth and small.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import written_whole
from constants import GRAVITATIONAL_CONSTANT, SUN_RADIUS, Stream, stream
from simulation.design import PRIORS
from studies.command import study_parser

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "data" / "emulator.npz"
SPLIT_SEED, TEST_FRACTION = 0, 0.2  # of the shipped configuration

BOLTZMANN = 1.380649e-23  # J/K
ATOMIC_MASS = 1.66053907e-27  # kg
WEIGHTS = {"H2O": 18.015, "CH4": 16.043, "CO": 28.010, "CO2": 44.009, "NH3": 17.031}  # atomic mass units
HELIUM_RATIO, H2_WEIGHT, HE_WEIGHT = 0.17, 2.016, 4.0026
BOTTOM, LOG_BOTTOM = 1e6, 6.0  # Pa: where the planet's radius is measured
GREY = 0.56  # optical depth along the line of sight at the effective height of an exponential atmosphere
LN10 = np.log(10.0)
TEMPERATURES = np.arange(700.0, 2001.0, 100.0)  # K, nodes of the baseline's cross-sections
PRESSURES = np.array([1e0, 1e1, 1e2, 1e3, 1e4, 1e5])  # Pa
HOT_AMMONIA = (1000.0, 1400.0)  # K: NH3's opacity goes over from one list to another (simulation/kdistribution.py)
KNEE = 0.5  # sigma: errors of the emulator above this count linearly in training, below squared


def prior_limits():
    """Lower and upper ends of the uniform priors in retrieval space, two arrays (9,)."""
    limits = [np.log10(ends) if scale == "log10" else np.array(ends) for _, scale, ends in PRIORS.values()]
    return np.array(limits, float).T


def scale_height(amps):
    """Pressure scale height [m] at the bottom of the atmosphere, (N,); ``amps`` (N, 9) in retrieval space."""
    vmr = 10 ** amps[:, :5]
    background = (H2_WEIGHT + HELIUM_RATIO * HE_WEIGHT) / (1 + HELIUM_RATIO)
    weight = vmr @ np.array(list(WEIGHTS.values())) + (1 - vmr.sum(axis=1)) * background
    gravity = GRAVITATIONAL_CONSTANT * 10 ** amps[:, 5] / amps[:, 6] ** 2
    return BOLTZMANN * amps[:, 7] / (weight * ATOMIC_MASS * gravity)


def features(amps):
    """Scale what the network reads, about -1 to 1 each, (N, 10).

    The level depends on mass and radius through the curvature Rp / H and the length of the
    line of sight sqrt(Rp H), so these replace them. The last says how far NH3 has gone over to its hot opacity.
    """
    low, high = prior_limits()
    height = scale_height(amps)
    scaled = 2 * (amps - low) / (high - low) - 1
    scaled[:, 5] = (np.log(amps[:, 6] / height) - 5.0) / 1.3
    scaled[:, 6] = (np.log(amps[:, 6] * height) / 2 - 15.6) / 0.8
    hot = 2 * np.clip((amps[:, 7:8] - HOT_AMMONIA[0]) / np.diff(HOT_AMMONIA), 0, 1) - 1
    return np.concatenate([scaled, hot], axis=1).astype(np.float32)


def level_from_depth(depth, amps):
    """ln(P0 / P) of the level (N, n_bins) at which the planet of this depth (N, n_bins) ends."""
    height = np.sqrt(depth) * SUN_RADIUS - amps[:, 6:7]
    return height / scale_height(amps)[:, None] / (1 + height / amps[:, 6:7])


def depth_from_level(level, amps):
    """Transit depth (N, n_bins) of ln(P0 / P) (N, n_bins); the inverse of `level_from_depth`."""
    potential = level * scale_height(amps)[:, None]
    return ((amps[:, 6:7] / (1 - potential / amps[:, 6:7])) / SUN_RADIUS) ** 2


def slope_of_depth(depth, amps):
    """D depth / d ln(P0 / P), (N, n_bins)."""
    radius = np.sqrt(depth) * SUN_RADIUS
    return 2 * radius**3 / amps[:, 6:7] ** 2 * scale_height(amps)[:, None] / SUN_RADIUS**2


def hats(values, nodes):
    """Weights (..., n_nodes) of linear interpolation between evenly spaced ``nodes``, held at the ends."""
    place = np.clip((values - nodes[0]) / (nodes[1] - nodes[0]), 0, len(nodes) - 1).astype(np.float32)
    return np.maximum(1 - np.abs(place[..., None] - np.arange(len(nodes), dtype=np.float32)), 0)


@dataclass(frozen=True)
class Baseline:
    """Level of a grey bin: that of optical depth 0.56 along the line of sight, or of the cloud top.

    Attributes
    ----------
    molecules : ndarray (5, n_temperatures, n_bins, n_pressures)
        ln of the effective cross-section [m2] of each bin at TEMPERATURES and PRESSURES.
    collisions : ndarray (n_temperatures, n_bins)
        ln of the collision-induced absorption per squared density, m5.
    scattering : ndarray (n_bins,)
        Rayleigh cross-section per molecule of air, m2.
    """

    molecules: np.ndarray
    collisions: np.ndarray
    scattering: np.ndarray

    @classmethod
    def measure(cls):
        """Read it off the forward model's opacities."""
        from simulation.ariel import ariel_grid
        from simulation.cia import PAIRS, coefficient
        from simulation.contributions import rayleigh
        from simulation.forward_model import binning_matrix
        from simulation.kdistribution import KDistributions
        from simulation.opacities import effective_cross_section

        low, high = ariel_grid()[2].T
        grid = np.geomspace(*1e4 / KDistributions.load().edges[[-1, 0]], 2000)  # cm-1, for what is smooth
        binning = binning_matrix(grid)
        share = {"H2": 1 / (1 + HELIUM_RATIO), "He": HELIUM_RATIO / (1 + HELIUM_RATIO)}
        pairs = {pair: np.prod([share[gas] for gas in pair.split("-")]) for pair in PAIRS}
        cross_sections = [
            [[effective_cross_section(name, low, high, t, p) for p in PRESSURES] for t in TEMPERATURES]
            for name in WEIGHTS
        ]
        return cls(
            np.log(np.array(cross_sections)).swapaxes(-1, -2),
            np.array(
                [
                    np.log(binning @ sum(part * coefficient(pair, t, grid) for pair, part in pairs.items()))
                    for t in TEMPERATURES
                ]
            ),
            sum(part * (binning @ rayleigh(gas, grid)) for gas, part in share.items()),
        )

    def level(self, amps):
        """ln(P0 / P), (N, n_bins)."""
        temperature, height, radius = amps[:, 7], scale_height(amps), amps[:, 6]
        at_temperature = hats(temperature, TEMPERATURES)  # (N, n_temperatures)
        shape = (len(amps), len(self.scattering), len(PRESSURES))
        tables = self.molecules.astype(np.float32) + np.float32(60)  # they are about e^-60 m2
        tables = tables.transpose(1, 0, 2, 3).reshape(len(TEMPERATURES), -1)
        logarithms = (at_temperature @ tables).reshape(len(amps), -1, *shape[1:])  # (N, 5, n_bins, n_pressures)
        density = BOTTOM / (BOLTZMANN * temperature)
        path = np.sqrt(2 * np.pi * radius * height)
        to_depth = (density * path * np.exp(-60.0)).astype(np.float32)[:, None] / GREY
        shift = np.log(density**2 * path / np.sqrt(2) / GREY).astype(np.float32)[:, None]
        twice = np.exp(at_temperature @ self.collisions.astype(np.float32) + shift)
        scattering = np.exp(np.float32(60)) * self.scattering.astype(np.float32)
        mixing = (amps[:, :5] * LN10).astype(np.float32)
        gas = np.full(shape[:2], np.log(BOTTOM / PRESSURES[len(PRESSURES) // 2]), np.float32)
        for _ in range(2):  # the cross-sections are those at the pressure of the level
            weights = hats(np.float32(np.log(BOTTOM)) - gas, np.log(PRESSURES).astype(np.float32))
            absorbed = np.exp(np.einsum("nkbp,nbp->nkb", logarithms, weights) + mixing[:, :, None])
            once = (absorbed.sum(axis=1) + scattering) * to_depth
            gas = np.log((once + np.sqrt(once**2 + 4 * twice)) / 2)  # solves once u + twice u^2 = 1 for ln(1 / u)
        clouds = np.broadcast_to((LN10 * (LOG_BOTTOM - amps[:, 8:9])).astype(np.float32), shape[:2])
        return np.logaddexp(np.logaddexp(2 * gas, 2 * clouds), np.float32(0)) / 2  # a soft maximum


@dataclass(frozen=True)
class Emulator:
    """A small network in NumPy on top of the closed form.

    Attributes
    ----------
    baseline : Baseline
    kernels, biases : list of ndarray
        One per layer, float32; swish between layers, none after the last.
    scale : ndarray (4, n_bins)
        Mean and standard deviation of the baseline, which it reads, and of what is left, which it returns.
    """

    baseline: Baseline
    kernels: list
    biases: list
    scale: np.ndarray

    @classmethod
    def load(cls, path=STORED):
        """Read the weights written by this script."""
        with np.load(path) as file:
            n = sum(name.startswith("kernel") for name in file)
            layers = [[file[f"{what}_{i}"] for i in range(n)] for what in ("kernel", "bias")]
            return cls(Baseline(file["molecules"], file["collisions"], file["scattering"]), *layers, file["scale"])

    def save(self, path=STORED):
        """Write the weights, whole or not at all."""
        arrays = {f"kernel_{i}": k for i, k in enumerate(self.kernels)}
        arrays |= {f"bias_{i}": b for i, b in enumerate(self.biases)} | vars(self.baseline)
        with written_whole(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays, scale=self.scale)

    def level(self, amps):
        """ln(P0 / P) of the level at which the planet ends, (N, n_bins)."""
        base = self.baseline.level(amps)
        x = np.concatenate([features(amps), (base - self.scale[0]) / self.scale[1]], axis=1)
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1]):
            x = x @ kernel + bias
            x = 0.5 * x * (1 + np.tanh(0.5 * x))  # swish
        return base + (x @ self.kernels[-1] + self.biases[-1]) * self.scale[3] + self.scale[2]

    def depth(self, amps, chunk=5000):
        """Transit depth (N, n_bins) of AMPs (N, 9) in retrieval space."""
        amps = np.atleast_2d(np.asarray(amps, float))
        parts = [amps[i : i + chunk] for i in range(0, len(amps), chunk)]
        return np.concatenate([depth_from_level(self.level(part).astype(float), part) for part in parts])


def fit(amps, depth, errors, units=(192, 192, 192), epochs=700, batch=256, rate=3e-3, seed=0, progress=True):
    """Train an emulator.

    Parameters
    ----------
    amps : ndarray (N, 9)
    depth, errors : ndarray (N, n_bins)
        Noise-free depth; the loss is its error in units of ``errors``.
    units : sequence of int
    epochs, batch : int
    rate : float
        Learning rate to begin with; it falls to zero along a cosine.
    seed : int
    progress : bool

    Returns
    -------
    Emulator
    """
    baseline = Baseline.measure()
    base = baseline.level(amps)
    left = level_from_depth(depth, amps) - base
    scale = np.array([base.mean(axis=0), base.std(axis=0), left.mean(axis=0), left.std(axis=0)], np.float32)
    x = np.concatenate([features(amps), (base - scale[0]) / scale[1]], axis=1)  # (N, 10 + n_bins)
    y = ((left - scale[2]) / scale[3]).astype(np.float32)
    weight = (slope_of_depth(depth, amps) / errors * scale[3]).astype(np.float32)  # turns an error into sigma
    kernels, biases = train_layers(x, y, weight, units, epochs, batch, rate, seed, progress)
    return Emulator(baseline, kernels, biases, scale)


def train_layers(x, y, weight, units, epochs, batch=256, rate=3e-3, seed=0, progress=True):
    """Train dense layers with swish between them.

    Parameters
    ----------
    x : ndarray (N, n_features)
    y, weight : ndarray (N, n_bins)
        What is learnt, and what turns an error of it into standard deviations of the noise.
    units : sequence of int
    epochs, batch : int
    rate : float
        Learning rate to begin with; it falls to zero along a cosine.
    seed : int
    progress : bool

    Returns
    -------
    kernels, biases : list of ndarray
        One per layer.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf
    from tqdm import trange

    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(n, activation="swish") for n in units]
    model = keras.Sequential([keras.Input((x.shape[1],)), *layers, keras.layers.Dense(y.shape[1])])
    steps = len(x) // batch
    optimiser = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, epochs * steps))
    optimiser.build(model.trainable_variables)
    x, y, weight = (tf.constant(values, tf.float32) for values in (x, y, weight))

    @tf.function
    def epoch(order):
        total = 0.0
        for step in tf.range(steps):
            rows = order[step * batch : (step + 1) * batch]
            with tf.GradientTape() as tape:
                error = (model(tf.gather(x, rows)) - tf.gather(y, rows)) * tf.gather(weight, rows)  # in sigma
                loss = tf.reduce_mean(KNEE**2 * (tf.sqrt(1 + (error / KNEE) ** 2) - 1))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimiser.apply_gradients(zip(gradients, model.trainable_variables))
            total += loss
        return total / tf.cast(steps, tf.float32)

    rng = np.random.default_rng(stream(seed, Stream.EMULATOR))
    with trange(epochs, unit="epoch", disable=None if progress else True) as bar:
        for _ in bar:
            bar.set_postfix(loss=f"{float(epoch(tf.constant(rng.permutation(len(x))))):.2e}")
    kernels, biases = zip(*((layer.kernel.numpy(), layer.bias.numpy()) for layer in model.layers))
    return list(kernels), list(biases)


def load_rows(fraction=TEST_FRACTION, seed=SPLIT_SEED):
    """Shipped data set with the rows of the default split: data, training and validation rows, test rows."""
    from loaders import load_dataset
    from preprocessing import split_test

    data = load_dataset(ROOT / "data" / "ariel_spectra.h5")
    return data, *split_test(data, fraction, seed)


def report(emulator, data, rows):
    """Error over noise on planets it has not seen, as lines of text."""
    ratio = (emulator.depth(data.amps[rows]) - data.spectra[rows]) / data.errors[rows]
    size = np.abs(ratio)
    shift = np.sqrt((ratio**2).sum(axis=1))  # of a whole spectrum, in sigma
    height = scale_height(data.amps[rows])
    extended = ratio[height > np.quantile(height, 0.9)]
    per_bin = np.sqrt((ratio**2).mean(axis=0))
    return [
        f"error / noise on {len(rows)} unseen planets: rms {np.sqrt((ratio**2).mean()):.4f}, "
        f"median {np.median(size):.4f}, 99 % {np.quantile(size, 0.99):.4f}, largest {size.max():.3f}",
        f"per bin: rms {per_bin.min():.4f} to {per_bin.max():.4f} (bin {per_bin.argmax()}), "
        f"99 % {np.quantile(size, 0.99, axis=0).min():.4f} to {np.quantile(size, 0.99, axis=0).max():.4f}",
        f"whole spectrum (root of the summed squares): median {np.median(shift):.3f}, 95 % "
        f"{np.quantile(shift, 0.95):.3f} sigma",
        f"rms of the tenth with the largest scale heights: {np.sqrt((extended**2).mean()):.4f}",
    ]


def main():
    parser = study_parser("emulator", __doc__)
    parser.add_argument("--quick", action="store_true", help="a few epochs of a small network, for a look at the code")
    parser.add_argument("--epochs", type=int, default=700)
    parser.add_argument("--units", type=int, nargs="+", default=[192, 192, 192])
    parser.add_argument(
        "--extra", nargs="*", default=[], metavar="FILE", help="more spectra made by `python -m simulation`"
    )
    parser.add_argument("--out", default=STORED, type=Path, help="default: data/emulator.npz")
    parser.add_argument("--check", action="store_true", help="measure the stored emulator instead of training one")
    arguments = parser.parse_args()
    data, rest, test = load_rows()
    if arguments.check:
        print("\n".join(report(Emulator.load(arguments.out), data, test)))
        return 0
    amps, depth, errors = data.amps[rest], data.spectra[rest], data.errors[rest]
    for path in arguments.extra:
        import h5py

        with h5py.File(path) as file:
            more = [file[name][()].astype(float) for name in ("amps", "spectra", "errors")]
        amps, depth, errors = (np.concatenate(pair) for pair in zip((amps, depth, errors), more))
    start = time.perf_counter()
    units, epochs = ([64, 64], 3) if arguments.quick else (arguments.units, arguments.epochs)
    emulator = fit(amps, depth, errors, units, epochs)
    print(f"trained on {len(amps)} spectra in {time.perf_counter() - start:.0f} s")
    print("\n".join(report(emulator, data, test)))
    if not arguments.quick:
        emulator.save(arguments.out)
        print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
