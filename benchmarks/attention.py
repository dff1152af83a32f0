"""The GPT of chapter 10: a training step beside the same network from torch's layers; and writing with the key-value cache beside writing without."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import compare, main
from dlbook.attention import GPT

SIZE = dict(vocab_size=65, d_model=128, n_heads=4, n_layers=4)


class TorchGPT(nn.Module):
    "The same network from `nn.TransformerEncoderLayer`, whose attention is torch's fused one, with tied weights."

    def __init__(self, vocab_size, d_model, n_heads, n_layers, block_size):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab_size, d_model), nn.Embedding(block_size, d_model)
        layer = nn.TransformerEncoderLayer(d_model, n_heads, 4 * d_model, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(d_model), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(block_size))

    def forward(self, idx):
        n = idx.shape[1]
        x = self.token(idx) + self.position.weight[:n]
        return self.blocks(x, self.mask[:n, :n], is_causal=True) @ self.token.weight.T


def same_start(block_size, **size):
    "Both networks with the same weights."
    torch.manual_seed(0)
    ours, theirs = (make(**{**SIZE, **size}, block_size=block_size) for make in (GPT, TorchGPT))
    state = {name.replace("blocks.", "blocks.layers.") if name.startswith("blocks.") else name: p for name, p in ours.state_dict().items()}
    state = {name.replace("embed.", ""): p for name, p in state.items() if name != "head.weight"}
    state = {f"blocks.{name}" if name.startswith("norm.") else name: p for name, p in state.items()}
    theirs.load_state_dict(state, strict=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ours.to(device), theirs.to(device), device


def training(batch, block_size, steps) -> dict:
    "Forward, backward and a step of AdamW."
    ours, theirs, device = same_start(block_size)
    idx = torch.randint(65, (batch, block_size + 1), generator=torch.Generator().manual_seed(0)).to(device)

    def steps_of(model):
        opt = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)

        def run(n=steps):
            for _ in range(n):
                loss = F.cross_entropy(model(idx[:, :-1]).flatten(0, 1), idx[:, 1:].flatten())
                opt.zero_grad()
                loss.backward()
                opt.step()
            return loss.item()
        return run

    mine, other = steps_of(ours), steps_of(theirs)
    pair = mine(5), other(5)
    if abs(pair[0] - pair[1]) > 1e-3: raise AssertionError(f"the two sides have different losses after five steps: {pair}")
    return compare(f"GPT training step beside torch's layers, batch {batch}, {block_size} tokens", mine, other, 0.95, units=steps, unit="steps",
                   rounds=9, seed=0, device=device, **SIZE)


def writing(n, **size) -> dict:
    "The most probable token each time."
    model, _, device = same_start(n + 1, **size)
    start = torch.zeros(1, 1, dtype=torch.int64, device=device)
    cached, anew = (lambda use=use: model.generate(start, n, temperature=0, use_cache=use) for use in (True, False))
    if not torch.equal(cached(), anew()): raise AssertionError("the two sides write different texts")
    return compare(f"GPT writes {n} tokens with the cache beside without", cached, anew, 5.0, units=n, unit="tokens", rounds=7, seed=0, device=device,
                   batch=1, **{**SIZE, **size})


def rows() -> list[dict]:
    "Ratios of steps a second, and of tokens a second."
    return [training(12, 64, 10), training(16, 256, 2), writing(256)]


if __name__ == "__main__": main(rows)
