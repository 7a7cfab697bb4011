"""JSON lines, entirely or not at all; recommend_all, chunk by chunk."""

from __future__ import annotations

import json
import os
import stat
import sys

import numpy as np
import pytest
from refusals import refused

from fmknn.backends.sagemaker.answers import parse_answers
from fmknn.data.ids import IdMap
from fmknn.index.base import Hits
from fmknn.serving.batch import recommend_all
from fmknn.serving.sinks import JsonLines, write_json_lines
from fmknn.serving.topn import TopN

ITEMS = IdMap(["a", "b", "ü"], "item")


def top_of(users, positions, scores):
    counts = [sum(p >= 0 for p in row) for row in positions]
    hits = Hits(np.array(positions, np.int32), np.array(scores, float), np.array(counts, np.int32))
    return TopN.of(np.array(users), hits, np.zeros(len(users)), ITEMS, lambda top: top.scores)


CHUNKS = [
    top_of([7, 3], [[2, 0], [1, -1]], [[3.25, 0.1], [-2.0, -np.inf]]),
    top_of([5], [[-1, -1]], [[-np.inf, -np.inf]]),
]
LINES = [
    {"user": 7, "items": ["ü", "a"], "scores": [3.25, 0.1]},
    {"user": 3, "items": ["b"], "scores": [-2.0]},
    {"user": 5, "items": [], "scores": []},
]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def broken_after(chunks):
    yield from chunks
    raise OSError("no more power")


def test_one_line_a_user(tmp_path):
    assert write_json_lines(CHUNKS, tmp_path / "recs.jsonl") == 3
    assert read(tmp_path / "recs.jsonl") == LINES
    assert "ü" in (tmp_path / "recs.jsonl").read_text(encoding="utf-8")  # readable as it stands
    assert os.listdir(tmp_path) == ["recs.jsonl"]


def test_a_path_may_be_a_string(tmp_path):
    write_json_lines(CHUNKS, str(tmp_path / "recs.jsonl"))
    assert read(tmp_path / "recs.jsonl") == LINES


def test_scores_keep_every_bit(tmp_path):
    score = float(np.nextafter(0.1, 1))
    write_json_lines([top_of([1], [[0]], [[score]])], tmp_path / "recs.jsonl")
    assert read(tmp_path / "recs.jsonl")[0]["scores"] == [score]


def test_no_users_give_an_empty_file(tmp_path):
    assert write_json_lines([], tmp_path / "recs.jsonl") == 0
    assert read(tmp_path / "recs.jsonl") == []


@pytest.mark.parametrize("before", [None, "the old one\n"])
def test_an_exception_in_the_middle_leaves_all_as_it_was(tmp_path, before):
    path = tmp_path / "recs.jsonl"
    if before is not None:
        path.write_text(before)
    with pytest.raises(OSError, match="no more power"):
        write_json_lines(broken_after(CHUNKS), path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == (
        {} if before is None else {"recs.jsonl": before}
    )


def test_until_the_end_the_old_file_is_there(tmp_path):
    path = tmp_path / "recs.jsonl"
    path.write_text("the old one\n")

    def chunks():
        yield CHUNKS[0]
        assert path.read_text() == "the old one\n"
        yield CHUNKS[1]

    write_json_lines(chunks(), path)
    assert read(path) == LINES


def test_a_missing_folder_is_named_before_anything_is_computed(tmp_path):
    started = []

    def chunks():
        started.append(True)
        yield CHUNKS[0]

    with refused(FileNotFoundError, tmp_path / "nowhere"):
        write_json_lines(chunks(), tmp_path / "nowhere" / "recs.jsonl")
    assert not started
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "recs").mkdir()
    with pytest.raises(OSError):
        write_json_lines(CHUNKS, tmp_path / "recs")
    assert os.listdir(tmp_path) == ["recs"]


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits of POSIX")
def test_the_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    old = os.umask(0o027)
    try:
        write_json_lines(CHUNKS, tmp_path / "recs.jsonl")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "recs.jsonl").stat().st_mode) == 0o640


# --- the form of SageMaker's answers ------------------------------------------------------------

NUMBERS = IdMap([3, 5, 8], "item")


def numbered(positions, scores):
    top = top_of(range(len(positions)), positions, scores)
    return TopN.of(
        top.users,
        Hits(top.positions, top.scores, top.counts),
        np.zeros(len(top)),
        NUMBERS,
        lambda top: top.scores,
    )


def write_sagemaker(path, top):
    sink = JsonLines(path, form="sagemaker")
    return recommend_all(lambda users, n, **_: top if len(users) else None, top.users, 3, to=sink)


def test_sagemakers_form(tmp_path):
    top = numbered([[2, 0], [1, -1], [-1, -1]], [[3.25, -0.1], [-2.0, -np.inf], [-np.inf] * 2])
    assert write_sagemaker(tmp_path / "recs.out", top) == 3
    assert (tmp_path / "recs.out").read_text().splitlines() == [
        '{"predicted_label": 8.0, "distances": [-0.1, 3.25], "labels": [3.0, 8.0]}',
        '{"predicted_label": 5.0, "distances": [-2.0], "labels": [5.0]}',
        '{"predicted_label": null, "distances": [], "labels": []}',
    ]


def test_sagemakers_form_is_read_as_sagemakers_answers_are(tmp_path):
    write_sagemaker(
        tmp_path / "recs.out", numbered([[2, 0], [1, -1]], [[2.0, 1.0], [4.0, -np.inf]])
    )
    data = (tmp_path / "recs.out").read_bytes()
    labels, distances = parse_answers(data, 2, 2, 9, "recs.out")
    assert labels.tolist() == [[3, 8], [5, -1]]
    np.testing.assert_array_equal(distances, [[1.0, 2.0], [4.0, np.nan]])


def test_sagemakers_labels_are_numbers(tmp_path):
    with refused(ValueError, "'ü'", "floats", '"plain"'):
        write_sagemaker(tmp_path / "recs.out", CHUNKS[0])
    assert os.listdir(tmp_path) == []


def test_another_form_is_refused():
    with refused(ValueError, "form", "plain, sagemaker", "'csv'"):
        JsonLines("recs.jsonl", form="csv")


# --- recommend_all, on a recommender that only notes what it is asked ---------------------------


class Asked:
    def __init__(self):
        self.calls = []

    def __call__(self, users, n, context=None, **options):
        if len(users) == 0:  # whether the arguments will do, before anything is computed
            return None
        self.calls.append(
            (
                list(users),
                n,
                {name: level.tolist() for name, level in context.items()},
                options,
            )
        )
        return top_of(list(users), [[0]] * len(users), [[1.0]] * len(users))


@pytest.mark.parametrize("chunk, sizes", [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (99, [5])])
def test_users_come_in_chunks_in_their_order(chunk, sizes):
    ask = Asked()
    users = np.array([4, 2, 9, 2, 7])
    chunks = list(recommend_all(ask, users, 3, chunk=chunk, exclude_seen=False))
    assert [len(top) for top in chunks] == sizes
    assert [user for call in ask.calls for user in call[0]] == users.tolist()
    assert all(call[1:] == (3, {}, {"exclude_seen": False}) for call in ask.calls)


def test_nothing_is_computed_before_it_is_asked_for():
    ask = Asked()
    chunks = recommend_all(ask, np.arange(10), 1, chunk=4)
    assert ask.calls == []
    next(iter(chunks))
    assert len(ask.calls) == 1


def test_contexts_are_cut_like_the_users():
    ask = Asked()
    context = {"day": ["a", "b", "c", "d", "e"], "shop": 3, "hour": np.arange(5), "land": "xy"}
    list(recommend_all(ask, np.arange(5), 1, chunk=2, context=context))
    assert [call[2] for call in ask.calls] == [
        {"day": ["a", "b"], "shop": [3], "hour": [0, 1], "land": ["xy"]},
        {"day": ["c", "d"], "shop": [3], "hour": [2, 3], "land": ["xy"]},
        {"day": ["e"], "shop": [3], "hour": [4], "land": ["xy"]},
    ]


def test_a_context_of_another_length_is_refused_at_once():
    with refused(ValueError, "'day'", "3", "5"):
        recommend_all(Asked(), np.arange(5), 1, chunk=1, context={"day": ["a", "b", "c"]})


@pytest.mark.parametrize("context", [1.0, "mon", ["day"], {"day": 1.0}, {"day": None}])
def test_what_is_no_context_is_refused_at_once(context):
    with refused(TypeError):
        recommend_all(Asked(), np.arange(5), 1, context=context)


@pytest.mark.parametrize("chunk", [0, -1, 2.5, True, None])
def test_a_bad_chunk_is_refused_at_once(chunk):
    with refused(ValueError, "chunk", repr(chunk)):
        recommend_all(Asked(), np.arange(5), 1, chunk=chunk)


def test_to_a_file(tmp_path):
    written = recommend_all(Asked(), np.array([4, 2, 9]), 1, to=tmp_path / "recs.jsonl", chunk=2)
    assert written == 3
    assert [line["user"] for line in read(tmp_path / "recs.jsonl")] == [4, 2, 9]


def test_the_progress_bar_is_only_there_when_asked_for(capsys):
    list(recommend_all(Asked(), np.arange(5), 1, chunk=2))
    assert capsys.readouterr() == ("", "")
    list(recommend_all(Asked(), np.arange(5), 1, chunk=2, progress=True))
    out, err = capsys.readouterr()
    assert out == "" and "5/5" in err


@pytest.mark.parametrize("name", ["recs.parquet", "recs.CSV", "sqlite:///recs.db"])
def test_a_name_of_another_kind_of_file_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="only JSON lines"):
        write_json_lines([], name)
    assert not list(tmp_path.iterdir())


def test_the_password_of_an_address_is_not_told():
    with pytest.raises(ValueError, match="only JSON lines") as caught:
        JsonLines("postgresql://me:hush@host/db")
    assert "hush" not in str(caught.value)
