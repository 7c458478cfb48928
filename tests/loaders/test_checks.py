"""Checks of data sets: what is unusual and right is taken."""

from dataclasses import replace

import numpy as np
from synthetic import dataset

from constants import AMP
from loaders.dataset import check_dataset


def test_plausible_surveys_are_taken():
    """Errors a hundred times larger in some bins and stars, noise beyond the depth, a deep line, a rare flag."""
    rng = np.random.default_rng(0)
    data = dataset(n=200, n_bins=20, keys=("H2O", "Tp", "Rp"), auxiliary=True)
    errors = 1e-5 * 10 ** (2 * rng.random((200, 1)) + 2 * rng.random(20))
    spectra = data.spectra + errors * rng.standard_normal(errors.shape)
    spectra[:, 4] *= 8  # Lyman alpha
    amps = np.column_stack([data.amps[:, 0], data.amps[:, 1], 10 ** rng.uniform(-12, -1, 200)])
    table = (*data.amp_table[:2], AMP("C/O", "C/O"))
    auxiliary = (rng.random((200, 1)) < 0.02).astype(float)  # a flag, nearly always off
    check_dataset(replace(data, spectra=spectra, errors=errors, amps=amps, amp_table=table, auxiliary=auxiliary))
