"""Use the networks of a finished run on one observed spectrum: its AMPs, their spread, and what they rest on."""

import csv
import logging
import re
from pathlib import Path

import numpy as np

from loaders.observation import match_grid, read_observation
from preprocessing import Scaler, add_noise
from runio import console
from runio.errors import InputError, as_input_error
from runio.files import written_whole
from runio.results import load_run

logger = logging.getLogger(__name__)

NOISE_DRAWS = 200  # per fold
FAR = 5  # standard deviations of the training spectra beyond which a depth is called unlike them


def apply_run(run_folder, observation_path, config, auxiliary=None, output=None, quiet=False):
    """Predict the AMPs of one observation with every fold of a run, and map their sensitivity.

    Writes ``amps.csv``, ``sensitivity.h5`` and the sensitivity figure.

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
        Folder to write to; by default one named after the observation, in ``applied`` of the run's folder.
    quiet : bool
        No progress bar.

    Returns
    -------
    Path
        The folder that was written to.

    Raises
    ------
    InputError
        If the run, the observation or an auxiliary input cannot be used.
    """
    with as_input_error():
        run = load_run(run_folder)
        seen = match_grid(
            read_observation(observation_path, config.data.depth_unit, config.data.width), run.wavelength, run.bin_width
        )
        held = _auxiliary(run, auxiliary or {})
    logger.info("%s: %s", seen.name, seen.note)
    with console.quiet_stderr():
        from models import load_model
    with as_input_error():
        networks = {k: load_model(run.folder / f"model_{k}.keras") for k in run.folds}
    scalers = {k: Scaler(**fold.scaler) for k, fold in run.folds.items()}
    _warn_if_unlike(seen, scalers)

    draws = {k: _draws(networks[k], scalers[k], seen, held, config.seed) for k in networks}
    rows = summarise(draws, run.amp_table)
    output = Path(output) if output else run.folder / "applied" / _plain(Path(observation_path).stem)
    output.mkdir(parents=True, exist_ok=True)
    with written_whole(output / "amps.csv") as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    logger.info("\n%s\n", _as_text(rows, len(draws)))
    if config.sensitivity.enabled:
        maps = [_map(networks[k], scalers[k], seen, held, run, config, quiet) for k in networks]
        for k, found in zip(networks, maps):
            found.save(output / (f"sensitivity_{k}.h5" if len(maps) > 1 else "sensitivity.h5"))
        _draw(np.mean([found.mean for found in maps], axis=0), seen, run, output / "sensitivity")
    logger.info("results: %s", output)
    return output


def summarise(draws, amp_table):
    """Return a row per AMP: the answer and where its spread comes from.

    Parameters
    ----------
    draws : dict of int to (answer (n_amps,), noisy (NOISE_DRAWS, n_amps))
        Per fold: the AMPs of the spectrum as observed, and of the spectrum with further noise drawn from its errors.
    amp_table : sequence of constants.AMP

    Returns
    -------
    list of dict
        amp, unit, value (mean over folds), fold_spread (standard deviation over folds, NaN for one), noise_spread
        (standard deviation over noise draws, root mean square over folds).
    """
    answers = np.array([answer for answer, _ in draws.values()])
    noise = np.sqrt(np.mean([noisy.var(axis=0, ddof=1) for _, noisy in draws.values()], axis=0))
    folds = answers.std(axis=0, ddof=1) if len(answers) > 1 else np.full(len(noise), np.nan)
    return [
        {"amp": a.key, "unit": a.retrieval_unit, "value": float(v), "fold_spread": float(f), "noise_spread": float(n)}
        for a, v, f, n in zip(amp_table, answers.mean(axis=0), folds, noise)
    ]


def _auxiliary(run, given):
    """Return the auxiliary inputs of the run as (1, n), or None where it has none."""
    names = run.config.get("data", {}).get("auxiliary") or []
    if sorted(names) != sorted(given):
        raise InputError(f"--auxiliary: expected values of {', '.join(names) or 'nothing'}, received {given or 'none'}")
    return np.array([[given[name] for name in names]]) if names else None


def _warn_if_unlike(seen, scalers):
    for k, scaler in scalers.items():
        far = np.abs((seen.depth - scaler.x_mean) / scaler.x_std).max()
        if far > FAR:
            logger.warning(
                "%s lies %.0f standard deviations from the training spectra of fold %d: the network extrapolates",
                seen.name, far, k,
            )  # fmt: skip
            return


def _predict(model, scaler, spectra, held):
    held = None if held is None else np.repeat(held, len(spectra), axis=0)
    return scaler.amps(model.predict(scaler.inputs(spectra, held), batch_size=1024, verbose=0))


def _draws(model, scaler, seen, held, seed):
    """Return the AMPs (n_amps,) of the spectrum and (NOISE_DRAWS, n_amps) of it with more noise."""
    spectra = np.repeat(seen.depth[None], NOISE_DRAWS, axis=0)
    noisy = add_noise(spectra, seen.error, np.random.default_rng([seed, 9]))
    answers = _predict(model, scaler, np.concatenate([seen.depth[None], noisy]), held)
    if not np.isfinite(answers).all():
        raise RuntimeError(f"{seen.name}: the network returns NaN or infinity")
    return answers[0], answers[1:]


def _map(model, scaler, seen, held, run, config, quiet):
    from sensitivity import sensitivity_map

    return sensitivity_map(
        model,
        None,
        seen.depth[None],
        seen.error[None],
        scaler.y_mean,
        scaler.y_std,
        gases=run.amp_names,
        no_spectra=1,
        repeat=config.sensitivity.repeat,
        x_mean=scaler.x_mean,
        x_std=scaler.x_std,
        rng=[config.seed, 7],
        scheme=config.sensitivity.scheme,
        auxiliary=None if held is None else scaler.scaled_auxiliary(held),
        progress=console.shows_progress(quiet),
    )


def _draw(sensitivity, seen, run, path):
    """Write the sensitivity figure, on the observed spectrum, as PNG and PDF."""
    from report import map_figures

    curves = {key: curve for key, curve in run.molecule_curves.items() if len(curve) == len(seen.wavelength)}
    figure = map_figures.sensitivity_curves(seen.wavelength, sensitivity, run.amp_table, curves, seen.depth)
    for kind in ("png", "pdf"):
        with written_whole(path.with_suffix(f".{kind}")) as part:
            figure.savefig(part, format=kind, dpi=200)


def _as_text(rows, n_folds):
    """Return the table for the screen."""
    lines = [f"{'AMP':<10}{'value':>12}{'+- noise':>12}{'+- folds':>12}  unit"]
    for row in rows:
        numbers = "".join(f"{row[name]:>12.4g}" for name in ("value", "noise_spread", "fold_spread"))
        lines.append(f"{row['amp']:<10}{numbers}  {row['unit']}")
    if n_folds == 1:
        lines.append("(one fold: no spread over folds; train with --cv 5 to see it)")
    return "\n".join(lines)


def _plain(name):
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name) or "observation"
