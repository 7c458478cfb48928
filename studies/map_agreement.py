"""Is a network sensitive to the same bins as the best estimator? Its maps beside the optimal map, per AMP.

    python -m studies.map_agreement RUN_DIR [RUN_DIR ...] --figure docs/optimal_map.png
    python -m studies.map_agreement --methods RUN_DIR [RUN_DIR ...] --ensemble RUN_DIR [RUN_DIR ...]

For a RUN_DIR by itself, the two maps that the run wrote, of its mean of folds and of its first fold, are compared with
the optimal map of data/information.h5. With ``--methods`` (first fold) and ``--ensemble`` (mean of folds) several
explanations are computed at the test planets of the optimal map:

- single, halving: the two schemes of the sensitivity test, at equal numbers of evaluations
- gradient: the network's Jacobian times the error of each bin, squared
- permutation: rise of the squared error when one bin's depths are shuffled among the test spectra
- shap: expected gradients (needs the package shap; with --shap)
- Fisher: (d depth / d AMP / error)^2, which uses no network

Each is computed around the noise-free spectra and around those noisy spectra whose posteriors were sampled ("noisy").
The second is the fair comparison, as the optimal map describes how the posterior mean of a noisy spectrum moves.

Written per AMP: the agreement with the optimal map (of sampled posteriors, and of Laplace's), the number of bins that
are among the ten largest of both, for a molecule the share in its bands (constants.BANDS), and for single and gradient,
which are in the unit of the optimal map, the ratio of the sums over bins: by how much more (mean square) noise moves
the predictions than those of the best estimator.
"""

import sys
from pathlib import Path

import numpy as np

from common.metrics import band_share, spearman
from constants import Stream, stream
from studies.command import INFORMATION, RESULTS, study_parser
from studies.information import fisher_map
from studies.tables import data_frame, replaced_rows, write_csv

COLUMNS = [
    "run",
    "network",
    "map",
    "amp",
    "spearman_sampled",
    "spearman_laplace",
    "top_ten_shared",
    "band_share",
    "band_share_optimal",
    "total_over_optimal",
    "planets",
]
WRITTEN = {"exact": "sensitivity_single", "published": "sensitivity"}  # the maps of a run


def gradient_maps(network, spectra, errors, auxiliary=None, batch=512):
    """Yield (d AMP / d depth x error)^2 of a batch of spectra, (n, n_amps, n_bins), by automatic differentiation."""
    import tensorflow as tf

    scaler = network.scaler
    for start in range(0, len(spectra), batch):
        part = slice(start, start + batch)
        x = tf.constant(scaler.inputs(spectra[part]))  # (n, n_bins, 1)
        inputs = x if auxiliary is None else [x, tf.constant(scaler.scaled_auxiliary(auxiliary[part]))]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            predictions = network.model(inputs, training=False)
            columns = tf.unstack(predictions, axis=1)  # rows do not mix: gradients of sums will do
        slope = np.stack([tape.gradient(column, x).numpy()[..., 0] for column in columns], axis=1)
        # (n, n_amps, n_bins), scaled units
        moved = slope * scaler.y_std[:, None] / scaler.x_std * errors[part, None]
        yield moved.astype(float) ** 2


def gradient_map(network, spectra, errors, auxiliary=None, batch=512):
    """Mean of (d AMP / d depth x error)^2 over spectra, (n_amps, n_bins)."""
    return sum(part.sum(axis=0) for part in gradient_maps(network, spectra, errors, auxiliary, batch)) / len(spectra)


def permutation_maps(predict, spectra, amps, repeats=5, seed=0):
    """Rise of each squared error when one bin is shuffled among the spectra, (n, n_amps, n_bins)."""
    rng = np.random.default_rng(seed)
    before = (predict(spectra) - amps) ** 2
    rise = np.zeros((*amps.shape, spectra.shape[1]))
    for b in range(spectra.shape[1]):
        for _ in range(repeats):
            moved = spectra.copy()
            moved[:, b] = rng.permutation(moved[:, b])
            rise[..., b] += (predict(moved) - amps) ** 2 - before
    return rise / repeats


def permutation_map(predict, spectra, amps, repeats=5, seed=0):
    """Rise of the mean squared error when one bin is shuffled among the spectra, (n_amps, n_bins)."""
    return permutation_maps(predict, spectra, amps, repeats, seed).mean(axis=0)


def shap_maps(network, spectra, background, samples=200, auxiliary=(None, None)):
    """Absolute SHAP values of each spectrum by expected gradients, (n, n_amps, n_bins), in scaled units.

    ``auxiliary`` holds the second inputs of the spectra and of the background.
    """
    import shap

    explainer = shap.GradientExplainer(network.model, network.scaler.inputs(background, auxiliary[1]))
    values = explainer.shap_values(network.scaler.inputs(spectra, auxiliary[0]), nsamples=samples, rseed=0)
    values = np.asarray(values if auxiliary[0] is None else values[0])  # (n, n_bins, 1, n_amps)
    return np.abs(values.reshape(len(spectra), spectra.shape[1], -1)).swapaxes(1, 2)


def shap_map(network, spectra, background, samples=200, auxiliary=(None, None)):
    """Mean absolute SHAP value, (n_amps, n_bins), in scaled units; arguments as for `shap_maps`."""
    return shap_maps(network, spectra, background, samples, auxiliary).mean(axis=0)


def auxiliary_of_run(run):
    """Auxiliary inputs of the test spectra of a run, (n_test, k), from its data set, or None."""
    from loaders import load_dataset

    chosen = run.config["data"]
    if not chosen["auxiliary"]:
        return None
    return load_dataset(chosen["path"], chosen["format"], auxiliary=chosen["auxiliary"]).auxiliary[run.test_rows]


def maps_of_run(folder, data, test, index, repeat, samples, ensemble=False, information=INFORMATION):
    """Name and {map: (n_amps, n_bins)} of the first network of a run or the mean of its folds; ``samples`` of SHAP, 0:
    none.
    """
    from pipeline.network import TrainedNetwork, mean_network
    from preprocessing import noisy_test_spectra
    from runio.results import load_run
    from sensitivity import halving_sizes
    from studies.limit import refuse_other_test

    run = load_run(folder)
    refuse_other_test(run, information)
    networks = [TrainedNetwork.of_run(run, k) for k in (sorted(run.folds) if ensemble else [0])]
    network = mean_network(networks) if ensemble else networks[0]
    errors = data.errors[test[index]].astype(float)
    spectra, noisy = data.spectra[test[index]], noisy_test_spectra(data, test, run.seed)[index]
    rest = np.setdiff1d(np.arange(len(test)), index)[:100]
    auxiliary, n_bins = auxiliary_of_run(run), spectra.shape[1]
    second = {part: None if auxiliary is None else auxiliary[rows] for part, rows in (("own", index), ("rest", rest))}

    def perturbed(x, scheme, times):
        return network.sensitivity(
            x,
            errors,
            auxiliary=second["own"],
            repeat=times,
            nodes=None,
            rng=stream(run.seed, Stream.STUDY_MAPS),
            scheme=scheme,
            keep_spectra=False,
            progress=sys.stderr.isatty(),
        ).mean

    maps = {}
    for what, x in (("", spectra), (", noisy", noisy)):
        maps["single" + what] = perturbed(x, "single", repeat)
        maps["halving" + what] = perturbed(x, "halving", repeat * n_bins // len(halving_sizes(n_bins)))
        maps["gradient" + what] = gradient_map(network, x, errors, second["own"])
        if samples:
            background = data.spectra[test[rest]]
            maps["shap" + what] = shap_map(network, x, background, samples, (second["own"], second["rest"]))
    maps["permutation, noisy"] = permutation_map(
        lambda x: network.predict(x, second["own"]),
        noisy,
        data.amps[test[index]],
        seed=stream(run.seed, Stream.STUDY_MAPS, 1),
    )
    return f"{run.model}, mean of folds" if ensemble else run.model, maps


def written_maps(folder, information=INFORMATION):
    """Return [(network, {map: (n_amps, n_bins)})] that a run wrote: of the mean of its folds, and of its first."""
    from runio.results import load_run
    from studies.limit import refuse_other_test

    run = load_run(folder)
    refuse_other_test(run, information)
    networks = [(f"{run.model}, mean of folds", run.ensemble)] if run.ensemble else []
    networks.append((run.model, run.folds[min(run.folds)]))
    written = []
    for network, fold in networks:
        maps = {}
        for scheme, name in WRITTEN.items():
            if getattr(fold, name) is not None:
                maps[f"{scheme} of the run" + (", noisy" if fold.noisy[name] else "")] = getattr(fold, name).mean
        written.append((network, maps))
    if not any(maps for _, maps in written):
        raise ValueError(f"{folder}: expected a run with maps, found none")
    return written


def shared_top(a, b, top=10):
    """Count the bins that are among the ``top`` largest of both maps, (n_bins,) each."""
    return len(set(np.argsort(a)[-top:]) & set(np.argsort(b)[-top:]))


def compare(maps, references, names, wavelength):
    """One row (a dict without run and network) per map and AMP; ``references`` has "sampled" and "laplace"."""
    from constants import BANDS

    rows = []
    best = references.get("sampled", references["laplace"])
    for what, values in maps.items():
        for k, name in enumerate(names):
            row = {"map": what, "amp": name, "top_ten_shared": shared_top(values[k], best[k])}
            if what.split(",")[0] in ("single", "gradient", "exact of the run"):
                row["total_over_optimal"] = round(float(values[k].sum() / best[k].sum()), 3)
            for reference, optimal in references.items():
                row[f"spearman_{reference}"] = round(spearman(values[k], optimal[k]), 3)
            if name in BANDS:
                row["band_share"] = round(band_share(np.maximum(values[k], 0), wavelength, BANDS[name]), 3)
                row["band_share_optimal"] = round(band_share(best[k], wavelength, BANDS[name]), 3)
            rows.append(row)
    return rows


def plot_maps(path, wavelength, optimal, network, names, label="network"):
    """Draw the share of each bin in the optimal map and in a network's map, (n_amps, n_bins) each, a panel per AMP."""
    import matplotlib

    from common.files import written_whole
    from constants import BANDS, amp
    from report.style import STYLE, WAVELENGTH, bin_ends, joined, panel_grid, wavelength_axis

    with matplotlib.rc_context(STYLE):
        figure, axes = panel_grid(len(names), share_x=True)
        for k, (name, ax) in enumerate(zip(names, axes)):
            for low, high in BANDS.get(name, ()):
                ax.axvspan(low, high, color="#E8E8E8", lw=0)
            for values, what, colour in ((optimal[k], "best estimator", "#000000"), (network[k], label, "#D55E00")):
                ax.stairs(100 * values / values.sum(), joined(bin_ends(wavelength)), color=colour, lw=1.1, label=what)
            ax.set_title(f"{amp(name).label}  (Spearman {spearman(optimal[k], network[k]):.2f})")
            ax.set_ylim(0)
            wavelength_axis(ax, wavelength)
        for ax in axes[::3]:
            ax.set_ylabel("share of the map (%)")
        for ax in axes[-3:]:
            ax.set_xlabel(WAVELENGTH)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        with written_whole(path) as part:
            figure.savefig(part, format=Path(path).suffix[1:], dpi=200)


def text_table(table, key):
    """Table to print: a row per map, a column per AMP; maps without any value are left out."""
    label = (table["run"] + " " + table["network"] + " " + table["map"]).str.strip()
    cells = table.assign(label=label).pivot_table(key, "label", "amp", sort=False)
    cells["mean"] = cells.mean(axis=1)
    return cells.rename_axis(index=None, columns=key).to_string(float_format="{:.2f}".format, na_rep="")


def main():
    import h5py

    from studies.emulator import load_rows

    parser = study_parser("map_agreement", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN_DIR", help="runs whose own maps are compared")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="RUN_DIR",
        help="runs of which to explain the first fold",
    )
    parser.add_argument(
        "--planets", type=int, default=300, help="test planets (default: all that were sampled, at most %(default)s)"
    )
    parser.add_argument("--repeat", type=int, default=60, help="of the single-bin scheme (default %(default)s)")
    parser.add_argument("--shap", action="store_true", help="also SHAP values (needs the package shap)")
    parser.add_argument("--samples", type=int, default=200, help="of SHAP, for each planet and AMP (%(default)s)")
    parser.add_argument(
        "--ensemble",
        nargs="+",
        default=[],
        metavar="RUN_DIR",
        help="runs of which to explain the mean of the folds",
    )
    parser.add_argument("--information", type=Path, default=INFORMATION, help="default: data/information.h5")
    parser.add_argument("--out", type=Path, default=RESULTS / "map_agreement.csv", metavar="CSV")
    parser.add_argument("--figure", type=Path, help="the optimal map and that of the first network")
    parser.add_argument("--quick", action="store_true", help="20 planets, 5 repeats, nothing written")
    arguments = parser.parse_args()
    if not arguments.runs + arguments.methods + arguments.ensemble:
        parser.error("expected at least one RUN_DIR")
    n, repeat = (20, 5) if arguments.quick else (arguments.planets, arguments.repeat)

    data, _, test = load_rows()
    with h5py.File(arguments.information) as file:
        n = min(n, len(file["sampler/index"])) if "sampler" in file else n
        index, wavelength = file["index"][:n], file["wavelength"][()]
        names = [str(name) for name in file.attrs["amp_names"]]
        errors = data.errors[test[index]].astype(float)
        references = {"laplace": file["optimal_map_per_planet"][:n].mean(axis=0, dtype=float)}
        free = {"Fisher": fisher_map(file["jacobian"][:n].astype(float), errors).mean(axis=0)}
        if "sampler" in file:
            if not np.array_equal(file["sampler/index"][:n], index):
                parser.exit(2, f"{parser.prog}: {arguments.information} holds other planets in sampler/\n")
            references["sampled"] = file["sampler/optimal_map"][:n].mean(axis=0, dtype=float)
            free["Laplace"] = references["laplace"]
    rows = [{"run": "", "network": "none", **row} for row in compare(free, references, names, wavelength)]
    explained = [(run, False) for run in arguments.methods] + [(run, True) for run in arguments.ensemble]
    samples = arguments.samples if arguments.shap else 0
    explained_runs = []  # (run, network, maps)
    try:
        for folder in arguments.runs:
            explained_runs += [(folder, *one) for one in written_maps(folder, arguments.information)]
        for folder, ensemble in explained:
            asked = folder, data, test, index, repeat, samples, ensemble, arguments.information
            explained_runs.append((folder, *maps_of_run(*asked)))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for folder, network, maps in explained_runs:
        scores = compare(maps, references, names, wavelength)
        rows += [{"run": Path(folder).name, "network": network, **row} for row in scores]
    table = data_frame(rows).assign(planets=len(index)).reindex(columns=COLUMNS)
    for key in COLUMNS[4:-1]:
        if table[key].notna().any():
            print(text_table(table, key), end="\n\n")
    if not arguments.quick:
        write_csv(arguments.out, replaced_rows(arguments.out, table, ["run", "network", "map"]))
        if arguments.figure:
            best, (_, network, maps) = references.get("sampled", references["laplace"]), explained_runs[0]
            what = next(name for name in maps if name.split()[0] in ("exact", "single") and name.endswith("noisy"))
            plot_maps(arguments.figure, wavelength, best, maps[what], names, f"{network}, single bins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
