"""What each choice in the training buys: the mlp on one fold with configs/tuned.yaml, one change at a time.

    python -m studies.tuning                  # about half an hour on one core
    python -m studies.tuning --quick          # shows that it runs
    python -m studies.tuning --more-planets   # of configs/more_planets.yaml, whose data more_planets.py makes

Writes ``studies/results/tuning.csv`` (``tuning_more_planets.csv``): scaled mean squared error per AMP on the noisy
test spectra, its mean, and the mean on training planets with new noise.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from constants import Stream, stream
from pipeline.folds import load_split, prepare_tensorflow, train_network
from preprocessing import add_noise
from runio.config import load_config
from studies.command import study_parser
from studies.tables import data_frame, write_csv

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {
    "configs/tuned.yaml": {},
    "loss of the paper (mse)": {"training.loss": "mse"},
    "batches of 64, rate 0.001": {"training.batch_size": 64, "training.lr": 0.001},
    "input of the paper (not whitened)": {"model.whiten": False},
    "noise of the paper (fixed copies)": {"training.noise": "fixed"},
    "dropout 0.1": {"model.mlp.dropout": 0.1},
    "twice as wide": {"model.mlp.units": [640, 480, 320, 160]},
    "half as many training planets": {"data.valid_fraction": 0.6},
}
MORE_PLANETS = {
    "configs/more_planets.yaml": {},
    "without the size of the errors": {"data.auxiliary": []},
    "three times as many passes": {"training.copies": 3},
    "twice as wide": {"model.mlp.units": [640, 480, 320, 160]},
}


def errors(model, split, rows, seed):
    """Return the scaled mean squared error of each AMP (n_amps,) on the given rows with one draw of noise."""
    data, scaler = split.data, split.scalers[0]
    spectra = add_noise(data.spectra[rows], data.errors[rows], np.random.default_rng(seed))
    auxiliary = None if data.auxiliary is None else data.auxiliary[rows]
    answer = model.predict(scaler.inputs(spectra, auxiliary), batch_size=4096, verbose=0)
    return np.mean((answer - scaler.targets(data.amps[rows])) ** 2, axis=0)


def main():
    """Run the command line."""
    parser = study_parser("tuning", __doc__)
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs; into results/quick/")
    parser.add_argument("--more-planets", action="store_true", help="variants of configs/more_planets.yaml")
    parser.add_argument("--output", type=Path, help="default: the file in studies/results")
    arguments = parser.parse_args()
    kind, variants = ("more_planets", MORE_PLANETS) if arguments.more_planets else ("tuned", VARIANTS)
    file_name = "tuning_more_planets.csv" if arguments.more_planets else "tuning.csv"
    results = ROOT / "studies/results" / ("quick" if arguments.quick else "")
    output = arguments.output or results / file_name
    prepare_tensorflow()
    rows = []
    for name, changes in variants.items():
        changes = dict(changes)
        if arguments.quick:
            changes |= {"data.size": 1500, "training.epochs": 2}
        config = load_config(ROOT / f"configs/{kind}.yaml", changes)
        config.data.path = str(ROOT / config.data.path)
        split, start = load_split(config), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            model = train_network(config, split, Path(folder), 0, quiet=False)
        test = errors(model, split, split.test, stream(config.seed, Stream.TEST_NOISE))
        train = errors(model, split, split.folds[0][0], stream(config.seed, Stream.STUDY_NOISE))
        row = {"variant": name, **{k: f"{v:.5f}" for k, v in zip(split.data.amp_names, test)}}
        row |= {"mean": f"{test.mean():.5f}", "train_mean": f"{train.mean():.5f}"}
        row |= {"minutes": f"{(time.perf_counter() - start) / 60:.1f}"}
        rows.append(row)
        print(row, flush=True)
        write_csv(output, data_frame(rows))


if __name__ == "__main__":
    main()
