"""One network file, asked by Keras on TensorFlow, JAX and PyTorch: the same maps."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import numpy as np
import models
from sensitivity import sensitivity_map

spectra, errors = np.random.default_rng(0).normal(size=(3, 13)), np.full(13, 0.1)
network = models.load_model(sys.argv[1])
maps = [
    sensitivity_map(network, None, spectra, errors, np.zeros(2), np.ones(2), x_mean=0.0, x_std=1.0, repeat=20, rng=0,
                    scheme=scheme).mean
    for scheme in ("single", "halving")
]
np.save(sys.argv[2], maps)
"""


def maps_under(backend, network, folder):
    out = folder / f"{backend}.npy"
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", PROGRAM, str(network), str(out)], env=environment, check=True)
    return np.load(out)


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("name", ["mlp", "hybrid"])
def test_keras_on_another_backend_gives_the_map_of_tensorflow(backend, name, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    import models

    network = models.build_model(name, 13, 2, seed=1)
    network.save(tmp_path / "network.keras")
    here = maps_under("tensorflow", tmp_path / "network.keras", tmp_path)
    there = maps_under(backend, tmp_path / "network.keras", tmp_path)
    np.testing.assert_allclose(there, here, rtol=2e-4)
