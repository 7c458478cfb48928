"""What the spectra say about each AMP, and where: Fisher map, optimal map and the Laplace limit of the shipped data.

    python -m studies.information --planets 400    # a minute, writes data/information.h5
    python -m studies.posterior                    # adds what a sampler finds

For every planet the forward model gives the Jacobian J[k, b] = d depth_b / d AMP_k by central differences. With the
errors S of the bins and the prior covariance P the posterior is, where it is locally Gaussian,

    covariance C = (J S^-1 J^T + P^-1)^-1,    d(posterior mean) / d(depth) = C J S^-1.

The mean of diag(C) over planets is the squared error that no estimator can beat (the Laplace limit); the mean of
(d(posterior mean) / d(depth) x error)^2 is the sensitivity map of the best estimator (the optimal map). The Fisher map,
the mean of (J / error)^2, is not: it does not know that AMPs are degenerate with one another.

Layout of data/information.h5, n planets, 9 AMPs, 52 bins, AMPs in retrieval space:

    rows, index                    (n,)        row of the data set; place among the test rows of the split
    jacobian                       (n, 9, 52)  d depth / d AMP
    laplace_variance               (n, 9)      diag(C)
    fisher_map, optimal_map        (9, 52)     AMP unit^-2; AMP unit^2
    optimal_map_per_planet         (n, 9, 52)  AMP unit^2
    wavelength                     (52,)       micron
    attributes: amp_names, data_sha256 (`Dataset.sha256` of the data set), seed and test_fraction of the split, steps,
        prior_variance, step_check_*
    sampler/, true/                written by posterior.py, described there
"""

import os
import sys
from pathlib import Path

import numpy as np

from common.files import written_whole
from constants import Stream, stream
from simulation.design import PRIORS
from studies.command import study_parser
from studies.emulator import SPLIT_SEED, TEST_FRACTION, load_rows, prior_limits

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "data" / "information.h5"
# Steps of the central differences: VMR 0.05 dex, mass 0.01 dex, radius 1e5 m, temperature 5 K; clouds 0.05 dex,
# half a layer of the atmosphere (the depth is piecewise linear in log pressure over one).
STEPS = np.array([0.05, 0.05, 0.05, 0.05, 0.05, 0.01, 1e5, 5.0, 0.05])


def prior_variance():
    """Variance of the uniform priors in retrieval space, (9,)."""
    low, high = prior_limits()
    return (high - low) ** 2 / 12


def jacobian(depth, amps, steps=STEPS):
    """Return d depth / d AMP by central differences.

    Parameters
    ----------
    depth : callable
        (n, n_amps) to (n, n_bins).
    amps : ndarray (n_amps,)
    steps : ndarray (n_amps,)

    Returns
    -------
    ndarray (n_amps, n_bins)
    """
    moves = np.diag(steps)
    both = depth(np.concatenate([amps + moves, amps - moves]))  # (2 n_amps, n_bins)
    return (both[: len(amps)] - both[len(amps) :]) / (2 * np.asarray(steps)[:, None])


def laplace(jacobian, error, variance):
    """Posterior covariance and derivative of the posterior mean of a locally linear model with Gaussian prior.

    Parameters
    ----------
    jacobian : ndarray (..., n_amps, n_bins)
    error : ndarray (..., n_bins)
        1-sigma errors.
    variance : ndarray (n_amps,)
        Prior variances.

    Returns
    -------
    covariance : ndarray (..., n_amps, n_amps)
    gain : ndarray (..., n_amps, n_bins)
        d(posterior mean) / d(depth).
    """
    unit = np.sqrt(variance)  # AMPs in prior standard deviations: metres and dex do not mix well
    whitened = unit[:, None] * jacobian / error[..., None, :]  # (..., n_amps, n_bins)
    covariance = np.linalg.inv(whitened @ np.swapaxes(whitened, -1, -2) + np.eye(len(unit)))
    gain = unit[:, None] * (covariance @ whitened) / error[..., None, :]
    return unit[:, None] * covariance * unit, gain


def optimal_map(gain, error):
    """Return the sensitivity of the best estimator, (gain x error)^2, (..., n_amps, n_bins), AMP unit squared."""
    return (gain * error[..., None, :]) ** 2


def fisher_map(jacobian, error):
    """Return the Fisher information of each bin about each AMP alone, (J / error)^2, (..., n_amps, n_bins)."""
    return (jacobian / error[..., None, :]) ** 2


def pick_planets(n_test, n):
    """Places (n,) of the planets among the test rows: always the beginning of the same random order."""
    if not 1 <= n <= n_test:
        raise ValueError(f"planets: expected 1 to {n_test}, received {n}")
    return np.random.default_rng(stream(SPLIT_SEED, Stream.STUDY_PLANETS)).permutation(n_test)[:n]


def jacobians(amps, steps, what="Jacobians"):
    """Jacobians of the true forward model, (n, n_amps, n_bins), with a progress bar."""
    from tqdm import tqdm

    from simulation.forward_model import ForwardModel

    model = ForwardModel()
    return np.array([jacobian(model.depth, row, steps) for row in tqdm(amps, unit="planet", desc=what, disable=None)])


def step_check(amps, error, reference):
    """Relative change of the Laplace variance and the optimal map with steps half and twice as large.

    Returns
    -------
    dict
        step_check_variance and step_check_map, each (2, n_amps): half and double steps. Median over planets of
        |change| / value for the variance, summed |change| over summed map for the map.
    """
    variance, maps = [], []
    covariance, gain = laplace(reference, error, prior_variance())
    before, shown = np.diagonal(covariance, axis1=1, axis2=2), optimal_map(gain, error).mean(axis=0)
    for factor in (0.5, 2.0):
        other = jacobians(amps, factor * STEPS, f"steps x {factor:g}")
        covariance, gain = laplace(other, error, prior_variance())
        after = np.diagonal(covariance, axis1=1, axis2=2)
        variance.append(np.median(np.abs(after / before - 1), axis=0))
        maps.append(np.abs(optimal_map(gain, error).mean(axis=0) - shown).sum(axis=1) / shown.sum(axis=1))
    return {"step_check_variance": np.array(variance), "step_check_map": np.array(maps)}


def explain(path=STORED):
    """Say what makes the optimal map differ from the Fisher map, from the stored Jacobians, as lines of text.

    The share of each molecule's optimal map inside its bands, with other AMPs taken as known (their prior variance
    nothing), and the pairs of AMPs that are most degenerate.
    """
    import h5py

    from common.metrics import band_share
    from constants import BANDS

    with h5py.File(path) as file:
        slopes, wavelength, rows = file["jacobian"][()].astype(float), file["wavelength"][()], file["rows"][()]
    error = load_rows()[0].errors[rows].astype(float)
    names = list(PRIORS)
    molecules = [name for name in names if name in BANDS]
    planet = [names.index(name) for name in ("Mp", "Rp", "Tp", "Pclouds")]
    cases = {"nothing known": [], "radius known": [names.index("Rp")], "clouds known": [names.index("Pclouds")]}
    cases |= {"planet and clouds known": planet, "other molecules known": range(len(molecules))}
    lines = ["share of the optimal map in the molecule's bands / in the bluest bin"]
    lines.append(f"{'':24s} " + " ".join(f"{name:>11s}" for name in molecules))
    for case, known in cases.items():
        cells = []
        for k, name in enumerate(molecules):
            variance = prior_variance()
            variance[[i for i in known if i != k]] *= 1e-12
            values = optimal_map(laplace(slopes, error, variance)[1], error).mean(axis=0)[k]
            inside = band_share(values, wavelength, BANDS[name])
            cells.append(f"{100 * inside:4.0f} / {100 * values[0] / values.sum():2.0f} %")
        lines.append(f"{case:24s} " + " ".join(f"{cell:>11s}" for cell in cells))
    covariance = laplace(slopes, error, prior_variance())[0]
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    size = np.median(np.abs(covariance / deviation[:, :, None] / deviation[:, None, :]), axis=0)
    pairs = sorted(((size[i, k], names[i], names[k]) for i in range(len(names)) for k in range(i)), reverse=True)
    lines.append("median |posterior correlation|: " + ", ".join(f"{b}-{a} {v:.2f}" for v, a, b in pairs[:8]))
    return lines


def write(path, arrays, attributes, kept=()):
    """Write the file whole; groups called ``kept`` are carried over from the file that is there if of the same data."""
    import h5py

    with written_whole(path) as part, h5py.File(part, "w") as file:
        for name, values in arrays.items():
            values = np.asarray(values)
            small = values.ndim == 3  # the large ones
            file.create_dataset(
                name,
                data=values.astype(np.float32) if small else values,
                **({"compression": "gzip", "shuffle": True} if small else {}),
                track_times=False,
            )
        file.attrs.update(attributes)
        if Path(path).is_file():
            with h5py.File(path) as old:
                same = old.attrs.get("data_sha256") == attributes.get("data_sha256")
                for name in kept if same else ():
                    if name in old:
                        old.copy(name, file)


def main():
    parser = study_parser("information", __doc__)
    parser.add_argument("--planets", type=int, default=300, help="test planets (default %(default)s)")
    parser.add_argument("--checked", type=int, default=30, help="of these, with other steps (default %(default)s)")
    parser.add_argument("--out", type=Path, default=STORED, help="default: data/information.h5")
    parser.add_argument("--quick", action="store_true", help="5 planets, nothing written")
    parser.add_argument("--explain", action="store_true", help="only say what the stored file shows about degeneracies")
    arguments = parser.parse_args()
    if arguments.explain:
        print("\n".join(explain(arguments.out)))
        return 0
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    planets, checked = (5, 2) if arguments.quick else (arguments.planets, min(arguments.checked, arguments.planets))
    data, _, test = load_rows()
    index = pick_planets(len(test), planets)
    rows = test[index]
    amps, error = data.amps[rows], data.errors[rows].astype(float)

    slopes = jacobians(amps, STEPS)
    covariance, gain = laplace(slopes, error, prior_variance())
    maps = optimal_map(gain, error)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    check = step_check(amps[:checked], error[:checked], slopes[:checked])
    print(f"{'':8s} {'limit (rms)':>12s} {'of prior':>9s} {'steps /2':>9s} {'x 2':>7s}   of variance; of map")
    for k, name in enumerate(PRIORS):
        limit, changes = np.sqrt(variance[:, k].mean()), check["step_check_variance"][:, k]
        print(
            f"{name:8s} {limit:12.4g} {limit / np.sqrt(prior_variance()[k]):9.3f} {changes[0]:9.4f} {changes[1]:7.4f}"
            f"   {check['step_check_map'][0, k]:.4f} {check['step_check_map'][1, k]:.4f}"
        )
    if not arguments.quick:
        arrays = {
            "rows": rows,
            "index": index,
            "jacobian": slopes,
            "laplace_variance": variance,
            "fisher_map": fisher_map(slopes, error).mean(axis=0),
            "optimal_map": maps.mean(axis=0),
            "optimal_map_per_planet": maps,
            "wavelength": data.wavelength,
        }
        attributes = {
            "amp_names": list(data.amp_names),
            "data_sha256": data.sha256(),
            "seed": SPLIT_SEED,
            "test_fraction": TEST_FRACTION,
            "steps": STEPS,
            "prior_variance": prior_variance(),
            **check,
        }
        write(arguments.out, arrays, attributes, kept=("sampler", "true"))
        print(f"{arguments.out}: {len(rows)} planets, {arguments.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
