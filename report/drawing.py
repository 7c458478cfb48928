"""Figures become files: laid out once, as PNG and PDF, by several processes at a time."""

import io
import logging

from common.processes import process_count, process_pool
from report.style import DPI, our_style, small_fonts

MEMORY = 3e8  # bytes of a process that draws


def all_drawn(figures, processes):
    """Return `_drawn` of each figure; this process draws from the end of the list what the others have not begun."""
    n = process_count(processes, len(figures) // 3, MEMORY)  # fewer than three figures are no work for a process
    if n < 2:
        return map(_drawn, figures)
    with process_pool(n - 1, 1) as pool:
        tasks = [pool.submit(_drawn, figure) for figure in figures]
        here = {i: _drawn(figures[i]) for i in reversed(range(len(tasks))) if tasks[i].cancel()}
        return [here[i] if i in here else task.result() for i, task in enumerate(tasks)]


def _drawn(figure):
    """Return a figure as PNG and PDF, bytes each; without a date, so that the same run gives the same files."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every font table that it cuts
    with our_style(), small_fonts():
        png, file = png_of(figure, DPI), io.BytesIO()
        figure.savefig(file, format="pdf", dpi=200, metadata={"CreationDate": None})
    return png, file.getvalue()


def png_of(figure, dpi):
    """Lay a figure out once and for all, and return it as PNG; with a layout engine every file would be drawn twice."""
    engine, file = figure.get_layout_engine(), io.BytesIO()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
