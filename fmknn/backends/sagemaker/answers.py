"""What a k-NN batch transform answered: read whole, in any order, and held against our own numbers.

SageMaker lists neighbours by ascending "distance", which under the metric INNER_PRODUCT is the raw
inner product: the best item comes last (AWS, "k-NN Request and Response Formats", and the answers
printed in AWS's post "Extending Amazon SageMaker factorization machines algorithm to predict top x
recommendations"). Nothing here depends on that order: labels are ranked anew by exact scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import AnswerError
from ...index.rank import pair_scores

__all__ = ["parse_answers", "require_best", "require_inner_products"]

_TOLERANCE = 1e-4  # relative to the product of the norms: float32 sums
_HALF_DECIMAL = 5e-5  # should the container print four decimals, as AWS's post shows them


def parse_answers(
    data: bytes, n_queries: int, k: int, n_items: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and distances of one output object.

    Parameters
    ----------
    data : bytes
        JSON objects one after the other, with or without line ends between them.
    n_queries : int
        As many objects there must be.
    k : int
        At most so many neighbours per object.
    n_items : int
        Labels are positions below this.
    where : str
        What errors call the object.

    Returns
    -------
    labels : ndarray of int64, shape (n_queries, k)
        -1 where an answer has fewer.
    distances : ndarray of float64, shape (n_queries, k)
        NaN where an answer has fewer.

    Raises
    ------
    AnswerError
        Naming the answer that can't be read, or the number of answers if it is another.

    Examples
    --------
    >>> parse_answers(b'{"distances": [0.5, 2.0], "labels": [1.0, 0.0]}', 1, 2, 2, "a.out")
    (array([[1, 0]]), array([[0.5, 2. ]]))
    """
    labels = np.full((n_queries, k), -1, np.int64)
    distances = np.full((n_queries, k), np.nan)
    count = 0
    for count, answer in enumerate(_objects(data, where), start=1):
        if count > n_queries:
            break
        row = f"answer {count} of {where}"
        found, values = (_numbers(answer, name, row) for name in ("labels", "distances"))
        if len(found) != len(values) or len(found) > k:
            raise AnswerError(
                f"{row} has {len(found)} labels and {len(values)} distances, at most {k} of each "
                "were asked for"
            )
        if (found < 0).any() or (found >= n_items).any() or (found != np.floor(found)).any():
            raise AnswerError(f"{row} has a label that is no position within 0..{n_items - 1}")
        whole = found.astype(np.int64)
        if len(np.unique(whole)) < len(whole):
            raise AnswerError(f"{row} names an item twice")
        labels[count - 1, : len(whole)] = whole
        distances[count - 1, : len(whole)] = values
    if count != n_queries:
        more = "more than " if count > n_queries else ""
        raise AnswerError(
            f"{where} has {more}{min(count, n_queries)} answers for {n_queries} queries: "
            "run it again under another run_id, with a smaller max_payload_mb if it broke off"
        )
    return labels, distances


def _objects(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    """Yield JSON objects that follow one another; line ends are not to be relied on."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AnswerError(f"{where} is no text at byte {error.start}") from None
    decoder, at, number = json.JSONDecoder(), 0, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at == len(text):
            return
        number += 1
        try:
            answer, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise AnswerError(
                f"answer {number} of {where} is not JSON: {text[at : at + 40]!r}: "
                "run it again under another run_id"
            ) from None
        if not isinstance(answer, dict):
            raise AnswerError(f"answer {number} of {where} is no object")
        # the form of application/json wraps the answers of a request
        inner = answer.get("predictions")
        wrapped = inner if isinstance(inner, list) else [answer]
        for one in wrapped:
            if not isinstance(one, dict):
                raise AnswerError(f"answer {number} of {where} is no object")
            yield one


def _numbers(answer: dict[str, Any], name: str, row: str) -> np.ndarray:
    values = answer.get(name)
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise AnswerError(f'{row} has no list of numbers "{name}": was verbose output asked for?')
    try:
        array = np.array(values, np.float64)
    except OverflowError:
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise AnswerError(f'{row} has NaN or infinity in "{name}"')
    return array


def require_inner_products(
    labels: np.ndarray, distances: np.ndarray, queries: np.ndarray, vectors: np.ndarray, where: str
) -> None:
    """Refuse distances that are not the inner products of query and item.

    Parameters
    ----------
    labels, distances : ndarray, shape (n_queries, k)
        As :func:`parse_answers` gives them.
    queries, vectors : ndarray of float32

    Raises
    ------
    AnswerError
        Naming the first pair that differs by more than 1e-4 of the product of the norms and half
        a fourth decimal.
    """
    rows, columns = np.nonzero(labels >= 0)
    items = labels[rows, columns]
    wanted = pair_scores(queries[rows], vectors, items)
    got = distances[rows, columns]
    scale = _norms(queries)[rows] * _norms(vectors[items])
    wrong = np.abs(got - wanted) > _TOLERANCE * scale + _HALF_DECIMAL
    if wrong.any():
        at = int(np.argmax(wrong))
        raise AnswerError(
            f"the distances in {where} are not inner products: item {items[at]} has {got[at]:.6g} "
            f"instead of {wanted[at]:.6g}: use search='local'"
        )


def require_best(
    labels: np.ndarray, queries: np.ndarray, vectors: np.ndarray, allowed: np.ndarray, where: str
) -> None:
    """Refuse answers of an exhaustive search that miss a clearly better item.

    Parameters
    ----------
    labels : ndarray of int64, shape (n_queries, k)
    queries, vectors : ndarray of float32
    allowed : ndarray of int64
        The items that were indexed.

    Raises
    ------
    AnswerError
        Naming the first item that is missed.
    """
    indexed = vectors if len(allowed) == len(vectors) else vectors[allowed]
    largest = float(_norms(indexed).max())
    margin = _TOLERANCE * largest * _norms(queries) + _HALF_DECIMAL
    place = np.full(len(vectors), -1)
    place[allowed] = np.arange(len(allowed))
    for row, scores in enumerate(queries @ indexed.T):
        answered = np.zeros(len(allowed), bool)
        answered[place[labels[row][labels[row] >= 0]]] = True
        if answered.all():
            continue
        best = int(np.argmax(np.where(answered, -np.inf, scores)))
        if not answered.any() or scores[best] > scores[answered].min() + margin[row]:
            raise AnswerError(
                f"an answer in {where} misses item {allowed[best]}, which is better than one of "
                "those it names: use search='local'"
            )


def _norms(matrix: np.ndarray) -> np.ndarray:
    return np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1))
