"""Other explanations than the sensitivity test, on one network and the same spectra, against two truths.

    python -m studies.explanations RUN_DIR --shap --pudu --page docs/explanations.md [--others FOLDER ...]

RUN_DIR is a run of seed 0 on the shipped data; its first fold is explained, at the test planets of data/information.h5
whose posteriors were sampled. ``--others`` are further networks of the same fold with other seeds or of another kind
(folders of `tuning.py`). The truths are those of the best estimator, the posterior mean, not of a network:

- reaction: how far noise in one bin moves it, the optimal map (`posterior.py`);
- removal: how far it moves when the bin is left out (`leave_one_out.py`).

Rank correlation of each explanation with both, per AMP, with the spread of 200 bootstrap samples of the planets.
Explanations have about as many evaluations as the exact map unless their names say otherwise; gradients and pudu
need fewer (a gradient counts as one pass forward and one back per AMP; pudu as if all AMPs were asked at once).
``QUESTIONS`` says what each one asks. SHAP and pudu need these packages. Captum's methods are of the same kinds; their
cost is measured by `benchmarks/explainers.py`.

`dragged` is our reading of the idea of PERTURB-c (Clarke et al. 2026, arXiv:2601.21685): a bin is moved by its error
and drags the other bins along as they are correlated over the noisy training spectra (`sensitivity.dragged`).
Writes studies/results/explanations.csv and .md, and with --page the table between its marks.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.metrics import spearman
from constants import Stream, stream
from studies.command import INFORMATION, RESULTS, study_parser
from studies.information import fisher_map
from studies.leave_one_out import STORED as REMOVALS
from studies.leave_one_out import load_removals
from studies.map_agreement import gradient_maps, permutation_maps, shap_maps
from studies.pudu_maps import pudu_maps
from studies.tables import as_markdown, data_frame, put_between_marks, write_csv, write_page

QUESTIONS = {
    "exact single bins": "How far does noise in this bin move the prediction?",
    "halving": "The same, together with random companions?",
    "halving, 500 repeats": "The same, with the published repeats.",
    "gradient x error": "The same, if the network were linear?",
    "single bins, spread": "The same, when the bin varies as much as the others allow?",
    "dragged": "How far does noise in this bin move it, if it drags the others along?",
    "SHAP": "Which bins make it differ from other planets' predictions?",
    "SHAP, 200 samples": "The same, with more evaluations.",
    "permutation importance": "How much worse is it with the bin of another planet?",
    "pudu, as it comes": "How nonlinear is it over a change of 10 % in depth?",
    "pudu, by the error": "How far does it move when the depth rises by one error?",
    "Fisher": "How much does the bin tell if all other AMPs are known?",
    "Laplace": "How far does noise in this bin move the posterior mean, if posteriors are Gaussian?",
    "reaction": "How far does noise in this bin move the posterior mean?",
    "reaction / (1 - leverage)": "How far does leaving the bin out move it, if the model is linear?",
    "reaction, with sampling noise": "What agreement with removal would a linear model show, with 300 noisy spectra?",
}
ON_PAGE = (
    "exact single bins", "gradient x error", "halving", "halving, 500 repeats", "SHAP", "permutation importance",
)  # fmt: skip
OF_RUN = "fold 0 of the run"
SAMPLES = 200  # of the bootstrap
NODES = 5
TITLE = "Explanations: rank correlation with reaction / removal (studies/explanations.py, docs/explanations.md)"
MARKS = "<!-- begin: studies.explanations -->", "<!-- end: studies.explanations -->"


@dataclass(frozen=True)
class Scene:
    """What a network is explained with: n test planets, background spectra for SHAP, covariance of the noisy training
    spectra.
    """

    spectra: np.ndarray
    noisy: np.ndarray
    errors: np.ndarray
    amps: np.ndarray
    background: np.ndarray
    covariance: np.ndarray
    seed: int = 0

    @classmethod
    def of(cls, data, test, index, noisy, seed=0, n_background=100):
        """Put together from a data set, its test rows, the places of the planets among them, and all noisy spectra."""
        from preprocessing import add_noise

        rest = np.setdiff1d(np.arange(len(test)), index)[:n_background]
        rows, training = test[index], np.setdiff1d(np.arange(len(data.spectra)), test)
        rng = np.random.default_rng(stream(seed, Stream.STUDY_NOISE))
        covariance = np.cov(add_noise(data.spectra[training], data.errors[training], rng), rowvar=False)
        planets = data.spectra[rows].astype(float), noisy[index].astype(float), data.errors[rows].astype(float)
        return cls(*planets, data.amps[rows], data.spectra[test[rest]], covariance, seed)


def explain(network, scene, with_shap=False, with_pudu=False, long=()):
    """Yield (name, maps (n, n_amps, n_bins), evaluations) of each explanation; those in ``long`` also with more
    evaluations.
    """
    from sensitivity import dragged, halving_sizes

    n, n_bins, n_amps = *scene.noisy.shape, scene.amps.shape[1]
    budget = n_bins * (NODES - 1)  # of a spectrum; the node in the middle is the spectrum itself
    spread = 1 / np.sqrt(np.diag(np.linalg.inv(scene.covariance)))

    def perturbed(spectra, errors, **options):
        return network.sensitivity(spectra, errors, **{"nodes": NODES, **options}).per_spectrum

    def halving(repeat, number):
        rng = stream(scene.seed, Stream.STUDY_MAPS, number)
        maps = perturbed(scene.spectra, scene.errors, scheme="halving", nodes=None, repeat=repeat, rng=rng)
        return maps, n * (1 + repeat * len(halving_sizes(n_bins)))

    yield "exact single bins", perturbed(scene.noisy, scene.errors, scheme="single"), n * (1 + budget)
    yield "halving", *halving(budget // len(halving_sizes(n_bins)), 9)
    if "halving" in long:
        yield "halving, 500 repeats", *halving(500, 10)
    gradients = np.concatenate(list(gradient_maps(network, scene.noisy, scene.errors)))
    yield "gradient x error", gradients, n * (1 + n_amps)
    moved = perturbed(scene.noisy, spread + 0 * scene.errors, scheme="single")
    yield "single bins, spread", moved, n * (1 + budget)
    moved = perturbed(scene.noisy, None, directions=dragged(scene.covariance, scene.errors))
    yield "dragged", moved, n * (1 + budget)
    if with_shap:
        samples = max(round(budget / (2 * n_amps)), 1)
        yield "SHAP", shap_maps(network, scene.noisy, scene.background, samples), n * 2 * n_amps * samples
        if "SHAP" in long:
            yield "SHAP, 200 samples", shap_maps(network, scene.noisy, scene.background), n * 2 * n_amps * 200
    rng = stream(scene.seed, Stream.STUDY_MAPS, 11)
    moved = permutation_maps(network.predict, scene.noisy, scene.amps, NODES - 1, rng)
    yield "permutation importance", moved, n * (1 + budget)
    if with_pudu:
        moved = pudu_maps(network.predict, scene.noisy, n_amps)
        yield "pudu, as it comes", moved, n * (1 + 2 * n_bins)
        moved = pudu_maps(network.predict, scene.noisy, n_amps, scene.errors)
        yield "pudu, by the error", moved, n * (1 + n_bins)


def agreement(maps, truth, rng, samples=SAMPLES):
    """Rank correlation of two mean maps, per AMP and of the mean over AMPs, (n_amps + 1,), and its bootstrap error.

    ``maps`` and ``truth`` (n, n_amps, n_bins) are of the same planets, which are resampled together.
    """

    def correlations(counts):  # (..., n) of each planet
        sums = (np.tensordot(counts, values, axes=(-1, 0)) for values in (maps, truth))
        found = spearman(*sums)
        return np.concatenate([found, found.mean(axis=-1, keepdims=True)], axis=-1)

    n = len(maps)
    drawn = rng.multinomial(n, np.full(n, 1 / n), samples).astype(float)
    return correlations(np.ones(n)), correlations(drawn).std(axis=0, ddof=1)


def truths(information=INFORMATION, removals=REMOVALS):
    """Read places of the planets (n,), reaction and removal (n, n_amps, n_bins), leverage, and maps without a
    network.
    """
    import h5py

    loo, digest = load_removals(removals)
    n = len(loo["index"])
    with h5py.File(information) as file:
        if digest != file.attrs["data_sha256"] or not np.array_equal(file["sampler/index"][:n], loo["index"]):
            raise ValueError(f"{removals}: expected the planets and the data set of {information}, received others")
        reaction = file["sampler/optimal_map"][:n].astype(float)
        free = {"Fisher": file["jacobian"][:n], "Laplace": file["optimal_map_per_planet"][:n]}
    shift = loo["shift"].astype(float) * loo["deviation"][:, None, :, None]  # AMP units
    return loo["index"], reaction, shift[:, 0] * shift[:, 1], loo["leverage"], free


def correlation_note(covariance):
    """Line of text: how strongly bins are correlated over spectra with this covariance, on which `dragged` depends."""
    spread = np.sqrt(np.diag(covariance))
    least, modes = (covariance / spread / spread[:, None]).min(), np.linalg.eigvalsh(covariance)
    share = modes[-1] / modes.sum()
    return f"noisy training spectra: least correlation of two bins {least:.2f}, share of the first mode {share:.3f}"


def sampled_removal(reaction, leverage, seed=0):
    """Draw the squared shifts without each bin of a linear model that has these maps, (n, n_amps, n_bins).

    The shift is -gain x residual / (1 - leverage), where the residual is the spectrum minus the depth at the posterior
    mean; its variance is error^2 (1 - leverage).
    """
    rng = np.random.default_rng(stream(seed, Stream.STUDY_NOISE, 1))
    return reaction * (rng.standard_normal(leverage.shape) ** 2 / _rest(leverage))[:, None]


def _rest(leverage):
    return np.maximum(1 - leverage, 0.05)  # above 1 for posteriors far from normal


def scores(maps, reaction, removal, names, rng):
    """Rows (dict) of one explanation: Spearman with both truths per AMP, then of the mean."""
    found = {}
    for what, truth in (("reaction", reaction), ("removal", removal)):
        found[what], found[f"{what}_error"] = agreement(maps, truth, rng)
    return [{"amp": name, **{k: round(v[a], 4) for k, v in found.items()}} for a, name in enumerate([*names, "mean"])]


def markdown(table):
    """Lines of the page: a row per explanation of `ON_PAGE`: agreement with both truths, mean over AMPs."""
    first = table[table["network"] == table["network"].iloc[0]]
    means = first[(first["amp"] == "mean") & first["explanation"].isin(ON_PAGE)]
    rows = [
        {
            "explanation": one["explanation"],
            "question": QUESTIONS[one["explanation"]],
            "reaction": f"{one['reaction']:.2f}",
            "removal": f"{one['removal']:.2f}",
            "evaluations": f"{one['evaluations']:,}",
        }
        for one in means.sort_values("explanation", key=lambda names: names.map(ON_PAGE.index)).to_dict("records")
    ]
    return as_markdown(data_frame(rows))


def all_tables(table):
    """Lines of the page of results: agreement with reaction / removal per AMP, then of the other networks."""
    rows, first = [], table["network"].iloc[0]
    for name, part in table[table["network"] == first].groupby("explanation", sort=False):
        pairs = part[["reaction", "removal"]].map(lambda value: f"{value:.2f}".replace("0.", "."))
        rows.append({"": name, **dict(zip(part["amp"], pairs["reaction"] + " / " + pairs["removal"]))})
    lines = as_markdown(data_frame(rows))
    others = table[(table["network"] != first) & (table["amp"] == "mean")]
    if len(others):
        lines += ["", *as_markdown(_of_others(others))]
    return lines


def _of_others(means):
    """Agreement with reaction / removal, mean over AMPs: mean and spread over the networks of a kind."""
    kind = means["network"].str.replace(r"(_config_yaml)?_\d+$", "", regex=True)  # folders of tuning.py end in a seed
    rows = []
    for name in means["explanation"].unique():
        row = {"": name}
        for one in kind.unique():
            part = means[(means["explanation"] == name) & (kind == one)]
            several = len(part) > 1
            row[f"{one} ({len(part)} network{'s' * several})"] = " / ".join(
                f"{part[what].mean():.2f}" + (f" ± {part[what].std():.2f}" if several else "")
                for what in ("reaction", "removal")
            )
        rows.append(row)
    return data_frame(rows)


def main():
    from studies.emulator import load_rows

    parser = study_parser("explanations", __doc__)
    parser.add_argument("run", metavar="RUN_DIR", type=Path)
    parser.add_argument("--shap", action="store_true", help="also SHAP values (needs the package shap)")
    parser.add_argument("--pudu", action="store_true", help="also pudu's importance (needs the package pudu)")
    parser.add_argument("--others", nargs="+", default=[], metavar="FOLDER", type=Path, help="see above")
    parser.add_argument("--page", type=Path, help="Markdown file whose table is made anew")
    parser.add_argument("--out", type=Path, default=RESULTS / "explanations.csv", metavar="CSV")
    parser.add_argument("--quick", action="store_true", help="20 planets, nothing written")
    arguments = parser.parse_args()

    from models import load_model
    from pipeline.network import TrainedNetwork
    from preprocessing import noisy_test_spectra
    from runio.results import load_run
    from studies.limit import refuse_other_test

    try:
        run = load_run(arguments.run)
        refuse_other_test(run)
        index, reaction, removal, leverage, free = truths()
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    n = 20 if arguments.quick else len(index)
    index, reaction, removal, leverage = index[:n], reaction[:n], removal[:n], leverage[:n]
    data, _, test = load_rows()
    scene = Scene.of(data, test, index, noisy_test_spectra(data, test, run.seed))
    free = {
        "Fisher": fisher_map(free["Fisher"][:n].astype(float), scene.errors),
        "Laplace": free["Laplace"][:n].astype(float),
    }
    free |= {"reaction": reaction, "reaction / (1 - leverage)": reaction / _rest(leverage)[:, None]}

    rows = []

    def add(name, maps, evaluations, removal=removal, of=OF_RUN):
        rng = np.random.default_rng(stream(0, Stream.BOOTSTRAP, len(rows)))
        about = {"network": of, "explanation": name, "evaluations": evaluations, "planets": n}
        rows.extend(about | row for row in scores(maps, reaction, removal, data.amp_names, rng))
        print(f"{of}, {name}: {rows[-1]['reaction']:.3f} / {rows[-1]['removal']:.3f}", file=sys.stderr, flush=True)

    network = TrainedNetwork.of_run(run, 0)
    for name, maps, evaluations in explain(network, scene, arguments.shap, arguments.pudu, ("halving", "SHAP")):
        add(name, maps, evaluations)
    for name, maps in free.items():
        add(name, maps, 0)
    add("reaction, with sampling noise", reaction, 0, sampled_removal(reaction, leverage))
    for folder in arguments.others:
        other = TrainedNetwork(load_model(folder / "model_0.keras"), network.scaler, data.amp_names)
        for name, maps, evaluations in explain(other, scene, arguments.shap, arguments.pudu, ("halving",)):
            add(name, maps, evaluations, of=folder.name)
    table = data_frame(rows)
    print("\n".join(markdown(table)))
    print(correlation_note(scene.covariance))
    if not arguments.quick:
        write_csv(arguments.out, table)
        write_page(arguments.out.with_suffix(".md"), TITLE, all_tables(table))
        if arguments.page:
            put_between_marks(arguments.page, MARKS, "\n".join(markdown(table)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
