"""How often is the verdict of a report right? Networks whose quality is known, and what the verdict says of them.

    python -m studies.verdicts                          # from the stored table: hits and false alarms
    python -m studies.verdicts --train                  # trains the networks and measures the table again
    python -m studies.verdicts --page docs/method.md    # also puts the counts between the marks of a page

Per seed: a healthy mlp of config.yaml; the same after 4 and 12 epochs; trained on 1,500 planets; with the bands of one
molecule hidden in training; with a shortcut of 1 or 3 errors in one bin for three AMPs (both as in `defects.py`); and
the paper's cnn with pooling. First fold each, the same test planets and noise, exact map of 1000 noisy test spectra.

A case is an AMP of a network. It is *unsound* if its squared error is more than twice that of the healthy network of
the same seed, or if it has a shortcut; *worse* if the error is 1.2 to 2 times that; *sound* if it is smaller and
nothing is known to be wrong with the network (healthy, 12 epochs, other AMPs of a shortcut). Others are left out: a
network whose bands were hidden looks elsewhere for every AMP. The thresholds of `best_estimator.RULES` were chosen on
seed 0; the other seeds test them. Each case is evaluated with the best estimator and without it. A *hit* is an unsound
case that is not trusted, a *false alarm* is a sound one that is distrusted.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from report.best_estimator import CARE, DISTRUST, RULES, TRUST, WORDS, BestEstimator, Verdict, verdicts
from studies import defects
from studies.command import INFORMATION, RESULTS, ROOT, settings_of, study_parser, with_data
from studies.tables import as_markdown, data_frame, put_between_marks, read_csv, write_csv

MARKS = "<!-- table of studies/verdicts.py: begin -->", "<!-- end -->"
SOUND = ("healthy", "12 epochs", "shortcut")
CHOSEN_ON = 0  # the seed on which the thresholds were chosen
FEW = 1500  # planets
MAPPED = 1000  # test spectra
PAPER_CNN = {
    "model.name": "cnn", "model.whiten": False, "model.cnn.filters": [32, 32, 32], "model.cnn.pooling": True,
    "model.cnn.batch_norm": True, "model.cnn.patch": 1, "model.cnn.dense": [64], "model.cnn.activation": "relu",
    "training.average_epochs": 0, "training.loss": "mse",
}  # fmt: skip
KINDS = {  # name: changes of the settings
    "healthy": {}, "4 epochs": {"training.epochs": 4}, "12 epochs": {"training.epochs": 12}, f"{FEW} planets": {},
    "hidden band": {}, "shortcut, 1 sigma": {}, "shortcut, 3 sigma": {}, "paper's cnn": PAPER_CNN,
}  # fmt: skip
QUANTITIES = ("error_ratio_error", "unknowable", *(rule.quantity for rule in RULES if rule.quantity != "below_limit"))


def cases(kind, seed, epochs, work, quick, healthy=None):
    """Train a network and return a row (dict) per AMP, and its scaled squared errors (n_amps,)."""
    from common.metrics import scores
    from pipeline.folds import load_split
    from preprocessing import Fold, noisy_test_spectra
    from studies.tuning import train

    config = settings_of(changes={"training.cv": 5, "training.epochs": epochs} | KINDS[kind], quick=quick)
    split = load_split(config)
    data, fold, names = split.data, split.folds[0], split.data.amp_names
    wrong = defects.defects_of(seed, names, data.wavelength)
    trained = used = data
    if kind == "hidden band":
        trained = defects.only_noise(data, fold.train, wrong["band"])
    elif "shortcut" in kind:
        trained = used = defects.with_shortcut(data, fold.train, wrong["shortcut"], int(kind.split()[1]))
    split = with_data(split, trained)
    if kind == f"{FEW} planets":
        split = dataclasses.replace(split, folds=[Fold.of(data, fold.train[:FEW], fold.valid)])
    network = train(config.model.name, config, split, seed, work / f"{kind.replace(' ', '_')}_{seed}")
    noisy = noisy_test_spectra(used, split.test, 0)
    y_pred, some = network.predict(noisy), slice(0, MAPPED)
    exact = network.sensitivity(noisy[some], used.errors[split.test][some], scheme="single", keep_spectra=False)
    squared = scores(data.amps[split.test], y_pred, network.scaler.y_std)["MSE"]
    worse = squared / (squared if healthy is None else healthy)
    given = {names[a] for a in wrong["shortcut"]} if "shortcut" in kind else set()
    rows = []
    for one, ratio in zip(_verdicts(data, split.test, y_pred, network, exact, used is data), worse):
        label = "sound" if kind.split(",")[0] in SOUND else "unclear"
        label = "unsound" if ratio > 2 or one.amp.key in given else label if ratio < 1.2 else "worse"
        row = {"network": kind, "seed": seed, "amp": one.amp.key, "quality": label, "over_healthy": ratio}
        rows.append(row | {name: getattr(one, name) for name in QUANTITIES})
    return rows, squared


def _verdicts(data, test, y_pred, network, exact, same_spectra):
    """Return the verdicts on a network; spectra other than those of the posteriors are compared without pairing."""
    from runio.results import NetworkResult, Run

    fold = NetworkResult(y_pred, network.scaler, sensitivity_single=exact)
    run = Run(
        Path(), {}, data.wavelength, None, data.amp_table, "", 0 if same_spectra else -1, test, data.amps[test],
        None, {}, {0: fold}, {},
    )  # fmt: skip
    return verdicts(run, BestEstimator.load(INFORMATION))


def level(row, with_best):
    """Return the level of the verdict on a stored case, with the best estimator or without it."""
    from constants import amp

    known = {name: None if np.isnan(row[name]) else row[name] for name in QUANTITIES}
    if not with_best:
        known |= dict.fromkeys(("error_ratio", "error_ratio_error", "unknowable", "agreement", "misplaced", "reaction"))
    return Verdict(amp(row["amp"]), ranges=[(1.0, 2.0, 1.0)], **known).level


def counts(table):
    """Return how many cases of each quality get each verdict, a row (dict) each."""
    rows = []
    for seeds, part in (("choice", table[table.seed == CHOSEN_ON]), ("test", table[table.seed != CHOSEN_ON])):
        for with_best in (True, False):
            for quality in ("sound", "worse", "unsound"):
                levels = [level(row, with_best) for _, row in part[part.quality == quality].iterrows()]
                row = {"seeds": seeds, "best estimator": "known" if with_best else "unknown", "quality": quality}
                rows.append(row | {word: str(levels.count(i)) for i, word in enumerate(WORDS)})
    return rows


def summary(table):
    """Return the hits and false alarms among the cases that test the thresholds, as sentences."""
    sentences = []
    for with_best in (True, False):
        sound, unsound = (
            [level(row, with_best) for _, row in table[table.quality == quality].iterrows()]
            for quality in ("sound", "unsound")
        )
        sentences.append(
            f"With{'' if with_best else 'out'} the best estimator, {len(unsound) - unsound.count(TRUST)} of"
            f" {len(unsound)} unsound cases are hits ({unsound.count(DISTRUST)} distrusted) and {sound.count(DISTRUST)}"
            f" of {len(sound)} sound ones are false alarms ({sound.count(CARE)} trusted with care)."
        )
    return "\n".join(sentences)


def main():
    """Run the command line."""
    parser = study_parser("verdicts", __doc__)
    parser.add_argument("--train", action="store_true", help="train the networks; else the stored table is read")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1 ... (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="of a healthy network (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/verdicts", help="where networks are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--page", type=Path, help="Markdown file whose table is made anew")
    parser.add_argument("--quick", action="store_true", help="with --train: shows that it runs, in results/quick/")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.work, arguments.out = arguments.work / "quick", arguments.out / "quick"
    if arguments.train:
        from pipeline.folds import prepare_tensorflow

        prepare_tensorflow()
        rows = []
        for seed in range(arguments.seeds):
            healthy = None
            for kind in KINDS:
                more, squared = cases(kind, seed, arguments.epochs, arguments.work, arguments.quick, healthy)
                rows, healthy = rows + more, squared if healthy is None else healthy
                print(f"seed {seed}: {kind} done", file=sys.stderr, flush=True)
        write_csv(arguments.out / "verdicts.csv", data_frame(rows), "%.4g")
    table = read_csv(arguments.out / "verdicts.csv")
    text = "\n".join([*as_markdown(data_frame(counts(table))), "", summary(table[table.seed != CHOSEN_ON])])
    print(text)
    if arguments.page:
        put_between_marks(arguments.page, MARKS, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
