"""What an instrument's zero point, a tilt, and the loss of one bin would do to the answers for one observation."""

import csv
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from common.files import written_whole
from constants import Stream, stream
from loaders.observation import match_grid, read_observation
from observation import compare
from observation.compare import OUTSIDE, standing
from observation.page import Application, write_answer_report
from preprocessing import add_noise
from runio import log
from runio.folder import RunFolder, refuse_closed, unique_folder
from runio.log import InputError, as_input_error
from runio.results import load_run
from sensitivity import offsets, tilt

logger = logging.getLogger(__name__)

OFFSET = 5e-5  # 50 ppm, depth
TILT = 5e-5  # 50 ppm at either end
LOST = 10.0  # times its error: a bin that is as good as taken away


@dataclass(frozen=True)
class Systematics:
    """Changes of the answers along directions that move many bins together.

    Attributes
    ----------
    names : tuple of str
        Of the K directions.
    change : ndarray (n_amps, K)
        Root mean square change for one standard deviation along the direction, in the AMPs' retrieval-space units; the
        sign is that of the change when the depths are pushed up (a tilt: redder bins deeper).
    """

    names: tuple
    change: np.ndarray


@dataclass(frozen=True)
class Removals:
    """Changes of the answers when one bin is taken away.

    Attributes
    ----------
    spread : ndarray (n_amps, n_bins)
        Root mean square change when the bin is redrawn within ten times its error.
    shift : ndarray (n_amps, n_bins) or None
        Change when the bin is replaced by what the others lead one to expect; None where that is not known.
    """

    spread: np.ndarray
    shift: np.ndarray | None


def directions(seen):
    """Return names and directions (K, n_bins): the zero point of each instrument, or of all bins, and a tilt.

    Parameters
    ----------
    seen : loaders.observation.Observation
    """
    ppm, instruments = f"{OFFSET * 1e6:g} ppm", seen.instrument
    if instruments is None or len(np.unique(instruments)) < 2:
        names, rows = [f"{ppm} on all bins"], [np.full((1, len(seen.depth)), OFFSET)]
    else:
        names = [f"{ppm} on {name or 'the bins without a name'}" for name in np.unique(instruments)]
        rows = [offsets(instruments, OFFSET)]
    if len(seen.wavelength) > 1:
        names.append(f"tilt of {TILT * 1e6:g} ppm at the ends")
        rows.append(tilt(seen.wavelength, TILT))
    return tuple(names), np.concatenate(rows)


def move_together(network, seen, auxiliary=None):
    """Move bins together and see what the answers do.

    Parameters
    ----------
    network : pipeline.network.TrainedNetwork
    seen : loaders.observation.Observation
        On the bins of the network.
    auxiliary : ndarray (n_auxiliary,), optional

    Returns
    -------
    Systematics
    """
    names, moved = directions(seen)
    found = network.sensitivity(seen.depth[None], None, auxiliary=auxiliary, directions=moved)
    return Systematics(names, np.sign(found.slope) * np.sqrt(found.mean))


def take_away(network, seen, expected=None, auxiliary=None):
    """Take single bins away and see what the answers do; as `move_together`.

    Parameters
    ----------
    expected : ndarray (n_bins,), optional
        What the other bins lead one to expect of each, depth.

    Returns
    -------
    Removals
    """
    found = network.sensitivity(seen.depth[None], LOST * seen.error[None], auxiliary=auxiliary, scheme="single")
    shift = None
    if expected is not None:
        n_bins = len(seen.depth)
        replaced = np.where(np.eye(n_bins, dtype=bool), expected, seen.depth)  # row b: bin b replaced
        answers = network.predict(np.concatenate([seen.depth[None], replaced]), auxiliary)
        shift = (answers[1:] - answers[0]).T
    return Removals(np.sqrt(found.mean), shift)


ANSWERS = re.compile(  # files of an application
    r"amps\.csv|verdict\.yaml|report\.html|sensitivity.*\.(h5|png|pdf)|config\.yaml|manifest\.json"
    r"|(answer_intervals|spectrum_shares|expectation)\.(png|pdf)"
)
NOISE_DRAWS = 200  # of the noise of the observation


def apply_run(run_folder, observation_path, config, auxiliary=None, output=None, quiet=False, overwrite=False):
    """Predict the AMPs of one observation with every fold of a run, with their errors, and map their sensitivity.

    Writes ``report.html`` with its figures, ``amps.csv``, ``verdict.yaml`` (whether the observation is like what was
    trained on), ``sensitivity.h5``, the sensitivity figure, and ``config.yaml`` with what they were made from; all of
    them or none, and never over what is there unless asked.

    Parameters
    ----------
    run_folder : path-like
        Folder of a finished run.
    observation_path : path-like
        Table of wavelength, width, depth and error; see ``observation.read_observation``.
    config : config.Config
        ``sensitivity_single``, ``data.depth_unit``, ``data.width`` and ``seed`` are used.
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
        If the run, the observation or an auxiliary input cannot be used, or the folder cannot be written or holds other
        answers.
    """
    with as_input_error():
        run = load_run(run_folder)
        seen = match_grid(
            read_observation(observation_path, config.data.depth_unit, config.data.width), run.wavelength, run.bin_width
        )
        auxiliary_inputs = _auxiliary(run, auxiliary or {})
    refuse_closed(run.folder / "applied" if output is None else output)
    logger.info("%s: %s", seen.name, seen.note)
    with log.quiet_stderr():
        from pipeline.network import TrainedNetwork
    with as_input_error():
        best = TrainedNetwork.of_run(run)
        folds = [TrainedNetwork.of_run(run, k) for k in run.folds] if len(run.folds) > 1 else []

    answer, noisy = _draws(best, seen, auxiliary_inputs, config.seed)
    folds = [network.predict(seen.depth[None], auxiliary_inputs)[0] for network in folds]
    planets = test_planets(run, best, seen, config.seed)
    found = compare.intervals(*planets_known(run, planets), answer[None])[:, :, 0]  # (n_levels, 2, n_amps)
    rows = summarise(answer, noisy, folds, run.amp_table, found)
    like, stands = judge_observation(run, seen, answer, planets, best.scaler)
    if output is None:
        output = unique_folder(run.folder / "applied", _plain(Path(observation_path).stem))
    made_from = {
        "run": str(Path(run_folder).resolve()),
        "observation": str(Path(observation_path).resolve()),
        "auxiliary": auxiliary or {},
        "settings": config.to_dict(),
        "versions": log.versions(),
    }
    rules = {"marker": "amps.csv", "names": ANSWERS, "resumable": False}
    with RunFolder(output, made_from, overwrite, **rules) as folder:
        _write_table(folder.work / "amps.csv", rows)
        with written_whole(folder.work / "verdict.yaml") as part:
            part.write_text(yaml.safe_dump({**stands.numbers, "verdict": stands.sentences}, sort_keys=False))
        logger.info("\n%s\n", _as_text(rows, len(folds)))
        _tell(seen.name, stands)
        page = page_contents(run, seen, answer, found, like, stands, made_from)
        if config.sensitivity_single.enabled:
            sensitivity = best.sensitivity(
                seen.depth[None],
                seen.error[None],
                auxiliary=auxiliary_inputs,
                scheme="single",
                nodes=config.sensitivity_single.nodes,
                progress=log.shows_progress(quiet),
            )
            sensitivity.save(folder.work / "sensitivity.h5")
            _draw(sensitivity.mean, seen, run, folder.work / "sensitivity")
            page = replace(
                page,
                sensitivity=sensitivity.mean,
                moved=move_together(best, seen, auxiliary_inputs),
                lost=take_away(best, seen, page.expected, auxiliary_inputs),
            )
        write_answer_report(folder.work, page)
        folder.finish()
    logger.info("results: %s (report.html, amps.csv ...)", output)
    return Path(output)


def test_planets(run, network, seen, seed):
    """Return the run's test planets as the observing instrument would see them; None for a run that keeps none."""
    return compare.planets_as_seen(run, network, seen.error, seed) if run.reference else None


test_planets.__test__ = False  # no case of pytest


def planets_known(run, planets):
    """Return answers to and truths of test planets, (n, n_amps): with the observation's noise, else the run's."""
    return (run.best.y_pred, run.y_test) if planets is None else (planets.answers, planets.truths)


def judge_observation(run, seen, answer, planets, scaler):
    """Say where an observation stands among what the run was trained on.

    Parameters
    ----------
    run : runio.results.Run
    seen : loaders.observation.Observation
        On the bins of the run.
    answer : ndarray (n_amps,)
    planets : observation.compare.TestPlanets or None
    scaler : preprocessing.Scaler
        Of the network that answered.

    Returns
    -------
    like : observation.compare.Likeness or None
    stands : observation.compare.Standing
    """
    like = None if planets is None else compare.likeness(seen.depth, answer, planets)
    away = (answer < run.y_test.min(axis=0)) | (answer > run.y_test.max(axis=0))
    return like, standing(
        like,
        None if planets is None else compare.error_level(run, seen.error),
        seen.wavelength,
        [name for name, far in zip(run.amp_names, away) if far],
        compare.is_noisy(run),
        len(planets_known(run, planets)[0]),
        float(np.abs((seen.depth - scaler.x_mean) / scaler.x_std).max()),
    )


def page_contents(run, seen, answer, intervals, like, stands, made_from):
    """Put together what the report shows of an answer, without maps."""
    return Application(
        seen.name, run.amp_table, seen.wavelength, seen.depth, seen.error, answer, intervals,
        run.y_test.min(axis=0), run.y_test.max(axis=0), stands, seen.instrument,
        None if like is None else like.expected, None if like is None else like.pulls, made_from=made_from,
        bin_width=seen.bin_width,
    )  # fmt: skip


def _tell(name, stands):
    """Log where an observation stands; loudly if it lies outside."""
    loud = stands.status == OUTSIDE
    if loud:
        logger.warning("*" * 79)
    for sentence in stands.sentences:
        logger.log(logging.WARNING if loud else logging.INFO, "%s: %s", name, sentence)
    if loud:
        logger.warning("*" * 79)


def _write_table(path, rows):
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def summarise(answer, noisy, folds, amp_table, intervals=None):
    """Return a row per AMP: the answer, where its spread comes from, and its error.

    Parameters
    ----------
    answer : ndarray (n_amps,)
        AMPs of the spectrum as observed: of the mean of the folds, or of the only fold.
    noisy : ndarray (NOISE_DRAWS, n_amps)
        The same of the spectrum with further noise drawn from its errors.
    folds : sequence of ndarray (n_amps,)
        Answer of each fold; empty for a run of one.
    amp_table : sequence of constants.AMP
    intervals : ndarray (n_levels, 2, n_amps), optional
        Low and high end for each of ``compare.LEVELS``; NaN without.

    Returns
    -------
    list of dict
        amp, unit, value, fold_spread (standard deviation over folds, NaN for one), noise_spread (standard deviation
        over noise draws), low68, high68, low95, high95 (ends of the intervals that hold the truth of so many in 100).
    """
    noise = noisy.std(axis=0, ddof=1)
    spread = np.std(folds, axis=0, ddof=1) if len(folds) > 1 else np.full(len(noise), np.nan)
    if intervals is None:
        intervals = np.full((len(compare.LEVELS), 2, len(noise)), np.nan)
    rows = []
    for k, amp in enumerate(amp_table):
        row = {"amp": amp.key, "unit": amp.retrieval_unit, "value": answer[k]}
        row |= {"fold_spread": spread[k], "noise_spread": noise[k]}
        for level, ends in zip(compare.LEVELS, intervals[:, :, k]):
            row |= {f"low{level}": ends[0], f"high{level}": ends[1]}
        rows.append({key: value if isinstance(value, str) else float(value) for key, value in row.items()})
    return rows


def _auxiliary(run, given):
    """Return the auxiliary inputs of the run as (n,), or None where it has none."""
    names = run.config.get("data", {}).get("auxiliary") or []
    if sorted(names) != sorted(given):
        raise InputError(f"--auxiliary: expected values of {', '.join(names) or 'nothing'}, received {given or 'none'}")
    return np.array([given[name] for name in names]) if names else None


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
    figure = map_figures.sensitivity_curves(
        seen.wavelength, sensitivity, run.amp_table, curves, seen.depth, bin_width=seen.bin_width
    )
    for kind in ("png", "pdf"):
        with our_style(), written_whole(path.with_suffix(f".{kind}")) as part:
            figure.savefig(part, format=kind, dpi=200)


def _as_text(rows, n_folds):
    """Return the table for the screen."""
    columns = {"value": "value", "low68": "68 % from", "high68": "to", "low95": "95 % from", "high95": "to"}
    columns |= {"noise_spread": "+- noise", "fold_spread": "+- folds"}
    lines = [f"{'AMP':<10}" + "".join(f"{head:>11}" for head in columns.values()) + "  unit"]
    for row in rows:
        lines.append(f"{row['amp']:<10}" + "".join(f"{row[name]:>11.4g}" for name in columns) + f"  {row['unit']}")
    lines.append("(68 and 95 % of test planets that are answered like this one have their truth in the intervals;")
    lines.append(" noise and folds are only what moves the answer itself)")
    if n_folds < 2:
        lines.append("(one fold: no spread over folds; train with --cv 5 to see it)")
    if rows and np.isnan(rows[0]["low68"]):
        lines.append(f"(fewer than {compare.FEWEST} test planets: no intervals)")
    return "\n".join(lines)


def _plain(name):
    """Return a file name as the name of a folder: letters of any script, no dots in front, not too long."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "observation"
