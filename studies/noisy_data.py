"""How much noise should training add to spectra that already hold noise (training.extra_noise)? Measured on HELA.

    python -m studies.noisy_data FOLDER            # some minutes; FOLDER holds HELA's JSON and its .npy files
    python -m studies.noisy_data FOLDER --quick    # shows that it runs

HELA's example data set (github.com/exoclime/HELA, example_dataset/) has the layout of data/FORMATS.md. Trains the mlp
on one fold with the settings of RECIPE, evaluates it on the spectra as they are, and writes
``studies/results/noisy_data.csv``: R2 per AMP on the test spectra and their mean, the mean on the training spectra and
the epoch that was kept, one row per size of the noise and seed.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from common.metrics import scores
from pipeline.folds import load_split, prepare_tensorflow, train_network
from runio.config import load_config
from runio.results import read_history
from studies.command import RESULTS, ROOT, study_parser
from studies.tables import data_frame, write_csv

SIZES = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5)  # in units of the errors

RECIPE = {  # Adam, plateaus, no average of the weights
    "model.mlp.activation": "relu",
    "training.cv": 1,
    "training.epochs": 60,
    "training.lr": 0.01,
    "training.copies": 5,
    "training.weight_decay": 0.0,
    "training.average_epochs": 0.0,
    "training.stop_patience": 8,
}


def r2(network, data, rows):
    """R2 of each AMP (n_amps,) on the given rows, without added noise."""
    prediction = network.predict(data.spectra[rows])
    return scores(data.amps[rows], prediction, network.scaler.y_std)["R2"]


def measure(folder, size, seed, quick=False):
    """Train and evaluate one network; return a row of the table."""
    from pipeline.network import TrainedNetwork

    changes = {"training.extra_noise": size, "seed": seed}
    if quick:
        changes |= {"data.size": 1000, "training.epochs": 2}
    config = load_config(ROOT / "config.yaml", {**RECIPE, **changes})
    config.data.path, config.data.format = str(folder), "hela"
    split, start = load_split(config), time.perf_counter()
    with tempfile.TemporaryDirectory() as results:
        model = train_network(config, split, Path(results), 0)
        losses = read_history(Path(results) / "history_0.csv")["val_loss"]
    network = TrainedNetwork(model, split.folds[0].scaler, split.data.amp_names)
    test, training = (r2(network, split.data, rows) for rows in (split.test, split.folds[0].train))
    row = {"extra_noise": size, "seed": seed, **{k: f"{v:.4f}" for k, v in zip(split.data.amp_names, test)}}
    row |= {"mean": f"{test.mean():.4f}", "training_mean": f"{training.mean():.4f}"}
    row |= {"epoch": int(np.argmin(losses)) + 1, "minutes": f"{(time.perf_counter() - start) / 60:.1f}"}
    return row


def main():
    """Run the command line."""
    parser = study_parser("noisy_data", __doc__)
    parser.add_argument("folder", type=Path, help="of HELA's JSON and .npy files")
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES, help="of the added noise, in errors")
    parser.add_argument("--seeds", type=int, default=2, help="each has a split of its own (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="1000 spectra, 2 epochs; nothing written")
    parser.add_argument("--output", type=Path, default=RESULTS / "noisy_data.csv")
    arguments = parser.parse_args()
    prepare_tensorflow()
    rows = []
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            rows.append(measure(arguments.folder, size, seed, arguments.quick))
            print(rows[-1], flush=True)
            if not arguments.quick:
                write_csv(arguments.output, data_frame(rows))


if __name__ == "__main__":
    main()
