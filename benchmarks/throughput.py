"""On a GPU: how much of what the device can do the book's networks use while they train.

No training step can be faster than its arithmetic at the device's matrix rate, nor than its memory traffic at the device's bandwidth. Both rates are
measured here, in the same run: the matrix rate by a large product in bfloat16, the bandwidth by copying a large tensor. The arithmetic of a step is counted by torch's
`FlopCounterMode`. The traffic counted is the least there can be: what the step keeps for its backward pass is written once and read once; each weight
is read forward and backward, its gradient is written and read, and AdamW reads and writes the weight and its two moments.

The ratio of a row is the longer of the two times, divided by the time that the step takes. The book claims no share; the numbers are for the reader.
"""
from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import main, seconds
from dlbook.attention import GPT
from dlbook.cnn import ResNet


def matrix_rate(device: str, size: int = 8192, times: int = 20) -> float:
    "Operations a second of a product of two square bfloat16 matrices, a multiplication and an addition counted as two."
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def run():
        for _ in range(times): a @ b
    run()
    return 2 * size**3 * times / min(seconds(run) for _ in range(5))


def bandwidth(device: str, n: int = 1 << 28, times: int = 20) -> float:
    "Bytes a second that copying `n` floats reads and writes."
    source = torch.randn(n, device=device)
    target = torch.empty_like(source)

    def run():
        for _ in range(times): target.copy_(source)
    run()
    return 2 * 4 * n * times / min(seconds(run) for _ in range(5))


def least_traffic(loss_of, model) -> int:
    "Bytes that a training step moves at least."
    kept = {}

    def note(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t
    weights = [p for p in model.parameters() if p.requires_grad]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t): loss = loss_of(model)
    for p in weights: kept.pop(p.untyped_storage().data_ptr(), None)
    del loss
    size = sum(p.numel() * p.element_size() for p in weights)
    return 2 * sum(kept.values()) + (2 + 2 + 6) * size  # weights forward and backward; gradients; AdamW's three, in and out


def share(name, model, loss_of, units, unit, rate, width, compiled=True, rounds=7, times=20, **details) -> dict:
    "A row: the least time that the device allows for a step of AdamW on `loss_of(model)`, over the time it takes."
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter: loss_of(model).backward()
    flops, traffic = counter.get_total_flops(), least_traffic(loss_of, model)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    run = torch.compile(model) if compiled else model

    def steps(n=times):
        for _ in range(n):
            opt.zero_grad()
            loss_of(run).backward()
            opt.step()
    steps(5)
    took = [seconds(steps) / times for _ in range(rounds)]
    arithmetic, memory = flops / rate, traffic / width
    allowed, ratios = max(arithmetic, memory), sorted(max(arithmetic, memory) / t for t in took)
    words = (f"{flops / 1e9:.4g} GFLOP at {rate / 1e12:.4g} TFLOP/s take {arithmetic * 1e3:.3g} ms, "
             f"{traffic / 1e6:.4g} MB at {width / 1e9:.4g} GB/s {memory * 1e3:.3g} ms; a step takes {statistics.median(took) * 1e3:.3g} ms")
    return dict(name=name, ratio=statistics.median(ratios), low=ratios[0], high=ratios[-1], target=None, holds=None, claim=f"none: {words}",
                ours=units / statistics.median(took), other=units / allowed, unit=f"{unit}/s", rounds=rounds,
                details=dict(details, flops=flops, bytes=traffic, matrix_rate=rate, bandwidth=width, device=str(device), seed=0))


def gpt(device, rate, width, batch=64, length=256, d_model=384, heads=6, layers=6, **options) -> dict:
    "The GPT of chapter 10 in bfloat16, in its size for a GPU."
    torch.manual_seed(0)
    model = GPT(65, d_model, heads, layers, block_size=length).to(device)
    idx = torch.randint(65, (batch, length + 1), generator=torch.Generator().manual_seed(0)).to(device)

    def loss_of(net):
        with torch.autocast(device, torch.bfloat16): scores = net(idx[:, :-1])
        return F.cross_entropy(scores.float().flatten(0, 1), idx[:, 1:].flatten())
    return share(f"GPT in training, {layers} layers of width {d_model}: share of what the device allows", model, loss_of, batch * length, "tokens",
                 rate, width, batch=batch, length=length, d_model=d_model, heads=heads, layers=layers, **options)


def cnn(device, rate, width, batch=1024, size=28, widths=(16, 32, 64), **options) -> dict:
    "The residual network of chapter 8 in bfloat16, channels last."
    torch.manual_seed(0)
    model = ResNet(1, 36, widths).to(device, memory_format=torch.channels_last)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, 1, size, size, generator=rng).to(device), torch.randint(36, (batch,), generator=rng).to(device)
    x = x.contiguous(memory_format=torch.channels_last)

    def loss_of(net):
        with torch.autocast(device, torch.bfloat16): scores = net(x)
        return F.cross_entropy(scores.float(), y)
    return share(f"residual network in training, widths {', '.join(map(str, widths))}: share of what the device allows", model, loss_of, batch,
                 "images", rate, width, batch=batch, size=size, widths=list(widths), **options)


def rows() -> list[dict]:
    "Two rows on a GPU; none elsewhere."
    if not torch.cuda.is_available():
        print("there is no GPU; the rows on the share of its rates are left out")
        return []
    rate, width = matrix_rate("cuda"), bandwidth("cuda")
    return [cnn("cuda", rate, width), gpt("cuda", rate, width)]


if __name__ == "__main__": main(rows)
