"""Read tables of text (CSV, ECSV, IPAC, columns between blanks) into named columns; errors name the cell."""

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.files import read_bounded
from runio.config import ConfigError, parse_yaml
from runio.log import InputError

MAX_SURVEY_BYTES = 500_000_000  # bytes of a table of a survey
MAX_SPECTRUM_BYTES = 20_000_000  # bytes of a table of one spectrum
MAX_HEADER_LETTERS = 100_000  # letters of the header of an ECSV file
EMPTY = {"", "nan", "null", "none", "na", "n/a", "--"}  # cells that stand for a missing value


@dataclass(frozen=True)
class Table:
    """Columns of text with their units."""

    path: Path
    columns: dict  # name: cells in file order; columns without a name are called "column 1" and so on
    lines: list  # line of the file that each row came from
    units: dict = field(default_factory=dict)  # that the header states; columns without one are absent
    named: bool = True  # whether the file itself names its columns

    def __len__(self):
        return len(self.lines)

    def numbers(self, name):
        """Return a column as float64 (N,), missing cells as NaN; refuse one that holds anything but numbers."""
        if name not in self.columns:
            raise InputError(f"{self.path}: no column {name!r}; it holds {', '.join(self.columns)}")
        cells = self.columns[name]
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            values = np.array([_number(cell) for cell in cells])
        bad = [i for i, (v, cell) in enumerate(zip(values, cells)) if v is None]
        if bad:
            where = ", ".join(str(self.lines[i]) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
            raise InputError(
                f"{self.path}: column {name!r} holds no number in {len(bad)} row{'s' if len(bad) != 1 else ''} "
                f"(line {where}: {cells[bad[0]][:20]!r})"
            )
        return values.astype(np.float64)

    def is_numeric(self, name):
        """Whether a column holds nothing but numbers and missing cells."""
        try:
            self.numbers(name)
        except InputError:
            return False
        return True


def _number(cell):
    if cell.strip().lower() in EMPTY:
        return np.nan
    try:
        return float(cell)
    except ValueError:
        return None


def read_text(path, limit=MAX_SURVEY_BYTES):
    """Return the text of a regular file of at most ``limit`` bytes, or refuse it in one line."""
    try:
        return read_bounded(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file (byte {error.start} is not UTF-8)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_npy(path, where):
    """Return a numeric .npy array, or refuse it in one line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected {where}")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: not a readable .npy array ({' '.join(str(error).split())[:80]})") from error


def read_csv(path):
    """Read a CSV file whose first line names its columns."""
    rows = _csv_rows(path, read_text(path), ",", first_line=1)
    if not rows:
        raise InputError(f"{path}: empty, expected a header and rows")
    return _table(path, [name.strip() for name in rows[0][1]], rows[1:])


def _csv_rows(path, text, delimiter, first_line):
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [(first_line + reader.line_num - 1, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as CSV at line {first_line + reader.line_num - 1} ({error})") from error


def _table(path, names, rows, units=None, named=True):
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"{path}: column names repeat ({', '.join(repr(n) for n in repeated)})")
    bad = [line for line, row in rows if len(row) != len(names)]
    if bad:
        raise InputError(
            f"{path}: {len(bad)} row{'s' if len(bad) != 1 else ''} without the {len(names)} cells of the first "
            f"(line {', '.join(map(str, bad[:5]))}{', ...' if len(bad) > 5 else ''})"
        )
    if not rows:
        raise InputError(f"{path}: no rows")
    cells = zip(*(row for _, row in rows))
    columns = {name: list(column) for name, column in zip(names, cells)}
    return Table(Path(path), columns, [line for line, _ in rows], units or {}, named)


def read_table(path):
    """Read a table of text, whatever its kind: IPAC (``|`` header), ECSV, CSV, or columns between blanks.

    Lines that start with '#' are comments; the last of them, or the first line, may name the columns, with units
    in brackets: ``wavelength [micron]``.
    """
    text = read_text(path, MAX_SPECTRUM_BYTES)
    lines = text.splitlines()
    if "\x00" in text:
        raise InputError(f"{path}: not a text file (it holds zero bytes)")
    if any(line.startswith("|") for line in lines[:2000]):
        return _read_ipac(path, lines)
    if lines and lines[0].startswith("# %ECSV"):
        return _read_ecsv(path, lines)
    return _read_plain(path, lines)


def _read_ipac(path, lines):
    header = [(i, line) for i, line in enumerate(lines) if line.startswith("|")]
    edges = [i for i, character in enumerate(header[0][1].rstrip()) if character == "|"]
    if len(edges) < 2:
        raise InputError(f"{path}: IPAC header without columns at line {header[0][0] + 1}")

    def cells(line, last=None):  # a value may lie under the bar on its left, and the last one may run over
        return [line[a:b].strip(" |") for a, b in zip(edges, [*edges[1:-1], last])]

    names = cells(header[0][1])
    units = dict(zip(names, cells(header[2][1]))) if len(header) > 2 else {}
    first = header[-1][0] + 1
    rows = [
        (i + 1, cells(line)) for i, line in enumerate(lines[first:], first) if line.strip() and line[0] not in "\\|"
    ]
    return _table(path, names, rows, {name: unit for name, unit in units.items() if unit})


def _read_ecsv(path, lines):
    comments = [line for line in lines if line.startswith("#")]
    header = "\n".join(re.sub(r"^# ?", "", line) for line in comments[1:] if line[:3] != "# %")
    if len(header) > MAX_HEADER_LETTERS:
        raise InputError(f"{path}: ECSV header of {len(header)} letters, expected at most {MAX_HEADER_LETTERS}")
    try:
        head = parse_yaml(header, path)
        columns = {str(c["name"]): c for c in head["datatype"]}
        units = {name: str(c["unit"]) for name, c in columns.items() if c.get("unit") is not None}
    except ConfigError as error:
        raise InputError(f"{error}, in the ECSV header") from error
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: ECSV header is not readable ({type(error).__name__})") from error
    delimiter = head.get("delimiter", " ")
    if delimiter not in (" ", ","):
        raise InputError(f"{path}: ECSV delimiter is {str(delimiter)[:20]!r}, expected a blank or a comma")
    body = "\n".join("" if line.startswith("#") else line for line in lines)
    rows = _csv_rows(path, body, delimiter, first_line=1)
    if not rows or rows[0][1] != list(columns):
        raise InputError(f"{path}: ECSV column names do not match its header ({', '.join(columns)})")
    return _table(path, list(columns), rows[1:], units)


def _read_plain(path, lines):
    comments = [line for line in lines if line.lstrip().startswith("#")]
    numbered = [(i + 1, line) for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    if not numbered:
        raise InputError(f"{path}: empty, expected a table of wavelength, width, depth and error")
    delimiter = next((d for d in ",;\t" if d in numbered[-1][1]), None)

    def split(line):
        parts = line.split(delimiter) if delimiter else _words(line)
        return [part.strip().strip('"') for part in parts]

    rows = [(line, split(text)) for line, text in numbered]
    width = len(rows[-1][1])
    header = None
    if any(_number(cell) is None for cell in rows[0][1]):
        header, rows = rows[0][1], rows[1:]
    else:
        for comment in comments:  # the last comment with as many words as there are columns
            words = split(comment.strip().lstrip("#").strip())
            header = words if len(words) == width and all(_number(word) is None for word in words) else header
    if header is None:
        return _table(path, [f"column {i + 1}" for i in range(width)], rows, named=False)
    names, units = zip(*(_name_and_unit(word) for word in header))
    return _table(path, list(names), rows, {name: unit for name, unit in zip(names, units) if unit})


def _words(line):
    return re.sub(r"\s+([\[(])", r"\1", line).split()  # "depth (ppm)" is one word


def _name_and_unit(word):
    match = re.fullmatch(r"(.+?)\s*[\[(]([^\])]*)[\])]", word)
    return (match[1].strip(), match[2].strip()) if match else (word, "")
