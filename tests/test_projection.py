"""Law 1: however a score is taken apart, it is the textbook formula on the expanded row."""

from __future__ import annotations

import math
import statistics
import warnings

import kernels as how
import naive
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn.data.blocks import design_of_interactions, design_of_rows
from fmknn.data.features import FeatureTable
from fmknn.data.interactions import Interactions
from fmknn.data.rows import as_rows
from fmknn.model import kernels
from fmknn.model.params import FMParams
from fmknn.model.projection import item_matrix, query_matrix, user_matrix

EPSILON = float(np.finfo(np.float32).eps)
SEEDS = st.integers(0, 2**32 - 1)


def random_params(seed, n_features, n_factors, spread=0.0):
    """Parameters of mixed sign whose sizes differ by up to 10 ** (2 * spread)."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-spread, spread, (n_features, n_factors))
    V = rng.normal(size=(n_features, n_factors)) * sizes
    return FMParams(rng.normal(), rng.normal(size=n_features), V)


def random_matrix(seed, n_rows, n_columns):
    """Real values, repeated rows, empty rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < 0.5)
    return X[rng.integers(n_rows, size=n_rows)].astype(np.float32)


def require_score(scores, params, X):
    """Each score is the formula's, give or take float32 rounding of its terms."""
    assert scores.dtype == np.float64 and scores.shape == (len(X),)
    sizes = abs(params.w0), abs(params.w), abs(params.V)
    for score, x in zip(scores, X, strict=True):
        margin = 4 * EPSILON * float(naive.fm_score(*sizes, np.abs(x))) + 1e-30
        assert score == pytest.approx(
            naive.fm_score(params.w0, params.w, params.V, x), rel=0, abs=margin
        )


# --- scores ---------------------------------------------------------------------------------


@given(
    seed=SEEDS,
    n_rows=st.integers(1, 6),
    n_columns=st.integers(1, 8),
    n_factors=st.integers(0, 4),
    n_blocks=st.integers(0, 3),
    spread=st.sampled_from([0.0, 5.0]),
)
@settings(max_examples=60)
def test_score_of_a_matrix_with_blocks_and_without(
    seed, n_rows, n_columns, n_factors, n_blocks, spread
):
    X = random_matrix(seed, n_rows, n_columns)
    params = random_params(seed, n_columns, n_factors, spread)
    owner = np.random.default_rng(seed).integers(n_blocks + 1, size=n_columns)
    blocks = {str(b): np.flatnonzero(owner == b) for b in range(n_blocks) if np.any(owner == b)}
    require_score(params.score(X), params, X)
    require_score(params.score(sp.csr_array(X)), params, X)
    require_score(params.score(as_rows(X)), params, X)
    require_score(params.score(design_of_rows(as_rows(X), blocks)), params, X)
    require_score(params.score(design_of_rows(as_rows(X))), params, X)


def one_hot(value, levels):
    return [float(value == level) for level in levels]


def expanded_side(id_, table, id_feature):
    """The dense features of one entity, in plain Python: id, age, genre, tags."""
    if table is None:
        return None
    row = one_hot(id_, sorted(table)) if id_feature else []
    ages = [entity["age"] for entity in table.values()]
    deviation = statistics.pstdev(ages)
    row.append((table[id_]["age"] - statistics.fmean(ages)) / deviation if deviation else 0.0)
    row += one_hot(table[id_]["genre"], sorted({entity["genre"] for entity in table.values()}))
    tags = table[id_]["tags"]
    for tag in sorted({tag for entity in table.values() for tag in entity["tags"]}):
        row.append(1 / math.sqrt(len(tags)) if tag in tags else 0.0)
    return row


@st.composite
def raw_tables(draw):
    """{id: its columns} for ids 0..4, or None: a side without features."""
    if draw(st.booleans()):
        return None
    entity = st.fixed_dictionaries(
        {
            "age": st.integers(1, 9),
            "genre": st.sampled_from("abc"),
            "tags": st.lists(st.sampled_from("wxyz"), unique=True, max_size=3),
        }
    )
    return dict(enumerate(draw(st.lists(entity, min_size=5, max_size=5))))


def feature_table(raw, id_feature):
    if raw is None:
        return None
    order = sorted(raw, reverse=True)  # not the order of the vocabulary
    columns = {name: [raw[id_][name] for id_ in order] for name in ("age", "genre", "tags")}
    return FeatureTable(order, columns, id_feature=id_feature)


@given(
    events=st.lists(st.tuples(*[st.integers(0, 4)] * 5), min_size=1, max_size=5),
    n_contexts=st.integers(0, 3),
    user_raw=raw_tables(),
    item_raw=raw_tables(),
    id_feature=st.booleans(),
    n_factors=st.integers(0, 3),
    seed=SEEDS,
)
@settings(max_examples=50)
def test_score_of_interactions_with_features_and_any_number_of_contexts(
    events, n_contexts, user_raw, item_raw, id_feature, n_factors, seed
):
    columns = [list(column) for column in zip(*events, strict=True)]
    users, items, contexts = columns[0], columns[1], columns[2 : 2 + n_contexts]
    log = Interactions.from_arrays(
        users,
        items,
        context={f"c{place}": column for place, column in enumerate(contexts)},
        user_features=feature_table(user_raw, id_feature),
        item_features=feature_table(item_raw, id_feature),
    )
    X = [
        (expanded_side(user, user_raw, id_feature) or one_hot(user, sorted(set(users))))
        + (expanded_side(item, item_raw, id_feature) or one_hot(item, sorted(set(items))))
        + [x for c in contexts for x in one_hot(c[row], sorted(set(c)))]
        for row, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    params = random_params(seed, len(X[0]), n_factors)
    require_score(params.score(design_of_interactions(log)), params, X)


def test_pairs_within_an_entity_count():
    # 1 + (2 + 3) + <(1, 2), (3, 4)> = 6 + 11: two features of one user, no item at all
    params = FMParams(1, [2, 3], [[1, 2], [3, 4]])
    design = design_of_rows(as_rows([[1.0, 1.0]]), {"user": [0, 1]})
    assert params.score(design).tolist() == [17]


def test_a_small_pair_is_not_lost_beside_a_large_square():
    # <1e7, 1e-7> = 1, beside a square of 1e14
    params = FMParams(0, [0, 0], [[1e7], [1e-7]])
    assert params.score([[1.0, 1.0]]) == pytest.approx([1], rel=1e-6)


def test_a_feature_makes_no_pair_with_itself():
    assert FMParams(0, [1], [[3.0]]).score([[2.0]]).tolist() == [2]


def test_without_factors_the_model_is_linear():
    params = FMParams(1, [2, 3], np.empty((2, 0)))
    assert params.n_factors == 0
    assert params.score([[1.0, 10.0]]).tolist() == [33]


def test_an_empty_row_scores_the_global_bias():
    assert FMParams(0.7, [2.0], [[3.0]]).score(sp.csr_array((2, 1))).tolist() == [0.7, 0.7]
    assert FMParams(0.7, [], np.empty((0, 2))).score(np.empty((3, 0))).tolist() == [0.7] * 3


def test_no_rows_have_no_scores():
    params = FMParams(1, [2.0], [[3.0]])
    assert params.score(np.empty((0, 1))).shape == (0,)
    assert [part.shape for part in params.project(np.empty((0, 1)))] == [(0, 1), (0,)]


@pytest.mark.parametrize("n_factors", [0, 3, 8, 17])
def test_a_batch_has_the_bits_of_its_rows_and_of_any_number_of_threads(n_factors):
    X = random_matrix(0, 1500, 12)
    params = random_params(1, 12, n_factors)
    blocks = {"a": slice(0, 5), "b": slice(5, 12)}
    scores = params.score(design_of_rows(as_rows(X), blocks))
    for n_jobs in (2, 3, -1):
        again = params.score(design_of_rows(as_rows(X), blocks), n_jobs=n_jobs)
        assert again.tobytes() == scores.tobytes()
    for row in range(0, 1500, 150):
        alone = params.score(design_of_rows(as_rows(X[row : row + 1]), blocks))
        assert alone.tobytes() == scores[row : row + 1].tobytes()


# --- the projection -------------------------------------------------------------------------


def columns_by_block(seed, n_blocks, n_columns):
    """Each block has a column at least; they lie anyhow among the others."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.arange(n_columns) % n_blocks)
    return [np.flatnonzero(owner == b) for b in range(n_blocks)]


def part_of(X, columns):
    part = np.zeros_like(X)
    part[:, columns] = X[:, columns]
    return part


@given(
    seed=SEEDS,
    n_blocks=st.integers(2, 5),
    n_factors=st.integers(0, 4),
    spread=st.sampled_from([0.0, 3.0]),
)
@settings(max_examples=40)
def test_offset_plus_inner_product_is_the_score_for_any_number_of_blocks(
    seed, n_blocks, n_factors, spread
):
    X = random_matrix(seed, 3, 2 * n_blocks)
    params = random_params(seed, 2 * n_blocks, n_factors, spread)
    columns = columns_by_block(seed, n_blocks, 2 * n_blocks)
    items = item_matrix(params, part_of(X, columns[0]))
    parts = [params.project(part_of(X, block)) for block in columns[1:]]
    queries, offsets = query_matrix(params, parts)
    assert items.dtype == queries.dtype == np.float32 and offsets.dtype == np.float64
    assert items.shape == queries.shape == (3, n_factors + 1)
    products = np.einsum("rd,rd->r", queries.astype(np.float64), items.astype(np.float64))
    require_score(offsets + products, params, X)


@given(seed=SEEDS, n_blocks=st.integers(2, 4), n_factors=st.integers(0, 4))
@settings(max_examples=30)
def test_the_matrices_are_what_they_are_said_to_be(seed, n_blocks, n_factors):
    X = random_matrix(seed, 3, 2 * n_blocks)
    params = random_params(seed, 2 * n_blocks, n_factors)
    item, *others = columns_by_block(seed, n_blocks, 2 * n_blocks)
    close = {"rel": 1e-5, "abs": 1e-5}
    items = item_matrix(params, part_of(X, item))
    assert items == pytest.approx(np.array(naive.item_rows(params.w, params.V, X, item)), **close)
    queries, offsets = query_matrix(params, [params.project(part_of(X, block)) for block in others])
    rows, constants = naive.query_rows(params.w0, params.w, params.V, X, others)
    assert queries == pytest.approx(np.array(rows), **close)
    assert offsets == pytest.approx(np.array(constants), **close)


@given(seed=SEEDS, n_factors=st.integers(0, 4))
@settings(max_examples=20)
def test_user_and_context_in_one_row_are_the_same_query_as_in_two_parts(seed, n_factors):
    X = random_matrix(seed, 4, 6)
    params = random_params(seed, 6, n_factors)
    parts = [params.project(part_of(X, block)) for block in ([0, 1, 2], [3, 4, 5])]
    queries, offsets = query_matrix(params, parts)
    whole, constants = user_matrix(params, X, return_offset=True)
    assert whole == pytest.approx(queries, rel=1e-5, abs=1e-6)
    assert constants == pytest.approx(offsets, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n_factors", [0, 1, 5])
def test_of_ids_alone_the_matrices_are_the_parameters_themselves(n_factors):
    params = random_params(3, 7, n_factors)
    users = user_matrix(params, slice(0, 3))
    items = item_matrix(params, slice(3, 7))
    assert np.array_equal(users, np.column_stack([params.V[:3], np.ones(3, np.float32)]))
    assert np.array_equal(items, np.column_stack([params.V[3:], params.w[3:]]))
    _, offsets = user_matrix(params, slice(0, 3), return_offset=True)
    assert offsets.tolist() == [params.w0 + float(w) for w in params.w[:3]]


@pytest.mark.parametrize("columns", [slice(3, 7), slice(-4, None), slice(3, None), slice(3, 7, 1)])
def test_a_slice_and_its_one_hot_rows_are_the_same(columns):
    params = random_params(3, 7, 2)
    rows = np.eye(7)[columns]
    assert np.array_equal(item_matrix(params, columns), item_matrix(params, rows))
    assert np.array_equal(user_matrix(params, columns), user_matrix(params, sp.csr_array(rows)))


@pytest.mark.parametrize(
    "columns",
    [slice(3, 8), slice(8, 9), slice(3, 3), slice(4, 3), slice(0, 7, 2), slice(-8, 2)],
    ids=str,
)
def test_a_slice_that_leaves_the_model_is_refused(columns):
    params = random_params(3, 7, 2)
    for project in (item_matrix, user_matrix):
        with refused(ValueError, "0..6"):
            project(params, columns)


def test_features_of_another_width_are_refused():
    params = random_params(3, 7, 2)
    for project in (item_matrix, user_matrix, FMParams.project):
        with refused(ValueError, "features", "5", "7"):
            project(params, np.ones((2, 5)))
    with refused(ValueError, "5", "7"):
        params.score(np.ones((2, 5)))
    with refused(ValueError, "5", "7"):
        params.score(design_of_rows(as_rows(np.ones((2, 5)))))


def test_features_that_are_not_finite_are_named():
    params = random_params(3, 2, 2)
    for project in (item_matrix, user_matrix, FMParams.score):
        with refused(ValueError, "row 1", "column 0", "nan"):
            project(params, np.array([[1.0, 0.0], [np.nan, 0.0]]))


def test_n_jobs_changes_no_bit_of_the_matrices():
    X = random_matrix(0, 1500, 9)
    params = random_params(1, 9, 5)
    one, three = (user_matrix(params, X, return_offset=True, n_jobs=n) for n in (1, 3))
    assert one[0].tobytes() == three[0].tobytes() and one[1].tobytes() == three[1].tobytes()
    assert item_matrix(params, X).tobytes() == item_matrix(params, X, n_jobs=3).tobytes()


def test_query_matrix_leaves_its_parts_as_they_are():
    params = random_params(1, 4, 2)
    parts = [params.project(np.eye(4)), params.project(np.eye(4))]
    before = [array.copy() for part in parts for array in part]
    query_matrix(params, parts)
    assert all(
        np.array_equal(a, b) for a, b in zip(before, [a for p in parts for a in p], strict=True)
    )


# --- parameters -----------------------------------------------------------------------------


def test_parameters_are_float32_read_only_and_contiguous():
    params = FMParams(np.float32(1), [1, 2], np.asfortranarray([[1, 2], [3, 4]]))
    assert isinstance(params.w0, float)
    for array in (params.w, params.V):
        assert array.dtype == np.float32 and array.flags.c_contiguous and not array.flags.writeable
    assert (params.n_features, params.n_factors) == (2, 2)


def test_the_callers_arrays_stay_writable():
    w, V = np.zeros(2, np.float32), np.zeros((2, 1), np.float32)
    FMParams(0, w, V)
    w[0] = V[0] = 1


@pytest.mark.parametrize(
    ("w", "V"),
    [([1, 2], [[1], [2], [3]]), ([[1, 2]], [[1], [2]]), ([1, 2], [1, 2]), (1.0, [[1]])],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(w, V):
    with refused(ValueError, "n_features", str(np.shape(V))):
        FMParams(0, w, V)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_parameter_that_is_not_finite_in_float32_is_named(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused(ValueError, "w ", "feature 1"):
            FMParams(0, [0, value], [[0], [0]])
        with refused(ValueError, "V ", "feature 1"):
            FMParams(0, [0, 0], [[0, 0], [0, value]])


def test_a_global_bias_that_is_not_finite_is_named():
    with refused(ValueError, "w0"):
        FMParams(np.nan, [0], [[0]])


@given(seed=SEEDS, n_features=st.integers(0, 4), n_factors=st.integers(0, 3))
@settings(max_examples=20)
def test_state_round_trip(seed, n_features, n_factors):
    params = random_params(seed, n_features, n_factors)
    again = FMParams.from_state(params.to_state())
    assert again.w0 == params.w0
    assert np.array_equal(again.w, params.w) and np.array_equal(again.V, params.V)
    assert again.V.shape == (n_features, n_factors)


# --- the kernels ----------------------------------------------------------------------------


def entities(kernel, X, params, start, stop):
    """Run it over a range; what lies outside must keep the mark."""
    rows = as_rows(X)
    q = np.full((len(X), params.n_factors), 77, np.float32)
    b = np.full(len(X), 77.0)
    kernel(rows.indptr, rows.indices, rows.values, params.w, params.V, q, b, start, stop)
    outside = np.r_[0:start, stop : len(X)]
    assert (q[outside] == 77).all() and (b[outside] == 77).all(), "written outside of the range"
    return q, b


@pytest.mark.parametrize("n_factors", [0, 1, 4])
def test_entity_vectors(impl, n_factors):
    X = random_matrix(5, 6, 5)
    params = random_params(6, 5, n_factors)
    q, b = entities(impl(kernels.entity_vectors), X, params, 1, 5)
    for row in range(1, 5):
        vector, bias = naive.entity_vector(params.w, params.V, X[row], range(5))
        assert q[row] == pytest.approx(np.array(vector, dtype=float), rel=1e-6, abs=1e-6)
        assert b[row] == pytest.approx(bias, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
@pytest.mark.parametrize("n_factors", [0, 3])
def test_score_rows(impl, n_blocks, n_factors):
    rng = np.random.default_rng(7)
    index = rng.integers(5, size=(6, n_blocks), dtype=np.int32)
    q, b = rng.normal(size=(5, n_factors)).astype(np.float32), rng.normal(size=5)
    out = np.full(6, 77.0)
    impl(kernels.score_rows)(index, q, b, 0.25, out, 1, 5)
    assert out[0] == out[5] == 77, "written outside of the range"
    for row in range(1, 5):
        expected = 0.25 + sum(b[e] for e in index[row])
        for g in range(n_blocks):
            for h in range(g + 1, n_blocks):
                expected += naive.dot(q[index[row, g]].tolist(), q[index[row, h]].tolist())
        assert out[row] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("n_factors", [0, 3])
def test_add_part(impl, n_factors, scale):
    rng = np.random.default_rng(8)
    q, b = rng.normal(size=(4, n_factors)).astype(np.float32), rng.normal(size=4)
    total, offset = rng.normal(size=(4, n_factors)), rng.normal(size=4)
    before, offset_before = total.copy(), offset.copy()
    impl(kernels.add_part)(q, b, scale, total, offset, 1, 3)
    for row in range(4):
        inside = 1 <= row < 3
        pair = naive.dot(q[row].tolist(), before[row].tolist())
        assert total[row] == pytest.approx(before[row] + scale * q[row] * inside, rel=1e-12)
        assert offset[row] == pytest.approx(
            offset_before[row] + (b[row] + pair) * inside, rel=1e-12
        )


def test_kernels_do_not_lose_what_is_not_finite(impl):
    # fast math that assumes there is no NaN would switch off every check for divergence
    q, b, out = np.array([[np.nan], [np.inf]], np.float32), np.array([0.0, np.inf]), np.empty(2)
    index = np.array([[0], [1]], dtype=np.int32)
    with np.errstate(invalid="ignore"):  # plain Python warns
        impl(kernels.score_rows)(np.hstack([index, index]), q, b, 0.0, out, 0, 2)
    assert np.isnan(out[0]) and not np.isfinite(out[1])


@given(seed=SEEDS, n_factors=st.integers(0, 9))
@settings(max_examples=20)
def test_compiled_and_plain_kernels_agree(seed, n_factors):
    X, params = random_matrix(seed, 5, 6), random_params(seed, 6, n_factors)
    compiled = entities(how.as_compiled(kernels.entity_vectors), X, params, 0, 5)
    plain = entities(how.as_python(kernels.entity_vectors), X, params, 0, 5)
    assert compiled[0] == pytest.approx(plain[0], rel=1e-6, abs=1e-6)
    assert compiled[1] == pytest.approx(plain[1], rel=1e-12, abs=1e-12)
