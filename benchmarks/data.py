"""How many glyphs a second one core draws, beside the 5,000 that the book promises.

The promise is a number of images, so the other side is that number and not another program.
"""
from __future__ import annotations

import statistics

import torch

from benchmarks.common import main, seconds
from dlbook.kit.data import glyphs

PROMISED, N, ROUNDS = 5_000, 10_000, 5


def rows() -> list[dict]:
    "One row: images drawn a second on one thread, each round with another seed."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = N / seconds(lambda: glyphs(N, seed=0))  # also draws the masters from the fonts, once a process
        rates = [N / seconds(lambda: glyphs(N, seed=seed)) for seed in range(1, ROUNDS + 1)]
    finally:
        torch.set_num_threads(threads)
    rate = statistics.median(rates)
    return [dict(name="glyphs on one core", ratio=rate / PROMISED, low=min(rates) / PROMISED, high=max(rates) / PROMISED, target=1,
                 holds=rate >= PROMISED, ours=rate, other=PROMISED, unit="images/s", rounds=ROUNDS,
                 claim=f"at least {PROMISED:,} images a second",
                 details=dict(images=N, seeds=list(range(1, ROUNDS + 1)), first_call=round(first)))]


if __name__ == "__main__": main(rows)
