"""The convolution of chapter 8: conv2d forward and backward beside torch's, 64 images of 28 x 28, from 16 to 32 channels, kernels of 3 x 3."""
from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.common import compare, main
from dlbook import cnn


def setting(batch=64, n_in=16, n_out=32, size=28, kernel=3, padding=1, seed=0):
    "Images, weights, biases, and the gradient of the output."
    rng, device = torch.Generator().manual_seed(seed), "cuda" if torch.cuda.is_available() else "cpu"
    shapes = (batch, n_in, size, size), (n_out, n_in, kernel, kernel), (n_out,), (batch, n_out, *[size + 2 * padding - kernel + 1] * 2)
    x, w, b, grad = (torch.randn(shape, generator=rng).to(device) for shape in shapes)
    return x.requires_grad_(), w.requires_grad_(), b.requires_grad_(), grad, padding


def forward(convolve, x, w, b, padding, times):
    "A function that convolves `times` times, without recording anything."
    def run():
        with torch.no_grad():
            for _ in range(times): out = convolve(x, w, b, padding=padding)
        return out
    return run


def both(convolve, x, w, b, grad, padding, times):
    "A function that does `times` forward and backward passes, with the gradients of images, weights and biases."
    def run():
        for _ in range(times): grads = torch.autograd.grad(convolve(x, w, b, padding=padding), (x, w, b), grad)
        return grads
    return run


def agree(ours, theirs):
    "Both sides compute the same, or the comparison means nothing."
    for name, a, b in zip(("images", "weights", "biases"), ours(), theirs()):
        gap = ((a - b).abs().max() / b.abs().max()).item()
        if gap > 1e-5: raise AssertionError(f"the gradients of the {name} differ by {gap:.1e} of their largest value")


def rows() -> list[dict]:
    "Ratios of passes a second, where 0.25 is 4 times the time of torch."
    *tensors, grad, padding = setting()
    times, details = 10, dict(batch=64, channels=[16, 32], size=28, kernel=3, padding=1, seed=0, device=tensors[0].device.type)
    pair = [both(convolve, *tensors, grad, padding, times) for convolve in (cnn.conv2d, F.conv2d)]
    agree(*pair)
    found = [compare("conv2d beside torch's, forward and backward", *pair, 1 / 4, units=times, unit="passes", rounds=9, warmup=2, **details)]
    pair = [forward(convolve, *tensors, padding, times) for convolve in (cnn.conv2d, F.conv2d)]
    found.append(compare("conv2d beside torch's, forward only", *pair, 1 / 4, units=times, unit="passes", rounds=9, warmup=2, **details))
    x, w = tensors[0].detach()[:, :, :8, :8].contiguous(), tensors[1].detach()
    pair = [lambda: cnn.conv2d(x, w, padding=1), lambda: cnn.conv2d_loops(x[:1], w, padding=1)]
    found.append(compare("conv2d of 64 images of 8 x 8 beside the loops over one of them", *pair, 100, units=64, other_units=1, unit="images", rounds=5,
                         batch=64, size=8, channels=[16, 32]))
    return found


if __name__ == "__main__": main(rows)
