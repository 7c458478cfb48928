"""A network trained on several devices of one machine: two logical CPUs, in a process of their own."""

from pathlib import Path

import pytest

CODE = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [half, half])
tf.config.experimental.enable_op_determinism()
sys.path.insert(0, sys.argv[2])
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
# Keras clips the gradient of each device, then adds them up; the logarithm of log_mse is taken on each device, too
mirrored = replace(mirrored, clipnorm=None, loss="mse")
two, one = (weights(name, replace(mirrored, strategy=name), dropout=0.0) for name in ("mirrored", "none"))
assert np.abs(two - one).max() < 1e-5 < np.abs(one).max(), np.abs(two - one).max()
print("the same gradients")
"""


@pytest.mark.slow
def test_two_devices_train_the_same_network_and_go_on_after_a_kill(tmp_path, warm):
    (tmp_path / "code.py").write_text(CODE)
    ended = warm.script(tmp_path / "code.py", [tmp_path, Path(__file__).parent], tmp_path / "output")
    assert ended.stdout.splitlines() == ["goes on", "the same gradients"], ended.stderr[-3000:]
