"""Should a prediction be believed? How good it is, where the network looks, and the best possible estimator beside it.

No estimator has a smaller mean squared error over the prior than the mean variance of the posterior, and the posterior
mean reaches it. ``information.h5`` beside a data set holds sampled posteriors of some of its planets, written by
`studies.information` and `studies.posterior`, and the sensitivity map of the posterior mean.

``RULES`` holds every threshold of the verdicts. `studies.verdicts` tests them on networks whose quality is known;
docs/method.md shows how often they are right.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import opened_hdf5
from common.metrics import band_share, scores, shares, spearman
from constants import AMP, BANDS
from loaders import load_dataset
from preprocessing import take
from report.diagnostics import BIN_WIDTH_DEX, CREDIBILITY_EPS, credibility, credible_from
from report.style import NBSP, bin_ends, have_gaps, minus, percent, score, with_error

RESAMPLES = 1000  # of the bootstrap
SETTINGS = ("format", "targets", "auxiliary", "depth_unit", "width")  # of config.yaml, section data: how it is read
HALF = 0.5  # of a map, held by the wavelengths that a verdict names
MAX_RANGES = 2  # wavelength ranges that a sentence names
MAX_REASONS = 2  # reasons that a conclusion names
SIGMA = 3  # standard errors by which a share must differ from the best estimator's
LEAST_SHARE = 0.02  # and the least difference worth naming
BLUE = 0.8  # micron: bins below constrain the Rayleigh slope and the cloud-free radius
WHY_BLUE = (
    "The bluest bins (0.55 µm) matter for every abundance: their depth and the slope of Rayleigh scattering anchor the"
    " planet's radius and pressure, and without this anchor the depth of a molecular band does not give an abundance."
)


class BestEstimator(NamedTuple):
    """The posterior mean of a data set, known from sampled posteriors of some of its planets, in retrieval space."""

    amp_names: tuple
    seed: int  # of the test noise that the posteriors were sampled for
    rows: np.ndarray  # (n,) of the data set
    mean: np.ndarray  # (n, n_amps) of each posterior, as is the variance
    variance: np.ndarray
    optimal_map: np.ndarray  # (n_amps, n_bins) mean squared change of the mean when a bin is redrawn within its error
    share_error: np.ndarray  # standard error of each bin's share in it, from the spread over the planets

    @classmethod
    def load(cls, path):
        """Read ``information.h5``; KeyError where it holds no sampled posteriors."""
        with opened_hdf5(path) as file:
            sampler = file["sampler"]
            maps = sampler["optimal_map"][()].astype(float)  # (n, n_amps, n_bins)
            optimal = maps.mean(axis=0)
            total = optimal.sum(axis=1, keepdims=True)
            influence = (maps - maps.sum(axis=2, keepdims=True) * optimal / total) / total
            return cls(
                tuple(str(name) for name in file.attrs["amp_names"]),
                int(file.attrs["seed"]),
                *(sampler[name][()] for name in ("rows", "mean", "variance")),
                optimal,
                influence.std(axis=0, ddof=1) / np.sqrt(len(maps)),
            )

    def error_ratio(self, run, y_pred):
        """Squared error of predictions (n_test, n_amps) over the limit, and its standard error, (n_amps,) each.

        On the planets and the noise that the posteriors were sampled for, (prediction - posterior mean)^2 + posterior
        variance takes the place of the squared error: it has the same expectation and does not depend on the true AMPs.
        """
        place = np.searchsorted(run.test_rows, self.rows)
        same = run.seed == self.seed and np.array_equal(run.test_rows[np.minimum(place, len(y_pred) - 1)], self.rows)
        if same:
            return ratio_with_error((y_pred[place] - self.mean) ** 2 + self.variance, self.variance)
        squared = (y_pred - run.y_test) ** 2
        ratio = squared.mean(axis=0) / self.variance.mean(axis=0)
        parts = [values.std(axis=0, ddof=1) / np.sqrt(len(values)) / values.mean(axis=0)
                 for values in (squared, self.variance)]  # fmt: skip
        return ratio, ratio * np.hypot(*parts)


def best_estimator_of(run):
    """Return the `BestEstimator` of a run's data set; None where there is none, or it belongs to another data set.

    ``information.h5`` beside the data set belongs to the run if it holds the digest of the data set that the run
    recorded, or if the run used the first rows of that data set (``--size``).
    """
    path = Path(str(run.config.get("data", {}).get("path", ""))).parent / "information.h5"
    try:
        with opened_hdf5(path) as file:
            whole = file.attrs.get("data_sha256")
        used = run.config.get("data_sha256")
        known = None not in (whole, used) and (whole == used or _is_part(run.config, whole, used))
        best = BestEstimator.load(path) if known else None
    except (OSError, KeyError, ValueError):
        return None
    return best if best and best.amp_names == run.amp_names else None


def _is_part(config, whole, used):
    """Say whether the first ``data.size`` rows of the data set with the digest ``whole`` have the digest ``used``."""
    settings = {key: config["data"][key] for key in SETTINGS if key in config["data"]}
    size = config["data"].get("size", -1)
    if size == -1:
        return False
    logging.disable(logging.INFO)  # the run has already described its data set
    try:
        data = load_dataset(config["data"]["path"], **settings)
    finally:
        logging.disable(logging.NOTSET)
    return data.sha256() == whole and take(data, size).sha256() == used


def ratio_with_error(above, below, resamples=RESAMPLES, seed=0):
    """Ratio of two means over the same spectra, (n, n_amps) each, with its bootstrap error, (n_amps,) each."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), resamples)  # (resamples, n)
    return above.mean(axis=0) / below.mean(axis=0), ((weights @ above) / (weights @ below)).std(axis=0, ddof=1)


class Rule(NamedTuple):
    """A threshold for care and one for distrust; ``below`` says on which side of them a value is bad."""

    quantity: str
    below: bool
    care: float
    distrust: float
    meaning: str
    reason: str


RULES = (
    Rule("r2", True, 0.7, 0.3, "R² on the test spectra", "only {:.0%} of the variance is recovered"),
    Rule("error_ratio", False, 1.4, 2.5, "squared error / limit", "its squared error is {:.2f} times the limit"),
    Rule(
        "below_limit", False, 3.0, 5.0, "standard errors by which the squared error is below the limit",
        "its squared error is {:.0f} standard errors below the limit, so something in the data gives the AMP away",
    ),
    Rule("agreement", True, 0.8, 0.55, "agreement with the best estimator", "its agreement is only {:.2f}"),
    Rule(
        "misplaced", False, 0.15, 0.3, "share of the map in other bins than the best estimator's",
        "{:.0%} of its sensitivity is in other bins than the best estimator's",
    ),
    Rule(
        "reaction", False, 1.3, 2.0, "sum of the map / sum of the best estimator's",
        "noise changes it {:#.3g} times as much (mean square) as the best estimator",
    ),
    Rule(
        "enrichment", True, 1.35, 1.0, "share of the map in the molecule's bands / share of the bins there; used where"
        " the best estimator is not known", "a bin in its bands has only {:.2f} times the share of an average bin",
    ),
)  # fmt: skip
TRUST, CARE, DISTRUST = range(3)
WORDS = ("Trust it", "Trust it with care", "Do not trust it")
UNKNOWN = "the best estimator is not known"


class Verdict(NamedTuple):
    """What a report says of one AMP; a quantity that is not known is None."""

    amp: AMP
    r2: float
    ranges: list  # wavelengths (low, high, share), micron, that together hold half of the map, the largest share first
    in_bands: float | None = None  # share of the map in the molecule's known bands
    enrichment: float | None = None  # the same over the share of the bins there
    error_ratio: float | None = None  # squared error over the limit
    error_ratio_error: float | None = None
    unknowable: float | None = None  # the limit over the variance of the AMP
    agreement: float | None = None  # rank correlation of the map with the optimal one
    reaction: float | None = None  # sum of the map over that of the optimal one
    misplaced: float | None = None  # share of the map in other bins than the optimal one
    best_in_bands: float | None = None
    differing: tuple = ()  # bins (low, high, share, best) whose shares differ beyond the errors, the largest first
    credible_from: float | None = None  # predicted abundance of a molecule from which on it is credible (`diagnostics`)

    @property
    def below_limit(self):
        """Standard errors by which the squared error lies below the limit, which no valid estimator can achieve."""
        if self.error_ratio is None or not self.error_ratio_error:
            return None
        return (1 - self.error_ratio) / self.error_ratio_error

    @property
    def broken(self):
        """(level, reason) of each rule that the AMP breaks, in the order of ``RULES``."""
        found = []
        for rule in RULES:
            value = getattr(self, rule.quantity)
            if value is None or (rule.quantity == "enrichment" and self.agreement is not None):
                continue
            passed = [np.isfinite(value) and (value >= t if rule.below else value <= t) for t in rule[2:4]]
            if not all(passed):
                reason = rule.reason.format(value).replace("%", f"{NBSP}%")
                if rule.quantity == "r2" and value < 0.005:
                    reason = "it is no better than the mean of all planets"
                found.append((CARE if passed[1] else DISTRUST, reason))
        return found if self.agreement is not None else [*found, (CARE, UNKNOWN)]

    @property
    def level(self):
        """``TRUST``, ``CARE`` or ``DISTRUST``: that of the worst rule broken."""
        return max((level for level, _ in self.broken), default=TRUST)

    @property
    def conclusion(self):
        """The conclusion as a sentence with its reasons."""
        reasons = [reason for level, reason in self.broken if level == self.level][:MAX_REASONS]
        text, end, start = WORDS[self.level], "", self.credible_from
        if start is not None and self.level != DISTRUST:
            if np.isfinite(start):
                text += f" from log₁₀ VMR{NBSP}{start:.1f} up"
            else:
                end = " Even its largest abundances are too rarely within 0.5 dex of the truth."
        return minus(text + (f", because {' and '.join(reasons)}." if reasons else ".") + end)

    @property
    def how_good(self):
        """How good the predictions are, as a sentence."""
        text = f"R² {score(self.r2, 2)}"
        if self.error_ratio is not None:
            text += f", squared error {with_error(self.error_ratio, self.error_ratio_error)} times the limit"
            if self.unknowable >= 0.1:
                text += f"; {percent(self.unknowable)} of its variance cannot be known from these spectra"
        return text + "."

    @property
    def where(self):
        """Where the network looks, as sentences."""
        if not self.ranges:
            return "No bin changes this prediction."
        named = self.ranges[:MAX_RANGES]
        wavelengths = " and ".join(f"{low:.3g}–{high:.3g}" for low, high, _ in named)
        text = f"{percent(sum(share for *_, share in named))} of its sensitivity is at {wavelengths}{NBSP}µm"
        if self.agreement is None:
            return text + ("." if self.in_bands is None else f"; {percent(self.in_bands)} is in the molecule's bands.")
        text += f"; agreement with the best estimator {minus(f'{self.agreement:.2f}')}"
        if self.differing:
            low, high, share, best = self.differing[0]
            text += f". Largest difference: {low:.3g}–{high:.3g}{NBSP}µm, {percent(share)} instead of {percent(best)}"
        return text + "."


def verdicts(run, best=None):
    """Return a `Verdict` on each AMP of a ``results.Run``, by the exact map of its network, or the published one."""
    network, ends, found = run.best, bin_ends(run.wavelength, run.bin_width), []
    kept = network.sensitivity_single or network.sensitivity
    r2 = scores(run.y_test, network.y_pred, network.scaler.y_std)["R2"]
    beside = _beside(run, kept, ends, best) if best else [{}] * len(r2)
    for k, amp in enumerate(run.amp_table):
        values = np.zeros(len(run.wavelength)) if kept is None else np.nan_to_num(kept.mean[k])
        known, bands, sensitive = {}, BANDS.get(amp.key), values.sum() > 0
        if sensitive and bands:
            known["in_bands"] = band_share(values, run.wavelength, bands)
            covered = band_share(np.ones(len(values)), run.wavelength, bands)
            known["enrichment"] = known["in_bands"] / covered if covered else None
        if amp.kind == "molecule" and amp.scale == "log10":
            pair = (run.y_test[:, [k]], network.y_pred[:, [k]])
            known["credible_from"] = credible_from(credibility(*pair, [CREDIBILITY_EPS], [BIN_WIDTH_DEX])[0])
        ranges = half_of_the_map(values, ends) if sensitive else []
        found.append(Verdict(amp, float(r2[k]), ranges, **known, **beside[k]))
    return found


def _beside(run, kept, ends, best):
    """Return what the best estimator adds to the verdict on each AMP, a dict each."""
    ratio, error = best.error_ratio(run, run.best.y_pred)
    limit = best.variance.mean(axis=0) / run.y_test.var(axis=0)
    rows = [{"error_ratio": r, "error_ratio_error": e, "unknowable": min(u, 1.0)}
            for r, e, u in zip(ratio.tolist(), error.tolist(), limit.tolist())]  # fmt: skip
    if kept is None or kept.scheme != "single":
        return rows
    own, optimal = shares(kept.mean), shares(best.optimal_map)
    agreement = spearman(kept.mean, best.optimal_map)
    reaction = kept.mean.sum(axis=1) / best.optimal_map.sum(axis=1)
    difference = np.nan_to_num(own - optimal)
    error = np.hypot(0 if kept.share_error is None else kept.share_error, best.share_error)
    beyond = (np.abs(difference) > SIGMA * error) & (np.abs(difference) > LEAST_SHARE)
    for k, (row, amp) in enumerate(zip(rows, run.amp_table)):
        order = [b for b in np.argsort(-np.abs(difference[k])) if beyond[k, b]]
        row |= {
            "agreement": float(agreement[k]),
            "reaction": float(reaction[k]),
            "misplaced": float(np.abs(difference[k]).sum() / 2),
            "differing": tuple((*ends[b].tolist(), float(own[k, b]), float(optimal[k, b])) for b in order),
        }
        if amp.key in BANDS:
            row["best_in_bands"] = band_share(best.optimal_map[k], run.wavelength, BANDS[amp.key])
    return rows


def half_of_the_map(values, ends):
    """Return the wavelength ranges (low, high, share) of the fewest bins that hold half of a map, largest share first.

    ``values`` (n_bins,) is the map of one AMP, not negative; no range crosses a gap between ``ends`` (n_bins, 2).
    """
    share = values / values.sum()
    order = np.argsort(-share, kind="stable")
    chosen = np.sort(order[: int(np.searchsorted(np.cumsum(share[order]), HALF - 1e-12)) + 1])
    apart = (np.diff(chosen) > 1) | have_gaps(ends[chosen])
    parts = np.split(chosen, np.flatnonzero(apart) + 1)
    ranges = [(*ends[[p[0], p[-1]], [0, 1]].tolist(), float(share[p].sum())) for p in parts]
    return sorted(ranges, key=lambda one: -one[2])


def looks_blue(found, wavelength):
    """Say whether an AMP's named wavelengths, or bins that differ, lie in the blue of the spectrum."""
    return wavelength[0] < BLUE and any(low < BLUE for v in found for low, *_ in (*v.ranges[:MAX_RANGES], *v.differing))
