"""How many repeats and spectra does a map need? Its error against a long run on other planets and draws.

    python -m studies.repeats RUN_DIR

The reference is the map of ``--reference`` test planets. The maps that are tried are of other test planets with other
draws, both schemes at the same numbers of evaluations per spectrum. Of each, per AMP:

- error: sum over bins of |map - reference of this scheme| / sum of the reference
- spearman, top_ten: rank correlation and shared ten largest bins with the reference of single bins
- total_error: relative standard error of the sum over bins, as the map itself states it
- z: root mean square over bins of (map - reference) / error bar, 1 where error bars are right
- repeat_part: error bar due to the repeats over the whole error bar, mean over bins (largest number of spectra)

A second table is about ``tolerance``: after how many spectra the test stopped, its error, and the relative difference
of each AMP's sum over bins from the reference (off), to compare with the tolerance.
"""

import sys
from pathlib import Path

import numpy as np

from common.metrics import spearman
from constants import Stream, stream
from studies.command import RESULTS, study_parser
from studies.faithfulness import load_network
from studies.map_agreement import shared_top
from studies.tables import data_frame, mean_over_seeds, with_error, write_csv

REPEATS = (1, 3, 10, 30, 100)  # of the single-bin scheme; halving gets as many evaluations
SPECTRA = (10, 30, 100, 300)
TOLERANCES = (0.3, 0.2, 0.1)


def map_of(network, data, rows, scheme, repeat, rng, tolerance=None):
    """`sensitivity.SensitivityMap` of the test planets ``rows`` in scaled units."""
    return network.sensitivity(
        data.spectra[rows].astype(float),
        data.errors[rows].astype(float),
        repeat=repeat,
        rng=rng,
        nodes=None,
        scheme=scheme,
        scaled=True,
        tolerance=tolerance,
    )


def mean_and_error(per_spectrum):
    """Map and its standard error over spectra, (n_amps, n_bins) each, of maps (n, n_amps, n_bins)."""
    return per_spectrum.mean(axis=0), per_spectrum.std(axis=0, ddof=1) / np.sqrt(len(per_spectrum))


def compare(per_spectrum, reference, single_reference):
    """Compare the map of some spectra with the references: dict of numbers per AMP, (n_amps,) each."""
    values, error = mean_and_error(per_spectrum)
    truth, truth_error = mean_and_error(reference)
    best = single_reference.mean(axis=0)
    total, total_error = mean_and_error(per_spectrum.sum(axis=2, keepdims=True))
    bars = np.hypot(error, truth_error)
    return {
        "error": np.abs(values - truth).sum(axis=1) / truth.sum(axis=1),
        "spearman": np.array([spearman(a, b) for a, b in zip(values, best)]),
        "top_ten": np.array([shared_top(a, b) for a, b in zip(values, best)]),
        "total_error": (total_error / total)[:, 0],
        "z": np.sqrt((((values - truth) / bars) ** 2).mean(axis=1)),
    }


def run_seed(network, data, references, rows, repeats, spectra, seed):
    """Rows of the table for one seed: every scheme, number of repeats and of spectra."""
    from perturbation.engine import halving_sizes

    n_bins = data.spectra.shape[1]
    groups = {"single": n_bins, "halving": len(halving_sizes(n_bins))}
    chosen = np.random.default_rng(stream(seed, Stream.STUDY_PLANETS, 2)).permutation(rows)
    table = []
    for scheme, n_groups in groups.items():
        for times in repeats:
            repeat = max(round(times * n_bins / n_groups), 1)
            n_most = min(max(spectra), len(chosen))
            tried = map_of(network, data, chosen[:n_most], scheme, repeat, stream(seed, Stream.STUDY_MAPS, 9, times))
            part = (tried.repeat_error / tried.standard_error).mean(axis=1)
            for n in (n for n in spectra if n <= n_most):
                numbers = compare(tried.per_spectrum[:n], references[scheme], references["single"])
                for a, amp in enumerate(data.amp_names):
                    row = {"scheme": scheme, "repeat": repeat, "evaluations": repeat * n_groups, "spectra": n}
                    row |= {"amp": amp, "seed": seed} | {k: round(float(v[a]), 4) for k, v in numbers.items()}
                    known = n == n_most and repeat > 1
                    table.append(row | {"repeat_part": round(float(part[a]), 4) if known else np.nan})
    return table


def run_tolerances(network, data, reference, rows, repeat, seeds):
    """Rows of the table of tolerances: where the test of single bins stopped, and its error there."""
    table = []
    sums = reference.sum(axis=2).mean(axis=0)
    for seed in range(seeds):
        chosen = np.random.default_rng(stream(seed, Stream.STUDY_PLANETS, 3)).permutation(rows)
        for tolerance in TOLERANCES:
            stopped = map_of(network, data, chosen, "single", repeat, stream(seed, Stream.STUDY_MAPS, 10), tolerance)
            numbers = compare(stopped.per_spectrum, reference, reference)
            off = stopped.mean.sum(axis=1) / sums - 1
            for a, amp in enumerate(data.amp_names):
                row = {"tolerance": tolerance, "repeat": repeat, "amp": amp, "seed": seed}
                row |= {"spectra": int(stopped.n_spectra[a]), "off": round(float(off[a]), 4)}
                row |= {"off_squared": round(float(off[a] ** 2), 6)}
                table.append(row | {k: round(float(numbers[k][a]), 4) for k in ("error", "spearman", "total_error")})
    return table


def text_of_tolerances(table):
    """Table to print: a row per tolerance, mean over AMPs and seeds; root mean square of ``off``."""
    means = table.groupby("tolerance", sort=False)[
        ["spectra", "total_error", "off", "off_squared", "error", "spearman"]
    ].mean()
    means.insert(3, "off (rms)", np.sqrt(means.pop("off_squared")))
    return means.to_string(float_format="{:.3f}".format)


def text_table(table, key, digits):
    """Table to print: a row per scheme and repeats, a column per number of spectra; mean over AMPs and seeds."""
    averaged = mean_over_seeds(table.dropna(subset=key), key, ["scheme", "repeat", "spectra"])
    cells = with_error(averaged, digits).unstack("spectra", fill_value="", sort=False)
    return f"{key}\n{cells.to_string()}"


def main():
    parser = study_parser("repeats", __doc__)
    parser.add_argument("run", metavar="RUN_DIR", type=Path)
    parser.add_argument("--reference", type=int, default=1000, help="planets of the reference (default %(default)s)")
    parser.add_argument("--reference-repeat", type=int, default=40, help="its repeats (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="a small grid of 2 seeds, nothing written")
    arguments = parser.parse_args()
    repeats, spectra = REPEATS, SPECTRA
    if arguments.quick:
        repeats, spectra = (1, 3), (10, 30)
        arguments.reference, arguments.reference_repeat, arguments.seeds = 50, 5, 2
    try:
        network, data, test = load_network(arguments.run)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

    from perturbation.engine import halving_sizes

    shuffled = np.random.default_rng(stream(0, Stream.STUDY_PLANETS, 4)).permutation(test)
    reference_rows, rows = shuffled[: arguments.reference], shuffled[arguments.reference :]
    n_bins = data.spectra.shape[1]
    long = {"single": arguments.reference_repeat}
    long["halving"] = long["single"] * n_bins // len(halving_sizes(n_bins))
    references = {
        scheme: map_of(network, data, reference_rows, scheme, repeat, stream(0, Stream.STUDY_MAPS, 11)).per_spectrum
        for scheme, repeat in long.items()
    }
    stops = data_frame(run_tolerances(network, data, references["single"], rows, 3, 2 * arguments.seeds))
    print(text_of_tolerances(stops), end="\n\n", flush=True)
    table = []
    for seed in range(arguments.seeds):
        table += run_seed(network, data, references, rows, repeats, spectra, seed)
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    table = data_frame(table)
    print(f"{len(reference_rows)} planets in the reference, {len(rows)} others")
    digits = {"error": 3, "spearman": 3, "top_ten": 2, "total_error": 3, "z": 2, "repeat_part": 2}
    for key, after_the_point in digits.items():
        print(text_table(table, key, after_the_point), end="\n\n")
    if not arguments.quick:
        write_csv(arguments.out / "repeats.csv", table)
        write_csv(arguments.out / "tolerance.csv", stops)
    return 0


if __name__ == "__main__":
    sys.exit(main())
