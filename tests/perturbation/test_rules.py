"""The rules for a mean over one normal variable, held to moments of the normal distribution and to SciPy's splines."""

import numpy as np
import pytest

from perturbation.quadrature import DENSITY, GRID, HERMITE_UP_TO, MAX_NODES, RULES, _curves, _every_other, make_rule

NAMES = [name for name in RULES if name != "auto"]
SIZES = [2, 3, 4, 5, 6, 7, 9, 12, 31]


def mean_square(root, g):
    return ((root @ g) ** 2).sum()


@pytest.mark.parametrize("n_nodes", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_rule_is_what_was_asked_for_and_right_for_a_line(name, n_nodes):
    rule = make_rule(name, n_nodes)
    assert (rule.name, rule.n_nodes, len(rule.nodes)) == (name, n_nodes, n_nodes // 2 * 2)
    np.testing.assert_array_equal(rule.nodes, -rule.nodes[::-1])  # pairs, to the last bit
    assert (np.diff(rule.nodes) > 0).all() and (rule.nodes != 0).all()
    assert rule.slope @ rule.nodes == pytest.approx(1)  # E[g'] of g = z
    assert rule.slope @ rule.nodes**2 == pytest.approx(0, abs=1e-12)
    assert rule.curvature @ rule.nodes**2 == pytest.approx(2)  # E[g''] of g = z^2
    assert rule.curvature @ rule.nodes == pytest.approx(0, abs=1e-12)
    assert mean_square(rule.lower_root, rule.nodes) == pytest.approx(1)
    if name != "midpoints":
        assert mean_square(rule.root, rule.nodes) == pytest.approx(1)
    else:  # of n intervals of equal probability
        assert mean_square(rule.root, np.ones(len(rule.nodes))) == pytest.approx(len(rule.nodes) / n_nodes)


@pytest.mark.parametrize("n_nodes", [4, 5, 7, 12])
def test_gauss_hermite_has_the_moments_of_a_normal(n_nodes):
    rule = make_rule("hermite", n_nodes)
    assert mean_square(rule.root, rule.nodes**2) == pytest.approx(3)  # E[z^4]
    assert rule.slope @ rule.nodes**3 == pytest.approx(3)  # E[z^4]
    assert rule.curvature @ rule.nodes**4 == pytest.approx(12)  # E[z^6] - E[z^4]


@pytest.mark.parametrize("n_nodes", [4, 5, 7, 12, 31])
def test_spline_is_exact_for_a_parabola(n_nodes):
    rule = make_rule("spline", n_nodes)
    g = rule.nodes + 0.5 * rule.nodes**2
    assert mean_square(rule.root, g) == pytest.approx(1 + 0.25 * 3, rel=1e-6)
    assert rule.slope @ g == pytest.approx(1, rel=1e-6) and rule.curvature @ g == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("every_other", [False, True], ids=["all nodes", "those of the lower rule"])
@pytest.mark.parametrize("n_nodes", [4, 5, 6, 10, 12])
def test_curve_is_a_weighted_parabola_and_a_natural_spline_through_the_rest(n_nodes, every_other):
    interpolate = pytest.importorskip("scipy.interpolate")
    nodes = make_rule("spline", n_nodes).nodes
    nodes = nodes[_every_other(nodes)] if every_other else nodes  # of 6 and 10, no longer equally spaced
    weights, powers = np.exp(-(nodes**2) / 4), np.stack([nodes, nodes**2], axis=1)  # square roots of the density
    for i, values in enumerate(np.eye(len(nodes))):
        line, bend = np.linalg.lstsq(weights[:, None] * powers, weights * values, rcond=None)[0]
        left = np.insert(values - powers @ [line, bend], len(nodes) // 2, 0.0)  # 0 at the centre
        knots = np.insert(nodes, len(nodes) // 2, 0.0)
        spline = interpolate.CubicSpline(knots, left, bc_type="natural")
        inside = np.clip(GRID, knots[0], knots[-1])
        straight = spline(inside) + spline(inside, 1) * (GRID - inside)
        expected = line * GRID + bend * GRID**2 + straight
        np.testing.assert_allclose(_curves(nodes)[i], expected, rtol=1e-9, atol=1e-9)


def test_every_other_pair_is_kept_from_the_outermost_on():
    for n, kept in ((2, "01"), (4, "1001"), (6, "101101"), (8, "10100101"), (10, "1010110101")):
        nodes = np.setdiff1d(np.arange(-(n // 2), n // 2 + 1), 0)
        np.testing.assert_array_equal(_every_other(nodes), np.array(list(kept)) == "1")
    for name, n_nodes, kept in (("hermite", 8, "10100101"), ("midpoints", 8, "10101010"), ("spline", 8, "10100101")):
        used = np.abs(make_rule(name, n_nodes).lower_root).max(axis=0) > 0
        np.testing.assert_array_equal(used, np.array(list(kept)) == "1")


def test_auto_changes_from_gauss_hermite_to_the_spline():
    for n_nodes in (2, HERMITE_UP_TO, HERMITE_UP_TO + 1, MAX_NODES):
        rule = make_rule("auto", n_nodes)
        assert rule.name == ("hermite" if n_nodes <= HERMITE_UP_TO else "spline") and rule.n_nodes == n_nodes
    assert DENSITY.sum() == pytest.approx(1) and pytest.approx(1) == DENSITY @ GRID**2
