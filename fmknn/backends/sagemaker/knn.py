"""An index that is a k-NN training job and batch transforms, whose answers are ranked here."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import AnswerError, JobFailedError, JobStoppedError
from ...index.base import HasVectors, Hits, ItemLists, as_vectors, search_arguments
from ...index.exact import ExactIndex
from ...index.rank import pair_scores, rank, rounding_error
from .answers import parse_answers, require_best, require_inner_products
from .groups import groups_by_k
from .hyperparameters import knn_hyperparameters, require_index_type
from .jobs import TRANSFORM, Description, NextJob
from .recordio import encode_dense
from .requests import model_request, transform_request
from .run import Run, artifact_uri, fingerprint, part_name

__all__ = ["SageMakerIndex"]

logger = logging.getLogger("fmknn")

_MOST_ITEMS = 2**24  # labels are float32: no position above is one
_CHUNK = 1 << 16  # vectors that are encoded at a time
_ANSWERS_PER_OBJECT = 4_000_000  # neighbours, about 100 MB of JSON
_WORTH_A_JOB = 5_000_000  # answers not asked for in vain, that pay for two more jobs
_SAMPLE = 64  # queries of each group whose answers are checked item by item
_SLACK = 16  # asked for beyond what is needed: near-ties at the end are settled here


class SageMakerIndex(HasVectors):
    """Searches by SageMaker's k-NN: a training job for the items, a batch transform per search.

    An item that a query must not get can't be named to SageMaker: as many more neighbours are
    asked for, and left out here. ``candidates`` are an index of their own. Queries that would
    need more neighbours than ``max_k`` are searched on this machine. Whatever SageMaker answers
    is checked, scored exactly and ranked here.

    Parameters
    ----------
    run : Run
    index_type : {"faiss.Flat", "faiss.IVFFlat"}
    nlists : int, optional
        Cells of IVFFlat, at most as many as there are items.
    max_k : int
        The most neighbours asked for; SageMaker's documentation tunes up to 1024.
    max_payload_mb : int
        Of one request to the container. The answers are several times as long.

    Attributes
    ----------
    preferred_chunk : int
        Queries that should come in one call, since each call starts jobs.

    Raises
    ------
    ValueError
        For another index type, IVFPQ among them, which knows no inner product.
    """

    preferred_chunk = 1_000_000

    def __init__(
        self,
        run: Run,
        *,
        index_type: str = "faiss.Flat",
        nlists: int | None = None,
        max_k: int = 1024,
        max_payload_mb: int = 1,
    ) -> None:
        require_index_type(index_type, nlists)
        self.run, self.index_type, self.nlists = run, index_type, nlists
        self.max_k, self.max_payload_mb = max_k, max_payload_mb
        self._local: ExactIndex | None = None

    def __repr__(self) -> str:
        built = "not built" if self._vectors is None else f"{self.n_items} items"
        return f"SageMakerIndex({self.index_type!r}, {built})"

    def local(self) -> ExactIndex:
        """Return an exact index on this machine over the same rows: the same answers."""
        if self._local is None:
            self._local = ExactIndex().build(self.vectors)
        return self._local

    def build(self, vectors: Any, queries: Any = None) -> SageMakerIndex:
        """Return an index over the rows; jobs start with the first search, which tells k.

        Parameters
        ----------
        vectors : array-like of float, shape (n_items, dim)
        queries : optional
            Of no use here: SageMaker's k-NN can't be told what will be asked.

        Returns
        -------
        SageMakerIndex

        Raises
        ------
        ValueError
            For no row, more than 2**24 of them, or NaN.
        """
        matrix = as_vectors(vectors, "vectors")
        if not 0 < len(matrix) <= _MOST_ITEMS:
            raise ValueError(
                f"SageMaker's k-NN takes 1 to {_MOST_ITEMS:,} items (its labels are float32), "
                f"got {len(matrix):,}: use search='local'"
            )
        built = copy.copy(self)
        built._vectors, built._local = matrix, None
        return built

    def add(self, vectors: Any) -> SageMakerIndex:
        """Return an index over the old rows and these after them; jobs start anew."""
        old = self.vectors
        return self.build(np.concatenate([old, as_vectors(vectors, "vectors", old.shape[1])]))

    def search(
        self,
        queries: Any,
        n: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Any = None,
        exclude_items: Any = None,
    ) -> Hits:
        """Return the n best items for each query; see :class:`fmknn.index.base.Index`.

        Raises
        ------
        AnswerError
            If the answers are incomplete, or are not inner products.
        SageMakerError
            If a job did not complete; its subclasses say how.
        """
        matrix, n, exclude, allowed = search_arguments(
            queries, n, exclude, candidates, self.vectors, exclude_items
        )
        items = np.arange(self.n_items) if allowed is None else allowed
        forbidden = exclude.count_within(allowed, self.n_items)
        n = min(n, len(items))
        wanted = np.minimum(n, len(items) - forbidden)
        hits = Hits.empty(len(matrix), n)
        needed = np.where(wanted > 0, wanted + forbidden, 0)
        groups = groups_by_k(needed, self.max_k, _WORTH_A_JOB)
        if len(groups) > 1:
            logger.info("%d groups of queries, two jobs for each", len(groups))
        pending = wanted > 0
        for rows, k in groups:
            asked = min(k + _SLACK, max(k, self.max_k), len(items))
            found, certain = self._search_there(
                matrix[rows], n, exclude.take(rows), items, needed[rows], asked
            )
            hits.put(rows, found)
            pending[rows] = ~certain | (found.counts < wanted[rows])
        here = np.flatnonzero(pending)
        if len(here):
            logger.warning("%d of %d queries are searched on this machine", len(here), len(matrix))
            found = self.local().search(
                matrix[here], n, exclude=exclude.take(here), candidates=allowed
            )
            hits.put(here, found)
        return hits

    def _search_there(
        self,
        queries: np.ndarray,
        n: int,
        exclude: ItemLists,
        items: np.ndarray,
        needed: np.ndarray,
        k: int,
    ) -> tuple[Hits, np.ndarray]:
        """Rank k neighbours of each query, and say which lists are certain to be right."""
        labels, distances, where = self._neighbours(queries, items, k)
        is_flat = self.index_type == "faiss.Flat"
        sample = np.unique(np.linspace(0, len(queries) - 1, _SAMPLE).astype(np.int64))
        require_inner_products(
            labels[sample], distances[sample], queries[sample], self.vectors, where
        )
        order = np.argsort(np.where(labels < 0, np.inf, -distances), axis=1, kind="stable")
        labels = np.take_along_axis(labels, order, axis=1)
        floors = np.full(len(queries), -np.inf)
        if not is_flat:  # what a query gets must not depend on the others of its group
            labels[np.arange(k)[None, :] >= needed[:, None]] = -1
        elif k < len(items):
            require_best(labels[sample], queries[sample], self.vectors, items, where)
            # the container ranks by float32 products: what it left out is no better than this
            least = pair_scores(queries, self.vectors, labels[:, -1])
            largest = float(np.sqrt((self.vectors.astype(np.float64) ** 2).sum(axis=1)).max())
            floors = least + rounding_error(queries, largest)
        return rank(queries, self.vectors, labels, floors, n, exclude=exclude)

    def _neighbours(
        self, queries: np.ndarray, items: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """Return labels and distances of k neighbours of each query, and where they came from."""
        trained = self._train(items, k)
        n_instances = self.run.resources.instance_count
        size = min(max(1, _ANSWERS_PER_OBJECT // k), -(-len(queries) // n_instances))
        parts = [slice(at, min(at + size, len(queries))) for at in range(0, len(queries), size)]
        place = f"users-{fingerprint(queries, size, trained['TrainingJobName'])}"
        outputs = self._transform(place, trained, queries, parts)
        answers = [
            self._answers(key, part.stop - part.start, items, k)
            for part, key in zip(parts, outputs, strict=True)
        ]
        labels, distances = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
        return labels, distances, self.run.store.uri(f"{place}/out/")

    def _train(self, items: np.ndarray, k: int) -> Description:
        hyperparameters = knn_hyperparameters(
            dim=self.vectors.shape[1],
            k=k,
            n_items=len(items),
            index_type=self.index_type,
            nlists=None if self.nlists is None else min(self.nlists, len(items)),
        )
        data = fingerprint(self.vectors, items)
        return self.run.train(
            "knn",
            "knn",
            hyperparameters,
            f"knn-{data}",
            [_encoded(self.vectors[items], items.astype(np.float32))],
            1,
        )

    def _transform(
        self, place: str, trained: Description, queries: np.ndarray, parts: list[slice]
    ) -> list[str]:
        """Run the batch transform, or find it done; return the key of each part's answers."""
        run = self.run
        model_name = run.job_name(f"model-{place.removeprefix('users-')}")
        request = transform_request(
            run.resources,
            model_name=model_name,
            input_uri=run.store.uri(f"{place}/in/"),
            output_uri=run.store.uri(f"{place}/out/"),
            instance_count=min(run.resources.instance_count, len(parts)),
            max_payload_mb=self.max_payload_mb,
        )
        names = [part_name(number) for number in range(len(parts))]

        made = False

        def prepare() -> None:
            nonlocal made
            for name, part in zip(names, parts, strict=True):
                run.store.upload(f"{place}/in/{name}", _encoded(queries[part], None))
            image, artifact = run.image("knn"), artifact_uri(trained)
            made = True
            run.create_model(
                model_name, model_request(run.resources, image=image, artifact_uri=artifact)
            )

        def outputs() -> dict[str, str]:
            # by their endings: AWS puts more or less of the input's key in front
            keys = run.store.keys(f"{place}/out/")
            return {name: key for key in keys for name in names if key.endswith(f"{name}.out")}

        keep = True  # a job that is still to come, or another process's, needs the model
        try:
            run.jobs.run(
                TRANSFORM,
                run.job_name(place),
                request,
                prepare,
                lambda description: len(outputs()) == len(names),
            )
            keep = False
        except NextJob:
            raise
        except (JobFailedError, JobStoppedError):
            keep = False
            raise
        except BaseException:
            keep = not made
            raise
        finally:
            if not keep:
                run.delete_model_quietly(model_name)
        found = outputs()
        missing = [name for name in names if name not in found]
        if missing:
            raise AnswerError(
                f"the transform left no answers to {missing[0]} in {run.store.uri(place)}/out/: "
                "run it again under another run_id"
            )
        return [found[name] for name in names]

    def _answers(
        self, key: str, n_queries: int, items: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        where = self.run.store.uri(key)
        data = self.run.store.read(key, self.run.max_bytes)
        labels, distances = parse_answers(data, n_queries, k, self.n_items, where)
        if not np.isin(labels[labels >= 0], items).all():
            raise AnswerError(f"{where} names an item that was not indexed")
        if self.index_type == "faiss.Flat" and (labels < 0).any():
            row = int(np.argmax((labels < 0).any(axis=1)))
            raise AnswerError(
                f"answer {row + 1} of {where} has fewer than the {k} neighbours that were asked "
                "for: run it again under another run_id"
            )
        return labels, distances

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the state of :meth:`local`, which is what a saved model searches with."""
        return self.local().to_state()

    @classmethod
    def from_state(
        cls, vectors: np.ndarray, state: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> ExactIndex:
        """Rebuild the exact index on this machine."""
        return ExactIndex.from_state(vectors, state, settings)


def _encoded(vectors: np.ndarray, labels: np.ndarray | None) -> Iterator[bytes]:
    for at in range(0, len(vectors), _CHUNK):
        end = at + _CHUNK
        yield encode_dense(vectors[at:end], None if labels is None else labels[at:end])
