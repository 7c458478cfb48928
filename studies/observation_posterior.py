"""The network's estimate for an observation beside a retrieval with the same forward model.

    python -m studies.observation_posterior SURVEY.h5 RUN_DIR --observation FILE --planet FILE.yaml --planets 20

samples the posterior of the observation, and of simulated test planets of the run with their noise, with the priors of
the survey: by the tempered sampler whose posteriors of the shipped data are calibrated (``posterior.py``), or with
``--nested`` by nestle (requirements-science.txt), which takes many times longer. The forward model is an emulator that
learns from the rows of the survey that the run did not test (``survey_emulator.py``; kept beside the run as
``emulator.npz``). Its error is printed, and with ``--planet`` every posterior is re-weighted by the true forward model,
which removes the error of the emulator (3 s a planet). Offsets of instruments, which no parameter stands for, are part
of the covariance of the errors. Beside mean and standard deviation of the posterior stand the network's estimate and
half of its 68 % interval (``observation/compare.py``).

Writes --out as CSV, a row per planet and AMP: planet, amp, truth, answer, half68, mean, deviation (of the posterior),
and shift, (answer - mean) / deviation. A planet that is in the file is not sampled again, but the network is
asked again, so that another run on the same survey and seed can be compared with the same posteriors.
"""

import csv
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from common.files import written_whole
from constants import Stream, stream
from loaders import load_dataset
from loaders.observation import match_grid, read_observation
from observation import compare
from preprocessing import noisy_test_spectra
from runio.results import load_run
from simulation.design import survey_design
from simulation.survey import forward_model
from studies.best_fit import covariance_of
from studies.command import study_parser
from studies.posterior import reweight
from studies.samplers import nested_posterior, tempered_posterior
from studies.survey_emulator import Survey, SurveyEmulator, error_text

COLUMNS = ("planet", "amp", "truth", "answer", "half68", "mean", "deviation", "shift")
CLOSE = 0.5  # posterior standard deviations
TRUE_DRAWS = 400  # evaluations of the true forward model
WALKERS, MOVES = 1024, 40  # of the tempered sampler: with 15 parameters fewer leave means uncertain by half a deviation


def emulator_of(survey, run, path, epochs):
    """Return the emulator stored in ``path``; where there is none, make it from the rows that were not tested."""
    if path.is_file():
        return SurveyEmulator.load(path)
    rest = np.setdiff1d(np.arange(len(survey.amps)), run.test_rows)
    emulator = SurveyEmulator.fit(survey, rest, epochs=epochs)
    emulator.save(path)
    return emulator


def network_says(run, network, depth, error, but=None):
    """Return the network's estimate (n_amps,) and half of its 68 % interval; ``but``: row that is no neighbour of its
    own.
    """
    planets = compare.planets_as_seen(run, network, error, run.seed)
    kept = run.reference["rows"] != (-1 if but is None else but)
    answer = network.predict(depth[None])
    low, high = compare.intervals(planets.predictions[kept], planets.truths[kept], answer)[0, :, 0]
    return answer[0], (high - low) / 2


@dataclass(frozen=True)
class Whitened:
    """A model whose depths are combined so that all errors are 1 and independent."""

    model: object
    white: np.ndarray  # (n_bins, n_bins): inverse of Cholesky's root of the covariance

    def depth(self, amps):
        """Whitened depths (n, n_bins) of AMPs (n, n_amps)."""
        return self.model.depth(amps) @ self.white.T


def sample(name, emulator, depth, error, rng, limits, prior=None):
    """Sample one posterior, from AMPs and depths of the ``prior`` or nested; print its cost and the best chi2."""
    start = time.perf_counter()
    if prior is None:
        found = nested_posterior(emulator.depth, depth, error, limits, rng)
    else:
        found = tempered_posterior(emulator.depth, depth, error, limits, prior, rng, WALKERS, MOVES)
    best = (((emulator.depth(found.draws) - depth) / error) ** 2).sum(axis=1).min()
    seconds = time.perf_counter() - start
    print(f"{name}: {found.calls} calls, {seconds:.0f} s; best chi2 {best:.0f} of {len(depth)} bins", flush=True)
    return found


def beside(name, names, truth, says, mean, deviation):
    """Set the network's answer and error beside a posterior: rows of `COLUMNS`."""
    answer, half = says
    truth = np.full(len(answer), np.nan) if truth is None else truth
    rows = zip(names, truth, answer, half, mean, deviation, (answer - mean) / deviation)
    return [dict(zip(COLUMNS, (name, *row))) for row in rows]


def read_rows(path):
    """Rows of an earlier run of the study, [] without one."""
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return [{k: v if k in ("planet", "amp") else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write_rows(path, rows):
    """Write the table, whole or not at all."""
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def summary(rows):
    """Lines of text: how close the network is to the posterior of the observation, then of the simulated planets."""
    lines = []
    observed = [row for row in rows if np.isnan(row["truth"])]
    if observed:
        lines.append(f"{observed[0]['planet']:<14}{'answer':>11}{'+-':>10}{'posterior':>11}{'+-':>10}{'shift':>8}")
    for row in observed:
        cells = f"{row['answer']:11.4g}{row['half68']:10.2g}{row['mean']:11.4g}{row['deviation']:10.2g}"
        lines.append(f"{row['amp']:<14}{cells}{row['shift']:8.2f}")
    simulated = [row for row in rows if not np.isnan(row["truth"])]
    names = list(dict.fromkeys(row["amp"] for row in simulated))
    if not names:
        return lines
    lines.append(f"\n{len(simulated) // len(names)} simulated planets; shift = (answer - posterior mean) / deviation")
    heads = (f"within {CLOSE:g}", "rms shift", "error ratio", "posterior z", "network z")
    lines.append(f"{'':9}" + "".join(f"{head:>13}" for head in heads))
    for name in (*names, "all"):
        these = [row for row in simulated if name in (row["amp"], "all")]
        column = {key: np.array([row[key] for row in these]) for key in COLUMNS[2:]}
        away = [(column["truth"] - column["mean"]) / column["deviation"]]
        away.append((column["truth"] - column["answer"]) / column["half68"])
        numbers = [np.mean(np.abs(column["shift"]) < CLOSE), np.sqrt(np.mean(column["shift"] ** 2))]
        numbers += [np.median(column["half68"] / column["deviation"]), *(np.sqrt(np.mean(z**2)) for z in away)]
        lines.append(f"{name:<9}" + "".join(f"{number:13.2f}" for number in numbers))
    planets = {}
    for row in simulated:
        planets.setdefault(row["planet"], []).append(abs(row["shift"]) < CLOSE)
    near = np.array([np.mean(values) for values in planets.values()])
    error = near.std(ddof=1) / np.sqrt(len(near)) if len(near) > 1 else np.nan
    lines.append(f"within {CLOSE:g}, mean over planets: {near.mean():.3f} +- {error:.3f}")
    lines.append(
        "error ratio: half of the 68 % interval over the posterior deviation, median; z: rms of (truth - mean)"
    )
    lines.append("over the deviation, and of (truth - answer) over half of the interval: 1 where errors are right")
    return lines


def under_true_model(true, emulator, found, depth, error, rng, names):
    """Mean, deviation (n_amps,) and a line of text of a posterior, corrected for the error of its emulator.

    `TRUE_DRAWS` draws are re-weighted by the true model, and the changes of their mean and deviation are applied to
    those of the whole posterior: so few draws determine the changes far better than the values themselves.
    """
    mean, variance, fraction, before, spread = reweight(true, emulator, found, depth, error, rng, TRUE_DRAWS)
    moved, ratio = mean - before, np.sqrt(variance / spread)
    text = ", ".join(f"{name} {shift:+.2f}" for name, shift in zip(names, moved / np.sqrt(spread)))
    text = f"  true model: {fraction:.2f} of {TRUE_DRAWS} draws in effect, means move by {text} deviations"
    return found.mean + moved, np.sqrt(found.variance) * ratio, text


def main():
    parser = study_parser("observation_posterior", __doc__)
    parser.add_argument("survey", help="file of simulation/survey.py that the run was trained on")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--observation", help="table of the observation")
    parser.add_argument("--planet", help="its planet file; with it posteriors are those of the true forward model")
    parser.add_argument("--planets", type=int, default=20, help="simulated planets (default %(default)s)")
    parser.add_argument("--nested", action="store_true", help="by nested sampling")
    parser.add_argument("--epochs", type=int, default=300, help="of the emulator (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("observation_posterior.csv"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run, survey = load_run(arguments.run), Survey.read(arguments.survey)
    if run.reference is None or run.amp_names != survey.names or run.config.get("data", {}).get("auxiliary"):
        print("error: expected a run of this version on this survey, without auxiliary inputs", file=sys.stderr)
        return 2
    from pipeline.network import TrainedNetwork

    network, data = TrainedNetwork.of_run(run), load_dataset(arguments.survey)
    true, offsets = None, {}
    if arguments.observation and arguments.planet:
        design = survey_design(arguments.observation, arguments.planet)
        true, offsets = forward_model(design), design.offsets
    emulator = emulator_of(survey, run, run.folder / "emulator.npz", arguments.epochs)
    print(error_text(emulator, survey, run.test_rows), flush=True)
    rest = np.setdiff1d(np.arange(len(survey.amps)), run.test_rows)
    old, rows, sampled = read_rows(arguments.out), [], {}
    for row in old:
        sampled.setdefault(row["planet"], []).append((row["mean"], row["deviation"]))
    noisy = noisy_test_spectra(data, run.test_rows, run.seed)
    jobs = []
    if arguments.observation:
        seen = match_grid(read_observation(arguments.observation), run.wavelength, run.bin_width)
        jobs.append((Path(arguments.observation).stem, seen.depth, seen.error, None, None))
    chosen = np.random.default_rng(stream(arguments.seed, Stream.STUDY_PLANETS, 20)).permutation(len(noisy))
    for place in chosen[: arguments.planets].tolist():
        error = data.errors[run.test_rows[place]].astype(float)
        jobs.append((f"test {place}", noisy[place], error, run.y_test[place], place))
    for name, depth, error, truth, place in jobs:
        if name in sampled:
            mean, deviation = np.array(sampled[name]).T
        else:
            key = 0 if place is None else place + 1
            rng = np.random.default_rng(stream(arguments.seed, Stream.NESTED_SAMPLING, key))
            white = np.linalg.inv(np.linalg.cholesky(covariance_of(error, offsets)))
            fast, seen, unit = Whitened(emulator, white), white @ depth, np.ones(len(error))
            prior = None if arguments.nested else (survey.amps[rest], survey.depth[rest] @ white.T)
            found = sample(name, fast, seen, unit, rng, emulator.limits, prior)
            mean, deviation = found.mean, np.sqrt(found.variance)
            if true is not None:
                rng = np.random.default_rng(stream(arguments.seed, Stream.REWEIGHTING, key))
                exact = Whitened(true, white)
                mean, deviation, text = under_true_model(exact, fast, found, seen, unit, rng, emulator.names)
                print(text, flush=True)
        says = network_says(run, network, depth, error, place)
        rows += beside(name, run.amp_names, truth, says, mean, deviation)
        write_rows(arguments.out, [*rows, *(row for row in old if row["planet"] not in {r["planet"] for r in rows})])
    print("\n".join(summary(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
