"""Every setting of a run: a tree of dataclasses, read from YAML, overridden by flags, checked before use.

The defaults here are those of ``config.yaml``, which explains each of them. Nothing in this module
imports TensorFlow, so a mistake is reported before the slow imports.
"""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml


class ConfigError(ValueError):
    """A setting that does not exist or cannot be used; the message is one line that names the key."""


def setting(default, *, low=None, high=None, above=None, below=None, choices=None):
    """Declare a setting with its default and the values it may take.

    Parameters
    ----------
    default : object
        A list is copied for every new tree.
    low, high : float, optional
        Smallest and largest value, included.
    above, below : float, optional
        Bounds that are not themselves allowed.
    choices : tuple, optional
        The only values allowed.
    """
    rules = {"low": low, "high": high, "above": above, "below": below, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rules)
    return field(default=default, metadata=rules)


NETWORKS = ("mlp", "cnn", "lstm", "hybrid")
FORMATS = ("auto", "hdf5", "paper", "challenge", "abc1", "hela")


@dataclass
class DataConfig:
    """Which data set, which part of it, which targets."""

    path: str = setting("data/ariel_spectra.h5")
    format: str = setting("auto", choices=FORMATS)
    depth_unit: str = setting("auto", choices=("auto", "fraction", "percent", "ppm"))
    targets: list[str] | None = setting(None)
    auxiliary: list[str] = setting([])
    size: int = setting(-1, low=-1)
    test_fraction: float = setting(0.2, above=0, below=1)
    valid_fraction: float = setting(0.2, above=0, below=1)


@dataclass
class MlpConfig:
    """Fully connected network."""

    units: list[int] = setting([320, 240, 160, 80], low=1)
    dropout: float = setting(0.0, low=0, below=1)


@dataclass
class CnnConfig:
    """Convolutional network."""

    filters: list[int] = setting([32, 32, 32], low=1)
    kernel_size: int = setting(3, low=1)
    dense: int = setting(64, low=1)
    dropout: float = setting(0.1, low=0, below=1)


@dataclass
class LstmConfig:
    """Bidirectional LSTM network."""

    units: list[int] = setting([100, 100], low=1)
    dense: int = setting(16, low=1)
    dropout: float = setting(0.1, low=0, below=1)


@dataclass
class HybridConfig:
    """Convolutional front, then a bidirectional LSTM."""

    filters: list[int] = setting([32, 32, 32], low=1)
    kernel_size: int = setting(3, low=1)
    units: int = setting(100, low=1)
    dense: int = setting(64, low=1)
    dropout: float = setting(0.1, low=0, below=1)


@dataclass
class ModelConfig:
    """Which network, and the settings of each."""

    name: str = setting("mlp", choices=NETWORKS)
    standardise: bool = setting(True)
    mlp: MlpConfig = field(default_factory=MlpConfig)
    cnn: CnnConfig = field(default_factory=CnnConfig)
    lstm: LstmConfig = field(default_factory=LstmConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)


@dataclass
class TrainingConfig:
    """Optimiser, schedule, noise and folds."""

    epochs: int = setting(100, low=1)
    batch_size: int = setting(64, low=1)
    lr: float = setting(0.001, above=0)
    copies: int = setting(10, low=1)
    noise: str = setting("fresh", choices=("fresh", "fixed", "none"))
    cv: int = setting(1, low=1)
    folds: str = setting("kfold", choices=("kfold", "random"))
    clipnorm: float | None = setting(1.0, above=0)
    warmup_epochs: int = setting(1, low=0)
    plateau_patience: int = setting(3, low=0)
    plateau_factor: float = setting(0.5, above=0, below=1)
    min_lr: float = setting(1e-6, low=0)
    stop_patience: int = setting(10, low=0)
    retries: int = setting(0, low=0)


@dataclass
class SensitivityConfig:
    """The sensitivity test."""

    enabled: bool = setting(True)
    no_spectra: int = setting(300, low=1)
    repeat: int = setting(1000, low=1)
    scheme: str = setting("halving", choices=("halving", "single"))
    abundance: list[float] | None = setting(None)
    batch_size: int = setting(4096, low=1)


@dataclass
class Config:
    """All settings of a run."""

    seed: int = setting(0, low=0, high=2**31 - 1)
    output: str = setting("runs")
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)

    def to_dict(self):
        """Return the settings as nested plain dicts, ready for YAML."""
        return dataclasses.asdict(self)


def load_config(path, overrides=None):
    """Read settings from a YAML file and lay the given overrides on top.

    Parameters
    ----------
    path : path-like or None
        None gives the defaults.
    overrides : dict of str to object, optional
        Dotted key ("training.epochs") to value; None values are passed over.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        With one line that names the file, the key, what was expected and what was received.
    """
    config = build_config(_read_yaml(path) if path is not None else {}, str(path or "settings"))
    for dotted, value in (overrides or {}).items():
        if value is not None:
            tree = value
            for name in reversed(dotted.split(".")):
                tree = {name: tree}
            _fill(config, tree, "", "command line")
    _check_together(config, str(path or "settings"))
    return config


def build_config(tree, source="settings"):
    """Turn nested dicts into a checked ``Config``; ``source`` is named in messages."""
    config = Config()
    _fill(config, tree, "", source)
    _check_together(config, source)
    return config


def _read_yaml(path):
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a YAML file such as config.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not plain YAML ({reason})") from None
    return {} if tree is None else tree


def _fill(node, tree, prefix, source):
    """Set the fields of the dataclass ``node`` from the dict ``tree``, checking each."""
    where = f"{source}: {prefix.rstrip('.') or 'the file'}"
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected settings as 'name: value', received {_show(tree)}")
    fields = {f.name: f for f in dataclasses.fields(node)}
    hints = typing.get_type_hints(type(node))
    for name, value in tree.items():
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(fields)}"
            raise ConfigError(f"{source}: {prefix}{name}: no such setting; {hint}")
        if dataclasses.is_dataclass(hints[name]):
            _fill(getattr(node, name), value, f"{prefix}{name}.", source)
        else:
            key = f"{source}: {prefix}{name}"
            setattr(node, name, _checked(value, hints[name], fields[name].metadata, key))


def _checked(value, hint, rules, key):
    """Return ``value`` as the type ``hint``, or raise a ConfigError that names ``key``."""
    if isinstance(hint, types.UnionType):  # "X | None"
        if value is None:
            return None
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{key}: expected a list, received {_show(value)}")
        (item,) = typing.get_args(hint)
        return [_checked(v, item, rules, f"{key}[{i}]") for i, v in enumerate(value)]
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            value, number = float(value), True
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = {
        int: number and isinstance(value, int),
        float: number,
        bool: isinstance(value, bool),
        str: isinstance(value, str),
    }[hint]
    if not fits:
        raise ConfigError(f"{key}: expected {names[hint]}, received {_show(value)}")
    value = hint(value)
    _check_range(value, rules, key)
    return value


def _check_range(value, rules, key):
    choices = rules.get("choices")
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ConfigError(f"{key}: expected one of {', '.join(choices)}, received {_show(value)}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}: expected a finite number, received {value}")
    tests = (
        ("low", lambda v, b: v >= b, "at least"),
        ("high", lambda v, b: v <= b, "at most"),
        ("above", lambda v, b: v > b, "above"),
        ("below", lambda v, b: v < b, "below"),
    )
    for name, holds, words in tests:
        bound = rules.get(name)
        if bound is not None and not holds(value, bound):
            raise ConfigError(f"{key}: expected a value {words} {bound}, received {value}")


def _check_together(config, source):
    """Check what no single setting can tell."""
    if config.data.size == 0:
        raise ConfigError(f"{source}: data.size: expected -1 (all spectra) or at least 1, received 0")
    cut = config.sensitivity.abundance
    if cut is not None and (len(cut) != 2 or not cut[0] < cut[1]):
        raise ConfigError(f"{source}: sensitivity.abundance: expected null or [low, high] in dex, received {cut}")
    for name in NETWORKS:
        for layers in ("units", "filters"):
            value = getattr(getattr(config.model, name), layers, None)
            if value == []:
                raise ConfigError(f"{source}: model.{name}.{layers}: expected at least one layer, received []")
    if config.data.targets is not None:
        if not config.data.targets:
            raise ConfigError(f"{source}: data.targets: expected null (all) or a list of AMPs, received []")
        if len(set(config.data.targets)) < len(config.data.targets):
            raise ConfigError(f"{source}: data.targets: expected each AMP once, received {config.data.targets}")


def _show(value, limit=60):
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
