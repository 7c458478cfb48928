"""How should a network be trained on spectra that already hold noise? Settings compared on HELA's public spectra.

    python -m studies.noisy_data FOLDER            # each of `VARIANTS` on spectra set aside for choosing
    python -m studies.noisy_data FOLDER --test     # config.yaml and the plain network on the test spectra
    python -m studies.noisy_data FOLDER --quick    # shows that it runs, nothing written

HELA (Marquez-Neila et al. 2018; github.com/exoclime/HELA, example_dataset/) has 13 bins and five parameters, and the
layout of data/FORMATS.md. Its testing.npy suffices: with that file as training_data and no testing_data in the JSON,
16,000 spectra are trained on and 4,000 tested. Of the training spectra a fifth is set aside for choosing. Each variant
changes config.yaml and trains the mlp, or the cnn, on five folds of the others. Their predictions are scored on the
spectra as they are. Writes ``studies/results/noisy_data.csv``, two rows per variant: R2 per AMP and its mean, of one
network (the mean over folds) and of the mean prediction of all.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.metrics import scores
from pipeline.folds import load_split, prepare_tensorflow, train_network
from studies.command import RESULTS, settings_of, study_parser
from studies.tables import data_frame, replaced_rows, write_csv

PLAIN = {  # Adam with plateaus, mean squared error, no added noise
    "model.whiten": False, "model.mlp.activation": "relu", "model.mlp.dropout": 0.1, "training.batch_size": 128,
    "training.lr": 0.0007, "training.loss": "mse", "training.extra_noise": 0.0, "training.weight_decay": 0.0,
    "training.average_epochs": 0.0, "training.clipnorm": None, "training.warmup_epochs": 0.0,
    "training.schedule": "plateau",
}  # fmt: skip
VARIANTS = {
    "config.yaml": {},
    "whitened": {"model.whiten": True},
    "whitened, extra_noise 0": {"model.whiten": True, "training.extra_noise": 0.0},
    "whitened, extra_noise 1": {"model.whiten": True, "training.extra_noise": 1.0},
    "gelu": {"model.mlp.activation": "gelu"},
    "cnn": {"model.name": "cnn"},
    "cnn, relu": {"model.name": "cnn", "model.cnn.activation": "relu"},
    "plain network": PLAIN,
}
SET_ASIDE = 1234  # seed of the choice of the spectra set aside
TESTED = ("config.yaml", "plain network")


def without_test(split, config):
    """Return the split of the training spectra alone: a fifth of them takes the place of the test spectra."""
    from preprocessing import Fold, split_folds

    rest = np.setdiff1d(np.arange(len(split.data)), split.test)
    order = np.random.default_rng(SET_ASIDE).permutation(rest)
    chosen, rest = np.sort(order[: len(order) // 5]), np.sort(order[len(order) // 5 :])
    folds = split_folds(rest, config.training.cv, "kfold", config.data.valid_fraction, config.seed)
    return dataclasses.replace(split, test=chosen, folds=[Fold.of(split.data, *rows) for rows in folds])


def measure(folder, variant, test=False, quick=False):
    """Train the folds of a variant and score their predictions; return the two rows (dicts) of the table."""
    from pipeline.network import TrainedNetwork

    config = settings_of(changes=VARIANTS[variant], quick=quick)
    config.data.path, config.data.format = str(folder), "hela"
    split = load_split(config) if test else without_test(load_split(config), config)
    data, predictions = split.data, []
    for k, fold in enumerate(split.folds):
        with tempfile.TemporaryDirectory() as results:
            model = train_network(config, split, Path(results), k)
        network = TrainedNetwork(model, fold.scaler, data.amp_names)
        predictions.append(network.predict(data.spectra[split.test]))
    truth, spread = data.amps[split.test], split.folds[0].scaler.y_std
    one = np.mean([scores(truth, y_pred, spread)["R2"] for y_pred in predictions], axis=0)
    together = scores(truth, np.mean(predictions, axis=0), spread)["R2"]
    return [
        {"variant": variant, "spectra": "test" if test else "chosen on", "networks": n}
        | {name: f"{value:.4f}" for name, value in zip(data.amp_names, found)}
        | {"mean": f"{found.mean():.4f}"}
        for n, found in ((1, one), (len(predictions), together))
    ]


def main():
    """Run the command line."""
    parser = study_parser("noisy_data", __doc__)
    parser.add_argument("folder", type=Path, help="of HELA's JSON and .npy files")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: all, with --test two")
    parser.add_argument("--test", action="store_true", help="score the test spectra")
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs; nothing written")
    parser.add_argument("--output", type=Path, default=RESULTS / "noisy_data.csv")
    arguments = parser.parse_args()
    prepare_tensorflow()
    for variant in arguments.variants or (TESTED if arguments.test else VARIANTS):
        table = data_frame(measure(arguments.folder, variant, arguments.test, arguments.quick))
        print(table.to_string(index=False), flush=True)
        if not arguments.quick:
            write_csv(arguments.output, replaced_rows(arguments.output, table, ["variant", "spectra"]))


if __name__ == "__main__":
    sys.exit(main())
