"""Train networks on transmission spectra, evaluate them, and map which wavelengths their predictions are sensitive to.

python runfile.py --config config.yaml --epochs 100 --batch_size 64 --lr 0.01
python runfile.py --apply RUN_DIR --observation FILE
python runfile.py --planet PLANET.yaml --observation FILE
"""

import argparse
import contextlib
import copy
import logging
import math
import shlex
import sys
from pathlib import Path

from constants import NETWORKS
from runio.config import load_config
from runio.log import InputError, one_line

logger = logging.getLogger("runfile")

MAX_PLANETS = 10_000_000  # for --n: more would take months to simulate and not fit in memory

FLAGS = {  # flag: (setting it overrides, type, help)
    "epochs": ("training.epochs", int, "epochs to train"),
    "batch_size": ("training.batch_size", int, "spectra in a training step; 64 to 512 train equally well, 512 fastest"),
    "lr": ("training.lr", float, "learning rate for batches of 64; it grows with the root of the batch size"),
    "model": ("model.name", str, "mlp, cnn, lstm or hybrid; all: each in turn, in its own folder below the output"),
    "size": ("data.size", int, "use the first SIZE spectra; -1: all"),
    "seed": ("seed", int, "seed of the split, the weights and all noise"),
    "cv": ("training.cv", int, "number of folds"),
    "columns": ("data.columns", str, "names of the columns of --observation, e.g. wavelength,depth,error,width"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose error message is one line, however long the argument that it rejects."""

    def error(self, message):
        """Exit with status 2 and this message."""
        super().error(one_line(message))


def parse_arguments(argv=None):
    """Read the command line; a flag that is not given is None and does not override the settings file."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--config", metavar="FILE", help="settings (default: the config.yaml shipped here)")
    for flag, (_, kind, text) in FLAGS.items():
        add(f"--{flag}", type=kind, help=text)
    add("--output", metavar="DIR", help="folder for the results (default: a new one for every run)")
    add("--no-sensitivity", action="store_true", help="make no sensitivity maps")
    add("--overwrite", action="store_true", help="replace results in DIR once the new ones are complete")
    add("--resume", action="store_true", help="continue the interrupted run in DIR")
    add("--scheduler", metavar="ADDRESS", help="train folds and map on Dask workers: local:N or tcp://...")
    add("--fold", type=int, metavar="K", help="train fold K only; other jobs train the other folds")
    drawn = "figures to draw (default: those of report.html)"
    add("--figures", choices=("none", "report", "all"), default="report", help=drawn)
    add("--quiet", action="store_true", help="print warnings and errors only")
    add("--apply", metavar="RUN_DIR", help="apply the networks of a finished run to an observation")
    add("--observation", metavar="FILE", help="table of wavelength, width, depth and error, for --apply or --planet")
    add("--unverified", action="store_true", help="with --apply: also use results changed since their run")
    study = "simulate planets like the observed one, train on them and apply the networks, all in DIR"
    add("--planet", metavar="FILE", help=study)
    add("--n", type=int, default=40_000, help="planets to simulate for --planet (default %(default)s)")
    add("--auxiliary", nargs="+", default=[], metavar="NAME=VALUE", help="auxiliary inputs, for --apply")
    given = parser.parse_args(argv)
    for word in sys.argv[1:] if argv is None else argv:  # the report prints them
        if not word.isprintable():
            parser.error(f"expected printable text in UTF-8, received {ascii(word)[:200]}")
    few = f"expected --n of at least 10 and at most {MAX_PLANETS}, received {given.n}"
    one_fold = "expected --output DIR, the same for all folds, and no --overwrite or --scheduler"
    for is_wrong, message in (
        (given.planet and (given.apply or not given.observation),
         "--planet FILE: expected --observation FILE beside it, and no --apply"),
        (given.apply and not given.observation, "--apply RUN_DIR: expected --observation FILE beside it"),
        (given.observation and not (given.apply or given.planet),
         "--observation FILE: expected --apply RUN_DIR or --planet FILE beside it"),
        (given.columns and not given.observation, "--columns NAMES: expected --observation FILE beside it"),
        (given.unverified and not given.apply, "--unverified: expected --apply RUN_DIR beside it"),
        (given.auxiliary and not given.apply, "--auxiliary: expected --apply RUN_DIR beside it"),
        (given.planet and not 10 <= given.n <= MAX_PLANETS, f"--planet FILE: {few}"),
        (given.planet and (given.model == "all" or given.fold is not None),
         "--planet FILE: expected one network and no --fold"),
        (given.output == "", "--output: expected a folder, received ''"),
        (given.fold is not None and (not given.output or given.overwrite or given.scheduler), f"--fold: {one_fold}"),
        (given.resume and not given.output, "--resume: expected --output DIR, the folder of the interrupted run"),
    ):  # fmt: skip
        if is_wrong:
            parser.error(message)
    return given


def read_settings(arguments):
    """Return the settings of the configuration file, overridden by the flags."""
    overrides = {key: getattr(arguments, flag) for flag, (key, _, _) in FLAGS.items()}
    if arguments.model == "all":
        overrides["model.name"] = None
    for name in ("sensitivity", "sensitivity_single"):
        overrides[f"{name}.enabled"] = False if arguments.no_sensitivity else None
    return load_config(arguments.config or Path(__file__).with_name("config.yaml"), overrides)


def read_auxiliary(pairs):
    """Turn ["star_radius=7e8"] into {"star_radius": 7e8}."""
    try:
        values = {name: float(value) for name, value in (pair.split("=") for pair in pairs)}
        if not all(map(math.isfinite, values.values())):
            raise ValueError
    except ValueError:
        raise InputError(f"--auxiliary: expected NAME=VALUE with a number, received {' '.join(pairs)}") from None
    return values


def main(argv=None):
    """Run the command line; return the exit status: 0 success, 1 failed run, 2 bad input, 130 interrupted."""
    from common.processes import is_starting_worker
    from runio.log import RunLog, check_environment, open_standard_streams, stopped_by

    if is_starting_worker():  # of a script that calls this without `if __name__ == "__main__"`
        return 0
    open_standard_streams()
    arguments = parse_arguments(argv)
    with RunLog(arguments.quiet) as log:
        try:
            check_environment()
            config = read_settings(arguments)
            if arguments.apply:
                from observation.apply import apply_run

                auxiliary = read_auxiliary(arguments.auxiliary)
                apply_run(
                    arguments.apply, arguments.observation, config, auxiliary,
                    arguments.output, arguments.quiet, arguments.overwrite, unverified=arguments.unverified,
                )  # fmt: skip
                return 0
            command = shlex.join(["python", "runfile.py", *(sys.argv[1:] if argv is None else argv)])
            if arguments.planet:
                study_planet(config, arguments, command, log)
            else:
                folders = []
                for one_config, one_arguments in networks(config, arguments):
                    run(one_config, one_arguments, command, log)
                    folders.append(one_arguments.output)
                if len(folders) > 1 and arguments.fold is None:
                    from report.compare import write_comparison

                    path = write_comparison(folders, Path(folders[0]).with_name("comparison.html"))
                    logger.info("the networks compared: %s", path)
            return 0
        except InputError as error:
            return _fail(error, 2)
        except KeyboardInterrupt as stop:
            word, status = stopped_by(stop)
            return _fail(f"{word}{how_to_continue(log, arguments)}", status)
        except Exception as error:
            kept = log.keep_traceback()
            if again := how_to_continue(log, arguments):
                logger.info("not finished%s", again)
            if isinstance(error, ImportError) and "failed to map segment" in str(error):
                return _fail(f"not enough memory to load a library ({error}); is there a limit, such as ulimit -v?", 1)
            if isinstance(error, (OSError, ValueError, RuntimeError)) and str(error):
                return _fail(error, 1)
            if not kept and not isinstance(error, MemoryError):
                raise  # a bug in this software, and the traceback is kept nowhere else
            return _fail(f"{type(error).__name__}: {error} (more in run.log)", 1)


def how_to_continue(log, arguments):
    """Say how to continue an unfinished run; nothing where there is none, or for a study, which says so itself."""
    if log.path is None or not log.path.exists() or arguments.planet:
        return ""
    folder = log.path.parents[1]
    return f"; continue with --resume --output {folder.parent if arguments.model == 'all' else folder}"


def _fail(error, status):
    logger.error("%s", one_line(error))
    return status


def networks(config, arguments):
    """Yield the settings and arguments of each run: one, or four with ``--model all``."""
    if arguments.model != "all":
        yield config, arguments
        return
    from runio.folder import new_folder

    output = Path(arguments.output or new_folder(config.output, "all"))
    for name in NETWORKS:
        config, arguments = copy.deepcopy(config), copy.copy(arguments)
        config.model.name, arguments.output = name, str(output / name)
        yield config, arguments


def study_planet(config, arguments, command, log):
    """Simulate planets like an observed one, train on them, apply the networks: three resumable steps in one folder."""
    from observation import planet
    from observation.apply import apply_run
    from runio.folder import new_folder
    from simulation.design import seen_and_design

    files = arguments.observation, arguments.planet
    seen, design = seen_and_design(*files, config.data.depth_unit, config.data.width, config.data.columns)
    folder = Path(arguments.output) if arguments.output else new_folder(config.output, "planet")
    with planet.Study(folder, *files, arguments.n, config, arguments.overwrite, arguments.resume) as study:
        survey = study.survey(design, arguments.quiet)
        run(planet.settings_for(config, survey), study.training(arguments), command, log, study.digest)
        answer = folder / planet.ESTIMATE
        if not study.estimated():
            apply_run(folder / planet.RUN, seen, config, {}, answer, arguments.quiet, True, study.digest)
    logger.info("the estimate for %s: %s", arguments.observation, answer)


def run(config, arguments, command, log, study=None):
    """Load and split the data, train a network on each fold, evaluate it, map its sensitivity, write the results."""
    from common.processes import device_words
    from pipeline.cluster import open_scheduler
    from pipeline.folds import NO_RESULT, load_split, prepare_tensorflow, share_cores, train_alone, train_networks
    from runio.folder import RunFolder, new_folder
    from runio.log import SHARES, Stages, score_table, versions

    share_cores(config.training.cv)
    stage = Stages(arguments.quiet, SHARES if arguments.fold is None else ["training"])
    pool = open_scheduler(arguments.scheduler) if arguments.scheduler else contextlib.nullcontext()
    with stage("data"):
        split = load_split(config)  # read, test spectra set aside, folds with their standardisation
    output = Path(arguments.output) if arguments.output else new_folder(config.output, config.model.name)
    settings = {
        **config.to_dict(),
        "data_sha256": split.data.sha256(),
        "versions": versions(),
        "command": command,
        **({"study": study} if study else {}),
    }
    if arguments.fold is not None:
        return train_alone(config, split, output, settings, arguments.fold, stage)
    with pool as executor, RunFolder(output, settings, arguments.overwrite, arguments.resume, NO_RESULT) as folder:
        if folder.finished:
            return logger.info("%s: this run is already finished, nothing to do", output)
        log.to_file(folder.work / "run.log")
        logger.info("%s", command)
        with stage("imports"):
            prepare_tensorflow()
            from pipeline.evaluate import evaluate
            from pipeline.network import save_mean
            from report import page
            from runio import results
        logger.info("%s", device_words())
        with stage("training"):
            networks = train_networks(config, split, folder.work, stage, executor)
            if len(networks) > 1:
                networks[results.ENSEMBLE] = save_mean(networks, folder.work)
        with stage("predictions and maps"):
            evaluated = evaluate(config, split, networks, folder.work, executor)  # calls compute_sensitivty_org
        results.write_run(folder.work, split.data, config.model.name, config.seed, split.test, evaluated)
        with stage("figures"):
            finished = results.load_run(folder.work, unverified=True)  # the manifest is written last
            rendered = page.write_figures(finished, figures=arguments.figures, processes="auto")
            page.write_report(finished, rendered=rendered)
        logger.info("\n%s\n", score_table(finished.amp_names, finished.scores))
        logger.info("time: %s", stage)
        folder.finish()
    logger.info("results: %s (report.html, figures/, results.h5, MSE.csv, R2.csv, the networks ...)", output)


if __name__ == "__main__":
    sys.exit(main())
