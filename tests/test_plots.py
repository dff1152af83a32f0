"The player of animations: small frames, a picture before any script runs, and nothing from elsewhere."
import base64
import io
import re

import matplotlib
import pytest
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dlbook.kit.plots import animate


@pytest.fixture(scope="module")
def html():
    fig, ax = plt.subplots(figsize=(2, 1.5))
    line, = ax.plot([0, 1], [0, 1])
    return animate(fig, lambda i: line.set_ydata([i, 1]), frames=3, alt='a line "moves" <up>').html


def pictures(html): return [base64.b64decode(data) for data in re.findall(r'data:image/png;base64,([\w+/=]+)"', html)]


def test_the_last_frame_is_there_before_any_script_runs(html):
    first, *frames = pictures(html)
    assert len(frames) == 3 and len(set(frames)) == 3 and first == frames[-1]
    assert re.search(r'<img alt="[^"]+" src="data:image/png;base64,', html)


def test_frames_have_few_colors(html):
    for picture in pictures(html):
        image = Image.open(io.BytesIO(picture))
        assert image.mode == "P" and len(image.getcolors()) <= 128


def test_the_description_is_escaped_and_nothing_is_loaded(html):
    assert 'alt="a line &quot;moves&quot; &lt;up&gt;"' in html and "font-awesome" not in html and "▶" in html


def test_only_what_is_named_becomes_a_control(monkeypatch):
    from dlbook.kit.plots import interactive
    monkeypatch.delenv("DLBOOK_STILL", raising=False)
    seen = []
    panel = interactive(lambda a, chars=90, look=len: seen.append((a, chars, look)), a=(0, 10, 1))
    panel.children[0].value = 7
    panel.f(**panel.kwargs)
    assert len(panel.children) == 2 and seen[-1] == (7, 90, len)
