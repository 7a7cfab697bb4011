"""Sweeps over the blocks of a design against the textbook: one coordinate, one expanded row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import naive
import numpy as np
import pytest
from scipy import stats

from fmknn.data.blocks import design_of_rows
from fmknn.data.rows import as_rows
from fmknn.solvers import chain_block, entity_rows, feature_run, id_block, shared_block
from fmknn.solvers.sweep import Chain, Prior, column_groups

KERNELS = {
    entity_rows: ("count_rows", "place_rows"),
    chain_block: ("start_rows",),
    id_block: ("sweep_one_hot",),
    shared_block: ("sum_rows", "start_factor", "finish_factor", "sweep_linear"),
    feature_run: ("sweep_factor",),
}
N_ROWS = 40


@pytest.fixture
def kernels(monkeypatch, impl):
    """Chain with its kernels compiled, and with their plain Python."""
    for module, names in KERNELS.items():
        for name in names:
            monkeypatch.setattr(module, name, impl(getattr(module, name)))


# --- data: expanded rows, and which of their columns are a block ----------------------------


def one_hot(rng, n_rows, n_levels):
    """Each row one of the levels; the last level has no row."""
    return np.eye(n_levels)[rng.integers(n_levels - 1, size=n_rows)]


def entities(rng, n_rows, n_entities, with_ids):
    """Each row one of the entities: its id, a number, a level, values of 1/√m; the last unused."""
    tags = rng.random((n_entities, 4)) < 0.5
    tags[0] = True
    table = np.hstack(
        [
            np.eye(n_entities) if with_ids else np.empty((n_entities, 0)),
            rng.normal(size=(n_entities, 1)),
            np.eye(2)[np.arange(n_entities) % 2],
            tags / np.sqrt(np.maximum(tags.sum(axis=1, keepdims=True), 1)),
        ]
    )
    return table[rng.integers(n_entities - 1, size=n_rows)]


def dense(rng, n_rows):
    return rng.normal(size=(n_rows, 4)) * (rng.random((n_rows, 4)) < 0.7)


@dataclasses.dataclass
class Case:
    """The parts of the rows, and of each whether it goes column by column (one-hot ids)."""

    parts: Callable
    by_column: tuple[bool, ...]
    groups: Callable | None = None  # of all columns, by their number


CASES = {
    "users": Case(lambda g, n: [one_hot(g, n, 6)], (True,)),
    "users and items": Case(lambda g, n: [one_hot(g, n, 6), one_hot(g, n, 5)], (True, True)),
    "three ids": Case(lambda g, n: [one_hot(g, n, m) for m in (6, 5, 3)], (True, True, True)),
    "features without ids": Case(
        lambda g, n: [entities(g, n, 6, False), one_hot(g, n, 5)], (False, True)
    ),
    "ids with features": Case(
        lambda g, n: [entities(g, n, 5, True), entities(g, n, 4, True)], (False, False)
    ),
    "three with features": Case(
        lambda g, n: [one_hot(g, n, 5), entities(g, n, 4, True), entities(g, n, 3, False)],
        (True, False, False),
    ),
    "one matrix": Case(lambda g, n: [dense(g, n)], (False,)),
    "groups in a block": Case(
        lambda g, n: [entities(g, n, 5, True), one_hot(g, n, 6)],
        (False, False),
        lambda column: column % 3,
    ),
}


class Problem:
    """A design with a chain on it, and the same as sparse rows for the oracle."""

    def __init__(self, case, n_factors, weighted=False, correlated=False, seed=0):
        rng = np.random.default_rng(seed)
        parts = [part.astype(np.float32) for part in case.parts(rng, N_ROWS)]
        X = np.hstack(parts)
        ends = np.cumsum([part.shape[1] for part in parts])
        self.columns = [
            range(end - part.shape[1], end) for part, end in zip(parts, ends, strict=True)
        ]
        self.rows = [[(p, float(row[p])) for p in np.flatnonzero(row)] for row in X]
        self.weights = np.ones(N_ROWS, np.float32)
        if weighted:
            self.weights = rng.choice([0.0, 0.5, 1.0, 3.0], N_ROWS).astype(np.float32)
        blocks = {f"part{i}": np.array(columns) for i, columns in enumerate(self.columns)}
        design = design_of_rows(as_rows(X), blocks, self.weights if weighted else None)
        if case.groups is not None:
            groups = np.array([case.groups(p) for p in range(X.shape[1])], np.int32)
            design = dataclasses.replace(design, groups=groups)
        self.groups = column_groups(design)
        self.y = rng.normal(size=N_ROWS).astype(np.float32)
        self.alpha = 1.7
        self.priors = {
            int(group): make_prior(rng, n_factors, correlated) for group in np.unique(self.groups)
        }
        self.chain = Chain(design, n_factors, self.groups, 1)
        theta = rng.normal(scale=0.7, size=(n_factors + 1, X.shape[1]))
        self.chain.start(theta.astype(np.float32), 0.3)
        self.chain.set_targets(self.y)
        self.seen = X.any(axis=0)
        self.order = naive.coordinate_order(
            [
                ([p for p in columns if self.seen[p]], by_column)
                for columns, by_column in zip(self.columns, case.by_column, strict=True)
            ],
            n_factors,
        )

    @property
    def data(self):
        return self.rows, self.y, self.weights

    def prior_of(self, p):
        prior = self.priors[int(self.groups[p])]
        return prior.precision.tolist(), prior.mean.tolist()

    def oracle_sweep(self, choose=None):
        """(w, V) of the textbook's sweep from where the chain stands."""
        w, V = self.chain.parameters()
        w, V = naive.coordinate_sweep(
            self.chain.w0, w, V, *self.data, self.order, self.alpha, self.prior_of, choose
        )
        for p in np.flatnonzero(~self.seen):  # integrated out: at the mean of the prior
            *V[p], w[p] = self.prior_of(p)[1]
        return w, V

    def sweep(self, generator=None):
        return self.chain.sweep(self.priors, self.alpha, generator)


def make_prior(rng, n_factors, correlated):
    dim = n_factors + 1
    mean = rng.normal(scale=0.3, size=dim)
    if not correlated:
        return Prior(np.diag(rng.uniform(0.5, 3.0, dim)), mean, False)
    root = rng.normal(size=(dim, dim))
    return Prior(root @ root.T + 0.5 * np.eye(dim), mean, True)


# --- ALS: every coordinate goes to its conditional mean -------------------------------------


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_a_sweep_is_the_textbooks(kernels, case, weighted, correlated):
    problem = Problem(CASES[case], 2, weighted, correlated, seed=len(case))
    for w0 in (0.3, -0.2):
        problem.chain.w0 = w0
        w, V = problem.oracle_sweep()
        square, total = problem.sweep()
        got_w, got_V = problem.chain.parameters(problem.priors)
        np.testing.assert_allclose(got_w, w, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got_V, V, rtol=1e-4, atol=1e-4)
        # the sums are those of the residuals after the sweep
        expected = naive.weighted_residuals(w0, got_w, got_V, *problem.data)
        np.testing.assert_allclose((square, total), expected, rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(problem.chain.residuals(), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("n_factors", [0, 1, 5])
@pytest.mark.parametrize("case", ["users and items", "ids with features", "one matrix"])
def test_a_sweep_with_any_number_of_factors_is_the_textbooks(kernels, case, n_factors):
    problem = Problem(CASES[case], n_factors, weighted=True, correlated=True, seed=1)
    w, V = problem.oracle_sweep()
    problem.sweep()
    got_w, got_V = problem.chain.parameters(problem.priors)
    np.testing.assert_allclose(got_w, w, rtol=1e-4, atol=1e-4)
    assert got_V.shape == (len(w), n_factors)
    np.testing.assert_allclose(got_V, np.reshape(V, got_V.shape), rtol=1e-4, atol=1e-4)


def test_without_a_prior_what_rows_do_not_determine_stays(kernels):
    """All weights of a user 0, or no penalty and no regressor: nothing is divided by 0."""
    problem = Problem(CASES["three with features"], 2)
    flat = Prior(np.zeros((3, 3)), np.zeros(3), False)
    problem.priors = dict.fromkeys(problem.priors, flat)
    problem.chain.theta[:-1] = 0  # without factors no regressor of a factor is other than 0
    problem.chain.start(problem.chain.theta.copy(), 0.0)
    problem.sweep()
    w, V = problem.chain.parameters(problem.priors)
    assert np.isfinite(w).all() and np.isfinite(V).all()
    seen_ids = [p for p in problem.columns[0] if problem.seen[p]]
    assert not V[seen_ids].any()


# --- Gibbs: every coordinate is a draw from its conditional ---------------------------------


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
@pytest.mark.parametrize("case", ["three ids", "three with features", "groups in a block"])
def test_draws_are_those_of_the_conditionals(case, correlated):
    """(draw - mean) √precision of each coordinate, given those drawn before: standard normals."""
    problem = Problem(CASES[case], 2, True, correlated)
    generator = np.random.default_rng(5)
    sweeps = []
    for _ in range(30):
        w, V = problem.chain.parameters(problem.priors)
        before = w.copy(), V.copy()
        problem.sweep(generator)
        after_w, after_V = problem.chain.parameters(problem.priors)
        scores = []

        def replay(p, f, mean, precision, w=after_w, V=after_V, scores=scores):
            value = float(V[p, f] if f < 2 else w[p])
            scores.append((value - mean) * precision**0.5)
            return value

        naive.coordinate_sweep(
            0.3, *before, *problem.data, problem.order, problem.alpha, problem.prior_of, replay
        )
        sweeps.append(scores)
    z = np.array(sweeps)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    # each coordinate on its own: 30 draws, a wrong scale of one of them is seen at a factor of 2
    n_sweeps, n = z.shape
    limit = stats.norm.isf(1e-4 / n)
    assert np.abs(z.mean(axis=0)).max() < limit / np.sqrt(n_sweeps)
    variances = (z**2).sum(axis=0)
    assert variances.max() < stats.chi2.isf(1e-4 / n, n_sweeps)
    assert variances.min() > stats.chi2.ppf(1e-4 / n, n_sweeps)
    # no noise is used twice: neither for two coordinates nor in two sweeps
    for between in (np.corrcoef(z.T), np.corrcoef(z)):
        assert np.abs(between - np.eye(len(between))).max() < 0.9


@pytest.mark.parametrize("case", ["users and items", "ids with features"])
def test_one_coordinate_drawn_often_has_the_closed_form(case):
    """The first coordinate of a sweep, with everything else where it was."""
    problem = Problem(CASES[case], 2, True, True)
    w, V = problem.chain.parameters()
    theta = problem.chain.theta.copy()
    theta[:-1], theta[-1] = V.T, w
    p, f = problem.order[0]
    mean, precision = naive.coordinate_conditional(
        0.3, w, V, *problem.data, p, f, problem.alpha, *problem.prior_of(p)
    )
    draws = []
    for seed in range(3000):
        problem.chain.start(theta, 0.3)
        problem.sweep(np.random.default_rng(seed))
        draws.append(problem.chain.parameters(problem.priors)[1][p, f])
    z = (np.array(draws, np.float64) - mean) * precision**0.5
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / len(z))
    assert stats.kstest(z, "norm").pvalue > 1e-3


# --- sweeps leave the joint distribution as it is (Geweke, JASA 2004) -----------------------

N_COPIES = 2500


def copies(rows_of_copy):
    """A design of independent copies of a few rows, [(features of block 0, of block 1), ...].

    Each copy has columns of its own, of both blocks; they share priors, one per block.
    """
    rows = np.array([np.concatenate(row) for row in rows_of_copy], np.float32)
    widths = [len(part) for part in rows_of_copy[0]]
    n_rows, width = rows.shape
    table = as_rows(rows)
    first = np.array([0, widths[0] * N_COPIES])
    in_block = np.repeat([0, 1], widths)
    place = np.concatenate([np.arange(m) for m in widths])
    copy = np.repeat(np.arange(N_COPIES), len(table.indices))
    columns = np.tile(table.indices, N_COPIES)
    columns = first[in_block[columns]] + copy * np.array(widths)[in_block[columns]] + place[columns]
    lengths = np.tile(np.diff(table.indptr), N_COPIES)
    from scipy.sparse import csr_array

    X = csr_array(
        (np.tile(table.values, N_COPIES), columns, np.r_[0, np.cumsum(lengths)]),
        shape=(n_rows * N_COPIES, width * N_COPIES),
    )
    X.sort_indices()
    blocks = {"a": slice(0, first[1]), "b": slice(first[1], width * N_COPIES)}
    return X, design_of_rows(as_rows(X), blocks), blocks


JOINTS = {
    "ids": [
        ((1, 0), (1, 0)),
        ((1, 0), (0, 1)),
        ((0, 1), (0, 1)),
        ((0, 1), (0, 1)),
    ],
    "features": [
        ((1, 0, 0.8), (1, 0, 0.5)),
        ((1, 0, 0.8), (0, 1, -1.2)),
        ((0, 1, -1.5), (0, 1, -1.2)),
        ((0, 1, -1.5), (1, 0, 0.5)),
    ],
}


def textbook_scores(X, w, V):
    """X w + ½ Σ_f ((X v_f)² - X² v_f²) (Rendle, ICDM 2010, lemma 3.1)."""
    X, w, V = X.astype(np.float64), w.astype(np.float64), V.astype(np.float64)
    return X @ w + 0.5 * ((X @ V) ** 2 - (X**2) @ V**2).sum(axis=1)


@pytest.mark.parametrize("kind", JOINTS)
def test_sweeps_keep_the_joint_distribution(kind):
    """θ from its prior and y given θ: after any sweeps both are still distributed like that."""
    X, design, blocks = copies(JOINTS[kind])
    rng = np.random.default_rng(11)
    chain = Chain(design, 2, column_groups(design), 1)
    priors = {group: make_prior(rng, 2, group == 0 or kind == "ids") for group in (0, 1)}
    covariances = {group: np.linalg.inv(prior.precision) for group, prior in priors.items()}
    theta = np.empty(chain.theta.shape, np.float32)
    for group, columns in enumerate(blocks.values()):
        size = columns.stop - columns.start
        drawn = rng.multivariate_normal(priors[group].mean, covariances[group], size)
        theta[:, columns] = drawn.T
    w0, alpha = 0.4, 2.5
    clean = w0 + textbook_scores(X, theta[-1], theta[:-1].T)
    y = clean + rng.normal(size=len(clean)) / np.sqrt(alpha)
    chain.start(theta, w0)
    chain.set_targets(y)
    for _ in range(3):
        square, total = chain.sweep(priors, alpha, rng)
    w, V = chain.parameters(priors)
    assert not np.isclose(w, theta[-1], atol=1e-3).mean() > 0.05  # it has moved

    residuals = y - w0 - textbook_scores(X, w, V)
    np.testing.assert_allclose(square, (residuals**2).sum(), rtol=1e-4)
    np.testing.assert_allclose(total, residuals.sum(), rtol=1e-3, atol=1.0)
    samples = {"residual": residuals.reshape(N_COPIES, -1) * np.sqrt(alpha)}
    for group, columns in enumerate(blocks.values()):
        own = np.column_stack([V, w])[columns] - priors[group].mean
        white = own @ np.linalg.cholesky(priors[group].precision)  # L of Λ = L Lᵀ
        samples[f"prior {group}"] = white.reshape(N_COPIES, -1)
    # all of them are standard normals in each copy, independent of each other
    z = np.hstack(list(samples.values()))
    n = z.shape[1]
    limit = stats.norm.isf(1e-4 / n**2)
    assert np.abs(z.mean(axis=0)).max() < limit / np.sqrt(N_COPIES)
    second = z.T @ z / N_COPIES - np.eye(n)
    assert np.abs(second - np.diag(np.diag(second))).max() < limit / np.sqrt(N_COPIES)
    assert np.abs(np.diag(second)).max() < limit * np.sqrt(2 / N_COPIES)
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4 / n
