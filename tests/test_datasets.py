"""load_movielens from every source, the files it trusts and those it refuses.

Most tests run on a MovieLens of four films that is written here in the published formats. Those on
the real files need FMKNN_DATA; the one that fetches from the package index is slow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmknn.datasets import fetch, load_movielens, movielens, movielens_files
from fmknn.errors import DataNotFoundError

REAL = os.environ.get("FMKNN_DATA")

# --- a MovieLens of five ratings, in the formats of both sources ------------------------------

U_DATA = (
    b"2\t1\t5\t881250949\n1\t3\t4\t881250950\n2\t2\t1\t881250951\n1\t1\t3\t881250952\n3\t2\t2\t5\n"
)
U_USER = b"1|24|M|technician|85711\n2|53|F|other|E2A4H\n3|7|M|student|00501\n"
FLAGS = {"drama": "0|0|0|0|0|0|0|0|1" + "|0" * 10, "none": "1" + "|0" * 18}
FLAGS["cartoon"] = "0|0|0|1|1" + "|0" * 14
U_ITEM = "\n".join(
    [
        f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{FLAGS['drama']}",
        f"2|Two Friends (1986) |26-Apr-1986||http://x|{FLAGS['drama']}",
        f"3|Land Before Time III (1995) (V)|01-Jan-1995||http://x|{FLAGS['cartoon']}",
        f"267|unknown||||{FLAGS['none']}",
        "",
    ]
).encode("latin-1")

WHEEL_INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + U_DATA
WHEEL_USER = b"user_id:token\tage:token\tgender\toccupation\tzip\n" + U_USER.replace(b"|", b"\t")
WHEEL_ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tMisérables, Les\t1995\tDrama\n"
    "2\tTwo Friends\t1986\tDrama\n"
    "3\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    "267\tunkonwn\tunkonwn\tunknown\n"
).encode()

ZIP_FILES = {"u.data": U_DATA, "u.item": U_ITEM, "u.user": U_USER}
WHEEL_FILES = {
    "ml-100k.inter": WHEEL_INTER,
    "ml-100k.item": WHEEL_ITEM,
    "ml-100k.user": WHEEL_USER,
}

USERS_1M = b"1::F::1::10::48067\n2::M::56::16::70072-11\n"
MOVIES_1M = (
    "1::Associate, The (L'Associé)(1982)::Comedy\n2::Toy Story (1995)::Animation|Children's\n"
).encode("latin-1")
RATINGS_1M = b"1::2::5::978300760\n2::2::3::978302109\n2::1::4::978301968\n"


def pinned(source, contents):
    """The source with its files pinned to other contents."""
    files = [
        dataclasses.replace(
            f, size=len(contents[f.name]), sha256=hashlib.sha256(contents[f.name]).hexdigest()
        )
        if f.name in contents
        else f
        for f in source.files
    ]
    return dataclasses.replace(source, files=tuple(files))


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def write_zip(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


class Site:
    """The two places that small MovieLens can be fetched from."""

    def __init__(self, folder):
        self.zip = folder / "site" / "ml-100k.zip"
        self.wheel = folder / "index" / "recbole-1.2.1-py3-none-any.whl"
        self.wheel.parent.mkdir()
        self.pip_calls = []

    def publish_zip(self, contents=ZIP_FILES):
        write_zip(self.zip, {f"ml-100k/{name}": data for name, data in contents.items()})

    def publish_wheel(self, contents=WHEEL_FILES):
        members = {f"recbole/dataset_example/ml-100k/{name}": d for name, d in contents.items()}
        members["recbole-1.2.1.dist-info/METADATA"] = (
            b"Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\nRequires-Dist: torch\n"
        )
        members["recbole-1.2.1.dist-info/WHEEL"] = (
            b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        members["recbole-1.2.1.dist-info/RECORD"] = b""
        write_zip(self.wheel, members)

    def pip(self, command, **options):
        """Stands in for subprocess.run: pip download, without the seconds that pip takes."""
        self.pip_calls.append((command, options))
        if not self.wheel.is_file():
            stderr = "WARNING: retrying\nERROR: No matching distribution found for recbole==1.2.1\n"
            return subprocess.CompletedProcess(command, 1, "", stderr)
        target = Path(command[command.index("--dest") + 1]) / self.wheel.name
        target.write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no FMKNN_DATA."""
    monkeypatch.delenv("FMKNN_DATA", raising=False)
    monkeypatch.setattr(fetch, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "ml-100k"


@pytest.fixture
def site(cache, tmp_path, monkeypatch):
    """Small MovieLens pinned in place of the real one; nothing is published yet."""
    site = Site(tmp_path)
    zip_source = dataclasses.replace(
        pinned(movielens_files._ZIP_100K, ZIP_FILES), url=site.zip.as_uri()
    )
    parsers = {
        zip_source: movielens_files._parse_zip_100k,
        pinned(movielens_files._WHEEL_100K, WHEEL_FILES): movielens_files._parse_wheel_100k,
    }
    small = dataclasses.replace(
        movielens_files.DATASETS["100k"], parsers=parsers, parsers_with_folds=parsers
    )
    monkeypatch.setitem(movielens_files.DATASETS, "100k", small)
    monkeypatch.setattr(fetch.subprocess, "run", site.pip)
    return site


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(fetch, "_fetch", refuse)


def assert_same(one, other):
    """Equal in every array, every table, every dtype."""
    assert repr(one) == repr(other)
    for name in ("user_index", "item_index", "values", "timestamps"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert one.users == other.users
    assert one.items == other.items
    for name in ("user_features", "item_features"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.features == b.features
        assert a.categorical == b.categorical
        np.testing.assert_array_equal(a.ids, b.ids)
        assert list(a.columns) == list(b.columns)
        for column in a.columns:
            assert a[column].dtype == b[column].dtype, column
            assert a[column].tolist() == b[column].tolist(), column


# --- the schema -----------------------------------------------------------------------------


def test_100k_schema(site, tmp_path):
    ratings = load_movielens("100k", data_home=write(tmp_path / "ml-100k", ZIP_FILES))
    assert ratings.user_ids.tolist() == [2, 1, 2, 1, 3]
    assert ratings.item_ids.tolist() == [1, 3, 2, 1, 2]
    assert ratings.values.tolist() == [5, 4, 1, 3, 2]
    assert ratings.timestamps.tolist() == [881250949, 881250950, 881250951, 881250952, 5]
    assert (ratings.values.dtype, ratings.timestamps.dtype) == (np.float32, np.int64)
    assert ratings.items.ids.tolist() == [1, 2, 3, 267]  # 267 without a rating
    assert ratings.user_features.row(2) == {
        "age": 53,
        "gender": "F",
        "occupation": "other",
        "zip": "E2A4H",
    }
    assert ratings.user_features["zip"][2] == "00501"
    assert ratings.user_features.features == ("age", "gender", "occupation")
    assert ratings.item_features.features == ("year", "genres")


@pytest.mark.parametrize(
    ("item", "title", "year", "genres"),
    [
        (1, "Misérables, Les", 1995, ("Drama",)),
        (2, "Two Friends", 1986, ("Drama",)),
        (3, "Land Before Time III", 1995, ("Animation", "Children's")),
        (267, "unknown", 0, ("unknown",)),
    ],
)
@pytest.mark.parametrize("source", [ZIP_FILES, WHEEL_FILES], ids=["zip", "wheel"])
def test_100k_titles(site, tmp_path, source, item, title, year, genres):
    ratings = load_movielens("100k", data_home=write(tmp_path, source))
    assert ratings.item_features.row(item) == {"title": title, "year": year, "genres": genres}


def test_both_sources_give_the_same(site, tmp_path):
    of_zip = load_movielens("100k", data_home=write(tmp_path / "a", ZIP_FILES))
    of_wheel = load_movielens("100k", data_home=write(tmp_path / "b", WHEEL_FILES))
    assert_same(of_zip, of_wheel)


def test_the_missing_year_is_a_category_of_its_own(site, tmp_path):
    ratings = load_movielens("100k", data_home=write(tmp_path, ZIP_FILES))
    _, names = ratings.item_features.encode()
    assert [name for name in names if name.startswith("year")] == [
        "year=0",
        "year=1986",
        "year=1995",
    ]


@pytest.fixture
def small_1m(cache, monkeypatch):
    def use(contents):
        contents = {"users.dat": USERS_1M, "movies.dat": MOVIES_1M, **contents}
        whole = movielens_files.DATASETS["1m"]

        def small(parsers):
            # the zip's address leads nowhere: what isn't on disk is not to be had
            return {
                dataclasses.replace(pinned(s, contents), url=s.url and "file:///nowhere.zip"): parse
                for s, parse in parsers.items()
            }

        monkeypatch.setitem(
            movielens_files.DATASETS,
            "1m",
            dataclasses.replace(
                whole,
                parsers=small(whole.parsers),
                parsers_with_folds=small(whole.parsers_with_folds),
            ),
        )
        return contents

    return use


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def arrays_1m():
    return {"user": [2, 1, 2], "item": [2, 2, 1], "rating": [3, 5, 4], "fold": [1, 2, 1]}


@pytest.fixture
def small_arrays(small_1m, monkeypatch):
    """Small 1M as arrays: its pin is taken from the arrays above."""
    ordered = np.array([[1, 2, 2], [2, 1, 2], [5, 4, 3]], "<i4")
    digest = hashlib.sha256(ordered.tobytes()).hexdigest()
    monkeypatch.setattr(movielens_files, "_SORTED_ROWS_1M", digest)

    def use(data):
        contents = small_1m({})
        return {**contents, "ratings.npz": data}

    return use


def test_1m_from_ratings_dat(small_1m, tmp_path):
    contents = small_1m({"ratings.dat": RATINGS_1M})
    ratings = load_movielens("1m", data_home=write(tmp_path / "ml-1m", contents).parent)
    assert ratings.user_ids.tolist() == [1, 2, 2]
    assert ratings.item_ids.tolist() == [2, 2, 1]
    assert ratings.timestamps.tolist() == [978300760, 978302109, 978301968]
    assert ratings.user_features.row(1) == {
        "age": 1,
        "gender": "F",
        "occupation": "K-12 student",
        "zip": "48067",
    }
    assert ratings.user_features.row(2)["occupation"] == "self-employed"
    assert ratings.item_features.row(1)["title"] == "Associate, The (L'Associé)"
    assert ratings.item_features.row(1)["year"] == 1982
    assert ratings.item_features.row(2)["genres"] == ("Animation", "Children's")


def test_1m_from_arrays_and_its_folds(small_arrays, tmp_path):
    home = write(tmp_path / "ml-1m", small_arrays(npz(**arrays_1m())))
    ratings = load_movielens("1m", data_home=home)
    assert ratings.values.tolist() == [3, 5, 4]
    assert ratings.timestamps is None
    train, test = load_movielens("1m", data_home=home, fold="f1")
    assert (train.values.tolist(), test.values.tolist()) == ([5], [3, 4])
    assert train.users is test.users


def test_1m_arrays_with_another_rating_are_refused(small_arrays, tmp_path):
    changed = {**arrays_1m(), "rating": [3, 5, 5]}
    home = write(tmp_path, small_arrays(npz(**changed)))
    with pytest.raises(ValueError, match=r"ratings\.npz doesn't hold the ratings of MovieLens 1M"):
        load_movielens("1m", data_home=home)


@pytest.mark.parametrize(
    "arrays",
    [
        {"user": [1], "item": [2]},
        {"user": [1, 2], "item": [2], "rating": [3]},
        {**arrays_1m(), "fold": [1]},
        {**arrays_1m(), "rating": np.array([{}, 1, 2], dtype=object)},  # a pickle inside
    ],
    ids=["missing", "uneven", "short fold", "objects"],
)
def test_malformed_arrays_are_refused(small_arrays, tmp_path, arrays):
    home = write(tmp_path, small_arrays(npz(**arrays)))
    with pytest.raises(
        ValueError, match=r"ratings\.npz can't be read \(.+\): replace or remove it"
    ):
        load_movielens("1m", data_home=home)


def test_arrays_that_unpack_to_too_much_are_refused(small_arrays, tmp_path):
    home = write(tmp_path, small_arrays(npz(user=np.zeros(9 << 20, np.int64))))
    with pytest.raises(ValueError, match="it unpacks to more than"):
        load_movielens("1m", data_home=home)


def test_arrays_without_fold_have_no_folds(small_arrays, tmp_path):
    arrays = arrays_1m()
    del arrays["fold"]
    home = write(tmp_path, small_arrays(npz(**arrays)))
    with pytest.raises(ValueError, match=r"ratings\.npz has no array 'fold'"):
        load_movielens("1m", data_home=home, fold="f1")


def test_fold_of_1m_without_arrays_is_refused(small_1m, tmp_path):
    home = write(tmp_path / "ml-1m", small_1m({"ratings.dat": RATINGS_1M}))
    with pytest.raises(ValueError, match=r"no published fold 'f1' of MovieLens 1M"):
        load_movielens("1m", data_home=home, fold="f1")


@pytest.mark.parametrize(
    ("name", "fold", "message"),
    [
        ("10m", None, "name must be one of '100k', '1m', got '10m'"),
        ("100k", "u6", "fold must be None or one of u1, u2, u3, u4, u5, ua, ub, got 'u6'"),
        ("100k", "f1", "fold must be None or one of u1"),
        ("100k", 1, "fold must be None or one of u1"),
        ("1m", "u1", "fold must be None or one of f1, f2, f3, f4, f5, got 'u1'"),
    ],
)
def test_unknown_names_and_folds(cache, no_network, name, fold, message):
    with pytest.raises(ValueError, match=message):
        load_movielens(name, fold=fold)


# --- folds ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=150))
def test_ua_and_ub_are_the_first_and_next_ten_rows_of_each_user(users):
    seen = dict.fromkeys(range(5), 0)
    expected = []
    for user in users:
        expected.append(seen[user])
        seen[user] += 1
    index = np.array(users, dtype=np.int32)
    tested = movielens._in_test("ua", index, None)
    assert tested.tolist() == [rank < 10 for rank in expected]
    tested = movielens._in_test("ub", index, None)
    assert tested.tolist() == [10 <= rank < 20 for rank in expected]


def test_u1_to_u5_are_consecutive_blocks_of_20_000_rows():
    index = np.zeros(100_000, dtype=np.int32)
    for number in range(1, 6):
        rows = np.flatnonzero(movielens._in_test(f"u{number}", index, None))
        assert (rows[0], rows[-1], len(rows)) == (
            20_000 * (number - 1),
            20_000 * number - 1,
            20_000,
        )


def test_both_parts_of_a_fold_have_the_whole_vocabulary(site, tmp_path):
    train, test = load_movielens("100k", fold="u1", data_home=write(tmp_path, ZIP_FILES))
    assert (len(train), len(test)) == (0, 5)
    assert train.items is test.items
    assert train.items.ids.tolist() == [1, 2, 3, 267]
    assert train.item_features is test.item_features


# --- where files are looked for -------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "ml-100k"])
@pytest.mark.parametrize("kind", [str, Path])
def test_data_home_is_the_folder_or_the_one_above(site, no_network, tmp_path, place, kind):
    write(tmp_path / "home" / place, ZIP_FILES)
    assert len(load_movielens("100k", data_home=kind(tmp_path / "home"))) == 5


def test_environment_variable(site, no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("FMKNN_DATA", str(write(tmp_path / "home" / "ml-100k", ZIP_FILES).parent))
    assert len(load_movielens("100k")) == 5


def test_data_home_goes_before_the_environment_variable(site, no_network, tmp_path, monkeypatch):
    broken = write(tmp_path / "other", {**ZIP_FILES, "u.data": b"broken"})
    monkeypatch.setenv("FMKNN_DATA", str(broken))
    assert len(load_movielens("100k", data_home=write(tmp_path / "home", ZIP_FILES))) == 5


def test_a_data_home_without_the_data_is_reported(site, cache, tmp_path, caplog):
    write(cache, ZIP_FILES)
    home = write(tmp_path / "home" / "ml-100k", {"u.data": U_DATA}).parent
    with caplog.at_level(logging.WARNING, logger="fmknn"):
        assert len(load_movielens("100k", data_home=home, download=False)) == 5
    assert caplog.messages == [f"{home} holds no ml-100k/u.item"]


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/fmknn"),
        ("linux", {}, "/home/ann/.cache/fmknn"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/ann/Library/Caches/fmknn"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/fmknn"),
        ("win32", {}, "/home/ann/AppData/Local/fmknn"),
    ],
)
def test_cache_dir(monkeypatch, platform, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fetch.Path, "home", lambda: Path("/home/ann"))
    monkeypatch.setattr(fetch.sys, "platform", platform)
    assert fetch.cache_dir() == Path(expected)


# --- files that are not the original --------------------------------------------------------


@pytest.mark.parametrize("source", [ZIP_FILES, WHEEL_FILES], ids=["zip", "wheel"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_changed_file_in_data_home_is_an_error_that_names_it(
    site, no_network, tmp_path, source, number
):
    name = list(source)[number]
    changed = bytearray(source[name])
    changed[-2] ^= 1
    home = write(tmp_path / "home", {**source, name: bytes(changed)})
    with pytest.raises(ValueError, match=r"has sha256 \w{64}, the original has \w{64}") as caught:
        load_movielens("100k", data_home=home)
    assert str(caught.value).startswith(str(home / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "size"), [(U_DATA[:-1], r"\d+"), (U_DATA + b"\n", r"more than \d+"), (b"", "0")]
)
def test_a_file_of_another_size_is_refused(site, no_network, tmp_path, data, size):
    home = write(tmp_path / "home", {**ZIP_FILES, "u.data": data})
    with pytest.raises(ValueError, match=rf"u\.data has {size} bytes, the original has \d+"):
        load_movielens("100k", data_home=home)


def test_an_oversized_file_is_not_read_to_the_end(tmp_path):
    path = tmp_path / "u.data"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a tebibyte of nothing
    with pytest.raises(ValueError, match="more than 3 bytes"):
        fetch._read(path, fetch.PinnedFile("u.data", 3, "0" * 64))


def test_a_damaged_file_in_the_cache_is_fetched_again(site, cache, caplog):
    site.publish_zip()
    write(cache, {**ZIP_FILES, "u.item": b"damaged"})
    with caplog.at_level(logging.WARNING, logger="fmknn"):
        assert len(load_movielens("100k")) == 5
    assert (cache / "u.item").read_bytes() == U_ITEM
    assert "discarded from the cache" in caplog.text
    assert "u.item" in caplog.text


# --- fetching -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["zip", "wheel"])
def test_fetched_once_and_kept_as_it_came(site, cache, monkeypatch, source):
    contents = ZIP_FILES if source == "zip" else WHEEL_FILES
    site.publish_zip() if source == "zip" else site.publish_wheel()
    first = load_movielens("100k")
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == contents
    monkeypatch.setattr(fetch, "_fetch", lambda source: pytest.fail("fetched again"))
    assert_same(first, load_movielens("100k"))


def test_the_zip_is_preferred_to_the_wheel(site, cache):
    site.publish_zip()
    site.publish_wheel()
    load_movielens("100k")
    assert site.pip_calls == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda site: None,
        lambda site: write(site.zip.parent, {"ml-100k.zip": b"<html>not here</html>"}),
        lambda site: site.publish_zip({**ZIP_FILES, "u.user": U_USER[::-1]}),
        lambda site: site.publish_zip({"u.data": U_DATA}),
    ],
    ids=["unreachable", "a web page", "other contents", "a member missing"],
)
def test_a_zip_that_cannot_be_used_leads_to_the_wheel(site, cache, spoil):
    spoil(site)
    site.publish_wheel()
    assert len(load_movielens("100k")) == 5
    assert sorted(path.name for path in cache.iterdir()) == sorted(WHEEL_FILES)


def test_pip_only_downloads_that_wheel(site, cache):
    site.publish_wheel()
    load_movielens("100k")
    ((command, options),) = site.pip_calls
    assert command[:5] == [sys.executable, "-m", "pip", "download", "recbole==1.2.1"]
    assert {"--no-deps", "--only-binary=:all:"} < set(command)
    assert options["timeout"] > 0


def test_real_pip_fetches_the_wheel(site, cache, monkeypatch):
    pytest.importorskip("pip", reason="pip is not installed here")
    site.publish_wheel()
    monkeypatch.undo()  # the true subprocess.run again ...
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # ... with a folder for an index
    monkeypatch.setenv("PIP_FIND_LINKS", str(site.wheel.parent))
    source = pinned(movielens_files._WHEEL_100K, WHEEL_FILES)
    assert fetch._fetch(source) == WHEEL_FILES


def test_temporary_files_are_removed(site, cache, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(fetch.tempfile, "tempdir", str(temporary))
    write(site.zip.parent, {"ml-100k.zip": b"not a zip"})
    site.publish_wheel()
    load_movielens("100k")
    assert list(temporary.iterdir()) == []


def test_only_pinned_members_are_read_whatever_else_is_there(site, cache, tmp_path):
    members = {f"ml-100k/{name}": data for name, data in ZIP_FILES.items()}
    members |= {"../escaped": b"x", "/absolute": b"x", "ml-100k/../../escaped": b"x"}
    write_zip(site.zip, members)
    before = sorted(tmp_path.parent.rglob("*escaped*"))
    assert len(load_movielens("100k")) == 5
    assert sorted(path.name for path in cache.iterdir()) == sorted(ZIP_FILES)
    assert sorted(tmp_path.parent.rglob("*escaped*")) == before == []


def test_a_member_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    archive = write_zip(tmp_path / "x.zip", {"u.data": bytes(50 << 20)})
    file = fetch.PinnedFile("u.data", 10, "0" * 64, "u.data")
    with pytest.raises(ValueError, match=r"u\.data in x\.zip has more than 10 bytes"):
        fetch._read_members(archive, (file,))


def test_an_endless_download_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_MAX_ARCHIVE", 100_000)
    (tmp_path / "endless").write_bytes(bytes(200_000))
    with pytest.raises(OSError, match="is larger than 100000 bytes"):
        fetch._download((tmp_path / "endless").as_uri(), write(tmp_path / "target", {}))


def test_a_cache_that_cannot_be_written_is_no_obstacle(site, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(fetch, "cache_dir", lambda: tmp_path / "file")
    site.publish_zip()
    assert len(load_movielens("100k")) == 5
    assert "can't keep the data in" in caplog.text


def test_a_crash_while_writing_leaves_no_half_file(cache, monkeypatch):
    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        fetch._store(cache, {"u.data": U_DATA})
    assert list(cache.iterdir()) == []


# --- nothing to be had ----------------------------------------------------------------------


def test_offline_says_what_was_tried_and_where_to_put_the_files(site, cache, tmp_path):
    with pytest.raises(DataNotFoundError) as caught:
        load_movielens("100k", data_home=tmp_path / "home")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("MovieLens 100K can't be had")
    for part in (
        f"{tmp_path / 'home'} holds no ml-100k/u.data",
        f"the cache {cache} holds none",
        "GroupLens's ml-100k.zip failed: <urlopen error",
        "ERROR: No matching distribution found for recbole==1.2.1",
        f"put u.data, u.item, u.user of {site.zip.as_uri()} into {cache}",
        "data_home= or FMKNN_DATA",
    ):
        assert part in message


def test_without_pip(site, cache, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DataNotFoundError, match=r"has no pip to fetch recbole==1\.2\.1 with: .*ensurepip"
    ):
        load_movielens("100k")
    assert site.pip_calls == []


def test_pip_that_hangs(site, cache, monkeypatch):
    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(fetch.subprocess, "run", hang)
    with pytest.raises(DataNotFoundError, match=r"pip download recbole==1\.2\.1 took over 300 s"):
        load_movielens("100k")


def test_download_false_looks_only_on_disk(site, cache, no_network):
    site.publish_zip()
    with pytest.raises(DataNotFoundError, match="downloading is switched off"):
        load_movielens("100k", download=False)


def test_1m_is_not_to_be_had(small_1m, cache):
    small_1m({"ratings.dat": RATINGS_1M})
    with pytest.raises(DataNotFoundError, match=r"put ratings\.dat, users\.dat, movies\.dat"):
        load_movielens("1m")


# --- the real files -------------------------------------------------------------------------


def real(folder, *names):
    """The real folder under FMKNN_DATA; without it, skip here and fail where CI is set."""
    path = Path(REAL or "FMKNN_DATA") / folder
    if not all((path / name).is_file() for name in names):
        reason = f"needs {folder}/{names[0]} below FMKNN_DATA (now {REAL!r})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def rows_of(interactions):
    columns = (interactions.user_ids, interactions.item_ids, interactions.values)
    return set(zip(*(c.tolist() for c in (*columns, interactions.timestamps)), strict=True))


@pytest.mark.parametrize("fold", ["u1", "u2", "u3", "u4", "u5", "ua", "ub"])
def test_folds_are_the_published_ones(fold):
    folder = real("ml-100k", "u.data", f"{fold}.base", f"{fold}.test")
    parts = load_movielens("100k", fold=fold, data_home=folder)
    for part, ending in zip(parts, ("base", "test"), strict=True):
        lines = (folder / f"{fold}.{ending}").read_text().splitlines()
        published = {tuple(int(field) for field in line.split("\t")) for line in lines}
        assert len(part) == len(lines)
        assert rows_of(part) == published


def test_real_100k():
    folder = real("ml-100k", "u.data", "u.item", "u.user")
    ratings = load_movielens("100k", data_home=folder)
    assert repr(ratings) == ("Interactions(100000 rows, 943 users, 1682 items, values, timestamps)")
    first = ratings.take([0])
    assert rows_of(first) == {(196, 242, 3, 881250949)}
    assert np.bincount(ratings.values.astype(int)).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    films = ratings.item_features
    assert films.row(242) == {"title": "Kolya", "year": 1996, "genres": ("Comedy",)}
    assert films.row(127)["title"] == "Godfather, The"
    assert films.ids[films["year"] == 0].tolist() == [267]
    assert (films["year"][films["year"] > 0].min(), films["year"].max()) == (1922, 1998)
    assert len({genre for genres in films["genres"] for genre in genres}) == 19
    assert films["title"][1632] == "Á köldum klaka (Cold Fever)"


def test_real_1m():
    folder = real("ml-1m", "users.dat", "movies.dat")
    if not (folder / "ratings.dat").is_file():
        real("ml-1m", "ratings.npz")
    ratings = load_movielens("1m", data_home=folder)
    assert (len(ratings), len(ratings.users), len(ratings.items)) == (1_000_209, 6_040, 3_883)
    assert len(np.unique(ratings.item_index)) == 3_706
    assert np.bincount(ratings.values.astype(int)).tolist() == [
        0,
        56_174,
        107_557,
        261_197,
        348_971,
        226_310,
    ]
    assert (ratings.item_features["year"] > 0).all()
    assert len({genre for genres in ratings.item_features["genres"] for genre in genres}) == 18
    assert set(ratings.user_features["age"].tolist()) == {1, 18, 25, 35, 45, 50, 56}


def test_real_1m_folds_partition_it():
    folder = real("ml-1m", "ratings.npz", "users.dat", "movies.dat")
    tested = [load_movielens("1m", data_home=folder, fold=f"f{n}")[1] for n in range(1, 6)]
    assert sum(map(len, tested)) == 1_000_209
    pairs = [part.user_index.astype(np.int64) * 4000 + part.item_index for part in tested]
    assert len(np.unique(np.concatenate(pairs))) == 1_000_209


@pytest.mark.slow
def test_the_wheel_of_the_package_index_is_the_same_movielens(cache, monkeypatch):
    folder = real("ml-100k", "u.data", "u.item", "u.user")
    published = load_movielens("100k", data_home=folder)
    whole = movielens_files.DATASETS["100k"]
    only_wheel = {movielens_files._WHEEL_100K: movielens_files._parse_wheel_100k}
    monkeypatch.setitem(
        movielens_files.DATASETS, "100k", dataclasses.replace(whole, parsers=only_wheel)
    )
    assert_same(published, load_movielens("100k"))
    monkeypatch.setattr(fetch, "_fetch", lambda source: pytest.fail("fetched again"))
    assert_same(published, load_movielens("100k"))
