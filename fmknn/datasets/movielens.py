"""load_movielens: the ratings of MovieLens 100K and 1M, whole or split as published."""

from __future__ import annotations

import os
from typing import overload

import numpy as np

from ..data.interactions import Interactions
from ..errors import DataNotFoundError
from .fetch import obtain
from .movielens_files import DATASETS

__all__ = ["load_movielens"]


@overload
def load_movielens(
    name: str = ...,
    *,
    fold: None = None,
    data_home: str | os.PathLike[str] | None = ...,
    download: bool = ...,
) -> Interactions: ...


@overload
def load_movielens(
    name: str = ...,
    *,
    fold: str,
    data_home: str | os.PathLike[str] | None = ...,
    download: bool = ...,
) -> tuple[Interactions, Interactions]: ...


def load_movielens(
    name: str = "100k",
    *,
    fold: str | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Interactions | tuple[Interactions, Interactions]:
    """Load MovieLens 100K or 1M, ratings of films from 1 to 5 by visitors of a web site.

    The data is GroupLens's, for research. Its licence forbids redistribution and, without
    permission, commercial use; publications must acknowledge it by citing [1]_. Nothing of it
    comes with fmknn.

    Parameters
    ----------
    name : {"100k", "1m"}
        100K has 100,000 ratings by 943 users of 1,682 films; 1M has 1,000,209 ratings by 6,040
        users of 3,706 films, with 3,883 films listed.
    fold : str, optional
        A published split of 100K: "u1" to "u5" (five disjoint test sets of 20,000 ratings), "ua"
        or "ub" (ten test ratings of each user). For 1M "f1" to "f5", if the folder has a
        ``ratings.npz`` with an array ``fold`` of 1 to 5: the rows of that number are the test set.
    data_home : path, optional
        The unpacked folder, ``ml-100k`` or ``ml-1m``, or the folder above it. Default: the
        environment variable ``FMKNN_DATA``.
    download : bool
        False looks on disk only.

    Returns
    -------
    ratings : Interactions
        If ``fold`` is None, in the order of the original file. Ids are integers, values the
        ratings, timestamps seconds since 1970 (None from ``ratings.npz``). Columns of
        ``item_features``: title (a label), year, genres (a tuple); of ``user_features``: age,
        gender, occupation, zip (a label).
    train, test : Interactions
        Otherwise. Both have the vocabularies of the whole.

    Raises
    ------
    DataNotFoundError
        If the data can't be had: says what was tried and where to put the files.
    ValueError
        For an unknown name or fold, or a file below ``data_home`` that isn't the original (by its
        sha256).

    Notes
    -----
    Sources, in order: ``data_home``, the cache folder (``~/.cache/fmknn`` on Linux), GroupLens's
    zip file, and for 100K the same ratings in the wheel of recbole 1.2.1, which pip fetches and
    nobody installs. What was fetched is kept in the cache folder as it came.

    A title is the published one without its year. The year enters models as a category; it is 0
    for the one film of 100K that has none (267, called "unknown"). In 1M, age is the lower bound
    of a range: 1 (under 18), 18, 25, 35, 45, 50, 56.

    References
    ----------
    .. [1] F. M. Harper and J. A. Konstan. The MovieLens Datasets: History and Context. ACM
       Transactions on Interactive Intelligent Systems 5(4), article 19, 2015.
       https://doi.org/10.1145/2827872

    Examples
    --------
    >>> train, test = load_movielens("100k", fold="u1")  # doctest: +SKIP
    >>> train  # doctest: +SKIP
    Interactions(80000 rows, 943 users, 1682 items, values, timestamps)
    >>> train.item_features.row(50)["title"]  # doctest: +SKIP
    'Star Wars'
    """
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(map(repr, DATASETS))}, got {name!r}")
    dataset = DATASETS[name]
    if fold is not None and fold not in dataset.folds:
        raise ValueError(f"fold must be None or one of {', '.join(dataset.folds)}, got {fold!r}")
    parsers = dataset.parsers if fold is None else dataset.parsers_with_folds
    try:
        source, files = obtain(
            dataset.folder,
            list(parsers),
            title=dataset.title,
            data_home=data_home,
            download=download,
        )
    except DataNotFoundError as error:
        if fold is None or parsers is dataset.parsers:
            raise
        raise ValueError(
            f"there is no published fold {fold!r} of {dataset.title}, and no ratings.npz with an "
            f"array 'fold' was found: {error}"
        ) from None
    tables = parsers[source](files)
    ratings = Interactions.from_arrays(
        tables.user,
        tables.item,
        tables.rating,
        timestamps=tables.timestamp,
        user_features=tables.users,
        item_features=tables.items,
    )
    if fold is None:
        return ratings
    tested = _in_test(fold, ratings.user_index, tables.fold)
    return ratings.take(~tested), ratings.take(tested)


def _in_test(fold: str, user_index: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
    """Which rows, in the order of the original file, are in the test set of a fold."""
    kind, which = fold[0], fold[1]
    row = np.arange(len(user_index))
    if kind == "f":
        if numbers is None:
            raise ValueError(f"ratings.npz has no array 'fold': fold {fold!r} can't be told")
        part, wanted = numbers, int(which)
    elif which in "ab":  # the first ten rows of each user, the next ten
        order = np.argsort(user_index, kind="stable")
        counts = np.bincount(user_index)
        rank = np.empty_like(row)
        rank[order] = row - np.repeat(np.cumsum(counts) - counts, counts)
        part, wanted = rank // 10, "ab".index(which)
    else:
        part, wanted = row // 20_000, int(which) - 1
    tested: np.ndarray = part == wanted
    return tested
