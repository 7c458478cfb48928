"""Read YAML of others: plain values, bounded in size and time, one line when it cannot be used."""

import yaml

from runio.errors import InputError
from runio.files import read_bounded

LONGEST = 1_000_000  # bytes of a settings file
MOST_VALUES = 20_000  # keys and values, lists and mappings; more take seconds to read
DEEPEST = 30  # of lists and mappings in one another


class ConfigError(InputError):
    """A setting that does not exist or cannot be used; the message is one line that names the key."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without Python objects, aliases (a few lines could unfold to gigabytes) and repeated keys."""

    values = depth = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*{self.peek_event().anchor}): expected every value written out")
        self.values += 1
        self.depth += 1
        if self.values > MOST_VALUES or self.depth > DEEPEST:
            raise yaml.YAMLError(f"expected at most {MOST_VALUES} values, nested {DEEPEST} deep at most")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: '{clip(key.value)}' is given twice, expected once")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path):
    """Return what the YAML file ``path`` holds; an empty file gives an empty dict.

    Raises
    ------
    ConfigError
        If the file cannot be read, or holds anything but plain values.
    """
    try:
        content = read_bounded(path, LONGEST)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a YAML file such as config.yaml") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a YAML file such as config.yaml") from None
    except ValueError as error:
        raise ConfigError(f"{path}: expected a settings file, received {error}") from None
    return parse_yaml(content, path)


def parse_yaml(content, path):
    """Return what YAML in ``content`` (bytes or str) holds; empty gives an empty dict. ``path`` is for messages.

    Raises
    ------
    ConfigError
        If it holds anything but plain values, or too many.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        tree = yaml.load(text, _PlainLoader)  # safe: _PlainLoader is a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8, received byte {error.start} that is not") from None
    except Exception as error:  # PyYAML lets KeyError, AttributeError and more out for odd scalars and tags
        raise ConfigError(f"{path}: expected plain YAML ({_yaml_reason(error)})") from None
    return {} if tree is None else tree


def _yaml_reason(error):
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {clip(problem, 200)}"
    return clip(f"{type(error).__name__}: {error}" if not isinstance(error, yaml.YAMLError) else str(error), 200)


def clip(text, limit=60):
    """Cut a text that is too long for a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
