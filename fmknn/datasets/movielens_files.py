"""The files of MovieLens 100K and 1M: where each comes from, and how it is read."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.features import FeatureTable
from .fetch import PinnedFile, Source

__all__ = ["DATASETS", "Dataset", "Tables"]

_SITE = "https://files.grouplens.org/datasets/movielens"

# the columns of u.item after the first five
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)

# the codes of users.dat are the positions in this list
_OCCUPATIONS_1M = (
    "other|academic/educator|artist|clerical/admin|college/grad student|customer service|"
    "doctor/health care|executive/managerial|farmer|homemaker|K-12 student|lawyer|programmer|"
    "retired|sales/marketing|scientist|self-employed|technician/engineer|tradesman/craftsman|"
    "unemployed|writer"
)


def _pinned(folder: str, *files: tuple[str, int, str]) -> tuple[PinnedFile, ...]:
    return tuple(PinnedFile(name, size, sha256, folder + name) for name, size, sha256 in files)


_ZIP_100K = Source(
    "GroupLens's ml-100k.zip",
    _pinned(
        "ml-100k/",
        ("u.data", 1_979_173, "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"),
        ("u.item", 236_344, "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701"),
        ("u.user", 22_628, "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c"),
    ),
    url=f"{_SITE}/ml-100k.zip",
)

_WHEEL_100K = Source(
    "the wheel recbole 1.2.1",
    _pinned(
        "recbole/dataset_example/ml-100k/",
        (
            "ml-100k.inter",
            1_979_230,
            "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        ),
        (
            "ml-100k.item",
            66_632,
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        ),
        (
            "ml-100k.user",
            22_697,
            "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        ),
    ),
    requirement="recbole==1.2.1",
)

_TABLES_1M = (
    ("users.dat", 134_368, "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3"),
    ("movies.dat", 171_308, "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9"),
)
_ZIP_1M = Source(
    "GroupLens's ml-1m.zip",
    _pinned(
        "ml-1m/",
        (
            "ratings.dat",
            24_594_131,
            "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
        ),
        *_TABLES_1M,
    ),
    url=f"{_SITE}/ml-1m.zip",
)

# the ratings as arrays user, item, rating: the bytes of such a file vary, its sorted rows don't
_MAX_ARRAYS = 64 << 20
_ARRAYS_1M = Source("ratings.npz", (PinnedFile("ratings.npz", _MAX_ARRAYS), *_ZIP_1M.files[1:]))
_SORTED_ROWS_1M = "2bbbfbfd1c68b15451a83ceb549199e4086cfe2e44b876548f359c4cff14ef45"


@dataclass(frozen=True)
class Tables:
    """What was read: a column of the ratings each, and the two feature tables."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray | None
    fold: np.ndarray | None
    users: FeatureTable
    items: FeatureTable


def _parse_zip_100k(files: Mapping[str, bytes]) -> Tables:
    films = [line.split("|") for line in files["u.item"].decode("latin-1").splitlines()]
    people = [line.split("|") for line in files["u.user"].decode("ascii").splitlines()]
    names = _GENRES_100K.split("|")
    return _tables_100k(
        files["u.data"],
        people,
        ids=[film[0] for film in films],
        titles=[film[1] for film in films],
        genres=[
            [name for name, flag in zip(names, film[5:], strict=True) if flag == "1"]
            for film in films
        ],
    )


def _parse_wheel_100k(files: Mapping[str, bytes]) -> Tables:
    """The wheel's three tables: a line of names, then tab-separated text."""
    films = [line.split("\t") for line in files["ml-100k.item"].decode("utf-8").splitlines()[1:]]
    people = [line.split("\t") for line in files["ml-100k.user"].decode("ascii").splitlines()[1:]]
    return _tables_100k(
        files["ml-100k.inter"].partition(b"\n")[2],
        people,
        ids=[film[0] for film in films],
        # title and year as they were before; the one film without a year is misspelt there
        titles=[f"{film[1]} ({film[2]})".replace("unkonwn (unkonwn)", "unknown") for film in films],
        genres=[film[3].split(" ") for film in films],
    )


def _tables_100k(
    ratings: bytes,
    people: list[list[str]],
    ids: Iterable[str],
    titles: Iterable[str],
    genres: Iterable[Iterable[str]],
) -> Tables:
    user, item, rating, timestamp = _integers(ratings).T
    number, age, gender, occupation, zip_code = zip(*people, strict=True)
    users = _user_table(number, age, gender, occupation, zip_code)
    return Tables(user, item, rating, timestamp, None, users, _item_table(ids, titles, genres))


def _parse_zip_1m(files: Mapping[str, bytes]) -> Tables:
    user, item, rating, timestamp = _integers(files["ratings.dat"].replace(b"::", b"\t")).T
    return Tables(user, item, rating, timestamp, None, *_people_and_films_1m(files))


def _parse_arrays_1m(files: Mapping[str, bytes]) -> Tables:
    try:
        columns = _arrays(files["ratings.npz"])
        rows = np.stack([columns[name] for name in ("user", "item", "rating")])
        fold = columns.get("fold")
        if fold is not None and fold.shape != rows.shape[1:]:
            raise ValueError("array 'fold' has another length")
    except (ValueError, KeyError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"ratings.npz can't be read ({error}): replace or remove it") from None
    in_order = rows[:, np.lexsort((rows[1], rows[0]))]
    if hashlib.sha256(in_order.tobytes()).hexdigest() != _SORTED_ROWS_1M:
        raise ValueError(
            "ratings.npz doesn't hold the ratings of MovieLens 1M: replace or remove it"
        )
    user, item, rating = rows
    return Tables(user, item, rating, None, fold, *_people_and_films_1m(files))


def _arrays(npz: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(npz)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_ARRAYS:
            raise ValueError(f"it unpacks to more than {_MAX_ARRAYS} bytes")
    with np.load(io.BytesIO(npz), allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name], "<i4") for name in arrays.files}


def _people_and_films_1m(files: Mapping[str, bytes]) -> tuple[FeatureTable, FeatureTable]:
    people = [line.split("::") for line in files["users.dat"].decode("latin-1").splitlines()]
    films = [line.split("::") for line in files["movies.dat"].decode("latin-1").splitlines()]
    number, gender, age, code, zip_code = zip(*people, strict=True)
    names = _OCCUPATIONS_1M.split("|")
    occupation = [names[int(one)] for one in code]
    ids, titles, genres = zip(*films, strict=True)
    return (
        _user_table(number, age, gender, occupation, zip_code),
        _item_table(ids, titles, [one.split("|") for one in genres]),
    )


def _integers(text: bytes) -> np.ndarray:
    return np.loadtxt(io.BytesIO(text), dtype=np.int64, delimiter="\t", ndmin=2)


def _user_table(
    ids: Iterable[str],
    age: Iterable[str],
    gender: Iterable[str],
    occupation: Iterable[str],
    zip_code: Iterable[str],
) -> FeatureTable:
    return FeatureTable(
        [int(one) for one in ids],
        {
            "age": np.array([int(one) for one in age]),
            "gender": _objects(gender),
            "occupation": _objects(occupation),
            "zip": _objects(zip_code),
        },
        features=("age", "gender", "occupation"),
    )


def _item_table(
    ids: Iterable[str], titles: Iterable[str], genres: Iterable[Iterable[str]]
) -> FeatureTable:
    title, year = zip(*map(_title_and_year, titles), strict=True)
    return FeatureTable(
        [int(one) for one in ids],
        {
            "title": _objects(title),
            "year": np.array(year),
            "genres": _objects(tuple(names) for names in genres),
        },
        features=("year", "genres"),
        categorical=("year",),  # as a number, the missing year 0 would squeeze all others together
    )


# "Kolya (1996)"; a few have a blank too many or none before the year, one "(V)" for video after it
_TITLE = re.compile(r"(.+?)\s*\((\d{4})\)\s*(?:\(V\))?\s*")


def _title_and_year(published: str) -> tuple[str, int]:
    match = _TITLE.fullmatch(published)
    return (match[1], int(match[2])) if match else (published.strip(), 0)


def _objects(values: Iterable[Any]) -> np.ndarray:
    """An object array of strings or tuples, one per entry."""
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


Parser = Callable[[Mapping[str, bytes]], Tables]


@dataclass(frozen=True)
class Dataset:
    """A data set, its folds, and the sources it can be read from, the preferred one first.

    ``parsers_with_folds`` are those that can tell the folds.
    """

    title: str
    folder: str
    folds: tuple[str, ...]
    parsers: Mapping[Source, Parser]
    parsers_with_folds: Mapping[Source, Parser]


_PARSERS_100K: Mapping[Source, Parser] = {
    _ZIP_100K: _parse_zip_100k,
    _WHEEL_100K: _parse_wheel_100k,
}
DATASETS = {
    "100k": Dataset(
        "MovieLens 100K",
        "ml-100k",
        ("u1", "u2", "u3", "u4", "u5", "ua", "ub"),
        _PARSERS_100K,
        _PARSERS_100K,
    ),
    "1m": Dataset(
        "MovieLens 1M",
        "ml-1m",
        ("f1", "f2", "f3", "f4", "f5"),
        {_ZIP_1M: _parse_zip_1m, _ARRAYS_1M: _parse_arrays_1m},
        {_ARRAYS_1M: _parse_arrays_1m},
    ),
}
