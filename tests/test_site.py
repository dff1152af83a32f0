"The website: its configuration, what nbdev makes of the notebooks, and, where Quarto is at hand, the rendered pages in a browser."
from __future__ import annotations

import functools
import html
import http.server
import importlib
import inspect
import json
import re
import runpy
import shutil
import struct
import subprocess
import sys
import threading
import urllib.parse
from html.parser import HTMLParser

import pytest
import yaml
from conftest import ROOT

NBS = ROOT / "nbs"
CHAPTERS = sorted(NBS.glob("[0-9][0-9]_*.ipynb"))
PAGES = [*CHAPTERS, *sorted((NBS / "solutions").glob("*.ipynb"))]
KIT = sorted((NBS / "kit").glob("*.ipynb"))
SOURCES = sorted(path.relative_to(NBS) for ending in ("ipynb", "qmd") for path in NBS.rglob(f"*.{ending}")
                 if not any(part.startswith((".", "_")) for part in path.relative_to(NBS).parts))
CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs the program chromium, which is not on the PATH")
needs_quarto = pytest.mark.skipif(shutil.which("quarto") is None, reason="needs the program quarto, which is not on the PATH")
each_source = pytest.mark.parametrize("name", SOURCES, ids=str)


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


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-background-networking"])
        yield browser
        browser.close()


# --- what nbdev hands to Quarto

def cells_of(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell): return "".join(cell["source"])


@functools.lru_cache(None)
def text_of(path):
    "All Markdown of a page, also that which code printed as such, without code and formulas."
    if path.suffix == ".qmd": text = path.read_text(encoding="utf-8")
    else:
        parts = []
        for cell in cells_of(path):
            if cell["cell_type"] == "markdown": parts.append(source(cell))
            parts += ["".join(output.get("data", {}).get("text/markdown", "")) for output in cell.get("outputs", [])]
        text = "\n\n".join(parts)
    text = re.sub(r"<!--.*?-->|^(```+|~~~+).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|\$\$.+?\$\$|\$[^$\n]+\$", lambda found: found[0] if found[0][0] == "`" else "", text, flags=re.DOTALL)


def anchors(path):
    "The anchors that Pandoc gives to the headings of a page, and the labels of its figures."
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?)(?: *\{#([\w-]+)\})?$", text_of(path), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[0]).lower()
        found.add(heading[1] or re.sub(r"^[^a-z]+", "", re.sub(r" +", "-", re.sub(r"[^\w\s.-]", "", plain))))
    labels = re.findall(r"^#\| *label: *(\S+)", "\n".join(map(source, cells_of(path))), re.MULTILINE) if path.suffix == ".ipynb" else []
    return found | set(labels)


def test_every_page_is_processed(processed):
    for name in SOURCES: assert (processed / name).is_file(), name
    for name in ("_quarto.yml", "nbdev.yml", "references.bib", "styles.scss", "light.scss", "dark.scss", "images/card.png", "images/icon.png"):
        assert (processed / name).is_file(), name


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_readers_of_the_website_see_the_code(processed, path):
    "nbdev hides cells marked `export`; the book marks them `exports`, and each of their definitions is on the page."
    page = cells_of(processed / path.relative_to(NBS))
    shown = "\n".join(source(c) for c in page if c["cell_type"] == "code")
    for cell in cells_of(path):
        for name in re.findall(r"^(?:def|class) (\w+)", source(cell), re.MULTILINE) if cell["cell_type"] == "code" else []:
            assert re.search(rf"^(?:def|class) {name}\b", shown, re.MULTILINE), name


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_plumbing_folds_and_the_rest_does_not(processed, path):
    "The cell that sets a chapter up is folded; what a chapter builds is open."
    page = [source(c) for c in cells_of(processed / path.name) if c["cell_type"] == "code"]
    setup = [text for text in page if re.search(r"^chapter\(", text, re.MULTILINE)]
    assert len(setup) == 1 and "#| code-fold: true" in setup[0]
    assert not any("code-fold: true" in text for text in page if "Exported source" in text)


@pytest.mark.parametrize("path", KIT, ids=lambda p: p.stem)
def test_the_kit_has_its_pages(processed, path):
    "Each public function and class of a module of the kit has a signature and a description on the module's page."
    module = importlib.import_module(f"dlbook.kit.{path.stem[3:]}")
    page = text_of(processed / path.relative_to(NBS)) + "".join(map(source, cells_of(processed / path.relative_to(NBS))))
    for name in module.__all__:
        thing = getattr(module, name)
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == module.__name__:
            assert re.search(rf"^###+ {re.escape(name)}$|show_doc\({re.escape(name)}\)", page, re.MULTILINE), name


@each_source
def test_pages_have_a_title_and_a_description(processed, name):
    "They become the head of the page, the entry in the sidebar, and the text beside a shared link."
    path = processed / name
    head = path.read_text(encoding="utf-8") if path.suffix == ".qmd" else source(cells_of(path)[0])
    meta = yaml.safe_load(head.split("---")[1])
    if name.stem == "index": meta["description"] = yaml.safe_load((NBS / "nbdev.yml").read_text(encoding="utf-8"))["website"]["description"]
    assert len(meta["title"]) > 2 and len(meta.get("description") or "") > 20


@each_source
def test_internal_links_and_their_anchors_resolve(processed, name):
    path = processed / name
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", re.sub(r"`[^`\n]*`", "", text_of(path))):
        if re.match(r"\w+:", target): continue
        there = (path.parent / target).resolve() if target else path
        assert there.is_file(), target
        if anchor: assert anchor in anchors(there), f"{target}#{anchor}"


@each_source
def test_references_to_figures_and_sources_resolve(processed, name):
    path = processed / name
    text = re.sub(r"`[^`\n]*`", "", text_of(path))
    cells = cells_of(path) if path.suffix == ".ipynb" else []
    for formula in re.findall(r"\$\$.+?\$\$", "\n".join(source(c) for c in cells if c["cell_type"] == "markdown"), re.DOTALL):
        assert "@" not in formula, f"a citation in a formula shows as its key: {formula}"
    keys = set(re.findall(r"^@\w+\{([^,]+),", (NBS / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    for key in re.findall(r"(?<![\w./])@([\w:-]*\w)", text):
        if key.startswith(("fig-", "tbl-", "eq-", "sec-", "lst-")): assert key in anchors(path), key
        elif re.match(r"[a-z]+\d{4}", key): assert key in keys, key


@each_source
def test_nothing_would_show_as_raw_text(processed, name):
    "Neither JupyterLab nor GitHub knows Quarto's own syntax, and the page must not show a reader what nbdev is told."
    path = NBS / name
    text = re.sub(r"`[^`\n]*`", "", text_of(path))
    if path.suffix == ".qmd": text = re.sub(r"\)\{#fig-[^}\n]*\}", ")", text)  # only Quarto shows such a page, and it wants a figure's label there
    for what, pattern in (("a div", r"^:::"), ("a shortcode", r"\{\{<"), ("an attribute", r"\]\{[.#]|\)\{[.#\w]"), ("a cell as text", r"^```\{"),
                          ("LaTeX's own reference", r"\\(?:ref|cite|label)\b"), ("an environment outside of a formula", r"\\begin\{")):
        assert not re.search(pattern, text, re.MULTILINE), what
    if path.suffix == ".ipynb":
        for cell in cells_of(processed / name):
            if cell["cell_type"] == "markdown": assert not re.search(r"^#\|", source(cell), re.MULTILINE), source(cell)[:200]


@each_source
def test_every_picture_has_a_description(processed, name):
    path = processed / name
    for alt in re.findall(r"!\[([^\]]*)\]\(", text_of(path)): assert len(alt) > 10
    for cell in cells_of(path) if path.suffix == ".ipynb" else []:
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if any(kind.startswith("image/") for kind in data):
                for option in ("label: fig-", "fig-cap: ", "fig-alt: "): assert f"#| {option}" in source(cell)
            for tag in re.findall(r"<img\b[^>]*", "".join(data.get("text/html", ""))): assert re.search(r'\balt="[^"]{10,}', tag), tag[:200]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_pictures_survive(processed, path):
    def pictures(cells): return sum(any(k.startswith("image/") for k in o.get("data", {})) for c in cells for o in c.get("outputs", []))
    assert pictures(cells_of(processed / path.name)) == pictures(cells_of(path)) > 0


def test_directives_are_yaml(processed):
    "Quarto reads the lines `#| key: value` of a cell as YAML; a colon in a caption needs quotes."
    for path in processed.rglob("*.ipynb"):
        for cell in cells_of(path):
            if cell["cell_type"] != "code": continue
            lines = re.findall(r"^#\| ?([\w-]+:.*)$", source(cell), re.MULTILINE)
            options = yaml.safe_load("\n".join(lines)) if lines else {}
            assert all(not isinstance(v, (dict, list)) for v in options.values()), (path.name, options)


def test_the_page_of_results_shows_the_ledger_as_it_is(processed):
    page = (processed / "ledger.qmd").read_text(encoding="utf-8")
    made = subprocess.run([sys.executable, ROOT / ".ci" / "ledger", "--print"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert page == made.stdout, "run `.ci/ledger` after `dlbook run --save`"
    entries = [entry for chapter in json.loads((NBS / "results.json").read_text(encoding="utf-8"))["chapters"].values()
               for entry in chapter["entries"]]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == len(entries) + 2 * len(CHAPTERS) and "[@greydanus2024]: 0.91" in page


# --- the configuration

def test_the_configuration_asks_for_what_the_site_has():
    html_format, site = CONFIG["format"]["html"], CONFIG["website"]
    assert html_format["html-math-method"] == "mathml" and set(html_format["theme"]) == {"light", "dark"} and html_format["toc"]
    assert site["search"] and site["page-navigation"] and site["sidebar"]["contents"] and CONFIG["bibliography"] == "references.bib"
    assert not CONFIG["execute"]["enabled"], "the pages show the saved outputs"
    for mode, files in html_format["theme"].items():
        assert files[1:] == ["styles.scss", f"{mode}.scss"]


def test_chapters_stand_in_their_order():
    "The previous and the next page are those of the sidebar."
    listed = [name for part in CONFIG["website"]["sidebar"]["contents"] if isinstance(part, dict) for name in part["contents"]]
    for folder in ("", "solutions/", "kit/"):
        names = [name for name in listed if re.fullmatch(rf"{folder}\d\d_\w+\.ipynb", name)]
        assert names == sorted(names) and len(names) > 3


def test_nothing_of_ours_comes_from_elsewhere():
    "No font, style or script of another server in what we wrote; the last step takes out those that Quarto puts in."
    for name in ("styles.scss", "light.scss", "dark.scss"):
        assert not re.search(r"url\(|@import|https?:", (NBS / name).read_text(encoding="utf-8")), name
    assert "$web-font-path: false;" in (NBS / "styles.scss").read_text(encoding="utf-8")
    assert CONFIG["project"]["post-render"] == "python ../.ci/site" and (ROOT / ".ci" / "site").is_file()


def test_the_social_card_and_the_icon():
    for name, size, limit in (("card", (1200, 630), 100_000), ("icon", (64, 64), 5_000)):
        data = (NBS / "images" / f"{name}.png").read_bytes()
        assert struct.unpack(">II", data[16:24]) == size and len(data) < limit
    site = CONFIG["website"]
    # From the root of the site: else the pages in folders, and those with a picture of their own, show something else.
    assert site["open-graph"]["image"] == site["twitter-card"]["image"] == "/images/card.png" and site["favicon"] == "images/icon.png"
    assert site["twitter-card"]["card-style"] == "summary_large_image"


# --- our colors

def luminance(color):
    parts = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    "WCAG 2's ratio of two colors such as #1e1e1e."
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_rightly():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_our_colors_reach_contrast_aa(mode):
    colors = dict(re.findall(r"^\$([\w-]+): (#[0-9a-f]{6});$", (NBS / f"{mode}.scss").read_text(encoding="utf-8"), re.MULTILINE))
    pairs = [("body-color", "body-bg"), ("link-color", "body-bg"), ("text-muted", "body-bg"), ("footer-fg", "body-bg"), ("code-color", "code-bg"),
             ("code-color", "body-bg"), ("body-color", "code-block-bg"), ("link-color", "code-bg"), ("navbar-fg", "navbar-bg"), ("navbar-hl", "navbar-bg"),
             ("sidebar-fg", "sidebar-bg"), ("link-color", "sidebar-bg")]
    for ink, paper in pairs: assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper, contrast(colors[ink], colors[paper]))
    weakest = {"light": "#007faa", "dark": "#ffa07a"}[mode]  # of the syntax colors that Quarto calls a11y
    assert CONFIG["format"]["html"]["highlight-style"] == "a11y" and contrast(weakest, colors["code-block-bg"]) >= 4.5
    assert set(colors) == {name for pair in pairs for name in pair} | {"primary"}, "a color that is not checked"
    from dlbook.kit.plots import THEMES
    assert contrast(THEMES[mode]["ink"], THEMES[mode]["paper"]) >= 4.5


# --- our styles, on a page with all that is wide

LONG = "a_name_that_is_so_long_that_it_does_not_fit_into_the_width_of_a_telephone_that_is_held_upright"
WIDE = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>wide</title><style>%s</style></head><body><div id="quarto-header">navigation</div><main>
<h1>Title</h1><p>Text with <code>{LONG}</code> and <a href="https://example.org/">{LONG}</a>.</p>
<p><math display="block"><mrow>{"<mi>x</mi><mo>+</mo>" * 60}</mrow></math></p><p>Inside <math><mrow>{"<mi>x</mi><mo>+</mo>" * 60}</mrow></math></p>
<ul><li>first <math><mrow>{"<mi>x</mi><mo>+</mo>" * 60}</mrow></math></li></ul>
<div class="cell"><div class="sourceCode"><pre><code>{"wide = code " * 30}</code></pre></div>
<div class="cell-output cell-output-stdout"><pre><code>{"wide output " * 30}</code></pre></div>
<div class="cell-output cell-output-display"><table class="dataframe"><tr>{"<th>heading</th>" * 30}</tr></table></div>
<div class="cell-output-display"><figure><img alt="a wide picture" width="2000" height="500"
 src="data:image/svg+xml,%%3Csvg xmlns='http://www.w3.org/2000/svg' width='2000' height='500'/%%3E"><figcaption>A caption.</figcaption></figure></div>
<div class="animation" style="display: inline-block"><img alt="a wide animation" width="700" height="300"
 src="data:image/svg+xml,%%3Csvg xmlns='http://www.w3.org/2000/svg' width='700' height='300'/%%3E">
<div class="anim-controls"><input type="range" class="anim-slider" style="">
<div class="anim-buttons">{"<button style='width: 36px'>x</button>" * 9}</div></div></div></div>
<details><summary>Code</summary><p id="folded">folded</p></details></main></body></html>"""


def rules():
    "The rules of styles.scss: plain CSS, so that a browser reads them as they are."
    return (NBS / "styles.scss").read_text(encoding="utf-8").partition("/*-- scss:rules --*/")[2]


@needs_browser
def test_nothing_is_wider_than_a_telephone(chromium):
    def width(css):
        page = chromium.new_page(viewport={"width": 360, "height": 800})
        page.set_content(WIDE % css)
        found = page.evaluate("document.documentElement.scrollWidth"), page.evaluate("document.querySelector('figure img').clientWidth")
        page.close()
        return found
    assert width("")[0] > 700, "without our styles this page is wide"
    whole, picture = width(rules())
    assert whole == 360 and picture <= 360


@needs_browser
def test_a_page_prints_with_all_of_its_code_and_without_controls(chromium):
    page = chromium.new_page(viewport={"width": 700, "height": 900})
    page.set_content(WIDE % rules())
    assert page.locator("#quarto-header").is_visible() and page.locator(".anim-buttons").is_visible()
    assert not page.evaluate("document.querySelector('#folded').checkVisibility()")
    page.emulate_media(media="print")
    assert not page.locator("#quarto-header").is_visible() and not page.locator(".anim-buttons").is_visible()
    assert page.evaluate("document.querySelector('#folded').checkVisibility()"), "folded code is not printed"
    assert page.evaluate("(p => p.scrollWidth <= p.clientWidth + 1)(document.querySelector('.sourceCode pre'))"), "printed code is cut off"
    assert page.evaluate("getComputedStyle(document.querySelector('main p a'), '::after').content") not in ("none", "normal"), "no address on paper"
    page.close()


# --- the last step

def test_the_last_step_adds_the_notebook_and_takes_out_what_comes_from_elsewhere(tmp_path):
    step = runpy.run_path(str(ROOT / ".ci" / "site"))
    chapter = CHAPTERS[3]
    colab = f"https://colab.research.google.com/github/dlbook/dlbook/blob/main/nbs/{chapter.name}"
    # As Quarto 1.9 writes them into the head of a page whose outputs hold HTML.
    (tmp_path / f"{chapter.stem[3:]}.html").write_text(f"""<head>
<script src="site_libs/clipboard/clipboard.min.js"></script>
<script src="https://cdn.jsdelivr.net/npm/requirejs@2.3.6/require.min.js" integrity="sha384-c9" crossorigin="anonymous"></script>
<script src="https://cdn.jsdelivr.net/npm/jquery@3.5.1/dist/jquery.min.js" integrity="sha384-Zv" crossorigin="anonymous" data-relocate-top="true"></script>
<script type="application/javascript">define('jquery', [],function() {{return window.jQuery;}})</script>
</head><p><a href="{colab}" class="external">Open in Colab</a> · <a href="https://github.com/">Source</a></p><script>var ours = 1;</script>""",
                                                       encoding="utf-8")
    (tmp_path / "index.html").write_text("<p>nothing to do</p>", encoding="utf-8")
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / f"{chapter.stem[3:]}.html").write_text("<p>a page of the kit with the same name</p>", encoding="utf-8")
    step["finish"](tmp_path)
    page = (tmp_path / f"{chapter.stem[3:]}.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>", page) == ['<script src="site_libs/clipboard/clipboard.min.js">', "<script>"] and "jquery" not in page
    assert f'Open in Colab</a> · <a href="notebooks/{chapter.name}" download="{chapter.name}">Download the notebook</a> (' in page
    assert "%pip install dlbook</code>) · <a" in page
    assert (tmp_path / "notebooks" / chapter.name).read_bytes() == chapter.read_bytes()
    assert len(list((tmp_path / "notebooks").iterdir())) == 1 and "download" not in (tmp_path / "kit" / f"{chapter.stem[3:]}.html").read_text()
    step["finish"](tmp_path)
    assert page == (tmp_path / f"{chapter.stem[3:]}.html").read_text(encoding="utf-8")


# --- the rendered site

class Page(HTMLParser):
    "What a test wants to know of a rendered page."

    def __init__(self, path):
        super().__init__()
        self.tags, self.ids, self.text, self._skip = [], set(), [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if "id" in attributes: self.ids.add(attributes["id"])
        if tag == "a" and "name" in attributes: self.ids.add(attributes["name"])
        self._skip += tag in ("script", "style", "code", "annotation")

    def handle_endtag(self, tag): self._skip -= tag in ("script", "style", "code", "annotation")

    def handle_data(self, data):
        if not self._skip: self.text.append(data)

    def all(self, tag): return [attributes for name, attributes in self.tags if name == tag]


page_of = functools.lru_cache(None)(Page)  # each page is read once


@pytest.fixture(scope="module")
def site(copy):
    "The folder of the whole site, rendered as the workflow does it."
    done = subprocess.run(["nbdev_docs"], cwd=copy, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "WARN" not in said, "\n".join(line for line in said.splitlines() if "WARN" in line)[:3000]
    return copy / "_docs"


def address(name):
    "Where a page lies in the rendered site; nbdev drops its number."
    return str(name.with_name(re.sub(r"^\d\d_", "", name.stem) + ".html"))


@needs_quarto
@each_source
def test_rendered_pages_are_whole(site, name):
    page, raw = page_of(site / address(name)), (site / address(name)).read_text(encoding="utf-8")
    text = "".join(page.text)
    assert not re.search(r"\?@\w|\[@\w|\{\{<|^:::", text, re.MULTILINE), "something was not resolved"
    if (NBS / name).suffix == ".ipynb":
        markdown = "\n".join(source(c) for c in cells_of(NBS / name) if c["cell_type"] == "markdown")
        formulas = re.findall(r"\$\$.+?\$\$|(?<![\\$])\$[^$\n]+\$", re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL), re.DOTALL)
        assert len(page.all("math")) >= len(formulas), "a formula is missing"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    for image in page.all("img"): assert image.get("alt") or image.get("role") == "presentation", str(image)[:200]
    for tag, attributes in page.tags:
        place = attributes.get("src") if tag in ("script", "img", "iframe", "source") else attributes.get("href") if (
            tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev")) else None
        assert not re.match(r"(https?:)?//", place or ""), f"{tag} asks {place}"
    assert {m.get("content") for m in page.all("meta") if m.get("property") == "og:image"} == {"https://dlbook.github.io/dlbook/images/card.png"}
    assert "<html" in raw and 'lang="en' in raw[:500]


@needs_quarto
@each_source
def test_rendered_links_lead_somewhere(site, name):
    if name.stem == "404": return  # its links begin at the root of the published site
    path = site / address(name)
    for link in page_of(path).all("a"):
        target, _, anchor = (link.get("href") or "").partition("#")
        if not (target or anchor) or re.match(r"\w+:|//", target): continue
        there = (path.parent / urllib.parse.unquote(target)).resolve() if target else path
        if there.is_dir(): there /= "index.html"
        assert there.is_file(), target
        if anchor and there.suffix == ".html": assert urllib.parse.unquote(anchor) in page_of(there).ids, link["href"]


@needs_quarto
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_rendered_chapters_offer_what_a_chapter_offers(site, path):
    page = (site / f"{path.stem[3:]}.html").read_text(encoding="utf-8")
    for part in (f"colab.research.google.com/github/dlbook/dlbook/blob/main/nbs/{path.name}", f'href="notebooks/{path.name}"', "<figcaption", "<math",
                 "<details", 'id="refs"', "nav-page-next" if path != CHAPTERS[-1] else "nav-page-previous"):
        assert part in page, part
    assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()
    labels = [label for cell in cells_of(path) for label in re.findall(r"^#\| *label: *(fig-\S+)", source(cell), re.MULTILINE) if cell["outputs"]]
    for label in labels: assert f'id="{label}"' in page, label


@needs_quarto
def test_search_and_the_page_for_wrong_addresses(site):
    entries = json.loads((site / "search.json").read_text(encoding="utf-8"))
    for path in CHAPTERS: assert any(entry["href"].startswith(f"{path.stem[3:]}.html") for entry in entries), path.stem
    assert "does not exist" in " ".join("".join(page_of(site / "404.html").text).split())


@pytest.fixture(scope="module")
def server(site):
    "The address of a server of the rendered site."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


# Text of the pages themselves with too little contrast: WCAG 2's 4.5, and 3 for large text.
PALE = """() => {
  const numbers = color => (color.match(/[\\d.]+/g) || [0, 0, 0]).map(Number);
  const light = color => color.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => [0, 1, 2].map(i => top[i] * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
  const ground = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color[3] !== 0) layers.push(color);
      if ((color[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = {}, walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const e = node.parentElement;
    if (!node.textContent.trim() || e.closest('script, style, annotation') || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), below = ground(e), [low, high] = [light(below), light(over(numbers(style.color), below))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
    if (ratio < (size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5))
      found[`${e.tagName}.${e.className} ${style.color} on ${below.map(Math.round)}: ${ratio.toFixed(2)}`] = node.textContent.trim().slice(0, 40);
  }
  return found;
}"""


@needs_quarto
@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_in_a_browser(server, chromium, width, theme):
    "No complaint, no request to others, nothing wider than the screen, all formulas laid out, and enough contrast."
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.add_init_script(f"localStorage.setItem('quarto-color-scheme', '{'alternate' if theme == 'dark' else 'default'}')")
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(f"asks {request.url}")
            if not request.url.startswith((server, "data:", "blob:")) else None)
    page.on("response", lambda response: complaints.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    wrong = {}
    for name in SOURCES:
        if name.stem == "404": continue
        page.goto(f"{server}/{address(name)}")
        found = list(complaints)
        complaints.clear()
        if not page.evaluate(f"document.body.classList.contains('quarto-{theme}')"): found.append(f"is not {theme}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width: found.append(f"is {wide} wide")
        found += page.evaluate("[...document.querySelectorAll('main math')].filter(m => m.checkVisibility() && m.getBoundingClientRect().width < 2)"
                               ".map(m => 'no formula: ' + m.textContent.slice(0, 60))")
        found += page.evaluate("[...document.querySelectorAll('main img')].filter(i => i.checkVisibility() && i.complete && !i.naturalWidth)"
                               ".map(i => 'no picture: ' + i.alt)")
        found += [f"pale: {where} ({text})" for where, text in page.evaluate(PALE).items()]
        if found: wrong[str(name)] = found
    page.close()
    assert not wrong, html.unescape(json.dumps(wrong, indent=1))[:6000]
