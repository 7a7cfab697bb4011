"""Every Python block of README.md runs, in order, as one program."""

from __future__ import annotations

import re
from pathlib import Path

import realdata

README = Path(__file__).parent.parent / "README.md"


def test_the_snippets_run(tmp_path, monkeypatch):
    realdata.movielens()
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S))
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        code = "\n" * line + block.group(1)  # so that a traceback names README's own line
        exec(compile(code, str(README), "exec"), names)
    assert (names["same"].items == names["top"].items).all()
    assert names["hits"].positions.shape == (943, 100)
    assert len((tmp_path / "recommendations.jsonl").read_text().splitlines()) == 943


def test_the_first_screen_shows_both_commands():
    first = README.read_text(encoding="utf-8").splitlines()[:40]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)
