"""Plots of the comparisons, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INK, OURS, MUST = "#222222", "#2a6f97", "#c1121f"
SERVERS = {"CacheFlow": OURS, "redis": MUST, "etcd": "#6a994e"}


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed (pip install matplotlib)")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot_ratios(results: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Each ratio with what it must be, on a logarithmic axis; nothing without matplotlib."""
    pyplot = _pyplot()
    shown = [result for result in results if result["holds"] is not None]
    if pyplot is None or not shown:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(shown) + 1.4), layout="constrained")
    for at, result in enumerate(reversed(shown)):
        # From 1, where both are equal: a logarithmic axis has no zero.
        axes.barh(at, result["ratio"] - 1, left=1, color=OURS, height=0.55)
        axes.plot([min(result["ratios"]), max(result["ratios"])], [at, at], color=INK, linewidth=1.2)
        if result["decides"]:
            axes.plot([result["must"]] * 2, [at - 0.38, at + 0.38], color=MUST, linewidth=2)
        axes.annotate(
            f"{result['ratio']:.2f}",
            (max(1.0, *result["ratios"], result["must"] if result["decides"] else 0), at),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(shown)), [result["name"] for result in reversed(shown)])
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=0.8)
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("CacheFlow / peer; red: must be")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=140)
    pyplot.close(figure)


def plot_sweeps(sweeps: Mapping[str, Sequence[Mapping[str, Any]]], file: Path) -> None:
    """Two panels a sweep, over what was varied; nothing without matplotlib."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    from matplotlib import ticker

    figure, rows = pyplot.subplots(len(sweeps), 2, figsize=(11, 3.1 * len(sweeps)), layout="constrained", squeeze=False)
    for (name, points), panels in zip(sweeps.items(), rows, strict=True):
        at = sorted({point["at"] for point in points})
        if name == "holding":
            _draw_holding(points, panels)
        else:
            _draw_rates(points, panels)
        for axes in panels:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(at, [f"{each:,}" for each in at])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("items in one node" if name == "holding" else name.replace("_", " "))
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
            axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1 if name == "holding" else 0].legend(framealpha=0.8, edgecolor="none", fontsize=8, handlelength=4)
    figure.savefig(file, dpi=140)
    pyplot.close(figure)


def _draw_rates(points: Sequence[Mapping[str, Any]], panels: Sequence[Any]) -> None:
    """A colour a server; SETs are dashed."""
    for name in dict.fromkeys(point["server"] for point in points):
        line = [point for point in points if point["server"] == name]
        at = [point["at"] for point in line]
        server, _, operation = name.rpartition(" ")
        style = {
            "marker": "o",
            "label": name,
            "color": SERVERS[server],
            "linestyle": "--" if operation == "SET" else "-",
        }
        panels[0].plot(at, [point["per_s"] for point in line], **style)
        panels[1].plot(at, [point["p99_us"] / 1000 for point in line], **style)
    panels[0].set_ylabel("replies a second")
    panels[1].set_ylabel("p99, ms")


def _draw_holding(points: Sequence[Mapping[str, Any]], panels: Sequence[Any]) -> None:
    at = [point["at"] for point in points]
    panels[0].plot(at, [point["bytes_per_item"] for point in points], marker="o", color=OURS, label="memory")
    panels[0].set_ylabel("bytes an item")
    panels[1].plot(at, [point["snapshot_s"] for point in points], marker="o", color=OURS, label="a snapshot")
    panels[1].plot(at, [point["restart_s"] for point in points], marker="o", color=MUST, label="a restart")
    panels[1].set_ylabel("seconds")
