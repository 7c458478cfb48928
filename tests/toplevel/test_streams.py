"""Random streams: whatever a run draws, it draws from a stream of its own."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
from synthetic import dataset

from constants import Stream, stream
from perturbation.arguments import seed_of
from preprocessing import Fold, epoch_chunks, noisy_test_spectra, split_folds, split_test

ROOT = Path(__file__).parents[2]
SEEDS, FOLDS, EPOCHS = (0, 1, 2, 12345), range(6), range(4)
KEYS = {  # what a stream goes by beside its name
    Stream.FOLD_SPLIT: (FOLDS,),
    Stream.WEIGHTS: (FOLDS,),
    Stream.DROPOUT: (FOLDS, EPOCHS, range(12)),
    Stream.TRAINING: (FOLDS, EPOCHS),
    Stream.FIXED_NOISE: (FOLDS, range(50)),
    Stream.VALIDATION_NOISE: (FOLDS,),
    Stream.SENSITIVITY: (FOLDS,),
    Stream.STUDY_NOISE: (FOLDS,),
    Stream.STUDY_MAPS: (range(12),),
    Stream.NESTED_SAMPLING: (range(50),),
    Stream.REWEIGHTING: (range(50),),
}


def state(sequence):
    return tuple(sequence.generate_state(4))


def all_streams():
    """Yield (what it is, stream) for every stream of runs of several seeds, the spectra of their maps included."""
    for seed, name in itertools.product(SEEDS, Stream):
        for key in itertools.product(*KEYS.get(name, ())):
            yield (seed, name, *key), stream(seed, name, *key)
        if name is Stream.SENSITIVITY:
            for fold in FOLDS:
                own = seed_of(stream(seed, name, fold))
                for spectrum, part in itertools.product(range(20), (0, 1)):  # as perturbation/engine.py does
                    yield (
                        (seed, "spectrum", fold, spectrum, part),
                        np.random.SeedSequence(own, spawn_key=(spectrum, part)),
                    )


def test_no_two_streams_of_a_run_are_equal():
    seen = {}
    for what, sequence in all_streams():
        other = seen.setdefault(state(sequence), what)
        assert other == what, f"{what} and {other} are one stream"
    for seed in SEEDS:  # nor is any of them what a user gets who seeds NumPy with the seed of the run
        assert state(np.random.SeedSequence(seed)) not in seen


def test_a_stream_is_its_name_and_key_and_nothing_else():
    assert state(stream(3, Stream.WEIGHTS, 1)) == state(stream(3, Stream.WEIGHTS, 1))
    assert len({state(stream(3, Stream.WEIGHTS, *key)) for key in ((), (0,), (0, 0), (1,))}) == 4
    with pytest.raises(ValueError, match="99"):
        stream(3, 99)


def test_what_a_run_draws_shares_no_numbers(monkeypatch):
    """Every generator of a run's data, watched as it is made: each has a state of its own."""
    made, default_rng = [], np.random.default_rng

    def watched(seed):
        made.append(state(seed))
        return default_rng(seed)

    data = dataset(n=60)
    monkeypatch.setattr(np.random, "default_rng", watched)
    for seed in (0, 1, 2):
        rest, test = split_test(data, 0.2, seed)
        folds = split_folds(rest, 3, "random", 0.2, seed)
        noisy_test_spectra(data, test, seed)
        for k, rows in enumerate(folds):
            for epoch, noise in ((0, "fresh"), (1, "fresh"), (2, "fixed")):
                list(epoch_chunks(data, Fold.of(data, *rows), 1, noise, (seed, k), epoch, 1000))
    assert len(made) == len(set(made)) > 100


def test_every_generator_of_the_project_has_a_named_stream():
    """No module outside perturbation/ and data/ seeds NumPy with a number or a list of its own."""
    plain = []
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]):
        room = path.relative_to(ROOT).parts[0]
        if room in ("tests", "benchmarks", "perturbation", "simulation"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                values = [node.args[0]] if called in ("default_rng", "SeedSequence") and node.args else []
                values += [keyword.value for keyword in node.keywords if keyword.arg == "rng"]
                plain += [
                    f"{path.name}:{v.lineno}" for v in values if isinstance(v, ast.List | ast.Tuple | ast.Constant)
                ]
    assert plain == []
