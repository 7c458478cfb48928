"""Make the data set: transmission spectra of random planets, computed with TauREx 3.

    python data/simulate.py --n 30000 --seed 1 --out data/ariel_spectra.h5

The run can be stopped at any time: finished chunks stay in `<out>.parts` and the same command goes on from there.
Planet i depends on the seed and on i alone, so a short run is the beginning of a long one, whatever the number of
processes. Physics and file layout: `data/README.md`. Needs TauREx 3 (`pip install taurex`).
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `data` is imported from the repository's root

from constants import JUPITER_MASS, JUPITER_RADIUS, SUN_RADIUS  # TauREx's own Jupiter has the equatorial radius
from data.ariel import AIRS_NOISE_RANGE, NOISE_FLOOR, STAR_TEMPERATURE, ariel_grid, noise
from data.molecules import MOLECULES
from data.workers import end_with_parent

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

CHUNK = 100  # planets per chunk, the unit of work and of resuming
DEPTH_STEP = 2.0**-24  # 0.060 ppm: depths are rounded to multiples of this
ERROR_STEP = 2.0**-27  # 0.0075 ppm: and errors to multiples of this
OPACITIES = "correlated k, fitted to tables from HITEMP (H2O, CH4, CO, CO2) and HITRAN (NH3) line lists; data/README.md"
LAYOUT = 1  # raise when the content of a chunk changes meaning


def __getattr__(name):
    """`from data.simulate import ForwardModel` imports TauREx only then (it takes a second)."""
    if name == "ForwardModel":
        from data.forward_model import ForwardModel

        return ForwardModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _limits():
    """Prior limits in retrieval space, two arrays (9,)."""
    limits = [np.log10(limit) if scale == "log10" else np.array(limit) for _, scale, limit in PRIORS.values()]
    return np.array(limits).T


def _uniforms(n, seed, start):
    """Uniform numbers in [0, 1), one row per planet (N, 10): nine AMPs and the noise level."""
    return np.array([np.random.default_rng((seed, i)).random(10) for i in range(start, start + n)]).reshape(n, 10)


def draw_amps(n, seed, start=0):
    """Draw the AMPs of planets `start` to `start + n - 1` from the priors.

    Parameters
    ----------
    n : int
        Number of planets.
    seed : int
        Seed of the data set, not negative.
    start : int
        Index of the first planet.

    Returns
    -------
    numpy.ndarray, shape (n, 9)
        AMPs in retrieval space (log10 VMR, log10 kg, m, K, log10 Pa), exactly representable in float32.
    """
    low, high = _limits()
    amps = low + (high - low) * _uniforms(n, seed, start)[:, :9]
    return amps.astype(np.float32).astype(np.float64)


def draw_errors(n, seed, start=0):
    """Draw the 1-sigma error of each bin for planets `start` to `start + n - 1`: (n, 52), dimensionless."""
    low, high = np.log10(AIRS_NOISE_RANGE)
    errors = noise(10 ** (low + (high - low) * _uniforms(n, seed, start)[:, 9]))
    return np.round(errors / ERROR_STEP) * ERROR_STEP


def check_depth(depth, amps):
    """Raise ValueError unless every depth is finite and between half and 20 times that of the bare planet.

    The upper bound is far above what an atmosphere within the priors adds; crossing it means that the atmosphere
    has blown up (see "Extended atmospheres" in the README).
    """
    bare = (amps[:, 6] / SUN_RADIUS)[:, None] ** 2  # radius in solar radii, squared
    bad = ~(np.isfinite(depth) & (depth > 0.5 * bare) & (depth < 20 * bare)).all(axis=1)
    if bad.any():
        raise ValueError(f"depth: expected finite and sane values, received {depth[bad][0]} for AMPs {amps[bad][0]}")


# --- workers ---

_model = None  # one TauREx model per process, built by _start_worker


def _start_worker(opacities):
    global _model
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    from data.forward_model import ForwardModel

    _model = ForwardModel(opacities)


def _make_chunk(task):
    """Compute one chunk and store it; returns the number of planets in it."""
    path, settings = task
    n, start = settings["stop"] - settings["start"], settings["start"]
    amps = draw_amps(n, settings["seed"], start)
    depth = _model.depth(amps)
    check_depth(depth, amps)
    depth = np.round(depth / DEPTH_STEP) * DEPTH_STEP
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with open(draft, "wb") as file:
        np.savez(file, settings=json.dumps(settings), amps=amps, depth=depth)
    os.replace(draft, path)
    return n


# --- the run ---


def _opacities_id(opacities):
    """Tell one set of opacity tables from another, for resuming: code version, or files with sizes and dates."""
    if opacities is None:
        from data.opacities import code_version

        return f"shipped k-distributions {code_version()}"
    files = sorted(path for path in Path(opacities).iterdir() if path.is_file())
    listing = "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files)
    return "user's tables " + hashlib.sha256(listing.encode()).hexdigest()[:12]


def _physics_version():
    """Short hash of the forward model's source, for resuming."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for name in ("forward_model.py", "contributions.py", "cia.py", "ariel.py"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]


def _finished(path, settings):
    """Whether the chunk at `path` is whole and was made with these settings."""
    try:
        with np.load(path) as chunk:
            return json.loads(str(chunk["settings"])) == settings
    except (OSError, ValueError, KeyError, EOFError):
        return False


def _tasks(n, seed, opacities, parts):
    """(path, settings) of every chunk."""
    common = {
        "layout": LAYOUT,
        "seed": seed,
        "opacities": _opacities_id(opacities),
        "physics": _physics_version(),
        "priors": {key: row[2] for key, row in PRIORS.items()},
    }
    common = json.loads(json.dumps(common))  # as it will be read back
    tasks = []
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        tasks.append((parts / f"{start:07d}-{stop:07d}.npz", {**common, "start": start, "stop": stop}))
    return tasks


def simulate(n, seed, out, opacities=None, processes=2, progress=True):
    """Simulate `n` planets and write the data set.

    Parameters
    ----------
    n : int
        Number of planets.
    seed : int
        Seed, not negative.
    out : path-like
        HDF5 file to write; replaced whole at the end.
    opacities : path-like, optional
        Folder of TauREx tables; None takes the shipped k-distributions.
    processes : int
        Number of worker processes.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    ValueError
        If a table is missing or a depth is not sane.
    """
    from data.forward_model import ForwardModel

    out = Path(out)
    parts = out.with_name(out.name + ".parts")
    reference = ForwardModel(opacities)  # also prepares our opacities and checks the user's before any worker starts
    parts.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(n, seed, opacities, parts)
    todo = [task for task in tasks if not _finished(*task)]
    if todo:
        _run(todo, n, opacities, processes, progress)
    chunks = [np.load(path) for path, _ in tasks]
    amps = np.concatenate([chunk["amps"] for chunk in chunks])
    depth = np.concatenate([chunk["depth"] for chunk in chunks])
    write_file(out, amps, depth, draw_errors(n, seed), molecule_curves(reference), seed, opacities)
    shutil.rmtree(parts)


def _run(todo, n, opacities, processes, progress):
    """Compute the chunks in `todo`, with a progress bar over all `n` planets."""
    left = sum(settings["stop"] - settings["start"] for _, settings in todo)
    pool = ProcessPoolExecutor(
        min(processes, len(todo)), get_context("spawn"), initializer=_start_worker, initargs=(opacities,)
    )
    try:
        futures = [pool.submit(_make_chunk, task) for task in todo]
        with tqdm(total=n, initial=n - left, unit=" spectra", disable=not progress) as bar:
            for future in as_completed(futures):
                bar.update(future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def molecule_curves(model):
    """Depth of the reference planet with one molecule alone over H2/He: {molecule or "none": (52,)}."""
    curves = {}
    for kept in ("none", *MOLECULES):
        amps = np.array(REFERENCE_PLANET)
        amps[:5] = [REFERENCE_PLANET[i] if name == kept else -np.inf for i, name in enumerate(MOLECULES)]
        curves[kept] = model.depth(amps)
    return curves


def write_file(out, amps, depth, errors, curves, seed, opacities=None):
    """Write the data set (layout: `data/README.md`) beside its place and move it there whole."""
    wavelength, bin_width, _ = ariel_grid()
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    compressed = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
    with h5py.File(draft, "w") as file:
        file.create_dataset("spectra", data=depth.astype(np.float32), chunks=(min(1000, len(depth)), 1), **compressed)
        file.create_dataset("errors", data=errors.astype(np.float32), chunks=(min(1000, len(depth)), 1), **compressed)
        file.create_dataset("amps", data=amps, chunks=(min(1000, len(depth)), 1), **compressed)
        file.create_dataset("wavelength", data=wavelength, track_times=False)
        file.create_dataset("bin_width", data=bin_width, track_times=False)
        for key, curve in curves.items():
            file.create_dataset(f"molecule_curves/{key}", data=curve, track_times=False)
        file["spectra"].attrs["unit"] = "transit depth (Rp/Rs)^2, dimensionless, noise-free"
        file["spectra"].attrs["rounding"] = "multiples of 2^-24 (0.060 ppm)"
        file["errors"].attrs["unit"] = "1-sigma error of the transit depth, dimensionless"
        file["errors"].attrs["rounding"] = "multiples of 2^-27 (0.0075 ppm)"
        file["wavelength"].attrs["unit"] = file["bin_width"].attrs["unit"] = "micron"
        file["amps"].attrs["names"] = list(PRIORS)
        file["amps"].attrs["units"] = [row[0] for row in PRIORS.values()]
        file["amps"].attrs["scale"] = [row[1] for row in PRIORS.values()]
        file["molecule_curves"].attrs["reference_planet"] = json.dumps(dict(zip(PRIORS, REFERENCE_PLANET, strict=True)))
        file["molecule_curves"].attrs["description"] = (
            "transit depth of the reference planet (retrieval-space AMPs) with that molecule alone over H2/He; "
            "'none' has no molecule"
        )
        file.attrs.update(_file_attributes(len(amps), seed, opacities))
    os.replace(draft, out)


def _file_attributes(n, seed, opacities):
    """Provenance, without anything that changes between two runs of the same command."""
    import taurex

    from data.forward_model import HELIUM_RATIO, LAYERS, PRESSURE_RANGE, STAR_RADIUS

    priors = {key: {"unit": unit, "scale": scale, "range": limits} for key, (unit, scale, limits) in PRIORS.items()}
    return {
        "title": "Transmission spectra of H2/He planets on an Ariel-Tier-2-like grid",
        "opacities": OPACITIES if opacities is None else "user's tables",
        "seed": seed,
        "command": f"python data/simulate.py --n {n} --seed {seed}" + (" --opacities DIR" if opacities else ""),
        "versions": json.dumps({"taurex": taurex.__version__, "numpy": np.__version__, "layout": LAYOUT}),
        "priors": json.dumps(priors),
        "star": f"blackbody, {STAR_TEMPERATURE:g} K, {STAR_RADIUS:g} solar radius",
        "atmosphere": f"isothermal, well mixed, He/H2 = {HELIUM_RATIO}, Rayleigh scattering, H2-H2 and H2-He CIA, "
        "grey cloud deck; the planet's radius is that of the bottom",
        "layers": LAYERS,
        "pressure_range_Pa": PRESSURE_RANGE,
        "noise": f"photon noise of the star scaled to a median of {AIRS_NOISE_RANGE[0]:g}-{AIRS_NOISE_RANGE[1]:g} ppm "
        f"(log-uniform over planets) in the AIRS bins, {NOISE_FLOOR:g} ppm floor in quadrature",
        "licence": "CC-BY 4.0; code MIT",
        "citation": "Yip et al. 2021, AJ 162, 195 (the method); Al-Refaie et al. 2021, ApJ 917, 37 (TauREx 3)",
    }


def main():
    """Read the command line and run; exits with status 2 and one line on stderr for bad input."""
    parser = argparse.ArgumentParser(description="Simulate transmission spectra of random planets with TauREx 3.")
    parser.add_argument("--n", type=int, default=30000, help="number of planets (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of planets and noise (default %(default)s)")
    parser.add_argument("--out", default="data/ariel_spectra.h5", help="file to write (default %(default)s)")
    parser.add_argument("--opacities", metavar="DIR", help="your own TauREx tables instead of ours")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.n < 1 or arguments.seed < 0 or arguments.processes < 1:
        parser.exit(2, "simulate.py: --n and --processes must be at least 1, --seed at least 0\n")
    if not Path(arguments.out).resolve().parent.is_dir():
        parser.exit(2, f"simulate.py: --out: no folder {Path(arguments.out).resolve().parent}\n")
    if importlib.util.find_spec("taurex") is None:
        parser.exit(2, "simulate.py: needs TauREx 3: pip install taurex\n")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the workers: one thread per process
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    try:
        simulate(arguments.n, arguments.seed, arguments.out, arguments.opacities, arguments.processes)
    except (ValueError, OSError) as error:
        parser.exit(2, f"simulate.py: {error}\n")
    except BrokenProcessPool:
        parser.exit(1, "simulate.py: a worker process died; the same command goes on from here\n")
    except KeyboardInterrupt:
        parser.exit(130, "simulate.py: stopped; the same command goes on from here\n")
    print(f"{arguments.out}: {arguments.n} spectra, {Path(arguments.out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
