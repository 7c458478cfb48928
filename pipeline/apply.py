"""Use the networks of a finished run on one observed spectrum: its AMPs, their spread, and what they rest on."""

import csv
import logging
import re
from pathlib import Path

import numpy as np

from constants import Stream, stream
from loaders.observation import match_grid, read_observation
from preprocessing import add_noise
from runio import console
from runio.errors import InputError, as_input_error
from runio.files import written_whole
from runio.results import load_run
from runio.rundir import RunFolder, unique_folder

logger = logging.getLogger(__name__)

ANSWERS = re.compile(r"amps\.csv|sensitivity.*\.(h5|png|pdf)|config\.yaml|manifest\.json")  # files of an application
NOISE_DRAWS = 200  # per fold
FAR = 5  # standard deviations of the training spectra beyond which a depth is called unlike them


def apply_run(run_folder, observation_path, config, auxiliary=None, output=None, quiet=False, overwrite=False):
    """Predict the AMPs of one observation with every fold of a run, and map their sensitivity.

    Writes ``amps.csv``, ``sensitivity.h5``, the sensitivity figure, and ``config.yaml`` with what they were made from;
    all of them or none, and never over what is there unless asked.

    Parameters
    ----------
    run_folder : path-like
        Folder of a finished run.
    observation_path : path-like
        Table of wavelength, width, depth and error; see ``observation.read_observation``.
    config : config.Config
        ``sensitivity`` (scheme, repeats), ``data.depth_unit``, ``data.width`` and ``seed`` are used.
    auxiliary : dict of str to float, optional
        Values of the run's auxiliary inputs.
    output : path-like, optional
        Folder to write to; by default a new one named after the observation, in ``applied`` of the run's folder.
    quiet : bool
        No progress bar.
    overwrite : bool
        Replace earlier answers in ``output``.

    Returns
    -------
    Path
        The folder that was written to.

    Raises
    ------
    InputError
        If the run, the observation or an auxiliary input cannot be used, or the folder holds other answers.
    """
    with as_input_error():
        run = load_run(run_folder)
        seen = match_grid(
            read_observation(observation_path, config.data.depth_unit, config.data.width), run.wavelength, run.bin_width
        )
        auxiliary_inputs = _auxiliary(run, auxiliary or {})
    logger.info("%s: %s", seen.name, seen.note)
    with console.quiet_stderr():
        from pipeline.network import TrainedNetwork
    with as_input_error():
        best = TrainedNetwork.of_run(run)
        folds = [TrainedNetwork.of_run(run, k) for k in run.folds] if len(run.folds) > 1 else []
    _warn_if_unlike(seen, best)

    answer, noisy = _draws(best, seen, auxiliary_inputs, config.seed)
    folds = [network.predict(seen.depth[None], auxiliary_inputs)[0] for network in folds]
    rows = summarise(answer, noisy, folds, run.amp_table)
    if output is None:
        output = unique_folder(run.folder / "applied", _plain(Path(observation_path).stem))
    made_from = {
        "run": str(Path(run_folder).resolve()),
        "observation": str(Path(observation_path).resolve()),
        "auxiliary": auxiliary or {},
        "settings": config.to_dict(),
        "versions": console.versions(),
    }
    rules = {"marker": "amps.csv", "names": ANSWERS, "resumable": False}
    with RunFolder(output, made_from, overwrite, **rules) as folder:
        _write_table(folder.work / "amps.csv", rows)
        logger.info("\n%s\n", _as_text(rows, len(folds)))
        if config.sensitivity_single.enabled:
            sensitivity = best.sensitivity(
                seen.depth[None],
                seen.error[None],
                auxiliary=auxiliary_inputs,
                scheme="single",
                nodes=config.sensitivity_single.nodes,
                progress=console.shows_progress(quiet),
            )
            sensitivity.save(folder.work / "sensitivity.h5")
            _draw(sensitivity.mean, seen, run, folder.work / "sensitivity")
        folder.finish()
    logger.info("results: %s", output)
    return Path(output)


def _write_table(path, rows):
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def summarise(answer, noisy, folds, amp_table):
    """Return a row per AMP: the answer and where its spread comes from.

    Parameters
    ----------
    answer : ndarray (n_amps,)
        AMPs of the spectrum as observed: of the mean of the folds, or of the only fold.
    noisy : ndarray (NOISE_DRAWS, n_amps)
        The same of the spectrum with further noise drawn from its errors.
    folds : sequence of ndarray (n_amps,)
        Answer of each fold; empty for a run of one.
    amp_table : sequence of constants.AMP

    Returns
    -------
    list of dict
        amp, unit, value, fold_spread (standard deviation over folds, NaN for one), noise_spread (standard deviation
        over noise draws).
    """
    noise = noisy.std(axis=0, ddof=1)
    spread = np.std(folds, axis=0, ddof=1) if len(folds) > 1 else np.full(len(noise), np.nan)
    return [
        {"amp": a.key, "unit": a.retrieval_unit, "value": float(v), "fold_spread": float(f), "noise_spread": float(n)}
        for a, v, f, n in zip(amp_table, answer, spread, noise)
    ]


def _auxiliary(run, given):
    """Return the auxiliary inputs of the run as (n,), or None where it has none."""
    names = run.config.get("data", {}).get("auxiliary") or []
    if sorted(names) != sorted(given):
        raise InputError(f"--auxiliary: expected values of {', '.join(names) or 'nothing'}, received {given or 'none'}")
    return np.array([given[name] for name in names]) if names else None


def _warn_if_unlike(seen, network):
    far = np.abs((seen.depth - network.scaler.x_mean) / network.scaler.x_std).max()
    if far > FAR:
        logger.warning(
            "%s lies %.0f standard deviations from the training spectra: the network extrapolates", seen.name, far
        )


def _draws(network, seen, auxiliary, seed):
    """Return the AMPs (n_amps,) of the spectrum and (NOISE_DRAWS, n_amps) of it with more noise."""
    spectra = np.repeat(seen.depth[None], NOISE_DRAWS, axis=0)
    noisy = add_noise(spectra, seen.error, np.random.default_rng(stream(seed, Stream.OBSERVATION_NOISE)))
    answers = network.predict(np.concatenate([seen.depth[None], noisy]), auxiliary)
    if not np.isfinite(answers).all():
        raise RuntimeError(f"{seen.name}: the network returns NaN or infinity")
    return answers[0], answers[1:]


def _draw(sensitivity, seen, run, path):
    """Write the sensitivity figure, on the observed spectrum, as PNG and PDF."""
    from report import map_figures
    from report.style import our_style

    curves = {key: curve for key, curve in run.molecule_curves.items() if len(curve) == len(seen.wavelength)}
    figure = map_figures.sensitivity_curves(seen.wavelength, sensitivity, run.amp_table, curves, seen.depth)
    for kind in ("png", "pdf"):
        with our_style(), written_whole(path.with_suffix(f".{kind}")) as part:
            figure.savefig(part, format=kind, dpi=200)


def _as_text(rows, n_folds):
    """Return the table for the screen."""
    lines = [f"{'AMP':<10}{'value':>12}{'+- noise':>12}{'+- folds':>12}  unit"]
    for row in rows:
        numbers = "".join(f"{row[name]:>12.4g}" for name in ("value", "noise_spread", "fold_spread"))
        lines.append(f"{row['amp']:<10}{numbers}  {row['unit']}")
    if n_folds < 2:
        lines.append("(one fold: no spread over folds; train with --cv 5 to see it)")
    return "\n".join(lines)


def _plain(name):
    """Return a file name as the name of a folder: letters of any script, no dots in front, not too long."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "observation"
