"""The recipe of Yip et al. (2021) beside config.yaml: networks, scores, maps, and how far down in abundance they reach.

    python -m studies.paper                                     # one fold of each network and recipe, see `EPOCHS`
    python -m studies.paper --networks mlp cnn --epochs 30      # some of them, the paper's recipe for 30 epochs
    python -m studies.paper --ours RUN_DIR ...                  # the first folds of finished runs of config.yaml
    python -m studies.paper --folds 5 --epochs 100              # as published: days on two cores, for the lstm alone
    python -m studies.paper --quick                             # shows that it runs, nothing written

Each network is a run of runfile.py with configs/paper.yaml or config.yaml, kept in ``--work`` and resumed by the same
command. An epoch of the paper's recipe has ten times as many spectra as one of config.yaml, and an epoch of its lstm
takes twenty times as long as one of its mlp; so the paper's recipe is trained for fewer epochs. Predictions are scored
on the noisy test spectra. Two maps follow, at the test planets of data/information.h5 whose posteriors were sampled, so
that they can be compared with the optimal map of the same planets: the published one (halving groups around noise-free
spectra) and the exact one (single bins around noisy spectra). Rows of networks that are not asked for stay. Writes into
studies/results:

- paper_scores.csv: R2 and squared error / limit per AMP;
- paper_maps.csv: per AMP and map, the agreement with the optimal map and, for molecules, the share in bands, for all
  planets and for the thirds of the planets with the lowest, middle and highest abundance of that molecule;
- paper_trust.csv: per molecule, the lowest predicted abundance from which on at least 70 % of the predictions are
  within 0.5 dex of the truth;

and with --figure the maps of three molecules by the paper's mlp. Figures of each network (predicted against true, bias,
credibility) are in the folder of its run.
"""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from common.files import digest
from common.metrics import band_share, spearman
from constants import BANDS, NETWORKS, Stream, stream
from studies.command import INFORMATION, RESULTS, ROOT, settings_of, study_parser
from studies.tables import as_markdown, data_frame, put_between_marks, read_csv, replaced_rows, write_csv
from studies.unmixing import unmixed

RECIPES = {"paper": "configs/paper.yaml", "ours": "config.yaml"}
EPOCHS = {"mlp": 30, "cnn": 30, "lstm": 10, "hybrid": 30}  # of the paper's recipe; it has 100
THIRDS = ("low", "middle", "high")  # of the planets, by the abundance of a molecule
FIGURE_AMPS, FIGURE_RUN = ("H2O", "CO", "CO2"), ("paper", "mlp")
KEYS = ["recipe", "network"]
MOLECULES = ("H2O", "CH4", "CO", "CO2", "NH3")
MARKS = tuple(f"<!-- {what}: studies.paper -->" for what in ("begin", "end"))


def epochs_of(recipe, network, arguments):
    """Return the epochs of a run: config.yaml has its own, the paper's recipe those of the command or `EPOCHS`."""
    if arguments.quick:
        return 1
    if recipe == "ours":
        return settings_of(RECIPES[recipe]).training.epochs
    return arguments.epochs or EPOCHS[network]


def train(recipe, network, epochs, arguments):
    """Run runfile.py with a recipe, or go on with it, unless it is finished; return the folder of the run."""
    folder = arguments.work / f"{recipe}_{network}_{arguments.folds}x{epochs}"
    command = ["--config", RECIPES[recipe], "--model", network, "--cv", arguments.folds, "--output", folder]
    command += ["--epochs", epochs, "--no-sensitivity", "--resume"]
    command += ["--size", 3000] if arguments.quick else []
    subprocess.run([sys.executable, "runfile.py", *map(str, command)], cwd=ROOT, check=True)
    return folder


def sampled_planets(run):
    """Return the places among the test planets of a run, and the optimal maps (n, n_amps, n_bins), of the
    posteriors.
    """
    with h5py.File(INFORMATION) as file:
        index, optimal = file["sampler/index"][()], file["sampler/optimal_map"][()].astype(float)
    known = index < len(run.test_rows)
    return index[known], optimal[known]


def maps_of(run, data, arguments):
    """Return {map: (n, n_amps, n_bins)} of the planets with posteriors, made once for the settings of the command."""
    from pipeline.network import TrainedNetwork
    from preprocessing import noisy_test_spectra

    made = digest(run.folder / "results.h5")[:12]  # the run that the maps belong to
    stored = arguments.work / f"maps_{run.folder.name}_{made}_{arguments.repeat}_{arguments.planets}.npz"
    if not stored.is_file():
        index, network = sampled_planets(run)[0][: arguments.planets], TrainedNetwork.of_run(run)
        rows = run.test_rows[index]
        spectra, errors = data.spectra[rows].astype(float), data.errors[rows].astype(float)
        noisy = noisy_test_spectra(data, run.test_rows, run.seed)[index]
        rng = stream(run.seed, Stream.STUDY_MAPS, 12)
        published = network.sensitivity(spectra, errors, scheme="halving", repeat=arguments.repeat, nodes=None, rng=rng)
        exact = network.sensitivity(noisy, errors, scheme="single")
        np.savez(stored, published=published.per_spectrum, exact=exact.per_spectrum)
    with np.load(stored) as file:
        return {name: file[name].astype(float) for name in ("published", "exact")}


def with_floor_removed(maps, n_bins):
    """Add the published map without its floor to {map: (n, n_amps, n_bins)}."""
    from sensitivity import halving_sizes

    return {**maps, "published, floor removed": unmixed(maps["published"], halving_sizes(n_bins))}


def score_rows(about, run, quick):
    """Rows of paper_scores.csv: R2, and squared error / limit where the test spectra are those of the limit."""
    from common.metrics import scores
    from studies.limit import compare

    best = run.best
    found = {"R2": scores(run.y_test, best.y_pred, best.scaler.y_std)["R2"]}
    if not quick:
        found["squared error / limit"] = compare(best.y_pred[None], run.y_test, run.amp_names).sampler
    return [
        about
        | {"score": name, "mean": f"{values.mean():.3f}"}
        | {amp: f"{value:.4g}" for amp, value in zip(run.amp_names, values)}
        for name, values in found.items()
    ]


def map_rows(about, run, maps, wavelength):
    """Rows of paper_maps.csv: agreement and share in bands of each map, and of the optimal one, by abundance."""
    index, optimal = sampled_planets(run)
    n = len(maps["exact"])
    rows, truth, optimal = [], run.y_test[index[:n]], optimal[:n]
    for k, amp in enumerate(run.amp_names):
        thirds = np.argsort(np.argsort(truth[:, k])) * len(THIRDS) // n
        chosen = {"all": np.ones(n, bool)}
        if amp in BANDS:
            chosen |= {name: thirds == t for t, name in enumerate(THIRDS)}
        for what, values in {**with_floor_removed(maps, len(wavelength)), "optimal": optimal}.items():
            for planets, some in chosen.items():
                row, best = values[some, k].mean(axis=0), optimal[some, k].mean(axis=0)
                cells = {"map": what, "amp": amp, "planets": planets, "agreement": f"{spearman(row, best):.3f}"}
                if amp in BANDS:
                    cells["in_bands"] = f"{band_share(row, wavelength, BANDS[amp]):.3f}"
                rows.append(about | cells)
    return rows


def trust_row(about, run):
    """Row of paper_trust.csv: the lowest predicted log10 abundance from which on predictions are trusted, or empty."""
    from report.diagnostics import binning, credibility, credible_from, tolerance

    spread = run.best.scaler.y_std
    eps, width = tolerance(run.amp_table, spread), binning(run.amp_table, spread)
    row = dict(about)
    for amp, found in zip(run.amp_names, credibility(run.y_test, run.best.y_pred, eps, width)):
        if amp in BANDS:
            first = credible_from(found)
            row[amp] = f"{first:.1f}" if np.isfinite(first) else ""
    return row


def markdown(scores, maps, trust):
    """Lines of the page: tables of scores, of maps, and of trust, from the three stored tables."""
    order = {pair: i for i, pair in enumerate(itertools.product(RECIPES, NETWORKS))}
    scores, maps, trust = (
        table.iloc[np.argsort([order[pair] for pair in zip(table["recipe"], table["network"])], kind="stable")]
        for table in (scores, maps, trust)
    )
    rows = []
    for (recipe, network), part in scores.groupby(KEYS, sort=False):
        r2, ratio = (part[part["score"] == name].iloc[0] for name in ("R2", "squared error / limit"))
        ratios = ratio.drop([*KEYS, "folds", "epochs", "score", "mean"]).astype(float)
        rows.append(
            {"recipe": recipe, "network": network, "folds x epochs": f"{r2['folds']} x {r2['epochs']}"}
            | {"mean R²": f"{r2['mean']:.3f}", "squared error / limit: median": f"{ratios.median():.2f}"}
            | {"least to greatest": f"{ratios.min():.3g} to {ratios.max():.3g}"}
        )
    lines = [*as_markdown(data_frame(rows)), ""]
    rows, together = [], maps[maps["planets"] == "all"]
    for (recipe, network), part in together.groupby(KEYS, sort=False):
        one = dict(list(part.groupby("map", sort=False)))
        agreement = (f"{one[name]['agreement'].mean():.2f}" for name in ("published", "exact"))
        row = {"recipe": recipe, "network": network, "agreement": ", ".join(agreement)}
        rows.append(row | _shares([one[name] for name in ("published", "published, floor removed", "exact")]))
    rows.append({"recipe": "best estimator"} | _shares([one["optimal"]]))
    lines += [*as_markdown(data_frame(rows).fillna("")), ""]
    return lines + as_markdown(trust.astype(object).fillna("none").astype(str))


def _shares(parts):
    """Share in bands of each molecule, in per cent, in one map after the other: a dict of texts."""
    found = [part.set_index("amp")["in_bands"] for part in parts]
    return {name: "/".join(f"{100 * one[name]:.0f}" for one in found) for name in MOLECULES}


def plot(path, maps, optimal, names, wavelength):
    """Draw the share of each bin in the published map, the same without its floor, the exact and the optimal map."""
    import matplotlib

    from common.files import written_whole
    from constants import amp
    from report.style import STYLE, WAVELENGTH, bin_ends, joined, wavelength_axis

    edges = joined(bin_ends(wavelength))
    shown = {**with_floor_removed(maps, len(wavelength)), "best estimator": optimal}
    colours = dict(zip(shown, ("#0072B2", "#D55E00", "#56B4E9", "#000000")))
    with matplotlib.rc_context(STYLE):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(len(FIGURE_AMPS), 1, figsize=(7.2, 6.4), sharex=True, layout="constrained")
        for name, ax in zip(FIGURE_AMPS, axes):
            for low, high in BANDS[name]:
                ax.axvspan(low, high, color="#E8E8E8", lw=0)
            for what, values in shown.items():
                row = values[:, names.index(name)].mean(axis=0)
                ax.stairs(100 * row / row.sum(), edges, color=colours[what], lw=1.1, label=what)
            ax.set(ylim=(0, None), ylabel="share of the map (%)", title=amp(name).label)
            wavelength_axis(ax, wavelength)
        axes[-1].set_xlabel(WAVELENGTH)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        with written_whole(path) as part:
            figure.savefig(part, format=Path(path).suffix[1:], dpi=150)
        plt.close(figure)


def main():
    """Run the command line."""
    parser = study_parser("paper", __doc__)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="default: both")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, help="default: all four")
    parser.add_argument("--ours", nargs="+", default=[], metavar="RUN_DIR", help="runs of config.yaml, see above")
    parser.add_argument("--folds", type=int, default=1, help="of each run (default %(default)s; paper: 5)")
    parser.add_argument("--epochs", type=int, help="of the paper's recipe (default: 30, and 10 of the lstm)")
    parser.add_argument("--repeat", type=int, default=500, help="of the published map (default %(default)s)")
    parser.add_argument("--planets", type=int, default=300, help="behind each map (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/paper", help="where the runs are kept")
    parser.add_argument("--figure", type=Path, help="picture of the maps of the paper's mlp")
    parser.add_argument("--page", type=Path, help="Markdown file whose tables are made anew")
    parser.add_argument("--train", action="store_true", help="train the networks, nothing else")
    parser.add_argument("--quick", action="store_true", help="3000 spectra, 1 epoch, 5 repeats; nothing written")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    if arguments.quick:
        arguments.repeat, arguments.planets = 5, 10
        arguments.work /= "quick"

    from loaders import load_dataset
    from runio.results import load_run
    from studies.limit import refuse_other_test

    data = load_dataset(ROOT / "data/ariel_spectra.h5")
    finished = [dataclasses.replace(load_run(folder), ensemble=None) for folder in arguments.ours]  # their first folds
    ours = {run.model: run for run in finished}
    arguments.work.mkdir(parents=True, exist_ok=True)
    for network in arguments.networks:
        for recipe in arguments.recipes:
            run = ours.get(network) if recipe == "ours" else None
            folds = 1 if run else arguments.folds
            if run is None:
                run = load_run(train(recipe, network, epochs_of(recipe, network, arguments), arguments))
            if arguments.train:
                continue
            if not arguments.quick:
                refuse_other_test(run)
            maps = maps_of(run, data, arguments)
            about = {"recipe": recipe, "network": network}
            rows = {
                "paper_scores.csv": score_rows(
                    about | {"folds": folds, "epochs": run.config["training"]["epochs"]}, run, arguments.quick
                ),
                "paper_maps.csv": map_rows(about, run, maps, data.wavelength),
                "paper_trust.csv": [trust_row(about, run)],
            }
            for file, found in rows.items():
                table = data_frame(found)
                print(table.to_string(index=False), flush=True)
                if not arguments.quick:
                    write_csv(RESULTS / file, replaced_rows(RESULTS / file, table, KEYS))
            if arguments.figure and (recipe, network) == FIGURE_RUN:
                optimal = sampled_planets(run)[1][: len(maps["exact"])]
                plot(arguments.figure, maps, optimal, list(run.amp_names), data.wavelength)
    if arguments.page and not arguments.quick:
        stored = [read_csv(RESULTS / file) for file in rows]
        put_between_marks(arguments.page, MARKS, "\n".join(markdown(*stored)))


if __name__ == "__main__":
    sys.exit(main())
