"""All benchmarks: `python -m benchmarks`.

Each module runs in a process of its own, so that what one loads or keeps in memory does not weigh on the next. A module that
fails is shown as broken, like a claim that no longer holds, and the others run on.
"""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.common import claim_of, machine_of, table
from benchmarks.page import write_page

HERE = Path(__file__).parent
ORDER = ["imports", "neurons", "backprop", "optimizers", "loaders", "data", "convolution", "recurrence", "attention", "reinforcement", "throughput"]  # as in the book


def modules() -> list[str]:
    "Names of all modules with benchmarks, in the order of the book; the one that runs the whole book comes last."
    found = {path.stem for path in HERE.glob("[!_]*.py")} - {"common", "page"}
    return [name for name in ORDER if name in found] + sorted(found - {*ORDER, "book"}) + [name for name in ("book",) if name in found]


def measure(name: str) -> tuple[list[dict], list[str]]:
    "The rows of one module, each with its machine and what the book claims; and what it said beside them."
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json"], cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)
    said, _, text = done.stdout.partition("{\n")
    try: found = json.loads("{\n" + text)
    except ValueError:
        last = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()[-1]
        return [dict(name=name, ratio=None, target=None, holds=False, error=last, claim="it runs")], []
    rows = [dict(row, module=name, claim=row.get("claim") or claim_of(row), environment=found["environment"]) for row in found["rows"]]
    return rows, said.splitlines()


def run(
    only: Annotated[Optional[list[str]], typer.Option(help="Run this module only; may be given several times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list of rows as JSON, with machine, versions, sizes and seeds.")] = False,
    save: Annotated[bool, typer.Option(help="Write table and plot into the website's page of benchmarks.")] = False,
):
    "Measure the book's code beside what a reader would use instead, on this machine. Exit status 1 if a claim does not hold."
    known, wanted = modules(), list(only or [])
    unknown = [name for name in wanted if name not in known]
    if unknown: raise typer.BadParameter(f"expected one of {', '.join(known)}, given {', '.join(unknown)}")
    chosen, rows, errors = [name for name in known if name in wanted or not wanted], [], Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors) as progress:
        task = progress.add_task("benchmarks", total=len(chosen))
        for name in chosen:
            progress.update(task, description=name)
            found, said = measure(name)
            rows += found
            for line in said: errors.print(line, highlight=False)  # a peer that is missing
            progress.advance(task)
    if as_json: print(json.dumps(rows, indent=1))
    else: print(table(rows), machine_of(rows), sep="\n")
    if save: write_page(rows, HERE.parent / "nbs")
    raise typer.Exit(0 if all(row["holds"] is not False for row in rows) else 1)  # None: nothing is claimed


if __name__ == "__main__": typer.run(run)
