"""A network trained on several devices of one machine: two logical CPUs, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CODE = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [half, half])
tf.config.experimental.enable_op_determinism()
import test_training
from pipeline import training

folder, mirrored = Path(sys.argv[1]), replace(test_training.SETTINGS, strategy="mirrored", epochs=2)


def weights(name, settings=mirrored, **options):
    return test_training.weights(test_training.train(folder / name, settings, **options))


def kill(row):
    assert training._mirrored().num_replicas_in_sync == 2
    raise test_training.Killed


try:
    weights("broken", on_epoch=kill)
except test_training.Killed:
    assert np.array_equal(weights("broken"), weights("unbroken"))
    print("goes on")
mirrored = replace(mirrored, clipnorm=None)  # Keras clips the gradient of each device, then adds them up
two, one = (weights(name, replace(mirrored, strategy=name), dropout=0.0) for name in ("mirrored", "none"))
assert np.abs(two - one).max() < 1e-5 < np.abs(one).max(), np.abs(two - one).max()
print("the same gradients")
"""


@pytest.mark.slow
def test_two_devices_train_the_same_network_and_go_on_after_a_kill(tmp_path):
    pytest.importorskip("tensorflow")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}{os.pathsep}{ROOT / 'tests/pipeline'}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    ended = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.stdout.splitlines() == ["goes on", "the same gradients"], ended.stderr[-3000:]
