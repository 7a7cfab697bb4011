"""Searches from many Python threads at once, after a fork, and what they leave behind."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from index_oracle import MAKERS, bits, build, lists_of
from planted import same_answers, trained
from threadpoolctl import threadpool_info

from fmknn import Recommender

N_THREADS = 8

every_index = pytest.mark.parametrize("kind", MAKERS)
forks = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"
)


def some_rows(n_items=1200, n_queries=300, dim=9):
    rng = np.random.default_rng(n_items)
    vectors = rng.normal(size=(n_items, dim)) * rng.lognormal(size=(n_items, 1))
    return vectors.astype(np.float32), rng.normal(size=(n_queries, dim)).astype(np.float32)


def some_calls(n_items, queries):
    """Searches of every kind: big and single, filtered and not, long lists and short ones."""
    rng = np.random.default_rng(1)
    exclude = lists_of([rng.integers(0, n_items, 200 * (q % 3)) for q in range(len(queries))])
    few, most = rng.permutation(n_items)[:30], rng.permutation(n_items)[: n_items * 9 // 10]
    return [
        (queries, 10, {}),
        (queries[:1], 10, {}),
        (queries, 25, {"exclude": exclude}),
        (queries[:1], n_items, {}),
        (queries[:70], 100, {"candidates": most}),
        (queries, 10, {"exclude": exclude, "exclude_items": few}),
        (queries[3:4], 10, {"exclude_items": most}),
        (queries, 40, {"candidates": few}),
    ]


def search(index, call):
    queries, n, filters = call
    return bits(index.search(queries, n, **filters))


def at_once(tasks):
    """Call all of them in threads of their own that begin together; the results in order."""
    together = threading.Barrier(len(tasks), timeout=60)

    def run(task):
        together.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(120) for future in [pool.submit(run, task) for task in tasks]]


# --- threads --------------------------------------------------------------------------------------


@every_index
def test_threads_that_search_at_once_get_what_one_gets(kind):
    vectors, queries = some_rows()
    calls = some_calls(len(vectors), queries)
    index = build(kind, vectors)

    def all_calls(first):
        turned = [*range(first, len(calls)), *range(first)]
        return {place: search(index, calls[place]) for place in turned}

    # the index is fresh: the first search of all is one of eight
    got = at_once([lambda first=first: all_calls(first) for first in range(N_THREADS)])
    wanted = {place: search(index, call) for place, call in enumerate(calls)}
    assert all(answers == wanted for answers in got)


@pytest.mark.parametrize("kind", ["exact", "flat", "ivf", "hnsw"])
def test_threads_may_build_and_add_while_others_search(kind):
    vectors, queries = some_rows(n_items=600, n_queries=80)
    call = (queries, 10, {})
    index = build(kind, vectors)

    def grown():
        return search(index.add(vectors[:50]), call)

    def built():
        return search(build(kind, vectors), call)

    got = at_once([lambda: search(index, call), grown, built, grown] * 2)
    assert got == [search(index, call), grown(), built(), grown()] * 2


@every_index
def test_threads_that_recommend_at_once_get_what_one_gets(kind):
    model = trained("context")
    model = model.with_index(MAKERS[kind](len(model.items)))
    users = model.users.ids

    def lists(turn):
        return [
            model.recommend(users, 10, context={"day": "mon"}),
            model.recommend(users[turn : turn + 1], 5, context={"day": "sun"}, exclude_seen=False),
            model.recommend(users, 60, context={"day": "fri"}, candidates=model.items.ids[turn:]),
        ]

    got = at_once([lambda turn=turn: lists(turn) for turn in range(N_THREADS)])
    for turn, tops in enumerate(got):
        assert all(map(same_answers, tops, lists(turn)))


# --- fork -----------------------------------------------------------------------------------------


def answer_into(pipe, tasks):
    pipe.send([task() for task in tasks])


def in_a_fork(tasks):
    """Call the tasks in a forked child that has to answer within a minute."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=answer_into, args=(sender, tasks))
    child.start()
    sender.close()
    try:
        assert receiver.poll(60), "the child hangs"
        return receiver.recv()
    finally:
        child.join(5)
        child.kill()
        child.join()


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@every_index
def test_a_child_forked_after_use_answers_the_same(kind):
    vectors, queries = some_rows()
    calls = some_calls(len(vectors), queries)
    index = build(kind, vectors)
    wanted = [search(index, call) for call in calls]
    at_once([lambda: search(index, calls[0])] * 2)  # pools of other threads have been about
    rebuilt = search(build(kind, vectors[:400]), (queries, 10, {}))
    grown = search(index.add(vectors[:9]), (queries, 10, {}))
    tasks = [lambda call=call: search(index, call) for call in calls]
    tasks.append(lambda: search(build(kind, vectors[:400]), (queries, 10, {})))
    tasks.append(lambda: search(index.add(vectors[:9]), (queries, 10, {})))
    assert in_a_fork(tasks) == [*wanted, rebuilt, grown]
    assert [search(index, call) for call in calls] == wanted, "the parent goes on as before"


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["exact", "exact on two threads", "flat", "hnsw"])
def test_threads_within_a_forked_child(kind):
    vectors, queries = some_rows(n_items=600, n_queries=80)
    calls = some_calls(len(vectors), queries)
    index = build(kind, vectors)
    wanted = [search(index, call) for call in calls]
    tasks = [lambda call=call: search(index, call) for call in calls]
    assert in_a_fork([lambda: at_once(tasks)]) == [wanted]


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_recommender_in_a_forked_child():
    model = trained()
    assert isinstance(model, Recommender)
    wanted = model.recommend(model.users.ids, 10)

    def lists():
        top = model.recommend(model.users.ids, 10)
        return top.positions.tobytes(), top.scores.tobytes()

    assert in_a_fork([lists]) == [(wanted.positions.tobytes(), wanted.scores.tobytes())]


# --- nothing is left behind -----------------------------------------------------------------------


def pools():
    return [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]


@every_index
def test_threads_of_blas_and_openmp_are_as_before(kind):
    vectors, queries = some_rows()
    calls = some_calls(len(vectors), queries)
    search(build(kind, vectors), calls[0])  # whatever loads a library has loaded it
    before, running = pools(), threading.active_count()
    assert before, "numpy and faiss bring pools"
    index = build(kind, vectors)
    for call in calls:
        search(index, call)
        assert pools() == before
    at_once([lambda call=call: search(index, call) for call in calls])
    index.add(vectors)
    with pytest.raises(ValueError):
        index.search(queries[:, :3], 1)
    assert pools() == before
    assert threading.active_count() == running
