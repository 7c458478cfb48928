"""Networks with a known defect: does each explanation find it, how often, and at what cost?

    python -m studies.blindness --shap --pudu --page docs/explanations.md --figure docs/blindness.png
    python -m studies.blindness --quick        # 3000 spectra, 2 epochs, 10 planets, one seed

Networks are mlps of config.yaml, first of five folds, cut to 33 epochs: per seed one healthy network and four with a
defect of its data (about 40 s each on one core). Defects, and what counts as found, per AMP (a case):

- dead: four bins hold noise in training, and are set to their mean in front of the network, so that no prediction can
  depend on them. Found: these four have the smallest shares of all bins.
- band: all bins in the bands of one molecule hold noise in training, as large as planets differ and new in every epoch,
  so that the network learns not to use them; it is explained at true spectra. Found: the share of these bins is less
  than a tenth of that in the healthy network's map.
- shortcut: in training and in use the depth of one bin is raised by ``strength`` errors for each standard deviation of
  an AMP, which gives that AMP away; three AMPs and bins per network. Found: the bin has the largest share of the AMP.
- exchange: two columns of the spectra are exchanged, in training and in use, as in a file that mixes up wavelengths.
  Neither training nor explanations depend on the order of the bins, so the map is that of a healthy network with two
  columns exchanged, and is made that way. Found: compared with a healthy network of another seed, the shares of these
  two bins differ most.

The same rules are applied to the healthy network of the same seed, which gives the false alarms. The explanations and
their evaluations are those of `explanations.py`, at 100 noisy test spectra. How much a network depends on its defect is
measured without an explanation: squared error with the shortcut taken away, or with the bins of another planet, over
that without. Networks and maps are kept in ``--work``, and read from there.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from constants import Stream, stream
from studies import defects
from studies.command import RESULTS, ROOT, settings_of, study_parser, with_data
from studies.explanations import ON_PAGE, Scene, explain
from studies.tables import as_markdown, data_frame, put_between_marks, write_csv, write_page

STRENGTHS = (3, 1)  # of the shortcut
TITLE = "Defects found, false alarms in brackets (studies/blindness.py, docs/explanations.md)"
MARKS = "<!-- begin: studies.blindness -->", "<!-- end: studies.blindness -->"


# --- networks and their maps ---


class Workshop:
    """Trains and explains the networks of one split, each once; they are kept in ``work``."""

    def __init__(self, config, work, planets, with_shap, with_pudu):
        from pipeline.folds import load_split

        self.config, self.work, self.split = config, Path(work), load_split(config)
        self.options = with_shap, with_pudu
        rng = np.random.default_rng(stream(0, Stream.STUDY_PLANETS, 2))
        self.index = rng.permutation(len(self.split.test))[:planets]

    @property
    def rows(self):
        """Training rows."""
        return self.split.folds[0].train

    def train(self, name, seed, data=None):
        """Return the network called ``name``, trained on other data than the split's if given."""
        from studies.tuning import train

        split = self.split
        if data is not None:
            split = with_data(split, data)
        return train("mlp", self.config, split, seed, self.work / f"{name}_{seed}")

    def test_set(self, data):
        """Noisy test spectra (n_test, n_bins) and true AMPs."""
        from preprocessing import noisy_test_spectra

        return noisy_test_spectra(data, self.split.test, 0), data.amps[self.split.test]

    def explain(self, name, seed, network, data):
        """Return {explanation: (shares (n_amps, n_bins), evaluations)} of a network in use on ``data``."""
        path = self.work / f"{name}_{seed}" / f"maps_{'_'.join(map(str, map(int, self.options)))}_{len(self.index)}.npz"
        if not path.is_file():
            scene = Scene.of(data, self.split.test, self.index, self.test_set(data)[0])
            found = list(explain(network, scene, *self.options, long=("halving",)))
            names, maps, evaluations = zip(*((what, maps.mean(axis=0), cost) for what, maps, cost in found))
            np.savez(path, names=names, maps=maps, evaluations=evaluations)
        with np.load(path) as stored:
            found = zip(stored["names"].tolist(), stored["maps"], stored["evaluations"].tolist())
            return {what: (defects.shares_of(values), cost) for what, values, cost in found}


def squared_error(network, spectra, amps):
    """Scaled mean squared error of each AMP, (n_amps,)."""
    return (((network.predict(spectra) - amps) / network.scaler.y_std) ** 2).mean(axis=0)


def from_another_planet(spectra, bins, seed):
    """Spectra whose ``bins`` are those of another planet, all from the same one."""
    moved = spectra.copy()
    moved[:, bins] = np.random.default_rng(stream(seed, Stream.CORRUPTION, 2)).permutation(spectra)[:, bins]
    return moved


def found_rows(defect, seed, maps, healthy, rule, value, cases):
    """Yield a row (dict) per explanation and case: is the defect found, and is there an alarm in the healthy network?

    ``rule`` and ``value`` are functions of the shares in both maps that return an array over ``cases``, names of AMPs.
    """
    for what, (shares, cost) in maps.items():
        normal = healthy[what][0]
        numbers = zip(cases, rule(shares, normal), rule(normal, normal), value(shares, normal))
        for case, hit, alarm, number in numbers:
            row = {"defect": defect, "explanation": what, "seed": seed, "amp": case, "found": int(hit)}
            yield row | {"false_alarm": int(alarm), "value": round(float(number), 5), "evaluations": cost}


def blind_networks(shop, seed, wrong, healthy):
    """Rows, and errors without the bins, of the networks of a seed that were taught not to use some bins."""
    data, rows, proofs = shop.split.data, [], []
    spectra, amps = shop.test_set(data)
    rules = {"dead": defects.dead_found, "band": defects.band_found}
    for defect, rule in rules.items():
        bins = wrong[defect]
        network = shop.train(defect, seed, defects.only_noise(data, shop.rows, bins))
        if defect == "dead":
            network = defects.masked(network, bins, data.spectra[np.ix_(shop.rows, bins)].mean(axis=0))
        maps = shop.explain(defect, seed, network, data)
        asked = partial(rule, bins=bins), partial(defects.share_left, bins=bins), data.amp_names
        rows += found_rows(defect, seed, maps, healthy, *asked)
        moved = from_another_planet(spectra, bins, seed)
        for what, one in (("healthy", shop.train("healthy", seed)), (defect, network)):
            ratio = (squared_error(one, moved, amps) / squared_error(one, spectra, amps)).mean()
            proofs.append({"network": what, "seed": seed, "taken": f"bins of {defect}", "error_ratio": round(ratio, 3)})
    return rows, proofs


def shortcut_networks(shop, seed, wrong, healthy):
    """Rows, and errors without the shortcut, of the networks of a seed that have one."""
    data, rows, proofs, given = shop.split.data, [], [], wrong["shortcut"]
    before = squared_error(shop.train("healthy", seed), *shop.test_set(data))
    for strength in STRENGTHS:
        defect, changed = f"shortcut, {strength} sigma", defects.with_shortcut(data, shop.rows, given, strength)
        network = shop.train(f"shortcut_{strength}", seed, changed)
        maps = shop.explain(f"shortcut_{strength}", seed, network, changed)
        asked = (partial(f, given_away=given) for f in (defects.shortcut_found, defects.share_of_shortcut))
        rows += found_rows(defect, seed, maps, healthy, *asked, [data.amp_names[a] for a in given])
        with_it, without = (squared_error(network, *shop.test_set(one)) for one in (changed, data))
        for a in given:
            proof = {"network": defect, "seed": seed, "taken": f"shortcut of {data.amp_names[a]}"}
            proof["error_ratio"] = round((without / with_it)[a], 3)
            proofs.append(proof | {"error_over_healthy": round((with_it / before)[a], 3)})
    return rows, proofs


def exchanged_bins(healthy, names, wavelength):
    """Rows of the exchanged bins: the network of each seed, with two columns exchanged, beside that of the next."""
    rows = []
    for seed, maps in healthy.items():
        other = healthy[(seed + 1) % len(healthy)]
        for pair in defects.defects_of(seed, names, wavelength)["exchange"]:
            for what, (shares, cost) in maps.items():
                both = defects.exchanged(shares, pair), shares
                hits, alarms = (defects.exchange_found(one, other[what][0], pair) for one in both)
                apart = np.abs(np.diff(shares[:, pair], axis=1))[:, 0]
                about = {"defect": "exchange", "explanation": what, "seed": seed}
                for name, hit, alarm, share in zip(names, hits, alarms, apart):
                    row = about | {"amp": name, "found": int(hit), "false_alarm": int(alarm)}
                    rows.append(row | {"value": round(float(share), 5), "evaluations": cost})
    return rows


def markdown(table, shown=ON_PAGE):
    """Lines of a table: cases found, and false alarms in brackets, per defect and explanation (None: of all)."""
    rows = []
    for what, part in table.groupby("explanation", sort=False):
        if shown is None or what in shown:
            row = {"": what}
            for defect, cases in part.groupby("defect", sort=False):
                row[f"{defect} ({len(cases)})"] = f"{cases['found'].sum()} ({cases['false_alarm'].sum()})"
            rows.append(row)
    return as_markdown(data_frame(rows).fillna(""))


def plot(path, shop, seeds, pick=("exact single bins", "halving, 500 repeats", "dragged")):
    """Draw one case of each defect: share of each bin in a healthy and a defective network's map.

    ``pick`` are the explanations of the dead bins and the band; the others show the first. Of the exchanged pairs the
    one whose shares differ most is drawn.
    """
    import matplotlib

    from common.files import written_whole
    from constants import amp
    from report.style import STYLE, WAVELENGTH, bin_ends, joined, panel_grid, wavelength_axis

    data = shop.split.data
    names, wavelength = data.amp_names, data.wavelength
    wrong = defects.defects_of(0, names, wavelength)
    first = next(iter(wrong["shortcut"]))
    kept = {name: shop.explain(name, 0, None, None) for name in ("healthy", "dead", "band")}
    kept["shortcut"] = shop.explain(f"shortcut_{STRENGTHS[0]}", 0, None, None)
    other = shop.explain("healthy", 1 if seeds > 1 else 0, None, None)
    molecule = names.index(defects.MOLECULES[0])
    pair = max(wrong["exchange"], key=lambda two: np.ptp(kept["healthy"][pick[0]][0][molecule, two]))
    colours = ("#D55E00", "#0072B2", "#009E73")
    swapped = {pick[0]: (defects.exchanged(kept["healthy"][pick[0]][0], pair), 0)}
    panels = [  # title, AMP, healthy shares, defective ones, bins
        ("Dead bins", molecule, kept["healthy"], kept["dead"], wrong["dead"]),
        ("Bands hold noise", molecule, kept["healthy"], kept["band"], wrong["band"]),
        (f"Shortcut, {STRENGTHS[0]} sigma", first, kept["healthy"], kept["shortcut"], [wrong["shortcut"][first]]),
        ("Exchanged bins", molecule, other, swapped, pair),
    ]
    edges = joined(bin_ends(wavelength))
    with matplotlib.rc_context(STYLE):
        figure, axes = panel_grid(4, row_height=2.1)
        for ax, (title, a, normal, maps, bins) in zip(axes, panels):
            for b in bins:
                ax.axvspan(edges[b], edges[b + 1], color="#E8E8E8", lw=0)
            ax.stairs(100 * normal[pick[0]][0][a], edges, color="#000000", lw=1.0, label=f"healthy: {pick[0]}")
            for what, colour in zip(pick if len(bins) > 2 else pick[:1], colours):
                ax.stairs(100 * maps[what][0][a], edges, color=colour, lw=1.0, label=f"defective: {what}")
            ax.set_title(f"{title}: {amp(names[a]).label}")
            ax.set_ylim(0)
            ax.set_ylabel("share of the map (%)")
            ax.set_xlabel(WAVELENGTH)
            wavelength_axis(ax, wavelength)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        with written_whole(path) as part:
            figure.savefig(part, format=Path(path).suffix[1:], dpi=200)


def main():
    parser = study_parser("blindness", __doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1 ... (default %(default)s)")
    parser.add_argument("--planets", type=int, default=100, help="test planets explained (default %(default)s)")
    parser.add_argument("--shap", action="store_true", help="also SHAP values (needs the package shap)")
    parser.add_argument("--pudu", action="store_true", help="also pudu's importance (needs the package pudu)")
    parser.add_argument("--page", type=Path, help="Markdown file whose table is made anew")
    parser.add_argument("--figure", type=Path, help="one case of each defect")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/blindness", help="where networks and maps are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="shows that it runs, in results/quick/")
    arguments = parser.parse_args()

    from pipeline.folds import prepare_tensorflow

    prepare_tensorflow()
    changes = {"training.cv": 5, "training.epochs": 33}
    if arguments.quick:
        arguments.seeds, arguments.planets = 1, 10
        arguments.work, arguments.out = arguments.work / "quick", arguments.out / "quick"
        changes |= {"data.size": 3000, "training.epochs": 2}
    config = settings_of("config.yaml", changes)
    shop = Workshop(config, arguments.work, arguments.planets, arguments.shap, arguments.pudu)
    healthy, rows, proofs = {}, [], []
    data = shop.split.data
    for seed in range(arguments.seeds):
        wrong = defects.defects_of(seed, data.amp_names, data.wavelength)
        healthy[seed] = shop.explain("healthy", seed, shop.train("healthy", seed), data)
        for study in (blind_networks, shortcut_networks):
            more, shown = study(shop, seed, wrong, healthy[seed])
            rows, proofs = rows + more, proofs + shown
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    rows += exchanged_bins(healthy, data.amp_names, data.wavelength)
    table, proofs = data_frame(rows), data_frame(proofs)
    print("\n".join(markdown(table, None)))
    print(table.groupby(["defect", "explanation"], sort=False)["value"].median().unstack(0).round(4).to_string())
    print(proofs.to_string(index=False))
    write_csv(arguments.out / "blindness.csv", table)
    write_page(arguments.out / "blindness.md", TITLE, markdown(table, None))
    write_csv(arguments.out / "blindness_networks.csv", proofs)
    if arguments.page and not arguments.quick:
        put_between_marks(arguments.page, MARKS, "\n".join(markdown(table)))
    if arguments.figure:
        plot(arguments.figure, shop, arguments.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
