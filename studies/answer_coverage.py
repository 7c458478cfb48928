"""How often does the truth lie in the prediction intervals of an application, and which rule for them is best?

    python -m studies.answer_coverage RUN_DIR --out studies/results/answer_coverage.txt

One half of the test planets of a finished run gives the intervals, and the other half is used to test them. Each of
`RULES` is scored for each AMP by its coverage at 68.27 and 95.45 %, by the tenth of the planets (along the prediction)
where the coverage is furthest from that, and by the interval score (Gneiting and Raftery 2007, JASA 102, 359): the
width of the interval plus a penalty for truths outside, in standard deviations of the truth. Smaller is better.

For a run that keeps its test spectra it also measures, with noise of k times the median errors of the data set, the
coverage of intervals from planets with the same noise, as applications make them, and of those from the run's own
noise, and how many estimates lie in their own 68 % interval; and how many spectra unlike any simulated planet are
detected at 1 false alarm in 100, by the distance from planets with similar predictions (``observation/compare.py``),
from all spectra, and from the nearest spectrum.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.files import written_whole
from constants import Stream, stream
from observation.compare import (
    LEVELS,
    NEIGHBOURS,
    OUTSIDE_BINS,
    OUTSIDE_SHARE,
    conformal_quantiles,
    intervals,
    local_neighbours,
    local_size,
    nearest,
    own_size,
    planets_as_seen,
    share_beyond,
)
from runio.results import load_run
from studies.command import study_parser

TENTHS = 10
ERROR_LEVELS = (0.1, 0.5, 1, 2, 3, 5, 10, 20, 30, 100, 1000)
TEST_PLANETS = 400  # test planets per row of the table of strange spectra


def neighbours(predictions, residuals, prediction, ends):
    """Quantiles among the nearest planets, without a scale; arguments as of ``compare.local_neighbours``."""
    return conformal_quantiles(residuals[nearest(predictions, prediction, NEIGHBOURS)], ends, axis=1)


def local_scale(predictions, residuals, prediction, ends):
    """Quantiles of all planets, with a local scale."""
    relative = residuals / own_size(predictions, residuals, np.arange(len(predictions)))
    return conformal_quantiles(relative, ends, axis=0)[:, :, None] * local_size(predictions, residuals, prediction)


def one_width(predictions, residuals, prediction, ends):
    """Quantiles of all planets, the same for every prediction."""
    return np.repeat(conformal_quantiles(residuals, ends, axis=0)[:, :, None], len(prediction), axis=2)


RULES = {
    "local neighbours": local_neighbours,  # what applications use
    "neighbours": neighbours,
    "local scale": local_scale,
    "global": one_width,
}


def score_intervals(low, high, truths, predictions, level):
    """Coverage, that of the worst tenth, and interval score, (n_amps,) each, of intervals ``low`` to ``high`` (m,
    n_amps).
    """
    inside = (truths >= low) & (truths <= high)
    outside = np.maximum(low - truths, 0) + np.maximum(truths - high, 0)
    score = (high - low + 2 / (1 - level) * outside) / truths.std(axis=0)
    tenth = np.argsort(np.argsort(predictions, axis=0), axis=0) * TENTHS // len(predictions)
    shares = np.array([np.nanmean(np.where(tenth == t, inside, np.nan), axis=0) for t in range(TENTHS)])
    worst = np.take_along_axis(shares, np.abs(shares - level).argmax(axis=0)[None], axis=0)[0]
    return inside.mean(axis=0), worst, score.mean(axis=0)


def halves(n, seed):
    """Return two halves of n rows, drawn at random."""
    order = np.random.default_rng(stream(seed, Stream.STUDY_PLANETS, 18)).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def coverage_table(predictions, truths, names, seed=0):
    """Score every rule on half of the planets, with intervals from the other half; return lines of text."""
    known, tested = halves(len(predictions), seed)
    lines = [f"{len(known)} planets give the intervals, {len(tested)} are tested on"]
    error = {label: np.sqrt(level * (1 - level) / len(tested)) for label, level in LEVELS.items()}
    lines.append("standard error of a coverage: " + ", ".join(f"{e:.4f} at {label} %" for label, e in error.items()))
    lines.append(f"{'':28}" + "".join(f"{name[:9]:>9}" for name in names) + f"{'mean':>9}")
    for rule, quantiles in RULES.items():
        found = intervals(predictions[known], truths[known], predictions[tested], quantiles)
        for (label, level), (low, high) in zip(LEVELS.items(), found):
            numbers = score_intervals(low, high, truths[tested], predictions[tested], level)
            for what, row in zip(("coverage", "worst tenth", "score"), numbers):
                cells = "".join(f"{value:9.3f}" for value in (*row, row.mean()))
                lines.append(f"{rule:<17}{label:>2} {what:<12}"[:32].ljust(28) + cells)
    return lines


def strangers(run, seed):
    """Yield (change, noisy spectra) of test planets that were made unlike the simulated ones."""
    rng = np.random.default_rng(stream(seed, Stream.STUDY_NOISE, 18))
    spectra, error = run.reference["spectra"].astype(float), run.reference["error"]
    n_bins = spectra.shape[1]
    noise = error * rng.standard_normal(spectra.shape)
    bins = np.arange(n_bins)
    yield "as simulated", spectra + noise
    for size in (3, 5, 10):
        bump = np.exp(-0.5 * ((bins - rng.integers(n_bins, size=(len(spectra), 1))) / 1.5) ** 2)
        yield f"a band of three bins, {size} errors high", spectra + noise + size * error * bump
    for size in (2, 4):
        yield f"half of the bins {size} errors too deep", spectra + noise + size * error * (bins >= n_bins // 2)
    yield "one bin 8 errors off", spectra + noise + 8 * error * (bins == rng.integers(n_bins, size=(len(spectra), 1)))
    yield "half as deep again", 1.5 * spectra + noise


def level_table(run, network, seed=0):
    """Measure the coverage, mean over AMPs, for observations with other errors; return lines of text."""
    heads = (("same noise 68", 15), ("95", 8), ("width", 8), ("in own 68", 12), ("noise of run 68", 18), ("95", 8))
    lines = [f"{'errors / those trained on':28}" + "".join(f"{head:>{room}}" for head, room in heads)]
    known, tested = halves(len(run.reference["rows"]), seed)
    own = planets_as_seen(run, network, run.reference["error"], seed)
    for k in ERROR_LEVELS:
        seen = planets_as_seen(run, network, k * run.reference["error"], seed + 1)
        cells, width, own68 = [], 0, 0
        for planets in (seen, own):
            found = intervals(planets.predictions[known], planets.truths[known], seen.predictions[tested])
            truth = seen.truths[tested]
            cells.append([((truth >= low) & (truth <= high)).mean() for low, high in found])
            width = width or np.mean((found[0][1] - found[0][0]) / 2 / truth.std(axis=0))
            low, high = found[0]
            own68 = own68 or ((seen.predictions[tested] >= low) & (seen.predictions[tested] <= high)).mean()
        (same, both), (other, others) = cells
        lines.append(f"{k:<28g}{same:15.3f}{both:8.3f}{width:8.3f}{own68:12.3f}{other:18.3f}{others:8.3f}")
    return lines


def detection_table(run, network, seed=0):
    """Measure how many strange spectra each distance detects at 1 false alarm in 100; return lines of text."""
    planets = planets_as_seen(run, network, run.reference["error"], seed)
    auxiliary = run.reference.get("auxiliary")
    rows = np.random.default_rng(stream(seed, Stream.STUDY_PLANETS, 19)).permutation(len(planets.predictions))
    first, second = np.sort(rows[:TEST_PLANETS]), np.sort(rows[TEST_PLANETS : 2 * TEST_PLANETS])
    others = np.setdiff1d(np.arange(len(planets.predictions)), np.concatenate([first, second]))
    precision = np.linalg.inv(np.cov(planets.clean.T) + np.diag(planets.error**2))
    mean, near = planets.clean.mean(axis=0), planets.clean[others] / planets.error

    def distances(spectra, rows):
        predictions = network.predict(spectra[rows], None if auxiliary is None else auxiliary[rows])
        similar, residuals, deviations = planets.residuals(spectra[rows], predictions, rows)
        bins, misfit = np.abs(residuals).max(axis=1), planets.misfit(residuals, deviations)
        away = spectra[rows] - mean
        everywhere = ((away @ precision) * away).sum(axis=1)
        return np.stack([similar, bins, misfit, everywhere, _nearest(near, spectra[rows] / planets.error)])

    lines, limits = [f"{'':40}{'similar':>8}{'bin':>8}{'misfit':>8}{'any':>8}{'all':>8}{'nearest':>9}"], None
    for what, spectra in strangers(run, seed):
        if limits is None:
            limits = np.quantile(distances(spectra, first), OUTSIDE_SHARE, axis=1)[:, None]
        beyond = distances(spectra, second) > limits
        deep = share_beyond(spectra[second], planets.spectra[others]) > OUTSIDE_BINS
        similar, pull, misfit, everywhere, one = beyond.mean(axis=1)
        found = (beyond[:3].any(axis=0) | deep).mean()  # as `Comparison.outside`
        cells = f"{similar:8.3f}{pull:8.3f}{misfit:8.3f}{found:8.3f}{everywhere:8.3f}{one:9.3f}"
        lines.append(f"{what:<40}" + cells)
    return lines


def _nearest(near, spectra):
    """Return the squared distance to the nearest of the rows ``near``, (m,); both in units of the errors."""
    return ((spectra**2).sum(axis=1)[:, None] + (near**2).sum(axis=1) - 2 * spectra @ near.T).min(axis=1)


def main():
    parser = study_parser("answer_coverage", __doc__)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--seed", type=int, default=0, help="of the halves (default %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    lines = coverage_table(run.best.y_pred, run.y_test, run.amp_names, arguments.seed)
    if run.reference is None or run.data.get("noisy"):
        lines += ["", "no noise-free test spectra in this run: nothing on other errors and on strange spectra"]
    else:
        from pipeline.network import TrainedNetwork

        network = replace(TrainedNetwork.of_run(run), known=None)  # noise far from training is what is studied
        for table in (level_table, detection_table):
            lines += ["", *table(run, network, arguments.seed)]
    print("\n".join(lines))
    if arguments.out:
        with written_whole(arguments.out) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
