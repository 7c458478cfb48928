"""What every study needs: its command line, the folders, and the settings of a run on the shipped data."""

import argparse
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies/results"
INFORMATION = ROOT / "data/information.h5"  # posteriors of the shipped test spectra
QUICK = {"data.size": 1500, "training.epochs": 2}  # settings of --quick: they show that a study runs, nothing more


def study_parser(name, description):
    """Return a parser of arguments for ``python -m studies.<name>`` (None: of all), whose help keeps the lines."""
    return argparse.ArgumentParser(
        prog=".".join(filter(None, ("python -m studies", name))),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def settings_of(file="config.yaml", changes=None, quick=False):
    """Return the settings of a file at the root with changes, and the path of its data set as seen from anywhere."""
    from runio.config import load_config

    config = load_config(ROOT / file, {**(changes or {}), **(QUICK if quick else {})})
    config.data.path = str(ROOT / config.data.path)
    return config


def with_data(split, data):
    """Return a `pipeline.folds.Split` of another data set with the same rows; its scalers are measured again."""
    return replace(split, data=data, folds=[type(fold).of(data, fold.train, fold.valid) for fold in split.folds])
