"""How many repeats and spectra does a sensitivity map need? Its error against a long run on other planets and draws.

    python -m studies.repeats RUN_DIR

The reference is the map of ``--reference`` test planets; the maps tried are of other test planets with other draws,
both schemes at the same numbers of model evaluations per spectrum. Each gets, per AMP:

- error: sum over bins of |map - reference of this scheme| / sum of the reference
- spearman, top_ten: rank correlation and shared ten largest bins with the reference of the single-bin scheme
- total_error: the standard error, relative, of the sum over bins that the map itself tells without a reference
- z: root mean square over bins of (map - reference) / error bar, 1 for honest error bars
- repeat_part: error bar from the repeats alone over the whole error bar, mean over bins (largest number of spectra)

A second table is of ``tolerance``: the spectra at which the test stopped, the error, and how far each AMP's sum over
bins then was from the reference (off), to be held against the tolerance.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from constants import Stream, stream
from studies.faithfulness import averaged, load_network, write
from studies.map_scores import shared_top, spearman

REPEATS = (1, 3, 10, 30, 100)  # of the single-bin scheme; halving gets as many evaluations
SPECTRA = (10, 30, 100, 300)
TOLERANCES = (0.3, 0.2, 0.1)


def whole_map(network, rows, scheme, repeat, rng, tolerance=None):
    """`sensitivity.SensitivityMap` of the test planets ``rows`` in scaled units."""
    from sensitivity import sensitivity_map

    _, model, scaler, data, _ = network
    spectra, errors = data.spectra[rows].astype(float), data.errors[rows].astype(float)
    return sensitivity_map(
        model, None, spectra, errors, scaler.y_mean, scaler.y_std, no_spectra=None, repeat=repeat,
        x_mean=scaler.x_mean, x_std=scaler.x_std, rng=rng, scheme=scheme, scaled=True, nodes=None,
        tolerance=tolerance,
    )  # fmt: skip


def mean_and_error(per_spectrum):
    """Map and its standard error over spectra, (n_amps, n_bins) each, from maps (n, n_amps, n_bins)."""
    return per_spectrum.mean(axis=0), per_spectrum.std(axis=0, ddof=1) / np.sqrt(len(per_spectrum))


def judge(per_spectrum, reference, single_reference):
    """Compare the map of some spectra with the references: dict of numbers per AMP, (n_amps,) each."""
    found, error = mean_and_error(per_spectrum)
    truth, truth_error = mean_and_error(reference)
    best = single_reference.mean(axis=0)
    total, total_error = mean_and_error(per_spectrum.sum(axis=2, keepdims=True))
    bars = np.hypot(error, truth_error)
    return {
        "error": np.abs(found - truth).sum(axis=1) / truth.sum(axis=1),
        "spearman": np.array([spearman(a, b) for a, b in zip(found, best)]),
        "top_ten": np.array([shared_top(a, b) for a, b in zip(found, best)]),
        "total_error": (total_error / total)[:, 0],
        "z": np.sqrt((((found - truth) / bars) ** 2).mean(axis=1)),
    }


def run_seed(network, references, rows, repeats, spectra, seed):
    """Rows of the table for one seed: every scheme, number of repeats and of spectra."""
    from perturbation.engine import halving_sizes

    data = network[3]
    n_bins = data.spectra.shape[1]
    groups = {"single": n_bins, "halving": len(halving_sizes(n_bins))}
    chosen = np.random.default_rng(stream(seed, Stream.STUDY_PLANETS, 2)).permutation(rows)
    table = []
    for scheme, n_groups in groups.items():
        for times in repeats:
            repeat = max(round(times * n_bins / n_groups), 1)
            n_most = min(max(spectra), len(chosen))
            found = whole_map(network, chosen[:n_most], scheme, repeat, stream(seed, Stream.STUDY_MAPS, 9, times))
            part = (found.repeat_error / found.standard_error).mean(axis=1)
            for n in (n for n in spectra if n <= n_most):
                numbers = judge(found.per_spectrum[:n], references[scheme], references["single"])
                for a, amp in enumerate(data.amp_names):
                    row = {"scheme": scheme, "repeat": repeat, "evaluations": repeat * n_groups, "spectra": n}
                    row |= {"amp": amp, "seed": seed} | {k: round(float(v[a]), 4) for k, v in numbers.items()}
                    table.append(row | {"repeat_part": round(float(part[a]), 4) if n == n_most and repeat > 1 else ""})
    return table


def run_tolerances(network, reference, rows, repeat, seeds):
    """Rows of the table of tolerances: where the single-bin scheme stopped and how far it then was."""
    table = []
    sums = reference.sum(axis=2).mean(axis=0)
    for seed in range(seeds):
        chosen = np.random.default_rng(stream(seed, Stream.STUDY_PLANETS, 3)).permutation(rows)
        for tolerance in TOLERANCES:
            found = whole_map(network, chosen, "single", repeat, stream(seed, Stream.STUDY_MAPS, 10), tolerance)
            numbers = judge(found.per_spectrum, reference, reference)
            off = found.mean.sum(axis=1) / sums - 1
            for a, amp in enumerate(network[3].amp_names):
                row = {"tolerance": tolerance, "repeat": repeat, "amp": amp, "seed": seed}
                row |= {"spectra": int(found.n_spectra[a]), "off": round(float(off[a]), 4)}
                row |= {"off_squared": round(float(off[a] ** 2), 6)}
                table.append(row | {k: round(float(numbers[k][a]), 4) for k in ("error", "spearman", "total_error")})
    return table


def text_of_tolerances(table):
    """Lines of text: a row per tolerance; mean over AMPs and seeds, the spread of ``off`` as root mean square."""
    keys = ("spectra", "total_error", "off", "off_squared", "error", "spearman")
    means = [averaged(table, key, "tolerance") for key in keys]
    yield "tolerance  spectra  total_error     off  off (rms)   error  spearman"
    for tolerance in TOLERANCES:
        spectra, total, off, square, error, rank = (mean[tolerance,][0] for mean in means)
        yield f"{tolerance:9} {spectra:8.0f} {total:12.3f} {off:7.3f} {square**0.5:10.3f} {error:7.3f} {rank:9.3f}"


def text_table(rows, key, form):
    """Lines of text: a row per scheme and repeats, a column per number of spectra; mean over AMPs and seeds."""
    rows = [row for row in rows if row[key] != ""]
    found = averaged(rows, key, "scheme", "repeat", "spectra")
    columns = sorted({n for *_, n in found})
    yield f"{key:12s} {'repeat':>6s} " + " ".join(f"{n:>13d}" for n in columns)
    for scheme, repeat in dict.fromkeys((s, r) for s, r, _ in found):
        cells = (found.get((scheme, repeat, n)) for n in columns)
        text = " ".join(f"{form.format(c[0]):>6s} ±{form.format(c[1]):>5s}" if c else " " * 13 for c in cells)
        yield f"{scheme:12s} {repeat:6d} {text}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN_DIR", type=Path)
    parser.add_argument("--reference", type=int, default=1000, help="planets of the reference (default %(default)s)")
    parser.add_argument("--reference-repeat", type=int, default=40, help="its repeats (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="a small grid of 2 seeds, nothing written")
    arguments = parser.parse_args()
    repeats, spectra = REPEATS, SPECTRA
    if arguments.quick:
        repeats, spectra = (1, 3), (10, 30)
        arguments.reference, arguments.reference_repeat, arguments.seeds = 50, 5, 2
    try:
        network = load_network(arguments.run)
    except ValueError as error:
        parser.exit(2, f"repeats.py: {error}\n")

    from perturbation.engine import halving_sizes

    data, test = network[3:]
    shuffled = np.random.default_rng(stream(0, Stream.STUDY_PLANETS, 4)).permutation(test)
    kept, rows = shuffled[: arguments.reference], shuffled[arguments.reference :]
    n_bins = data.spectra.shape[1]
    long = {"single": arguments.reference_repeat}
    long["halving"] = long["single"] * n_bins // len(halving_sizes(n_bins))
    references = {
        scheme: whole_map(network, kept, scheme, n, stream(0, Stream.STUDY_MAPS, 11)).per_spectrum
        for scheme, n in long.items()
    }
    stops = run_tolerances(network, references["single"], rows, 3, 2 * arguments.seeds)
    print(*text_of_tolerances(stops), "", sep="\n", flush=True)
    table = []
    for seed in range(arguments.seeds):
        table += run_seed(network, references, rows, repeats, spectra, seed)
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    print(f"{len(kept)} planets in the reference, {len(rows)} others")
    for key, form in (("error", "{:.3f}"), ("spearman", "{:.3f}"), ("top_ten", "{:.2f}"), ("total_error", "{:.3f}"),
                      ("z", "{:.2f}"), ("repeat_part", "{:.2f}")):  # fmt: skip
        print(*text_table(table, key, form), "", sep="\n")
    if not arguments.quick:
        write(arguments.out / "repeats.csv", table)
        write(arguments.out / "tolerance.csv", stops)
    return 0


if __name__ == "__main__":
    sys.exit(main())
