"""Read tables of text (CSV, ECSV, IPAC, Markdown, columns between blanks) into named columns; errors name the cell."""

import csv
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml

from common.files import read_bounded
from loaders.dataset import numbers, refuse_rows
from runio.config import PlainLoader
from runio.log import InputError

MAX_SURVEY_BYTES = 500_000_000
MAX_SPECTRUM_BYTES = 20_000_000
MAX_HEADER_LETTERS = 100_000  # of an ECSV file
EMPTY = {"", "nan", "null", "none", "na", "n/a", "--"}  # cells that stand for a missing value
DECIMAL_COMMA = re.compile(r"^([-+]?\d*),(\d+([eE][-+]?\d+)?)$")
SKIP = "-"  # in a list of column names: no name, and so no use


@dataclass(frozen=True)
class Table:
    """Columns of text with their units."""

    path: Path
    columns: dict  # name: cells in file order; columns without a name are called "column 1" and so on
    lines: list  # "line 7": where each row is in the file, for messages
    units: dict = field(default_factory=dict)  # that the header states; columns without one are absent
    header: str = "line"  # where names come from: a "line" (or the user), a "comment", or "" without names

    def __len__(self):
        return len(self.lines)

    def cells(self, name):
        """Return the cells of a column (N,) as text; refuse a column that is not there."""
        if name not in self.columns:
            raise InputError(f"{self.path}: no column {name!r}; there are {', '.join(self.columns)}")
        return self.columns[name]

    def numbers(self, name):
        """Return a column as float64 (N,), missing cells as NaN; refuse one that holds anything but numbers."""
        values = [_number(cell) for cell in self.cells(name)]
        bad = [value is None for value in values]
        if any(bad):
            first = self.columns[name][bad.index(True)]
            refuse_rows(bad, f"{self.path}: column {name!r}: expected numbers, received {first[:20]!r}", self.lines)
        return np.array(values, dtype=np.float64)

    def without(self, rows):
        """Return the table without some rows, (N,) of bool."""
        keep = [i for i, row in enumerate(rows) if not row]
        columns = {name: [cells[i] for i in keep] for name, cells in self.columns.items()}
        return replace(self, columns=columns, lines=[self.lines[i] for i in keep])

    def is_numeric(self, name):
        """Whether a column holds nothing but numbers and missing cells."""
        return all(_number(cell) is not None for cell in self.columns[name])

    def is_empty(self, name):
        """Whether every cell of a column is missing."""
        return all(cell.strip().lower() in EMPTY for cell in self.columns[name])


def _number(cell):
    """Return the number in a cell, NaN if it is missing, None if the cell holds something else."""
    try:
        return float(cell)
    except ValueError:
        return np.nan if cell.strip().lower() in EMPTY else None


def read_text(path, limit=MAX_SURVEY_BYTES):
    """Return the text of a regular file of at most ``limit`` bytes, or refuse it in one line."""
    try:
        return read_bounded(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file (byte {error.start} is not UTF-8)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_npy(path, content, ndim):
    """Return a .npy array of numbers with ``ndim`` axes, or refuse it in one line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected {content}")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: not a readable .npy array ({' '.join(str(error).split())[:80]})") from error
    return numbers(values, str(path), ndim)


def read_csv(path):
    """Read a CSV file whose first line names its columns."""
    rows = _csv_rows(path, read_text(path), ",")
    if not rows:
        raise InputError(f"{path}: empty, expected a header and rows")
    return _table(path, [name.strip() for name in rows[0][1]], rows[1:])


def _csv_rows(path, text, delimiter):
    """Return (line, cells) of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as CSV at line {reader.line_num} ({error})") from error


def _table(path, names, rows, units=None, header="line"):
    """Return the `Table` of rows (line, cells); ``names`` and ``units`` of all columns; nameless ones are left out."""
    if not rows:
        raise InputError(f"{path}: no rows")
    lines = [f"line {number}" for number, _ in rows]
    ragged = [len(row) != len(names) for _, row in rows]
    refuse_rows(ragged, f"{path}: expected {len(names)} cells, received fewer or more", lines)
    keep = [i for i, name in enumerate(names) if name not in ("", SKIP, "Unnamed: 0")]
    cells = list(zip(*(row for _, row in rows)))
    columns = {names[i]: cells[i] for i in keep}
    if len(columns) < len(keep):
        raise InputError(f"{path}: column names repeat among {', '.join(names[i] for i in keep)}")
    return Table(Path(path), columns, lines, {names[i]: units[i] for i in keep if units and units[i]}, header)


def read_table(path, names=None):
    """Read the table of one spectrum: IPAC (``|`` header), ECSV, CSV, Markdown, or columns between blanks.

    Lines that start with '#' are comments. The first line, or else one of the comments, may name the columns, with
    units in brackets: ``wavelength [micron]``. The list ``names`` takes the place of the file's names. Columns without
    a name, and those called "-", are left out.
    """
    text = read_text(path, MAX_SPECTRUM_BYTES)
    if "\x00" in text:
        raise InputError(f"{path}: not a text file (it holds zero bytes)")
    lines, source = text.splitlines(), "line"
    content = [line.lstrip() for line in lines if line.strip() and line.lstrip()[0] not in "#\\"]
    if lines and lines[0].startswith("# %ECSV"):
        header, units, rows = _read_ecsv(path, lines)
    elif any(line.startswith("|") for line in content) and not all(line[0] in "|+" for line in content):
        header, units, rows = _read_ipac(path, lines)
    else:
        source, header, units, rows = _read_plain(path, lines)
    count = len(rows[0][1]) if rows else 0
    if rows and names is not None:
        if any(len(row) != len(names) for _, row in rows):
            raise InputError(f"{path}: {count} columns, expected a name for each ({SKIP} for none); received {names}")
        header, given = zip(*map(name_and_unit, names))
        units, source = [new or old for new, old in zip(given, units or [""] * count)], "line"
    if header is None:
        header, source = [f"column {i}" for i in range(1, count + 1)], ""
        header[0] = "" if _are_row_numbers(rows) else header[0]
        header[-1] = "" if all(row[-1] == "" for _, row in rows) else header[-1]  # every row ends with a comma
    return _table(path, header, rows, units, source)


def _are_row_numbers(rows):
    """Whether the first of several columns without names counts the rows: whole numbers, one by one."""
    first, n = [row[0] for _, row in rows], len(rows)
    return n > 2 and first in ([str(i) for i in range(n)], [str(i) for i in range(1, n + 1)])


def _read_ipac(path, lines):
    """Return names, units and (line, cells) of the rows of an IPAC table."""
    header = [(i, line) for i, line in enumerate(lines) if line.startswith("|")]
    edges = [i for i, character in enumerate(header[0][1].rstrip()) if character == "|"] if header else []
    if len(edges) < 2:
        raise InputError(f"{path}: IPAC header without columns")

    def cells(line, last=None):  # a value may lie under the bar on its left, and the last one may run over
        return [line[a:b].strip(" |") for a, b in zip(edges, [*edges[1:-1], last])]

    names = cells(header[0][1])
    units = cells(header[2][1]) if len(header) > 2 else [""] * len(names)
    first = header[-1][0] + 1
    rows = [
        (i, cells(line)) for i, line in enumerate(lines[first:], first + 1) if line.strip() and line[0] not in "\\|"
    ]
    return names, units, rows


def _read_ecsv(path, lines):
    """Return names, units and (line, cells) of the rows of an ECSV table."""
    header = "\n".join(re.sub(r"^# ?", "", line) for line in lines if line.startswith("#"))
    header = "\n".join(re.findall(r"^(?:datatype|delimiter):.*(?:\n[ -].*)*", header, re.MULTILINE))  # meta is not read
    try:
        if len(header) > MAX_HEADER_LETTERS:
            raise ValueError(f"{len(header)} letters, expected at most {MAX_HEADER_LETTERS}")
        head = yaml.load(header, PlainLoader)  # safe: it is a SafeLoader
        columns = {str(column["name"]): str(column.get("unit") or "") for column in head["datatype"]}
    except Exception as error:  # PyYAML raises more than its own errors
        expected = "expected a list of columns with their names in datatype"
        raise InputError(f"{path}: ECSV header is not readable ({expected}; {error})") from error
    delimiter = str(head.get("delimiter", " "))
    if delimiter not in (" ", ","):
        raise InputError(f"{path}: ECSV delimiter is {delimiter[:20]!r}, expected a blank or a comma")
    body = "\n".join("" if line.startswith("#") else line for line in lines)
    rows = _csv_rows(path, body, delimiter)
    if not rows or rows[0][1] != list(columns):
        raise InputError(f"{path}: ECSV column names do not match its header ({', '.join(columns)})")
    return list(columns), list(columns.values()), rows[1:]


def _read_plain(path, lines):
    """Return where names come from, names (or None), units and (line, cells) of the rows of any other table."""
    numbered = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip() and not _is_rule(line)]
    comments = [line.lstrip("#").strip() for _, line in numbered if line[0] == "#"]
    numbered = [(i, line) for i, line in numbered if line[0] != "#"]
    if not numbered:
        raise InputError(f"{path}: empty, expected a table of wavelength, width, depth and error")
    if re.match(r"\\begin|Title:|<", numbered[0][1]):
        raise InputError(f"{path}: LaTeX, HTML, XML or a machine-readable table of a journal; expected CSV or ECSV")
    delimiter = next((d for d in "|;,\t" if d in numbered[-1][1]), None)

    def split(line):
        if delimiter == "|":
            line = re.sub(r"^\||\|$", "", line)
        parts = line.split(delimiter) if delimiter else _words(line)
        parts = [part.strip().strip('"') for part in parts]
        return [DECIMAL_COMMA.sub(r"\1.\2", part) for part in parts] if delimiter == ";" else parts

    rows = [(line, split(text)) for line, text in numbered]
    source, texts = ("line", [numbered[0][1]]) if _is_header(rows[0][1]) else ("comment", reversed(comments))
    found = [words for text in texts for words in (split(text), re.split(r"\s{2,}", text)) if _is_header(words)]
    header = next((words for words in found if len(words) == len(rows[-1][1])), None)
    if source == "line":
        header, rows = header or found[0], rows[1:]
    if header is None:
        return "", None, None, rows
    if rows and all(len(row) == len(header) + 1 for _, row in rows):  # a column without a name: row names, or nothing
        if all(row[-1] == "" for _, row in rows):
            header = [*header, ""]
        elif _are_row_numbers(rows) or all(_number(row[0]) is None for _, row in rows):
            header = ["", *header]
        else:
            raise InputError(f"{path}: {len(header)} names for {len(header) + 1} columns ({', '.join(header)})")
    names, units = zip(*(name_and_unit(word) for word in header))
    if source == "line" and rows and len(rows[0][1]) == len(names) and _is_header(rows[0][1]):  # a line of units
        units, rows = [unit.strip("[]()") for unit in rows[0][1]], rows[1:]
    return source, names, units, rows


def _is_rule(line):
    """Whether a line only separates the header of a table from its rows: ``|---|---|``, ``==== ====``."""
    return bool(re.fullmatch(r"[\s|:+=-]*(---|===|:--|--:|:-:)[\s|:+=-]*", line))


def _is_header(cells):
    """Whether cells name columns; a row of numbers of which one is spoilt does not."""
    return all(cell == "" or _number(cell) is None for cell in cells) and any(cells)


def _words(line):
    return re.sub(r"\s+([\[(][^\])]*[\])](\s|$))", r"\1", line).split()  # "depth (ppm)" is one word


def name_and_unit(word):
    """Split the head of a column: "depth [ppm]" gives "depth" and "ppm"."""
    match = re.fullmatch(r"(.+?)\s*[\[(]([^\])]*)[\])]", word)
    return (match[1].strip(), match[2].strip()) if match else (word.strip(), "")
