"""SparkBackend: lists for everybody over a Spark cluster, Spark's own FM, behind the interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._checks import require_bool, require_count
from ...errors import MissingExtraError
from ...index.base import Index
from ...serving.queries import id_list, known_positions, levels_given
from ...serving.service import Service
from ...solvers.base import Solver, SolverSpec
from ..base import Local
from .config import SparkFM
from .frames import UserFrames, columns_of, schema_of_lists
from .search import ItemSide, Request, Search
from .sinks import sink_for
from .training import SparkSolver, TrainedFM, require_trainable, train_frame
from .users import LeftOut

__all__ = ["SparkBackend"]


class SparkBackend:
    """Writes lists for everybody by the machines of a Spark cluster, and trains by Spark's FM.

    ``recommend_all`` runs there: the items are sent to each executor once, the users travel in
    partitions, and lists are the same as on this machine, to the bit. Everything else a Recommender
    is asked is answered on this machine. ``solver=fmknn.SparkFM(…)`` trains on Spark, any other
    solver here; a model trained anywhere can be moved to Spark by ``with_backend``.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
        A session that is connected to the cluster itself (not Spark Connect). fmknn has to be
        installed for the Python of the executors too.
    partitions : int, optional
        Of the users, and of the rows in training. Default: for a list of users one for 256 to 8192
        of them, twice as many as there are cores if that is possible; what Spark makes of its own
        settings else.
    n_jobs : int, optional
        Threads of a task; default: ``spark.task.cpus``. Each Python worker has its own copy of the
        items: where they are large, give a task several cores rather than run several beside.
    scratch : str, optional
        Address of a folder that this machine and the executors can reach (``hdfs://…``, or a path
        that is mounted on all). The users' vectors are then written there, chunk by chunk, and not
        held in the driver: for tens of millions of users. The folder is left to you to empty.

    Raises
    ------
    MissingExtraError
        Without pyspark or pyarrow.
    TypeError
        If ``spark`` is no such session.

    Notes
    -----
    Sent once to each executor are the item ids and vectors, the index's own state, and the vectors
    of the context levels; with the partitions go, for each user, the vector q_u, the bias b_u and
    the positions of the items left out. Nothing comes back to the driver.

    Examples
    --------
    >>> import fmknn
    >>> fmknn.FMRegressor(n_factors=8, solver=fmknn.SparkFM(max_iter=20)).solver_spec().loss
    'squared'

    With a session ``spark``, lists for the users of a data frame are one::

        model = fmknn.load("model.fmknn").with_backend(fmknn.SparkBackend(spark))
        lists = model.recommend_all(users=spark.table("customers").select("user"), n=100)
    """

    def __init__(
        self,
        spark: Any,
        *,
        partitions: int | None = None,
        n_jobs: int | None = None,
        scratch: str | None = None,
    ) -> None:
        self.spark = _require_session(spark)
        self.partitions = None if partitions is None else require_count("partitions", partitions)
        if n_jobs is None:
            n_jobs = int(spark.sparkContext.getConf().get("spark.task.cpus", "1"))
        self.n_jobs = require_count("n_jobs", n_jobs)
        if scratch is not None and not (isinstance(scratch, str) and scratch.strip()):
            raise TypeError(f"scratch must be the address of a folder, got {scratch!r}")
        self.scratch = scratch
        self._sent: tuple[Service, Any] | None = None  # a service, and its items on the executors

    def __repr__(self) -> str:
        return f"SparkBackend({self.spark.sparkContext.master!r})"

    def solver(self, spec: SolverSpec) -> Solver:
        """Return the solver for what an estimator asks: on Spark for a SparkFM, else here.

        Raises
        ------
        ValueError
            For a loss that Spark's FM does not learn.
        """
        if isinstance(spec.config, SparkFM):
            return SparkSolver(self.spark, spec, self.partitions)
        return Local().solver(spec)

    def index(self, spec: str | Index) -> Index:
        """Return the index, still empty, as :class:`fmknn.Local` does.

        Raises
        ------
        ValueError, TypeError
        """
        return Local().index(spec)

    def train(
        self,
        frame: Any,
        estimator: Any,
        *,
        user: str = "user",
        item: str = "item",
        value: str = "value",
    ) -> TrainedFM:
        """Train on ratings that are in Spark, which are never collected.

        Parameters
        ----------
        frame : pyspark.sql.DataFrame
        estimator : FMRegressor or FMClassifier
            With ``solver=fmknn.SparkFM(…)``.
        user, item, value : str
            Names of the columns: ids, integers or strings, and a number; for an FMClassifier 0
            or 1.

        Returns
        -------
        TrainedFM
            ``Recommender.from_params(trained.params, users=trained.users, items=trained.items,
            loss=trained.loss)`` goes on with it.

        Raises
        ------
        TypeError
            For another estimator or frame, or rows without an id.
        ValueError
            For another solver, or values that can't be learned.
        DivergenceError
            If the trained parameters are NaN or infinite.
        """
        if not _is_frame(frame):
            raise TypeError(f"frame must be a DataFrame of Spark, got {type(frame).__name__}")
        if isinstance(estimator, type) or not hasattr(estimator, "solver_spec"):
            raise TypeError(f"estimator must be an FMRegressor or FMClassifier, got {estimator!r}")
        spec = estimator.solver_spec()
        if not isinstance(spec.config, SparkFM):
            raise ValueError(
                f"{type(spec.config).__name__} does not train on rows that are in Spark: take "
                "solver=fmknn.SparkFM()"
            )
        require_trainable(spec)
        return train_frame(self.spark, frame, spec, user, item, value)

    def recommend_all(
        self,
        service: Service,
        n: int = 10,
        *,
        users: Any = None,
        to: Any = None,
        chunk: int | None = None,
        resume: bool = False,
        append: bool = False,
        run_id: str | None = None,
        exclude_seen: bool = True,
        exclude: Mapping[Any, Any] | None = None,
        exclude_items: Any = None,
        candidates: Any = None,
        context: Mapping[str, Any] | None = None,
        unknown: str = "raise",
        context_default: str = "raise",
        popularity: float = 1.0,
        progress: bool = False,
    ) -> Any:
        """Recommend for everybody; :meth:`fmknn.Recommender.recommend_all` calls it.

        Parameters
        ----------
        service : Service
            The model, its catalog and index.
        n : int
        users : array-like of ids or pyspark.sql.DataFrame, optional
            Default: all users of the vocabulary. In a DataFrame the column "user", or the first
            one, has the ids; columns named like contexts have the levels of each user, a column
            "exclude" arrays of item ids.
        to : path-like, address or JDBC, optional
            A Parquet folder in any file system that Spark knows, or a ``jdbc:`` address. What was
            there is replaced if a run wrote it.
        exclude_seen, exclude, exclude_items, candidates, context, unknown, context_default, \
popularity
            As of :meth:`fmknn.Recommender.recommend`.
        chunk, resume, append, run_id, progress
            Left out: Spark has its own partitions, retries and progress.

        Returns
        -------
        pyspark.sql.DataFrame, or int
            Rows (user, item, score, rank), not yet computed, and computed anew by each action
            unless they are cached; where ``to`` is given, the number of users that have a list.

        Raises
        ------
        ValueError, TypeError, UnknownIdError
            At once, for arguments that can't be used. An unknown id in a DataFrame is found when
            its partition is reached.
        """
        _refuse(chunk=chunk, resume=resume, append=append, run_id=run_id, progress=progress)
        sink = None if to is None else sink_for(to)
        frame = users if _is_frame(users) else None
        catalog = service.catalog
        if frame is not None:
            columns, n_users = columns_of(frame, service), 1
        else:
            columns = {}
            users = catalog.users.ids if users is None else id_list(users, "user")
            n_users = len(users)
        given = levels_given(context, n_users)
        for name in set(given) & set(columns):
            raise ValueError(f"the context {name!r} is given twice: by users and by context")
        left_out = LeftOut(require_bool("exclude_seen", exclude_seen), _item_lists(exclude))
        candidates, exclude_items = (
            None if ids is None else id_list(ids, "item") for ids in (candidates, exclude_items)
        )
        in_rows = {
            name: catalog.contexts[name].ids.ids[:0] for name in columns if name in catalog.contexts
        }
        service.recommend(  # for nobody: an argument that can't be used is an error now, not later
            catalog.users.ids[:0],
            n,
            exclude_seen=left_out.seen,
            exclude=left_out.more,
            exclude_items=exclude_items,
            candidates=candidates,
            context={**{name: ids[:1] for name, ids in given.items()}, **in_rows},
            unknown=unknown,
            context_default=context_default,
            popularity=popularity,
        )
        allowed, blocked = (
            None if ids is None else known_positions(catalog.items, ids, unknown)
            for ids in (candidates, exclude_items)
        )
        request = Request(
            n=int(n),
            candidates=allowed,
            exclude_items=blocked,
            levels={name: ids[0] for name, ids in given.items() if len(ids) == 1},
            unknown=unknown,
            context_default=context_default,
            popularity=float(popularity),
        )
        sides = UserFrames(self.spark, self.partitions, self.scratch)
        if frame is not None:
            asked = sides.joined(service, frame, columns, unknown, left_out)
        else:
            levels = {name: ids for name, ids in given.items() if len(ids) != 1}
            asked = sides.listed(service, users, levels, unknown, left_out)
        search = Search(self._items(service), request)
        lists = asked.mapInArrow(search.lists, schema_of_lists(service))
        return lists if sink is None else sink.write(self.spark, lists)

    def _items(self, service: Service) -> Any:
        """Send the items to the executors, unless they are there."""
        if self._sent is not None:
            old, items = self._sent
            parts = ("model", "catalog", "index")
            if all(getattr(old, part) is getattr(service, part) for part in parts):
                return items
        items = self.spark.sparkContext.broadcast(ItemSide.of(service, self.n_jobs))
        self._sent = service, items
        return items


def _require_session(spark: Any) -> Any:
    try:
        import pyarrow  # noqa: F401
        from pyspark.sql import SparkSession
    except ImportError:
        raise MissingExtraError(
            "SparkBackend needs pyspark and pyarrow: pip install 'fmknn[spark]'"
        ) from None
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise TypeError(
            "spark is a session of Spark Connect, which can't broadcast: pass one that is "
            "connected to the cluster itself"
        )
    if not isinstance(spark, SparkSession):
        raise TypeError(f"spark must be a SparkSession, got {spark!r}")
    return spark


def _is_frame(users: Any) -> bool:
    from pyspark.sql import DataFrame

    return isinstance(users, DataFrame)


def _item_lists(exclude: Any) -> Any:
    """Return a mapping to items with each list as an array: an iterator would be used up."""
    if not isinstance(exclude, Mapping):
        return exclude
    return {user: id_list(items, "item") for user, items in exclude.items()}


def _refuse(**options: Any) -> None:
    """Refuse what a run on one machine takes and Spark does not."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise ValueError(
                f"{name}={value!r} is of runs on one machine: leave it out, Spark has its own "
                "partitions, retries and progress"
            )
