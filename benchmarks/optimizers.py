"""The optimizers of chapter 5 beside torch's, on a model of 100 tensors: steps with the gradients given."""
from __future__ import annotations

import torch

from benchmarks.common import compare, main
from dlbook import optimizers


def weights(width, seed=0):
    "100 tensors, matrices (width, width) and biases (width) in turn, with gradients."
    rng, device = torch.Generator().manual_seed(seed), "cuda" if torch.cuda.is_available() else "cpu"
    out = [torch.randn((width, width) if i % 2 == 0 else width, generator=rng).to(device) for i in range(100)]
    for p in out: p.grad = torch.randn(p.shape, generator=rng).to(device)
    return out


def steps(make, width, times):
    "A function that does `times` steps."
    opt = make(weights(width))

    def run():
        for _ in range(times): opt.step()
    return run


def agree(ours, theirs, width):
    "Both sides do the same arithmetic, or the comparison means nothing."
    pair = weights(width), weights(width)
    for make, params in zip((ours, theirs), pair):
        opt = make(params)
        for _ in range(5): opt.step()
    gap = max((p - q).abs().max().item() for p, q in zip(*pair))
    if gap > 1e-6: raise AssertionError(f"the two sides end with different weights: {gap}")


def rows() -> list[dict]:
    "Ratios of steps a second; 0.67 is 1.5 times the time of torch."
    found = []
    for name, width, times in [("Adam", 64, 100), ("AdamW", 64, 100), ("Adam", 256, 10)]:
        ours, rival = getattr(optimizers, name), lambda params, name=name: getattr(torch.optim, name)(params, foreach=True)
        agree(ours, rival, width)
        found.append(compare(f"{name} beside torch's foreach, 100 tensors, width {width}", steps(ours, width, times), steps(rival, width, times), 1 / 1.5,
                             units=times, unit="steps", rounds=9, seed=0, tensors=100, width=width))
    return found


if __name__ == "__main__": main(rows)
