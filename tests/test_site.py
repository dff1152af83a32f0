"The website: what nbdev makes of the notebooks, and, where Quarto is at hand, the rendered pages."
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
PAGES = [*CHAPTERS, *sorted((ROOT / "nbs" / "solutions").glob("*.ipynb"))]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of what git tracks: processing writes beside the notebooks."
    folder = tmp_path_factory.mktemp("site") / "dlbook"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if not (ROOT / name).exists(): continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def processed(copy):
    "The folder of notebooks as nbdev hands them to Quarto."
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=2)"], cwd=copy,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return copy / "_proc"


def test_every_page_is_processed(processed):
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if not any(part.startswith(".") for part in path.parts): assert (processed / path.relative_to(ROOT / "nbs")).exists(), path
    for name in ("_quarto.yml", "nbdev.yml", "references.bib", "styles.scss"): assert (processed / name).is_file()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_readers_of_the_website_see_the_code(processed, path):
    "nbdev hides cells marked `export`; the book marks them `exports`, and each of their definitions is on the page."
    page = json.loads((processed / path.relative_to(ROOT / "nbs")).read_text(encoding="utf-8"))["cells"]
    shown = "\n".join("".join(c["source"]) for c in page if c["cell_type"] == "code")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for name in re.findall(r"^(?:def|class) (\w+)", "".join(cell["source"]), re.MULTILINE) if cell["cell_type"] == "code" else []:
            assert re.search(rf"^(?:def|class) {name}\b", shown, re.MULTILINE), name
    assert 'title: ' in "".join(page[0]["source"])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_pictures_and_their_descriptions_survive(processed, path):
    def pictures(cells): return sum(any(k.startswith("image/") for k in o.get("data", {})) for c in cells for o in c.get("outputs", []))
    before = json.loads(path.read_text(encoding="utf-8"))["cells"]
    after = json.loads((processed / path.name).read_text(encoding="utf-8"))["cells"]
    assert pictures(after) == pictures(before) > 0
    for cell in after:
        if pictures([cell]):
            for name in ("label: fig-", "fig-cap: ", "fig-alt: "): assert f"#| {name}" in "".join(cell["source"])


def test_directives_are_yaml(processed):
    "Quarto reads the lines `#| key: value` of a cell as YAML; a colon in a caption needs quotes."
    import yaml
    for path in processed.rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code": continue
            lines = re.findall(r"^#\| ?([\w-]+:.*)$", "".join(cell["source"]), re.MULTILINE)
            options = yaml.safe_load("\n".join(lines)) if lines else {}
            assert all(not isinstance(v, (dict, list)) for v in options.values()), (path.name, options)


def test_the_page_of_results_shows_the_ledger_as_it_is(processed):
    page = (processed / "ledger.qmd").read_text(encoding="utf-8")
    made = subprocess.run([sys.executable, ROOT / ".ci" / "ledger", "--print"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert page == made.stdout, "run `.ci/ledger` after `dlbook run --save`"
    entries = [entry for chapter in json.loads((ROOT / "nbs" / "results.json").read_text(encoding="utf-8"))["chapters"].values()
               for entry in chapter["entries"]]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == len(entries) + 2 * len(CHAPTERS) and "[@greydanus2024]: 0.91" in page


@pytest.mark.skipif(shutil.which("quarto") is None, reason="needs the program quarto, which is not on the PATH")
def test_quarto_renders_the_site(copy):
    done = subprocess.run(["nbdev_docs"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for path in CHAPTERS:
        page = (copy / "_docs" / f"{path.stem[3:]}.html").read_text(encoding="utf-8")
        assert "<math" in page and "WARN" not in done.stderr
        assert not re.search(r"\?@\w+|\[@\w+", page), "a citation or reference was not resolved"
