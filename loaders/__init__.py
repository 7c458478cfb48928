"""Read the data sets people have into one in-memory form, `preprocessing.Dataset`.

Each layout is one function ``load(path) -> Survey`` and one row of ``FORMATS``; what all layouts share (units,
order of the wavelengths, choice of the targets, retrieval space, checks) is done once, in ``survey.finish``.
The layouts are described in data/FORMATS.md, and how to add one in CONTRIBUTING.md.
"""

import logging
from pathlib import Path

from loaders.checks import check_dataset
from loaders.formats import pick_format
from loaders.survey import LayoutError, finish
from runio.errors import one_line

logger = logging.getLogger(__name__)


def load_dataset(path, format="auto", targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Read a data set of any known layout.

    Parameters
    ----------
    path : path-like
        A file or a folder, as its layout has it.
    format : str
        "auto", or the name of one of ``FORMATS``.
    targets : sequence of str or None
        Keys of the AMPs to learn, in the order wanted; None takes those of the data set.
    auxiliary : sequence of str
        Names of further inputs, e.g. ``["star_radius"]``.
    depth_unit : {"auto", "fraction", "percent", "ppm"}
        Unit of the depths and errors; "auto" believes the layout, and guesses only where it states none.
    width : {"auto", "full", "half"}
        What a stored bin width is; "auto" believes the layout.

    Returns
    -------
    preprocessing.Dataset
        Checked; depths as fractions, wavelengths ascending in micron, targets in retrieval space.

    Raises
    ------
    ValueError
        With one line that names the file, what was expected, what was found and how many rows are affected.
    """
    path = Path(path)
    layout = pick_format(path, format)
    try:
        survey = layout.load(path)
        data = finish(survey, targets, auxiliary, depth_unit, width)
        check_dataset(data)
    except ValueError as error:
        raise ValueError(_one_line(path, error)) from error
    except Exception as error:  # whatever a broken file provokes in h5py, csv or json, the user gets one line
        where = f"{path}: not readable as {layout.name} ({layout.description})"
        raise ValueError(one_line(f"{where}: {_one_line(path, error)}")) from error
    logger.info(
        "%s: %d spectra of %d bins, targets %s (%s)",
        path,
        *data.spectra.shape,
        ", ".join(data.amp_names),
        layout.name,
    )
    return data


def _one_line(path, error):
    text = one_line(error) or type(error).__name__
    return text if isinstance(error, LayoutError) or one_line(path) in text else one_line(f"{path}: {text}")
