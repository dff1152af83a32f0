"Every chapter has the parts, figures, sources and saved outputs that a chapter of this book has."
import ast
import importlib
import inspect
import json
import re

import pytest
from conftest import ROOT
from fastcore.docments import docments

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts))
SECTIONS = ["The problem", "The idea", "The mathematics", "From scratch", "Real data", "How it fails", "In practice", "Exercises", "Questions",
            "Further reading"]
REFERENCES = (ROOT / "nbs" / "references.bib").read_text(encoding="utf-8")


def cells_of(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]
def source(cell): return "".join(cell["source"])
def code(path): return [c for c in cells_of(path) if c["cell_type"] == "code"]
def prose(path): return "\n\n".join(source(c) for c in cells_of(path) if c["cell_type"] == "markdown")
def directive(text, name): return re.findall(rf"^#\| *{name}: *(.+)$", text, re.MULTILINE)
def outputs(path): return [o for c in code(path) for o in c["outputs"]]


def is_picture(output):
    data = output.get("data", {})
    return any(kind.startswith("image/") for kind in data) or 'class="animation"' in "".join(data.get("text/html", ""))


each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT / "nbs")))


def test_there_are_chapters(): assert len(CHAPTERS) >= 4


@each_chapter
def test_head(path):
    first, second = [source(c) for c in cells_of(path)[:2]]
    assert re.fullmatch(r"# \S.*\n\n> Read this chapter to be able to .+\.", first)
    assert second.startswith("| Needs | Time on two CPU cores | Time on a GPU | Data |\n| --- | --- | --- | --- |\n| ")
    for host in ("colab.research.google.com/github/dlbook/dlbook", "github.com/dlbook/dlbook"):
        assert f"https://{host}/blob/main/nbs/{path.name})" in second


@each_chapter
def test_parts_are_there_in_their_order(path):
    headings = re.findall(r"^## (.+)$", prose(path), re.MULTILINE)
    assert headings == SECTIONS


@each_notebook
def test_headings_do_not_skip_a_level(path):
    levels = [len(h) for h in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", prose(path), flags=re.DOTALL), re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:]))


@each_notebook
def test_figures_have_label_caption_and_description(path):
    for cell in code(path):
        if any(map(is_picture, cell["outputs"])):
            text = source(cell)
            for name in ("label", "fig-cap", "fig-alt"): assert directive(text, name), f"{name} is missing in:\n{text[:300]}"
            assert directive(text, "label")[0].startswith("fig-")
            assert len(directive(text, "fig-alt")[0]) > 30


@each_chapter
def test_there_are_enough_figures_and_one_moves(path):
    texts = [source(c) for c in code(path)]
    assert sum(bool(directive(t, "label")) for t in texts) >= 3
    moving = [c for c in code(path) if re.search(r"\b(animate|interactive)\w*\(", source(c))]
    assert any(is_picture(o) for c in moving for o in c["outputs"])


@each_notebook
def test_animations_show_a_picture_before_they_run(path):
    "JupyterLab runs no scripts in a notebook that its reader has not run."
    for output in outputs(path):
        html = "".join(output.get("data", {}).get("text/html", ""))
        if 'class="animation"' in html: assert re.search(r'<img alt="[^"]+" src="data:image/png;base64,[\w+/=]{1000,}" id=', html)


def test_figure_labels_are_unique_within_a_chapter():
    for path in NOTEBOOKS:
        labels = [label for c in code(path) for label in directive(source(c), "label")]
        assert len(labels) == len(set(labels)), path


@each_notebook
def test_saved_outputs_are_clean(path):
    for output in outputs(path):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "".join(output.get("text", ""))[:300]
        text = "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))
        assert "Warning" not in text and "\x1b[" not in text and "█" not in text, text[:300]
        assert not any("widget" in kind for kind in output.get("data", {}))
        assert "http" not in re.sub(r"https?://www\.w3\.org", "", "".join(output.get("data", {}).get("text/html", "")))


@each_chapter
def test_outputs_are_saved(path):
    "A cell that prints, records or draws has an output."
    for cell in code(path):
        text = source(cell)
        if re.search(r"^(print|record|check|draw_graph|show_images)\(", text, re.MULTILINE): assert cell["outputs"], text


@each_notebook
def test_size(path): assert path.stat().st_size < 1_500_000


@each_notebook
def test_markdown_reads_well_in_jupyterlab(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", prose(path), flags=re.DOTALL)
    assert ":::" not in text, "Quarto divs show as text"
    assert not re.search(r"</?[a-z]+[^>\n]*>", re.sub(r"<https?://[^>]+>", "", re.sub(r"\$[^$]+\$", "", text))), "raw HTML"
    assert not re.search(r"\b(TODO|FIXME|XXX|lorem)\b", text)
    assert not re.search(r"\{\{<", text), "Quarto shortcodes show as text"


@each_chapter
def test_style(path):
    found = re.findall(r"\b(simply|obviously|trivial(?:ly)?|of course|needless to say|colour\w*|behaviour\w*|optimis\w+)\b", prose(path), re.IGNORECASE)
    assert not found


@each_notebook
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", prose(path)):
        if not target.startswith(("http://", "https://")): assert (path.parent / target).exists(), target


@each_notebook
def test_citations_are_in_the_bibliography(path):
    for key in re.findall(r"(?<![\w`])@([a-z]+\d{4}\w*)", re.sub(r"`[^`\n]*`", "", prose(path))):
        assert re.search(rf"^@\w+\{{{key},", REFERENCES, re.MULTILINE), key


def test_every_entry_of_the_bibliography_is_whole():
    for entry in re.split(r"^(?=@)", REFERENCES, flags=re.MULTILINE)[1:]:
        assert entry.count("{") == entry.count("}") and entry.rstrip().endswith("}"), entry
        fields = dict(re.findall(r"\b(\w+) *= *\{(.+?)\}[,\n]", entry))
        assert {"author", "title", "year"} <= set(fields), entry
        assert {"journal", "booktitle", "publisher", "school", "institution", "howpublished", "url", "eprint", "note"} & set(fields), entry


def test_every_entry_of_the_bibliography_is_cited_and_unique():
    keys = re.findall(r"^@\w+\{([^,]+),", REFERENCES, re.MULTILINE)
    assert len(keys) == len(set(keys))
    text = "\n".join(map(prose, NOTEBOOKS))
    assert [key for key in keys if f"@{key}" not in text] == []


@each_chapter
def test_citations_carry_names_in_the_text(path):
    "In JupyterLab a citation shows as its key, so the author's name stands in the words before it."
    text = prose(path)
    for match in re.finditer(r"\[@([a-z]+)\d{4}", text):
        before = text[max(0, match.start() - 300):match.start()].lower()
        ascii_before = before.translate(str.maketrans("áäåąçéèëíîñóöøšüž", "aaaaceeeiinooosuz"))
        assert match[1] in re.sub(r"[\W_]", "", ascii_before), match[0]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "solutions" or p in CHAPTERS], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_code_is_shown_on_the_website(path):
    "`exports` shows what it exports, and without generated boxes of documentation between the lines of the text."
    assert not any(re.search(r"^#\| *export$", source(c), re.MULTILINE) for c in code(path))
    last = cells_of(path)[-1]
    assert last["cell_type"] == "raw" and source(last) == "---\nskip_showdoc: true\n---"


@each_chapter
def test_exercises(path):
    text = "\n".join(source(c) for c in cells_of(path))
    number = path.stem[:2]
    asked = sorted(set(re.findall(rf"\*\*({number}\.\d+)\*\*", text)))
    checked = sorted(set(re.findall(rf'^check\("({number}\.\d+)"', text, re.MULTILINE)))
    assert asked == [f"{number}.{i}" for i in range(1, len(asked) + 1)] and len(asked) >= 5
    assert len(checked) >= 4 and set(checked) <= set(asked)
    from dlbook.kit import exercises
    exercises.find(checked[0])
    assert sorted(id for id in exercises._registry if id.startswith(number)) == checked


@each_chapter
def test_what_is_recorded_is_in_the_ledger_of_the_book(path):
    saved = json.loads((ROOT / "nbs" / "results.json").read_text(encoding="utf-8"))["chapters"][path.stem]
    printed = "".join("".join(o.get("text", "")) for o in outputs(path))
    assert saved["entries"], "a chapter records what its text relies on"
    for entry in saved["entries"]:
        assert entry["low"] is not None or entry["high"] is not None
        assert f"{entry['name']}: {entry['value']:.4g}" in printed, f"{entry['name']} in the ledger is not what the chapter shows"
    assert {"seconds", "peak_mb", "python", "torch", "device", "date"} <= set(saved["run"])


@each_chapter
def test_under_each_exported_cell_stands_one_that_runs_it(path):
    "Built, then tried: the cell behind an exported one is not exported. The first holds only imports."
    exported = [bool(re.search(r"^#\| *exports?$", source(c), re.MULTILINE)) for c in code(path)]
    texts = [source(c) for c in code(path)]
    for text, this, following in list(zip(texts, exported, exported[1:]))[2:]:
        assert not (this and following), text[:200]


@each_notebook
def test_exported_cells_fit_on_a_screen(path):
    "A class too: its methods can be added in cells of their own, with `@patch`. A solution may show several ways."
    limit = {"kit": 32, "solutions": 46}.get(path.parent.name, 29)
    for cell in code(path):
        text = source(cell)
        if re.search(r"^#\| *exports?", text, re.MULTILINE): assert len(text.splitlines()) <= limit, text[:200]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "kit"], ids=lambda p: p.stem)
def test_imports_stand_alone(path):
    "nbdev runs cells with imports when it builds the kit's pages, and nothing else: other code beside them would fail there."
    for cell in code(path):
        if re.search(r"^#\| *(export|default_exp)", source(cell), re.MULTILINE): continue
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source(cell)).body}
        assert len(kinds) <= 1, source(cell)[:200]


MODULES = sorted(directive_[0] for p in NOTEBOOKS for c in code(p) for directive_ in [re.findall(r"^#\| *default_exp +(\S+)", source(c))] if directive_)


@pytest.mark.parametrize("name", [m for m in MODULES if not m.startswith("solutions")])
def test_exported_names_are_documented(name):
    "Every exported function and class has a docstring, and each of their parameters a comment in place."
    module = importlib.import_module(f"dlbook.{name}")
    for exported in module.__all__:
        thing = getattr(module, exported)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)) or thing.__module__ != module.__name__: continue
        assert inspect.getdoc(thing), f"{exported} has no docstring"
        if inspect.isclass(thing) and (issubclass(thing, BaseException) or "__init__" not in vars(thing) or hasattr(thing, "__dataclass_fields__")): continue
        target = thing.__init__ if inspect.isclass(thing) else thing
        comments = docments(target, returns=False)
        undocumented = [p.name for p in inspect.signature(target).parameters.values() if not comments.get(p.name)
                        and p.name not in ("self", "cls") and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and "help=" not in str(p.annotation)]
        assert not undocumented, f"{exported}: {undocumented}"


@pytest.mark.parametrize("name", [m for m in MODULES if not m.startswith("solutions")])
def test_public_methods_are_documented(name):
    path = ROOT / "dlbook" / f"{name.replace('.', '/')}.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    methods = [(node.name, method) for node in body if isinstance(node, ast.ClassDef) for method in node.body]
    methods += [(ast.unparse(node.args.args[0].annotation), node) for node in body if isinstance(node, ast.FunctionDef)
                and any(ast.unparse(decorator).startswith("patch") for decorator in node.decorator_list)]
    for owner, method in methods:
        if not isinstance(method, ast.FunctionDef) or owner.startswith("_") or method.name.startswith("_"): continue
        if len(method.body) > 1: assert ast.get_docstring(method), f"{owner}.{method.name}"


def test_modules_and_notebooks_agree():
    for name in MODULES: assert (ROOT / "dlbook" / f"{name.replace('.', '/')}.py").exists()


def test_imports_go_backward_only():
    "A chapter imports earlier chapters and the kit; the kit imports no chapter."
    order = {p.stem[3:]: int(p.stem[:2]) for p in CHAPTERS}
    for path in NOTEBOOKS:
        if path.name == "index.ipynb": continue
        used = re.findall(r"^\s*(?:from|import) dlbook\.(\w+)", "\n".join(map(source, code(path))), re.MULTILINE)
        limit = 0 if path.parent.name == "kit" else int(path.stem[:2]) if path.parent.name == "nbs" else int(path.stem[:2]) + 1
        for module in used:
            if module in order: assert order[module] < limit, f"{path.name} imports dlbook.{module}"


def test_sidebar_lists_every_page():
    import yaml
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    listed = []
    for item in config["website"]["sidebar"]["contents"]: listed += item["contents"] if isinstance(item, dict) else [item]
    not_listed = {"404.qmd"}  # nobody looks for the page that is shown where there is none
    pages = [*NOTEBOOKS, *(path for path in (ROOT / "nbs").glob("*.qmd") if path.name not in not_listed)]
    assert sorted(listed) == sorted(str(p.relative_to(ROOT / "nbs")) for p in pages)
    assert (ROOT / "nbs" / "_quarto.yml").resolve() == ROOT / "_quarto.yml"
