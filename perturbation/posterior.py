"""Models that predict a distribution: their mean and their width, as numbers whose map can be made."""

import numpy as np

from perturbation.predictors import Predictor, as_floats, declared_inputs


def posterior_summary(model):
    """Turn a model that predicts a distribution into one that predicts its mean and log standard deviation.

    The map of the means says which bins the estimates come from; the map of the log standard deviations says which bins
    the certainty comes from. The logarithm is natural: a rise of 0.1 is a width that is 10 % larger.

    Parameters
    ----------
    model : object
        Keras model, PyTorch module, object with ``.predict`` or function. For (rows, n_bins) it returns one of

        - samples, an array (rows, n_samples, n_AMPs);
        - a pair (mean, spread): means (rows, n_AMPs), and standard deviations (rows, n_AMPs) or covariances
          (rows, n_AMPs, n_AMPs);
        - a distribution with ``mean`` and ``stddev`` or ``variance``, as those of ``torch.distributions``.

    Returns
    -------
    PosteriorSummary
        A function that returns (rows, 2 n_AMPs): the means, then the log standard deviations. Give it to `exact_map`
        with twice as many ``amp_names``, and with ones for the second half of ``y_data_std``.

    Notes
    -----
    Means and widths of random samples are random. Say ``stochastic="subtract"`` to take that out of the map, or let
    the samples use the same random numbers in each call and row.

    Examples
    --------
    A mean of 100 times the first bin, and a width that grows with the second:

    >>> import numpy as np
    >>> from sensitivity import exact_map
    >>> model = posterior_summary(lambda x: (100 * x[:, :1], np.exp(300 * x[:, 1:2])))
    >>> spectra, errors = np.full((1, 3), 0.01), np.full(3, 1e-4)
    >>> exact_map(model, spectra, errors, amp_names=["Tp", "ln width of Tp"], input_layout="flat").mean.round(6)
    array([[0.0001, 0.    , 0.    ],
           [0.    , 0.0009, 0.    ]])
    """
    return PosteriorSummary(model)


class PosteriorSummary:
    """A function from spectra to means and log standard deviations, (rows, 2 n_AMPs): see `posterior_summary`."""

    def __init__(self, model):
        self.model = model

    @property
    def input_shape(self):
        """The shapes of inputs that the model declares, if it does."""
        return [shape for _, shape in declared_inputs(self.model)] or None

    def __call__(self, inputs):
        """Return the means and log standard deviations of the predictions for ``inputs``."""
        mean, width = _moments(Predictor(self.model, None, "flat").function(inputs))
        if mean.shape != width.shape or mean.ndim != 2:
            raise ValueError(
                f"model: expected means and standard deviations (rows, n_AMPs), received {mean.shape} and {width.shape}"
            )
        if not np.all(width > 0):
            raise ValueError(f"model: expected positive standard deviations, received {width.min():.3g}")
        return np.concatenate([mean, np.log(width)], axis=1)


def _moments(output):
    """Return mean and standard deviation (rows, n_AMPs) of any output that `posterior_summary` takes."""
    if isinstance(output, list | tuple):
        if len(output) != 2:
            raise ValueError(f"model: expected a pair (mean, spread), received {len(output)} outputs")
        mean, spread = (_doubles(part) for part in output)
        if spread.ndim == 3:
            spread = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 0))
        return mean, spread
    if hasattr(output, "mean") and (hasattr(output, "stddev") or hasattr(output, "variance")):
        spread = _value(output, "stddev") if hasattr(output, "stddev") else np.sqrt(_value(output, "variance"))
        return _value(output, "mean"), spread
    samples = _doubles(output)
    if samples.ndim != 3 or samples.shape[1] < 2:
        raise ValueError(f"model: expected samples (rows, n_samples, n_AMPs), received {samples.shape}")
    return samples.mean(axis=1), samples.std(axis=1, ddof=1)


def _doubles(output):
    return as_floats(output)[0].astype(float)


def _value(distribution, name):
    """Return an attribute of a distribution, which is a number in PyTorch and a method in TensorFlow Probability."""
    value = getattr(distribution, name)
    return _doubles(value() if callable(value) else value)
