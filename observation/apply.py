"""Estimate the AMPs of one observation with a finished run: values, errors, consistency, and sensitivity."""

import csv
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from common.files import csv_text, written_whole
from constants import Stream, stream
from loaders.observation import match_grid, read_observation
from observation import compare
from observation.page import Estimate, write_page
from preprocessing import add_noise
from report import map_figures
from report.best_estimator import best_estimator_of, verdicts
from report.style import DPI, amount, as_text, difference_scale, drawn, plotted, write_figure
from runio import log
from runio.folder import RunFolder, refuse_closed, unique_folder
from runio.log import InputError, as_input_error
from runio.results import load_run
from sensitivity import offsets, tilt

logger = logging.getLogger(__name__)

OFFSET = 5e-5  # 50 ppm, depth
TILT = 5e-5  # 50 ppm at either end
REDRAWN = 10.0  # times its error: the width within which a bin is redrawn to show how much depends on it
NOISE_DRAWS = 200  # of the noise of the observation
FILES = re.compile(  # that an application writes
    r"amps\.csv|verdict\.yaml|report\.html|sensitivity.*\.(h5|png|pdf)|config\.yaml|manifest\.json"
    r"|(answer_intervals|spectrum_shares|expectation)\.(png|pdf)"
)


def apply_run(
    run_folder, observation, config, auxiliary=None, output=None, quiet=False, overwrite=False, study=None,
    unverified=False,
):  # fmt: skip
    """Estimate the AMPs of one ``observation`` with every fold of a run, with their errors, and map their sensitivity.

    Writes ``report.html`` with its figures, ``amps.csv``, ``verdict.yaml``, ``sensitivity.h5`` and its figure, and
    ``config.yaml`` with what they were made from; all of them or none, and never over earlier results unless asked.
    What cannot be used raises an InputError.

    ``auxiliary`` are values of the run's auxiliary inputs by name, ``output`` is a folder (by default a new one named
    after the observation, in ``applied`` of the run's), ``study`` the digest of an `observation.planet.Study` that the
    estimate belongs to; ``unverified`` allows a run whose files were changed. Returns the folder that was written.
    """
    with as_input_error():
        run = load_run(run_folder, unverified)
        chosen = config.data
        seen = read_observation(observation, chosen.depth_unit, chosen.width, chosen.columns)
        seen = match_grid(seen, run.wavelength, run.bin_width)
        inputs = _auxiliary(run, auxiliary or {})
    refuse_closed(run.folder / "applied" if output is None else output)
    logger.info("%s: %s", seen.name, seen.note)
    how = {name: getattr(chosen, name) for name in ("depth_unit", "width", "columns")}  # the observation was read
    made_from = {
        "run": str(Path(run_folder).resolve()),
        "observation": str(Path(seen.name).resolve()),
        "auxiliary": auxiliary or {},
        "settings": config.to_dict() | {"data": run.config.get("data", {}) | how},
        "versions": log.versions(),
        **({"study": study} if study else {}),
    }
    if output is None:
        output = unique_folder(run.folder / "applied", folder_name(Path(seen.name).stem))
    with RunFolder(output, made_from, overwrite, marker="amps.csv", names=FILES, resumable=False) as folder:
        _write_estimate(folder.work, run, seen, inputs, config, made_from, quiet)
        folder.finish()
    logger.info("results: %s (report.html, amps.csv ...)", output)
    return Path(output)


def _write_estimate(folder, run, seen, inputs, config, made_from, quiet):
    """Predict with every network of the run and write the files of `apply_run` into an open folder."""
    with log.quiet_stderr():
        from pipeline.network import TrainedNetwork
    with as_input_error():  # without their check of units, which are known; unusual spectra are reported below
        networks = [replace(TrainedNetwork.of_run(run, name), known=None) for name in run.networks]
    *folds, network = networks  # the last one is the mean of the folds, or the only fold
    spectra = np.repeat(seen.depth[None], NOISE_DRAWS, axis=0)
    noisy = add_noise(spectra, seen.error, np.random.default_rng(stream(config.seed, Stream.OBSERVATION_NOISE)))
    values, *noisy = network.predict(np.concatenate([seen.depth[None], noisy]), inputs)
    if not np.isfinite([values, *noisy]).all():
        raise RuntimeError(f"{seen.name}: the network returns NaN or infinity")
    folds = [fold.predict(seen.depth[None], inputs)[0] for fold in folds]
    estimate = assess(run, network, seen, values, config.seed, made_from)
    rows = table_rows(estimate, noisy, folds)
    _write_table(folder / "amps.csv", rows)
    consistency, loud = estimate.consistency, estimate.consistency.status == compare.OUTSIDE
    with written_whole(folder / "verdict.yaml") as part:
        tree = {**consistency.numbers, "verdict": consistency.sentences}
        part.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    logger.info("\n%s\n", screen_table(rows, run.amp_table, len(folds)))
    frame = ["*" * 79] if loud else []  # of a warning
    for line in [*frame, *(f"{seen.name}: {sentence}" for sentence in consistency.sentences), *frame]:
        logger.log(logging.WARNING if loud else logging.INFO, "%s", line)
    if config.sensitivity_single.enabled:
        estimate = _add_sensitivity(estimate, network, run, inputs, config, folder, quiet)
    write_page(folder, estimate)


def _auxiliary(run, given):
    """Return the auxiliary inputs of the run as (n,), or None where it has none."""
    names = run.config.get("data", {}).get("auxiliary") or []
    if sorted(names) != sorted(given):
        raise InputError(f"--auxiliary: expected values of {', '.join(names) or 'nothing'}, received {given or 'none'}")
    return np.array([given[name] for name in names]) if names else None


def assess(run, network, seen, values, seed, made_from):
    """Give values (n_amps,) their prediction intervals, and compare the spectrum with the test planets: `Estimate`."""
    level = comparison = None
    predictions, truths = run.best.y_pred, run.y_test  # of a run of an early version, with its own noise
    if run.reference:
        planets, level = compare.planets_as_seen(run, network, seen.error, seed), compare.error_level(run, seen.error)
        predictions, truths = planets.predictions, planets.truths
        comparison = compare.compare(seen.depth, values, planets)
    levels = compare.LEVELS | compare.ONE_SIDED
    ends = compare.intervals(predictions, truths, values[None], levels=levels)[:, :, 0]
    limits = np.array([run.y_test.min(axis=0), run.y_test.max(axis=0)])
    beyond = (values < limits[0]) | (values > limits[1])
    consistency = compare.consistency(
        comparison, level, seen.wavelength, [name for name, far in zip(run.amp_names, beyond) if far],
        bool(run.data.get("noisy")), len(predictions),
        float(np.abs((seen.depth - network.scaler.x_mean) / network.scaler.x_std).max()),
    )  # fmt: skip
    return Estimate(
        observation=seen,
        amp_table=run.amp_table,
        values=values,
        intervals=ends[:-1],
        one_sided=ends[-1],
        limits=limits,
        consistency=consistency,
        verdicts=verdicts(run, best_estimator_of(run)),
        expected=comparison and comparison.expected,
        residuals=comparison and comparison.standardised,
        made_from=made_from,
        n_planets=len(predictions),
    )


def table_rows(estimate, noisy, folds):
    """Return the rows of amps.csv, a dict per AMP: in retrieval space, and under ``report_`` in units of the report.

    ``noisy`` (NOISE_DRAWS, n_amps) are estimates with further noise, ``folds`` a list of those of each fold (n_amps,).
    """
    noise = np.std(noisy, axis=0, ddof=1)
    spread = np.std(folds, axis=0, ddof=1) if len(folds) > 1 else np.full(len(noise), np.nan)
    rows = []
    for k, amp in enumerate(estimate.amp_table):
        row = {"amp": amp.key, "unit": amp.retrieval_unit, "value": estimate.values[k]}
        row |= {"fold_spread": spread[k], "noise_spread": noise[k]}
        names = [f"{end}{level}" for level in compare.LEVELS for end in ("low", "high")]
        ends = dict(zip(names, estimate.intervals[:, :, k].flat))
        row |= ends
        shown, unit, _ = plotted(amp, [estimate.values[k], *ends.values()])
        row["report_unit"] = as_text(unit)
        row |= {f"report_{name}": value for name, value in zip(("value", *ends), shown)}
        rows.append({key: value if isinstance(value, str) else float(value) for key, value in row.items()})
    return rows


def _write_table(path, rows):
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(
            {name: f"{cell:.6g}" if isinstance(cell, float) else csv_text(str(cell)) for name, cell in row.items()}
            for row in rows
        )


def screen_table(rows, amp_table, n_folds):
    """Return the table for the screen, in the units of the report."""
    heads = ("value", "68 % from", "to", "95 % from", "to", "+- noise", "+- folds")
    lines = [f"{'AMP':<13}" + "".join(f"{head:>12}" for head in heads) + "  unit"]
    for row, amp in zip(rows, amp_table):
        cells = [f"{row[f'report_{name}']:.4g}" for name in ("value", "low68", "high68", "low95", "high95")]
        factor, unit = difference_scale(amp)
        dex = " dex" if unit == "dex" else ""
        cells += [f"{amount(row[f'{name}_spread'] / factor)}{dex}" for name in ("noise", "fold")]
        lines.append(f"{row['amp']:<13}" + "".join(f"{cell:>12}" for cell in cells) + f"  {row['report_unit']}")
    lines.append("(68 and 95 %: prediction intervals from test planets with similar predictions; spreads over noise")
    lines.append(" draws and folds are not errors: they only show how far the estimate itself moves)")
    if n_folds < 2:
        lines.append("(one fold: no spread over folds; train with --cv 5 to see it)")
    if rows and np.isnan(rows[0]["low68"]):
        lines.append(f"(fewer than {compare.MIN_PLANETS} test planets: no intervals)")
    return "\n".join(lines)


# --- sensitivity ---


def _add_sensitivity(estimate, network, run, auxiliary, config, folder, quiet):
    """Add the map of single bins and the effects of systematic errors and of removed bins; write map and figure."""
    seen = estimate.observation
    rules = {"scheme": "single", "nodes": config.sensitivity_single.nodes, "progress": log.shows_progress(quiet)}
    found = network.sensitivity(seen.depth[None], seen.error[None], auxiliary=auxiliary, **rules)
    found.save(folder / "sensitivity.h5")
    curves = {key: curve for key, curve in run.molecule_curves.items() if len(curve) == len(seen.wavelength)}
    figure = map_figures.sensitivity_curves(
        seen.wavelength, seen.bin_width, found.mean, run.amp_table, curves, seen.depth
    )
    write_figure(folder, "sensitivity", *drawn(figure, DPI, True))
    redrawn, replaced = removals(network, seen, estimate.expected, auxiliary)
    moved = systematics(network, seen, auxiliary)
    return replace(estimate, sensitivity=found.mean, systematics=moved, redrawn=redrawn, replaced=replaced)


def directions(seen):
    """Return names and directions (K, n_bins): an offset of each instrument, or of all bins, and a tilt."""
    ppm, instruments = f"{OFFSET * 1e6:g} ppm", seen.instrument
    if instruments is None or len(np.unique(instruments)) < 2:
        names, rows = [f"{ppm} on all bins"], [np.full((1, len(seen.depth)), OFFSET)]
    else:
        names = [f"{ppm} on {name or 'the bins without a name'}" for name in np.unique(instruments)]
        rows = [offsets(instruments, OFFSET)]
    if len(seen.wavelength) > 1:
        names.append(f"tilt of {TILT * 1e6:g} ppm at the ends")
        rows.append(tilt(seen.wavelength, TILT))
    return names, np.concatenate(rows)


def systematics(network, seen, auxiliary=None):
    """Return {direction: root mean square change (n_amps,)} for one standard deviation along each direction.

    The sign is that of the change when the depths are increased (for the tilt: towards long wavelengths).
    """
    names, moved = directions(seen)
    found = network.sensitivity(seen.depth[None], None, auxiliary=auxiliary, directions=moved)
    return dict(zip(names, (np.sign(found.slope) * np.sqrt(found.mean)).T))


def removals(network, seen, expected=None, auxiliary=None):
    """Return how the estimates change when single bins are taken away, twice (n_amps, n_bins).

    First the root mean square change when the bin is redrawn within ten times its error; then the change when it is
    replaced by the depth ``expected`` (n_bins,) from the other bins, None where that is not known.
    """
    found = network.sensitivity(seen.depth[None], REDRAWN * seen.error[None], auxiliary=auxiliary, scheme="single")
    if expected is None:
        return np.sqrt(found.mean), None
    spectra = np.where(np.eye(len(seen.depth), dtype=bool), expected, seen.depth)  # row b: bin b replaced
    predicted = network.predict(np.concatenate([seen.depth[None], spectra]), auxiliary)
    return np.sqrt(found.mean), (predicted[1:] - predicted[0]).T


def folder_name(name):
    """Turn a file name into the name of a folder: letters of any script, no leading dots, not too long."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "observation"
