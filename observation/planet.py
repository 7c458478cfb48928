"""The folder of ``--planet``: a survey simulated for an observation, a run trained on it, and the estimate.

All three steps belong to one set of inputs, which `Study` records and checks, under one lock.
"""

import copy
import hashlib
import json
import logging
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import yaml

from common.files import digest, opened_hdf5, written_whole
from common.processes import process_count
from pipeline.folds import NO_RESULT
from runio.config import flatten, read_yaml
from runio.folder import RunFolder
from runio.log import InputError, shows_progress, versions

logger = logging.getLogger(__name__)

RECORD, SURVEY, RUN, ESTIMATE = "study.yaml", "survey.h5", "run", "answer"  # in the folder
PARTS = f"{SURVEY}.parts"
NO_INPUT = (*NO_RESULT, "observation.file", "planet.file", "digest")  # may differ on resuming
AGAIN = "--overwrite to start again"
MEMORY_PER_PROCESS = 3e8  # bytes: twice what a forward model of 109 bins was measured to take


class Study(RunFolder):
    """A folder for one set of inputs and for one command at a time.

    The inputs (content of the observation and of the planet file, ``n`` planets, all settings) are written first, to
    ``study.yaml``. A command with ``resume`` has to give the same ones. What is there from other inputs, after an
    ``overwrite`` that was interrupted, is made again.
    """

    def __init__(self, path, observation, planet, n, config, overwrite=False, resume=False):
        self.files = {"observation": Path(observation), "planet": Path(planet)}
        contents = {name: {"file": str(file.resolve()), "sha256": digest(file)} for name, file in self.files.items()}
        settings = {**contents, "n": n, **config.to_dict(), "versions": versions()}
        super().__init__(path, settings, overwrite, resume, NO_INPUT)
        self.n, self.config = n, config
        no_input = tuple(f"{name}." for name in ("versions", *NO_INPUT))
        inputs = {key: v for key, v in flatten(self.settings).items() if not f"{key}.".startswith(no_input)}
        self.digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    def _start(self):
        held = [name for name in (RECORD, SURVEY, PARTS, RUN, ESTIMATE) if (self.path / name).exists()]
        self.resumed = self.resume and RECORD in held
        if held and not (self.resume or self.overwrite):
            raise InputError(
                f"{self.path}: holds {held[0]} of an earlier command; give --resume to continue with it or {AGAIN}"
            )
        if self.resumed:
            there = flatten(read_yaml(self.path / RECORD))
            for name, file in self.files.items():
                if there.get(f"{name}.sha256") != self.settings[name]["sha256"]:
                    raise InputError(
                        f"{self.path}: holds a study of another {name}, {file} was changed or is another file; give"
                        f" {AGAIN}, or choose another --output"
                    )
            self._check_same(self.path / RECORD, "a study")
        elif self.resume and set(held) - {SURVEY}:  # a survey alone may come from `python -m simulation`
            raise InputError(
                f"{self.path}: holds {held[-1]} but no {RECORD} that says what it was made from; give {AGAIN}, or"
                " choose another --output"
            )

    def __exit__(self, kind, error, traceback):
        super().__exit__(kind, error, traceback)
        if error is not None and not isinstance(error, InputError):
            again = f"continue with the same command and --resume --output {self.path}"
            logger.info("%s: not finished; %s", self.path, again)

    def survey(self, design, quiet=False):
        """Simulate the survey of a ``simulation.design.Design``, or continue with the one there; return its path."""
        self._check_files()
        from simulation.survey import CHUNK, check_place, simulate

        out, parts = self.path / SURVEY, self.path / PARTS
        if out.exists() and not self.overwrite:
            other = _difference(out, design, self.n, self.config.seed)
            if other is None:
                self._write_record()
                logger.info("%s: already finished, nothing to do", out)
                return out
            if not self.resumed:
                raise InputError(f"{out}: {other}; give {AGAIN}")
        check_place(out, overwrite=True)
        self._write_record()
        out.unlink(missing_ok=True)  # of other inputs
        if self.overwrite and parts.is_dir():
            shutil.rmtree(parts)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the workers: one thread per process
        processes = process_count(self.config.training.processes, -(-self.n // CHUNK), MEMORY_PER_PROCESS)
        logger.info("%s: %d planets to simulate with %d processes", out, self.n, processes)
        shown = shows_progress(quiet)
        try:
            simulate(self.n, self.config.seed, out, processes=processes, progress=shown, design=design)
        except BrokenProcessPool:
            raise RuntimeError(f"{out}: a worker process died; continue with --resume --output {self.path}") from None
        return out

    def _write_record(self):
        if not self.resumed:
            text = yaml.safe_dump({**self.settings, "digest": self.digest}, sort_keys=False)
            with written_whole(self.path / RECORD) as part:
                part.write_text(text, encoding="utf-8")

    def _check_files(self):
        """Refuse to go on if an input file is no longer what the study was begun with."""
        for name, file in self.files.items():
            if digest(file) != self.settings[name]["sha256"]:
                raise InputError(f"{file}: changed since this command was started; start it again with --overwrite")

    def training(self, arguments):
        """Return the command line's arguments for training on the survey, in its own folder."""
        self._check_files()
        arguments, folder = copy.copy(arguments), self.path / RUN
        arguments.output = str(folder)
        if not self.overwrite:
            begun = [place for place in (folder / ".unfinished", folder) if (place / "config.yaml").is_file()]
            arguments.resume = bool(begun) and self._made(begun[0])
            arguments.overwrite = bool(begun) and not arguments.resume
        return arguments

    def estimated(self):
        """Whether the estimate for these inputs is finished."""
        self._check_files()
        folder = self.path / ESTIMATE
        if self.overwrite or not (folder / "amps.csv").is_file() or not self._made(folder):
            return False
        logger.info("%s: already finished, nothing to do", folder)
        return True

    def _made(self, folder):
        """Whether the settings in a folder are of this study."""
        return read_yaml(folder / "config.yaml").get("study") == self.digest


def _difference(path, design, n, seed):
    """Say how a survey differs from the one that is asked for; None if it does not."""
    try:
        with opened_hdf5(path) as file:
            there = {"design": str(file.attrs.get("design")), "--n": len(file["amps"]), "seed": int(file.attrs["seed"])}
    except (OSError, KeyError, ValueError, TypeError) as error:
        return f"not a readable survey ({error})"
    for name, asked in (("design", design.identity()), ("--n", n), ("seed", seed)):
        if there[name] != asked:
            what = "of another observation or planet file" if name == "design" else f"with {name} = {there[name]}"
            return f"holds a survey {what}, received {asked}"
    return None


def settings_for(config, survey):
    """Return a copy of the settings for training on the survey, whose units are known."""
    config = copy.deepcopy(config)
    config.data.path, config.data.format = str(survey), "hdf5"
    config.data.depth_unit = config.data.width = config.data.columns = "auto"
    config.data.targets, config.data.auxiliary = None, []
    return config
