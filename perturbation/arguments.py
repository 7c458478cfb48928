"""The arguments of the sensitivity test: each function returns one in the form the engine wants.

Where it cannot, it raises a ValueError of one line: argument, expected, received.
"""

import operator
import secrets
import warnings
from collections.abc import Mapping
from numbers import Real

import numpy as np

from perturbation.amps import AMPS, PAPER_AMPS, find_amp
from perturbation.engine import halving_sizes
from perturbation.quadrature import MAX_NODES, RULES, make_rule

SCHEMES = ("halving", "single")
DEFAULT_NODES = 5
MAX_FLOAT32 = float(np.finfo(np.float32).max)


def float_array(name, value, expected, ndim=None, length=None, finite=True):
    """Return ``value`` as a float64 array, finite if asked; ``expected`` is its shape in words."""
    refuse_no_numbers(name, value, expected)
    array = _array(name, value, expected, float)
    if array.size == 0 or (ndim and array.ndim != ndim) or (length and len(array) != length):
        raise ValueError(f"{name}: expected shape {expected}, received {array.shape}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    return array


def refuse_beyond_float32(name, sizes):
    """Refuse sizes that float32, which networks read, would hold as infinity."""
    if sizes.max() > MAX_FLOAT32:
        raise ValueError(f"{name}: expected numbers below {MAX_FLOAT32:.2g}, received larger ones")


def refuse_no_numbers(name, value, expected):
    """Refuse what NumPy would turn into numbers with a loss: units, masks, dates, complex numbers, text, records."""
    if (type(value) is np.ndarray and value.dtype.kind in "fiu") or type(value) in (float, int):
        return
    for part in (value, *value) if isinstance(value, list | tuple) else (value,):
        if type(part) is float:  # the usual case, which needs no check
            continue
        if np.ma.is_masked(part):
            raise ValueError(f"{name}: expected no masked entries, received {np.ma.count_masked(part)}")
        unit = str(getattr(part, "unit", None) or getattr(part, "units", None) or "")
        if unit not in ("", "dimensionless"):
            raise ValueError(
                f"{name}: expected plain numbers, received {type(part).__name__} in {unit[:40]}; "
                "give plain numbers in the unit of this argument"
            )
    kind = _array(name, value, expected).dtype
    if kind.kind == "O":
        odd = [type(item).__name__ for item in np.ravel(value) if isinstance(item, str | bytes | complex | bool)]
        kind = odd[0] if odd else kind
    if isinstance(kind, str) or kind.kind in "bcMmSUV":
        raise ValueError(f"{name}: expected real numbers of shape {expected}, received {str(kind)[:40]}")


def _array(name, value, expected, dtype=None):
    try:
        return np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected numbers of shape {expected}, received {type(value).__name__}") from None


def scaling(prefix, mean, std, n=None):
    """Return mean and standard deviation in one shape: () or (n,), where any n is taken if it is None."""
    words = "(), (n_AMPs,) or (1, n_AMPs)" if n is None else f"() or ({n},)"
    arrays = []
    for name, value in ((f"{prefix}_mean", mean), (f"{prefix}_std", std)):
        if value is None:
            raise ValueError(f"{name}: expected the number(s) the network's data were scaled by, received None")
        array = float_array(name, value, words)
        if array.ndim == 2 and len(array) == 1:  # a column might be one number for each spectrum
            array = array[0]
        if array.ndim > 1 or array.size not in (1, n or array.size):
            raise ValueError(f"{name}: expected shape {words}, received {array.shape}")
        arrays.append(array)
    mean, std = arrays
    if std.min() <= 0:
        raise ValueError(f"{prefix}_std: expected positive numbers, received {std.min():g}")
    if n is None and mean.ndim and std.ndim and mean.size != std.size:
        raise ValueError(f"{prefix}_std: expected {mean.size} number(s), received {std.size}")
    return arrays if mean.shape == std.shape else np.broadcast_arrays(mean, std)


def auxiliary_input(auxiliary, n):
    """Return the second input of a model as float32, (N, k)."""
    array = float_array("auxiliary", auxiliary, f"({n}, k)", ndim=2, length=n)
    refuse_beyond_float32("auxiliary", np.abs(array))
    return array.astype(np.float32)


def truth(name, value):
    """Return ``value`` as a bool; only True and False are taken, as any text would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, received {value!r}")
    return bool(value)


def positive_integer(name, value, also="", least=1, most=np.inf):
    """Return ``value`` as an int of at least ``least``; ``also`` says what else is allowed."""
    try:
        number = 0 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = 0
    if not least <= number <= most:
        raise ValueError(f"{name}: expected a positive integer{also}, received {value!r}")
    return number


def positive_number(name, value):
    """Return ``value`` as a finite float above zero."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not 0 < value < np.inf:
        raise ValueError(f"{name}: expected a positive number, received {value!r}")
    return float(value)


def errors_or_covariances(org_error, n, n_bins, covariance):
    """Return errors (N, n_bins) or covariances (N or 1, n_bins, n_bins), without copies, and which of the two."""
    shapes = {False: ((n_bins,), (n, n_bins)), True: ((n_bins, n_bins), (n, n_bins, n_bins))}
    allowed = shapes[False] + shapes[True] if covariance is None else shapes[truth("covariance", covariance)]
    words = " or ".join(map(str, dict.fromkeys(allowed)))
    if getattr(org_error, "ndim", 0) == 3 and org_error.dtype.kind == "f":  # may be large, and is read chunk by chunk
        refuse_no_numbers("org_error", org_error, words)
        errors = np.asarray(org_error)
    else:
        errors = float_array("org_error", org_error, words)
    if errors.shape not in allowed:
        raise ValueError(f"org_error: expected shape {words}, received {errors.shape}")
    if covariance is None:
        covariance = errors.shape not in shapes[False]
        is_square = errors.shape == (n_bins, n_bins) and n == n_bins > 1
        if is_square and np.ptp(errors) > 0 and np.allclose(errors, errors.T, rtol=1e-8, atol=0):  # equal: errors
            raise ValueError(
                f"org_error: expected 1-sigma errors or covariance=True, received a symmetric {errors.shape} array"
                " that may be either; say covariance=True or covariance=False"
            )
    if not covariance and errors.min() < 0:
        raise ValueError(f"org_error: expected errors >= 0, received {errors.min():g}")
    if covariance:
        return errors if errors.ndim == 3 else errors[None], True
    return errors if errors.ndim == 2 else np.broadcast_to(errors, (n, n_bins)), False


def group_labels(scheme, groups, n_bins):
    """Return the group of each bin in one repeat (n_bins,), whether groups are drawn anew, and the scheme's name."""
    if scheme not in SCHEMES:
        raise ValueError(f"scheme: expected one of {SCHEMES}, received {scheme!r}")
    if groups is None:
        if scheme == "single":
            return np.arange(n_bins, dtype=np.int16), False, scheme
        sizes = halving_sizes(n_bins)
        return np.repeat(np.arange(len(sizes), dtype=np.int16), sizes), True, scheme
    expected = f"groups: expected lists of bins 0 to {n_bins - 1}, each bin once at most, or {n_bins} group numbers"
    if isinstance(groups, np.ndarray) and groups.ndim == 1 and groups.dtype.kind in "iu":
        if len(groups) != n_bins or groups.max() < 0:
            raise ValueError(f"{expected}, received {groups}")
        groups = [np.flatnonzero(groups == number) for number in np.unique(groups[groups >= 0])]
    labels = np.full(n_bins, -1)
    try:
        members = [np.atleast_1d(np.array(group)) for group in groups]
    except (TypeError, ValueError):
        raise ValueError(f"{expected}, received {groups!r}") from None
    for number, bins in enumerate(members):
        good = bins.size and bins.dtype.kind in "iu" and bins.min() >= 0 and bins.max() < n_bins
        if not good or len(np.unique(bins)) < bins.size or (labels[bins] >= 0).any():
            raise ValueError(f"{expected}, received {bins.tolist()} as group {number}")
        labels[bins] = number
    if not members:
        raise ValueError(f"{expected}, received none")
    return labels, False, "groups"


def direction_array(directions, n, n_bins):
    """Return the directions as (1, K, n_bins), the same for all spectra, or (N, K, n_bins)."""
    expected = f"(K, {n_bins}) or ({n}, K, {n_bins})"
    array = float_array("directions", directions, expected)
    if array.ndim not in (2, 3) or array.shape[-1] != n_bins or (array.ndim == 3 and len(array) != n):
        raise ValueError(f"directions: expected shape {expected}, received {array.shape}")
    return array if array.ndim == 3 else array[None]


def quadrature_rule(nodes, rule, scheme):
    """Return the rule for the mean along each direction, or None for random repeats."""
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {RULES}, received {rule!r}")
    along = scheme in ("single", "directions")
    if isinstance(nodes, str) and nodes == "auto":
        nodes = DEFAULT_NODES if along else None
    if nodes is None:
        if scheme == "directions":
            raise ValueError("nodes: expected a number, as directions are given, received None")
        return None
    if not along:
        raise ValueError(f"nodes: expected None or 'auto', as bins are perturbed in groups, received {nodes!r}")
    return make_rule(rule, positive_integer("nodes", nodes, f" from 2 to {MAX_NODES}, or None", 2, MAX_NODES))


def seed_of(rng):
    """Return one integer that stands for ``rng``: the seed itself, or 128 bits drawn from a generator."""
    try:
        if rng is None:
            return secrets.randbits(128)
        if isinstance(rng, int | np.integer):
            return int(np.random.SeedSequence(rng).entropy)
        words = np.random.default_rng(rng).integers(2**32, size=4, dtype=np.uint32)
    except (TypeError, ValueError):
        raise ValueError(f"rng: expected None, a seed >= 0 or a numpy.random.Generator, received {rng!r}") from None
    return int.from_bytes(words.tobytes(), "little")


def find_amps(gases, n_amps):
    """Return the AMP of each column; an empty list where they are unknown."""
    if gases is None:
        return [AMPS[key] for key in PAPER_AMPS] if n_amps == len(PAPER_AMPS) else []
    if isinstance(gases, str) or np.ndim(gases) != 1 or len(gases) != n_amps:
        raise ValueError(f"gases: expected the names of the model's {n_amps} AMPs, received {gases!r}")
    return [find_amp(gas) for gas in gases]


def abundance_cuts(abundance, amps):
    """Return the abundance range of each AMP that has one, {column: (low, high)}."""
    if abundance is None:
        return {}
    if not amps:
        raise ValueError("gases: expected the name of each AMP, as abundance is given, received None")
    keys = [amp.key for amp in amps]
    if not isinstance(abundance, Mapping):
        unknown = [amp.key for amp in amps if amp.kind != "molecule" and amp.key not in AMPS]
        if unknown:
            warnings.warn(
                f"abundance: no cut for {', '.join(unknown)}, which the table of AMPs does not list as molecules;"
                " give abundance={name: (low, high)} to cut them",
                stacklevel=5,
            )
        abundance = {amp: abundance for amp in amps if amp.kind == "molecule"} or {None: abundance}
    cuts = {}
    for name, cut in abundance.items():
        cut = np.asarray(cut)
        if cut.shape != (2,) or cut.dtype.kind not in "iuf" or not cut[0] < cut[1]:
            raise ValueError(
                f"abundance: expected (low, high) in log10 VMR with low < high, received {abundance[name]!r}"
            )
        if name is not None:
            columns = [k for k, key in enumerate(keys) if key == find_amp(name).key]
            if not columns:
                raise ValueError(f"abundance: expected names among {keys}, received {name!r}")
            cuts |= dict.fromkeys(columns, cut)
    return cuts


def select_spectra(y_test, cuts, amps, no_spectra, n, n_amps):
    """Say which spectra enter the row of which AMP, (N, n_AMPs): the first ``no_spectra`` of those in its range."""
    if cuts and y_test is None:
        raise ValueError(f"y_test: expected shape ({n}, {n_amps}), as abundance is given, received None")
    if y_test is not None:
        y_test = float_array("y_test", y_test, f"({n}, {n_amps})", finite=False)
        if y_test.shape != (n, n_amps):
            raise ValueError(f"y_test: expected shape ({n}, {n_amps}), received {y_test.shape}")
    inside = np.ones((n, n_amps), bool)
    for column, (low, high) in cuts.items():
        inside[:, column] = (low < y_test[:, column]) & (y_test[:, column] < high)
        if not inside[:, column].any():
            truth = y_test[:, column]
            raise ValueError(
                f"abundance: expected spectra with {low:g} < log10 VMR of {amps[column].key} < {high:g},"
                f" received none: y_test spans {truth.min():.3g} to {truth.max():.3g}"
            )
    if no_spectra is None:
        return inside
    counts = inside.sum(axis=0)
    if counts.min() < no_spectra:
        names = [amp.key for amp in amps] or [f"AMP {k}" for k in range(n_amps)]
        few = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True) if count < no_spectra)
        warnings.warn(
            f"no_spectra: expected {no_spectra} spectra for each AMP, using what there is: {few}", stacklevel=5
        )
    return inside & (np.cumsum(inside, axis=0) <= no_spectra)


def plain_abundance(abundance):
    """Return the abundance cut in numbers and strings that JSON can hold."""
    if abundance is None:
        return None
    if isinstance(abundance, Mapping):
        return {find_amp(name).key: tuple(map(float, cut)) for name, cut in abundance.items()}
    return tuple(map(float, abundance))
