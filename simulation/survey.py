"""Simulate a survey and write its file: planets in chunks, by several processes, resumable.

A run can be stopped at any time: finished chunks stay in `<out>.parts`, and the same command goes on from there.
Planet i depends on the seed and on i alone, so a short run is the beginning of a long one, whatever the number of
processes. Physics and file layout: `data/README.md`.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from common.files import digest, hdf5_written_whole, written_whole
from common.processes import end_with_parent
from constants import AMPS
from simulation.atmosphere import HELIUM_RATIO
from simulation.design import ARIEL
from simulation.forward_model import LAYERS, PRESSURE_RANGE, ForwardModel
from simulation.opacities import Opacities, code_version

logger = logging.getLogger(__name__)

CHUNK = 100  # planets per chunk, the unit of work and of resuming
DEPTH_STEP = 2.0**-24  # 0.060 ppm: depths are rounded to multiples of this
OPACITIES = (
    "correlated k, fitted to tables from HITEMP (H2O, CH4, CO, CO2) and HITRAN (NH3, SO2) line lists; data/README.md"
)
LAYOUT = 2  # raise when the content of a chunk changes meaning
CHUNK_NAME = re.compile(r"(\.part\d+-)?\d{7,}-\d{7,}\.npz")


def check_depth(depth, amps, design=ARIEL):
    """Raise ValueError unless every depth is finite and between half and 20 times that of the bare planet.

    The upper bound is far above what an atmosphere within the priors adds; a depth beyond it means that the
    atmosphere has no top.
    """
    bare = design.bare_depth(amps[:, list(design.priors).index("Rp")])[:, None]
    bad = ~(np.isfinite(depth) & (depth > 0.5 * bare) & (depth < 20 * bare)).all(axis=1)
    if bad.any():
        raise ValueError(f"depth: expected finite and sane values, received {depth[bad][0]} for AMPs {amps[bad][0]}")


# --- workers ---

_model = _design = None  # one model per process, built by _start_worker


def _start_worker(opacities, design):
    global _model, _design
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _model, _design = forward_model(design, opacities), design


def forward_model(design, opacities=None):
    """Return the `ForwardModel` of a design's AMPs, bins and star; `opacities` as in `simulate`."""
    opacities = Opacities.load() if opacities is None else opacities
    return ForwardModel(opacities, names=design.priors, edges=design.edges, star_radius=design.star_radius)


def _make_chunk(task):
    """Compute one chunk and store it; returns the number of planets in it."""
    path, settings = task
    n, start = settings["stop"] - settings["start"], settings["start"]
    amps = _design.draw_amps(n, settings["seed"], start)
    depth = _model.depth(amps)
    check_depth(depth, amps, _design)
    depth = np.round(depth / DEPTH_STEP) * DEPTH_STEP
    write_chunk(path, settings, depth)
    return n


# --- chunks on disk ---


def _chunk_digest(settings, depth):
    """SHA-256 of what a chunk holds; `settings` as text."""
    return hashlib.sha256(settings.encode() + np.ascontiguousarray(depth, float).tobytes()).hexdigest()


def write_chunk(path, settings, depth):
    """Store the depths (n, n_bins) of a chunk with its settings and their checksum, whole or not at all."""
    text = json.dumps(settings)
    with written_whole(path) as part, open(part, "wb") as file:
        np.savez(file, settings=text, depth=depth, sha256=_chunk_digest(text, depth))


def read_chunk(path, settings):
    """Return the depths (n, n_bins) of a chunk, None if it is missing or damaged; ValueError for another survey."""
    try:
        with np.load(path) as file:
            text, depth, checksum = str(file["settings"]), file["depth"], str(file["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        text = checksum = depth = None
    if depth is None or checksum != _chunk_digest(text, depth):
        logger.warning("%s: damaged, and made again", path)
        return None
    if json.loads(text) != settings:
        raise ValueError(
            f"{path.parent}: holds planets of another survey (seed, planet file, observation or version of the "
            "simulation); --overwrite to start again"
        )
    return depth


def check_place(out, overwrite):
    """Raise ValueError unless a survey may be written to `out`: nothing there, or with `overwrite` a survey."""
    parts = _parts_of(out)
    if parts.is_symlink() or (parts.exists() and not parts.is_dir()):
        raise ValueError(f"{parts}: expected no file, or the folder of an unfinished survey")
    if parts.is_dir() and not all(CHUNK_NAME.fullmatch(path.name) for path in parts.iterdir()):
        raise ValueError(f"{parts}: expected the folder of an unfinished survey, received one with other files")
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_file():
        raise ValueError(f"{out}: expected a new file or a survey, received a folder, link or device")
    if not is_survey(out):
        raise ValueError(f"{out}: not a survey, and only a survey is ever replaced; expected another name")
    if not overwrite:
        raise ValueError(f"{out}: holds a survey; --overwrite to replace it")


def is_survey(path):
    """Whether a file was written by `write_file`."""
    try:
        with h5py.File(path) as file:
            return {"seed", "priors", "star", "noise"} <= set(file.attrs) and {"spectra", "errors", "amps"} <= set(file)
    except OSError:
        return False


def _parts_of(out):
    return out.with_name(out.name + ".parts")


# --- the run ---


def _opacities_id(opacities):
    """Tell one set of opacity tables from another, for resuming: code version, or files with sizes and dates."""
    if opacities is None:
        return f"shipped k-distributions {code_version()}"
    files = sorted(path for path in Path(opacities).iterdir() if path.is_file())
    listing = "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files)
    return "user's tables " + hashlib.sha256(listing.encode()).hexdigest()[:12]


def _physics_version():
    """Short hash of the forward model's source, for resuming."""
    files = ("forward_model.py", "atmosphere.py", "contributions.py", "alkali.py", "cia.py", "ariel.py")
    return digest(*(Path(__file__).with_name(name) for name in files))[:12]


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


def simulate(n, seed, out, opacities=None, processes=2, progress=True, design=ARIEL, overwrite=False):
    """Simulate `n` planets of a `Design` and write the survey `out`, which appears whole at the end.

    `opacities` may be a folder of TauREx tables; with `overwrite` a survey that is already there is replaced, finished
    or not, but never anything else. A ValueError says that a table is missing, a depth not sane, or the place taken.
    """
    out = Path(out)
    parts = _parts_of(out)
    check_place(out, overwrite)
    reference = forward_model(design, opacities)  # also prepares our opacities and checks the user's
    if overwrite and parts.is_dir():
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(n, seed, opacities, parts, design)
    todo = [task for task in tasks if read_chunk(*task) is None]
    if todo:
        _run(todo, n, opacities, processes, progress, design)
    depth = np.concatenate([read_chunk(*task) for task in tasks])
    write_file(out, depth, molecule_curves(reference, design), seed, opacities, design)
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
    gases = [name for name in design.priors if AMPS[name].kind == "molecule"]
    planet = dict(zip(design.priors, design.reference, strict=True))
    without = {kept: dict.fromkeys(set(gases) - {kept}, -np.inf) for kept in ("none", *gases)}
    return {kept: model.depth(list((planet | absent).values())) for kept, absent in without.items()}


def write_file(out, depth, curves, seed, opacities=None, design=ARIEL):
    """Write the data set (layout: `data/README.md`) beside its place and move it there whole; `depth` (n, n_bins)."""
    n = len(depth)
    amps, errors, offsets = (draw(n, seed) for draw in (design.draw_amps, design.draw_errors, design.draw_offsets))
    for shift, (_, bins) in zip(offsets.T, design.offsets.values()):
        depth = np.where(bins, np.round((depth + shift[:, None]) / DEPTH_STEP) * DEPTH_STEP, depth)
    large = {"chunks": (min(1000, n), 1), "compression": "gzip", "compression_opts": 9, "shuffle": True}
    with hdf5_written_whole(out) as file:

        def add(name, values, attributes=None, **layout):
            file.create_dataset(name, data=values, track_times=False, **layout).attrs.update(attributes or {})

        said = {
            "unit": "transit depth (Rp/Rs)^2, dimensionless, noise-free",
            "rounding": "multiples of 2^-24 (0.060 ppm)",
        }
        add("spectra", depth.astype(np.float32), said, **large)
        said = {"unit": "1-sigma error of the transit depth, dimensionless"}
        add("errors", errors.astype(np.float32), said | {"rounding": "multiples of 2^-27 (0.0075 ppm)"}, **large)
        units, scales, _ = zip(*design.priors.values())
        add("amps", amps, {"names": list(design.priors), "units": list(units), "scale": list(scales)}, **large)
        add("wavelength", design.wavelength, {"unit": "micron"})
        add("bin_width", design.bin_width, {"unit": "micron"})
        for key, curve in curves.items():
            add(f"molecule_curves/{key}", curve)
        file["molecule_curves"].attrs.update({
            "reference_planet": json.dumps(dict(zip(design.priors, design.reference, strict=True))),
            "description": "transit depth of the reference planet (retrieval-space AMPs) with that molecule alone over "
            "H2/He; 'none' has no molecule",
        })  # fmt: skip
        if design.offsets:
            said = {"unit": "dimensionless, part of the depths of the instrument's bins"}
            add("offsets", offsets.astype(np.float32), said | {"instruments": list(design.offsets)})
            add("offset_bins", [bins for _, bins in design.offsets.values()])
        file.attrs.update(_file_attributes(n, seed, opacities, design))


def _file_attributes(n, seed, opacities, design):
    """Provenance, without anything that changes between two runs of the same command."""
    priors = {key: dict(zip(("unit", "scale", "range"), row)) for key, row in design.priors.items()}
    own = " --opacities DIR" if opacities else ""
    asked = "".join(f" --{name} {design.sources[name]}" for name in ("observation", "planet") if name in design.sources)
    return {
        "title": design.title,
        "opacities": OPACITIES if opacities is None else "user's tables",
        "seed": seed,
        "command": f"python -m simulation --n {n} --seed {seed}{asked}{own} --out FILE",
        "versions": json.dumps({"numpy": np.__version__, "layout": LAYOUT}),
        "priors": json.dumps(priors),
        "star": f"blackbody, {design.star_temperature:g} K, {design.star_radius:g} solar radius",
        "atmosphere": _atmosphere_text(design),
        "layers": LAYERS,
        "pressure_range_Pa": PRESSURE_RANGE,
        "noise": design.noise_text(),
        "licence": "CC-BY 4.0; code MIT",
        "citation": "Yip et al. 2021, AJ 162, 195 (the method); Al-Refaie et al. 2021, ApJ 917, 37 (TauREx 3)",
        **({} if design is ARIEL else {"design": design.identity()}),
        **design.sources,
    }


def _atmosphere_text(design):
    """Say what the forward model has in it, for the file."""
    drawn = design.priors
    parts = [
        "temperature linear in log pressure from 1 microbar to 1 bar" if "T_gradient" in drawn else "isothermal",
        f"well mixed, He/H2 = {HELIUM_RATIO}, Rayleigh scattering, H2-H2 and H2-He CIA",
        *(["Na and K doublets"] if {"Na", "K"} & set(drawn) else []),
        *(["haze"] if "haze_factor" in drawn else []),
        "grey cloud deck" + (" over a part of the limb" if "cloud_fraction" in drawn else ""),
    ]
    return ", ".join(parts) + "; the planet's radius is that of the bottom"
