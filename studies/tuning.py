"""What does each setting of networks and training change? One change to config.yaml at a time, first of five folds.

    python -m studies.tuning                          # three seeds of each mlp, one of each other network
    python -m studies.tuning --only mlp cnn           # variants whose names contain one of these words
    python -m studies.tuning --quick                  # shows that it runs
    python -m studies.tuning --more-planets           # of configs/more_planets.yaml, whose data more_planets.py makes

As many networks are trained at a time as there are cores. They are kept in ``--work``, and read from there when the
command is repeated. Writes ``studies/results/tuning.csv`` (``tuning_more_planets.csv``), a row per variant and seed,
and ``tuning.md``, the means over seeds; with ``--only``, rows of other variants stay. Seeds are those of weights and
training noise; split and test noise are those of seed 0. Columns: scaled mean squared error per AMP on the noisy test
spectra, its mean, and the mean on training planets with new noise; squared error / limit, mean over AMPs (`limit.py`);
agreement of the exact map with the optimal map, mean over AMPs and the smallest, and the sum of the exact map over that
of the optimal map, mean over AMPs.
"""

import dataclasses
import re
import sys
from pathlib import Path

import h5py
import numpy as np

from common.metrics import spearman
from common.processes import process_count, process_pool
from constants import NETWORKS, Stream, stream
from pipeline.folds import load_split, network_builder, prepare_tensorflow
from preprocessing import add_noise, noisy_test_spectra
from studies.command import INFORMATION, RESULTS, ROOT, settings_of, study_parser, with_data
from studies.limit import compare
from studies.tables import (
    as_markdown,
    data_frame,
    mean_over_seeds,
    read_csv,
    replaced_rows,
    write_csv,
    write_page,
)

SEEDS = {"mlp": 3}  # of each variant; the other networks take longer and have one
TOLD = "size of the errors as an input"  # a second input that the shipped data set does not hold
RESIDUAL = "residual dense blocks"  # a network that is none of the four
VARIANTS = {
    "mlp: config.yaml": {},
    "mlp: loss of the paper (mse)": {"training.loss": "mse"},
    "mlp: activation of the paper (relu)": {"model.mlp.activation": "relu"},
    "mlp: activation silu": {"model.mlp.activation": "silu"},
    "mlp: no decay of the weights (Adam)": {"training.weight_decay": 0.0},
    "mlp: no average of the weights": {"training.average_epochs": 0},
    "mlp: plateaus": {"training.schedule": "plateau"},
    "mlp: rate 0.01": {"training.lr": 0.01},
    "mlp: a third of the epochs": {"training.epochs": 33},
    "mlp: input of the paper (not whitened)": {"model.whiten": False},
    "mlp: noise of the paper (ten fixed copies)": {
        "training.noise": "fixed",
        "training.copies": 10,
        "training.epochs": 10,
    },
    "mlp: dropout 0.1": {"model.mlp.dropout": 0.1},
    "mlp: twice as wide": {"model.mlp.units": [640, 480, 320, 160]},
    "mlp: half as many training planets": {"training.cv": 1, "data.valid_fraction": 0.6},
    f"mlp: {TOLD}": {},
    f"mlp: {RESIDUAL}": {},
    **{f"{network}: config.yaml": {"model.name": network} for network in ("cnn", "lstm", "hybrid")},
    **{
        f"{network}: {what}, a third of the epochs": {"model.name": network, "training.epochs": 33, **changes}
        for network, what, changes in (
            ("cnn", "config.yaml", {}),
            ("cnn", "pooling, patches of one bin", {"model.cnn.pooling": True, "model.cnn.patch": 1}),
            ("cnn", "no patches", {"model.cnn.patch": 1}),
            ("cnn", "dense layers of the paper (64)", {"model.cnn.dense": [64]}),
            ("cnn", "batch normalisation", {"model.cnn.batch_norm": True, "training.average_epochs": 0}),
            ("lstm", "config.yaml", {}),
            ("lstm", "last step alone", {"model.lstm.all_steps": False}),
            ("lstm", "dense layer of the paper (16)", {"model.lstm.dense": [16]}),
            ("hybrid", "config.yaml", {}),
            ("hybrid", "last step alone", {"model.hybrid.all_steps": False}),
        )
    },
}
MORE_PLANETS = {
    "configs/more_planets.yaml": {},
    "without the size of the errors": {"data.auxiliary": []},
    "three times as many passes": {"training.copies": 3},
    "twice as wide": {"model.mlp.units": [640, 480, 320, 160]},
}
TITLE = "What each setting changes: first of five folds, mean over seeds (studies/tuning.py, docs/science.md)"
COLUMNS = {  # of the page: heading, digits, with the error of the mean
    "mean": ("mean squared error, scaled", 4, True),
    "over_limit": ("squared error / limit", 3, True),
    "spearman": ("agreement with the optimal map, mean", 2, False),
    "spearman_least": ("least", 2, False),
    "moved_by_noise": ("sum of the map / optimal", 2, False),
}


def residual_mlp(spectrum, width=320, inner=(160, 160, 160), activation="gelu", **_):
    """Dense layers, each of which adds to the output of the one before: (N, n_bins, 1) -> (N, width)."""
    from keras import layers

    x = layers.Dense(width, activation=activation)(layers.Flatten()(spectrum))  # (N, width)
    for n in inner:
        x = layers.Add()([x, layers.Dense(width)(layers.Dense(n, activation=activation)(x))])
    return layers.Activation(activation)(x)


def prepare(variant, config):
    """Return the split of a variant's data; the size of the errors is a second input where the variant says so."""
    split = load_split(config)
    if TOLD not in variant:
        return split
    size = np.log10(np.median(split.data.errors, axis=1, keepdims=True))
    data = dataclasses.replace(split.data, auxiliary=size, auxiliary_names=("log_error",))
    return with_data(split, data)


def train(variant, config, split, seed, folder):
    """Train the first fold of a split with the given seed, or read it from ``folder``; return it with its scaler."""
    import models
    from pipeline.network import TrainedNetwork
    from pipeline.training import train_fold

    models.BUILDERS["mlp"] = residual_mlp if RESIDUAL in variant else models.mlp
    data, fold = split.data, split.folds[0]
    build = network_builder(dataclasses.replace(config, seed=seed), data, fold, 0)
    Path(folder).mkdir(parents=True, exist_ok=True)
    model = train_fold(build, data, fold, config.training, seed, folder)
    return TrainedNetwork(model, fold.scaler, data.amp_names)


def errors(network, split, spectra, rows):
    """Return the scaled mean squared error of each AMP, (n_amps,), and the predictions (N, n_amps)."""
    data, scaler = split.data, network.scaler
    predictions = network.predict(spectra, None if data.auxiliary is None else data.auxiliary[rows])
    return np.mean(((predictions - data.amps[rows]) / scaler.y_std) ** 2, axis=0), predictions


def agreement(network, split, noisy):
    """Agreement of the exact map with the optimal map, and the ratio of their sums, per AMP, (n_amps,) each."""
    with h5py.File(INFORMATION) as file:
        index, optimal = file["sampler/index"][()], file["sampler/optimal_map"][()].mean(axis=0, dtype=float)
    rows, auxiliary = split.test[index], split.data.auxiliary
    second = None if auxiliary is None else auxiliary[rows]
    own_errors = split.data.errors[rows].astype(float)
    values = network.sensitivity(noisy[index], own_errors, auxiliary=second, scheme="single", keep_spectra=False).mean
    return np.array([spearman(a, b) for a, b in zip(values, optimal)]), values.sum(axis=1) / optimal.sum(axis=1)


def has_limit(split):
    """Return whether the limit and the optimal map were made for these test spectra."""
    with h5py.File(INFORMATION) as file:
        index, rows = file["index"][()], file["rows"][()]
    return len(split.test) > index.max() and np.array_equal(split.test[index], rows)


def score(network, split, limited):
    """Return the columns of one trained network; ``limited``: its test spectra are those of the limit."""
    data, train_rows = split.data, split.folds[0].train
    noisy = noisy_test_spectra(data, split.test, 0)
    test, predictions = errors(network, split, noisy, split.test)
    again = add_noise(
        data.spectra[train_rows], data.errors[train_rows], np.random.default_rng(stream(0, Stream.STUDY_NOISE))
    )
    row = {name: f"{value:.5f}" for name, value in zip(data.amp_names, test)}
    row |= {"mean": f"{test.mean():.5f}", "train_mean": f"{errors(network, split, again, train_rows)[0].mean():.5f}"}
    if limited:
        ratio = compare(predictions[None], data.amps[split.test], data.amp_names).sampler
        ranks, totals = agreement(network, split, noisy)
        row |= {"over_limit": f"{ratio.mean():.3f}", "spearman": f"{ranks.mean():.3f}"}
        row |= {"spearman_least": f"{ranks.min():.3f}", "moved_by_noise": f"{totals.mean():.2f}"}
    return row


def measure(file, variant, changes, seed, quick, work):
    """Train one network, or read it from the folder ``work``, and return its row (dict) of the table."""
    prepare_tensorflow()
    config = settings_of(file, {"training.cv": 5, **changes}, quick)
    split = prepare(variant, config)
    network = train(variant, config, split, seed, work / f"{re.sub('[^a-z0-9]+', '_', variant)}_{seed}")
    return {"variant": variant, "seed": str(seed)} | score(network, split, has_limit(split))


def write_rows(path, rows):
    """Write the table; rows of variants and seeds that are not in ``rows`` stay."""
    write_csv(path, replaced_rows(path, data_frame(rows), ["variant", "seed"]))


def markdown(table):
    """Return lines of Markdown: per network the means of its variants over seeds, with the error of two or more."""
    lines = []
    for network in NETWORKS:
        names = [name for name in VARIANTS if name.startswith(f"{network}: ") and name in set(table["variant"])]
        cells = {network: [name.removeprefix(f"{network}: ") for name in names]}
        cells["seeds"] = [str(sum(table["variant"] == name)) for name in names]
        for column, (heading, digits, with_error) in COLUMNS.items():
            cells[heading] = [
                f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if with_error and np.isfinite(error) else "")
                for mean, error in mean_over_seeds(table, column, "variant").loc[names].to_numpy()
            ]
        if names:
            lines += [*as_markdown(data_frame(cells)), ""]
    return lines[:-1]


def main():
    """Run the command line."""
    parser = study_parser("tuning", __doc__)
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs, one seed; into results/quick/")
    parser.add_argument("--more-planets", action="store_true", help="variants of configs/more_planets.yaml")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="variants whose names hold one of these words")
    parser.add_argument("--seeds", type=int, help="seeds 0, 1 ... of each variant (default: 3 for mlps, else 1)")
    parser.add_argument("--processes", type=int, help="networks trained at a time (default: as many as cores)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/tuning", help="where the networks are kept")
    parser.add_argument("--output", type=Path, help="default: the file in studies/results")
    arguments = parser.parse_args()
    file, variants = ("config.yaml", VARIANTS)
    if arguments.more_planets:
        file, variants = ("configs/more_planets.yaml", MORE_PLANETS)
    results = RESULTS / ("quick" if arguments.quick else "")
    output = arguments.output or results / f"tuning{'_more_planets' * arguments.more_planets}.csv"
    work = arguments.work / ("quick" if arguments.quick else "")
    words = arguments.only or [""]
    tasks = [
        (file, name, changes, seed, arguments.quick, work)
        for name, changes in variants.items()
        for seed in range(1 if arguments.quick else arguments.seeds or SEEDS.get(name.split(":")[0], 1))
        if any(word in name for word in words)
    ]
    rows = []
    with process_pool(process_count(arguments.processes or "auto", len(tasks)), 1) as pool:
        for row in pool.map(measure, *zip(*tasks)):
            print(row, flush=True)
            rows.append(row)
            if arguments.only:
                write_rows(output, rows)
    if not arguments.only:
        write_csv(output, data_frame(rows))
    if not arguments.more_planets and not arguments.quick:
        write_page(output.with_suffix(".md"), TITLE, markdown(read_csv(output)))


if __name__ == "__main__":
    sys.exit(main())
