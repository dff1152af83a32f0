"""The command that runs all benchmarks: what it runs, what it says, and what it writes. No time is asserted."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import throughput
from benchmarks.__main__ import modules
from benchmarks.common import claim_of, compare, machine_of, main, number, table
from benchmarks.page import markdown, write_page

ROOT = Path(__file__).parents[1]
TINY = '''"A benchmark that takes no time."
from benchmarks.common import compare, main

def rows():
    print("some peer is not installed; its row is left out")
    return [compare("a | b", lambda: None, lambda: None, {target}, rounds=3, seed=0)]

if __name__ == "__main__": main(rows)
'''


@pytest.fixture
def checkout(tmp_path):
    "The command with three small modules of our own: one whose claim holds, one whose claim does not, and one that fails."
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (tmp_path / "nbs").mkdir()
    for name in ("__init__", "__main__", "common", "page"): shutil.copy(ROOT / "benchmarks" / f"{name}.py", folder)
    (folder / "good.py").write_text(TINY.format(target=1e-9))
    (folder / "lame.py").write_text(TINY.format(target=1e9))
    (folder / "broken.py").write_text(TINY.replace("return [", "raise RuntimeError('the two sides differ')\n    return [").format(target=1))
    return tmp_path


def command(folder, *args):
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run([sys.executable, "-m", "benchmarks", *args], cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


def test_every_benchmark_is_found_and_the_book_comes_last():
    with_rows = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef rows(" in path.read_text(encoding="utf-8")}
    assert set(modules()) == with_rows and modules()[-1] == "book" and modules().index("imports") < modules().index("attention")


def test_json_is_a_list_of_rows_and_a_broken_claim_is_shown_as_broken(checkout):
    done = command(checkout, "--json")
    rows = {row["module"] if "module" in row else row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1 and set(rows) == {"good", "lame", "broken"}
    assert all({"name", "ratio", "target", "holds", "claim"} <= set(row) for row in rows.values())
    assert rows["good"]["holds"] and not rows["lame"]["holds"] and not rows["broken"]["holds"]
    assert rows["broken"]["error"] == "RuntimeError: the two sides differ"
    assert rows["good"]["environment"]["packages"]["torch"] and rows["good"]["details"] == {"seed": 0}
    assert rows["lame"]["claim"] == "at least 1,000,000,000 times its rate"
    assert "3/3" in done.stderr and "some peer is not installed" in done.stderr  # progress and remarks do not disturb the JSON


def test_only_and_an_unknown_name(checkout):
    done = command(checkout, "--only", "good")
    assert done.returncode == 0 and done.stdout.count("a | b") == 1 and "yes" in done.stdout and "torch" in done.stdout
    done = command(checkout, "--only", "micrograd")
    assert done.returncode == 2 and "expected one of broken, good, lame, given micrograd" in " ".join(done.stderr.replace("│", " ").split())


def test_save_writes_the_page_with_its_plot_and_its_numbers(checkout):
    assert command(checkout, "--save").returncode == 1
    page = (checkout / "nbs" / "benchmarks.qmd").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == 5 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "**no**: RuntimeError: the two sides differ" in page and page.startswith("---\ntitle: Benchmarks\n") and "fig-alt" in page
    assert (checkout / "nbs" / "images" / "benchmarks.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert len(json.loads((checkout / "nbs" / "benchmarks.json").read_text(encoding="utf-8"))) == 3
    assert sorted(path.name for path in (checkout / "nbs" / "images").iterdir()) == ["benchmarks.svg"]


def test_a_page_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "benchmarks.qmd").write_text("old")
    monkeypatch.setattr("benchmarks.page.draw", lambda rows, path: path.write_text("<svg") and 1 / 0)
    with pytest.raises(ZeroDivisionError): write_page([], tmp_path)
    assert (tmp_path / "benchmarks.qmd").read_text() == "old" and list((tmp_path / "images").iterdir()) == []


def test_claims_are_words():
    assert claim_of(dict(target=5)) == "at least 5 times its rate" and claim_of(dict(target=1)) == "at least as fast"
    assert claim_of(dict(target=1 / 1.5)) == "within 1.5 times its time" and claim_of(dict(target=0.5)) == "within 2 times its time"
    assert [number(x) for x in (0.04567, 1, 12.345, 99.94, 123.4, 26612632.3)] == ["0.0457", "1", "12.3", "99.9", "123", "26,612,632"]


def test_table_and_machine():
    row = compare("one beside the other", lambda: None, lambda: None, 1e-9, rounds=1)
    where = dict(python="3.11", system="Linux", processor="a CPU", cpus=2, packages={"torch": "2.15", "micrograd": None}, threads=2, gpu=None)
    text = table([row, dict(name="other", ratio=None, target=None, holds=False, error="no peer")])
    assert text.splitlines()[1].endswith("yes") and text.splitlines()[2].endswith("NO: no peer")
    assert machine_of([dict(row, environment=where)]) == "torch 2.15 · Python 3.11 · Linux · a CPU, 2 cores, threads: 2 · GPU: none"
    assert machine_of([]) == "" and "| no peer" not in markdown([row | dict(claim="level")])


def test_a_row_without_a_claim_is_no_broken_one(capsys):
    row = dict(compare("a", lambda: None, lambda: None, 1e-9, rounds=1), target=None, holds=None, claim="none: for the reader")
    with pytest.raises(SystemExit) as end: main(lambda: [row], argv=[])
    assert end.value.code == 0 and "none" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end: main(lambda: [row, dict(row, target=2, holds=False)], argv=[])
    assert end.value.code == 1
    assert markdown([row]).endswith("| none: for the reader |  |")


def test_the_share_of_the_device_is_counted_right():
    "A small GPT and a small residual network, on the CPU: operations and bytes agree with what is worked out by hand."
    row = throughput.gpt("cpu", 1e12, 1e10, batch=2, length=8, d_model=16, heads=2, layers=1, compiled=False, rounds=1, times=1)
    tokens, d, vocabulary = 16, 16, 65
    weights = 12 * d * d + vocabulary * d  # the block's matrices, and the scores of the next token
    attention = 2 * (2 * 2) * 2 * 8 * 8 * 8  # two products for each of four pairs of sequence and head, 8 by 8 by 8
    # forward once, backward twice: 6 operations for each weight and token; attention alike, if it is not left out as fused
    assert row["details"]["flops"] in (6 * weights * tokens, 6 * weights * tokens + 3 * attention)
    assert row["details"]["bytes"] > 10 * 4 * (weights + 8 * d) and row["holds"] is None and 0 < row["ratio"] < 1
    slower = throughput.gpt("cpu", 1e9, 1e10, batch=2, length=8, d_model=16, heads=2, layers=1, compiled=False, rounds=1, times=1)
    assert slower["other"] == pytest.approx(tokens / (row["details"]["flops"] / 1e9))
    assert throughput.cnn("cpu", 1e12, 1e10, batch=2, size=8, widths=(4,), compiled=False, rounds=1, times=1)["details"]["flops"] > 0
    assert throughput.matrix_rate("cpu", 64, 1) > 0 and throughput.bandwidth("cpu", 1000, 1) > 0
