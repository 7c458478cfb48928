import h5py
import layouts
import numpy as np
import pytest
import yaml

LAYOUTS = {
    "own": lambda path, truth: layouts.write_own(path.with_suffix(".h5"), truth),
    "paper": layouts.write_paper,
    "challenge_2022": lambda path, truth: layouts.write_challenge(path, truth, 2022, "Planet_", ""),
    "challenge_2023": layouts.write_challenge,
    "abc1": layouts.write_level_1,
    "hela": lambda path, truth: layouts.write_hela(path, truth, n_test=12),
}


@pytest.mark.slow
def test_each_layout_goes_through_a_whole_small_run(tmp_path, warm):
    truth = layouts.Truth(n=60, n_bins=8)
    arguments = []
    for name, write in LAYOUTS.items():
        config = {
            "data": {"path": str(write(tmp_path / name, truth))},
            "model": {"mlp": {"units": [8]}},
            "training": {"epochs": 1, "cv": 1},
            "sensitivity": {"repeat": 2, "no_spectra": 3},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        arguments.append(["--config", str(tmp_path / f"{name}.yaml"), "--output", str(tmp_path / f"out_{name}")])
    for name, argv in zip(LAYOUTS, arguments):
        true_figures = name == "hela"  # they take the longest: only where an AMP is unknown to constants.py
        options = {"quick_figures": not true_figures, "few_figures": true_figures, "eager": True}
        environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = warm.run(argv, tmp_path / f"output_{name}", env=environment, **options)
        assert done.status == 0, (name, done.stderr)
    for name in LAYOUTS:
        with h5py.File(tmp_path / f"out_{name}" / "results.h5") as file:
            keys = file.attrs["amp_names"]
            noisy = name == "hela"  # the one layout whose spectra hold noise: no map of it is called noise-free
            groups = (file, file["fold_0/sensitivity"], file["fold_0/response"])
            assert [bool(group.attrs["noisy"]) for group in groups] == [noisy] * 3
            np.testing.assert_allclose(file["wavelength"][()], truth.wavelength)
            assert file["fold_0/y_pred"].shape == (12, len(keys))
            assert {"own": 9, "paper": 9, "challenge_2022": 6, "challenge_2023": 7, "abc1": 6, "hela": 3}[name] == len(
                keys
            )
            known = [i for i, key in enumerate(keys) if key in truth.amps]
            test = file["fold_0/y_test"][()][:, known]
            columns = truth.column(*(keys[i] for i in known))
            for row in test:  # each row of the test set is a row of the survey
                assert np.isclose(columns, row, rtol=1e-9).all(axis=1).any()
