"""Is the mean of different kinds of network better than the mean of one kind? From the folders of finished runs.

    python -m studies.mixture RUN_DIR RUN_DIR [RUN_DIR ...]     # one run per kind of network, all with the same folds

For each kind and each combination of kinds: squared error / limit (`limit.py`) of the mean of as many networks as
there are folds, one per fold, kinds taken as evenly as possible (mean over the ways to do so), and of the mean of
all their networks. Writes ``studies/results/mixture.csv``: a column per AMP, the mean over AMPs, networks in the mean.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

from runio.results import load_run
from studies.command import RESULTS, study_parser
from studies.limit import compare, refuse_other_test
from studies.tables import as_markdown, data_frame, write_csv


def even_choices(n_folds, n_kinds):
    """Return every way to give each fold a kind of network such that the numbers of folds of two kinds differ by at
    most 1.

    >>> even_choices(2, 2)
    [(0, 1), (1, 0)]
    """
    fewest = n_folds // n_kinds
    every = itertools.product(range(n_kinds), repeat=n_folds)
    return [kinds for kinds in every if all(fewest <= kinds.count(k) <= fewest + 1 for k in range(n_kinds))]


def mixtures(predictions):
    """Yield (kinds, networks, predictions (n_choices, n_test, n_amps)) of every combination of kinds.

    ``predictions`` maps a kind to those of its folds, (n_folds, n_test, n_amps). Each choice is scored by itself.
    """
    n_folds = len(next(iter(predictions.values())))
    for size in range(1, len(predictions) + 1):
        for kinds in itertools.combinations(predictions, size):
            some = np.stack([predictions[kind] for kind in kinds])  # (n_kinds, n_folds, n_test, n_amps)
            folds = np.arange(n_folds)
            yield kinds, n_folds, np.stack([some[c, folds].mean(axis=0) for c in even_choices(n_folds, size)])
            if size > 1:
                yield kinds, n_folds * size, some.mean(axis=(0, 1))[None]


def predictions_of_runs(folders):
    """Return {kind: predictions (n_folds, n_test, n_amps)}, truth (n_test, n_amps) and AMP names of runs on the
    limit's planets.
    """
    predictions = {}
    for folder in folders:
        run = load_run(folder)
        refuse_other_test(run)
        if run.model in predictions:
            raise ValueError(f"{folder}: expected one run per kind of network, received a second {run.model}")
        predictions[run.model] = np.array([fold.y_pred for fold in run.folds.values()])
        if len(predictions[run.model]) != len(next(iter(predictions.values()))):
            raise ValueError(f"{folder}: expected as many folds as the first run, received {len(run.folds)}")
    return predictions, run.y_test, run.amp_names


def main():
    """Run the command line."""
    parser = study_parser("mixture", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR")
    parser.add_argument("--output", type=Path, default=RESULTS / "mixture.csv")
    arguments = parser.parse_args()
    try:
        predictions, truth, names = predictions_of_runs(arguments.runs)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    rows = []
    for kinds, n_networks, choices in mixtures(predictions):
        ratio = np.mean([compare(one[None], truth, names).sampler for one in choices], axis=0)
        each = {name: f"{value:.3f}" for name, value in zip(names, ratio)}
        rows.append({"kinds": " + ".join(kinds), "networks": n_networks, **each, "mean": f"{ratio.mean():.3f}"})
    table = data_frame(rows)
    print("\n".join(as_markdown(table.astype(str))))
    write_csv(arguments.output, table)


if __name__ == "__main__":
    sys.exit(main())
