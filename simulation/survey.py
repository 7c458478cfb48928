"""Make the data set: transmission spectra of random planets, computed with TauREx 3.

    python -m simulation --n 30000 --seed 1 --out data/ariel_spectra.h5
    python -m simulation --observation FILE --planet FILE.yaml --n 40000 --out runs/mine.h5

The second makes planets for one observation: its bins, errors and star, priors around its planet.

A run can be stopped at any time: finished chunks stay in `<out>.parts` and the same command goes on from there.
Planet i depends on the seed and on i alone, so a short run is the beginning of a long one, whatever the number of
processes. Physics and file layout: `data/README.md`. Needs TauREx 3 (`pip install taurex`).
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from common.processes import end_with_parent
from constants import JUPITER_RADIUS
from simulation.ariel import ariel_grid, noise
from simulation.design import ARIEL, ERROR_STEP, PRIORS, REFERENCE_PLANET
from simulation.molecules import MOLECULES

__all__ = [
    "ERROR_STEP",
    "JUPITER_RADIUS",
    "PRIORS",
    "REFERENCE_PLANET",
    "ariel_grid",
    "noise",
]  # for those who ask here

CHUNK = 100  # planets per chunk, the unit of work and of resuming
DEPTH_STEP = 2.0**-24  # 0.060 ppm: depths are rounded to multiples of this
OPACITIES = "correlated k, fitted to tables from HITEMP (H2O, CH4, CO, CO2) and HITRAN (NH3) line lists; data/README.md"
LAYOUT = 1  # raise when the content of a chunk changes meaning


def __getattr__(name):
    """`from simulation.survey import ForwardModel` imports TauREx only then (it takes a second)."""
    if name == "ForwardModel":
        from simulation.forward_model import ForwardModel

        return ForwardModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    return ARIEL.draw_amps(n, seed, start)


def draw_errors(n, seed, start=0):
    """Draw the 1-sigma error of each bin for planets `start` to `start + n - 1`: (n, 52), dimensionless."""
    return ARIEL.draw_errors(n, seed, start)


def check_depth(depth, amps, design=ARIEL):
    """Raise ValueError unless every depth is finite and between half and 20 times that of the bare planet.

    The upper bound is far above what an atmosphere within the priors adds; crossing it means that the atmosphere
    has blown up (see "Extended atmospheres" in the README).
    """
    bare = design.bare_depth(amps[:, 6])[:, None]
    bad = ~(np.isfinite(depth) & (depth > 0.5 * bare) & (depth < 20 * bare)).all(axis=1)
    if bad.any():
        raise ValueError(f"depth: expected finite and sane values, received {depth[bad][0]} for AMPs {amps[bad][0]}")


# --- workers ---

_model = _design = None  # one TauREx model per process, built by _start_worker


def _start_worker(opacities, design):
    global _model, _design
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _model, _design = forward_model(design, opacities), design


def forward_model(design, opacities=None):
    """Return the `ForwardModel` of a design's bins and star; `opacities` as in `simulate`."""
    from simulation.forward_model import ForwardModel

    return ForwardModel(
        opacities, edges=design.edges, star_radius=design.star_radius, star_temperature=design.star_temperature
    )


def _make_chunk(task):
    """Compute one chunk and store it; returns the number of planets in it."""
    path, settings = task
    n, start = settings["stop"] - settings["start"], settings["start"]
    amps = _design.draw_amps(n, settings["seed"], start)
    everything = _design.all_amps(amps)
    depth = _model.depth(everything)
    check_depth(depth, everything, _design)
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
        from simulation.opacities import code_version

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


def _tasks(n, seed, opacities, parts, design):
    """(path, settings) of every chunk."""
    common = {
        "layout": LAYOUT,
        "seed": seed,
        "opacities": _opacities_id(opacities),
        "physics": _physics_version(),
        "priors": {key: row[2] for key, row in design.priors.items()},
    }
    if design is not ARIEL:
        common["design"] = design.identity()
    common = json.loads(json.dumps(common))  # as it will be read back
    tasks = []
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        tasks.append((parts / f"{start:07d}-{stop:07d}.npz", {**common, "start": start, "stop": stop}))
    return tasks


def simulate(n, seed, out, opacities=None, processes=2, progress=True, design=ARIEL):
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
    design : simulation.design.Design
        Bins, errors, star and priors.

    Raises
    ------
    ValueError
        If a table is missing or a depth is not sane.
    """
    out = Path(out)
    parts = out.with_name(out.name + ".parts")
    reference = forward_model(design, opacities)  # also prepares our opacities and checks the user's
    parts.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(n, seed, opacities, parts, design)
    todo = [task for task in tasks if not _finished(*task)]
    if todo:
        _run(todo, n, opacities, processes, progress, design)
    chunks = [np.load(path) for path, _ in tasks]
    amps = np.concatenate([chunk["amps"] for chunk in chunks])
    depth = np.concatenate([chunk["depth"] for chunk in chunks])
    curves = molecule_curves(reference, design)
    write_file(out, amps, depth, design.draw_errors(n, seed), curves, seed, opacities, design)
    shutil.rmtree(parts)


def _run(todo, n, opacities, processes, progress, design):
    """Compute the chunks in `todo`, with a progress bar over all `n` planets."""
    left = sum(settings["stop"] - settings["start"] for _, settings in todo)
    pool = ProcessPoolExecutor(
        min(processes, len(todo)), get_context("spawn"), initializer=_start_worker, initargs=(opacities, design)
    )
    try:
        futures = [pool.submit(_make_chunk, task) for task in todo]
        with tqdm(total=n, initial=n - left, unit=" spectra", disable=not progress) as bar:
            for future in as_completed(futures):
                bar.update(future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def molecule_curves(model, design=ARIEL):
    """Depth of the reference planet with one molecule alone over H2/He: {molecule or "none": (n_bins,)}."""
    curves = {}
    for kept in ("none", *(name for name in MOLECULES if name in design.priors)):
        amps = np.array(design.reference)
        amps[:5] = [design.reference[i] if name == kept else -np.inf for i, name in enumerate(MOLECULES)]
        curves[kept] = model.depth(amps)
    return curves


def write_file(out, amps, depth, errors, curves, seed, opacities=None, design=ARIEL):
    """Write the data set (layout: `data/README.md`) beside its place and move it there whole."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    compressed = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
    with h5py.File(draft, "w") as file:
        file.create_dataset("spectra", data=depth.astype(np.float32), chunks=(min(1000, len(depth)), 1), **compressed)
        file.create_dataset("errors", data=errors.astype(np.float32), chunks=(min(1000, len(depth)), 1), **compressed)
        file.create_dataset("amps", data=amps, chunks=(min(1000, len(depth)), 1), **compressed)
        file.create_dataset("wavelength", data=design.wavelength, track_times=False)
        file.create_dataset("bin_width", data=design.bin_width, track_times=False)
        for key, curve in curves.items():
            file.create_dataset(f"molecule_curves/{key}", data=curve, track_times=False)
        file["spectra"].attrs["unit"] = "transit depth (Rp/Rs)^2, dimensionless, noise-free"
        file["spectra"].attrs["rounding"] = "multiples of 2^-24 (0.060 ppm)"
        file["errors"].attrs["unit"] = "1-sigma error of the transit depth, dimensionless"
        file["errors"].attrs["rounding"] = "multiples of 2^-27 (0.0075 ppm)"
        file["wavelength"].attrs["unit"] = file["bin_width"].attrs["unit"] = "micron"
        file["amps"].attrs["names"] = list(design.priors)
        file["amps"].attrs["units"] = [row[0] for row in design.priors.values()]
        file["amps"].attrs["scale"] = [row[1] for row in design.priors.values()]
        file["molecule_curves"].attrs["reference_planet"] = json.dumps(dict(zip(PRIORS, design.reference, strict=True)))
        file["molecule_curves"].attrs["description"] = (
            "transit depth of the reference planet (retrieval-space AMPs) with that molecule alone over H2/He; "
            "'none' has no molecule"
        )
        file.attrs.update(_file_attributes(len(amps), seed, opacities, design))
    os.replace(draft, out)


def _file_attributes(n, seed, opacities, design):
    """Provenance, without anything that changes between two runs of the same command."""
    import taurex

    from simulation.forward_model import HELIUM_RATIO, LAYERS, PRESSURE_RANGE

    priors = {
        key: {"unit": unit, "scale": scale, "range": limits} for key, (unit, scale, limits) in design.priors.items()
    }
    asked = "".join(f" --{name} {design.sources[name]}" for name in ("observation", "planet") if name in design.sources)
    return {
        "title": design.title,
        "opacities": OPACITIES if opacities is None else "user's tables",
        "seed": seed,
        "command": f"python -m simulation --n {n} --seed {seed}{asked}" + (" --opacities DIR" if opacities else ""),
        "versions": json.dumps({"taurex": taurex.__version__, "numpy": np.__version__, "layout": LAYOUT}),
        "priors": json.dumps(priors),
        "star": f"blackbody, {design.star_temperature:g} K, {design.star_radius:g} solar radius",
        "atmosphere": f"isothermal, well mixed, He/H2 = {HELIUM_RATIO}, Rayleigh scattering, H2-H2 and H2-He CIA, "
        "grey cloud deck; the planet's radius is that of the bottom",
        "layers": LAYERS,
        "pressure_range_Pa": PRESSURE_RANGE,
        "noise": design.noise_text(),
        "licence": "CC-BY 4.0; code MIT",
        "citation": "Yip et al. 2021, AJ 162, 195 (the method); Al-Refaie et al. 2021, ApJ 917, 37 (TauREx 3)",
        **({} if design is ARIEL else {"design": design.identity()}),
        **design.sources,
    }


def _design_of(observation, planet):
    """Read both files; what reads them stands above this room, so the command alone asks for it."""
    return importlib.import_module("observation.planet").survey_design(observation, planet)


def _log_to_stderr(*rooms):
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("simulation: %(message)s"))
    for room in rooms:
        logging.getLogger(room).addHandler(handler)
        logging.getLogger(room).setLevel(logging.INFO)


def main():
    """Read the command line and run; exits with status 2 and one line on stderr for bad input."""
    parser = argparse.ArgumentParser(description="Simulate transmission spectra of random planets with TauREx 3.")
    parser.add_argument("--n", type=int, default=30000, help="number of planets (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of planets and noise (default %(default)s)")
    parser.add_argument("--out", default="data/ariel_spectra.h5", help="file to write (default %(default)s)")
    parser.add_argument("--opacities", metavar="DIR", help="your own TauREx tables instead of ours")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default %(default)s)")
    parser.add_argument("--observation", metavar="FILE", help="simulate the bins and errors of this observed spectrum")
    parser.add_argument("--planet", metavar="FILE.yaml", help="its star and the priors around its planet")
    arguments = parser.parse_args()
    if bool(arguments.observation) != bool(arguments.planet):
        parser.exit(2, "simulation: --observation FILE and --planet FILE.yaml go together, received one of them\n")
    if arguments.n < 1 or arguments.seed < 0 or arguments.processes < 1:
        parser.exit(2, "simulation: --n and --processes must be at least 1, --seed at least 0\n")
    if not Path(arguments.out).resolve().parent.is_dir():
        parser.exit(2, f"simulation: --out: no folder {Path(arguments.out).resolve().parent}\n")
    if importlib.util.find_spec("taurex") is None:
        parser.exit(2, "simulation: needs TauREx 3: pip install taurex\n")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the workers: one thread per process
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    _log_to_stderr("observation", "loaders")  # TauREx has more to say than anybody wants to read
    try:
        design = _design_of(arguments.observation, arguments.planet) if arguments.observation else ARIEL
        simulate(arguments.n, arguments.seed, arguments.out, arguments.opacities, arguments.processes, design=design)
    except (ValueError, OSError) as error:
        parser.exit(2, f"simulation: {error}\n")
    except BrokenProcessPool:
        parser.exit(1, "simulation: a worker process died; the same command goes on from here\n")
    except KeyboardInterrupt:
        parser.exit(130, "simulation: stopped; the same command goes on from here\n")
    print(f"{arguments.out}: {arguments.n} spectra, {Path(arguments.out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
