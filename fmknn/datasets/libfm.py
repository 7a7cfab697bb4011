"""Files of libFM and svmlight in and out, and one-hot matrices as Interactions."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from .._checks import require_bool, require_count
from .._files import replacing
from ..data.blocks import Columns, Design, design_of_interactions, design_of_rows
from ..data.columns import floats
from ..data.ids import IdMap, as_ids
from ..data.interactions import Context, Interactions
from ..data.rows import SparseRows, as_rows
from ..errors import MissingExtraError

__all__ = ["interactions_from_one_hot", "read_libfm", "write_libfm"]

_PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
_SIDES = ("user", "item")
_WIDEST = np.iinfo(np.int32).max
_ROWS = 1 << 18  # that are expanded and written at a time


def read_libfm(
    path: str | os.PathLike[str], *, n_features: int | None = None, zero_based: bool = True
) -> tuple[sp.csr_array, np.ndarray]:
    """Read a text file of libFM, svmlight or LIBSVM: a row per line, ``target feature:value …``.

    Parameters
    ----------
    path : path-like
        Ending in .gz or .bz2 if it is packed. What follows a ``#`` is left out, and so is the
        ``qid`` of a ranking.
    n_features : int, optional
        Width of X; default: the largest feature of this file, and one. A test file may have fewer
        or more than its training file: give both the larger number. A model has parameters for
        each, used or not: that width costs memory.
    zero_based : bool
        Whether features are counted from 0, as those of libFM are, or from 1, as those of svmlight
        are. It is never guessed: a part of a file that happens to lack feature 0 would have all its
        columns moved.

    Returns
    -------
    X : csr_array of float32, shape (n_rows, n_features)
    y : ndarray of float64, shape (n_rows,)

    Raises
    ------
    ValueError
        For a line that is none of this format (it is named), features that are not ascending,
        NaN or infinity, a feature beyond ``n_features``, a width beyond 2^31 - 1, a packed file
        that is damaged, or a file without a row.
    FileNotFoundError
        If there is no such file.
    MissingExtraError
        If scikit-learn, which parses the file, is not installed.

    Notes
    -----
    The format is that of libFM's manual, "Text Format" (S. Rendle, libFM 1.4.2, 2014,
    http://www.libfm.org). Its binary files and its files of relations are not read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "train.libfm").write_text("5 0:1 2:1\\n3 1:1 3:0.5\\n")
    ...     X, y = read_libfm(f"{folder}/train.libfm")
    >>> X.toarray().tolist(), y.tolist()
    ([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.5]], [5.0, 3.0])
    """
    zero_based = require_bool("zero_based", zero_based)
    if n_features is not None:
        n_features = require_count("n_features", n_features)
        if n_features > _WIDEST:
            raise ValueError(f"n_features must be at most {_WIDEST}, got {n_features}")
    load = _scikit_learn().load_svmlight_file
    with _opened(path) as file, np.errstate(over="ignore"):  # infinity is refused below
        try:
            X, y = load(file, dtype=np.float32, zero_based=zero_based)
        except (ValueError, OverflowError) as error:
            raise ValueError(_fault(path, zero_based) or f"{path}: {error}") from None
    if not len(y):
        raise ValueError(f"{path} has no rows")
    if X.shape[1] > _WIDEST or not (np.isfinite(X.data).all() and np.isfinite(y).all()):
        raise ValueError(_fault(path, zero_based))
    width = X.shape[1] if n_features is None else n_features
    if X.shape[1] > width:
        raise ValueError(
            f"{path} has {X.shape[1]} features, n_features={n_features}: give it and the files "
            "that go with it the larger number"
        )
    return sp.csr_array((X.data, X.indices, X.indptr), shape=(len(y), width)), y


def write_libfm(
    path: str | os.PathLike[str], X: Any, y: Any = None, *, zero_based: bool = True
) -> None:
    """Write a text file that libFM, svmlight or LIBSVM reads.

    Parameters
    ----------
    path : path-like
        Packed if it ends in .gz or .bz2. The file is written beside and renamed.
    X : Interactions, or dense or scipy sparse matrix of shape (n_rows, n_features)
        Interactions are written with the columns that a model has: users with their features,
        items with theirs, then the levels of each context.
    y : array-like of shape (n_rows,), optional
        Targets, where X is a matrix; Interactions have their own.
    zero_based : bool
        Whether features are counted from 0, as libFM does it, or from 1, as svmlight does.

    Raises
    ------
    ValueError
        For targets that are missing, of another length, or not finite, or for Interactions with
        weights, of which the format knows nothing.
    FileNotFoundError
        If the folder does not exist.
    MissingExtraError
        If scikit-learn is not installed.

    Notes
    -----
    Numbers have 16 digits: read again they are the same in float32.

    Examples
    --------
    >>> import tempfile
    >>> ratings = Interactions.from_arrays(["ann", "bob"], [7, 9], [5.0, 3.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_libfm(f"{folder}/train.libfm", ratings)
    ...     Path(folder, "train.libfm").read_text().splitlines()
    ['5 0:1 2:1', '3 1:1 3:1']
    """
    zero_based = require_bool("zero_based", zero_based)
    if isinstance(X, Interactions):
        if y is not None:
            raise ValueError("Interactions bring their own values: pass X only")
        if X.weights is not None:
            raise ValueError("the format has no weights: write X.replace(weights=None)")
        rows, y = design_of_interactions(X).expand, X.values
        n_rows = len(X)
    else:
        matrix = as_rows(X)
        rows, n_rows = matrix.slice, len(matrix)
    if y is None:
        raise ValueError("y is missing: each line begins with a target")
    floats(y, n_rows, "y")
    targets, dump = np.asarray(y, np.float64), _scikit_learn().dump_svmlight_file
    with replacing(path) as whole:
        packed = _PACKED.get(Path(path).suffix)
        with packed(whole, "wb") if packed else nullcontext(whole) as file:
            for start in range(0, n_rows, _ROWS):
                stop = min(start + _ROWS, n_rows)
                part = _with_int32(rows(start, stop))
                dump(part, targets[start:stop], file, zero_based=zero_based)


def _with_int32(rows: SparseRows) -> sp.csr_array:
    """Return rows as scipy has them, with the indices that scikit-learn writes."""
    indptr = rows.indptr.astype(np.int32)
    return sp.csr_array((rows.values, rows.indices, indptr), shape=rows.shape)


def interactions_from_one_hot(
    X: Any, y: Any = None, *, blocks: Columns, ids: Mapping[str, Any] | None = None
) -> Interactions:
    """Return the rows of a one-hot matrix as Interactions.

    Parameters
    ----------
    X : dense or scipy sparse matrix, shape (n_rows, n_features)
        With a single 1 in each row of each block, and nothing else.
    y : array-like of shape (n_rows,), optional
        Becomes the values.
    blocks : mapping of str to slice or array of columns
        Where "user" and "item" are; further blocks become contexts of their names.
    ids : mapping of str to array-like of ids, optional
        What the columns of a block stand for, one each, in ascending order of the columns.
        Default: their numbers within the block, from 0.

    Returns
    -------
    Interactions
        All columns of a block are in the vocabulary, those without a row too. So matrices of one
        width that are cut alike share it, as the parts of a split do.

    Raises
    ------
    ValueError
        For a row that has not a single 1 in a block (it is named), a column with entries that no
        block has, a missing block, or ids that are repeated or of another number.
    TypeError
        For blocks or ids of another type.

    Examples
    --------
    >>> X = [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]
    >>> blocks = {"user": slice(0, 2), "item": slice(2, 5)}
    >>> ratings = interactions_from_one_hot(X, [5, 3, 4], blocks=blocks, ids={"user": ["b", "a"]})
    >>> ratings.user_ids.tolist(), ratings.item_ids.tolist(), ratings.values.tolist()
    (['b', 'a', 'b'], [1, 2, 0], [5.0, 3.0, 4.0])
    """
    rows, names = as_rows(X), {} if ids is None else ids
    if not len(rows):
        raise ValueError("X has no rows")
    design = design_of_rows(rows, blocks)
    if not isinstance(names, Mapping):
        raise TypeError(f"ids must map blocks to ids, got {type(names).__name__}")
    for name in (*_SIDES, *names):
        if name not in blocks:
            raise ValueError(f"blocks must say where {name!r} is: it has {', '.join(blocks)}")
    for block in design.blocks:
        if block.name not in blocks:
            column = int(design.rows_of(block.name).indices.min())
            raise ValueError(
                f"column {column} is in no block, but has entries: name it, or fit an estimator on "
                "X and y as they are"
            )
    sides = {name: _side(design, name, names.get(name)) for name in blocks}
    (users, user_index), (items, item_index) = (sides.pop(name) for name in _SIDES)
    return Interactions(
        users=users,
        items=items,
        user_index=user_index,
        item_index=item_index,
        values=y,
        context={name: Context(*side) for name, side in sides.items()},
    )


def _side(design: Design, name: str, ids: Any) -> tuple[IdMap, np.ndarray]:
    """Return the vocabulary of a one-hot block, and each row's place in it."""
    block, table = design.block(name), design.rows_of(name)
    entity = design.codes[design.blocks.index(block)]
    n_entries, first = np.diff(table.indptr), table.indptr[:-1]
    is_one = n_entries == 1
    is_one[is_one] = table.values[first[is_one]] == 1
    if not is_one[entity].all():
        row = int(np.argmin(is_one[entity]))
        n = n_entries[entity[row]]
        what = f"a {table.values[first[entity[row]]]:g}" if n == 1 else f"{n} entries"
        raise ValueError(
            f"row {row} has {what} in block {name!r}, where it must have "
            "one, a 1: fit an estimator on X and y as they are"
        )
    known = np.arange(len(block.columns)) if ids is None else as_ids(ids, name)
    if len(known) != len(block.columns):
        raise ValueError(f"{len(known)} {name} ids for {len(block.columns)} columns")
    id_map = IdMap.build(known, what=name)
    if len(id_map) < len(known):
        raise ValueError(f"{name} ids are repeated: give one id per column")
    columns = table.indices[first[entity]]
    return id_map, id_map.positions(known)[np.searchsorted(block.columns, columns)]


def _scikit_learn() -> Any:
    try:
        import sklearn.datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "files of libFM need scikit-learn: pip install 'fmknn[libfm]'"
        ) from error
    return sklearn.datasets


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file, packed or not, whose damage is an error that names it."""
    try:
        with _PACKED.get(Path(path).suffix, open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the system: no such file, for instance
            raise
        raise ValueError(f"{path} is damaged: {error}") from None


def _fault(path: str | os.PathLike[str], zero_based: bool) -> str | None:
    """Return what is wrong with the first line that can't be used, and which it is."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            what = _wrong_in(line, 0 if zero_based else 1)
            if what:
                return f"{path}, line {number}: {what}"
    return None


def _wrong_in(line: bytes, first: int) -> str | None:
    """Return what is wrong with a line, if anything."""
    text = line.partition(b"#")[0].decode("ascii", "backslashreplace")
    target, *entries = text.split() or ["0"]
    if not _is_number(target):
        return f"the target {target[:40]!r} is no finite number"
    if entries and entries[0].startswith("qid:"):
        del entries[0]
    last = first - 1
    for entry in entries:
        name, _, value = entry.partition(":")
        if name == "qid":
            return f"{entry[:40]!r}, but a qid is qid:number, and before all features"
        if not name.removeprefix("-").isdecimal() or not _is_number(value):
            return f"{entry[:40]!r} is no feature:value of a whole and a finite number"
        digits = name.removeprefix("-").lstrip("0") or "0"  # int refuses thousands of them
        if len(digits) > len(str(_WIDEST)) or int(digits) - first >= _WIDEST:
            return f"feature {name[:40]} is too large: number the columns from {first}"
        feature = -int(digits) if name.startswith("-") else int(digits)
        if feature < first:
            return f"feature {feature}, but features are counted from {first}: see zero_based"
        if feature <= last:
            return f"feature {feature} after {last}: each once, and in ascending order"
        last = feature
    return None


def _is_number(text: str) -> bool:
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float32(float(text))))
    except ValueError:
        return False
