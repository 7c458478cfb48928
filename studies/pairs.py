"""Does the first command depend on the batch size and the learning rate that a user gives it?

    python -m studies.pairs            # 12 pairs beside config.yaml: 6000 spectra, 12 epochs
    python -m studies.pairs --full     # --batch_size 64 --lr 0.01 beside config.yaml: all spectra, 100 epochs
    python -m studies.pairs --quick    # shows that it runs

One fold of the mlp for each of three seeds, which differ in split, weights and noise. Writes studies/results/pairs.csv
(``pairs_full.csv``): per pair and seed the mean R2 over AMPs on the noisy test spectra, the root mean squared error of
the radius in scaled units, and both compared with config.yaml at the same seed. Prints the means over seeds.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path

from studies.command import RESULTS, settings_of, study_parser
from studies.tables import data_frame, read_csv, replaced_rows, write_csv

BATCHES, RATES = (64, 128, 256, 512), (0.001, 0.0035, 0.01)
FIRST_COMMAND = (64, 0.01)  # of the released code's README
KEYS = ["batch_size", "lr", "seed"]
SHORT = {"data.size": 6000, "training.epochs": 12}


def measure(pair, seed, changes, quick):
    """Return mean R2 and the error of the radius of one network; ``pair``: batch size and rate, or None."""
    from common.metrics import scores
    from pipeline.folds import load_split, train_network
    from pipeline.network import TrainedNetwork
    from preprocessing import noisy_test_spectra

    given = dict(zip(("training.batch_size", "training.lr"), pair or ()))
    config = settings_of(changes={"training.cv": 1, "seed": seed, **changes, **given}, quick=quick)
    split = load_split(config)
    with tempfile.TemporaryDirectory() as folder:
        model = train_network(config, split, Path(folder), 0)
    data, scaler = split.data, split.folds[0].scaler
    predicted = TrainedNetwork(model, scaler, data.amp_names).predict(noisy_test_spectra(data, split.test, seed))
    found = scores(data.amps[split.test], predicted, scaler.y_std)
    return found["R2"].mean(), found["MSE"][data.amp_names.index("Rp")] ** 0.5


def table(pairs, seeds, changes, quick=False):
    """Return a data frame with a row per pair and seed: scores, and how they differ from config.yaml."""
    rows = []
    for seed in seeds:
        best, radius = measure(None, seed, changes, quick)
        rows.append({"batch_size": "config.yaml", "lr": "", "seed": seed, "R2": best, "radius": radius})
        for pair in pairs:
            r2, error = measure(pair, seed, changes, quick)
            row = {"batch_size": pair[0], "lr": pair[1], "seed": seed, "R2": r2, "radius": error}
            rows.append(row | {"R2_lost": best - r2, "radius_ratio": error / radius})
            print({key: f"{value:.4g}" for key, value in rows[-1].items()}, file=sys.stderr, flush=True)
    return data_frame(rows)


def main():
    """Run the command line."""
    parser = study_parser("pairs", __doc__)
    parser.add_argument("--full", action="store_true", help="all spectra and epochs, the released code's command alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="rows of other seeds stay")
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs, one seed, nothing written")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    arguments = parser.parse_args()
    from pipeline.folds import prepare_tensorflow

    prepare_tensorflow()
    pairs, changes = ([FIRST_COMMAND], {}) if arguments.full else (list(product(BATCHES, RATES)), SHORT)
    found = table(pairs, arguments.seeds[: 1 if arguments.quick else None], changes, arguments.quick)
    if not arguments.quick:
        path = arguments.out / f"pairs{'_full' * arguments.full}.csv"
        numbers = found.select_dtypes("float").columns
        found[numbers] = found[numbers].map("{:.5g}".format, na_action="ignore")
        write_csv(path, replaced_rows(path, found.astype({"seed": str, "batch_size": str, "lr": str}), KEYS))
        found = read_csv(path)
    print(found.groupby(KEYS[:2], sort=False, dropna=False).mean().drop(columns="seed").round(4).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
