"""How far is each stage of a run from its lower bound? Processor seconds, stage by stage.

    python -m benchmarks.first_command RUN_DIR [--epochs 3] [--spectra 20]

RUN_DIR is a finished run, such as that of the README's first command. Its settings train one fold for some epochs, its
networks are mapped around some test spectra, its figures are drawn again. Beside each stand the least it could cost
and how often a run on this machine does it:

- TensorFlow: ``import tensorflow`` alone
- the data set: reading its arrays, without checks and splits
- an epoch: Keras' own ``fit`` on data that are ready in memory, and the matrix products of an mlp alone
- the maps: as many bare calls of the networks as the maps need rows, without perturbing and without adding up
- the figures: Matplotlib's ``savefig`` of the finished figures, as PNG and PDF

Prints a Markdown table and writes ``benchmarks/results/first_command.csv``. About two minutes.
"""

import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measuring import RESULTS, benchmark_parser, isolated, show, write
from common.processes import process_count
from pipeline.folds import data_path, load_split, network_builder, prepare_tensorflow
from runio.config import build_config
from runio.log import quiet_stderr
from runio.results import ENSEMBLE, load_run

ROUNDS = 3  # of each measurement; the fastest counts


def seconds(function):
    """Return the processor seconds of the fastest of some calls."""
    return min(once(function) for _ in range(ROUNDS))


def once(function):
    """Return the processor seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def row(stage, cost, times, **bounds):
    """Return a row of the table: seconds of a stage, how often a run does it, and its ratio to each lower bound."""
    cells = {"stage": stage, "s": f"{cost:.3g}", "times": f"{times:.4g}", "s in a run": f"{cost * times:.3g}"}
    cells["lower bound"] = ", ".join(f"{name.replace('_', ' ')} {bound:.3g} s" for name, bound in bounds.items())
    return {**cells, "ratio": ", ".join(f"{cost / bound:.2f}" for bound in bounds.values())}


def import_seconds(bare):
    """Return the seconds of importing TensorFlow as the pipeline does, or alone. To be called in a new process."""
    with quiet_stderr():
        return once(lambda: __import__("tensorflow") if bare else prepare_tensorflow())


def read_arrays(path):
    """Read all arrays of an HDF5 file."""
    with h5py.File(path) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def training(config, split, epochs, n_processes):
    """Yield the rows of training: the start of a fold, which makes the graph, and an epoch."""
    import keras

    from pipeline import training

    data, fold, settings = split.data, split.folds[0], replace(config.training, epochs=epochs + 1)
    build = network_builder(config, data, fold, 0)
    ends = [time.process_time()]
    with tempfile.TemporaryDirectory() as folder:
        training.train_fold(build, data, fold, settings, 0, folder, on_epoch=lambda _: ends.append(time.process_time()))
    first, *later = np.diff(ends)
    n_folds, usual = len(split.folds), min(later)
    yield row("start of a fold: its graph", first - usual, n_folds + n_folds % n_processes)
    chunks = list(training.training_chunks(data, fold, settings, (0, 0), 0))
    x, y = (np.concatenate([chunk[part] for chunk in chunks]) for part in (0, 1))
    model = build()
    model.compile(keras.optimizers.AdamW(), training.LOSSES[settings.loss], steps_per_execution=20)
    fit = {"batch_size": settings.batch_size, "shuffle": False, "verbose": 0}
    model.fit(x, y, **fit)
    bounds = {"bare_fit": seconds(lambda: model.fit(x, y, **fit))}
    if config.model.name == "mlp":
        bounds["matrix_products"] = seconds(lambda: products(model, len(x), settings.batch_size))
    yield row("an epoch of one fold", usual, n_folds * config.training.epochs, **bounds)


def products(model, n_rows, batch_size):
    """Multiply as forward and backward passes do: three products for each trained matrix, one for a fixed one."""
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    for _ in range(-(-n_rows // batch_size)):
        for k, kernel in enumerate(kernels):
            before, after = (np.ones((batch_size, n), np.float32) for n in kernel.shape)
            before @ kernel
            if k:
                before.T @ after, after @ kernel.T


def maps(run, config, split, networks, n):
    """Yield the rows of the published and of the exact map of all networks around ``n`` test spectra."""
    from perturbation.engine import halving_sizes
    from pipeline.evaluate import published_maps, single_bin_maps

    some = replace(split, test=split.test[:n])
    folds = [network for k, network in networks.items() if k != ENSEMBLE]
    config.sensitivity.no_spectra = n
    spectra, n_bins = split.data.spectra[some.test], split.data.spectra.shape[1]
    second = None if split.data.auxiliary is None else split.data.auxiliary[some.test]
    own = [network.map_arguments(second) for network in folds]
    ways = (
        ("published", published_maps, config.sensitivity.repeat * len(halving_sizes(n_bins)), run.best.sensitivity),
        ("exact", single_bin_maps, (config.sensitivity_single.nodes - 1) * n_bins + 1, run.best.sensitivity_single),
    )
    for name, function, n_rows, made in ways:
        cost = seconds(lambda f=function: f(config, some, own, spectra, rng=0))
        total, call = n * n_rows, min(n * n_rows, 5120)
        more = None if second is None else np.resize(second, (call, second.shape[1]))
        batch = folds[0].scaler.inputs(np.resize(spectra, (call, n_bins)), more)
        passes = seconds(lambda b=batch: [one.model.predict_on_batch(b) for one in folds]) * total / call
        times = made.n_spectra.max() / n if made else 0
        yield row(f"{name} map of {n} spectra, {len(folds)} folds", cost, times, bare_calls=passes)


def figures(run):
    """Return the row of the figures of the report."""
    from report.page import write_figures
    from report.pictures import make_figures

    with tempfile.TemporaryDirectory() as folder:
        cost = seconds(lambda: write_figures(run, folder))
    drawn = [picture.figure for picture in make_figures(run, "report").values()]
    kinds = ("png", "pdf")
    bound = seconds(lambda: [one.savefig(io.BytesIO(), format=kind) for one in drawn for kind in kinds])
    return row("figures", cost, 1, savefig=bound)


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
    n_processes = process_count(config.training.processes, config.training.cv)
    n_all = n_processes + 1 if n_processes > 1 else 1  # this one too
    imports, alone = (min(isolated(import_seconds, bare) for _ in range(2)) for bare in (False, True))
    path = data_path(config)
    loading = seconds(lambda: load_split(config))
    rows = [
        row("import of TensorFlow", imports, n_all, import_tensorflow=alone),
        row("data set loaded and split", loading, n_all, reading=seconds(lambda: read_arrays(path))),
        *training(config, split, arguments.epochs, n_processes),
        *maps(run, config, split, networks, arguments.spectra),
        figures(run),
    ]
    rows.append({"stage": "together", "s in a run": f"{sum(float(one['s in a run']) for one in rows):.3g}"})
    show(rows)
    write(rows, arguments.output / "first_command.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
