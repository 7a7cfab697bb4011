"""Use every kernel with arrays from everywhere; print how often each has been compiled, as JSON.

Run in a process of its own (test_signatures.py): what other tests call would count too.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import fmknn
from fmknn.backends.sagemaker.recordio import encode_dense, encode_sparse, read_matrix
from fmknn.data.blocks import design_of_interactions, design_of_rows
from fmknn.data.rows import SparseRows
from fmknn.model.projection import query_matrix
from fmknn.solvers.base import SolverSpec
from fmknn.solvers.bpr import BPR, continued
from fmknn.solvers.links import expected_grade, probabilities_of_grades, probability_above
from fmknn.solvers.responses import response_of


def as_fresh(array, folder):
    """A new array, writable."""
    return np.array(array)


def as_read_only(array, folder):
    """A view that may not be written to."""
    view = np.array(array)
    view.flags.writeable = False
    return view


def as_memory_mapped(array, folder):
    """A file, mapped read-only."""
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def as_unaligned(array, folder):
    """A file in which the array begins at an odd place, as it may in a container of arrays."""
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    path.write_bytes(b"\0" + np.ascontiguousarray(array).tobytes())
    return np.memmap(path, dtype=array.dtype, mode="r", offset=1, shape=array.shape)


def as_fortran(array, folder):
    """Columns first."""
    return np.asfortranarray(array)


def as_other_types(array, folder):
    """float64 and int64."""
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


SOURCES = (as_fresh, as_read_only, as_memory_mapped, as_unaligned, as_fortran, as_other_types)


def use_model(take):
    """Score and project with parameters and features that come from there."""
    rng = np.random.default_rng(0)
    X = sp.csr_array((rng.random((40, 6)) * (rng.random((40, 6)) < 0.5)).astype(np.float32))
    params = fmknn.FMParams(0.5, take(rng.normal(size=6)), take(rng.normal(size=(6, 3))))
    parts = (take(X.data), take(X.indices), take(X.indptr))
    for features in (sp.csr_array(parts, shape=X.shape), take(X.toarray())):
        params.score(features)
        fmknn.item_matrix(params, features)
        fmknn.user_matrix(params, features, return_offset=True)
    rows = SparseRows(parts[2], parts[1], parts[0], 6)
    params.score(design_of_rows(rows, {"a": [0, 1, 2], "b": slice(3, 6)}), n_jobs=2)
    params.score(design_of_rows(rows.take(np.arange(10)).slice(2, 8)))
    q, b = params.project(rows)
    query_matrix(params, [(q, b), (take(q), take(b))])
    fmknn.user_matrix(params, slice(0, 3))
    samples = (
        take(rng.normal(size=2)),
        take(rng.normal(size=(2, 6))),
        take(rng.normal(size=(2, 6, 3))),
        take(np.sort(rng.normal(size=(2, 4)))),
    )
    posterior = fmknn.Posterior(*samples)
    posterior.score(rows)
    fmknn.item_matrix(posterior, rows)
    fmknn.user_matrix(posterior, slice(0, 3), return_offset=True)


def use_estimators(take):
    """Fit on a matrix, with weights and without, both losses."""
    rng = np.random.default_rng(0)
    X = sp.csr_array((rng.random((60, 6)) * (rng.random((60, 6)) < 0.5)).astype(np.float32))
    X = sp.csr_array((take(X.data), take(X.indices), take(X.indptr)), shape=X.shape)
    y = take(rng.integers(2, size=60).astype(np.float32))
    for estimator in (fmknn.FMRegressor(2, n_iter=1), fmknn.FMClassifier(2, n_iter=1)):
        estimator.fit(X, y)
        estimator.fit(X, y, weights=take(np.ones(60, np.float32)))
        estimator.predict(X)


def use_recordio(take):
    """Write rows with labels and without, and read them."""
    X = sp.csr_array(np.random.default_rng(0).integers(2, size=(30, 300)).astype(np.float32))
    rows = SparseRows(take(X.indptr), take(X.indices), take(X.data), 300)
    labels = take(np.arange(30).astype(np.float32))
    for data in (encode_sparse(rows), encode_sparse(rows.slice(0, 9), labels[:9])):
        read_matrix(bytearray(data))
    encode_dense(take(X.toarray()), labels)


def use_sweeps(take):
    """Fit by ALS and Gibbs sampling: one to three blocks, shared features, weights, resumed."""
    rng = np.random.default_rng(0)
    ids = [np.eye(m)[rng.permutation(60) % m] for m in (5, 4, 3)]
    shared = rng.random((60, 4)) * (rng.random((60, 4)) < 0.7)
    y = rng.integers(2, size=60).astype(np.float32)
    for parts in (ids[:1], ids[:2], ids, [shared], [*ids[:1], shared], [*ids[:2], shared]):
        X = sp.csr_array(np.hstack(parts).astype(np.float32))
        X = sp.csr_array((take(X.data), take(X.indices), take(X.indptr)), shape=X.shape)
        for solver in ("als", "mcmc", fmknn.Gibbs(prior="independent")):
            for weights in (None, take(np.ones(60, np.float32))):
                model = fmknn.FMRegressor(2, solver=solver, n_iter=2, random_state=0)
                model.fit(X, take(y), weights=weights)
                model.fit(X, take(y), weights=weights, start=model.state_)
        model = fmknn.FMClassifier(2, loss="probit", solver="mcmc", n_iter=2, random_state=0)
        model.fit(X, take(y)).predict_proba(X)
        model = fmknn.FMRegressor(2, loss="ordinal", solver="mcmc", n_iter=2, random_state=0)
        model.fit(X, take(y)).predict_proba(X)
        model.predict(X)


def use_bpr(take):
    """Rank by BPR: ids alone, features and a context, weights, resumed; draw negatives."""
    rng = np.random.default_rng(0)
    log = fmknn.Interactions.from_arrays(
        take(rng.integers(5, size=60)),
        take(rng.integers(9, size=60)),
        context={"day": take(rng.integers(3, size=60))},
        item_features={"id": take(np.arange(9)), "price": take(rng.normal(size=9))},
    )
    weighted = log.replace(weights=take(np.ones(60, np.float32)))
    config = BPR(n_iter=1)
    solver = config.solver(SolverSpec(config, "bpr", 2, 0))
    for part in (log.without_features(), log, weighted):
        part.with_negatives(random_state=0)
        design = design_of_interactions(part)
        state = solver.train(design, np.ones(60, np.float32)).state
        start = continued({name: take(array) for name, array in state.items()})
        solver.train(design, np.ones(60, np.float32), start=start)


def use_all_pairs(take):
    """Rank by the whole-data loss: ids, features, a context, weights, resumed."""
    rng = np.random.default_rng(0)
    log = fmknn.Interactions.from_arrays(
        take(rng.integers(5, size=60)),
        take(rng.integers(9, size=60)),
        context={"day": take(rng.integers(3, size=60))},
        item_features={"id": take(np.arange(9)), "price": take(rng.normal(size=9))},
    )
    weighted = log.replace(weights=take(np.linspace(1.0, 2.0, 60).astype(np.float32)))
    for part in (log.without_features(), log, weighted, weighted.replace(context={})):
        model = fmknn.FMRanker(2, n_iter=1, solver="whole-data", random_state=0).fit(part)
        start = {name: take(array) for name, array in model.state_.items() if array.ndim}
        start = {**model.state_, **start, "iteration": np.array(0)}
        model.fit(part, start=start).linear_predictor(part)


def use_responses(take):
    """Draw latent targets of labels and grades, and say what scores stand for."""
    scores, rng = take(np.linspace(-2.0, 2.0, 60)), np.random.default_rng(0)
    for loss, n_grades in (("probit", 2), ("ordinal", 5)):
        response = response_of(loss, take(np.arange(60.0) % n_grades))
        response.draw(scores, rng)
        response.draw(scores, rng, n_jobs=2)
    probability_above(scores)
    for cutpoints in (response.cutpoints, take(np.array(response.cutpoints))):
        probabilities_of_grades(scores, cutpoints)
        expected_grade(scores, cutpoints, take(np.array(response.values)))


def use_recommender(folder):
    """Fit, save, load; recommend, predict and find similar items before and after."""
    ratings, _ = fmknn.datasets.make_interactions(n_users=40, n_items=90, n_ratings=900)
    estimator = fmknn.FMRegressor(3, n_iter=2, random_state=0)
    fitted = fmknn.Recommender(estimator).fit(ratings)
    fitted.params_.score(design_of_interactions(ratings))
    path = folder / "model.fmknn"
    fitted.save(path)
    for model in (fitted, fmknn.load(path)):
        for index in ("exact", "flat", "ivf"):
            indexed = model.with_index(index)
            users, items = indexed.users.ids[:5], indexed.items.ids[:5]
            context = {name: column.ids.ids[0] for name, column in ratings.context.items()}
            indexed.recommend(users, n=4, context=context, candidates=indexed.items.ids[:50])
            indexed.recommend(users[:1], n=10**6, context=context, exclude={users[0]: items})
            indexed.predict(users, items, context=context)
            indexed.similar_items(items, n=3)


def use_exact_index():
    """Search in batches and alone, in all and in some of the items, built and loaded."""
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((30000, 40)) * 0.7 ** np.arange(40)).astype(np.float32)
    queries = rng.standard_normal((40, 40))
    built = fmknn.ExactIndex().build(vectors, queries)
    assert built.to_state()[1]["n_prefix"] > 0
    state, settings = built.to_state()
    for index in (built, fmknn.ExactIndex.from_state(vectors, state, settings), built.add(vectors)):
        for asked in (queries, queries[:1]):
            exclude = fmknn.ItemLists.from_pairs([0], [5], len(asked))
            index.search(asked, 10, exclude=exclude)
            index.search(asked, 10, candidates=np.arange(700))
            index.search(asked, 10, exclude_items=[3])
    fmknn.ExactIndex(compress=4).build(vectors, queries).search(queries, 10)


def signatures():
    """{module.kernel: its signatures} over all modules of fmknn, used above or not."""
    for module in pkgutil.walk_packages(fmknn.__path__, "fmknn."):
        if module.name != "fmknn.__main__":
            importlib.import_module(module.name)
    return {
        f"{name}.{kernel.__name__}": [str(signature) for signature in kernel.signatures]
        for name, module in sorted(sys.modules.items())
        if name.startswith("fmknn.")
        for kernel in vars(module).values()
        if hasattr(kernel, "py_func") and kernel.__module__ == name
    }


def main():
    folder = Path(sys.argv[1])
    for source in SOURCES:
        use_model(lambda array, source=source: source(array, folder))
        use_estimators(lambda array, source=source: source(array, folder))
        use_recordio(lambda array, source=source: source(array, folder))
        use_sweeps(lambda array, source=source: source(array, folder))
        use_bpr(lambda array, source=source: source(array, folder))
        use_all_pairs(lambda array, source=source: source(array, folder))
        use_responses(lambda array, source=source: source(array, folder))
    use_recommender(folder)
    use_exact_index()
    print(json.dumps(signatures()))


if __name__ == "__main__":
    main()
