"""What the benchmarks share: a fair side-by-side timing, and one way to print the results.

A benchmark module has a function `rows()` that returns a list of rows made by `compare`, and ends with
`if __name__ == "__main__": main(rows)`, so that `python -m benchmarks.NAME [--json]` prints them.
"""
from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from typing import Callable


def seconds(
    work: Callable[[], object],  # what to time
    collector: bool = False,  # leave Python's garbage collector on, as it is in a reader's program
) -> float:
    "Seconds that one call of `work` takes, with a GPU's queue drained."
    torch = sys.modules.get('torch')
    cuda = torch is not None and torch.cuda.is_available()
    gc.collect()
    enabled = gc.isenabled()
    if not collector: gc.disable()
    try:
        if cuda: torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if cuda: torch.cuda.synchronize()
        return time.perf_counter() - start
    finally:
        if enabled: gc.enable()


def keep_memory() -> bool:  # did the C library take it?
    """Let the C library keep freed memory instead of handing it back to the system, in this process.

    glibc hands back large blocks at chance moments, and the page faults that follow took up to 60% of the time of one side of a
    comparison of training loops, and none of the other's. Other C libraries are left alone.
    """
    trim_threshold, mmap_max = -1, -4  # names of the options of mallopt(3)
    try: mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError): return False
    return bool(mallopt(trim_threshold, 1 << 30)) and bool(mallopt(mmap_max, 0))


def compare(
    name: str,  # what is compared, for a reader of the table
    ours: Callable[[], object],  # does `units` units of work by the book's code
    other: Callable[[], object],  # does `other_units` units of the same work by the rival
    target: float,  # the ratio of rates (ours / other) that must be reached
    units: float = 1,  # units of work in one call of `ours`
    other_units: float | None = None,  # units of work in one call of `other`; None: as many as `units`
    unit: str = 'samples',  # what a unit is
    rounds: int = 7,  # timed rounds; in each both sides run once, in turn
    warmup: int = 1,  # untimed rounds before them
    collector: bool = False,  # leave Python's garbage collector on while timing
    **details,  # sizes, seeds, names: whatever a reader needs to repeat it
) -> dict:  # name, ratio, low, high, target, holds, ours, other, unit, rounds, details
    """Time two ways of doing the same work in turn, and give the median ratio of their rates.

    The sides change places every round, so that a machine that slows down slows both. `ratio` is the median over the
    rounds of ours / other; `low` and `high` are its smallest and largest round; `ours` and `other` are median rates.
    """
    if rounds < 1: raise ValueError(f'rounds must be at least 1, got {rounds}')
    other_units = units if other_units is None else other_units
    for _ in range(warmup):
        ours()
        other()
    mine, theirs = [], []
    for i in range(rounds):
        pair = ((ours, mine, units), (other, theirs, other_units))
        for work, rates, n in pair if i % 2 == 0 else pair[::-1]: rates.append(n / seconds(work, collector))
    ratios = [a / b for a, b in zip(mine, theirs)]
    ratio = statistics.median(ratios)
    return dict(name=name, ratio=ratio, low=min(ratios), high=max(ratios), target=target, holds=ratio >= target,
                ours=statistics.median(mine), other=statistics.median(theirs), unit=f'{unit}/s', rounds=rounds,
                details=details)


def processor() -> str:
    "The processor's name, as far as the system tells it."
    try: lines = open('/proc/cpuinfo', encoding='utf-8').read().splitlines()
    except OSError: lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def environment(*packages: str) -> dict:
    "The machine and the versions that a measurement belongs to; `packages` are added to Python, numpy, torch and fastai."
    found = {}
    for package in ('numpy', 'torch', 'fastai', *packages):
        try: found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError: found[package] = None
    out = dict(python=platform.python_version(), system=f'{platform.system()} {platform.machine()}', processor=processor(), cpus=os.cpu_count(),
               packages=found)
    torch = sys.modules.get('torch')
    if torch is not None:
        out.update(threads=torch.get_num_threads(),
                   gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    return out


def number(value: float) -> str:
    "A number with three digits that count, or as many as it has before the point."
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def claim_of(row: dict) -> str:
    "What the target of a row means: a multiple of the other's rate, or of its time."
    target = row['target']
    if target == 1: return 'at least as fast'
    return f'at least {number(target)} times its rate' if target > 1 else f'within {number(1 / target)} times its time'


def table(rows: list[dict]) -> str:
    "The rows as plain text, one line each."
    head = ('benchmark', 'ours', 'other', 'unit', 'ratio', 'spread', 'target', 'holds')
    lines = [head] + [
        (r['name'], number(r['ours']), number(r['other']), r['unit'], number(r['ratio']), f"{number(r['low'])} to {number(r['high'])}",
         *(('none', '') if r['target'] is None else (number(r['target']), 'yes' if r['holds'] else 'NO'))) if r['ratio'] is not None else
        (r['name'], '', '', '', '', '', '', f"NO: {r['error']}") for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return '\n'.join('  '.join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines)


def machine_of(rows: list[dict]) -> str:
    "The machine and the versions, as one line; those of all rows together."
    found = [row['environment'] for row in rows if 'environment' in row]
    if not found: return ''
    packages = {name: version for where in found for name, version in where['packages'].items() if version}
    threads = sorted({where['threads'] for where in found if where.get('threads')})
    gpu = next((where['gpu'] for where in found if where.get('gpu')), 'none')
    return ' · '.join([', '.join(f'{name} {version}' for name, version in packages.items()), f"Python {found[0]['python']}", found[0]['system'],
                       f"{found[0]['processor']}, {found[0]['cpus']} cores, threads: {' or '.join(map(str, threads)) or 'unknown'}", f'GPU: {gpu}'])


def main(rows: Callable[[], list[dict]], packages: tuple[str, ...] = (), argv: list[str] | None = None) -> None:
    "Run `rows`, print a table (or, with `--json`, everything as JSON), and exit with 1 if a target was missed."
    parser = argparse.ArgumentParser(description=sys.modules[rows.__module__].__doc__)
    parser.add_argument('--json', action='store_true', help='print the rows, the details and the machine as JSON')
    args = parser.parse_args(argv)
    keep_memory()
    found = rows()
    where = environment(*packages)
    if args.json:
        print(json.dumps(dict(environment=where, rows=found), indent=1))
    else:
        print(table(found), machine_of([dict(row, environment=where) for row in found]), sep='\n')
    sys.exit(0 if all(r['holds'] is not False for r in found) else 1)  # None: nothing is claimed
