"Without a GPU: the book's code, and the cells for a GPU in small, on a second device that refuses to meet the CPU's tensors."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.elsewhere import CHAPTERS

HERE = Path(__file__).parent


@pytest.mark.parametrize("chapter", [chapter.__name__ for chapter in CHAPTERS])
def test_code_keeps_to_the_device_of_its_inputs(chapter):
    done = subprocess.run([sys.executable, HERE / "elsewhere.py", chapter], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(HERE.parent), "MPLBACKEND": "agg"})
    pieces = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and pieces, done.stderr
    faults = [f"{piece}: {fault}" for piece, fault in pieces if fault]
    assert not faults, "\n\n".join(faults)
