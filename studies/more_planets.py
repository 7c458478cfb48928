"""Add planets to the shipped data set for training only: how much nearer do networks come to the limit?

    mkdir -p runs
    python -m simulation --n 120000 --seed 2 --out runs/more.h5     # twenty minutes of processor time
    python -m studies.more_planets runs/more.h5 --out runs/150000.h5
    python runfile.py --config configs/more_planets.yaml --output runs/more_planets

The test spectra, their order and their noise stay those of the shipped file with seed 0, so that `limit.py` can score
the run. The file also holds the auxiliary input log_error, log10 of the median error of each spectrum: a retrieval
knows the error, while a network that reads depths alone has to infer it from their scatter.
"""

from pathlib import Path

import h5py
import numpy as np

from common.files import written_whole
from studies.command import ROOT, study_parser
from studies.emulator import load_rows

SHIPPED = ROOT / "data/ariel_spectra.h5"


def merge(more, out):
    """Write the shipped data set, the spectra of the file ``more`` and the shipped test rows to the file ``out``."""
    *_, test = load_rows()
    with h5py.File(SHIPPED) as first, h5py.File(more) as second, written_whole(out) as part:
        same_grid = np.array_equal(first["wavelength"], second["wavelength"])
        if not same_grid or list(first["amps"].attrs["names"]) != list(second["amps"].attrs["names"]):
            raise ValueError(f"{more}: expected the AMPs and wavelengths of {SHIPPED.name}, received others")
        with h5py.File(part, "w") as file:
            for name in first:
                first.copy(name, file)
            for name in ("spectra", "errors", "amps"):
                attributes = dict(file[name].attrs)
                del file[name]
                file[name] = np.concatenate([first[name], second[name]])
                file[name].attrs.update(attributes)
            file["test_rows"] = test
            file["auxiliary"] = np.log10(np.median(file["errors"], axis=1, keepdims=True))
            file["auxiliary"].attrs["names"] = ["log_error"]
            file.attrs["title"] = f"{first.attrs['title']}; from row {len(first['amps'])} on: {second.attrs['command']}"


def main():
    """Run the command line."""
    parser = study_parser("more_planets", __doc__)
    parser.add_argument("more", type=Path, help="file written by simulation/survey.py with another seed than 1")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        merge(arguments.more, arguments.out)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
