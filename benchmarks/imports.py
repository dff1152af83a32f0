"""How long `import dlbook` and `import dlbook.backprop` take, beside bare Python and `import torch`.

A process is started for every import, the two sides in turn, and the fastest of each side counts: an import can only be
slowed down by what else the machine does. `import dlbook` is to add at most 50 ms to bare Python, and
`import dlbook.backprop` to take at most 1.15 times as long as `import torch`.
"""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.common import main, seconds

ROUNDS = 9  # timed rounds, after one that fills the disk cache


def _start(code, folder):
    subprocess.run([sys.executable, '-c', code], cwd=folder, check=True)


def _fastest(ours, other, rounds=ROUNDS):
    "Seconds of the fastest process of each side."
    best = [float('inf'), float('inf')]
    with tempfile.TemporaryDirectory() as folder:  # an empty one: nothing beside it can be imported by mistake
        for i in range(rounds + 1):
            for side in ((0, 1) if i % 2 else (1, 0)):
                took = seconds(lambda: _start((ours, other)[side], folder))
                if i: best[side] = min(best[side], took)
    return best


def rows() -> list[dict]:
    "One row per claim. `ours` and `other` are imports a minute; `ratio` is theirs, ours / other."
    ours, bare = _fastest('import dlbook', 'pass')
    backprop, torch = _fastest('import dlbook.backprop', 'import torch')
    allowed = bare / (bare + 0.050)
    added = round((ours - bare) * 1000, 2)
    return [_row('import dlbook, beside bare Python', ours, bare, allowed, 'adds at most 50 ms', added_ms=added, limit_ms=50),
            _row('import dlbook.backprop, beside import torch', backprop, torch, 1 / 1.15, 'within 1.15 times its time',
                 times_as_long=round(backprop / torch, 3), limit=1.15)]


def _row(name, ours, other, target, claim, **details):
    ratio = other / ours
    return dict(name=name, ratio=ratio, low=ratio, high=ratio, target=round(target, 3), holds=ratio >= target,
                ours=60 / ours, other=60 / other, unit='imports/min', rounds=ROUNDS, claim=claim,
                details=dict(details, ours_ms=round(ours * 1000, 1), other_ms=round(other * 1000, 1), cpus=os.cpu_count()))


if __name__ == '__main__':
    main(rows)
