"""What the terms of a planet file cost: processor time of a spectrum with each of them, and with all.

    python -m benchmarks.spectrum_cost [--quick]

The planets of data/observations/wasp39b_jwst.yaml on the bins of NIRSpec PRISM, with and without SO2, Na, K, haze,
patchy clouds and a temperature gradient: the same planets otherwise, one case after the other in every round. Without
patchy clouds nothing below the cloud deck is computed, so ``clear`` is beside them: the plain planets without a deck.
Writes benchmarks/results/spectrum_cost.csv: the quickest round, milliseconds a spectrum, and the median over the rounds
of the ratio to ``plain`` and to ``clear``.
"""

import dataclasses
import os
import time
from datetime import date

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.measuring import RESULTS, ROOT, benchmark_parser, processor, show, write
from simulation.design import survey_design
from simulation.survey import forward_model

OBSERVATION = ROOT / "data/observations/wasp39b_prism.ecsv"
PLANET = ROOT / "data/observations/wasp39b_jwst.yaml"
TERMS = {
    "SO2": ("SO2",),
    "Na": ("Na",),
    "K": ("K",),
    "haze": ("haze_factor", "haze_slope"),
    "patchy clouds": ("cloud_fraction",),
    "temperature gradient": ("T_gradient",),
}


def case(design, terms, left_out=()):
    """Return the design with some of `TERMS` alone, without the AMPs `left_out`."""
    absent = {name for term, names in TERMS.items() if term not in terms for name in names}.union(left_out)
    priors = {name: row for name, row in design.priors.items() if name not in absent}
    return dataclasses.replace(design, priors=priors, reference=())


def main():
    parser = benchmark_parser("spectrum_cost", __doc__)
    parser.add_argument("--quick", action="store_true", help="few spectra, nothing written")
    n, rounds = (5, 2) if parser.parse_args().quick else (100, 15)
    design = survey_design(OBSERVATION, PLANET)
    designs = {"plain": case(design, ()), "clear": case(design, (), ["Pclouds"])}
    designs |= {term: case(design, (term,)) for term in TERMS} | {"all": case(design, TERMS)}
    work = {name: (forward_model(one), one.draw_amps(n, seed=0)) for name, one in designs.items()}
    seconds = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, (model, amps) in work.items():
            start = time.process_time()
            model.depth(amps)
            seconds[name].append((time.process_time() - start) / n)
    seconds = {name: np.array(values[1:]) for name, values in seconds.items()}  # the first round warms up
    rows = [
        {
            "spectrum": name,
            "milliseconds": f"{1e3 * values.min():.2f}",
            **{f"over {base}": f"{np.median(values / seconds[base]):.2f}" for base in ("plain", "clear")},
        }
        for name, values in seconds.items()
    ]
    show(rows)
    if n > 5:
        write(rows, RESULTS / "spectrum_cost.csv", f"{date.today()}, {processor()}, {n} planets, {rounds} rounds")


if __name__ == "__main__":
    main()
