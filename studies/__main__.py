"""Repeat the measurements behind README.md and docs/, in the order in which they depend on each other.

    python -m studies --list               # the steps, their commands and minutes
    python -m studies                      # everything that is not done yet
    python -m studies --only seeds tuning  # these steps alone

Run folders and the log of each step are in ``runs/everything`` (``--work``). A finished step is not repeated, so the
same command goes on after an interruption; unfinished trainings continue from their last epoch. The networks of the
paper's recipe are trained on one core beside the other steps. The first step that fails ends the command. Tables go
where the single scripts write them: ``studies/results``, ``benchmarks/results`` and the figures of docs/. Needs
requirements-science.txt. Not included: the shipped spectra, the emulator and the posteriors (data/README.md), HELA's
spectra (data/FORMATS.md), and the networks of single observations (docs/your_planet.md).
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from constants import NETWORKS
from studies.command import study_parser

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Step:
    """One measurement: its minutes on two idle cores, what it makes, and its commands (WORK: the folder of runs)."""

    name: str
    minutes: float
    makes: str
    commands: tuple
    beside: bool = False  # it keeps one core busy for long, and runs beside the steps that follow
    after: str = ""  # the name of such a step that has to end first


def _run(name, *flags):
    return f"runfile.py --config config.yaml --epochs 100 {' '.join(flags)} --output WORK/{name} --resume"


RUNS = " ".join(f"WORK/{name}" for name in NETWORKS)
SEED_RUNS = " ".join(f"WORK/mlp_seed{seed}" for seed in (1, 2))
OTHERS = " ".join(
    f"WORK/tuning/{name}_config_yaml_{seed}" for name, seed in (*(("mlp", k) for k in range(3)), ("cnn", 0))
)
SEEN = "data/observations"
STEPS = (
    Step("mlp", 2, "the first command: README, docs/science.md", (_run("mlp"),)),
    Step("cnn", 5, "five folds of the cnn", (_run("cnn", "--model cnn"),)),
    Step("seeds", 3, "the mlp with two other seeds", tuple(_run(f"mlp_seed{k}", f"--seed {k}") for k in (1, 2))),
    Step(
        "paper_networks",
        38,
        "networks of the paper's recipe, on one core beside the steps that follow",
        ("-m studies.paper --recipes paper --train --work WORK/paper",),
        beside=True,
    ),
    *(Step(name, 4, f"one fold of the {name}", (_run(name, f"--model {name} --cv 1"),)) for name in ("lstm", "hybrid")),
    Step(
        "runs",
        1,
        "README's table, results/run_table",
        (
            f"-m studies.run_table {RUNS} {SEED_RUNS} --output studies/results",
            "-m studies.run_table WORK/mlp --page README.md",
        ),
    ),
    Step("scores", 8, "results/score_table", (f"-m studies.score_table --regressions 1 {RUNS}",)),
    Step(
        "coverage",
        2,
        "results/answer_coverage, docs/your_planet.md",
        ("-m studies.answer_coverage WORK/mlp --out studies/results/answer_coverage.txt",),
    ),
    Step("mixture", 1, "results/mixture.csv", ("-m studies.mixture WORK/mlp WORK/cnn",)),
    Step(
        "agreement",
        4,
        "results/map_agreement.csv, docs/optimal_map.png",
        (
            f"-m studies.map_agreement {RUNS} --figure docs/optimal_map.png",
            "-m studies.map_agreement --methods WORK/mlp --ensemble WORK/mlp --shap",
        ),
    ),
    Step(
        "faithfulness",
        5,
        "docs/explanations.md, second half",
        ("-m studies.faithfulness WORK/mlp --shap", "-m studies.repeats WORK/mlp"),
    ),
    Step(
        "tuning",
        15,
        "results/tuning, docs/science.md",
        (
            "-m studies.tuning --seeds 1 --only mlp third 'cnn: config' --work WORK/tuning",
            "-m studies.tuning --seeds 3 --only 'mlp: config' --work WORK/tuning",
        ),
    ),
    Step("pairs", 6, "results/pairs: batch size and rate", ("-m studies.pairs", "-m studies.pairs --full")),
    Step(
        "explanations",
        6,
        "docs/explanations.md",
        (
            "-m studies.leave_one_out",
            f"-m studies.explanations WORK/mlp --shap --page docs/explanations.md --others {OTHERS}",
            "-m studies.blindness --shap --page docs/explanations.md --figure docs/blindness.png --work WORK/blindness",
        ),
    ),
    Step(
        "verdicts",
        5,
        "thresholds in docs/method.md",
        ("-m studies.verdicts --train --page docs/method.md --work WORK/verdicts",),
    ),
    Step(
        "pooling",
        1,
        "results/pooling.csv, docs/pooling.png",
        ("-m studies.pooling --epochs 30 --figure docs/pooling.png --work WORK/pooling",),
    ),
    Step(
        "paper",
        4,
        "docs/paper.md: the paper's recipe beside that of config.yaml",
        (f"-m studies.paper --ours {RUNS} --work WORK/paper --page docs/paper.md --figure docs/paper_maps.png",),
        after="paper_networks",
    ),
    Step(
        "best_fit",
        1,
        "results/best_fit.csv, docs/your_planet.md",
        tuple(
            f"-m studies.best_fit --store --observation {SEEN}/{seen}.ecsv --planet {SEEN}/{planet}.yaml"
            for seen, planet in (
                ("wasp39b_prism", "wasp39b_jwst"),
                ("wasp39b_prism", "wasp39b"),
                ("wasp39b_jwst", "wasp39b_jwst"),
                ("wasp107b", "wasp107b"),
            )
        ),
    ),
    Step("degeneracies", 1, "bands and degeneracies in docs/science.md", ("-m studies.information --explain",)),
    Step(
        "sensitivity",
        6,
        "benchmarks/results: cost of the maps, of other explanations, of a ranking, of a spectrum",
        (
            "-m benchmarks.bench_sensitivity --models mlp cnn",
            "-m benchmarks.bench_sensitivity --exact",
            "-m benchmarks.bench_sensitivity --explainers",
            "-m benchmarks.quadrature WORK/mlp WORK/cnn WORK/lstm WORK/hybrid",
            "-m benchmarks.ranking_cost WORK/mlp",
            "-m benchmarks.spectrum_cost",
            "-m benchmarks.first_command WORK/mlp",
        ),
    ),
    Step(
        "cluster",
        6,
        "tables of docs/cluster.md",
        ("-m benchmarks.bench_cluster", "-m benchmarks.worker_memory", "-m benchmarks.threads"),
    ),
)


def outstanding(steps, work):
    """Return the steps that have not ended well with the commands that they have today."""
    return [step for step in steps if _stamp(step, work) != "\n".join(step.commands)]


def _stamp(step, work):
    path = work / f"{step.name}.done"
    return path.read_text(encoding="utf-8") if path.is_file() else None


class StepFailed(Exception):
    """A command of a step ended with another status than 0."""

    def __init__(self, step, status, work):
        super().__init__(f"{step.name}: ended with status {status}, see {work / step.name}.log")


def run_step(step, work):
    """Run the commands of a step, log their output, and record that it is done; StepFailed where one fails."""
    with open(work / f"{step.name}.log", "a", encoding="utf-8") as log:
        for command in step.commands:
            words = [word.replace("WORK", str(work)) for word in shlex.split(command)]
            log.write(f"python {shlex.join(words)}\n")
            log.flush()
            status = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
            if status:
                raise StepFailed(step, status, work)
    (work / f"{step.name}.done").write_text("\n".join(step.commands), encoding="utf-8")


def run_steps(steps, work):
    """Run one step after the other, and those that are long beside the others; StepFailed where one fails."""
    beside = {}  # name: (step, its process)
    try:
        for step in steps:
            if step.after in beside:
                wait_for(*beside[step.after], work)
            print(f"{step.name}: {step.makes} (about {step.minutes} minutes)", flush=True)
            if step.beside and step is not steps[-1]:
                command = [sys.executable, "-m", "studies", "--only", step.name, "--work", work]
                beside[step.name] = step, subprocess.Popen(command, cwd=ROOT, start_new_session=True)
                continue
            start = time.perf_counter()
            run_step(step, work)
            print(f"    {step.name}: done in {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
        for pair in beside.values():
            wait_for(*pair, work)
    finally:
        for _, process in beside.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # it keeps the state of its training
                process.wait()


def wait_for(step, process, work):
    """Wait for a step that runs beside the others; StepFailed where it fails."""
    if process.wait():
        raise StepFailed(step, process.returncode, work)


def main():
    """Run the command line."""
    parser = study_parser(None, __doc__)
    parser.add_argument("--list", action="store_true", help="say what would be run, and run nothing")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS], metavar="STEP", help="these steps")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/everything", help="where runs and logs are kept")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    steps = outstanding([step for step in STEPS if not arguments.only or step.name in arguments.only], work)
    if arguments.list:
        for step in steps:
            print(f"{step.name}: {step.makes} (about {step.minutes} minutes)")
            print(*(f"    python {command}" for command in step.commands), sep="\n")
    elif steps:
        work.mkdir(parents=True, exist_ok=True)
        try:
            run_steps(steps, work)
        except StepFailed as error:
            parser.exit(1, f"{error}\n")
    if not steps:
        print(f"all done: {work}")
    elif arguments.list:
        print(f"{sum(step.minutes for step in steps) / 60:.1f} hours on two idle cores")


if __name__ == "__main__":
    sys.exit(main())
