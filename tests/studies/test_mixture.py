"""Means of several kinds of network."""

import numpy as np

from studies.mixture import even_choices, mixtures


def test_every_fold_gets_one_kind_and_kinds_are_even():
    assert len(even_choices(5, 2)) == 20  # 2 or 3 folds of the first kind
    assert len(even_choices(5, 4)) == 240
    assert all(sorted(map(choice.count, range(3))) == [1, 2, 2] for choice in even_choices(5, 3))


def test_a_mixture_of_opposite_errors_has_none():
    answers = {"mlp": np.full((2, 3, 1), 1.0), "lstm": np.full((2, 3, 1), -1.0)}
    found = [(kinds, n, np.unique(choices).tolist()) for kinds, n, choices in mixtures(answers)]
    both = ("mlp", "lstm")
    assert found == [(("mlp",), 2, [1.0]), (("lstm",), 2, [-1.0]), (both, 2, [0.0]), (both, 4, [0.0])]
