"""Tables of the studies as pandas data frames: averaged over seeds, written, read and put into pages."""

from pathlib import Path

from common.files import written_whole


def _pandas():
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "the studies need pandas for their tables: pip install -r requirements-science.txt"
        ) from error
    return pandas


def data_frame(rows, columns=None):
    """Return a data frame of rows: a list of dict from column to value, or of lists with the names of the columns."""
    return _pandas().DataFrame(rows, columns=columns)


def read_csv(path):
    """Return a stored table, with numbers as numbers."""
    return _pandas().read_csv(path)


def write_csv(path, table, number_format=None):
    """Write a data frame as CSV, whole or not at all, into a folder that is made if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        table.to_csv(part, index=False, float_format=number_format)


def replaced_rows(path, table, keys):
    """Return a stored CSV, cells as text, with the rows of ``table`` in place of those with the same values of
    ``keys``.
    """
    if not Path(path).is_file():
        return table
    stored = _pandas().read_csv(path, dtype=str, keep_default_na=False)
    new = set(map(tuple, table[keys].to_numpy()))
    stays = [tuple(row) not in new for row in stored.reindex(columns=keys, fill_value="").to_numpy()]
    return _pandas().concat([stored[stays], table], ignore_index=True) if len(table) else stored


def mean_over_seeds(table, value, by):
    """Mean of a column over the rows of a seed, then over seeds: ``mean`` and its standard error ``error``, by
    group.
    """
    by = [by] if isinstance(by, str) else list(by)
    each = table.groupby([*by, "seed"], sort=False)[value].mean()
    return each.groupby(level=by, sort=False).agg(mean="mean", error="sem")


def with_error(averaged, digits):
    """Return the text "mean ± error" of each row of `mean_over_seeds`, as a pandas.Series."""
    return averaged.apply(lambda row: f"{row['mean']:.{digits}f} ± {row['error']:.{digits}f}", axis=1)


def as_markdown(table):
    """Return a data frame of texts as lines of Markdown."""
    heading, *lines = (f"| {' | '.join(cells)} |" for cells in [table.columns, *table.to_numpy()])
    return [heading, "|" + "---|" * len(table.columns), *lines]


def write_page(path, title, lines):
    """Write a Markdown file of a title and the lines of its tables, whole or not at all."""
    with written_whole(path) as part:
        part.write_text("\n".join([f"# {title}", "", *lines, ""]), encoding="utf-8")


def put_between_marks(path, marks, text):
    """Replace what stands between two lines of a Markdown file; ValueError where they are missing."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not end:
        raise ValueError(f"{path}: expected the lines {marks[0]} and {marks[1]} around the table, received none")
    with written_whole(path) as part:
        part.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
