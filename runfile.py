"""Train networks on transmission spectra, judge them, and map which wavelengths their answers rest on.

python runfile.py --config config.yaml --epochs 100 --batch_size 64 --lr 0.01
python runfile.py --apply RUN_DIR --observation FILE
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from config import load_config
from errors import InputError, as_input_error

logger = logging.getLogger("runfile")

RESPONSE_SPECTRA = 100  # test spectra that the signed response map is averaged over

FLAGS = {  # flag: (setting it overrides, type, help)
    "epochs": ("training.epochs", int, "epochs to train at most"),
    "batch_size": ("training.batch_size", int, "spectra per training step"),
    "lr": ("training.lr", float, "learning rate to begin with"),
    "model": ("model.name", str, "mlp, cnn, lstm or hybrid"),
    "size": ("data.size", int, "use the first SIZE spectra; -1: all"),
    "seed": ("seed", int, "seed of the split, the weights and all noise"),
    "cv": ("training.cv", int, "number of folds"),
}


def parse_arguments(argv=None):
    """Read the command line; a flag that is not given is None and leaves the file's setting alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--config", default=None, metavar="FILE", help="settings (default: the config.yaml shipped here)"
    )
    for flag, (_, kind, text) in FLAGS.items():
        parser.add_argument(f"--{flag}", type=kind, help=text)
    parser.add_argument("--output", metavar="DIR", help="folder for the results (default: a new one for every run)")
    parser.add_argument("--no-sensitivity", action="store_true", help="skip the sensitivity test")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results in DIR once the new ones are complete"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in DIR")
    parser.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    parser.add_argument("--apply", metavar="RUN_DIR", help="use the networks of a finished run on an observation")
    parser.add_argument(
        "--observation", metavar="FILE", help="table of wavelength, width, depth and error, for --apply"
    )
    parser.add_argument(
        "--auxiliary", nargs="+", default=[], metavar="NAME=VALUE", help="of the observation, if needed"
    )
    arguments = parser.parse_args(argv)
    if bool(arguments.apply) != bool(arguments.observation):
        parser.error("--apply RUN_DIR and --observation FILE go together, received one of them")
    if arguments.output == "":
        parser.error("--output: expected a folder, received ''")
    if arguments.resume and not arguments.output:
        parser.error("--resume: expected --output DIR, the folder of the interrupted run")
    return arguments


def read_settings(arguments):
    """Return the settings of the configuration file with the flags laid on top."""
    overrides = {key: getattr(arguments, flag) for flag, (key, _, _) in FLAGS.items()}
    overrides["sensitivity.enabled"] = False if arguments.no_sensitivity else None
    return load_config(arguments.config or Path(__file__).with_name("config.yaml"), overrides)


def read_auxiliary(pairs):
    """Turn ["star_radius=7e8"] into {"star_radius": 7e8}."""
    try:
        return {name: float(value) for name, value in (pair.split("=") for pair in pairs)}
    except ValueError:
        raise InputError(f"--auxiliary: expected NAME=VALUE with a number, received {' '.join(pairs)}") from None


def main(argv=None):
    """Run the command line; return the exit status: 0 success, 1 failed run, 2 bad input, 130 interrupted."""
    arguments = parse_arguments(argv)
    from console import RunLog

    with RunLog(arguments.quiet) as log:
        try:
            config = read_settings(arguments)
            if arguments.apply:
                from apply import apply_run

                auxiliary = read_auxiliary(arguments.auxiliary)
                apply_run(arguments.apply, arguments.observation, config, auxiliary, arguments.output, arguments.quiet)
            else:
                command = shlex.join(["python", "runfile.py", *(sys.argv[1:] if argv is None else argv)])
                run(config, arguments, command, log)
            return 0
        except InputError as error:
            return _fail(error, 2)
        except KeyboardInterrupt:
            return _fail("interrupted; go on with --resume and the same --output", 130)
        except Exception as error:
            kept = log.keep_traceback()
            if isinstance(error, (OSError, ValueError, RuntimeError)) and str(error):
                return _fail(error, 1)
            if not kept and not isinstance(error, MemoryError):
                raise  # a mistake of this software, and the traceback is kept nowhere else
            return _fail(f"{type(error).__name__}: {error} (more in run.log)", 1)


def _fail(error, status):
    logger.error("%s", " ".join(str(error).split()))
    return status


def run(config, arguments, command, log):
    """Do the main job: load, split, train each fold, judge it, map its sensitivity, write everything."""
    import console
    from loaders import load_dataset
    from preprocessing import Scaler, split_folds, split_test, take
    from rundir import RunFolder, new_folder

    stage = console.Stages()
    with stage("data"), as_input_error():
        chosen = config.data
        data = load_dataset(
            chosen.path, chosen.format, chosen.targets, chosen.auxiliary, chosen.depth_unit, chosen.width
        )
        data = take(data, chosen.size)
        rest, test = split_test(data, chosen.test_fraction, config.seed)
        folds = split_folds(rest, config.training.cv, config.training.folds, chosen.valid_fraction, config.seed)
        scalers = [Scaler.fit(data, train) for train, _ in folds]
    logger.info("%s: %d spectra of %d bins, AMPs %s", data.name, *data.spectra.shape, " ".join(data.amp_names))

    output = Path(arguments.output) if arguments.output else new_folder(config.output, config.model.name)
    settings = {**config.to_dict(), "data_sha256": data.sha256(), "versions": console.versions(), "command": command}
    with RunFolder(output, settings, arguments.overwrite, arguments.resume, ignore=("output", "command")) as folder:
        if folder.finished:
            logger.info("%s: this run is already finished, nothing to do", output)
            return
        log.to_file(folder.work / "run.log")
        logger.info("%s", command)
        with console.quiet_stderr(), stage("imports"):
            import tensorflow as tf

            import evaluation
            import report
            import results
        tf.config.experimental.enable_op_determinism()
        found, mse, r2 = {}, {}, {}
        for k, (train, valid) in enumerate(folds):
            with stage("training"):
                model = train_fold(config, data, train, valid, scalers[k], folder.work, k, arguments.quiet)
            with stage("prediction"):
                y_pred = predict_noisy(model, data, test, scalers[k], config.seed)
                mse[k], r2[k] = evaluation.scores(data.amps[test], y_pred, scalers[k].y_mean, scalers[k].y_std).values()
            with stage("sensitivity"):
                maps = map_sensitivity(config, model, data, test, scalers[k], folder.work, k, arguments.quiet)
            found[k] = {"y_pred": y_pred, "scaler": scalers[k].to_dict(), **maps}
        results.write_scores(folder.work / "MSE.csv", data.amp_names, mse)
        results.write_scores(folder.work / "R2.csv", data.amp_names, r2)
        results.write_results(folder.work / "results.h5", data, config.model.name, config.seed, test, found)
        with stage("figures"):
            finished = results.load_run(folder.work)
            report.write_report(finished, rendered=report.write_figures(finished))
        table = console.score_table(data.amp_names, *(sum(s.values()) / len(s) for s in (mse, r2)))
        logger.info("\n%s\n", table)
        logger.info("time: %s", stage)
        folder.finish()
    logger.info("results: %s (report.html, figures/, results.h5, MSE.csv, R2.csv, model_0.keras ...)", output)


def train_fold(config, data, train, valid, scaler, folder, k, quiet):
    """Train the network of fold ``k``; return it at its best epoch."""
    from tqdm import tqdm

    import training
    from models import build_model
    from preprocessing import whitening

    name = config.model.name
    n_auxiliary = 0 if data.auxiliary is None else data.auxiliary.shape[1]

    front = whitening(data, train, scaler) if config.model.whiten else None

    def build():
        layers = vars(getattr(config.model, name))
        return build_model(name, data.spectra.shape[1], len(data.amp_table), n_auxiliary, front, **layers)

    logger.info("fold %d: training the %s on %d spectra, validating on %d", k, name, len(train), len(valid))
    with tqdm(total=config.training.epochs, unit="epoch", disable=quiet or None) as bar:

        def on_epoch(row):
            bar.update()
            bar.set_postfix(loss=row["loss"], val_loss=row["val_loss"], lr=row["learning_rate"])
            logger.debug("fold %d epoch %d: %s", k, row["epoch"], row)

        return training.train_fold(build, data, train, valid, scaler, config.training, config.seed, folder, k, on_epoch)


def map_sensitivity(config, model, data, test, scaler, folder, k, quiet):
    """Run the sensitivity test on noise-free test spectra; return it and the response map, both None if not wanted."""
    import numpy as np

    import console
    from response import response_map
    from sensitivity import SensitivityMap, sensitivity_map

    chosen = config.sensitivity
    if not chosen.enabled:
        return {"sensitivity": None, "response": None}
    spectra, errors = data.spectra[test], data.errors[test]
    auxiliary = None if data.auxiliary is None else scaler.scaled_auxiliary(data.auxiliary[test])
    kept = folder / f"sensitivity_{k}.h5"
    if kept.is_file():
        found = SensitivityMap.load(kept)
    else:
        found = sensitivity_map(
            model,
            data.amps[test],
            spectra,
            errors,
            scaler.y_mean,
            scaler.y_std,
            gases=data.amp_names,
            no_spectra=chosen.no_spectra,
            repeat=chosen.repeat,
            x_mean=scaler.x_mean,
            x_std=scaler.x_std,
            abundance=chosen.abundance,
            rng=[config.seed, 7],
            scheme=chosen.scheme,
            auxiliary=auxiliary,
            batch_size=chosen.batch_size,
            keep_spectra=False,
            progress=console.shows_progress(quiet),
        )
        found.save(kept)

    def predict(x):  # auxiliary inputs stay at their mean
        held = None if auxiliary is None else np.repeat(scaler.auxiliary_mean[None], len(x), axis=0)
        return scaler.amps(model.predict(scaler.inputs(x, held), batch_size=chosen.batch_size, verbose=0))

    response = response_map(predict, spectra[:RESPONSE_SPECTRA], errors[:RESPONSE_SPECTRA])
    return {"sensitivity": found, "response": response}


def predict_noisy(model, data, test, scaler, seed):
    """Predict the AMPs (n_test, n_amps) of the test spectra with one draw of noise each."""
    import numpy as np

    from preprocessing import add_noise

    spectra = data.spectra[test]
    if not data.noisy:
        spectra = add_noise(spectra, data.errors[test], np.random.default_rng([seed, 6]))
    auxiliary = None if data.auxiliary is None else data.auxiliary[test]
    y_pred = scaler.amps(model.predict(scaler.inputs(spectra, auxiliary), batch_size=4096, verbose=0))
    bad = ~np.isfinite(y_pred).all(axis=1)
    if bad.any():
        raise RuntimeError(
            f"the network returns NaN or infinity for {bad.sum()} test spectra, the first is row {test[bad][0]}"
        )
    return y_pred


if __name__ == "__main__":
    sys.exit(main())
