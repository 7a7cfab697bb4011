"""Answers of a k-NN batch transform, queries in groups, and the history in a job's log.

The files in ``fixtures/sagemaker/knn-imitation`` were made with faiss, in the form and the order
that AWS documents ("k-NN Request and Response Formats"): ascending "distances".
"""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from fmknn.backends.sagemaker.answers import parse_answers, require_best, require_inner_products
from fmknn.backends.sagemaker.groups import groups_by_k
from fmknn.backends.sagemaker.logs import training_history
from fmknn.data.blocks import design_of_interactions, design_of_rows
from fmknn.data.interactions import Interactions
from fmknn.data.rows import as_rows
from fmknn.errors import AnswerError

IMITATION = Path(__file__).parent / "fixtures" / "sagemaker" / "knn-imitation"
WHERE = "s3://bucket/out/part-00000.pbr.out"


def parse(text, n_queries=1, k=3, n_items=10):
    data = text if isinstance(text, bytes) else text.encode()
    return parse_answers(data, n_queries, k, n_items, WHERE)


def one(labels="[1]", distances="[0.5]"):
    return f'{{"predicted_label": 0.0, "distances": {distances}, "labels": {labels}}}'


def lists(answer):
    """Pairs of (label, distance) per query, without the filling."""
    labels, distances = answer
    assert labels.dtype == np.int64 and distances.dtype == np.float64
    assert labels.shape == distances.shape
    assert ((labels == -1) == np.isnan(distances)).all()
    return [
        [(label, value) for label, value in zip(*row, strict=True) if label >= 0]
        for row in zip(labels.tolist(), distances.tolist(), strict=True)
    ]


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flat_ip", "flat_l2"])
def test_the_documented_form(name):
    data = (IMITATION / f"answer_{name}_documented_order.jsonl").read_bytes()
    lines = [json.loads(line) for line in data.splitlines()]
    expected = [
        list(zip(map(int, line["labels"]), line["distances"], strict=True)) for line in lines
    ]
    assert lists(parse(data, 7, 3, 6)) == expected
    assert lists(parse(data, 7, 5, 6)) == expected, "fewer than asked for"


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# numbers as a program in another language may print them
NUMBER_FORMS = st.sampled_from(["{!r}", "{:.17e}", "{:.17E}", "{:.17g}"])
GAPS = st.text(" \t\r\n", max_size=3)


@st.composite
def answers(draw):
    """Answers, and a text that says them in one of the forms that JSON allows."""
    k = draw(st.integers(1, 5))
    rows = draw(
        st.lists(
            st.lists(
                st.tuples(st.integers(0, 9), FLOATS), max_size=k, unique_by=lambda pair: pair[0]
            ),
            max_size=6,
        )
    )
    objects = []
    for row in rows:
        form = draw(NUMBER_FORMS)
        label_form = draw(st.sampled_from(["{:d}", "{:d}.0", "{:d}e0", "{:d}.00E+00"]))
        members = [
            '"labels":' + f"[{','.join(label_form.format(label) for label, _ in row)}]",
            '"distances":' + f"[{','.join(form.format(value) for _, value in row)}]",
            *draw(st.sampled_from([[], ['"predicted_label":1.0'], ['"x":{"labels":[[7]]}']])),
        ]
        text = "{" + ",".join(draw(st.permutations(members))) + "}"
        if draw(st.booleans()):
            text = json.dumps(json.loads(text), indent=draw(st.sampled_from([None, 1, "\t"])))
        objects.append(text)
    if draw(st.booleans()):
        objects = ['{"predictions":[' + ",".join(part) + "]}" for part in _split(draw, objects)]
    text = draw(GAPS) + "".join(part + draw(GAPS) for part in objects)
    return k, rows, text


def _split(draw, objects):
    cuts = sorted(draw(st.lists(st.integers(0, len(objects)), max_size=3)))
    return [objects[a:b] for a, b in itertools.pairwise([0, *cuts, len(objects)])]


@given(answers())
@settings(max_examples=150)
def test_every_way_to_write_the_same_answers(case):
    k, rows, text = case
    got = parse(text, len(rows), k)
    assert got[0].shape == (len(rows), k)
    assert lists(got) == rows


@given(answers(), st.data())
@settings(max_examples=150)
def test_text_that_is_cut_off_is_never_taken_for_whole(case, data):
    k, rows, text = case
    text = re.sub(r'(\{\s*"predictions":\s*\[\s*\]\s*\}\s*)+$', "", text.rstrip()).rstrip()
    if not rows:
        return
    cut = data.draw(st.integers(0, len(text) - 1))
    with refused(AnswerError, WHERE):
        parse(text[:cut], len(rows), k)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.integers(0, 3))
@settings(max_examples=150)
def test_any_bytes_are_answers_or_refused(data, n_queries):
    try:
        labels, _ = parse(data, n_queries)
    except AnswerError as error:
        assert "\n" not in str(error) and WHERE in str(error)
    else:
        assert labels.shape == (n_queries, 3)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-20, 20)
        | st.floats(width=16)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["labels", "distances", "predictions", "x"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=150)
def test_any_json_is_answers_or_refused(value):
    huge = json.dumps(value)
    try:
        labels, _ = parse(huge)
    except AnswerError as error:
        assert "\n" not in str(error) and WHERE in str(error)
    else:
        assert ((labels >= -1) & (labels < 10)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", ["answer 1", "JSON", "nonsense"]),
        (one() + "\n" + "}", ["answer 2", "JSON"]),
        (one()[:-1], ["answer 1", "JSON"]),
        (one("[1,]"), ["answer 1", "JSON"]),
        (one("[01]"), ["answer 1", "JSON"]),
        ("[1, 2]", ["answer 1", "object"]),
        ("3", ["answer 1", "object"]),
        ("null", ["answer 1", "object"]),
        ('{"predictions": [3]}', ["answer 1", "object"]),
        ('{"predicted_label": 0.0}', ["answer 1", "labels", "verbose"]),
        ('{"labels": [1]}', ["answer 1", "distances", "verbose"]),
        ('{"predictions": {"labels": [1], "distances": [1]}}', ["answer 1"]),
        (one('"1"'), ["answer 1", "labels"]),
        (one("1"), ["answer 1", "labels"]),
        (one("null"), ["answer 1", "labels"]),
        (one("[null]"), ["answer 1", "labels"]),
        (one("[true]"), ["answer 1", "labels"]),
        (one('["1"]'), ["answer 1", "labels"]),
        (one("[[1]]"), ["answer 1", "labels"]),
        (one(distances='["0.5"]'), ["answer 1", "distances"]),
        (one(distances="[false]"), ["answer 1", "distances"]),
        (one("[1, 2]"), ["answer 1", 2, 1]),
        (one("[]"), ["answer 1", 0, 1]),
        (one("[0,1,2,3]", "[0,1,2,3]"), ["answer 1", 4, 3]),
        (one("[1.5]"), ["answer 1", "label", "0..9"]),
        (one("[-1]"), ["answer 1", "label", "0..9"]),
        (one("[10]"), ["answer 1", "label", "0..9"]),
        (one("[4294967296]"), ["answer 1", "label", "0..9"]),
        (one("[1e-300]"), ["answer 1", "label", "0..9"]),
        (one("[2, 1, 2]", "[1, 2, 3]"), ["answer 1", "twice"]),
        (one("[NaN]"), ["answer 1", "labels", "NaN"]),
        (one("[1e400]"), ["answer 1", "labels"]),
        (one(distances="[NaN]"), ["answer 1", "distances", "NaN"]),
        (one(distances="[nan]"), ["answer 1", "JSON"]),
        (one(distances="[Infinity]"), ["answer 1", "distances", "infinity"]),
        (one(distances="[-Infinity]"), ["answer 1", "distances", "infinity"]),
        (one(distances="[1e400]"), ["answer 1", "distances", "infinity"]),
        (one(distances="[-1e400]"), ["answer 1", "distances", "infinity"]),
        (one(distances=f"[1{'0' * 400}]"), ["answer 1", "distances"]),
        (one(f"[1{'0' * 400}]"), ["answer 1", "labels"]),
        (one(f"[{'9' * 100_000}]"), ["answer 1"]),
        (one(f'[{{"a": {"[" * 300_000}'), ["answer 1"]),
        ("[" * 300_000, ["answer 1"]),
        ('{"predictions":[' * 100_000, ["answer 1"]),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, ["answer 1"]),
        (b"\xff\xfe" + one().encode("utf-16-le"), ["byte 0"]),
        (one().encode() + b"\x00", ["answer 2", "JSON"]),
        (one().encode() + b"\xe2\x82", [len(one())]),
        (one() + "\u2028" + "x\ny", ["answer 2", "JSON"]),
        (one() + "," + one(), ["answer 2", "JSON"]),
    ],
)
def test_what_is_no_answer_is_refused_by_number(text, words):
    with refused(AnswerError, WHERE, *words):
        parse(text)


@pytest.mark.parametrize("label", ["1e300", "-1e300", "1e19", "9" * 30])
def test_a_label_beyond_the_integers_is_refused_without_a_warning(label):
    with np.errstate(invalid="raise"), refused(AnswerError, WHERE, "answer 1", "label", "0..9"):
        parse(one(f"[{label}]"))


@pytest.mark.parametrize("wrap", ["{}", '{{"predictions": [{}]}}'])
def test_the_number_of_answers_is_that_of_the_queries(wrap):
    text = "".join(wrap.format(one()) for _ in range(3))
    assert lists(parse(text, 3)) == [[(1, 0.5)]] * 3
    with refused(AnswerError, WHERE, "more than 2", "2 queries"):
        parse(text, 2)
    with refused(AnswerError, WHERE, "more than 0", "0 queries"):
        parse(text, 0)
    with refused(AnswerError, WHERE, "3 answers", "4 queries"):
        parse(text, 4)


@pytest.mark.parametrize(
    "text", ["", " \r\n\t", '{"predictions": []}', '{"predictions": []}\n' * 3]
)
def test_nothing_is_the_answer_to_nothing(text):
    assert parse(text, 0)[0].shape == (0, 3)
    with refused(AnswerError, WHERE, "0 answers", "1 queries"):
        parse(text, 1)


def test_a_key_that_is_there_twice_counts_as_json_readers_count_it():
    text = '{"labels": [1, 2], "distances": [9, 8], "labels": [4], "distances": [0.5]}'
    assert lists(parse(text)) == [[(4, 0.5)]]
    with refused(AnswerError, "answer 1", WHERE):
        parse('{"labels": [1, 2], "distances": [9, 8], "labels": [4]}')


def test_a_wrong_answer_is_named_by_its_number_within_the_file():
    text = '{"predictions": [' + ",".join([one()] * 4 + [one("[11]")]) + "]}"
    with refused(AnswerError, "answer 5", WHERE):
        parse(text, 5)


@pytest.mark.parametrize(
    "form",
    [
        "joined",
        *(pytest.param(form, marks=pytest.mark.slow) for form in ("lines", "pretty", "array")),
    ],
)
def test_a_hundred_thousand_answers(form):
    # any copy of the remaining text per answer would take minutes here: 10 to 30 MB times 100,000
    n, answer = 100_000, {"predicted_label": 0.0, "distances": [0.5, 1.5], "labels": [3.0, 4.0]}
    if form == "pretty":
        text = (json.dumps(answer, indent=2) + "\n") * n
    elif form == "array":
        text = '{"predictions": [' + ", ".join([json.dumps(answer)] * n) + "]}"
    else:
        text = (json.dumps(answer) + ("\n" if form == "lines" else "")) * n
    labels, distances = parse(text, n)
    assert (labels == [3, 4, -1]).all()
    assert (distances[:, :2] == [0.5, 1.5]).all() and np.isnan(distances[:, 2]).all()


# --- what the distances are ----------------------------------------------------------------------


def imitated():
    expected = np.load(IMITATION / "expected.npz")
    # labels of the imitation count from 1: an item 0 that is never near takes the first place
    vectors = np.concatenate([np.zeros((1, 5), np.float32), expected["items"]])
    return expected["users"], vectors


def imitated_answers(metric):
    data = (IMITATION / f"answer_flat_{metric}_documented_order.jsonl").read_bytes()
    return parse(data, 7, 3, 6)


def test_inner_products_are_taken_in_any_order():
    queries, vectors = imitated()
    labels, distances = imitated_answers("ip")
    for order in itertools.permutations(range(3)):
        require_inner_products(labels[:, order], distances[:, order], queries, vectors, WHERE)


@pytest.mark.parametrize("what", ["negated", "squared", "l2", "cosine", "shuffled", "rounded"])
def test_what_is_no_inner_product_is_refused(what):
    queries, vectors = imitated()
    labels, distances = imitated_answers("l2" if what == "l2" else "ip")
    if what == "negated":
        distances = -distances
    elif what == "squared":
        distances = distances**2
    elif what == "cosine":
        norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[labels]
        distances = distances / norms
    elif what == "shuffled":
        distances = distances[:, ::-1]
    elif what == "rounded":
        distances = distances.round(1)
    with refused(AnswerError, WHERE, "inner products", "item", "search='local'"):
        require_inner_products(labels, distances, queries, vectors, WHERE)


@given(st.integers(0, 6), st.integers(0, 2), st.sampled_from([-1, 1]))
def test_one_wrong_value_among_many_is_named(row, column, sign):
    queries, vectors = imitated()
    labels, distances = imitated_answers("ip")
    item = labels[row, column]
    norms = float(np.linalg.norm(queries[row]) * np.linalg.norm(vectors[item]))
    within, beyond = distances.copy(), distances.copy()
    within[row, column] += sign * 0.5e-4 * norms
    beyond[row, column] += sign * 2e-4 * norms
    require_inner_products(labels, within, queries, vectors, WHERE)
    with refused(AnswerError, WHERE, f"item {item}"):
        require_inner_products(labels, beyond, queries, vectors, WHERE)


def test_places_without_an_answer_are_passed_over():
    queries, vectors = imitated()
    labels, distances = (np.array(array) for array in imitated_answers("ip"))
    labels[:, 1:], distances[:, 1:] = -1, np.nan
    labels[3, 0], distances[3, 0] = -1, np.nan
    require_inner_products(labels, distances, queries, vectors, WHERE)


def test_a_query_of_zeros_has_inner_products_of_zero():
    vectors = np.eye(3, dtype=np.float32)
    queries = np.zeros((1, 3), np.float32)
    require_inner_products(np.array([[2, 0]]), np.array([[0.0, -0.0]]), queries, vectors, WHERE)
    with refused(AnswerError, WHERE, "item 0"):
        require_inner_products(np.array([[2, 0]]), np.array([[0.0, 0.1]]), queries, vectors, WHERE)


# --- whether the best are there ------------------------------------------------------------------


def brute_best(queries, vectors, allowed, k):
    """Labels of the k best, ascending as SageMaker lists them."""
    return np.array(
        [
            sorted(
                allowed, key=lambda item: sum(a * b for a, b in zip(q, vectors[item], strict=True))
            )[-k:]
            for q in queries.astype(float).tolist()
        ],
        dtype=np.int64,
    )


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 8), data=st.data())
@settings(max_examples=60)
def test_the_best_items_pass_and_a_missed_one_is_named(seed, k, data):
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-50, 50, (12, 4)).astype(np.float32)
    queries = generator.integers(1, 50, (5, 4)).astype(np.float32)
    allowed = np.sort(generator.choice(12, 9, replace=False))
    labels = brute_best(queries, vectors.tolist(), allowed.tolist(), k)
    require_best(labels, queries, vectors, allowed, WHERE)
    require_best(labels[:, ::-1], queries, vectors, allowed, WHERE)
    row = data.draw(st.integers(0, 4))
    scores = vectors.astype(float) @ queries[row].astype(float)
    others = [item for item in allowed if item not in labels[row]]
    worst = min(others, key=lambda item: scores[item])
    best = labels[row, -1]
    labels[row, -1] = worst
    margin = 1e-3 * np.linalg.norm(vectors, axis=1).max() * np.linalg.norm(queries[row])
    if scores[best] > scores[labels[row]].min() + margin:
        with refused(AnswerError, WHERE, "misses item", "search='local'"):
            require_best(labels, queries, vectors, allowed, WHERE)


def test_an_item_that_was_not_indexed_is_not_missed():
    vectors = np.array([[9.0], [1.0], [2.0]], np.float32)
    query = np.ones((1, 1), np.float32)
    require_best(np.array([[2]]), query, vectors, np.array([1, 2]), WHERE)
    with refused(AnswerError, WHERE, "item 0"):
        require_best(np.array([[2]]), query, vectors, np.array([0, 1, 2]), WHERE)


def test_ties_and_whole_lists_are_the_best():
    vectors = np.array([[1.0], [1.0], [1.0], [0.0]], np.float32)
    queries = np.array([[2.0], [0.0]], np.float32)
    for pair in itertools.combinations(range(3), 2):
        labels = np.array([pair, pair])
        require_best(labels, queries, vectors, np.arange(4), WHERE)
    require_best(np.array([[0, 1, 2, 3]] * 2), queries, vectors, np.arange(4), WHERE)


def test_an_answer_without_items_misses_all():
    vectors = np.array([[1.0], [2.0]], np.float32)
    with refused(AnswerError, WHERE, "item 1"):
        require_best(np.array([[-1, -1]]), vectors[:1], vectors, np.arange(2), WHERE)


# --- groups of queries ---------------------------------------------------------------------------


NEEDS = st.lists(st.integers(0, 40), max_size=40)


@given(needs=NEEDS, max_k=st.integers(1, 40), worth=st.integers(1, 200))
@settings(max_examples=150)
def test_each_query_is_in_one_group_that_asks_for_enough(needs, max_k, worth):
    needed = np.array(needs, np.int64)
    groups = groups_by_k(needed, max_k, worth)
    rows = [row for members, _ in groups for row in members.tolist()]
    assert sorted(rows) == [row for row, need in enumerate(needs) if 0 < need <= max_k]
    ks = [k for _, k in groups]
    assert ks == sorted(set(ks))
    for members, k in groups:
        assert members.tolist() == sorted(members.tolist())
        assert k == max(needs[row] for row in members)
        assert isinstance(k, int)


@given(needs=NEEDS, worth=st.integers(1, 200))
@settings(max_examples=150)
def test_a_group_is_split_exactly_as_long_as_that_is_worth_it(needs, worth):
    groups = groups_by_k(np.array(needs, np.int64), 40, worth)
    asked = sum(len(members) * k for members, k in groups)
    asking = [need for need in needs if need > 0]
    if asking:
        saved = len(asking) * max(asking) - asked
        assert saved >= worth * (len(groups) - 1)
    for members, k in groups:
        own = sorted(needs[row] for row in members)
        for cut in range(1, len(own)):
            assert cut * (k - own[cut - 1]) < worth, "another split would have been worth it"


def test_groups_of_nobody_and_of_equals():
    assert groups_by_k(np.zeros(0, np.int64), 10, 1) == []
    assert groups_by_k(np.array([0, 0, 11]), 10, 1) == []
    ((rows, k),) = groups_by_k(np.full(7, 3), 10, worth=1)
    assert rows.tolist() == list(range(7)) and k == 3


def test_a_million_queries_in_groups():
    needed = np.random.default_rng(0).integers(0, 1100, 1_000_000)
    groups = groups_by_k(needed, 1024, 5_000_000)
    assert sum(len(rows) for rows, _ in groups) == ((needed > 0) & (needed <= 1024)).sum()
    assert all(needed[rows].max() == k for rows, k in groups)


def test_needs_of_narrow_types_do_not_overflow():
    needed = np.full(3000, 100, np.int32)
    needed[0] = 1_000_000
    expected = [list(range(1, 3000)), [0]]
    for kind in (np.int32, np.uint32, np.int64):
        groups = groups_by_k(needed.astype(kind), 2_000_000, 5_000_000)
        assert [rows.tolist() for rows, _ in groups] == expected


# --- the log of a training job -------------------------------------------------------------------

LOG_START = "[12/22/2021 10:15:31 INFO 140097142404928] "
LOG = """
#quality_metric: host=algo-1, epoch=0, batch=0 train binary_classification_accuracy <score>=0.62
#quality_metric: host=algo-1, epoch=0, batch=0 train binary_f_1.000 <score>=0.7
#quality_metric: host=algo-1, epoch=0, train binary_classification_accuracy <score>=0.551391
#quality_metric: host=algo-1, epoch=0, train binary_classification_cross_entropy <loss>=0.685802
#quality_metric: host=algo-1, epoch=0, train binary_f_1.000 <score>=0.6713511765181531
#progress_metric: host=algo-1, completed 50.0 % of epochs
#throughput_metric: host=algo-1, train throughput=54648.40497448539 records/second
#quality_metric: host=algo-1, epoch=1, train binary_classification_accuracy <score>=5.66e-01
#quality_metric: host=algo-1, epoch=1, train binary_classification_cross_entropy <loss>=0.673162
#quality_metric: host=algo-1, epoch=1, train binary_f_1.000 <score>=0.680834
#test_score (algo-1) : ('binary_classification_accuracy', 0.6934662706830717)
#quality_metric: host=algo-1, test binary_classification_accuracy <score>=0.6934662706830717
""".splitlines()
HISTORY = [
    {
        "iteration": 1,
        "binary_classification_accuracy": 0.551391,
        "binary_classification_cross_entropy": 0.685802,
        "binary_f_1.000": 0.6713511765181531,
    },
    {
        "iteration": 2,
        "binary_classification_accuracy": 0.566,
        "binary_classification_cross_entropy": 0.673162,
        "binary_f_1.000": 0.680834,
    },
]


def test_the_metrics_of_epochs_are_read_and_nothing_else():
    assert training_history(LOG) == HISTORY
    assert training_history(iter(reversed(LOG))) == HISTORY, "ordered by epoch"
    assert training_history(f"{line}\r\n" for line in LOG) == HISTORY
    assert training_history(LOG_START + line for line in LOG) == HISTORY
    assert training_history([]) == []


def test_of_several_hosts_the_first_is_told():
    others = [line.replace("algo-1", host) for line in LOG for host in ("algo-2", "algo-10")]
    assert training_history([*LOG, *others]) == HISTORY


@given(st.lists(st.text(max_size=80) | st.sampled_from(LOG), max_size=8))
def test_any_line_is_read_or_left_out(lines):
    kept = [line for line in lines if line in LOG]
    assert training_history(lines) == training_history(kept)


def test_what_is_no_number_is_left_out():
    line = "#quality_metric: host=algo-1, epoch=0, train rmse <loss>="
    assert training_history([line, f"{line}x", f"{line}0.5.1"]) == []
    (entry,) = training_history([f"{line}nan"])
    assert entry["iteration"] == 1 and math.isnan(entry["rmse"])


def test_an_epoch_of_thousands_of_digits_is_left_out():
    line = f"#quality_metric: host=algo-1, epoch={'1' * 5000}, train rmse <loss>=0.5"
    assert training_history([line]) == []


# --- rows as a matrix without blocks has them ----------------------------------------------------


@st.composite
def matrices_in_blocks(draw):
    """A matrix, and its columns dealt out to blocks: interleaved, some in none."""
    n_rows, n_columns = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    entries = st.sampled_from([0.0, 0.0, 1.0, 1.0, -2.5, 0.1, 3e38])
    X = [draw(st.lists(entries, min_size=n_columns, max_size=n_columns)) for _ in range(n_rows)]
    owners = draw(st.lists(st.integers(-1, 2), min_size=n_columns, max_size=n_columns))
    blocks = {}
    for number in range(3):
        columns = [column for column, owner in enumerate(owners) if owner == number]
        if columns:
            blocks[f"b{number}"] = np.array(draw(st.permutations(columns)))
    return np.array(X, np.float32), draw(st.sampled_from([None, blocks]))


def entries_of(rows):
    """Each row as a list of (column, value)."""
    ends = rows.indptr.tolist()
    columns, values = rows.indices.tolist(), rows.values.tolist()
    return [list(zip(columns[a:b], values[a:b], strict=True)) for a, b in itertools.pairwise(ends)]


@given(case=matrices_in_blocks(), data=st.data())
@settings(max_examples=100)
def test_a_design_expands_to_the_rows_that_went_in(case, data):
    X, blocks = case
    design = design_of_rows(as_rows(X), blocks)
    start = data.draw(st.integers(0, len(X)))
    stop = data.draw(st.integers(start, len(X)))
    rows = design.expand(start, stop)
    assert rows.shape == (stop - start, X.shape[1])
    assert entries_of(rows) == [
        [(column, value) for column, value in enumerate(row) if value != 0]
        for row in X[start:stop].tolist()
    ]


@given(rows=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
@settings(max_examples=40)
def test_interactions_expand_to_one_hot_rows(rows):
    users, items, days = (list(column) for column in zip(*rows, strict=True))
    data = Interactions.from_arrays(users, items, [1.0] * len(rows), context={"day": days})
    expected, first = [[] for _ in rows], 0
    for ids, column in ((data.users, users), (data.items, items), (data.context["day"].ids, days)):
        known = ids.ids.tolist()
        for row, id_ in zip(expected, column, strict=True):
            row.append((first + known.index(id_), 1.0))
        first += len(known)
    expanded = design_of_interactions(data).expand(0, len(rows))
    assert expanded.shape == (len(rows), first)
    assert entries_of(expanded) == expected
