"""Users and context in, query rows and exclusion lists out, against the textbook."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from textbook import Textbook

from fmknn.data.blocks import design_of_interactions
from fmknn.data.features import FeatureTable
from fmknn.data.ids import IdMap
from fmknn.data.interactions import Interactions
from fmknn.errors import UnknownIdError
from fmknn.model import storage
from fmknn.model.params import FMParams
from fmknn.serving.catalog import Catalog
from fmknn.serving.queries import exclusions, id_list, known_positions, make_queries

DATA = Interactions.from_arrays(
    [7, 3, 3, 7, 9],
    ["b", "a", "c", "c", "a"],
    [5, 1, 2, 3, 4],
    context={"day": ["mon", "tue", "mon", "sun", "mon"], "shop": [2, 1, 1, 2, 2]},
    user_features=FeatureTable([3, 7, 9, 11], {"age": [20, 40, 33, 70], "sex": list("fmmf")}),
    item_features=FeatureTable(list("abcd"), {"tags": [("x", "y"), ("y",), (), ("x",)]}),
)
CATALOG = Catalog.of(DATA, design_of_interactions(DATA))


def random_model(seed=0, k=3):
    rng = np.random.default_rng(seed)
    p = CATALOG.user_rows.n_columns
    return FMParams(rng.normal(), rng.normal(size=p), rng.normal(size=(p, k)))


MODEL = random_model()
BOOK = Textbook(DATA, MODEL)


def scores_of(queries):
    """offset + <query row, item row> for every query and item."""
    q, b = MODEL.project(CATALOG.item_rows)
    return queries.offsets[:, None] + queries.rows @ np.column_stack([q, b]).T


def queries_for(users, context=None, **options):
    return make_queries(MODEL, CATALOG, np.array(users), context, **options)


# --- rows and offsets --------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 6))
@settings(max_examples=20)
def test_rows_and_offsets_are_the_textbooks(seed, k):
    model = random_model(seed, k)
    book = Textbook(DATA, model)
    users, context = [9, 3, 9], {"day": ["sun", "mon", "mon"], "shop": [1, 2, 1]}
    queries = make_queries(model, CATALOG, np.array(users), context)
    X = np.zeros((3, len(model.w)))
    for r, asked in enumerate(zip(users, *context.values(), strict=True)):
        for block, id_ in zip(("user", "day", "shop"), asked, strict=True):
            for column, x in book.rows[block][book.place(block, id_)]:
                X[r, column] = x
    columns = [sorted({c for row in book.rows[b] for c, _ in row}) for b in ("user", "day", "shop")]
    rows, offsets = naive.query_rows(model.w0, model.w, model.V, X, columns)
    np.testing.assert_allclose(queries.rows, rows, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(queries.offsets, offsets, rtol=1e-5, atol=1e-5)
    assert queries.rows.dtype == np.float32 and queries.offsets.dtype == np.float64
    assert queries.kept.tolist() == [0, 1, 2]
    assert queries.user_positions.tolist() == [2, 0, 2]


@pytest.mark.parametrize("user", [3, 7, 9, 11])
@pytest.mark.parametrize("day", ["mon", "sun", "tue"])
def test_scores_of_all_items(user, day):
    queries = queries_for([user], {"day": day, "shop": 2})
    expected = BOOK.item_scores(user=user, day=day, shop=2)
    np.testing.assert_allclose(scores_of(queries)[0], expected, atol=1e-5)


def test_one_level_stands_for_all_queries():
    one = queries_for([3, 7], {"day": "sun", "shop": 1})
    each = queries_for([3, 7], {"day": ["sun", "sun"], "shop": np.array([1, 1])})
    assert one.rows.tobytes() == each.rows.tobytes()
    assert one.offsets.tobytes() == each.offsets.tobytes()


@pytest.mark.parametrize("n_jobs", [2, None])
def test_a_batch_equals_its_rows_on_any_number_of_threads(n_jobs):
    rng = np.random.default_rng(0)
    users = rng.choice([3, 7, 9, 11], size=2000)
    days = rng.choice(["mon", "tue", "sun"], size=2000)
    batch = queries_for(users, {"day": days, "shop": 1}, n_jobs=n_jobs)
    for r in range(0, 2000, 333):
        alone = queries_for(users[r : r + 1], {"day": days[r : r + 1], "shop": 1})
        assert alone.rows.tobytes() == batch.rows[r].tobytes()
        assert alone.offsets.tobytes() == batch.offsets[r].tobytes()


def test_nobody():
    queries = queries_for(np.empty(0, np.int64), {"day": "mon", "shop": 1})
    assert queries.rows.shape == (0, 4)
    assert len(queries.offsets) == len(queries.kept) == 0


# --- a context that is left out ----------------------------------------------------------------


def test_left_out_is_an_error_that_names_the_column():
    with refused(ValueError, "'shop'", "missing"):
        queries_for([3], {"day": "mon"})


def test_left_out_as_zero_is_a_row_without_the_block():
    queries = queries_for([3], {"shop": 1}, context_default="zero")
    np.testing.assert_allclose(scores_of(queries)[0], BOOK.item_scores(user=3, shop=1), atol=1e-5)


def test_left_out_as_mean_is_the_mean_score_over_the_training_rows():
    queries = queries_for([11], {"shop": 1}, context_default="mean")
    days = DATA.context["day"].ids.ids[DATA.context["day"].index].tolist()
    expected = np.mean([BOOK.item_scores(user=11, shop=1, day=day) for day in days], axis=0)
    np.testing.assert_allclose(scores_of(queries)[0], expected, atol=1e-5)


def test_a_context_that_is_given_needs_no_default():
    given_ = {"day": "mon", "shop": 1}
    for default in ("zero", "mean"):
        assert (
            queries_for([3], given_, context_default=default).rows.tobytes()
            == queries_for([3], given_).rows.tobytes()
        )


# --- unknown ids -------------------------------------------------------------------------------


def test_unknown_users_raise():
    with refused(UnknownIdError, "user", "8", "1 more"):
        queries_for([3, 8, 5], {"day": "mon", "shop": 1})


def test_unknown_levels_raise():
    with refused(UnknownIdError, "day", "'fri'"):
        queries_for([3], {"day": "fri", "shop": 1})


def test_skip_leaves_out_who_has_an_unknown_id_anywhere():
    queries = queries_for(
        [3, 8, 9, 7], {"day": ["mon", "mon", "fri", "sun"], "shop": 1}, unknown="skip"
    )
    assert queries.kept.tolist() == [0, 3]
    assert queries.user_positions.tolist() == [0, 1]
    same = queries_for([3, 7], {"day": ["mon", "sun"], "shop": 1})
    assert queries.rows.tobytes() == same.rows.tobytes()
    assert queries.offsets.tobytes() == same.offsets.tobytes()


def test_cold_goes_by_what_is_known():
    queries = queries_for([8, 3, 3], {"day": ["sun", "fri", "mon"], "shop": 1}, unknown="cold")
    assert queries.kept.tolist() == [0, 1, 2]
    assert queries.user_positions.tolist() == [-1, 0, 0]
    got = scores_of(queries)
    for row, ids in zip(got, [{"day": "sun"}, {"user": 3}, {"user": 3, "day": "mon"}], strict=True):
        np.testing.assert_allclose(row, BOOK.item_scores(shop=1, **ids), atol=1e-5)


@pytest.mark.parametrize("users, context", [(["3"], {}), ([3], {"day": 1}), ([3], {"shop": "1"})])
@pytest.mark.parametrize("unknown", ["raise", "skip", "cold"])
def test_an_id_of_the_wrong_type_is_an_error_under_every_policy(users, context, unknown):
    with refused(TypeError, "integers", "strings"):
        queries_for(users, {"day": "mon", "shop": 1, **context}, unknown=unknown)


# --- other bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context, options, words",
    [
        ({"day": ["mon", "mon"], "shop": 1}, {}, ["'day'", "2 levels", "3", "one for all"]),
        ({"day": "mon", "shop": 1, "hour": 3}, {}, ["'hour'", "day, shop"]),
        (
            {"day": "mon", "shop": 1},
            {"unknown": "ignore"},
            ["unknown", "'ignore'", "raise, skip, cold"],
        ),
        ({"day": "mon"}, {"context_default": "none"}, ["context_default", "'none'", "zero"]),
    ],
)
def test_bad_arguments_are_refused(context, options, words):
    with refused(ValueError, *words):
        queries_for([3, 7, 9], context, **options)


@pytest.mark.parametrize("context", [1.0, ["day"], {"day": 1.0, "shop": 1}])
def test_a_context_of_the_wrong_type_is_refused(context):
    with refused(TypeError):
        queries_for([3], context)


def test_an_unknown_level_for_all_is_an_error_though_nobody_asks():
    with refused(UnknownIdError, "day", "'fri'"):
        queries_for(np.empty(0, np.int64), {"day": "fri", "shop": 1})


# --- ids, candidates, exclusions ---------------------------------------------------------------


@pytest.mark.parametrize(
    "ids, expected",
    [
        (3, [3]),
        (np.int32(3), [3]),
        ("ann", ["ann"]),
        ([3, 1], [3, 1]),
        ((), []),
        (np.array(["a"]), ["a"]),
    ],
)
def test_id_list(ids, expected):
    assert id_list(ids, "user").tolist() == expected


@pytest.mark.parametrize("ids", [1.5, None, True, [True], [1.0], [None], [1, "a"], object()])
def test_id_list_refuses_what_is_no_id(ids):
    with refused(TypeError):
        id_list(ids, "user")


def test_known_positions():
    items = IdMap.build(["a", "c", "d"], what="item")
    assert known_positions(items, ["d", "a", "d"], "raise").tolist() == [2, 0, 2]
    assert known_positions(items, "c", "raise").tolist() == [1]
    assert known_positions(items, ["d", "b"], "skip").tolist() == [2]
    assert known_positions(items, ["d", "b"], "cold").tolist() == [2]
    with refused(UnknownIdError, "item", "'b'"):
        known_positions(items, ["d", "b"], "raise")


def excluded(users, unknown="raise", seen=True, exclude=None):
    users = np.array(users)
    queries = queries_for(users, {"day": "mon", "shop": 1}, unknown=unknown)
    lists = exclusions(CATALOG, users, queries, seen, exclude, unknown)
    items = DATA.items.ids[lists.indices].tolist()
    return [items[a:b] for a, b in zip(lists.indptr, lists.indptr[1:], strict=False)]


def test_seen_items_are_those_of_the_training_rows():
    assert excluded([9, 3, 11, 7]) == [["a"], ["a", "c"], [], ["b", "c"]]
    assert excluded([9, 3], seen=False) == [[], []]


def test_excluded_items_come_on_top():
    exclude = {3: ["d", "a"], 9: "b", 7: []}
    assert excluded([9, 3, 3, 7, 11], exclude=exclude) == [
        ["a", "b"],
        ["a", "c", "d"],
        ["a", "c", "d"],
        ["b", "c"],
        [],
    ]
    assert excluded([9, 3], seen=False, exclude=exclude) == [["b"], ["a", "d"]]


def test_exclusions_follow_the_users_that_are_kept():
    assert excluded([8, 9, 5, 3], "skip", exclude={3: ["b"], 9: ["d"]}) == [
        ["a", "d"],
        ["a", "b", "c"],
    ]


def test_a_cold_user_has_seen_nothing_but_may_exclude():
    assert excluded([8, 9], "cold", exclude={8: ["d"]}) == [["d"], ["a"]]


def test_users_that_are_not_asked_for_may_be_in_it():
    assert excluded([9], exclude={3: ["d"]}) == [["a"]]


def test_users_that_training_never_saw_may_not_be_in_it():
    with refused(UnknownIdError, "user", "5"):
        excluded([9], exclude={9: ["b"], 5: ["b"]})
    for unknown in ("skip", "cold"):
        assert excluded([9], unknown, exclude={9: ["b"], 5: ["b"]}) == [["a", "b"]]


def test_unknown_items_in_exclude():
    with refused(UnknownIdError, "item", "'z'"):
        excluded([9], exclude={9: ["z"]})
    assert excluded([9], "skip", exclude={9: ["z", "b"]}) == [["a", "b"]]


def test_exclude_must_be_a_mapping_with_users_of_the_right_type():
    for exclude in (["a"], [], "a", 0):
        with refused(TypeError, "mapping"):
            excluded([9], exclude=exclude)
    with refused(TypeError, "item", "integers", "strings"):
        excluded([9], exclude={9: [1]})
    with refused(TypeError, "user", "integers", "strings"):  # it would exclude nothing, silently
        excluded([9], exclude={"9": ["b"]})


# --- the catalog -------------------------------------------------------------------------------


def test_the_catalog_survives_saving(tmp_path):
    storage.save(tmp_path / "catalog", *CATALOG.to_state())
    loaded = Catalog.from_state(*storage.load(tmp_path / "catalog"))
    assert (loaded.users, loaded.items) == (CATALOG.users, CATALOG.items)
    assert list(loaded.contexts) == ["day", "shop"]
    asked = np.array([3, 7, 11]), {"day": ["mon", "sun", "tue"], "shop": 2}
    before, after = (make_queries(MODEL, catalog, *asked) for catalog in (CATALOG, loaded))
    assert before.rows.tobytes() == after.rows.tobytes()
    mean = [
        make_queries(MODEL, catalog, asked[0], None, context_default="mean").rows.tobytes()
        for catalog in (CATALOG, loaded)
    ]
    assert mean[0] == mean[1]
    assert loaded.seen.pairs()[1].tolist() == CATALOG.seen.pairs()[1].tolist()
    assert loaded.row_counts.tolist() == CATALOG.row_counts.tolist() == [2, 2, 1, 0]
