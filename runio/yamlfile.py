"""Read a settings file: plain YAML, no surprises, one line when it cannot be used."""

import yaml

from runio.errors import InputError

LONGEST = 1_000_000  # bytes of a settings file


class ConfigError(InputError):
    """A setting that does not exist or cannot be used; the message is one line that names the key."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))


class _PlainLoader(yaml.SafeLoader):
    """YAML without Python objects, aliases (a few lines could unfold to gigabytes) and repeated keys."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*{self.peek_event().anchor}): expected every value written out")
        return super().compose_node(parent, index)

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
        with open(path, "rb") as file:
            content = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a YAML file such as config.yaml") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a YAML file such as config.yaml") from None
    if len(content) > LONGEST:
        raise ConfigError(f"{path}: expected a settings file, received more than {LONGEST // 1000} kB")
    try:
        tree = yaml.load(content.decode("utf-8-sig"), _PlainLoader)  # safe: _PlainLoader is a SafeLoader
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
