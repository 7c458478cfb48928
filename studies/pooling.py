"""Why are networks with pooling sensitive to the wrong bins? Two cnns, one with max-pooling.

    python -m studies.pooling --epochs 30 --figure docs/pooling.png  # some five minutes on one core
    python -m studies.pooling --quick                                # shows that it runs

Both are trained on the first fold of five with config.yaml. Agreement with the optimal map, and the sum of the map over
that of the optimal map, go into studies/results/pooling.csv. Printed, or drawn with ``--figure``:

- the exact map of one molecule around noisy spectra, beside the optimal map (`information.h5`);
- what the convolutions keep of each bin of the whitened spectrum: the share of its variance over noisy test spectra
  that a linear function of the input of the dense layers explains (ridge regression, fitted to training spectra);
- how similar two bins look to the dense layers: cosine between the changes of their input when one bin or the other
  moves by one standard deviation, by the distance of the two bins, mean over test spectra.
"""

import sys
from pathlib import Path

import h5py
import numpy as np

from common.metrics import spearman
from constants import Stream, stream
from pipeline.folds import load_split, prepare_tensorflow
from preprocessing import add_noise, noisy_test_spectra
from studies.command import INFORMATION, RESULTS, ROOT, settings_of, study_parser
from studies.tables import data_frame, write_csv
from studies.tuning import train

NETWORKS = {"with pooling": True, "without pooling": False}
COLOURS = {"with pooling": "#D55E00", "without pooling": "#0072B2"}
DISTANCES = 9  # bins


def parts(model):
    """Cut a cnn in two: (spectrum -> whitened spectrum, whitened spectrum -> what the dense layers see)."""
    import keras

    whitened, seen = model.get_layer("whitened_spectrum").output, model.get_layer("all_bins").output
    return keras.Model(model.input, whitened), keras.Model(whitened, seen)


def recovered(features, bins, other_features, other_bins, penalty=1e-3):
    """R2 of each bin (n_bins,) of other spectra by ridge regression on features (n, n_features) of some spectra."""
    mean, level = features.mean(axis=0), bins.mean(axis=0)
    x = (features - mean).astype(float)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, x.T @ (bins - level))
    rest = other_bins - level - (other_features - mean) @ weights
    return 1 - rest.var(axis=0) / other_bins.var(axis=0)


def similarity(convolutions, spectra, step=0.1, distances=DISTANCES):
    """Cosine between the changes of the features by two bins, by their distance (distances,), mean over whitened
    spectra.
    """
    n_bins = spectra.shape[1]
    moved = spectra[:, None] + step * np.eye(n_bins)  # (n, n_bins, n_bins): row b has bin b moved
    features = np.asarray(convolutions(moved.reshape(-1, n_bins, 1))).reshape(len(spectra), n_bins, -1)
    change = features - np.asarray(convolutions(spectra[..., None]))[:, None]
    change = change / np.maximum(np.linalg.norm(change, axis=-1, keepdims=True), 1e-12)
    cosine = np.einsum("nbf,ncf->bc", change, change) / len(spectra)
    return np.array([np.diagonal(cosine, distance).mean() for distance in range(distances)])


def measure(network, split, n_spectra=100, n_fit=8000):
    """Return what is printed and drawn of one network: its map, and the two measures of its convolutions."""
    data, scaler, rows = split.data, network.scaler, split.folds[0].train[:n_fit]
    whiten, convolutions = parts(network.model)
    noisy = noisy_test_spectra(data, split.test, 0)
    fitted = add_noise(data.spectra[rows], data.errors[rows], np.random.default_rng(stream(0, Stream.STUDY_NOISE)))
    bins = [whiten.predict(scaler.inputs(x), batch_size=4096, verbose=0)[..., 0] for x in (fitted, noisy)]
    features = [convolutions.predict(x[..., None], batch_size=1024, verbose=0) for x in bins]
    with h5py.File(INFORMATION) as file:
        index = file["index"][()]
    index = index[index < len(split.test)]
    values = network.sensitivity(
        noisy[index],
        data.errors[split.test[index]].astype(float),
        scheme="single",
        keep_spectra=False,
    )
    return {
        "map": values.mean,
        "kept": recovered(features[0], bins[0], features[1], bins[1]),
        "similarity": similarity(convolutions, bins[1][:n_spectra]),
    }


def optimal_map():
    """Read the optimal map (n_amps, n_bins): that of sampled posteriors, or of Laplace's where few were sampled."""
    with h5py.File(INFORMATION) as file:
        sampled = len(file["sampler/index"]) if "sampler" in file else 0
        source = "sampler/optimal_map" if sampled >= len(file["index"]) / 2 else "optimal_map_per_planet"
        return file[source][()].mean(axis=0, dtype=float)


def plot(path, measured, optimal, wavelength, k, name):
    """Draw the maps of AMP ``k``, how much of each bin is kept, and how similar neighbours appear."""
    import matplotlib

    from common.files import written_whole
    from constants import BANDS, amp
    from report.style import STYLE, WAVELENGTH, bin_ends, joined, wavelength_axis

    with matplotlib.rc_context(STYLE):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
        for low, high in BANDS.get(name, ()):
            axes[0].axvspan(low, high, color="#E8E8E8", lw=0)
        share = 100 * optimal[k] / optimal[k].sum()
        axes[0].stairs(share, joined(bin_ends(wavelength)), color="#000000", lw=1.1, label="best estimator")
        for what, network in measured.items():
            colour, values = COLOURS[what], network["map"][k]
            label = f"{what} ({spearman(values, optimal[k]):.2f})"
            axes[0].stairs(100 * values / values.sum(), joined(bin_ends(wavelength)), color=colour, lw=1.1, label=label)
            axes[1].stairs(100 * network["kept"], joined(bin_ends(wavelength)), color=colour, lw=1.1, label=what)
            axes[2].plot(network["similarity"], "o-", color=colour, ms=3, lw=1.1, label=what)
        axes[0].set(title=f"{amp(name).label}: single-bin map", ylabel="share of the map (%)", ylim=(0, None))
        axes[1].set(title="Kept of each bin by the convolutions", ylabel="variance (%)", ylim=(0, 103))
        axes[2].set(title="Similarity of two bins", xlabel="distance (bins)", ylabel="cosine", ylim=(-0.05, 1.05))
        for ax in axes[:2]:
            ax.set_xlabel(WAVELENGTH)
            wavelength_axis(ax, wavelength)
        axes[0].legend(frameon=False)
        with written_whole(path) as part:
            figure.savefig(part, format=Path(path).suffix[1:], dpi=200)
        plt.close(figure)


def as_cells(names, values):
    """Return the cells of a row: the mean over AMPs, then each AMP."""
    return {"mean": f"{np.mean(values):.2f}", **{name: f"{value:.2f}" for name, value in zip(names, values)}}


def main():
    """Run the command line."""
    parser = study_parser("pooling", __doc__)
    parser.add_argument("--amp", default="CO2", help="whose map is drawn (default %(default)s)")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument("--epochs", type=int, help="in place of those of config.yaml")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/pooling", help="where the networks are kept")
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs")
    arguments = parser.parse_args()
    work = arguments.work / ("quick" if arguments.quick else "")
    prepare_tensorflow()
    measured = {}
    for what, pooling in NETWORKS.items():
        changes = {"model.name": "cnn", "model.cnn.pooling": pooling, "model.cnn.patch": 1, "training.cv": 5}
        changes |= {"training.epochs": arguments.epochs} if arguments.epochs else {}
        config = settings_of("config.yaml", changes, arguments.quick)
        split = load_split(config)
        measured[what] = measure(train(what, config, split, config.seed, work / what.replace(" ", "_")), split)
    optimal = optimal_map()
    names = split.data.amp_names
    rows = []
    for what, network in measured.items():
        found = {
            "agreement with the optimal map": [spearman(one, best) for one, best in zip(network["map"], optimal)],
            "sum of the map / optimal": network["map"].sum(axis=1) / optimal.sum(axis=1),
        }
        rows += [{"network": what, "measured": name, **as_cells(names, values)} for name, values in found.items()]
        print(f"{what}: variance kept of a bin, mean {network['kept'].mean():.3f}, least {network['kept'].min():.3f}")
        print("  similarity by distance:", " ".join(f"{value:.2f}" for value in network["similarity"]))
    table = data_frame(rows)
    print(table.to_string(index=False))
    if not arguments.quick:
        write_csv(RESULTS / "pooling.csv", table)
    if arguments.figure:
        k = names.index(arguments.amp)
        plot(arguments.figure, measured, optimal, split.data.wavelength, k, arguments.amp)


if __name__ == "__main__":
    sys.exit(main())
