"""What other explanations of the same mlp cost, with about as many evaluations of it as the sensitivity test.

`python -m benchmarks.bench_sensitivity --explainers` prints and writes the table. SHAP, Captum and scikit-learn are
measured where they are installed. What each needs until its ranking of the bins is stable is measured by
ranking_cost.py.
"""

import sys

import numpy as np

import sensitivity
from benchmarks.measuring import (
    N_AMPS,
    N_BINS,
    PeakMemory,
    Stopwatch,
    as_estimator,
    make_problem,
    new_network,
    sensitivity_of,
)


def explain(n_spectra, repeat):
    """Rows for other explanations of the same mlp, with about as many network evaluations."""
    network = new_network("mlp")
    spectra, errors = make_problem(100)
    scaled = ((spectra - 0.01) / 0.002).astype(np.float32)
    chosen, evaluations = scaled[:n_spectra], repeat * len(sensitivity.halving_sizes(N_BINS))
    counted = [0]

    def predict(x):
        counted[0] += len(x)
        return network.predict_on_batch(np.asarray(x, np.float32)[:, :, None])

    predict(np.zeros((100, N_BINS)))

    def ours(x):
        sensitivity_of(predict, spectra[: len(x)], errors[: len(x)], repeat)

    def shap_permutation(x):
        import shap

        background = scaled[-10:]  # each evaluation averages over these rows
        explainer = shap.PermutationExplainer(predict, shap.maskers.Independent(background))
        explainer(x, max_evals=max(evaluations // len(background), 2 * N_BINS + 1), silent=True)

    def shap_sampling(x):
        import shap

        samples = evaluations // 2  # each takes two
        shap.SamplingExplainer(predict, scaled[-10:]).shap_values(x, nsamples=samples, silent=True)

    def torch_twin():
        import torch

        dense = [layer for layer in network.layers if layer.weights]
        stages = []
        for layer in dense:
            kernel, bias = layer.get_weights()
            linear = torch.nn.Linear(*kernel.shape)
            linear.weight.data, linear.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias)
            stages += [linear, torch.nn.GELU()]
        twin = torch.nn.Sequential(*stages[:-1]).eval()
        np.testing.assert_allclose(twin(torch.from_numpy(chosen)).detach(), predict(chosen), atol=1e-4)

        def forward(x):
            counted[0] += len(x)
            with torch.no_grad():
                return twin(x)

        return torch, forward

    def captum(x, name):
        import captum.attr

        torch, forward = torch_twin()
        method = getattr(captum.attr, name)(forward)
        x = torch.from_numpy(x)
        passes = max(round(evaluations / (N_AMPS * (N_BINS + 1))), 1)
        for seed in range(passes):
            torch.manual_seed(seed)
            extra = {"baselines": x + torch.randn(x.shape) * 0.02} if name == "FeatureAblation" else {}
            for amp in range(N_AMPS):
                method.attribute(x, target=amp, **extra)

    def importance(x):
        from sklearn.inspection import permutation_importance

        repeats = max(evaluations // N_BINS, 1)
        permutation_importance(as_estimator(predict), x, predict(x), n_repeats=repeats, random_state=0)

    explanations = {
        "sensitivity map": (ours, "yes"),
        "shap PermutationExplainer": (shap_permutation, "no"),
        "shap SamplingExplainer": (shap_sampling, "no"),
        "captum FeatureAblation": (lambda x: captum(x, "FeatureAblation"), "no"),
        "captum FeaturePermutation": (lambda x: captum(x, "FeaturePermutation"), "no"),
        "sklearn permutation_importance": (importance, "over repeats; all AMPs in one score"),
    }
    for name, (function, error_bars) in explanations.items():
        watch = Stopwatch()
        try:
            function(chosen[:2])  # imports, and what is compiled on first use
            counted[0] = 0
            with PeakMemory() as memory, watch:
                function(chosen)
        except ImportError as error:
            print(f"{name}: skipped, {error.name} is not installed", file=sys.stderr)
            continue
        yield {
            "explanation": name,
            "seconds": round(watch.wall, 2),
            "evaluations": counted[0],
            "us_per_evaluation": round(1e6 * watch.wall / counted[0], 2),
            "added_MB": round(memory.added),
            "error_bars": error_bars,
        }


def explain_rows(n_spectra, repeat):
    """List of the rows of `explain`, for `isolated`."""
    return list(explain(n_spectra, repeat))
