"""Should a prediction be believed? How good it is and where the network looks, each from numbers, and a conclusion.

``RULES`` holds every threshold. They were chosen on networks whose quality is known and tested on others by
`studies.verdicts`; docs/method.md shows the table and how often it is right.
"""

from typing import NamedTuple

import numpy as np

from common.metrics import band_share, scores, shares
from constants import AMP, BANDS
from report.style import bin_edges

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
UNKNOWN = "without the best estimator nothing shows whether it looks at the right bins"


class Verdict(NamedTuple):
    """What a report says of one AMP; a quantity that is not known is None.

    Attributes
    ----------
    amp : constants.AMP
    r2 : float
    ranges : list of (low, high, share)
        Wavelengths, micron, that together hold half of the map, the largest share first.
    in_bands, enrichment : float
        Share of the map in a molecule's known bands, and that over the share of bins in them.
    error_ratio, error_ratio_error, unknowable : float
        Squared error over the limit with its error, and the limit over the variance of the AMP.
    agreement, reaction, misplaced, best_in_bands : float
        Rank correlation with the optimal map, sum of the map over that of the optimal one, share of the map in other
        bins than the optimal one, and the optimal map's share in the bands.
    differing : list of (low, high, share, best)
        Bins whose share differs from the best estimator's by more than the errors, the largest difference first.
    """

    amp: AMP
    r2: float
    ranges: list
    in_bands: float | None = None
    enrichment: float | None = None
    error_ratio: float | None = None
    error_ratio_error: float | None = None
    unknowable: float | None = None
    agreement: float | None = None
    reaction: float | None = None
    misplaced: float | None = None
    best_in_bands: float | None = None
    differing: tuple = ()

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
                found.append((DISTRUST if not passed[1] else CARE, rule.reason.format(value)))
        return found if self.agreement is not None else [*found, (CARE, UNKNOWN)]

    @property
    def level(self):
        """``TRUST``, ``CARE`` or ``DISTRUST``: that of the worst rule broken."""
        return max((level for level, _ in self.broken), default=TRUST)

    @property
    def conclusion(self):
        """The conclusion as a sentence with its reasons."""
        reasons = [reason for level, reason in self.broken if level == self.level][:MAX_REASONS]
        return WORDS[self.level] + (f", because {' and '.join(reasons)}." if reasons else ".").replace("-", "−")

    @property
    def how_good(self):
        """How good the predictions are, as a sentence."""
        text = "R² above 0.99" if 0.995 <= self.r2 < 1 else f"R² {self.r2:.2f}"
        if self.error_ratio is not None:
            text += f", squared error {self.error_ratio:.2f} ± {self.error_ratio_error:.2f} times the limit"
            if self.unknowable >= 0.1:
                text += f"; {self.unknowable:.0%} of its variance cannot be known from these spectra"
        return text + "."

    @property
    def where(self):
        """Where the network looks, as sentences."""
        if not self.ranges:
            return "No bin changes this prediction."
        named = self.ranges[:MAX_RANGES]
        wavelengths = " and ".join(f"{low:.3g}–{high:.3g}" for low, high, _ in named)
        text = f"{sum(share for *_, share in named):.0%} of its sensitivity is at {wavelengths} µm"
        if self.agreement is None:
            return text + (f"; {self.in_bands:.0%} is in the molecule's bands." if self.in_bands is not None else ".")
        text += f"; agreement with the best estimator {_minus(self.agreement)}"
        if self.differing:
            low, high, share, best = self.differing[0]
            text += f". Largest difference: {low:.3g}–{high:.3g} µm, {share:.0%} instead of {best:.0%}"
        return text + "."


def _minus(value):
    return f"{value:.2f}".replace("-", "−")


def verdicts(run, best=None):
    """Return a `Verdict` for each AMP of a ``results.Run``.

    It is about the exact map of its best network, or else the published one; ``best`` is the `BestEstimator` of its
    data set, if there is one.
    """
    judged = run.best
    kept = judged.sensitivity_single or judged.sensitivity
    r2 = scores(run.y_test, judged.y_pred, judged.scaler.y_std)["R2"]
    beside = _beside(run, judged, kept, best) if best else [{}] * len(run.amp_table)
    edges, found = bin_edges(run.wavelength), []
    for k, amp in enumerate(run.amp_table):
        values = np.zeros(len(run.wavelength)) if kept is None else np.nan_to_num(kept.mean[k])
        known, bands = {}, BANDS.get(amp.key)
        if values.sum() > 0 and bands:
            known["in_bands"] = band_share(values, run.wavelength, bands)
            covered = band_share(np.ones(len(values)), run.wavelength, bands)
            known["enrichment"] = known["in_bands"] / covered if covered else None
        ranges = half_of_the_map(values, edges) if values.sum() > 0 else []
        found.append(Verdict(amp, float(r2[k]), ranges, **known, **beside[k]))
    return found


def _beside(run, judged, kept, best):
    """Return what the best estimator adds to the verdict on each AMP, a dict each."""
    ratio, error = best.error_ratio(run, judged.y_pred)
    limit = best.variance.mean(axis=0) / run.y_test.var(axis=0)
    rows = [{"error_ratio": r, "error_ratio_error": e, "unknowable": min(u, 1.0)}
            for r, e, u in zip(ratio.tolist(), error.tolist(), limit.tolist())]  # fmt: skip
    if kept is None or kept.scheme != "single":
        return rows
    own, optimal, edges = shares(kept.mean), shares(best.optimal_map), bin_edges(run.wavelength)
    agreement = best.agreement(kept.mean)
    reaction = kept.mean.sum(axis=1) / best.optimal_map.sum(axis=1)
    error = np.hypot(0 if kept.share_error is None else kept.share_error, best.share_error)
    for k, (row, amp) in enumerate(zip(rows, run.amp_table)):
        difference = np.nan_to_num(own[k] - optimal[k])
        beyond = (np.abs(difference) > SIGMA * error[k]) & (np.abs(difference) > LEAST_SHARE)
        order = [b for b in np.argsort(-np.abs(difference)) if beyond[b]]
        row |= {
            "agreement": float(agreement[k]),
            "reaction": float(reaction[k]),
            "misplaced": float(np.abs(difference).sum() / 2),
            "differing": tuple((*edges[b : b + 2].tolist(), float(own[k, b]), float(optimal[k, b])) for b in order),
        }
        if amp.key in BANDS:
            row["best_in_bands"] = band_share(best.optimal_map[k], run.wavelength, BANDS[amp.key])
    return rows


def half_of_the_map(values, edges):
    """Return the wavelength ranges (low, high, share) of the fewest bins that hold half of a map, largest share first.

    ``values`` (n_bins,) is the map of one AMP, not negative; ``edges`` (n_bins + 1,) are those of its bins, micron.
    """
    share = values / values.sum()
    order = np.argsort(-share, kind="stable")
    enough = int(np.searchsorted(np.cumsum(share[order]), HALF - 1e-12)) + 1
    chosen = np.sort(order[:enough])
    blocks = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
    ranges = [(float(edges[b[0]]), float(edges[b[-1] + 1]), float(share[b].sum())) for b in blocks]
    return sorted(ranges, key=lambda one: -one[2])


def looks_blue(found, wavelength):
    """Say whether an AMP's named wavelengths, or bins that differ, lie in the blue of the spectrum."""
    return wavelength[0] < BLUE and any(low < BLUE for v in found for low, *_ in (*v.ranges[:MAX_RANGES], *v.differing))
