"""Probit and ordinal responses: truncated normals, cutpoints, links, against scipy and grids."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import HOW, as_compiled, as_python
from refusals import refused
from scipy import special, stats

from fmknn.errors import DivergenceError
from fmknn.solvers import response_kernel as kernels
from fmknn.solvers.cutpoints import (
    GradeLikelihood,
    cutpoints_of,
    draw_position,
    first_position,
    log_posterior,
)
from fmknn.solvers.links import expected_grade, probabilities_of_grades, probability_above
from fmknn.solvers.response_kernel import BLOCK
from fmknn.solvers.responses import OrdinalResponse, ProbitResponse, response_of

CUTPOINTS = np.array([-1.5, -0.7, 0.2, 1.1])
LOWS, HIGHS = np.r_[-np.inf, CUTPOINTS], np.r_[CUTPOINTS, np.inf]
PREPARE = {"jit": as_compiled, "python": as_python}


def rng(seed=0):
    return np.random.default_rng(seed)


# --- oracles, by scipy and by plain loops ---------------------------------------------------


def log_interval(low, high):
    """log(Φ(high) - Φ(low)) by mirroring into the lower tail."""
    mirrored = low + high > 0
    upper = special.log_ndtr(np.where(mirrored, -low, high))
    lower = special.log_ndtr(np.where(mirrored, -high, low))
    return upper + np.log(-np.expm1(lower - upper))


def log_likelihood(scores, codes, cutpoints):
    bounds = [-np.inf, *cutpoints, np.inf]
    return sum(
        log_interval(bounds[c] - score, bounds[c + 1] - score)
        for score, c in zip(scores, codes, strict=True)
    )


def log_target(scores, codes, position):
    """What the chain of cutpoints must be distributed as: first cutpoint, then log gaps."""
    cutpoints = [position[0]]
    for gap in position[1:]:
        cutpoints.append(cutpoints[-1] + np.exp(gap))
    prior = stats.norm.logpdf(position[0], 0, 5)
    prior = prior + sum(stats.norm.logpdf(gap, 0, 2) for gap in position[1:])
    return log_likelihood(scores, codes, cutpoints) + prior


def derivative(function, x, width=1e-5):
    """Central differences of a function of a vector, whatever it returns."""
    steps = width * np.eye(len(x))
    return np.array([(function(x + h) - function(x - h)) / (2 * width) for h in steps])


def draw_between(low, high, score, n, seed=0):
    """Draw n latent targets at one score, between two bounds."""
    out = np.empty(n, np.float32)
    kernels.latent_targets(
        np.full(n, float(score)),
        np.zeros(n, np.uint8),
        np.array([float(low)]),
        np.array([float(high)]),
        rng(seed).random(n),
        out,
        0,
        n,
    )
    return out


# --- the functions underneath ---------------------------------------------------------------


def padded(x):
    return [np.resize(x[i : i + BLOCK], BLOCK) for i in range(0, len(x), BLOCK)]


def over_blocks(function, x, n_scratch=0):
    """Call a block function on all of x and return its first output."""
    outs = []
    for block in padded(x):
        out = np.empty((1 + n_scratch, BLOCK))
        function(block, *out)
        outs.append(out[0])
    return np.concatenate(outs)[: len(x)]


@pytest.mark.parametrize("how", HOW)
def test_the_exponential_and_the_logarithm_are_right_to_rounding(how):
    y = np.linspace(0, 700, 10 * BLOCK)
    exponential = over_blocks(PREPARE[how](kernels._exp_minus), y)
    np.testing.assert_allclose(exponential, np.exp(-y), rtol=1e-13)
    x = np.concatenate([np.exp(np.linspace(-690, 690, 5 * BLOCK)), np.linspace(0.5, 2, 5 * BLOCK)])
    logarithm = over_blocks(PREPARE[how](kernels._log), x)
    np.testing.assert_allclose(logarithm, np.log(x), rtol=1e-14, atol=3e-16)


def test_the_exponential_stays_positive_and_finite_however_far_out():
    far = over_blocks(kernels._exp_minus, np.array([700, 800, 1e6, 1e18, np.inf]))
    assert (far > 0).all() and (far < 1e-300).all()


@pytest.mark.parametrize("how", HOW)
def test_the_mills_ratio_is_scipys(how):
    x = np.concatenate([np.linspace(0, 10, 5 * BLOCK), np.geomspace(10, 1e9, 3 * BLOCK)])
    truth = np.sqrt(np.pi / 2) * special.erfcx(x / np.sqrt(2))
    np.testing.assert_allclose(over_blocks(PREPARE[how](kernels._mills), x), truth, rtol=1e-14)


@pytest.mark.parametrize("how", HOW)
def test_the_quantile_inverts_the_upper_tail(how):
    x = np.concatenate([np.linspace(0, 10, 5 * BLOCK), np.geomspace(10, 1e4, 3 * BLOCK)])
    found = over_blocks(PREPARE[how](kernels._upper_quantile), -special.log_ndtr(-x), 2)
    np.testing.assert_allclose(found, x, rtol=1e-11, atol=1e-11)


# --- truncated normals ----------------------------------------------------------------------

INTERVALS = [  # low, high, score
    (0, np.inf, 0),
    (-np.inf, 0, 0),
    (0, np.inf, -3),
    (0, np.inf, 4),
    (0, np.inf, -8),
    (0, np.inf, -40),
    (-np.inf, 0, 40),
    (-np.inf, 0, -7),
    (-1, 2, 0.3),
    (-0.1, 0.2, 0),
    (-1, -0.5, 3),
    (1, 1.001, -37),
    (1, 1.001, 37),
    (-3, 30, 0),
    (2, 2.5, -12),
]


@pytest.mark.parametrize("low, high, score", INTERVALS)
def test_latent_targets_are_truncated_normals(low, high, score):
    z = draw_between(low, high, score, 20_000).astype(np.float64)
    truth = stats.truncnorm(low - score, high - score, score)
    assert stats.kstest(z, truth.cdf).pvalue > 1e-3


@pytest.mark.parametrize("score", [-40, -30, -5, -1, 0, 2, 6])
def test_the_moments_of_a_one_sided_draw_are_those_of_the_formula(score):
    n = 40_000
    excess = draw_between(0, np.inf, score, n).astype(np.float64)
    hazard = np.sqrt(2 / np.pi) / special.erfcx(-score / np.sqrt(2))
    mean, variance = score + hazard, 1 - hazard * (hazard + score)
    assert excess.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / n))
    assert excess.var() == pytest.approx(variance, rel=0.06)


def test_a_draw_is_the_quantile_of_its_uniform():
    n = 2000
    scores, codes, uniforms = rng(1).normal(size=n), rng(2).integers(5, size=n), rng(3).random(n)
    z = np.empty(n, np.float32)
    kernels.latent_targets(scores, codes.astype(np.uint8), LOWS, HIGHS, uniforms, z, 0, n)
    truth = stats.truncnorm(LOWS[codes] - scores, HIGHS[codes] - scores)
    # from which end the uniform counts is the kernel's own business
    miss = [np.abs(z - scores - truth.ppf(u)) for u in (uniforms, 1 - uniforms)]
    assert np.minimum(*miss).max() < 1e-6


@pytest.mark.parametrize("reach", [40, 1e4, 1e12])
def test_far_out_draws_are_finite_and_on_their_side(reach):
    scores = np.repeat(np.linspace(-reach, reach, 401), 15)
    codes = np.tile(np.repeat(np.arange(5), 3), 401).astype(np.uint8)
    uniforms = np.tile([0.0, 0.5, 1 - 2.0**-53], 5 * 401)
    z = np.empty(len(scores), np.float32)
    kernels.latent_targets(scores, codes, LOWS, HIGHS, uniforms, z, 0, len(z))
    slack = 1e-6 * np.maximum(1, np.abs(scores))
    assert np.isfinite(z).all()
    if reach == 40:
        assert (z >= LOWS[codes] - slack).all() and (z <= HIGHS[codes] + slack).all()


@pytest.mark.parametrize("n", [5, 255, 257, 3000])
def test_targets_depend_neither_on_threads_nor_on_neighbours(n):
    y, scores = rng(0).integers(5, size=n), rng(1).normal(size=n)
    y[:5] = range(5)
    drawn = []
    for n_jobs in (1, 2, 3):
        response = OrdinalResponse(y)
        drawn.append(response.draw(scores, rng(2), n_jobs))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    whole, parts = np.empty((2, n), np.float32)
    given = (scores, y.astype(np.uint8), LOWS, HIGHS, rng(3).random(n))
    kernels.latent_targets(*given, whole, 0, n)
    for start in range(0, n, 100):
        kernels.latent_targets(*given, parts, start, min(start + 100, n))
    np.testing.assert_array_equal(whole, parts)


def test_compiled_kernels_compute_what_their_python_does():
    n = 300
    scores = np.concatenate([rng(0).normal(size=200), np.linspace(-40, 40, 100)])
    codes = rng(1).integers(5, size=n).astype(np.uint8)
    given = (scores, codes, LOWS, HIGHS, rng(2).random(n))
    z = np.empty((2, n), np.float32)
    kernels.latent_targets(*given, z[0], 0, n)
    kernels.latent_targets.py_func(*given, z[1], 0, n)
    np.testing.assert_allclose(z[0], z[1], rtol=1e-6)
    bounds = np.array([0, 100, 300])
    sums = np.empty((2, 2, 6))
    kernels.grade_sums(scores, bounds, LOWS[[0, 2]], HIGHS[[0, 2]], sums[0], 0, 2)
    kernels.grade_sums.py_func(scores, bounds, LOWS[[0, 2]], HIGHS[[0, 2]], sums[1], 0, 2)
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-11)
    shares = np.empty((2, n, 5))
    kernels.grade_probabilities(scores, LOWS, HIGHS, shares[0], 0, n)
    kernels.grade_probabilities.py_func(scores, LOWS, HIGHS, shares[1], 0, n)
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-11)
    tails = np.empty((2, n))
    kernels.sums_of_tails(scores, CUTPOINTS, np.ones(4), 1.0, tails[0], 0, n)
    kernels.sums_of_tails.py_func(scores, CUTPOINTS, np.ones(4), 1.0, tails[1], 0, n)
    np.testing.assert_allclose(tails[0], tails[1], rtol=1e-13)


# --- the likelihood of cutpoints ------------------------------------------------------------


@pytest.mark.parametrize("spread", [1, 10, 40])
@pytest.mark.parametrize("empty", [None, 0, 2, 4])
def test_the_likelihood_and_its_derivatives_are_right(spread, empty):
    codes = rng(0).integers(5, size=900)
    codes = codes[codes != empty].astype(np.uint8)
    scores = rng(1).uniform(-spread, spread, len(codes))
    likelihood = GradeLikelihood(codes, 5)
    likelihood.use(scores)
    curve = likelihood.at(CUTPOINTS)
    assert curve.value == pytest.approx(log_likelihood(scores, codes, CUTPOINTS), rel=1e-11)
    by_cut = derivative(lambda x: likelihood.at(x).value, CUTPOINTS)
    np.testing.assert_allclose(curve.gradient, by_cut, rtol=1e-5, atol=1e-4 * spread)
    twice = derivative(lambda x: likelihood.at(x).gradient, CUTPOINTS)
    np.testing.assert_allclose(curve.curvature, -twice, rtol=1e-5, atol=1e-4 * spread)


def test_a_narrow_interval_keeps_its_likelihood():
    for gap in (1e-3, 1e-6, 1e-9):
        for score in (0, 5, -38):
            likelihood = GradeLikelihood(np.array([1], np.uint8), 3)
            likelihood.use(np.array([float(score)]))
            value = likelihood.at(np.array([0.0, gap])).value
            assert value == pytest.approx(stats.norm.logpdf(score) + np.log(gap), abs=0.03)


def test_the_posterior_and_its_derivatives_are_right():
    codes = rng(0).integers(4, size=300).astype(np.uint8)
    scores = rng(1).normal(size=300)
    likelihood = GradeLikelihood(codes, 4)
    likelihood.use(scores)
    at, other = np.array([-0.7, 0.2, -0.4]), np.array([-0.5, -0.1, 0.1])
    curve = log_posterior(likelihood, at)
    difference = log_target(scores, codes, at) - log_target(scores, codes, other)
    assert curve.value - log_posterior(likelihood, other).value == pytest.approx(difference)
    by_position = derivative(lambda x: log_posterior(likelihood, x).value, at)
    np.testing.assert_allclose(curve.gradient, by_position, rtol=1e-6)
    twice = derivative(lambda x: log_posterior(likelihood, x).gradient, at)
    np.testing.assert_allclose(curve.curvature, -twice, rtol=1e-6)


def test_the_likelihood_does_not_depend_on_threads():
    codes = rng(0).integers(3, size=600 * BLOCK).astype(np.uint8)
    likelihood = GradeLikelihood(codes, 3)
    likelihood.use(rng(1).normal(size=len(codes)))
    one, three = (likelihood.at(np.array([-0.4, 0.4]), n_jobs) for n_jobs in (1, 3))
    assert one.value == three.value
    np.testing.assert_array_equal(one.curvature, three.curvature)


# --- the chain of cutpoints -----------------------------------------------------------------


def chain(codes, n_grades, scores, n_draws):
    codes = np.asarray(codes, np.uint8)
    likelihood = GradeLikelihood(codes, n_grades)
    likelihood.use(np.asarray(scores, float))
    generator, position, positions = rng(0), first_position(likelihood.counts), []
    for _ in range(n_draws):
        position = draw_position(likelihood, position, generator)
        positions.append(position)
    return np.array(positions)


def agree(draws, grid, weights):
    """Expect the draws of one coordinate to be distributed as the weights over the grid."""
    cumulative = np.cumsum(weights) / weights.sum() - 0.5 * weights / weights.sum()
    theirs = np.searchsorted(np.sort(draws), grid) / len(draws)
    assert np.abs(theirs - cumulative).max() < 0.045  # 1.63 / sqrt(1300): the draws hang together
    # moments without the outer 5 % on each side, of which a chain this short sees too little
    ends = grid[np.searchsorted(cumulative, [0.05, 0.95])]
    grid, draws = np.clip(grid, *ends), np.clip(draws, *ends)
    mean = (grid * weights).sum() / weights.sum()
    deviation = np.sqrt(((grid - mean) ** 2 * weights).sum() / weights.sum())
    assert draws.mean() == pytest.approx(mean, abs=0.1 * deviation)
    assert draws.std() == pytest.approx(deviation, rel=0.08)


@pytest.mark.parametrize(
    "codes, n_draws",
    [
        ([0, 1, 1, 2, 2, 2], 2000),
        ([0, 0, 2, 2], 2000),
        ([0, 1, 1], 2000),
        # two cutpoints of which the data know one: a curved ridge, on which the chain is slow
        pytest.param([1, 1, 2], 40_000, marks=pytest.mark.slow),
    ],
)
def test_the_chain_has_the_posterior_of_a_grid(codes, n_draws):
    scores = np.linspace(-1, 1.5, len(codes))[::-1]
    draws = chain(codes, 3, scores, n_draws)
    first, gap = np.linspace(-25, 17, 211), np.linspace(-12, 9, 106)
    density = log_target(scores, codes, np.meshgrid(first, gap, indexing="ij"))
    density = np.exp(density - density.max())
    agree(draws[:, 0], first, density.sum(1))
    agree(draws[:, 1], gap, density.sum(0))


def test_two_grades_are_a_probit_with_a_sampled_intercept():
    scores = rng(5).normal(size=30)
    y = (scores + 0.8 + rng(6).normal(size=30) > 0).astype(float)
    cutpoints = chain(y, 2, scores, 2000)[:, 0]
    probit, generator, intercept, intercepts = ProbitResponse(y), rng(7), 0.0, []
    precision = len(y) + 1 / 25  # Albert and Chib: the intercept given the latent targets
    for _ in range(4000):
        z = probit.draw(scores + intercept, generator)
        intercept = generator.normal((z - scores).sum() / precision, precision**-0.5)
        intercepts.append(intercept)
    deviation = np.std(intercepts)
    assert -cutpoints.mean() == pytest.approx(np.mean(intercepts), abs=0.12 * deviation)
    assert cutpoints.std() == pytest.approx(deviation, rel=0.1)


def test_cutpoints_are_found_again():
    n = 20_000
    scores = rng(0).normal(size=n)
    y = np.searchsorted(CUTPOINTS, scores + rng(1).normal(size=n))
    response, generator, kept = OrdinalResponse(y), rng(2), []
    for _ in range(60):
        z = response.draw(scores, generator)
        kept.append(response.cutpoints)
        np.testing.assert_array_equal(np.searchsorted(np.float32(kept[-1]), z), y)
    np.testing.assert_allclose(np.mean(kept, axis=0), CUTPOINTS, atol=0.05)
    assert 0.4 < np.mean(np.diff(np.array(kept)[:, 0]) != 0) < 0.95  # accepted


def test_the_first_step_reaches_cutpoints_that_are_far_away():
    scores = np.concatenate([np.full(500, -30.0), np.full(500, 30.0), np.full(500, 38.0)])
    scores += rng(0).normal(size=1500)
    positions = chain(np.repeat([0, 1, 2], 500), 3, scores, 20)
    cutpoints = cutpoints_of(positions[-1])
    assert -30 < cutpoints[0] < 30 < cutpoints[1] < 38


def test_scores_that_contradict_the_grades_give_finite_draws():
    y = np.repeat([0, 1, 2], 40)
    response, generator = OrdinalResponse(y), rng(0)
    for scores in (np.linspace(40, -40, 120), np.zeros(120), np.linspace(-40, 40, 120)):
        for _ in range(5):
            assert np.isfinite(response.draw(scores, generator)).all()
            assert (np.diff(response.cutpoints) > 0).all()


def test_many_grades_of_few_rows_work():
    y = np.arange(256) / 2
    response = OrdinalResponse(y)
    z = response.draw(np.linspace(-2, 2, 256), rng(0))
    assert np.isfinite(z).all() and (np.diff(response.cutpoints) > 0).all()


# --- responses ------------------------------------------------------------------------------


def test_the_squared_response_is_what_was_observed():
    response = response_of("squared", [1.5, 2.0], weights=[1.0, 2.0])
    z = response.draw(np.zeros(2), rng())
    assert z.tolist() == [1.5, 2.0] and z.dtype == np.float32 and not z.flags.writeable
    assert response.fixed_precision is None
    assert response.state() == {}
    response.restore({})


@pytest.mark.parametrize("y", [[1, 1, 1], [0], [0, 1, 1]])
def test_probit_takes_any_labels_even_of_one_class(y):
    response = response_of("probit", y)
    z = response.draw(np.zeros(len(y)), rng())
    assert ((z > 0) == np.array(y, bool)).all() and z.dtype == np.float32
    assert response.fixed_precision == 1 and response.state() == {}
    response.restore({})


def test_grades_are_ordered_values_of_any_kind():
    response = OrdinalResponse([4.0, 0.5, 1.5, 1.5])
    assert response.values.tolist() == [0.5, 1.5, 4.0]
    z = response.draw(np.zeros(4), rng())
    assert np.searchsorted(response.cutpoints, z).tolist() == [2, 0, 1, 1]


def test_the_same_generator_gives_the_same_draws_and_a_state_goes_on_with_them():
    y, scores = rng(0).integers(1, 6, size=500), rng(1).normal(size=500)

    def go(response, generator, n):
        return np.array([response.draw(scores, generator) for _ in range(n)])

    whole = go(OrdinalResponse(y), rng(3), 6)
    np.testing.assert_array_equal(go(OrdinalResponse(y), rng(3), 6), whole)
    first, generator = OrdinalResponse(y), rng(3)
    go(first, generator, 4)
    state, second = first.state(), OrdinalResponse(y)
    go(first, rng(9), 1)  # what goes on elsewhere does not reach the state
    second.restore(state)
    np.testing.assert_array_equal(go(second, generator, 2), whole[4:])


def test_scores_are_left_alone():
    scores = rng(1).normal(size=50)
    scores.flags.writeable = False
    for response in (OrdinalResponse(np.arange(50) % 3), ProbitResponse(np.arange(50) % 2)):
        response.draw(scores, rng())


# --- links ----------------------------------------------------------------------------------


def test_probabilities_of_grades_are_exact_in_the_tails_too():
    scores = np.linspace(-36, 36, 289)
    shares = probabilities_of_grades(scores, CUTPOINTS)
    truth = [[np.exp(log_interval(a - s, b - s)) for a, b in zip(LOWS, HIGHS, strict=True)]
             for s in scores]  # fmt: skip
    np.testing.assert_allclose(shares, truth, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-14)


def test_the_expected_grade_is_the_mean_of_the_values():
    scores, values = np.linspace(-40, 40, 2001), np.array([0.5, 1, 3, 3.5, 10])
    expected = expected_grade(scores, CUTPOINTS, values)
    np.testing.assert_allclose(expected, probabilities_of_grades(scores, CUTPOINTS) @ values)
    assert (np.diff(expected) > -1e-13).all()
    assert expected.min() >= 0.5 and expected.max() <= 10 + 1e-13
    np.testing.assert_array_equal(expected, expected_grade(scores, CUTPOINTS, values, n_jobs=3))


def test_the_probability_above_a_cutpoint_is_that_of_the_grades_above_it():
    scores = np.linspace(-37, 37, 500)
    for grade in range(1, 5):
        above = probability_above(scores, CUTPOINTS[grade - 1])
        truth = special.ndtr(scores - CUTPOINTS[grade - 1])
        np.testing.assert_allclose(above, truth, rtol=1e-12, atol=1e-300)
        shares = probabilities_of_grades(scores, CUTPOINTS)
        np.testing.assert_allclose(shares[:, grade:].sum(1), above, rtol=1e-11, atol=1e-300)


def test_links_take_no_rows_and_lists():
    assert probability_above([]).shape == (0,)
    assert probabilities_of_grades([], [0.0]).shape == (0, 2)
    assert expected_grade([0], [0], [1, 2]) == pytest.approx([1.5])


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("logistic", [0, 1]), ["logistic", "probit"]),
        (("probit", [0, 1], [1, 2]), ["weights", "probit"]),
        (("ordinal", [0, 1], [1, 1]), ["weights", "ordinal"]),
        (("probit", [0, 1, 2]), ["row 2", "0 and 1"]),
        (("probit", [0, 0.5]), ["row 1", "0.5"]),
        (("ordinal", [3, 3]), ["2 grades", "3"]),
        (("ordinal", np.arange(300)), ["256", "300"]),
        (("ordinal", [1, np.nan]), ["row 1", "finite"]),
        (("squared", [np.inf]), ["row 0", "finite"]),
        (("squared", []), ["at least one"]),
        (("probit", [[0, 1]]), ["(1, 2)"]),
        (("squared", np.ma.masked_array([1.0, 2.0], [True, False])), ["masked"]),
    ],
)
def test_targets_that_do_not_fit_the_loss_are_refused(arguments, words):
    with refused(ValueError, *words):
        response_of(*arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("loss", ["probit", "ordinal"])
def test_scores_that_are_not_finite_are_a_divergence(loss, bad):
    response = response_of(loss, [0, 1, 1])
    with refused(DivergenceError, "row 1"):
        response.draw(np.array([0, bad, 0]), rng())


@pytest.mark.parametrize(
    "state", [{}, {"cutpoint_position": [0.0]}, {"cutpoint_position": [0.0, np.nan]}]
)
def test_a_state_of_something_else_is_refused(state):
    response = OrdinalResponse([1, 2, 3])
    before = response.cutpoints
    with refused(ValueError, "state", "cutpoint"):
        response.restore(state)
    np.testing.assert_array_equal(response.cutpoints, before)
