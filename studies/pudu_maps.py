"""Maps of the package pudu (Grau-Luque et al. 2023, JOSS 8, 5873), for networks that predict many spectra at a time.

``pudu.importance`` moves one bin of one spectrum, asks for one prediction at a time, and returns the change of one
output. With its default ``Bidirectional(delta=0.1)`` that is (f(1.1 x_b) + f(0.9 x_b) - 2 f(x)) / 2: half of a second
difference, which is zero for a model that is linear in the bin. With ``CustomSum`` the bin moves by its error in one
direction, f(x + error) - f(x). pudu requires TensorFlow 2.11: install it with ``pip install --no-deps pudu``.
"""

import numpy as np


def pudu_maps(predict, spectra, n_amps, errors=None):
    """Absolute importance of each bin by pudu, (n, n_amps, n_bins).

    pudu runs twice: once to collect the spectra it asks for, which are predicted together, and once with the
    predictions. ``errors`` (n, n_bins) are the sizes of the changes; None: pudu's default of 10 % of the depth.
    """
    try:
        from pudu import perturbation
    except ImportError as error:
        raise ImportError("this needs pudu: pip install --no-deps pudu") from error
    changes = [perturbation.Bidirectional()] * len(spectra)
    if errors is not None:
        changes = [perturbation.CustomSum(_as_image(error)) for error in errors]
    asked = []

    def note(image):
        asked.append(np.array(image[0, 0, :, 0]))
        return np.zeros(n_amps)

    for spectrum, change in zip(spectra, changes):
        _importance(note, spectrum, change, 0)
    predictions = predict(np.array(asked)).reshape(len(spectra), -1, n_amps)
    maps = np.empty((len(spectra), n_amps, spectra.shape[1]))
    for i, (spectrum, change) in enumerate(zip(spectra, changes)):
        for a in range(n_amps):
            heard = iter(predictions[i])
            maps[i, a] = _importance(lambda image, heard=heard: next(heard), spectrum, change, a)
    return maps


def _as_image(values):
    """Return (n_bins,) as pudu wants it: (batch, rows, columns, depth)."""
    return np.array(values, float)[None, None, :, None]


def _importance(prediction, spectrum, change, output):
    from pudu.pudu import pudu

    test = pudu(_as_image(spectrum), 0, prediction)
    with np.errstate(invalid="ignore"):  # it also divides by the range of the map, which may be zero
        test.importance(window=1, evolution=output, absolute=True, perturbation=change)
    return test.imp[0, 0, :, 0]
