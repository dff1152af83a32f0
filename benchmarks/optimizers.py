"""The optimizers of chapter 5: a step beside torch's, on a model of 100 tensors; and mini-batches beside other batch sizes."""
from __future__ import annotations

import torch

from benchmarks.common import compare, main
from dlbook import optimizers
from dlbook.kit.data import glyphs
from dlbook.losses import cross_entropy
from dlbook.neurons import MLP


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


def training(x, y, size, rate, goal=0.5, check=64, most=10_000):
    """A function that trains a network with 32 hidden neurons by SGD until its loss on all of `x` is below `goal` nats, and the steps it takes.

    The number of steps is found first, so that what is timed does not look at the loss.
    """
    def train(until=None):
        torch.manual_seed(0)
        model, rng, step = MLP([x.shape[1], 32, 10]).to(x.device), torch.Generator().manual_seed(0), 0
        opt = optimizers.SGD(model.parameters(), lr=rate)
        while True:
            for rows in torch.randperm(len(y), generator=rng).split(size):
                opt.zero_grad()
                cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
                step += 1
                if step == until: return step
                if until is None and step % max(1, check // size) == 0:
                    with torch.no_grad():
                        if cross_entropy(model(x), y) < goal: return step
                    if step > most: raise AssertionError(f"no loss below {goal} in {most} steps with batches of {size}")

    steps = train()
    return (lambda: train(steps)), steps


def batch_sizes() -> list[dict]:
    "Seconds to the same loss, at the learning rates that chapter 5 finds for each batch size."
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = glyphs(2500, chars="0123456789").train
    x, y = data.x.flatten(1).to(device), data.y.to(device)
    mini, steps = training(x, y, 32, 0.3)
    found = []
    for name, size, rate in [("the whole batch", len(y), 1.0), ("single images", 1, 0.03)]:
        other, others = training(x, y, size, rate)
        found.append(compare(f"time to a loss of 0.5 nats, mini-batches of 32 beside {name}", mini, other, 1.2, unit="runs", rounds=5, seed=0,
                             steps=[steps, others], device=device))
    return found


def rows() -> list[dict]:
    "Ratios of steps a second, where 0.67 is 1.5 times the time of torch, and of runs a second."
    found = batch_sizes()
    for name, width, times in [("Adam", 64, 100), ("AdamW", 64, 100), ("Adam", 256, 10)]:
        ours, rival = getattr(optimizers, name), lambda params, name=name: getattr(torch.optim, name)(params, foreach=True)
        agree(ours, rival, width)
        found.append(compare(f"{name} beside torch's foreach, 100 tensors, width {width}", steps(ours, width, times), steps(rival, width, times), 1 / 1.5,
                             units=times, unit="steps", rounds=9, seed=0, tensors=100, width=width))
    return found


if __name__ == "__main__": main(rows)
