"""Settings: every key, type and range is checked, and every refusal is one line that helps."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from runio import config
from runio.config import Config, ConfigError, build_config, load_config

ROOT = Path(config.__file__).parents[1]


def refusal(path, overrides=None):
    """Return the message of a refused file, after checking that it is one short printable line."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400 + len(str(path)), message
    return message


# YAML text, piece of the message
BAD_SETTINGS = [
    ("training: {epoch: 3}", "training.epoch: no such setting; did you mean 'epochs'?"),
    ("trainning: {epochs: 3}", "trainning: no such setting; did you mean 'training'?"),
    ("epochs: 3", "epochs: no such setting; did you mean 'training.epochs'?"),
    ("model: {units: [3]}", "model.units: no such setting; did you mean 'model.mlp.units'?"),
    ("xyzzy: 3", "xyzzy: no such setting; expected one of seed, output, data, model, training, sensitivity"),
    ("1: 2", "1: no such setting"),
    ("null: 2", "None: no such setting"),
    ('"a\\nb": 2', r"'a\nb': no such setting"),
    ("training: {versions: 1}", "training.versions: no such setting"),
    ("training: 3", "training: expected settings as 'name: value', received 3"),
    ("training: null", "training: expected settings as 'name: value', received None"),
    ("model: {mlp: []}", "model.mlp: expected settings as 'name: value', received []"),
    ("training: {epochs: many}", "training.epochs: expected a whole number, received 'many'"),
    ("training: {epochs: 3.5}", "training.epochs: expected a whole number, received 3.5"),
    ("training: {epochs: true}", "training.epochs: expected a whole number, received True"),
    ("training: {epochs: '3'}", "training.epochs: expected a whole number, received '3'"),
    ("training: {epochs: null}", "training.epochs: expected a whole number, received None"),
    ("training: {epochs: [3]}", "training.epochs: expected a whole number, received [3]"),
    ("training: {epochs: {a: 3}}", "training.epochs: expected a whole number, received {'a': 3}"),
    ("training: {epochs: 2020-01-01}", "training.epochs: expected a whole number, received datetime.date"),
    ("training: {epochs: .nan}", "training.epochs: expected a whole number, received nan"),
    ("training: {epochs: .inf}", "training.epochs: expected a whole number, received inf"),
    ("training: {epochs: 0}", "training.epochs: expected a value at least 1, received 0"),
    ("training: {epochs: -5}", "training.epochs: expected a value at least 1, received -5"),
    ("training: {epochs: 3000000000}", "training.epochs: expected a number of ordinary size, received 3000000000"),
    ("training: {epochs: 1e30}", "training.epochs: expected a whole number, received '1e30'"),
    ("training: {epochs: 1.0e+30}", "training.epochs: expected a number of ordinary size"),
    (f"training: {{epochs: 0x{'f' * 9999}}}", "training.epochs: expected a number of ordinary size, received a int"),
    (f"training: {{lr: 0x{'f' * 9999}}}", "training.lr: expected a number of ordinary size"),
    (f"training: {{epochs: {'9' * 9999}}}", "expected plain YAML"),
    ("training: {lr: fast}", "training.lr: expected a number, received 'fast'"),
    ("training: {lr: true}", "training.lr: expected a number, received True"),
    ("training: {lr: .nan}", "training.lr: expected a finite number, received nan"),
    ("training: {lr: nan}", "training.lr: expected a finite number, received nan"),
    ("training: {lr: -.inf}", "training.lr: expected a number of ordinary size, received -inf"),
    ("training: {lr: 1e999}", "training.lr: expected a number of ordinary size, received inf"),
    ("training: {lr: 0}", "training.lr: expected a value above 0, received 0.0"),
    ("training: {lr: -1e-3}", "training.lr: expected a value above 0, received -0.001"),
    ("training: {clipnorm: 0}", "training.clipnorm: expected a value above 0"),
    ("training: {plateau_factor: 1}", "training.plateau_factor: expected a value below 1, received 1.0"),
    ("training: {noise: frsh}", "expected one of fresh, fixed, none, received 'frsh' (did you mean 'fresh'?)"),
    ("training: {noise: no}", "training.noise: expected text, received False (YAML reads yes, no, on and off so"),
    ("training: {folds: 5}", "training.folds: expected text, received 5"),
    ("training: {cv: 0}", "training.cv: expected a value at least 1"),
    (
        "model: {name: cnnn}",
        "model.name: expected one of mlp, cnn, lstm, hybrid, received 'cnnn' (did you mean 'cnn'?)",
    ),
    ("model: {name: CNN}", "received 'CNN' (did you mean 'cnn'?)"),
    ("model: {whiten: 1}", "model.whiten: expected true or false or auto, received 1"),
    ("model: {mlp: {units: 3}}", "model.mlp.units: expected a list, received 3"),
    ("model: {mlp: {units: []}}", "model.mlp.units: expected at least one layer, received []"),
    ("model: {cnn: {filters: []}}", "model.cnn.filters: expected at least one layer, received []"),
    ("model: {mlp: {units: [3, 0]}}", "model.mlp.units[1]: expected a value at least 1, received 0"),
    ("model: {mlp: {units: [3, x]}}", "model.mlp.units[1]: expected a whole number, received 'x'"),
    ("model: {mlp: {dropout: 1}}", "model.mlp.dropout: expected a value below 1, received 1.0"),
    ("data: {size: 0}", "data.size: expected -1 (all spectra) or at least 1, received 0"),
    ("data: {size: -2}", "data.size: expected a value at least -1, received -2"),
    ("data: {path: ''}", "data.path: expected printable text, received ''"),
    ("data: {path: 3}", "data.path: expected text, received 3"),
    ('data: {path: "a\\0b"}', "data.path: expected printable text, received 'a\\x00b'"),
    ("data: {path: !!binary aGVsbG8=}", "data.path: expected text, received b'hello'"),
    ("data: {format: fits}", "data.format: expected one of auto, challenge, abc1, paper, hela, hdf5, received 'fits'"),
    ("data: {targets: []}", "data.targets: expected null (all) or a list of AMPs, received []"),
    ("data: {targets: H2O}", "data.targets: expected a list, received 'H2O'"),
    ("data: {targets: [H2O, H2O]}", "data.targets: expected each name once, received ['H2O', 'H2O']"),
    ("data: {targets: [H2O, NO]}", "data.targets[1]: expected text, received False (YAML reads yes, no, on and off so"),
    ("data: {targets: !!set {H2O}}", "data.targets: expected a list, received {'H2O'}"),
    ("data: {auxiliary: [a, a]}", "data.auxiliary: expected each name once"),
    ("data: {targets: [Rp], auxiliary: [Rp]}", "data.auxiliary: expected inputs that are no targets, received ['Rp']"),
    ("data: {test_fraction: 1}", "data.test_fraction: expected a value below 1, received 1.0"),
    ("data: {valid_fraction: 0}", "data.valid_fraction: expected a value above 0, received 0.0"),
    ("seed: -1", "seed: expected a value at least 0, received -1"),
    ("seed: 2147483648", "seed: expected a number of ordinary size, received 2147483648"),
    ("output: null", "output: expected text, received None"),
    ("sensitivity: {abundance: [-4]}", "sensitivity.abundance: expected null or [low, high] in dex, received [-4.0]"),
    ("sensitivity: {abundance: [-2, -4]}", "sensitivity.abundance: expected null or [low, high] in dex"),
    ("sensitivity: {abundance: {H2O: [1]}}", "sensitivity.abundance.H2O: expected [low, high] in dex, received [1.0]"),
    ("sensitivity: {abundance: {H2O: null}}", "sensitivity.abundance.H2O: expected [low, high] in dex, received None"),
    ("sensitivity: {abundance: {H2O: 1}}", "sensitivity.abundance.H2O: expected a list, received 1"),
    ("sensitivity: {abundance: [.nan, 1]}", "sensitivity.abundance[0]: expected a finite number, received nan"),
    ("sensitivity: {tolerance: 0}", "sensitivity.tolerance: expected a value above 0, received 0.0"),
    ("sensitivity_single: {nodes: 201}", "sensitivity_single.nodes: expected a value at most 200, received 201"),
    ("sensitivity: {repeat: 0}", "sensitivity.repeat: expected a value at least 1"),
    ("sensitivity: {scheme: halfing}", "did you mean 'halving'?"),
    # not plain YAML
    ("- seed", "the file: expected settings as 'name: value', received ['seed']"),
    ("seed", "the file: expected settings as 'name: value', received 'seed'"),
    ("3", "the file: expected settings as 'name: value', received 3"),
    ("seed: [1", "expected plain YAML (line 1"),
    ("seed: 1\n\tx: 2", "line 2: found character '\\t'"),
    ("a: b: c", "mapping values are not allowed here"),
    ("seed: 1\nseed: 2", "line 2: 'seed' is given twice, expected once"),
    ("training: {lr: 1, epochs: 3, lr: 2}", "line 1: 'lr' is given twice, expected once"),
    ("seed: 1\n---\nseed: 2", "but found another document"),
    ("seed: !!python/object/apply:os.system ['touch owned']", "could not determine a constructor for the tag"),
    ("!!python/name:os.system {}", "could not determine a constructor for the tag"),
    ("seed: !mine 3", "could not determine a constructor for the tag '!mine'"),
    ("seed: &a 1\noutput: *a", "an alias (*a): expected every value written out"),
    ("a: &a {b: *a}", "an alias (*a)"),
    ("x: &x {seed: 1}\n<<: *x", "an alias (*x)"),
    ("seed: !!timestamp x", "expected plain YAML"),
    ("seed: !!bool x", "expected plain YAML"),
    ("seed: !!int ''", "expected plain YAML"),
    ("seed: 2020-13-45", "expected plain YAML"),
    ("? [1, 2]\n: 3", "found unhashable key"),
    ("seed: %", "cannot start any token"),
    ("[" * 5000, "expected plain YAML"),
]


@pytest.mark.parametrize(("text", "piece"), BAD_SETTINGS, ids=[text[:40] for text, _ in BAD_SETTINGS])
def test_bad_setting_is_refused_in_one_line_that_names_file_and_key(tmp_path, monkeypatch, text, piece):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    message = refusal("mine.yaml")
    assert message.startswith("mine.yaml: ") and piece in message
    assert os.listdir() == ["mine.yaml"]


BAD_BYTES = [
    (b"seed: \xff\xfe", "expected text in UTF-8, received byte 6 that is not"),
    ("seed: 1".encode("utf-16"), "expected text in UTF-8"),
    (b"\x89HDF\r\n\x1a\n", "expected text in UTF-8"),
    (b"PK\x03\x04", "expected plain YAML"),
    (b"seed: \x00", "expected plain YAML"),
    (b"# " + b"x" * 2_000_000, "expected a settings file, received more than 1000 kB"),
]


@pytest.mark.parametrize(("content", "piece"), BAD_BYTES, ids=[piece for _, piece in BAD_BYTES])
def test_file_that_is_no_text_is_refused(tmp_path, content, piece):
    (tmp_path / "mine.yaml").write_bytes(content)
    assert piece in refusal(tmp_path / "mine.yaml")


def test_path_that_is_no_readable_file_is_refused(tmp_path):
    assert "no such file, expected a YAML file" in refusal(tmp_path / "none.yaml")
    assert "cannot be read (Is a directory)" in refusal(tmp_path)
    assert "File name too long" in refusal("x" * 5000 + ".yaml")
    with pytest.raises(ConfigError, match="embedded null"):
        load_config("a\0b")
    if os.path.exists("/dev/zero"):
        assert "expected a settings file" in refusal("/dev/zero")


def test_billion_laughs_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    start = time.perf_counter()
    assert "an alias (*a0)" in refusal(tmp_path / "mine.yaml")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "{}", "null", "training: {}\nmodel: {mlp: {}}"])
def test_empty_file_gives_the_defaults(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    assert load_config(tmp_path / "mine.yaml") == Config() == load_config(None)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training: {lr: 1e-3}", "training.lr", 1e-3),
        ("training: {lr: 1}", "training.lr", 1.0),
        ("training: {epochs: 3.0}", "training.epochs", 3),
        ("training: {clipnorm: null}", "training.clipnorm", None),
        ("data: {targets: null}", "data.targets", None),
        ("data: {targets: [H2O, 'NO']}", "data.targets", ["H2O", "NO"]),
        ("sensitivity: {abundance: [-6, -1]}", "sensitivity.abundance", [-6.0, -1.0]),
        ("\ufeffseed: 5", "seed", 5),
        ("data: {path: données/été.h5}", "data.path", "données/été.h5"),
    ],
)
def test_good_setting_is_taken_with_its_declared_type(tmp_path, text, key, value):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    found = load_config(tmp_path / "mine.yaml")
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


BAD_OVERRIDES = [
    ({"training.epochs": 0}, "command line: training.epochs: expected a value at least 1, received 0"),
    ({"training.epochs": 10**5000}, "command line: training.epochs: expected a number of ordinary size"),
    ({"training.lr": float("nan")}, "command line: training.lr: expected a finite number, received nan"),
    ({"model.name": "mpl"}, "received 'mpl' (did you mean 'mlp'?)"),
    ({"data.size": 0}, "command line: data.size: expected -1 (all spectra) or at least 1, received 0"),
    ({"training.epoch": 3}, "command line: training.epoch: no such setting; did you mean 'epochs'?"),
    ({"seed.x": 3}, "command line: seed: expected a whole number, received {'x': 3}"),
    ({"training": 3}, "command line: training: expected settings as 'name: value', received 3"),
    ({"": 3}, "command line: '': no such setting"),
]


@pytest.mark.parametrize(("overrides", "piece"), BAD_OVERRIDES, ids=[piece[-40:] for _, piece in BAD_OVERRIDES])
def test_bad_flag_is_refused_and_named_as_such(overrides, piece):
    assert piece in refusal(None, overrides)


def test_flags_override_the_file_only_when_given(tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {epochs: 7, lr: 0.5}")
    found = load_config(tmp_path / "mine.yaml", {"training.lr": 0.25, "training.epochs": None, "seed": 9})
    assert (found.training.epochs, found.training.lr, found.seed) == (7, 0.25, 9)


def test_settings_that_a_run_wrote_are_read_back_the_same(tmp_path):
    before = build_config({"seed": 4, "training": {"lr": 1e-7}, "data": {"targets": ["H2O", "CO"]}})
    record = {**before.to_dict(), "versions": {"numpy": "2.0"}, "command": "python runfile.py"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    assert load_config(tmp_path / "config.yaml") == before


def test_shipped_settings_are_the_defaults():
    assert load_config(ROOT / "config.yaml") == Config()


def test_shipped_settings_name_every_setting():
    written = yaml.safe_load((ROOT / "config.yaml").read_text())

    def keys(tree, prefix=""):
        for name, value in tree.items():
            yield from keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]

    assert list(keys(written)) == list(keys(Config().to_dict()))


def test_settings_are_checked_without_importing_tensorflow():
    code = "import runio.config, sys; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_two_settings_share_no_list():
    first, second = Config(), Config()
    first.model.mlp.units.append(1)
    assert second.model.mlp.units == Config().model.mlp.units


# Fuzzing: whatever the file or the tree holds, the outcome is settings or a ConfigError of one line.

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

SECTIONS = Config().to_dict()
NAMES = [*SECTIONS, *(k for v in SECTIONS.values() if isinstance(v, dict) for k in v), "units", "filters", "dropout"]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5) | st.dates()
)
NAME = st.sampled_from(NAMES) | st.text(max_size=8) | st.integers() | st.none() | st.booleans()
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=4), max_leaves=20
)


@st.composite
def near_trees(draw):
    """Draw settings of the right shape with some values replaced by anything."""

    def spoil(tree):
        return {
            k: spoil(v) if isinstance(v, dict) and draw(st.integers(0, 9)) else draw(TREES)
            for k, v in tree.items()
            if isinstance(v, dict) or draw(st.integers(0, 9)) == 0
        }

    return spoil(SECTIONS)


def settings_or_one_line(call, *arguments):
    try:
        found = call(*arguments)
    except ConfigError as error:
        assert re.fullmatch(r"[^\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+", str(error)) and len(str(error)) < 600
    else:
        assert build_config(found.to_dict()) == found
        assert yaml.safe_load(yaml.safe_dump(found.to_dict())) == found.to_dict()


@hypothesis.settings(max_examples=120, deadline=None)
@hypothesis.given(TREES | near_trees())
def test_any_tree_is_settings_or_refused(tree):
    settings_or_one_line(build_config, tree)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "mine.yaml"


MARKS = list("[]{},:-?&*!|>'\"#%@`~\n\t")
TAGS = ["!!int", "!!float", "!!timestamp", "!!python/name:os", "&a", "*a", "<<:", "---", "..."]
VALUES = ["1e3", ".nan", ".inf", "null", "true", "0x1f", "010", "1:30", "2020-01-01"]
YAML_PIECES = st.sampled_from([*MARKS, *TAGS, *VALUES, "training:", "model:", "{seed"])


@hypothesis.settings(max_examples=120, deadline=None)
@hypothesis.given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(YAML_PIECES, max_size=25).map(lambda pieces: " ".join(pieces).encode())
    | TREES.map(lambda tree: yaml.dump(tree).encode())
)
def test_any_file_is_settings_or_refused(scratch, content):
    scratch.write_bytes(content)
    settings_or_one_line(load_config, scratch)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(key=st.sampled_from(NAMES) | st.text(max_size=20), value=TREES)
def test_any_override_is_taken_or_refused(key, value):
    settings_or_one_line(load_config, None, {key: value})
