"""How far is each stage of a run from its lower bound? Processor seconds of this process, stage by stage.

    python -m benchmarks.first_command RUN_DIR [--epochs 3] [--spectra 20]

RUN_DIR is a finished run, such as that of the README's first command. Its settings train one fold for some epochs, its
networks are mapped around some test spectra, its figures are drawn again. Beside each stands the least it could cost:

- an epoch: Keras' own ``fit`` on data that are ready in memory, and the matrix products of an mlp alone
- the maps: as many bare calls of the networks as the maps need rows, without perturbing and without adding up
- the figures: Matplotlib's ``savefig`` of the finished figures, as PNG and PDF

Writes ``benchmarks/results/first_command.csv``.
"""

import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measuring import RESULTS, benchmark_parser, show, write
from constants import Stream, stream
from pipeline.folds import load_split, prepare_tensorflow
from runio.config import build_config
from runio.results import ENSEMBLE, load_run

ROUNDS = 3  # of each measurement; the fastest counts


def seconds(function):
    """Return the processor seconds of the fastest of some calls."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def row(stage, cost, **bounds):
    """Return a row of the table: the cost of a stage, and how many times each bound that is."""
    cells = {"stage": stage, "seconds": f"{cost:.3g}"}
    for name, bound in bounds.items():
        cells |= {name: f"{bound:.3g}", f"times {name}": f"{cost / bound:.2f}"}
    return cells


def training(config, split, epochs):
    """Return the row of an epoch: between the first, which traces the graph, and the last."""
    import keras

    from models import build_model
    from pipeline import training
    from preprocessing import first_layer

    data, fold, settings = split.data, split.folds[0], replace(config.training, epochs=epochs + 1)
    layers = {
        **vars(getattr(config.model, config.model.name)),
        "whitening": first_layer(data, fold, config.model.whiten),
        "seed": stream(config.seed, Stream.WEIGHTS, 0),
    }

    def build():
        n_auxiliary = 0 if data.auxiliary is None else data.auxiliary.shape[1]
        return build_model(config.model.name, data.spectra.shape[1], data.amps.shape[1], n_auxiliary, **layers)

    ends = []
    with tempfile.TemporaryDirectory() as folder:
        training.train_fold(build, data, fold, settings, 0, folder, on_epoch=lambda _: ends.append(time.process_time()))
    chunks = list(training.training_chunks(data, fold, settings, (0, 0), 0))
    x, y = (np.concatenate([chunk[part] for chunk in chunks]) for part in (0, 1))
    model = build()
    model.compile(keras.optimizers.AdamW(), training.LOSSES[settings.loss], steps_per_execution=20)
    fit = {"batch_size": settings.batch_size, "shuffle": False, "verbose": 0}
    model.fit(x, y, **fit)
    bounds = {"bare fit": seconds(lambda: model.fit(x, y, **fit))}
    if config.model.name == "mlp":
        bounds["matrix products"] = seconds(lambda: products(model, len(x), settings.batch_size))
    return row("an epoch of one fold", min(np.diff(ends)), **bounds)


def products(model, n_rows, batch_size):
    """Multiply as forward and backward passes do: three products for each trained matrix, one for a fixed one."""
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    for _ in range(-(-n_rows // batch_size)):
        for k, kernel in enumerate(kernels):
            before, after = (np.ones((batch_size, n), np.float32) for n in kernel.shape)
            before @ kernel
            if k:
                before.T @ after, after @ kernel.T


def maps(config, split, networks, n):
    """Yield the rows of the published and of the exact map of all networks around ``n`` test spectra."""
    from perturbation.engine import halving_sizes
    from pipeline.evaluate import published_maps, single_bin_maps

    some = replace(split, test=split.test[:n])
    folds = [network for k, network in networks.items() if k != ENSEMBLE]
    config.sensitivity.no_spectra = n
    models, scalers = [network.model for network in folds], [network.scaler for network in folds]
    spectra, n_bins = split.data.spectra[some.test], split.data.spectra.shape[1]
    second = [
        None if split.data.auxiliary is None else s.scaled_auxiliary(split.data.auxiliary[some.test]) for s in scalers
    ]
    rows = {
        "published": config.sensitivity.repeat * len(halving_sizes(n_bins)),
        "exact": (config.sensitivity_single.nodes - 1) * n_bins + 1,
    }
    for (name, n_rows), function in zip(rows.items(), (published_maps, single_bin_maps)):
        cost = seconds(lambda f=function: f(config, some, models, scalers, spectra, second, rng=0))
        total, call = n * n_rows, min(n * n_rows, 5120)
        batch = folds[0].scaler.inputs(
            np.resize(spectra, (call, n_bins)), second[0] and np.resize(second[0], (call, -1))
        )
        passes = seconds(lambda b=batch: [model.predict_on_batch(b) for model in models]) * total / call
        yield row(f"{name} map of {n} spectra, {len(folds)} folds", cost, **{"bare calls": passes})


def figures(run):
    """Return the row of the figures of the report."""
    from report.page import write_figures
    from report.pictures import make_figures

    with tempfile.TemporaryDirectory() as folder:
        cost = seconds(lambda: write_figures(run, folder))
    drawn = [picture.figure for picture in make_figures(run, "report").values()]
    kinds = ("png", "pdf")
    return row(
        "figures", cost, savefig=seconds(lambda: [f.savefig(io.BytesIO(), format=k) for f in drawn for k in kinds])
    )


def main():
    """Run the command line."""
    parser = benchmark_parser("first_command", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--epochs", type=int, default=3, help="default %(default)s")
    parser.add_argument("--spectra", type=int, default=20, help="test spectra to map, default %(default)s")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the table")
    arguments = parser.parse_args()
    prepare_tensorflow()
    from pipeline.network import TrainedNetwork

    run = load_run(arguments.run)
    config = build_config({k: v for k, v in run.config.items() if k != "study"})
    split = load_split(config)
    networks = {k: TrainedNetwork.of_run(run, k) for k in run.networks}
    rows = [training(config, split, arguments.epochs), *maps(config, split, networks, arguments.spectra), figures(run)]
    show(rows)
    write(rows, arguments.output / "first_command.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
