"""A fast emulator of the forward model for any simulated survey: transit depth from AMPs, on the bins of an
observation.

`emulator.py` is made for the shipped grid. This one learns from a survey file alone (``python -m simulation``, with or
without ``--observation``): a network returns the pressure level at which each bin's planet ends, from the AMPs and the
scale height. It is less exact, so its error is measured on test planets, in units of the noise, and printed.
"""

import json
import re
from dataclasses import dataclass

import h5py
import numpy as np

from common.files import written_whole
from constants import AMPS, PAPER_AMPS
from studies.emulator import depth_from_level, level_from_depth, scale_height, slope_of_depth, train_layers

CLEAR = 6.0  # log10 Pa of the cloud top where a survey has no clouds


@dataclass(frozen=True)
class SurveyEmulator:
    """A small dense network in NumPy: AMPs of a survey to the pressure level of each bin, and from there to the
    depth.
    """

    names: tuple
    limits: np.ndarray
    star: float
    kernels: list
    biases: list
    scale: np.ndarray

    @classmethod
    def fit(cls, survey, rows, units=(256, 256, 256), epochs=300, seed=0, progress=True):
        """Learn from some rows of a survey."""
        amps, depth = survey.amps[rows], survey.depth[rows].astype(float) * survey.star**2  # as of a star like the Sun
        everything = all_amps(amps, survey.names)
        level = level_from_depth(depth, everything)
        scale = np.array([level.mean(axis=0), level.std(axis=0)], np.float32)
        weight = slope_of_depth(depth, everything) / (survey.errors[rows] * survey.star**2) * scale[1]
        x = features(amps, everything, survey.limits)
        kernels, biases = train_layers(
            x, (level - scale[0]) / scale[1], weight, units, epochs, seed=seed, progress=progress
        )
        return cls(survey.names, survey.limits, survey.star, kernels, biases, scale)

    def depth(self, amps):
        """Transit depth (N, n_bins) of AMPs (N, n_amps) in retrieval space."""
        amps = np.atleast_2d(np.asarray(amps, float))
        everything = all_amps(amps, self.names)
        x = features(amps, everything, self.limits)
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1]):
            x = x @ kernel + bias
            x = 0.5 * x * (1 + np.tanh(0.5 * x))  # swish
        level = (x @ self.kernels[-1] + self.biases[-1]) * self.scale[1] + self.scale[0]
        return depth_from_level(level.astype(float), everything) / self.star**2

    def save(self, path):
        """Write the weights, whole or not at all."""
        arrays = {f"kernel_{i}": k for i, k in enumerate(self.kernels)}
        arrays |= {f"bias_{i}": b for i, b in enumerate(self.biases)}
        with written_whole(path) as part, open(part, "wb") as file:
            np.savez_compressed(
                file, names=np.array(self.names), limits=self.limits, star=self.star, scale=self.scale, **arrays
            )

    @classmethod
    def load(cls, path):
        """Read what `save` wrote."""
        with np.load(path) as file:
            n = sum(name.startswith("kernel") for name in file)
            layers = [[file[f"{what}_{i}"] for i in range(n)] for what in ("kernel", "bias")]
            names = tuple(str(name) for name in file["names"])
            return cls(names, file["limits"], float(file["star"]), *layers, file["scale"])


@dataclass(frozen=True)
class Survey:
    """What a survey file holds, as far as an emulator needs it; shapes as in ``data/README.md``."""

    names: tuple
    limits: np.ndarray
    star: float
    amps: np.ndarray
    depth: np.ndarray
    errors: np.ndarray

    @classmethod
    def read(cls, path):
        """Read a file of ``python -m simulation``; ValueError where it lacks priors or star, or has an AMP unknown to
        the paper.
        """
        with h5py.File(path) as file:
            if not {"priors", "star"} <= set(file.attrs):
                raise ValueError(f"{path}: expected a survey of simulation/survey.py, with its priors and its star")
            names = tuple(str(name) for name in file["amps"].attrs["names"])
            strange = sorted(set(names) - set(AMPS))
            if strange:
                raise ValueError(f"{path}: expected AMPs of constants.AMPS, received {', '.join(strange)}")
            priors = json.loads(file.attrs["priors"])
            star = float(re.search(r"([\d.]+) solar radi", str(file.attrs["star"])).group(1))
            ends = [np.log10(p["range"]) if p["scale"] == "log10" else p["range"] for p in map(priors.get, names)]
            amps, depth, errors = (file[key][()] for key in ("amps", "spectra", "errors"))
            if "offsets" in file:  # an emulator returns the depths without them
                depth = depth - file["offsets"][()] @ file["offset_bins"][()].astype(np.float32)
            return cls(names, np.array(ends, float).T, star, amps, depth, errors)


def all_amps(amps, names):
    """Return the nine AMPs of the paper (N, 9) of a survey (N, n_amps); what it leaves out is absent."""
    columns = dict(zip(names, np.asarray(amps, float).T))
    absent = {"Pclouds": CLEAR}
    return np.column_stack([columns.get(key, np.full(len(amps), absent.get(key, -np.inf))) for key in PAPER_AMPS])


def features(amps, everything, limits):
    """Scale what the network reads to about -1 to 1, (N, n_amps + 2): the AMPs, ln Rp / H and ln Rp H."""
    low, high = limits
    height, radius = scale_height(everything), everything[:, 6]
    more = [(np.log(radius / height) - 5) / 1.3, (np.log(radius * height) / 2 - 15.6) / 0.8]
    return np.column_stack([2 * (amps - low) / (high - low) - 1, *more]).astype(np.float32)


def error_text(emulator, survey, rows):
    """Describe the difference of emulator and forward model on unseen planets, in units of their noise."""
    ratio = (emulator.depth(survey.amps[rows]) - survey.depth[rows]) / survey.errors[rows]
    shift = np.sqrt((ratio**2).sum(axis=1))
    return (
        f"emulator, error / noise on {len(rows)} unseen planets: rms {np.sqrt((ratio**2).mean()):.3f}, median"
        f" {np.median(np.abs(ratio)):.3f}, 99 % {np.quantile(np.abs(ratio), 0.99):.3f}; whole spectrum: median"
        f" {np.median(shift):.2f}, 95 % {np.quantile(shift, 0.95):.2f} sigma"
    )
