"""Each checked exercise is held to answers that were worked out from its statement, in other forms than the reference.

`answers/` has, for each chapter, right answers of other forms than the reference, and wrong ones of the kind that readers give,
each with words that the verdict must say.
"""
import ast
import importlib
import inspect
import json
import math
import re
import runpy

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from dlbook.kit.exercises import find, judge

CHAPTERS = {path.stem[:2]: path for path in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))}


def code_of(number):
    return ["".join(cell["source"]) for cell in json.loads(CHAPTERS[number].read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


IDS = sorted({id for number in CHAPTERS for text in code_of(number) for id in re.findall(r'^check\("(\d\d\.\d+)"', text, re.MULTILINE)})
ANSWERS = {number: runpy.run_path(str(ROOT / "tests" / "answers" / f"{path.stem}.py")) for number, path in CHAPTERS.items()}


def test_all_exercises_are_answered():
    for kind in ("RIGHT", "WRONG"): assert sorted(id for answers in ANSWERS.values() for id in answers[kind]) == IDS


@pytest.mark.parametrize("id", IDS)
def test_right_answers_of_other_forms_are_accepted(id):
    answers = ANSWERS[id[:2]]["RIGHT"][id]
    assert len(answers) >= 2
    for answer in answers: assert judge(id, answer).state == "right", judge(id, answer)


@pytest.mark.parametrize("id", IDS)
def test_wrong_answers_are_refused_in_words_that_name_the_fault(id):
    answers = ANSWERS[id[:2]]["WRONG"][id]
    assert len(answers) >= 3
    for answer, words in answers:
        verdict = judge(id, answer)
        assert verdict.state == "wrong" and words in verdict.line and "\n" not in verdict.line, (words, verdict)


@pytest.mark.parametrize("id", [id for id in IDS if callable(find(id).reference)])
def test_the_solution_that_hint_shows_last_runs_in_the_chapters_notebook(id):
    "It uses the chapter's names, and none of the solutions' own."
    space = dict(torch=torch, F=F, math=math)
    for line in re.findall(r"^from dlbook\.\w+ import [\w, ]+$", "\n".join(code_of(id[:2])), re.MULTILINE): exec(line, space)
    module = vars(importlib.import_module("dlbook." + re.search(r"#\| *default_exp +(\w+)", "\n".join(code_of(id[:2])))[1]))
    space |= {name: thing for name, thing in module.items() if name[0] != "_"}
    text = find(id).solution or inspect.getsource(find(id).reference)
    exec(text, space)
    name = next(node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    assert judge(id, space[name]).state == "right", judge(id, space[name])
