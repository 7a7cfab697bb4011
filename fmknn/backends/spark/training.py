"""Spark's own factorization machines in, FMParams out.

Rows travel as int32 codes of entities, or are in Spark already; sparse vectors are made of them on
the executors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..._random import seed_sequence
from ...data.blocks import Block, Design
from ...data.ids import IdMap, as_ids
from ...data.rows import SparseRows
from ...errors import DivergenceError
from ...model.params import FMParams
from ...solvers.base import Callback, Fit, SolverSpec
from .config import SparkFM

__all__ = ["SparkSolver", "TrainedFM", "require_trainable", "train_frame"]

_MOST_NUMBERS = 2**31 - 1  # in an array of the JVM
_LABEL, _FEATURES = "label", "features"


class SparkSolver:
    """Trains an FM by ``pyspark.ml``.

    Parameters
    ----------
    spark : SparkSession
    spec : SolverSpec
        Its config is a :class:`fmknn.SparkFM`.
    partitions : int, optional
        Of the rows.

    Raises
    ------
    ValueError
        If Spark can't train what is asked.
    """

    def __init__(self, spark: Any, spec: SolverSpec, partitions: int | None = None) -> None:
        require_trainable(spec)
        self.spark, self.spec, self.partitions = spark, spec, partitions

    def train(
        self,
        design: Design,
        y: np.ndarray,
        *,
        start: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train from scratch; see :class:`fmknn.solvers.base.Solver`.

        ``history`` has one entry for all steps, with the seconds they took, and ``state`` is
        empty: nothing can go on from it. Sums over the machines are rounded in another order each
        time; ``random_state`` is what the start is drawn from.

        Raises
        ------
        ValueError
            For row weights, callbacks or a start, which Spark does not take, or too many columns.
        DivergenceError
            If the trained parameters are NaN or infinite.
        """
        if start is not None:
            raise ValueError(
                "Spark's training begins from nothing, not from a checkpoint or a model: leave "
                "start out"
            )
        if callbacks:
            raise ValueError(
                "Spark calls nothing back between steps: leave callbacks out, or train on this "
                "machine (backend=Local())"
            )
        if design.weights is not None:
            raise ValueError(
                "Spark's factorization machines know no row weights: leave them out, or train on "
                "this machine (backend=Local())"
            )
        rows = self.spark.createDataFrame(_table_of(design, y))
        if self.partitions is None:
            few = rows.coalesce(self.spark.sparkContext.defaultParallelism)
        else:
            few = rows.repartition(self.partitions)
        shape = replace(design, codes=(), weights=None, groups=None)
        vectors = _vectors(self.spark, few, shape)
        began = time.perf_counter()
        params = fit(vectors, self.spec, design.n_features)
        n_iter = self.spec.config.max_iter
        entry = {"iteration": n_iter, "seconds": time.perf_counter() - began}
        return Fit(params, (entry,), {}, n_iter)


@dataclass(frozen=True)
class TrainedFM:
    """What :meth:`fmknn.SparkBackend.train` learned: ``Recommender.from_params`` goes on with it.

    Attributes
    ----------
    params : FMParams
        Of one-hot columns: those of the users, then those of the items.
    users, items : ndarray of ids
        What the columns stand for.
    loss : {"squared", "logistic"}
    """

    params: FMParams
    users: np.ndarray
    items: np.ndarray
    loss: str


def require_trainable(spec: SolverSpec) -> None:
    """Refuse what Spark can't train.

    Raises
    ------
    ValueError
    """
    if spec.loss not in SparkFM.losses:
        raise ValueError(
            f"Spark's factorization machines learn loss={' and '.join(map(repr, SparkFM.losses))}, "
            f"not {spec.loss!r}"
        )
    if spec.n_factors < 1:
        raise ValueError("Spark's factorization machines have one factor at least: n_factors=0")


def train_frame(
    spark: Any, frame: Any, spec: SolverSpec, user: str, item: str, value: str
) -> TrainedFM:
    """Train on ratings that are in Spark; only the distinct ids come to the driver.

    Raises
    ------
    ValueError, TypeError
        For missing columns, ids or values, or classes other than 0 and 1.
    DivergenceError
    """
    for name in (user, item, value):
        if name not in frame.columns:
            raise ValueError(f"the ratings have no column {name!r}: {', '.join(frame.columns)}")
    maps = [_distinct(frame, column, what) for column, what in ((user, "user"), (item, "item"))]
    _require_values(frame, value, spec.loss)
    n_users, n_items = map(len, maps)
    shape = Design(
        (),
        SparseRows.one_hot(n_users + n_items, 0, n_users + n_items),
        (
            Block("user", 0, n_users, np.arange(n_users)),
            Block("item", n_users, n_users + n_items, np.arange(n_users, n_users + n_items)),
        ),
    )
    label = frame[_quoted(value)].cast("double").alias(_LABEL)
    columns = [frame[_quoted(user)].alias("code0"), frame[_quoted(item)].alias("code1"), label]
    params = fit(_vectors(spark, frame.select(*columns), shape, maps), spec, shape.n_features)
    return TrainedFM(params, maps[0].ids, maps[1].ids, spec.loss)


def fit(vectors: Any, spec: SolverSpec, n_features: int) -> FMParams:
    """Train on a data frame of sparse vectors and labels.

    Parameters
    ----------
    vectors : DataFrame
        Columns features and label.
    spec : SolverSpec
    n_features : int

    Returns
    -------
    FMParams

    Raises
    ------
    ValueError
        For more parameters than an array of the JVM can hold.
    DivergenceError
    """
    from pyspark.ml.classification import FMClassifier
    from pyspark.ml.regression import FMRegressor

    n_numbers = n_features * (spec.n_factors + 1) + 1
    if n_numbers > _MOST_NUMBERS:
        raise ValueError(
            f"{n_features} columns and {spec.n_factors} factors are {n_numbers} parameters, above "
            f"the {_MOST_NUMBERS} that Spark can train: train on this machine"
        )
    config: SparkFM = spec.config
    seed = seed_sequence(spec.random_state).generate_state(1, np.uint64)[0]
    model = {"squared": FMRegressor, "logistic": FMClassifier}[spec.loss](
        featuresCol=_FEATURES,
        labelCol=_LABEL,
        factorSize=spec.n_factors,
        maxIter=config.max_iter,
        regParam=float(config.reg_param),
        stepSize=float(config.step_size),
        miniBatchFraction=float(config.mini_batch_fraction),
        initStd=float(config.init_std),
        tol=float(config.tol),
        solver=config.optimizer,
        seed=int(seed >> np.uint64(1)),  # a signed number there
    ).fit(vectors)
    linear, factors = model.linear.toArray(), model.factors.toArray()
    try:
        return FMParams(model.intercept, linear, factors)
    except ValueError as error:
        raise DivergenceError(f"training diverged ({error}): lower step_size") from None


@dataclass(frozen=True)
class _Rows:
    """From record batches of codes, or of ids, to those of sparse vectors.

    Attributes
    ----------
    design : Broadcast of (Design, list of IdMap)
        The design has no codes; there are maps where the rows have ids.
    """

    design: Any

    def vectors(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield a sparse vector and the label of each row, laid out as Spark does."""
        import pyarrow as pa

        design, maps = self.design.value
        for batch in batches:
            columns = batch.columns[:-1]
            if maps:
                codes = [
                    ids.positions(as_ids(column.to_numpy(zero_copy_only=False)))
                    for ids, column in zip(maps, columns, strict=True)
                ]
            else:
                codes = [column.to_numpy(zero_copy_only=False) for column in columns]
            rows = replace(design, codes=tuple(codes)).expand(0, batch.num_rows)
            offsets, n = rows.indptr.astype(np.int32), len(rows)
            lists = (
                pa.ListArray.from_arrays(offsets, pa.array(values))
                for values in (rows.indices, rows.values.astype(np.float64))
            )
            kind, size = pa.array(np.zeros(n, np.int8)), np.full(n, rows.n_columns, np.int32)
            vectors = pa.StructArray.from_arrays(
                [kind, pa.array(size), *lists], ["type", "size", "indices", "values"]
            )
            yield pa.RecordBatch.from_arrays([vectors, batch.columns[-1]], [_FEATURES, _LABEL])


def _vectors(spark: Any, rows: Any, shape: Design, maps: Sequence[IdMap] = ()) -> Any:
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import DoubleType, StructField, StructType

    columns = [(_FEATURES, VectorUDT()), (_LABEL, DoubleType())]
    schema = StructType([StructField(name, kind, False) for name, kind in columns])
    shared = spark.sparkContext.broadcast((shape, list(maps)))
    return rows.mapInArrow(_Rows(shared).vectors, schema)


def _table_of(design: Design, y: np.ndarray) -> Any:
    import pyarrow as pa

    codes = {f"code{place}": pa.array(code) for place, code in enumerate(design.codes)}
    return pa.table({**codes, _LABEL: pa.array(np.asarray(y, np.float64))})


def _distinct(frame: Any, column: str, what: str) -> IdMap:
    found = frame.select(frame[_quoted(column)]).distinct().toArrow().column(0)
    if found.null_count:
        raise TypeError(f"{what} ids must be integers or strings: there are rows that have none")
    ids = IdMap.build(found.to_numpy(), what=what)
    if not len(ids):
        raise ValueError("there are no ratings: the data is empty")
    return ids


def _require_values(frame: Any, value: str, loss: str) -> None:
    from pyspark.sql import functions

    number = frame[_quoted(value)].cast("double")
    bad = number.isNull() | functions.isnan(number) | (functions.abs(number) == float("inf"))
    others = ~number.isin(0.0, 1.0)
    n_bad, n_others = frame.select(functions.count_if(bad), functions.count_if(others)).first()
    if n_bad:
        raise ValueError(f"column {value!r} has {n_bad} rows without a finite number")
    if loss == "logistic" and n_others:
        raise ValueError(f"column {value!r} has {n_others} rows other than the classes 0 and 1")


def _quoted(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"
