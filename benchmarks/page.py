"""The website's page of benchmarks: a table, a plot, and the numbers behind them."""
from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common import machine_of, number

INTRO = """---
title: Benchmarks
description: The book's code beside what a reader would use instead, measured on one machine in one run.
toc: false
---

Both sides of each row do the same work, in turn, in one process, after a warm-up. *Ratio* is the median over the rounds of our rate divided by the
other rate, so that 2 means twice as fast; behind it stand the lowest and the highest round. *Claim* is what the book promises. Where a claim does
not hold, the last column says so. All of it can be measured again, on any machine, by `python -m benchmarks`.
"""


def cell(text: str) -> str: return text.replace("|", "\\|")


def markdown(rows: list[dict]) -> str:
    "The rows as a table in Markdown."
    lines = ["| What | Ours | Other | Ratio | Claim | Holds |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for row in rows:
        if row["ratio"] is None: lines.append(f"| {cell(row['name'])} | | | | {cell(row['claim'])} | **no**: {cell(row['error'])} |")
        else: lines.append(f"| {cell(row['name'])} | {number(row['ours'])} {row['unit']} | {number(row['other'])} {row['unit']} | {number(row['ratio'])} "
                           f"({number(row['low'])} to {number(row['high'])}) | {cell(row['claim'])} | { {True: 'yes', False: '**no**', None: ''}[row['holds']]} |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    "Ratio divided by what is claimed, a dot and the spread for each row; right of the line a claim holds."
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from dlbook.kit.plots import BLUE, RED, use_style
    use_style()
    rows = [row for row in rows if row["ratio"] is not None and row["target"] is not None][::-1]
    fig, ax = plt.subplots(figsize=(8, 0.32 * len(rows) + 1))
    for i, row in enumerate(rows):
        color = BLUE if row["holds"] else RED
        ax.plot([row["low"] / row["target"], row["high"] / row["target"]], [i, i], color=color, linewidth=1.5)
        ax.plot(row["ratio"] / row["target"], i, "o" if row["holds"] else "X", color=color)
    ax.axvline(1, color="#888888", linewidth=1)
    ax.set(xscale="log", xlabel="ratio, divided by what is claimed", yticks=range(len(rows)), yticklabels=[row["name"] for row in rows])
    ax.tick_params(axis="y", labelsize=8)
    fig.savefig(path, bbox_inches="tight", facecolor="white")
    plt.close(fig)


def write_page(rows: list[dict], folder: Path) -> Path:  # the page
    "Write benchmarks.qmd, its plot and benchmarks.json into `folder`; each is complete or not there."
    from dlbook.kit.results import atomic_write
    images = folder / "images"
    images.mkdir(exist_ok=True)
    part = images / ".benchmarks.part.svg"
    try:
        draw(rows, part)
        part.replace(images / "benchmarks.svg")
    finally: part.unlink(missing_ok=True)
    alt = "A dot for each benchmark on a logarithmic axis. Dots right of the line at 1 are claims that hold; crosses left of it do not."
    caption = "Each ratio divided by what the book claims for it, with the lowest and the highest round. Right of the line a claim holds."
    figure = f'![{caption}](images/benchmarks.svg){{#fig-benchmarks fig-alt="{alt}"}}'
    page = folder / "benchmarks.qmd"
    atomic_write(folder / "benchmarks.json", json.dumps(rows, indent=1) + "\n")
    atomic_write(page, "\n".join([INTRO, markdown(rows), "", figure, "", machine_of(rows), ""]))
    return page
