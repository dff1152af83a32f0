"""JupyterLab as a reader has it: `dlbook lab`, a real browser, and chapter 1 from the first cell to an answered exercise."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs the program chromium, which is not on the PATH")

STEM = "01_neurons"
SAVED = json.loads((ROOT / "nbs" / f"{STEM}.ipynb").read_text(encoding="utf-8"))["cells"]


def started(folder, *arguments):
    "A process `dlbook lab folder`, and the address that it prints, with its token."
    environment = {name: value for name, value in os.environ.items() if name not in ("DLBOOK_STILL", "JUPYTER_TOKEN", "DLBOOK_CHAPTERS")}
    process = subprocess.Popen([str(Path(sysconfig.get_path("scripts")) / "dlbook"), "lab", str(folder), "--no-browser", *arguments],
                               cwd=folder.parent, env={**environment, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               encoding="utf-8")
    lines, found = [], threading.Event()

    def listen():
        for line in process.stdout:
            lines.append(line)
            if "token=" in line: found.set()
        found.set()

    threading.Thread(target=listen, daemon=True).start()
    assert found.wait(90), "no address in 90 s"
    address = re.search(r"(http://127\.0\.0\.1:\d+)/lab[\w/.]*\?token=(\w+)", "".join(lines))
    assert address, "".join(lines)
    end = time.time() + 60
    while status(f"{address[1]}/api") != 200:
        assert process.poll() is None and time.time() < end, "".join(lines)
        time.sleep(0.2)
    return process, *address.groups()


def status(address):
    "What a server answers; None while there is none."
    try:
        with urllib.request.urlopen(address, timeout=10) as answer: return answer.status
    except urllib.error.HTTPError as error: return error.code
    except OSError: return None


def ended(process):
    tree = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    for one in tree:
        try: one.kill()
        except psutil.NoSuchProcess: pass
    process.wait()


@pytest.fixture(scope="module")
def desk(tmp_path_factory): return tmp_path_factory.mktemp("browser") / "my chapters"


@pytest.fixture(scope="module")
def lab(desk):
    process, *address = started(desk)
    yield address
    ended(process)


@pytest.fixture(scope="module")
def page(lab):
    "Chapter 1 in JupyterLab, with all that the browser complained about in `page.complaints`."
    server, token = lab
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-background-networking"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(f"{message.text} ({message.location.get('url')})") if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.complaints.append(f"asks {request.url}")
                if not request.url.startswith((server, server.replace("http", "ws"), "data:", "blob:")) else None)
        page.goto(f"{server}/lab/tree/{STEM}.ipynb?token={token}")
        # "idle" is shown for a while before there is a kernel; a cell that runs then makes JupyterLab ask which kernel to take.
        page.wait_for_selector(".jp-Toolbar-kernelName:not([aria-label='No Kernel'])")
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
        yield page
        browser.close()


def scroll(page, place):
    page.evaluate("place => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, place)", place)
    page.wait_for_timeout(200)


def screens(page):
    "Scroll from the beginning to the end of the notebook, which shows only what is near."
    place = 0
    while True:
        scroll(page, place)
        yield
        if page.evaluate("(p => p.scrollTop + p.clientHeight >= p.scrollHeight - 5)(document.querySelector('.jp-WindowedPanel-outer'))"): return
        place += 600


def find(page, selector):
    "The first element that fits, brought into view."
    for _ in screens(page):
        element = page.locator(selector).first
        if page.locator(selector).count() and element.is_visible():
            element.scroll_into_view_if_needed()
            return element
    raise AssertionError(f"{selector} is nowhere in the notebook")


def wait_until(page, true, seconds=60):
    end = time.time() + seconds
    while not true():
        assert time.time() < end, f"not within {seconds} s"
        page.wait_for_timeout(200)


def test_the_server_asks_for_its_token(lab):
    server, token = lab
    assert status(f"{server}/api/contents") == 403 and status(f"{server}/api/contents?token={token}") == 200


def test_all_cells_run_and_all_figures_are_seen(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=busy]")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=300_000)
    pictures, errors, prompts = set(), set(), set()
    for _ in screens(page):
        pictures |= set(page.evaluate("[...document.querySelectorAll('.jp-OutputArea-output img')].filter(i => i.naturalWidth > 100).map(i => i.src.slice(-300))"))
        errors |= set(page.locator("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts())
        prompts |= set(page.locator(".jp-InputArea-prompt").all_inner_texts())
    assert not errors
    code = [cell for cell in SAVED if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    assert f"[{len(code)}]:" in prompts, "the last cell did not run"
    saved = sum("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
    assert len(pictures) >= saved > 3


def test_a_control_changes_its_picture(page):
    handle = find(page, ".widget-slider .noUi-handle")
    panel = page.locator(".jp-OutputArea-output", has=page.locator(".widget-slider")).first
    before = panel.locator("img").first.get_attribute("src")
    handle.focus()
    for _ in range(5): page.keyboard.press("ArrowRight")
    wait_until(page, lambda: panel.locator("img").count() and panel.locator("img").first.get_attribute("src") != before)


def test_an_animation_plays(page):
    player = find(page, ".animation")
    picture = player.locator("img").first
    before = picture.get_attribute("src")
    player.locator("button[title=Play]").click()
    wait_until(page, lambda: picture.get_attribute("src") != before, 20)


def test_an_exercise_is_answered_wrongly_and_then_rightly(page):
    for answer, verdict in (("(1, 1, -1.5)", "✗ 01.1"), ("(-1, -1, 1.5)", "✓ 01.1")):
        find(page, ".jp-CodeCell:has-text('check(\"01.1\"')")
        cell = page.locator(".jp-CodeCell:has-text('check(\"01.1\"')").first
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(f'def nand(): return {answer}\n\ncheck("01.1", nand)')
        page.keyboard.press("Control+Enter")
        cell.locator(".jp-OutputArea-output", has_text=verdict).first.wait_for()
    assert "AND" in cell.locator(".jp-OutputArea-output").first.inner_text()


def test_nothing_complained_and_nobody_else_was_asked(page):
    assert page.complaints == []


def test_what_the_reader_changed_is_kept_and_the_new_version_lies_beside_it(desk, page):
    page.keyboard.press("Control+s")
    mine = desk / f"{STEM}.ipynb"
    wait_until(page, lambda: "(-1, -1, 1.5)" in mine.read_text(encoding="utf-8"))
    kept = mine.read_bytes()
    manifest = desk / ".dlbook-chapters.json"
    known = json.loads(manifest.read_text(encoding="utf-8"))
    known["copied"][mine.name] = "the hash of an older version of the book"
    manifest.write_text(json.dumps(known), encoding="utf-8")
    process, server, token = started(desk)
    try:
        assert mine.read_bytes() == kept
        with urllib.request.urlopen(f"{server}/api/contents/{STEM}.new.ipynb?token={token}", timeout=10) as answer:
            offered = json.load(answer)["content"]["cells"]
        assert [cell["source"] for cell in offered] == ["".join(cell["source"]) for cell in SAVED]
    finally: ended(process)
