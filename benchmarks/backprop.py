"""The engine of chapter 4 beside micrograd and beside torch's own autograd, on the digits.

Each call is one step of training: forward, loss, backward, and a step of gradient descent, on the same weights and images.
"""
from __future__ import annotations

import importlib.util

import torch

from benchmarks.common import compare, main, seconds
from dlbook.backprop import Tensor
from dlbook.kit.data import digits


def weights(sizes, seed=0):
    "W (n_in, n_out) and b (n_out) of each layer, as torch tensors."
    rng = torch.Generator().manual_seed(seed)
    return [t for n_in, n_out in zip(sizes, sizes[1:])
            for t in (torch.randn(n_in, n_out, generator=rng) * (2 / n_in) ** 0.5, torch.zeros(n_out))]


def batch(n):
    "The first n training images (n, 64), repeated if there are fewer, and their classes as one-hot rows (n, 10)."
    x, y = digits().train
    rows = torch.arange(n) % len(x)
    return x.flatten(1)[rows], torch.nn.functional.one_hot(y[rows], 10).float()


def ours(sizes, n, lr=0.01):
    "One step with the book's Tensor."
    W1, b1, W2, b2 = parameters = [Tensor(w, requires_grad=True) for w in weights(sizes)]
    x, wanted = map(Tensor, batch(n))

    def step():
        error = (x @ W1 + b1).relu() @ W2 + b2 - wanted
        loss = (error * error).sum() / n
        for p in parameters: p.grad = None
        loss.backward()
        for p in parameters: p.data -= lr * p.grad
        return loss.item()
    return step


def torchs(sizes, n, lr=0.01):
    "One step with torch's autograd, written the same way."
    W1, b1, W2, b2 = parameters = [w.requires_grad_() for w in weights(sizes)]
    x, wanted = batch(n)

    def step():
        error = (x @ W1 + b1).relu() @ W2 + b2 - wanted
        loss = (error * error).sum() / n
        for p in parameters: p.grad = None
        loss.backward()
        with torch.no_grad():
            for p in parameters: p -= lr * p.grad
        return loss.item()
    return step


def micrograds(sizes, n, lr=0.01):
    "One step with micrograd's MLP, given the same weights."
    from micrograd.nn import MLP
    x, wanted = (t.tolist() for t in batch(n))
    model = MLP(sizes[0], list(sizes[1:]))  # nonlinear but for its last layer, as ours
    for layer, W, b in zip(model.layers, *[iter(weights(sizes))] * 2):
        for neuron, column, bias in zip(layer.neurons, W.T.tolist(), b.tolist()):
            for w, value in zip(neuron.w, column): w.data = value
            neuron.b.data = bias

    def step():
        loss = sum(sum((s - t) ** 2 for s, t in zip(model(image), row)) for image, row in zip(x, wanted)) * (1 / n)
        model.zero_grad()
        loss.backward()
        for p in model.parameters(): p.data -= lr * p.grad
        return loss.data
    return step


def many(step, times):
    def run():
        for _ in range(times): step()
    return run


def rows() -> list[dict]:
    "The book's engine beside its rivals: ratios of samples a second."
    found = []
    if importlib.util.find_spec("micrograd"):
        small = (64, 32, 10)
        first = (ours(small, 32)(), micrograds(small, 32)())
        if abs(first[0] - first[1]) > 1e-3 * first[1]: raise AssertionError(f"the two sides compute different losses: {first}")
        # A step of micrograd makes about 470,000 objects, and Python's garbage collector looks through them again and again. A
        # reader's program runs with the collector on, so it stays on here; `without_collector` is micrograd's rate without it.
        rival = micrograds(small, 32)
        found.append(compare("Tensor beside micrograd, 64-32-10, batch 32", many(ours(small, 32), 500), rival, 5000, units=500 * 32,
                             other_units=32, rounds=3, warmup=0, collector=True, seed=0, batch=32, sizes=small,
                             without_collector=round(32 / seconds(rival))))
    else: print("micrograd is not installed; its row is left out (pip install 'dlbook[bench]')")
    large = (64, 512, 10)
    found.append(compare("Tensor beside torch autograd, 64-512-10, batch 256", many(ours(large, 256), 50), many(torchs(large, 256), 50), 0.5,
                         units=50 * 256, rounds=15, seed=0, batch=256, sizes=large))
    return found


if __name__ == "__main__": main(rows, packages=("micrograd",))
