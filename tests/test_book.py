"Every notebook of the book runs from its first cell to its last in a fresh kernel."

import pytest
from conftest import ROOT

from dlbook.kit import results, runner

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
OTHERS = sorted([*(ROOT / "nbs" / "kit").glob("*.ipynb"), *(ROOT / "nbs" / "solutions").glob("*.ipynb")])

pytestmark = pytest.mark.book


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_runs_and_keeps_its_promises(path, tmp_path):
    "No cell fails, each recorded value lies in its band, and the run records what the book's ledger has."
    before = path.read_bytes()
    run, = runner.run_chapters([runner.read_chapter(path)], out=tmp_path)
    assert run.failure is None, runner.failure_text(run.failure, color=False)
    assert path.read_bytes() == before
    here = results.read_ledger(tmp_path / "ledger.json")["chapters"][path.stem]["entries"]
    saved = results.read_ledger(ROOT / "nbs" / "results.json")["chapters"][path.stem]["entries"]
    assert [(e["name"], e["low"], e["high"]) for e in here] == [(e["name"], e["low"], e["high"]) for e in saved]
    assert all(map(runner.in_band, here))


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_kit_and_solutions_run(path, tmp_path):
    run, = runner.run_chapters([runner.read_chapter(path)], out=tmp_path)
    assert run.failure is None, runner.failure_text(run.failure, color=False)
