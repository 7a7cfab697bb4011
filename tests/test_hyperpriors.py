"""Priors drawn from their conditionals, against closed-form moments and joint distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from fmknn.solvers.chain_block import Prior
from fmknn.solvers.hyperpriors import draw_noise_precision, draw_prior, fixed_prior

N_DRAWS = 4000


def parameters(n, dim=3, seed=0):
    """n vectors with correlated coordinates, away from 0."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def assert_mean(draws, expected, at_most=4.5):
    """The mean of independent draws, as exactly as their spread allows."""
    draws = np.asarray(draws)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - expected) <= at_most * error).all()
    assert (error > 0).all()


# --- the noise ------------------------------------------------------------------------------


@pytest.mark.parametrize(("square", "n_rows"), [(0.0, 1), (7.5, 20), (3e4, 10_000)])
def test_the_noise_precision_is_gamma(square, n_rows):
    generator = np.random.default_rng(1)
    draws = [draw_noise_precision(square, n_rows, generator) for _ in range(N_DRAWS)]
    gamma = stats.gamma((1 + n_rows) / 2, scale=2 / (1 + square))
    assert stats.kstest(draws, gamma.cdf).pvalue > 1e-3
    assert_mean(draws, gamma.mean())


# --- independent coordinates ----------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 12])
def test_independent_priors_have_the_closed_form(n):
    """λ_f | μ_f ~ Γ((n + 2) / 2, (1 + μ² + Σ(θ - μ)²) / 2), then μ_f | λ_f normal."""
    theta, generator = parameters(n), np.random.default_rng(2)
    before = Prior(np.eye(3), np.array([0.5, -1.0, 0.0]), False)
    drawn = [draw_prior(theta, False, before, generator) for _ in range(N_DRAWS)]
    precisions = np.array([np.diag(prior.precision) for prior in drawn])
    means = np.array([prior.mean for prior in drawn])
    assert not any(prior.is_correlated for prior in drawn)
    for prior in drawn[:3]:
        assert np.array_equal(prior.precision, np.diag(np.diag(prior.precision)))
    for f in range(3):
        rate = 0.5 * (1 + before.mean[f] ** 2 + ((theta[:, f] - before.mean[f]) ** 2).sum())
        gamma = stats.gamma((n + 2) / 2, scale=1 / rate)
        assert stats.kstest(precisions[:, f], gamma.cdf).pvalue > 1e-3
    z = (means - theta.sum(axis=0) / (n + 1)) * np.sqrt((n + 1) * precisions)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(np.hstack([z, precisions]).T) - np.eye(6)).max() < 0.08


# --- full covariance ------------------------------------------------------------------------


def normal_wishart(theta):
    """(W⁻¹, ν, μ*, β*) of the posterior, written out: W0 = I, ν0 = dim, β0 = 2, μ0 = 0."""
    n, dim = theta.shape
    inverse = np.eye(dim)
    for one in theta:
        inverse += np.outer(one, one)  # scatter about μ0, less what μ* explains
    mean = theta.sum(axis=0) / (2 + n)
    inverse -= (2 + n) * np.outer(mean, mean)
    return inverse, dim + n, mean, 2.0 + n


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_correlated_priors_have_the_moments_of_a_normal_wishart(n):
    theta, generator = parameters(n, seed=n), np.random.default_rng(3)
    inverse, degrees, center, beta = normal_wishart(theta)
    before = fixed_prior(1.0, 1.0, 2)
    drawn = [draw_prior(theta, True, before, generator) for _ in range(N_DRAWS)]
    precisions = np.array([prior.precision for prior in drawn])
    means = np.array([prior.mean for prior in drawn])
    assert all(prior.is_correlated for prior in drawn)
    scale = np.linalg.inv(inverse)
    assert_mean(precisions, degrees * scale)
    # Var Λ_fg = ν (S_fg² + S_ff S_gg)
    variance = degrees * (scale**2 + np.outer(np.diag(scale), np.diag(scale)))
    assert_mean((precisions - degrees * scale) ** 2, variance, at_most=5)
    # E log|Λ| = Σ_i ψ((ν - i) / 2) + dim log 2 + log|S|
    expected = special.digamma((degrees - np.arange(3)) / 2).sum() + 3 * np.log(2)
    assert_mean(np.linalg.slogdet(precisions)[1], expected + np.linalg.slogdet(scale)[1])
    # any direction a: aᵀΛa / aᵀSa ~ χ²(ν)
    for a in (*np.eye(3), np.array([1.0, -2.0, 0.5])):
        chi = np.einsum("f,nfg,g->n", a, precisions, a) / (a @ scale @ a)
        assert stats.kstest(chi, stats.chi2(degrees).cdf).pvalue > 1e-3
    # μ | Λ ~ N(μ*, (β* Λ)⁻¹)
    z = np.einsum("nfg,nf->ng", np.linalg.cholesky(beta * precisions), means - center)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.cov(z.T) - np.eye(3)).max() < 0.12


@pytest.mark.parametrize("n", [1, 30])
def test_correlated_priors_are_symmetric_and_positive(n):
    theta = parameters(n, dim=6)
    for seed in range(50):
        precision = draw_prior(
            theta, True, fixed_prior(1.0, 1.0, 5), np.random.default_rng(seed)
        ).precision
        np.testing.assert_allclose(precision, precision.T, rtol=1e-12)
        assert np.linalg.eigvalsh(precision).min() > 0


def test_many_parameters_determine_their_prior():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(4, 4))
    covariance, mean = root @ root.T + np.eye(4), rng.normal(size=4)
    theta = rng.multivariate_normal(mean, covariance, 200_000)
    for correlated, truth in ((True, np.linalg.inv(covariance)), (False, None)):
        truth = np.diag(1 / np.diag(covariance)) if truth is None else truth
        before = Prior(np.eye(4), mean, False)
        prior = draw_prior(theta, correlated, before, np.random.default_rng(5))
        np.testing.assert_allclose(prior.precision, truth, rtol=0.05, atol=0.01)
        np.testing.assert_allclose(prior.mean, mean, atol=0.05)


# --- draws leave the joint distribution as it is (Geweke, JASA 2004) ------------------------


@pytest.mark.parametrize("correlated", [False, True])
def test_draws_keep_the_joint_distribution_of_prior_and_parameters(correlated):
    """Prior from its own prior, θ given it, the prior again given θ: still its own prior."""
    rng = np.random.default_rng(6)
    dim, n, n_copies = 2, 3, N_DRAWS
    first, last = [], []
    for _ in range(n_copies):
        if correlated:
            precision = stats.wishart(dim, np.eye(dim)).rvs(random_state=rng)
            spread = np.linalg.inv(2.0 * precision)
            mean = rng.multivariate_normal(np.zeros(dim), 0.5 * (spread + spread.T), method="svd")
        else:
            precision = np.diag(rng.gamma(0.5, 2.0, dim))
            mean = rng.normal(size=dim) / np.sqrt(np.diag(precision))
        white = rng.normal(size=(n, dim))
        theta = mean + np.linalg.solve(np.linalg.cholesky(precision).T, white.T).T
        after = draw_prior(theta, correlated, Prior(precision, mean, correlated), rng)
        first.append(summary(Prior(precision, mean, correlated), theta))
        last.append(summary(after, theta))
    for one, other in zip(np.transpose(first), np.transpose(last), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-4


def summary(prior, theta):
    """What has a distribution of its own, and how θ lies within the prior."""
    away = theta - prior.mean
    return [
        np.log(np.diag(prior.precision)[0]),
        np.linalg.slogdet(prior.precision)[1],
        prior.precision[0, 1] / np.sqrt(np.prod(np.diag(prior.precision))),
        np.arctan(prior.mean[0]),
        np.einsum("nf,fg,ng->", away, prior.precision, away),
    ]


# --- the same seed --------------------------------------------------------------------------


@pytest.mark.parametrize("correlated", [False, True])
def test_the_same_generator_draws_the_same_bits(correlated):
    theta, before = parameters(50), fixed_prior(1.0, 1.0, 2)
    one, other = (draw_prior(theta, correlated, before, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one.precision, other.precision)
    assert np.array_equal(one.mean, other.mean)


def test_a_fixed_prior_is_the_ridge():
    prior = fixed_prior(5.0, 10.0, 2)
    assert prior.precision.tolist() == np.diag([10.0, 10.0, 5.0]).tolist()
    assert prior.mean.tolist() == [0.0] * 3
    assert not prior.is_correlated
