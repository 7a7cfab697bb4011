"""Any database that SQLAlchemy knows, by its address. Nothing else imports SQLAlchemy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...errors import MissingExtraError
from ..topn import TopN
from .base import Run, Writer, columns_of_top
from .tables import COLUMNS, KEYS, VIEW, Tables, recording

__all__ = ["SQL"]

_ROWS = 20_000  # that are Python objects at a time
_ESCAPED = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})  # in COPY's text


@dataclass(frozen=True)
class SQL:
    """A database at an SQLAlchemy address; tables and view are those of :class:`SQLite`.

    Tried on PostgreSQL, where rows are loaded by COPY if the driver is psycopg.

    Parameters
    ----------
    url : str or sqlalchemy.URL
        ``postgresql://user:password@host/name``; it is in no message, log or manifest.
    table : str
        Name of the view, with which the names of the tables begin.

    Examples
    --------
    >>> SQL("postgresql://me:secret@localhost/shop")
    SQL(table='recommendations')
    """

    url: Any = field(repr=False)
    table: str = "recommendations"

    def __post_init__(self) -> None:
        Tables(self.table)

    def check(self) -> None:
        """Refuse an address that is none, or a database that can't be reached.

        Raises
        ------
        MissingExtraError
            Without SQLAlchemy, or the driver of the database.
        ValueError
            For an address that SQLAlchemy can't read.
        OSError
            If the database does not answer, or does not let us in.
        """
        with self._connected():
            pass

    @contextmanager
    def open(self, run: Run) -> Iterator[Writer]:
        """Begin a run, or go on with it.

        Raises
        ------
        MissingExtraError, ValueError, OSError
            As :meth:`check`, and for tables of somebody else, repeated users, a named run of
            other rows, or what the database fails with.
        """
        with self._connected() as (connection, place):
            database = _Connection(connection)
            with recording(database, Tables(self.table), run, place) as recorder:
                yield recorder

    @contextmanager
    def _connected(self) -> Iterator[tuple[Any, str]]:
        try:
            import sqlalchemy as sa
        except ImportError as error:
            raise MissingExtraError(
                "writing to this database needs SQLAlchemy: pip install 'fmknn[sql]'"
            ) from error
        url = _url(self.url)
        place = _place(url)
        try:
            engine = sa.create_engine(url, poolclass=sa.NullPool)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{place} needs the driver {error.name}: install the package that has it"
            ) from None
        except sa.exc.ArgumentError:
            raise ValueError(f"there is no kind of database {url.drivername!r}") from None
        try:
            with engine.connect() as connection:
                yield connection, place
        except (sa.exc.SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
            raise OSError(f"{place}: {_reason(error, url)}") from None


def _url(address: Any) -> Any:
    import sqlalchemy as sa

    try:
        url = sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):  # which would show the address, password and all
        raise ValueError(
            "this is no address of a database: write dialect://user:password@host/name"
        ) from None
    if url.drivername == "postgresql" and importlib.util.find_spec("psycopg") is not None:
        return url.set(drivername="postgresql+psycopg")
    return url


def _place(url: Any) -> str:
    """The address without whatever may be secret: user, password and options."""
    port = "" if url.port is None else f":{url.port}"
    return f"{url.drivername}://{url.host or ''}{port}/{url.database or ''}"


def _reason(error: Any, url: Any) -> str:
    """What the driver said, in one line: SQLAlchemy adds statement and values to it."""
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    secrets = [url.password, *(value for _, value in _options(url))]
    for secret in filter(None, secrets):
        said = said.replace(str(secret), "***")
    return " ".join(said.split())


def _options(url: Any) -> Iterator[tuple[str, str]]:
    for name, value in url.query.items():
        if any(word in name.lower() for word in ("pass", "pwd", "secret", "token", "key")):
            yield from ((name, one) for one in ([value] if isinstance(value, str) else value))


class _Connection:
    """What recording needs of SQLAlchemy."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def columns(self, name: str) -> dict[str, str] | None:
        import sqlalchemy as sa

        with self.transaction():
            found = sa.inspect(self._connection)
            if not (found.has_table(name) or name in found.get_view_names()):
                return None
            return {column["name"]: _kind(column["type"]) for column in found.get_columns(name)}

    def create(self, tables: Tables, user_ids: str, item_ids: str) -> None:
        import sqlalchemy as sa

        metadata = _metadata(tables, user_ids, item_ids)
        rows, runs = metadata.tables[tables.rows], metadata.tables[tables.runs]
        columns = [(runs if name == "run_id" else rows).c[name] for name in VIEW]
        view = (
            sa.select(*columns)
            .select_from(runs.join(rows, runs.c.run == rows.c.run))
            .where(runs.c.state == "complete")
        )
        compiled = view.compile(self._connection, compile_kwargs={"literal_binds": True})
        exists = self.columns(tables.view) is not None
        name = self._connection.dialect.identifier_preparer.quote(tables.view)
        with self.transaction():
            metadata.create_all(self._connection)
            if not exists:
                self._connection.exec_driver_sql(f"CREATE VIEW {name} AS {compiled}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.begin():
            yield

    def select(self, statement: str, **values: Any) -> Sequence[Sequence[Any]]:
        import sqlalchemy as sa

        return self._connection.execute(sa.text(statement), values).fetchall()

    def change(self, statement: str, **values: Any) -> int:
        import sqlalchemy as sa

        return self._connection.execute(sa.text(statement), values).rowcount

    def insert_rows(self, tables: Tables, run: int, top: TopN) -> None:
        dialect = self._connection.dialect
        if (dialect.name, dialect.driver) == ("postgresql", "psycopg"):
            self._copy_rows(tables, run, top)
            return
        import sqlalchemy as sa

        names = ("run", "user_id", "rank", "item_id", "score")
        statement = sa.insert(sa.table(tables.rows, *(sa.column(name) for name in names)))
        for part in _parts(top):
            values = [dict(zip(names, (run, *row), strict=True)) for row in part]
            self._connection.execute(statement, values)

    def _copy_rows(self, tables: Tables, run: int, top: TopN) -> None:
        statement = f"COPY {tables.rows} (run, user_id, rank, item_id, score) FROM STDIN"
        driver = self._connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for part in _parts(top):
                copy.write(
                    "".join(
                        f"{run}\t{_text(user)}\t{rank}\t{_text(item)}\t{score!r}\n"
                        for user, rank, item, score in part
                    )
                )


def _parts(top: TopN) -> Iterator[Iterator[tuple[Any, ...]]]:
    for part in columns_of_top(top, _ROWS):
        columns = (part[name].tolist() for name in ("user", "rank", "item", "score"))
        yield zip(*columns, strict=True)


def _text(value: Any) -> Any:
    return value.translate(_ESCAPED) if isinstance(value, str) else value


def _kind(column: Any) -> str:
    import sqlalchemy as sa

    if isinstance(column, sa.Integer):
        return "integer"
    return "text" if isinstance(column, sa.String) else "number"


def _metadata(tables: Tables, user_ids: str, item_ids: str) -> Any:
    import sqlalchemy as sa

    kinds: dict[str, Any] = {
        "small": sa.Integer(),
        "integer": sa.BigInteger(),
        "text": sa.Text(),
        "number": sa.Double(),
    }
    # MySQL has no text of any length in a key
    ids = {**kinds, "text": sa.Text().with_variant(sa.String(255), "mysql", "mariadb")}
    kinds |= {"user": ids[user_ids], "item": ids[item_ids]}
    metadata = sa.MetaData()
    for name, columns in COLUMNS.items():
        sa.Table(
            getattr(tables, name),
            metadata,
            *(
                sa.Column(
                    column,
                    kinds[kind],
                    primary_key=column in KEYS[name],
                    autoincrement=False,
                    nullable=column == "finished",
                )
                for column, kind in columns.items()
            ),
        )
    return metadata
