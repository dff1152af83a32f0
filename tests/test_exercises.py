"Exercises check themselves: references pass, wrong answers are refused and named, progress is never lost."
import json
import multiprocessing
import re
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from dlbook.kit import exercises
from dlbook.kit.exercises import SECONDS, Malformed, check, difference, exercise, find, hint, judge, read_progress, run_limited, show

IDS = sorted({id for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
              for id in re.findall(r'^check\("(\d\d\.\d+)"', "".join(cell["source"]), re.MULTILINE)})


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch):
    "A progress file of its own for each test."
    path = tmp_path / "desk" / "progress.json"
    monkeypatch.setenv("DLBOOK_PROGRESS", str(path))
    return path


@pytest.fixture
def doubling():
    exercise("99.1", "twice x", lambda x, n=1: 2 * x, cases=lambda rng: [(torch.randn(3, 2, generator=rng), 4), (torch.tensor([1.0]), 2)],
             hints=["Add x to itself."], mistakes=[(lambda x, n: x**2, "That is the square.")], solution="def f(x, n): return 2 * x")
    yield "99.1"
    del exercises._registry["99.1"]


@pytest.mark.parametrize("id", IDS)
def test_every_reference_passes(id): assert judge(id, find(id).reference).state == "right"


@pytest.mark.parametrize("id", IDS)
def test_every_typical_mistake_is_refused_and_named(id):
    found = find(id)
    assert len(found.mistakes) >= 3 and len(found.hints) >= 2
    for wrong, fault in found.mistakes:
        verdict = judge(id, wrong)
        assert verdict.state == "wrong" and verdict.line.endswith(fault) and "\n" not in verdict.line, verdict


@pytest.mark.parametrize("id", IDS)
def test_an_unfinished_answer_is_open(id):
    for stub in (None, ..., (lambda *arguments, **others: ...) if callable(find(id).reference) else ...):
        assert judge(id, stub).state == "open"


def test_the_example_of_the_issue():
    "An answer whose gradient has the wrong shape is told the shapes."
    line = judge("04.2", lambda x, W, g: (g @ W, (g.T @ x).T, g.sum(0))).line
    assert re.match(r"for x .* the gradient of W should have shape \(3, 2\), yours has \(2, 3\)", line)


@pytest.mark.parametrize("answer, message", [
    (lambda x, n: 3 * x, "for x = [1.0], n = 2 the result should be 2 at [0], yours is 3"),
    (lambda x, n: x**2, "That is the square."),
    (lambda x, n: x.T * 2 if x.ndim == 2 else x * 2, "for x of shape (3, 2), n = 4 the result should have shape (3, 2), yours has (2, 3)"),
    (lambda x, n: 1 / 0, "for x = [1.0], n = 2 your answer raises ZeroDivisionError: division by zero"),
    (lambda x: x, "raises TypeError"), (lambda x, n: exit(), "raises SystemExit"), (lambda x, n: "2", "is of type str"),
    (lambda x, n: (2 * x).long(), "should have dtype torch.float32"), (lambda x, n: x.mul_(2), "changes its argument x in place"),
    (lambda x, n: torch.full_like(x, float("nan")), "yours is nan"), (5, "should be a function"), ("2x", "should be a function"),
])
def test_verdicts(doubling, answer, message):
    verdict = judge(doubling, answer)
    assert verdict.state == "wrong" and message in verdict.line and "\n" not in verdict.line, verdict


@pytest.mark.parametrize("answer", [lambda x, n: x + x, lambda x, n: (x + x).numpy(), lambda x, n: (2 * x).requires_grad_(), lambda x, n: (2 * x).double()])
def test_right_answers_in_other_forms(doubling, answer): assert judge(doubling, answer).state == "right"


def _judged(answer, **changes):
    "The verdict on an answer to an exercise that is made for the purpose."
    given = dict(reference=lambda x, W: x @ W.T, cases=lambda rng: [(torch.ones(1, 2), torch.ones(3, 2))], hints=["Think."]) | changes
    exercise("99.3", "made for the purpose", given.pop("reference"), **given)
    try: return judge("99.3", answer)
    finally: del exercises._registry["99.3"]


def test_a_typical_mistake_that_raises_is_named_too():
    mistakes = [(lambda x, W: x.reshape(7), "Another fault."), (lambda x, W: x @ W, "W has a row for each output: transpose it.")]
    line = _judged(lambda x, W: torch.matmul(x, W), mistakes=mistakes).line
    assert re.search(r"your answer raises RuntimeError: .*\(1x2 and 3x2\)\. W has a row for each output: transpose it\.$", line)
    assert _judged(lambda x, W: x.reshape(5), mistakes=mistakes).line.endswith("invalid for input of size 2")


def test_a_probe_can_say_what_is_wrong_with_the_form_of_an_answer():
    def probe(answer, x):
        result = answer(x)
        if not isinstance(result, dict): raise Malformed(f"should give a dictionary, yours gives {type(result).__name__}")
        return result["y"]

    changes = dict(reference=lambda x: {"y": x}, probe=probe, cases=lambda rng: [(2.0,)], mistakes=[(lambda x: (x,), "Tuples have no names.")])
    assert _judged(lambda x: {"y": x}, **changes).state == "right"
    assert _judged(lambda x: [x], **changes).line == "for x = 2 your answer should give a dictionary, yours gives list."
    assert _judged(lambda x: (x,), **changes).line == "for x = 2 your answer should give a dictionary, yours gives tuple. Tuples have no names."


def test_several_numbers_side_by_side_in_a_tensor_are_several_numbers():
    changes = dict(reference=lambda n: (n, n + 1), cases=lambda rng: [(2,)], outputs=("the first", "the second"))
    for answer in (lambda n: torch.tensor([n, n + 1]), lambda n: [n, n + 1], lambda n: torch.tensor([n, n + 1]).numpy()):
        assert _judged(answer, **changes).state == "right"
    assert _judged(lambda n: torch.tensor([n, n]), **changes).line == "for n = 2 the second should be 3, yours is 2."
    for answer, count in ((lambda n: n, "one, of type int"), (lambda n: (n,), "1"), (lambda n: torch.ones(3), "3")):
        assert _judged(answer, **changes).line == f"for n = 2 your answer should give 2 values (the first, the second), yours gives {count}."


def test_an_answer_that_hangs_is_stopped(doubling):
    def hang(x, n):
        while True:
            try: time.sleep(0.01)
            except Exception: pass

    started = time.monotonic()
    assert "did not finish within 0.5 s" in judge(doubling, hang, seconds=0.5).line
    assert time.monotonic() - started < 5 and SECONDS == 10


def test_a_thread_that_hangs_is_given_a_moment_to_end_and_does_not_keep_the_program_alive(monkeypatch):
    assert run_limited(lambda: threading.current_thread().daemon) is True
    joins = []
    thread = SimpleNamespace(start=lambda: None, join=joins.append, is_alive=lambda: True, ident=0)  # no thread has this number
    monkeypatch.setattr(exercises, "threading", SimpleNamespace(Thread=lambda target, daemon: thread))
    with pytest.raises(TimeoutError, match=r"^stopped after 7 s$"): run_limited(lambda: 1, 7)
    assert joins[0] == 7 and len(joins) == 2 and 0 < joins[1] < 1


def test_all_cases_share_the_time_limit_and_the_last_gets_a_moment_too(doubling, monkeypatch):
    clock, limits = [100.0], []

    def run(work, seconds):
        limits.append(seconds)
        clock[0] += 8  # what each case takes
        return work()

    monkeypatch.setattr(exercises, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(exercises, "run_limited", run)
    assert judge(doubling, lambda x, n: 2 * x, seconds=10).state == "right" and limits == [10, 2]
    limits.clear()
    judge(doubling, lambda x, n: 2 * x, seconds=5)
    assert limits[0] == 5 and 0 < limits[1] <= 0.1


def test_an_answer_that_draws_random_numbers_is_judged_alike_each_time(doubling):
    drawn = []

    def answer(x, n):
        drawn.append(torch.rand(1).item())
        return 2 * x

    for seed in (1, 2):
        torch.manual_seed(seed)
        judge(doubling, answer)
    assert len(drawn) == 4 and drawn[:2] == drawn[2:]


def test_an_answer_that_ends_the_program_on_a_later_case_only(doubling):
    "It is wrong on the first case; looking whether it is a typical mistake runs the others too."
    line = judge(doubling, lambda x, n: x**2 if n == 2 else exit()).line
    assert line == "for x = [1.0], n = 2 the result should be 2 at [0], yours is 1."


def test_hidden_cases_leave_the_readers_random_numbers_alone(doubling):
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    judge(doubling, lambda x, n: 2 * x + 0 * torch.rand(1))
    assert torch.equal(torch.rand(2), expected)


def test_unknown_exercises_name_those_there_are():
    with pytest.raises(ValueError, match=r"no exercise '04.99'; this chapter has 04.1, 04.2"): check("04.99", 1)
    for id in ("77.1", "x", "", 4.2):
        with pytest.raises(ValueError, match="no exercise"): judge(id, 1)


@pytest.mark.parametrize("changes, message", [
    (dict(id="4.2"), "id like '04.2'"), (dict(hints=[]), "at least one hint"), (dict(cases=None), "expected cases="),
])
def test_exercises_that_could_not_be_checked_are_refused(changes, message):
    given = dict(id="98.1", title="t", reference=lambda x: x, cases=lambda rng: [(1,)], hints=["h"]) | changes
    with pytest.raises(ValueError, match=message): exercise(**given)


def test_check_prints_one_line_and_keeps_progress(doubling, progress, capsys):
    check(doubling, lambda x, n: ...)
    assert capsys.readouterr().out == "○ 99.1 is still open: twice x. hint('99.1') helps.\n" and not progress.exists()
    check(doubling, lambda x, n: 3 * x)
    check(doubling, lambda x, n: 2 * x)
    check(doubling, lambda x, n: 3 * x)  # once solved, it stays solved
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines] == ["✗", "✓", "✗"]
    entry = read_progress()["exercises"]["99.1"]
    assert entry["right"] and entry["tries"] == 3 and entry["solved"].startswith("20")


def test_a_wrong_answer_is_one_try_and_nothing_more(doubling, monkeypatch, tmp_path):
    path = tmp_path / "no" / "such" / "folder" / "progress.json"
    monkeypatch.setenv("DLBOOK_PROGRESS", str(path))

    def lock(path, timeout):  # as a version of filelock that makes no folders
        assert path.parent.is_dir()
        return nullcontext()

    monkeypatch.setattr(exercises, "FileLock", lock)
    check(doubling, lambda x, n: 3 * x)
    assert read_progress()["exercises"]["99.1"] == {"right": False, "tries": 1, "hints": 0, "solved": None}


def test_hints_come_one_a_call_then_the_solution(doubling, capsys):
    for expected in ("Hint 1 of 1 for 99.1: Add x to itself.", "A solution of 99.1 (twice x):\n\ndef f(x, n): return 2 * x"):
        hint(doubling)
        assert capsys.readouterr().out.strip() == expected


@pytest.mark.parametrize("reference, answer, line", [
    (3.0, 2, "2 is too small."), (3.0, 4, "4 is too large."), (3, 2.5, "2.5 is too small."),
    (3.0, "three", "the result should be a number, yours is of type str."), (3.0, [3.0, 3.0], "the result should have shape (), yours has (2,)."),
    (torch.ones(2), "ones", "the result should be a tensor, yours is of type str."), (torch.ones(2), torch.zeros(2), "[0.0, 0.0] is not right."),
    ("relu", "tanh", "'tanh' is not right."), (True, False, "False is not right."), (True, 0, "0 is not right."),
])
def test_verdicts_on_values_say_the_direction_or_the_kind_and_not_the_value(reference, answer, line):
    exercise("99.2", "a value", reference, hints=["Think."])
    try: verdict = judge("99.2", answer)
    finally: del exercises._registry["99.2"]
    assert (verdict.state, verdict.line) == ("wrong", line)


def test_verdicts_never_show_the_solution_of_a_value():
    for id in IDS:
        found = find(id)
        if callable(found.reference) or not isinstance(found.reference, (int, float)): continue
        for wrong in (found.reference + 1, found.reference - 1):
            assert f"{found.reference:g}" not in judge(id, wrong).line.replace(f"{wrong:g}", "")


@pytest.mark.parametrize("content", ["", '{"version": 1, "exer', "[]", '{"version": 1}', '{"version": 1, "exercises": {"04.1": 3}}', "\x00",
                                     '{"version": 1, "exercises": {"04.1": {"right": true, "tries": "three"}}}'])
def test_damaged_progress_is_set_aside(progress, content, capsys, doubling):
    progress.parent.mkdir()
    progress.write_text(content)
    check(doubling, lambda x, n: 2 * x)
    assert "was damaged" in capsys.readouterr().out
    aside, = progress.parent.glob("progress.damaged-*.json")
    assert aside.read_text() == content
    assert read_progress()["exercises"]["99.1"]["right"]


def test_progress_of_a_newer_version_is_left_alone(progress, doubling, capsys):
    progress.parent.mkdir()
    content = '{"version": 2, "exercises": {"04.1": {"right": true}}}'
    progress.write_text(content)
    check(doubling, lambda x, n: 2 * x)
    out = capsys.readouterr().out
    assert "✓ 99.1" in out and "newer dlbook" in out
    assert progress.read_text() == content


def test_a_folder_that_cannot_be_written_does_not_hide_the_verdict(tmp_path, monkeypatch, doubling, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLBOOK_PROGRESS", str(tmp_path / "file" / "progress.json"))
    check(doubling, lambda x, n: 2 * x)
    out = capsys.readouterr().out
    assert "✓ 99.1" in out and "could not be saved" in out


def _solve(path, id):
    import os
    os.environ["DLBOOK_PROGRESS"] = path
    for _ in range(5): exercises._note(id, tries=lambda n: n + 1)


def test_two_notebooks_at_once_lose_nothing(progress):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_solve, args=(str(progress), f"97.{i}")) for i in range(3)]
    for worker in workers: worker.start()
    for worker in workers: worker.join(120)
    assert {id: entry["tries"] for id, entry in read_progress()["exercises"].items()} == {f"97.{i}": 5 for i in range(3)}


@pytest.mark.parametrize("expected, given, found", [
    (1.0, 1.0 + 1e-9, None), (1, 1.0, None), (True, True, None), (True, False, "should be True"), ("a", "b", "should be 'a'"),
    ([1.0, 2.0], (1.0, 2.5), "at position 1 should be 2"), ([1], [1, 2], "1 elements"), (torch.tensor(float("nan")), torch.tensor(float("nan")), None),
    (9.5e-7, 0.5e-7, "should be 9.5e-07"), (torch.zeros(2), torch.full((2,), 1e-8), None),
    (torch.zeros(2, 0), torch.zeros(2, 0), None), (torch.zeros(2), [0, 0.5], "should be 0 at [1]"), (torch.zeros(2), None, "should be a tensor"),
    (torch.ones(2, 1), [torch.ones(1)] * 2, "should be a tensor, yours is a list of tensors; torch.stack makes one of them"),
    (1.0, [torch.ones(1)], "should be a number, yours is a list of tensors"), (torch.tensor(0.0), 0, None), (torch.ones(2), [1, 1], None),
    (torch.tensor([True]), torch.tensor([1]), "should have dtype torch.bool, yours has torch.int64"),
    (torch.tensor([True]), torch.tensor([False]), "should be True at [0], yours is False"), (torch.tensor([True]), [True], None),
    ([1, 2], 3, "should be a list, yours is of type int"), ((1, 2), "12", "should be a tuple, yours is of type str"),
])
def test_difference(expected, given, found):
    result = difference(expected, given)
    assert result is None if found is None else found in result


@pytest.mark.parametrize("value, text", [
    (torch.tensor([1, 2, 3, 4]), "[1, 2, 3, 4]"), (torch.zeros(5), "of shape (5,)"), (torch.tensor(1 / 3), "0.3333"), (1 / 3, "0.333333"),
    (torch.relu, "relu"), ([torch.ones(2), torch.ones(3)], "of 2 tensors"),
    (torch.tensor([1e-8, 0.0]), "of shape (2,) with numbers up to 1e-08"), (torch.zeros(2), "[0.0, 0.0]"), ("x" * 58, repr("x" * 58)), ("x" * 59, "'" + "x" * 56 + "..."),
])
def test_values_are_shown_in_at_most_sixty_characters(value, text): assert show(value) == text
