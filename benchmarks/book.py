"""The whole book on this machine: all chapters in fresh kernels, one after the other, time and memory together."""
from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.common import main

MINUTES, GIGABYTES = 20, 3  # what the book promises for two cores


def rows() -> list[dict]:
    "Two rows: minutes that the book takes, and the peak memory of the chapter that needs most. `other` is what is promised."
    from rich.console import Console

    from dlbook.kit.runner import cpu_count, list_chapters, run_chapters
    out = Path(tempfile.mkdtemp(prefix="dlbook-book-"))
    try: runs = run_chapters(list_chapters(), out=out, console=Console(stderr=True))
    finally: shutil.rmtree(out, ignore_errors=True)
    failed = [run.chapter.stem for run in runs if not run.ok]
    if failed: raise AssertionError(f"these chapters failed: {', '.join(failed)}")
    minutes, largest = sum(run.seconds for run in runs) / 60, max(runs, key=lambda run: run.peak_mb)
    details = dict(cores=cpu_count(), seconds={run.chapter.stem: round(run.seconds, 1) for run in runs})
    return [row("the whole book", MINUTES, minutes, "min", f"at most {MINUTES} minutes", **details),
            row("memory at most", GIGABYTES, largest.peak_mb / 1024, "GiB", f"less than {GIGABYTES} GiB", chapter=largest.chapter.stem)]


def row(name, promised, measured, unit, claim, **details) -> dict:
    "A promise and what was measured; the ratio is above 1 where the promise holds."
    ratio = promised / measured
    return dict(name=name, ratio=ratio, low=ratio, high=ratio, target=1, holds=ratio >= 1, ours=measured, other=promised, unit=unit, rounds=1,
                claim=claim, details=details)


if __name__ == "__main__": main(rows)
