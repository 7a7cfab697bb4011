"""The plots of ``bench_topn.py``: recall against speed, and speed against catalogue size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from _topn_exact import Line

import fmknn


def draw(folder: str, lines: Mapping[str, Sequence[Line]]) -> None:
    """Draw what the sections "settings" and "approximate" measured, where they were run."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for section, name, plot in (
        ("settings", "recall_against_speed.png", _recall),
        ("approximate", "speed_against_size.png", _speed),
    ):
        measured = [line for line in lines.get(section, ()) if "planted" in line.details]
        if measured:
            path = Path(folder) / name
            plot(measured, path)
            print(f"drawn: {path}")


def _recall(lines: Sequence[Line], path: Path) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        label = line.work.split(":")[0]
        kind = "IVF, tuned" if "target_recall" in label else label.split()[0]
        point = line.details["rates"]["approximate"], line.details["recalls"][100]
        points.setdefault(f'FaissIndex("{kind}")', []).append(point)
    axes = fmknn.plot.recall_against_speed(points, ax=_axes())
    for drawn in axes.lines:
        if "tuned" in drawn.get_label():
            drawn.set_linestyle("none")
    exact = sorted(line.details["rates"]["exact"] for line in lines)[len(lines) // 2]
    axes.axvline(exact, color="black", linestyle="--", label="ExactIndex (recall 1)")
    axes.set(xlabel="users per CPU second", ylabel="recall of the top 100")
    axes.set_title(f"{lines[0].details['planted']:,} planted items, d = 65, one thread")
    _finish(axes, path)


def _speed(lines: Sequence[Line], path: Path) -> None:
    axes = _axes()
    sizes = [line.details["planted"] for line in lines]
    for key, label in (
        ("exact", "ExactIndex"),
        ("faiss", "faiss Flat"),
        ("approximate", 'FaissIndex("IVF", target_recall=0.95)'),
    ):
        if key in lines[0].details["rates"]:
            rates = [line.details["rates"][key] for line in lines]
            axes.plot(sizes, rates, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="items", ylabel="users per CPU second")
    axes.set_title("planted items, d = 65, top 100, one thread")
    _finish(axes, path)


def _axes():
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4.5), layout="constrained").add_subplot()


def _finish(axes, path):
    axes.grid(alpha=0.3)
    axes.legend()
    axes.figure.savefig(path, dpi=150)
