"""How far does the posterior mean of each AMP move when one bin is left out? From posterior draws, planet by planet.

    python -m studies.leave_one_out            # 150 planets, 3 to 4 s of a core each
    python -m studies.leave_one_out --quick    # 2 planets, nothing written

A repeated command goes on where the stored file ends, and starts anew if the file belongs to another data set.

Leaving out bin b weights each draw by 1 / (likelihood of the bin), without new sampling. A few draws then carry large
weights, which are smoothed by a generalised Pareto distribution (PSIS; Vehtari et al. 2024, JMLR 25, 72), as Welbanks
et al. (2023, arXiv:2212.03872) do for exoplanets to find the bins that a model predicts badly. Here the same weights
give the posterior mean without the bin. The package ArviZ does the smoothing. Where its Pareto k exceeds 0.7, the
weights cannot be trusted and the posterior without the bin is sampled again.

The draws are not those of the optimal map, and are used in two halves, each of one half of the walkers: the square of a
noisy shift is biased, the product of two independent measurements of it is not.

Layout of studies/results/leave_one_out.h5, n planets, those of sampler/ in data/information.h5:

    loo/{index, rows}        (n,)           place among the test rows; row of the data set
    loo/mean                 (n, 2, 9)      of the posterior with all bins, from each half of the draws
    loo/deviation            (n, 9)         of that posterior
    loo/shift                (n, 2, 9, 52)  mean without the bin minus mean with it, in ``deviation``
    loo/pareto_k             (n, 2, 52)     of the weights; where one is above 0.7, the shift is from new samples
    loo/leverage             (n, 52)        variance of the modelled depth over the posterior / error^2
    attribute data_sha256                   `Dataset.sha256` of the data set
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread per process

import numpy as np

from common.files import written_whole
from common.processes import usable_cores
from studies.command import RESULTS, study_parser
from studies.emulator import load_rows
from studies.information import pick_planets
from studies.posterior import observation, sample, sample_all, start_worker
from studies.samplers import WALKERS

STORED = RESULTS / "leave_one_out.h5"
LARGEST_K = 0.7  # Vehtari et al. 2024
KEYS = "mean", "deviation", "shift", "pareto_k", "leverage"


def smoothed_weights(log_weights):
    """Pareto-smoothed importance weights (..., n), with sum 1, and the Pareto k (...) of their tail."""
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise ImportError("this study needs arviz-stats: pip install -r requirements-science.txt") from error
    smoothed, pareto_k = array_stats.psislw(-np.asarray(log_weights))  # takes log likelihoods, as for leaving one out
    return np.exp(smoothed), pareto_k


def without_each_bin(draws, depth, spectrum, error):
    """Shift of the posterior mean without each bin, (n_amps, n_bins), and Pareto k (n_bins,), from draws (n,
    n_amps).
    """
    log_weights = 0.5 * (((depth - spectrum) / error) ** 2).T  # (n_bins, n): 1 / likelihood of the bin
    weights, pareto_k = smoothed_weights(log_weights)
    return (weights @ (draws - draws.mean(axis=0))).T, pareto_k


def halves(draws):
    """Draws (n, n_amps) of `samplers.walk` in two parts, (2, n / 2, n_amps), each of one half of the walkers."""
    return draws.reshape(-1, 2, WALKERS // 2, draws.shape[1]).swapaxes(0, 1).reshape(2, -1, draws.shape[1])


def _leave_out(place):
    depth, spectrum, error = observation(place)
    draws = halves(sample(place, 0).draws)
    modelled = depth(draws.reshape(-1, draws.shape[2])).reshape(2, -1, len(spectrum))
    weighted = [without_each_bin(*half, spectrum, error) for half in zip(draws, modelled)]
    shift, pareto_k = map(np.array, zip(*weighted))  # (2, n_amps, n_bins), (2, n_bins)
    mean, deviation = draws.mean(axis=1), draws.std(axis=(0, 1))
    for b in np.flatnonzero((pareto_k > LARGEST_K).any(axis=0)):
        shift[:, :, b] = halves(sample(place, 1, int(b), left_out=b).draws).mean(axis=1) - mean
    leverage = modelled.var(axis=(0, 1)) / error**2
    packed = (shift / deviation[:, None]).astype(np.float16)
    return mean, deviation, packed, pareto_k.astype(np.float16), leverage


def load_removals(path=STORED):
    """Read what was stored: dict of name to array, see the top of this module, and the digest of the data set."""
    import h5py

    with h5py.File(path) as file:
        return {key: values[()] for key, values in file["loo"].items()}, file.attrs.get("data_sha256")


def start_anew(path, digest):
    """Replace a stored file of another data set by an empty one."""
    import h5py

    if path.is_file():
        with h5py.File(path) as file:
            if file.attrs.get("data_sha256") == digest:
                return
    with written_whole(path) as part, h5py.File(part, "w") as file:
        file.attrs["data_sha256"] = digest


def summary(found, names):
    """Lines of text: Pareto k, pairs that were sampled again, noise of the sampling, and how far the mean moves."""
    k = found["pareto_k"].astype(float)
    anew = (k > LARGEST_K).any(axis=1)  # (n, n_bins)
    shift = found["shift"].astype(float)
    between = np.abs(found["mean"][:, 0] - found["mean"][:, 1]) / found["deviation"]
    lines = [f"{len(k)} planets; Pareto k: median {np.median(k):.2f}, above 0.5 {100 * np.mean(k > 0.5):.1f} %, "]
    lines[0] += f"above {LARGEST_K} {100 * np.mean(k > LARGEST_K):.1f} %; sampled anew: {anew.sum()} of {anew.size} "
    lines[0] += f"pairs of planet and bin ({100 * anew.mean():.1f} %)"
    lines.append(f"leverage of a bin: mean {found['leverage'].mean():.2f}, largest {found['leverage'].max():.2f}")
    for a, name in enumerate(names):
        square, product = (shift[:, 0, a] ** 2).mean(), (shift[:, 0, a] * shift[:, 1, a]).mean()
        lines.append(
            f"{name:8s} rms shift of a bin {np.sqrt(product):.3f} posterior deviations; square / product of two "
            f"halves {square / product:.2f}; the two means differ by {np.median(between[:, a]):.3f} (median)"
        )
    return lines


def main():
    parser = study_parser("leave_one_out", __doc__)
    parser.add_argument("--planets", type=int, default=150, help="test planets (default %(default)s)")
    parser.add_argument("--processes", type=int, default=usable_cores(), help="default: the cores, %(default)s")
    parser.add_argument("--out", type=Path, default=STORED, help="default: studies/results/leave_one_out.h5")
    parser.add_argument("--quick", action="store_true", help="2 planets, nothing written")
    arguments = parser.parse_args()
    try:
        import arviz_stats  # noqa: F401
    except ImportError:
        parser.exit(2, f"{parser.prog}: needs arviz-stats: pip install -r requirements-science.txt\n")
    data, _, test = load_rows()
    index = pick_planets(len(test), 2 if arguments.quick else arguments.planets)
    groups = {"loo": (_leave_out, KEYS)}
    if not arguments.quick:
        start_anew(arguments.out, data.sha256())
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), start_worker) as pool:
        found = sample_all(pool, "loo", index, test, arguments.out, not arguments.quick, groups)
    print("\n".join(summary(found, data.amp_names)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
