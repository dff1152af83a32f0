"README.md says what nbs/index.ipynb says, whichever tool made it, and shows the two commands near its top."
import json
import re

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def words(markdown):
    "All words in their order, without markup: Quarto and nbconvert differ in line breaks, table rules and quotes."
    return re.findall(r"\w+", re.sub(r"<!--.*?-->", " ", markdown, flags=re.DOTALL))


def test_readme_says_what_the_index_says():
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown"}, "code cells have outputs, which this comparison leaves out"
    assert words(README) == words("\n\n".join("".join(cell["source"]) for cell in cells))


def test_commands_stand_near_the_top_each_in_one_line():
    top = README.splitlines()[:25]
    for command in ("pip install -e '.[dev]' && dlbook run", "pip install -e '.[dev]' && pytest"):
        assert command in top


def test_readme_lists_every_chapter():
    for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"):
        assert f"(https://dlbook.github.io/dlbook/{path.stem[3:]}.html)" in README  # nbdev drops the number
