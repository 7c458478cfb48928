"""Every setting of a run: read from YAML, overridden by flags, and checked before any work begins.

``config.yaml`` explains each setting; its values are the defaults here. The settings of a network are the arguments of
its builder in ``models.py``. TensorFlow is not imported, so that a mistake is reported before the slow imports.
"""

import ast
import contextlib
import dataclasses
import difflib
import math
import operator
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from common.files import read_bounded
from constants import DATA_FORMATS, NETWORKS
from runio.log import InputError

MAX_BYTES = 1_000_000  # of a settings file
MAX_VALUES = 20_000  # keys, values, lists and mappings in it; more take seconds to read
MAX_DEPTH = 30  # of nested lists and mappings
MAX_INTEGER = 2**31 - 1  # unless a setting says otherwise
BOUNDS = {  # rule of a setting: test, words
    "low": (operator.ge, "a value at least"),
    "high": (operator.le, "a value at most"),
    "above": (operator.gt, "a value above"),
    "below": (operator.lt, "a value below"),
    "all_or_low": (lambda value, low: value == -1 or value >= low, "-1 (all spectra) or at least"),
}
RECORDS = ("data_sha256", "versions", "command")  # written to a run's config.yaml beside the settings, and not read


class ConfigError(InputError):
    """A setting that does not exist or cannot be used; the message is one line that names the key."""


def setting(default, **rules):
    """Declare a setting by its default and its rules: those of `BOUNDS`, choices, by_name, filled and unique.

    ``by_name``: there may be a value for each of several names. ``filled``: a list is not empty, and what is expected.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rules)
    return field(default=default, metadata=rules)


@dataclass
class DataConfig:
    """Which data set, which part of it, which targets."""

    path: str = setting("data/ariel_spectra.h5")
    format: str = setting("auto", choices=("auto", *DATA_FORMATS))
    depth_unit: str = setting("auto", choices=("auto", "fraction", "percent", "ppm"))
    width: str = setting("auto", choices=("auto", "full", "half"))
    columns: str = setting("auto")
    targets: list[str] | None = setting(None, filled="null (all) or a list of AMPs", unique=True)
    auxiliary: list[str] = setting([], unique=True)
    size: int = setting(-1, low=-1, all_or_low=1)
    test_fraction: float = setting(0.2, above=0, below=1)
    valid_fraction: float = setting(0.2, above=0, below=1)


NETWORK_RULES = {  # values that the arguments of the networks' builders may take, and a default that is not theirs
    **{size: {"low": 1} for size in ("kernel_size", "patch", "patch_filters")},
    **{sizes: {"low": 1, "filled": "at least one layer"} for sizes in ("units", "filters", "dense")},
    "dropout": {"low": 0, "below": 1},
    "activation": {"default": "auto", "choices": ("auto", "relu", "gelu", "silu")},
}


def _network_configs():
    """Return the dataclass of each network: the arguments of its builder, parsed as models.py would import Keras."""
    source = Path(__file__).parents[1].joinpath("models.py").read_text(encoding="utf-8")
    builders = {node.name: node.args for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    for name in NETWORKS:
        defaults, fields = builders[name].defaults, []
        for argument, node in zip(builders[name].args[-len(defaults) :], defaults):
            default = ast.literal_eval(node)
            hint = list[int] if isinstance(default, tuple) else type(default)
            default = list(default) if isinstance(default, tuple) else default
            fields.append((argument.arg, hint, setting(**{"default": default, **NETWORK_RULES.get(argument.arg, {})})))
        yield dataclasses.make_dataclass(f"{name.capitalize()}Config", fields, namespace={"__module__": __name__})


MlpConfig, CnnConfig, LstmConfig, HybridConfig = _network_configs()


@dataclass
class ModelConfig:
    """Which network, and the settings of each."""

    name: str = setting("mlp", choices=NETWORKS)
    whiten: bool | typing.Literal["auto"] = setting("auto")
    mlp: MlpConfig = field(default_factory=MlpConfig)
    cnn: CnnConfig = field(default_factory=CnnConfig)
    lstm: LstmConfig = field(default_factory=LstmConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)


@dataclass
class TrainingConfig:
    """Optimiser, schedule, noise and folds."""

    epochs: int = setting(100, low=1)
    batch_size: int = setting(512, low=1)
    lr: float = setting(0.0035, above=0)
    copies: int | typing.Literal["auto"] = setting("auto", low=1)
    loss: str = setting("log_mse", choices=("mse", "log_mse"))
    noise: str = setting("fresh", choices=("fresh", "fixed", "none"))
    extra_noise: float = setting(0.5, low=0)
    cv: int = setting(5, low=1)
    folds: str = setting("kfold", choices=("kfold", "random"))
    beta_2: float = setting(0.99, low=0, below=1)
    weight_decay: float = setting(0.06, low=0)
    average_epochs: float = setting(5.0, low=0)
    clipnorm: float | None = setting(1.0, above=0)
    warmup_epochs: int = setting(1, low=0)
    schedule: str = setting("cosine", choices=("plateau", "cosine"))
    plateau_patience: int = setting(3, low=0)
    plateau_factor: float = setting(0.5, above=0, below=1)
    min_lr: float = setting(1e-6, low=0)
    stop_patience: int = setting(10, low=0)
    min_improvement: float = setting(0.001, low=0, below=1)
    retries: int = setting(0, low=0)
    processes: int | typing.Literal["auto"] = setting("auto", low=1)
    strategy: str = setting("none", choices=("none", "mirrored"))


@dataclass
class SensitivityConfig:
    """The published sensitivity test: random draws of random groups of bins."""

    enabled: bool = setting(True)
    no_spectra: int | typing.Literal["auto"] = setting("auto", low=1)
    repeat: int = setting(1000, low=1)
    scheme: str = setting("halving", choices=("halving", "single"))
    noisy: bool = setting(False)
    abundance: list[float] | None = setting(None, by_name=True)
    tolerance: float | None = setting(None, above=0)
    batch_size: int | None = setting(None, low=1)
    chunk_size: int | typing.Literal["auto"] = setting("auto", low=1)


@dataclass
class SensitivitySingleConfig:
    """The exact map of single bins: no random draws."""

    enabled: bool = setting(True)
    no_spectra: int = setting(1000, low=-1, all_or_low=1)
    nodes: int = setting(5, low=2, high=200)
    noisy: bool = setting(True)


@dataclass
class Config:
    """All settings of a run."""

    seed: int = setting(0, low=0)
    output: str = setting("runs")
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    sensitivity_single: SensitivitySingleConfig = field(default_factory=SensitivitySingleConfig)

    def to_dict(self):
        """Return the settings as nested plain dicts, ready for YAML."""
        return dataclasses.asdict(self)


def load_config(path, overrides=None):
    """Return the `Config` of a YAML file (None: the defaults), with overrides such as {"training.epochs": 3}.

    An override of None is ignored. A mistake raises a `ConfigError`.
    """
    return build_config({}, "settings", overrides) if path is None else build_config(read_yaml(path), path, overrides)


def build_config(tree, source="settings", overrides=None):
    """Return the checked `Config` of nested dicts and overrides; ``source`` is named in messages."""
    config = fill(Config(), tree, source)
    for dotted, value in (overrides or {}).items():
        if value is not None:
            for name in reversed(dotted.split(".")):
                value = {name: value}
            fill(config, value, "command line")
    _check_together(config, source)
    return config


def fill(root, tree, source, node=None, prefix=""):
    """Set the settings in a tree of dataclasses from nested dicts, check each, and return the tree.

    A `ConfigError` names the ``source`` and the key. ``node`` is the part of the tree to fill, ``prefix`` its name.
    """
    node = root if node is None else node
    where = f"{source}: {prefix.rstrip('.') or 'the file'}"
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected settings as 'name: value', received {show(tree)}")
    fields = {f.name: f for f in dataclasses.fields(node)}
    hints = typing.get_type_hints(type(node))
    for name, value in tree.items():
        if not prefix and name in RECORDS:
            continue
        if name not in fields:
            shown = name if isinstance(name, str) and name.isidentifier() else show(name)
            raise ConfigError(f"{source}: {prefix}{clip(shown)}: no such setting; {_nearest(name, root, fields)}")
        if dataclasses.is_dataclass(hints[name]):
            fill(root, value, source, getattr(node, name), f"{prefix}{name}.")
        else:
            key = f"{source}: {prefix}{name}"
            setattr(node, name, _checked(value, hints[name], fields[name].metadata, key))
    return root


def _nearest(name, root, fields):
    """Suggest a setting: one of that name elsewhere, else one with a similar name here, else all that are here."""
    near = [key for key in flatten(dataclasses.asdict(root)) if key.split(".")[-1] == name]
    near = near or difflib.get_close_matches(clip(str(name)).lower(), fields, n=1)
    return f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(fields)}"


def _checked(value, hint, rules, key):
    """Return ``value`` as the type ``hint``, or raise a ConfigError that names ``key``."""
    if rules.get("by_name") and isinstance(value, dict):
        rules = {name: limit for name, limit in rules.items() if name != "by_name"}
        names = {name: _checked(name, str, {}, f"{key}: name") for name in value}
        return {names[name]: _checked(v, hint, rules, f"{key}.{names[name]}") for name, v in value.items()}
    instead = ""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):  # "X | None", or a word in the place of a number
        hint, other = typing.get_args(hint)
        allowed = None if other is type(None) else typing.get_args(other)[0]
        if value is allowed or (isinstance(value, str) and value == allowed):
            return value
        instead = f" or {allowed}" if allowed else ""
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{key}: expected a list, received {show(value)}")
        if not value and "filled" in rules:
            raise ConfigError(f"{key}: expected {rules['filled']}, received []")
        (item,) = typing.get_args(hint)
        items = [_checked(v, item, rules, f"{key}[{i}]") for i, v in enumerate(value)]
        if "unique" in rules and len(set(items)) < len(items):
            raise ConfigError(f"{key}: expected each name once, received {show(items)}")
        return items
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    is_bool = isinstance(value, bool)  # which Python also takes for a whole number
    if is_bool != (hint is bool) or not isinstance(value, (int, float) if hint is float else hint):
        names = {int: f"a whole number{instead}", float: "a number", bool: f"true or false{instead}", str: "text"}
        advice = " (YAML reads yes, no, on and off so: put the word in quotes)" if hint is str and is_bool else ""
        raise ConfigError(f"{key}: expected {names[hint]}, received {show(value)}{advice}")
    if hint is str and not (value.strip() and value.isprintable()):
        raise ConfigError(f"{key}: expected printable text, received {show(value)}")
    if hint is not str and abs(value) > (MAX_INTEGER if hint is int else sys.float_info.max):
        raise ConfigError(f"{key}: expected a number of ordinary size, received {show(value)}")
    value = hint(value)
    _check_range(value, rules, key)
    return value


def _check_range(value, rules, key):
    """Refuse a value that is none of the choices, or beyond a bound of `BOUNDS`."""
    choices = rules.get("choices")
    if choices and value not in choices:
        near = difflib.get_close_matches(clip(value).lower(), choices, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ConfigError(f"{key}: expected one of {', '.join(choices)}, received {show(value)}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}: expected a finite number, received {value}")
    for name, (holds, words) in BOUNDS.items():
        if name in rules and not holds(value, rules[name]):
            raise ConfigError(f"{key}: expected {words} {rules[name]}, received {value}")


def _check_together(config, source):
    """Check settings that depend on each other, and the abundance cuts."""
    cuts, network = config.sensitivity.abundance, config.model.name
    for name, cut in cuts.items() if isinstance(cuts, dict) else [(None, cuts)]:
        if (cut is not None or name) and (cut is None or len(cut) != 2 or not cut[0] < cut[1]):
            key, also = (f"abundance.{name}", "") if name else ("abundance", "null or ")
            raise ConfigError(f"{source}: sensitivity.{key}: expected {also}[low, high] in dex, received {show(cut)}")
    if getattr(getattr(config.model, network), "batch_norm", False) and config.training.average_epochs:
        raise ConfigError(f"{source}: model.{network}.batch_norm: expected false, or training.average_epochs: 0")
    both = [name for name in config.data.auxiliary if name in (config.data.targets or [])]
    if both:
        raise ConfigError(f"{source}: data.auxiliary: expected inputs that are no targets, received {show(both)}")


def show(value, limit=60):
    """Represent a value on one line, however large it is."""
    try:
        return clip(repr(value), limit)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, or lists nested as deep
        return f"a {type(value).__name__} too large to print"


def flatten(tree, prefix=""):
    """Return nested dicts as one: {"training": {"lr": 0.01}} gives {"training.lr": 0.01}."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def clip(text, limit=60):
    """Cut a text that is too long for a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


class PlainLoader(yaml.SafeLoader):
    """YAML without Python objects, without aliases (a few lines can expand to gigabytes) and without repeated keys."""

    values = depth = 0

    def compose_node(self, parent, index):
        """Refuse aliases, and more values or a greater depth than any settings have."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*{self.peek_event().anchor}): expected every value written out")
        self.values += 1
        self.depth += 1
        if self.values > MAX_VALUES or self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"expected at most {MAX_VALUES} values, nested {MAX_DEPTH} deep at most")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        """Refuse keys that are given twice."""
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: '{clip(key.value)}' is given twice, expected once")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path):
    """Return the plain values in the YAML file ``path``, an empty dict for an empty file; else raise a ConfigError."""
    try:
        content = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a YAML file such as config.yaml") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a YAML file such as config.yaml") from None
    except ValueError as error:
        raise ConfigError(f"{path}: expected a settings file, received {error}") from None
    try:
        tree = yaml.load(content.decode("utf-8-sig"), PlainLoader)  # safe: it is a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8, received byte {error.start} that is not") from None
    except Exception as error:  # for odd scalars and tags PyYAML raises KeyError, AttributeError and others
        mark, reason = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        if mark is None or not reason:
            reason = str(error) if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: {error}"
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{path}: expected plain YAML ({line}{clip(reason, 200)})") from None
    return {} if tree is None else tree
