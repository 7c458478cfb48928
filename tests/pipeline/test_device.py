"""A run says which device it found. No GPU has seen these tests: TensorFlow is a stand-in that claims to have some."""

import sys
from types import SimpleNamespace

import pytest

from common.processes import device_words, usable_cores


def stand_in(*names):
    """Return what of TensorFlow tells its GPUs; a name of None is one that the driver does not tell."""
    gpus = [SimpleNamespace(name=f"/physical_device:GPU:{k}") for k in range(len(names))]
    details = {gpu.name: {"device_name": name} if name else {} for gpu, name in zip(gpus, names)}
    return SimpleNamespace(
        config=SimpleNamespace(
            list_physical_devices=lambda kind: gpus if kind == "GPU" else [],
            experimental=SimpleNamespace(get_device_details=lambda gpu: details[gpu.name]),
        )
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), f"TensorFlow on the CPU, no GPU found; processor cores: {usable_cores()}"),
        (("NVIDIA A100",), "TensorFlow on 1 GPU: NVIDIA A100"),
        (("NVIDIA A100", None), "TensorFlow on 2 GPUs: NVIDIA A100, /physical_device:GPU:1"),
    ],
)
def test_device_is_named(names, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", stand_in(*names))
    assert device_words() == expected
