"""Files of libFM and svmlight, and one-hot matrices as Interactions."""

from __future__ import annotations

import bz2
import gzip
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from refusals import refused

import fmknn
from fmknn.data.blocks import design_of_interactions
from fmknn.datasets import interactions_from_one_hot, libfm, read_libfm, write_libfm
from fmknn.errors import MissingExtraError

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def plain_read(text, first):
    """The format as libFM's manual has it: rows of (target, {feature: value})."""
    rows = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words:
            pairs = (word.split(":") for word in words[1:])
            entries = {int(name) - first: float(np.float32(v)) for name, v in pairs}
            rows.append((float(np.float32(words[0])), entries))
    return rows


def rows_of(X, y):
    dense = [
        {int(c): float(v) for c, v in zip(row.indices, row.data, strict=True) if v}
        for row in (sp.csr_array(X)[[i]] for i in range(X.shape[0]))
    ]
    return list(zip(np.float32(y).tolist(), dense, strict=True))


@st.composite
def matrices(draw):
    n_rows, n_columns = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    cells = st.one_of(st.just(0.0), FINITE)
    X = draw(st.lists(cells, min_size=n_rows * n_columns, max_size=n_rows * n_columns))
    y = draw(st.lists(FINITE, min_size=n_rows, max_size=n_rows))
    return np.array(X, np.float32).reshape(n_rows, n_columns), np.array(y)


@settings(max_examples=60)
@given(matrices(), st.booleans(), st.sampled_from([".libfm", ".gz", ".bz2"]))
def test_what_is_written_is_read_again(tmp_path_factory, given_rows, zero_based, suffix):
    X, y = given_rows
    path = tmp_path_factory.mktemp("libfm") / f"rows{suffix}"
    write_libfm(path, X, y, zero_based=zero_based)
    back, targets = read_libfm(path, n_features=X.shape[1], zero_based=zero_based)
    assert isinstance(back, sp.csr_array) and back.dtype == np.float32
    np.testing.assert_array_equal(back.toarray(), X)
    np.testing.assert_array_equal(np.float32(targets), np.float32(y))
    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(suffix, open)
    with opener(path, "rt") as file:
        assert plain_read(file.read(), not zero_based) == rows_of(X, y)


def test_files_as_they_are_found(tmp_path):
    text = "# a comment\n4 0:1.5 7:-7.9 \n2\t1:1e-5 3:2\r\n\n-1 6:1 # the third\n3 qid:4 2:+1\n5\n"
    path = tmp_path / "rows.txt"
    path.write_bytes(text.encode())
    X, y = read_libfm(str(path))
    assert X.shape == (5, 8)
    assert rows_of(X, y) == rows_of(
        np.array(
            [
                [1.5, 0, 0, 0, 0, 0, 0, -7.9],
                [0, 1e-5, 0, 2, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 1, 0],
                [0, 0, 1, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0],
            ],
            np.float32,
        ),
        [4, 2, -1, 3, 5],
    )
    X.data[0] = 2.0  # the caller's own


def test_where_features_are_counted_from_is_never_guessed(tmp_path):
    path = tmp_path / "part.libfm"
    path.write_text("1 1:1 3:1\n0 2:1 3:1\n")  # scikit-learn's "auto" takes this for one-based
    assert read_libfm(path)[0].shape == (2, 4)
    assert read_libfm(path, zero_based=False)[0].shape == (2, 3)
    with refused(ValueError, "zero_based", "'auto'"):
        read_libfm(path, zero_based="auto")


def test_the_width_is_that_of_all_files(tmp_path):
    path = tmp_path / "test.libfm"
    path.write_text("1 4:1\n")
    assert read_libfm(path, n_features=9)[0].shape == (1, 9)
    with refused(ValueError, path, "5 features", "n_features=3", "larger"):
        read_libfm(path, n_features=3)
    with refused(ValueError, "n_features", "0"):
        read_libfm(path, n_features=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 0:1\nuser item\n", ["line 2", "target 'user'"]),
        ("# x\n\n1 0:1\n1 a:1\n", ["line 4", "'a:1'"]),
        ("1 0:b\n", ["line 1", "'0:b'"]),
        ("1 0:1\n1 0\n", ["line 2", "'0'"]),
        ("1 0:1 5:1 3:1\n", ["line 1", "feature 3 after 5", "ascending"]),
        ("1 0:1\n1 2:1 2:1\n", ["line 2", "feature 2 after 2", "once"]),
        ("1 -1:1\n", ["line 1", "feature -1", "from 0"]),
        ("1 0:nan\n", ["line 1", "'0:nan'", "finite"]),
        ("1 0:1\n1 0:1e50\n", ["line 2", "'0:1e50'", "finite"]),
        ("inf 0:1\n", ["line 1", "'inf'", "finite"]),
        ("1 99999999999999:1\n", ["line 1", "99999999999999", "too large"]),
        ("1,2 0:1\n", ["line 1", "'1,2'"]),
        ("1 0:1\n1 0:1 qid:3 4:1\n", ["line 2", "'qid:3'", "before all features"]),
        ("1 qid 0:1\n", ["line 1", "'qid'", "qid:number"]),
        ("1 0:1\n1 " + "9" * 5000 + ":1\n", ["line 2", "9" * 40, "too large"]),
        ("1 0:1\n1 " + "0" * 5000 + "2:1 1:1\n", ["line 2", "feature 1 after 2"]),
        ("1 0:1\n1 2147483647:1\n", ["line 2", "2147483647", "too large"]),
        ("1 3000000000:1\n", ["line 1", "3000000000", "too large"]),
        ("", ["no rows"]),
        ("# nothing\n", ["no rows"]),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, text, words):
    path = tmp_path / "rows.libfm"
    path.write_text(text)
    with refused(ValueError, path, *words):
        read_libfm(path)


def test_a_feature_0_in_a_file_that_counts_from_1_is_refused(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("1 1:1\n1 0:1 1:1\n")
    with refused(ValueError, path, "line 2", "feature 0", "from 1", "zero_based"):
        read_libfm(path, zero_based=False)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.libfm"):
        read_libfm(tmp_path / "none.libfm")
    with pytest.raises(FileNotFoundError, match="create it first"):
        write_libfm(tmp_path / "none" / "rows.libfm", [[1.0]], [1.0])


def damaged(suffix, how):
    """A packed file that is cut off, has wrong bytes in it, or is none."""
    rows = "".join(f"{row} {row % 7}:1 9:{row}\n" for row in range(3000)).encode()
    whole = {".gz": gzip, ".bz2": bz2}[suffix].compress(rows)
    middle = len(whole) // 2
    return {
        "cut": whole[:-9],
        "bytes": whole[:middle] + b"\xff" * 40 + whole[middle + 40 :],
        "checksum": whole[:-8] + bytes(8) if suffix == ".gz" else whole[:-12] + bytes(12),
        "none": b"1 0:1\n" * 9,
    }[how]


@pytest.mark.parametrize("how", ["cut", "bytes", "checksum", "none"])
@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_a_damaged_file_is_named(tmp_path, suffix, how):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(damaged(suffix, how))
    with refused(ValueError, path):
        read_libfm(path)


@pytest.mark.parametrize("fault", [b"1 0:nan\n", b"1 0:b\n"])
def test_a_line_after_which_a_file_is_damaged_is_named(tmp_path, fault):
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(fault + b"1 0:1\n" * 99)[:-9])
    with refused(ValueError, path):
        read_libfm(path)


def test_the_widest_matrix(tmp_path):
    path = tmp_path / "rows.libfm"
    path.write_text("1 2147483646:1\n")
    assert read_libfm(path)[0].shape == (1, 2**31 - 1)
    path.write_text("1 2147483647:1\n")
    assert read_libfm(path, zero_based=False)[0].shape == (1, 2**31 - 1)
    with refused(ValueError, "n_features", "2147483647", "2147483648"):
        read_libfm(path, n_features=2**31)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([[1.0]], None, ["y is missing"]),
        ([[1.0], [2.0]], [1.0], ["y", "2 rows"]),
        ([[1.0]], [np.nan], ["y", "NaN", "row 0"]),
        ([[np.inf]], [1.0], ["X", "row 0", "column 0"]),
        (fmknn.Interactions.from_arrays([1], [2]), None, ["y is missing"]),
        (fmknn.Interactions.from_arrays([1], [2], [3.0]), [1.0], ["X only"]),
        (fmknn.Interactions.from_arrays([1], [2], [3.0], weights=[2.0]), None, ["no weights"]),
    ],
)
def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path, X, y, words):
    path = tmp_path / "rows.libfm"
    path.write_text("old")
    with refused(ValueError, *words):
        write_libfm(path, X, y)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.libfm"]


def test_interactions_are_written_with_the_columns_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(libfm, "_ROWS", 3)
    ratings = fmknn.Interactions.from_arrays(
        ["ann", "bob", "bob", "ann"],
        [7, 9, 7, 9],
        [5.0, 3.0, 1.0, 2.0],
        context={"day": ["mo", "tu", "mo", "mo"]},
        item_features={"id": [7, 9], "tags": [("x", "y"), ("y",)]},
    )
    write_libfm(tmp_path / "rows.libfm", ratings)
    X, y = read_libfm(tmp_path / "rows.libfm")
    wanted = design_of_interactions(ratings).expand(0, 4).to_scipy().toarray()
    np.testing.assert_array_equal(X.toarray(), wanted)
    assert y.tolist() == ratings.values.tolist()


def test_without_scikit_learn_the_extra_is_named(tmp_path):
    path = tmp_path / "rows.libfm"
    path.write_text("1 0:1\n")
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import fmknn\n"
        "for act in (fmknn.datasets.read_libfm, lambda p: fmknn.datasets.write_libfm(p, [[1]], [1])"
        "):\n"
        "    try: act(sys.argv[1])\n"
        "    except fmknn.errors.MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.count("pip install 'fmknn[libfm]'") == 2
    assert issubclass(MissingExtraError, ImportError)


BLOCKS = {"day": slice(5, 7), "user": slice(0, 2), "item": np.array([4, 2, 3])}


@st.composite
def one_hot(draw):
    n_rows = draw(st.integers(1, 12))
    places = [
        draw(st.lists(st.integers(0, width - 1), min_size=n_rows, max_size=n_rows))
        for width in (2, 3, 2)
    ]
    X = np.zeros((n_rows, 7), np.float32)
    for place, first in zip(places, (0, 2, 5), strict=True):
        X[np.arange(n_rows), first + np.array(place)] = 1
    return X, places


@given(one_hot(), st.booleans())
def test_one_hot_rows_become_interactions_and_back(rows, is_sparse):
    X, (users, items, days) = rows
    y = np.arange(len(X), dtype=np.float32)
    ids = {"user": ["zoe", "ann"], "day": ["sat", "sun"]}
    X_given = sp.csc_array(X) if is_sparse else X
    ratings = interactions_from_one_hot(X_given, y, blocks=BLOCKS, ids=ids)
    assert ratings.user_ids.tolist() == [ids["user"][place] for place in users]
    assert ratings.item_ids.tolist() == items
    day = ratings.context["day"]
    assert day.ids.ids[day.index].tolist() == [ids["day"][place] for place in days]
    assert ratings.values.tolist() == y.tolist()
    assert (len(ratings.users), len(ratings.items), len(day.ids)) == (2, 3, 2)
    plain = interactions_from_one_hot(X, blocks=BLOCKS)
    assert plain.values is None and list(plain.context) == ["day"]
    np.testing.assert_array_equal(
        design_of_interactions(plain).expand(0, len(X)).to_scipy().toarray(), X
    )


def test_rows_of_files_that_are_cut_alike_share_their_vocabulary():
    train = interactions_from_one_hot(
        np.eye(7)[[0]] + np.eye(7)[[2]] + np.eye(7)[[5]], [1.0], blocks=BLOCKS
    )
    test = interactions_from_one_hot(
        np.eye(7)[[1]] + np.eye(7)[[3]] + np.eye(7)[[6]], [1.0], blocks=BLOCKS
    )
    assert train.users == test.users and train.items == test.items


TWO = {"user": slice(0, 2), "item": slice(2, 4)}
GOOD = [[1, 0, 0, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("X", "options", "error", "words"),
    [
        ([[1, 0, 0, 1], [1, 1, 0, 1]], {}, ValueError, ["row 1", "2 entries", "'user'"]),
        ([[1, 0, 0, 1], [1, 0, 0, 0]], {}, ValueError, ["row 1", "0 entries", "'item'"]),
        ([[1, 0, 0, 1], [0, 2, 0, 1]], {}, ValueError, ["row 1", "has a 2 in", "a 1"]),
        ([[*row, i] for i, row in enumerate(GOOD)], {}, ValueError, ["column 4", "no block"]),
        (GOOD, {"blocks": {"user": slice(0, 2)}}, ValueError, ["'item'", "user"]),
        (GOOD, {"blocks": [0, 1]}, TypeError, ["blocks", "list"]),
        (GOOD, {"blocks": {**TWO, "item": slice(1, 4)}}, ValueError, ["'item'", "shares"]),
        (GOOD, {"blocks": {**TWO, "item": slice(2, 9)}}, ValueError, ["'item'", "column 9"]),
        (GOOD, {"ids": {"shop": [1]}}, ValueError, ["'shop'", "user, item"]),
        (GOOD, {"ids": [1, 2]}, TypeError, ["ids", "list"]),
        (GOOD, {"ids": {"user": [1]}}, ValueError, ["1 user ids", "2 columns"]),
        (GOOD, {"ids": {"user": [1, 1]}}, ValueError, ["user ids", "repeated"]),
        (GOOD, {"ids": {"user": [1.5, 2]}}, TypeError, ["user"]),
        (GOOD, {"y": [1.0]}, ValueError, ["values", "2 rows"]),
        (np.zeros((0, 4)), {}, ValueError, ["no rows"]),
    ],
)
def test_what_is_not_one_hot_is_refused(X, options, error, words):
    with refused(error, *words):
        interactions_from_one_hot(X, **{"blocks": TWO, **options})


def test_a_file_of_libfm_is_learned_as_the_ratings_themselves(tmp_path):
    ratings, _ = fmknn.datasets.make_interactions(40, 30, 400, random_state=0)
    ratings = ratings.without_features()
    write_libfm(tmp_path / "rows.libfm", ratings)
    n_users, n_items = len(ratings.users), len(ratings.items)
    X, y = read_libfm(tmp_path / "rows.libfm", n_features=n_users + n_items)
    blocks = {"user": slice(0, n_users), "item": slice(n_users, None)}
    again = interactions_from_one_hot(X, y, blocks=blocks)
    estimator = fmknn.FMRegressor(4, solver="als", n_iter=3, random_state=0)
    own, read = (fmknn.Recommender(estimator).fit(rows) for rows in (ratings, again))
    np.testing.assert_array_equal(read.estimator_.params_.V, own.estimator_.params_.V)
    estimator.fit(X, y, blocks=blocks)
    np.testing.assert_allclose(estimator.params_.V, own.estimator_.params_.V, rtol=1e-5, atol=1e-6)
