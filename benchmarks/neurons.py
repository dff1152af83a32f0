"""A layer applied to a whole batch beside the same layer applied row by row: why chapter 1 writes one matrix product."""
from __future__ import annotations

import torch

from benchmarks.common import compare, main
from dlbook.neurons import Layer


def rows() -> list[dict]:
    "Ratios of samples a second."
    rng, device = torch.Generator().manual_seed(0), "cuda" if torch.cuda.is_available() else "cpu"
    n, n_in, n_out = 2000, 30, 16
    layer = Layer(n_in, n_out).to(device).requires_grad_(False)
    x = torch.randn(n, n_in, generator=rng).to(device)
    if not torch.allclose(layer(x), torch.stack([layer(row) for row in x]), atol=1e-5): raise AssertionError("the two sides differ")

    def at_once():
        for _ in range(100): layer(x)

    def one_by_one():
        for row in x: layer(row)
    return [compare("one matrix product beside a loop over rows", at_once, one_by_one, target=20, units=100 * n, other_units=n,
                    device=device, samples=n, sizes=[n_in, n_out])]


if __name__ == "__main__": main(rows)
