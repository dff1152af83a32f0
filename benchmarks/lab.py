"""How long a newcomer waits: from the command `dlbook lab`, in a folder without chapters, to chapter 1 on the screen of a browser.

The clock stops when the chapter's first heading is visible at the address that the command printed. The browser itself runs already, as it
does for a reader. One round before the others fills the disk cache: the claim is about a warm machine.
"""
from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.common import main

ROUNDS, LIMIT = 5, 10.0  # timed rounds, after one that does not count; seconds allowed
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def _opened(browser) -> float:
    "Seconds from the command to the first heading of chapter 1."
    import psutil
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "dlbook", "lab", str(Path(folder, "mine")), "--no-browser"], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        try:
            address = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+/lab\S*token=\w+", line) for line in process.stdout)))[0]
            threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would stop the server
            end = time.time() + 30
            while True:  # the server prints its address a moment before it listens
                try: page.goto(address, wait_until="commit"); break
                except Exception:
                    if time.time() > end: raise
                    time.sleep(0.05)
            page.locator(".jp-Notebook h1", has_text="Neurons").first.wait_for(timeout=120_000)
            return time.perf_counter() - start
        finally:
            page.close()
            for one in [*psutil.Process(process.pid).children(recursive=True), process]: one.kill()
            process.wait()


def rows() -> list[dict]:
    "One row. `ours` is chapters opened a minute, `other` how many the limit demands; `ratio` is the limit by the median time."
    try: from playwright.sync_api import sync_playwright
    except ImportError: sync_playwright = None
    if sync_playwright is None or BROWSER is None:
        print("no browser: install chromium and `pip install playwright`; the row is left out")
        return []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        times = [_opened(browser) for _ in range(ROUNDS + 1)][1:]
        browser.close()
    middle = statistics.median(times)
    return [dict(name="dlbook lab: chapter 1 on the screen", ratio=LIMIT / middle, low=LIMIT / max(times), high=LIMIT / min(times), target=1.0,
                 holds=middle < LIMIT, ours=60 / middle, other=60 / LIMIT, unit="chapters/min", rounds=ROUNDS, claim=f"in less than {LIMIT:g} s",
                 details=dict(seconds=round(middle, 2), slowest=round(max(times), 2), fastest=round(min(times), 2), limit_s=LIMIT, cpus=os.cpu_count()))]


if __name__ == "__main__":
    main(rows)
