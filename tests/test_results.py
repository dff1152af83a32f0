"The ledger: what is recorded, what stops a chapter, and that nothing is lost."
import contextlib
import json
import multiprocessing
import os

import pytest
import torch

from dlbook.kit import results
from dlbook.kit.results import OutOfBand, atomic_write, band, chapter, read_ledger, record, update_ledger, write_ledger


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    path = tmp_path / "ledger.json"
    monkeypatch.setenv("DLBOOK_LEDGER", str(path))
    monkeypatch.setattr(results, "_chapter", None)
    return path


def test_a_value_in_its_band_is_printed_and_kept(ledger, capsys):
    chapter("04_backprop")
    assert record("accuracy", torch.tensor(0.97), low=0.95, high=1, source="lecun1998") == pytest.approx(0.97)
    assert capsys.readouterr().out == "accuracy: 0.97 (band: 0.95 to 1)\n"
    entry, = read_ledger(ledger)["chapters"]["04_backprop"]["entries"]
    assert entry == {"name": "accuracy", "value": pytest.approx(0.97), "low": 0.95, "high": 1, "unit": "", "source": "lecun1998"}


@pytest.mark.parametrize("value", [2, 3])
def test_the_ends_of_a_band_belong_to_it(ledger, value, capsys):
    assert record("layers", value, low=2, high=3) == value
    assert capsys.readouterr().out == f"layers: {value} (band: 2 to 3)\n"


@pytest.mark.parametrize("low, high, words", [(None, None, "any value"), (0.5, None, "at least 0.5"), (None, 2, "at most 2"), (0, 2, "0 to 2")])
def test_bands_in_words(low, high, words): assert band(low, high) == words


@pytest.mark.parametrize("value, band", [(0.9, dict(low=0.95)), (1.1, dict(high=1)), (float("nan"), dict(low=0)), (float("inf"), dict(low=0)), (-1, dict(low=0, high=1))])
def test_a_value_outside_its_band_stops_the_chapter_and_is_kept(ledger, value, band):
    chapter("04_backprop")
    with pytest.raises(OutOfBand, match=r"^04_backprop: accuracy: .*band.*is outside its band$"): record("accuracy", value, **band)
    assert len(read_ledger(ledger)["chapters"]["04_backprop"]["entries"]) == 1
    json.loads(ledger.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


@pytest.mark.parametrize("value, band", [(1, {}), (1, dict(low=2, high=1))])
def test_a_band_must_be_one(ledger, value, band):
    with pytest.raises(ValueError): record("accuracy", value, **band)


def test_recording_twice_keeps_the_last_and_a_new_run_begins_anew(ledger):
    chapter("01_neurons")
    for value in (1, 2): record("mistakes", value, low=0)
    assert [e["value"] for e in read_ledger(ledger)["chapters"]["01_neurons"]["entries"]] == [2]
    chapter("01_neurons")
    assert read_ledger(ledger)["chapters"]["01_neurons"]["entries"] == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 2, "chapters": {}}'])
def test_what_is_no_ledger_is_refused_and_left_alone(ledger, content):
    ledger.write_text(content)
    with pytest.raises(ValueError, match="ledger"): read_ledger(ledger)
    with pytest.raises(ValueError, match="ledger"): record("x", 1, low=0)
    assert ledger.read_text() == content


def test_a_failed_write_leaves_the_old_ledger(ledger):
    write_ledger(ledger, {"version": 1, "chapters": {}})
    before = ledger.read_text()
    with pytest.raises(TypeError): write_ledger(ledger, {"version": 1, "chapters": {"x": object()}})
    with pytest.raises(RuntimeError):
        with update_ledger(ledger) as content:
            content["chapters"]["y"] = {}
            raise RuntimeError
    assert ledger.read_text() == before and [p.name for p in ledger.parent.iterdir() if p.name.endswith(".json")] == ["ledger.json"]


def test_the_file_is_sorted_text_that_git_can_compare(ledger):
    write_ledger(ledger, {"version": 1, "chapters": {"b": {}, "a": {"title": "Poincaré"}}})
    assert ledger.read_bytes().decode() == '{\n "chapters": {\n  "a": {\n   "title": "Poincaré"\n  },\n  "b": {}\n },\n "version": 1\n}\n'
    with pytest.raises(ValueError): write_ledger(ledger, {"version": 1, "chapters": {"a": {"seconds": float("nan")}}})


def test_folders_are_made_before_anything_is_locked_or_written(tmp_path, monkeypatch):
    def lock(path, timeout):  # as a version of filelock that makes no folders
        assert path.parent.is_dir() and timeout == 30
        return contextlib.nullcontext()

    monkeypatch.setattr(results, "FileLock", lock)
    with update_ledger(tmp_path / "a" / "b" / "ledger.json") as content: content["chapters"]["x"] = {}
    assert read_ledger(tmp_path / "a" / "b" / "ledger.json")["chapters"] == {"x": {}}
    atomic_write(tmp_path / "c" / "d" / "file", "text")
    assert (tmp_path / "c" / "d" / "file").read_text() == "text"


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_others_may_read_what_was_written(tmp_path):
    atomic_write(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("moved", [False, True], ids=["before the move", "after it"])
def test_an_interrupt_while_writing_is_passed_on_and_leaves_no_temporary_file(tmp_path, monkeypatch, moved):
    def replace(temporary, path, move=os.replace):
        if moved: move(temporary, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(results.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt): atomic_write(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] * moved


def _record_many(path, name):
    for i in range(5):
        with update_ledger(path) as ledger: ledger["chapters"][f"{name}{i}"] = {"entries": []}


def test_two_chapters_at_once_lose_nothing(ledger):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_record_many, args=(str(ledger), name)) for name in "abc"]
    for worker in workers: worker.start()
    for worker in workers: worker.join(120)
    assert len(read_ledger(ledger)["chapters"]) == 15
