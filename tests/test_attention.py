"Chapter 10: attention, heads and blocks are torch's; caches change nothing; byte pairs lose nothing."
import inspect
import math
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook import attention
from dlbook.attention import (GPT, POSITIONS, BytePair, EncoderDecoder, MultiHeadAttention, TokenEmbedding, TokenReader, TransformerBlock,
                              attention_weights, context_start, init_transformer_, learn_merges, rotary,
                              scaled_dot_product_attention, sinusoidal_positions)
from dlbook.kit.exercises import find, judge
from dlbook.rnn import sample

settings.register_profile("book", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("book")

seeds = st.integers(0, 2**31)
sizes = st.integers(1, 5)
booleans = st.booleans()


def generator(seed): return torch.Generator().manual_seed(seed)
def normal(rng, *shape): return torch.randn(*shape, generator=rng, dtype=torch.float64)
def tokens(rng, vocab, *shape): return torch.randint(vocab, shape, generator=rng)


def with_gradients(call, inputs, weights=()):
    "Outputs of `call` on copies of the inputs, and the gradients of all inputs and weights."
    leaves = [x.clone().requires_grad_() for x in inputs]
    outs = call(*leaves)
    outs = [out for out in (outs if isinstance(outs, tuple) else (outs,)) if out is not None]
    total = sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum() for out in outs)
    return outs + list(torch.autograd.grad(total, leaves + list(weights), allow_unused=True))


def assert_same(ours, theirs, atol=1e-10):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        if a is None or b is None: a, b = (torch.zeros(()) if t is None else t.abs().sum() for t in (a, b))
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-7)


# Scaled dot product attention

@given(seeds, st.lists(sizes, max_size=2), sizes, st.integers(0, 5), sizes, sizes, st.sampled_from(["none", "causal", "bool", "float", "small", "dead"]),
       st.sampled_from([None, 0.3, 2.0]))
def test_attention_is_torchs(seed, batch, n, s, e, ev, mask, scale):
    rng = generator(seed)
    q, k, v = normal(rng, *batch, n, e), normal(rng, *batch, s, e), normal(rng, *batch, s, ev)
    how = {"none": {}, "causal": {"is_causal": True}, "bool": {"attn_mask": torch.rand(n, s, generator=rng) < 0.6},
           "float": {"attn_mask": normal(rng, *batch, n, s)}, "small": {"attn_mask": normal(rng, 1, s)},
           "dead": {"attn_mask": torch.where(torch.rand(n, s, generator=rng) < 0.7, -math.inf, 0.5).double()}}[mask]
    assert_same(*(with_gradients(lambda *x: f(*x, **how, scale=scale), [q, k, v])
                  for f in (scaled_dot_product_attention, F.scaled_dot_product_attention)))


@given(seeds, sizes, sizes, booleans)
def test_nothing_to_look_at_gives_zeros_and_no_nan(seed, n, s, boolean):
    rng = generator(seed)
    dead = torch.rand(n, 1, generator=rng) < 0.5
    mask = ~dead.expand(n, s) if boolean else torch.zeros(n, s, dtype=torch.float64).masked_fill(dead, -math.inf)
    out, *grads = with_gradients(lambda q, k, v: scaled_dot_product_attention(q, k, v, mask), [normal(rng, m, 3) for m in (n, s, s)])
    assert (out[dead[:, 0]] == 0).all() and all(g.isfinite().all() for g in [out, *grads])


def test_attention_has_torchs_arguments():
    ours = list(inspect.signature(scaled_dot_product_attention).parameters.values())
    assert [(p.name, p.default) for p in ours] == [("query", inspect._empty), ("key", inspect._empty), ("value", inspect._empty), ("attn_mask", None),
                                                   ("dropout_p", 0.0), ("is_causal", False), ("scale", None)]
    assert ours[-1].kind == ours[-1].KEYWORD_ONLY
    ours, theirs = (inspect.signature(c.__init__).parameters for c in (MultiHeadAttention, nn.MultiheadAttention))
    assert [(p.name, p.default) for p in ours.values()][:5] == [(p.name, p.default) for p in theirs.values()][:5]
    ours, theirs = (inspect.signature(c.forward).parameters for c in (MultiHeadAttention, nn.MultiheadAttention))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_attention_on_known_numbers():
    q, k, v = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0], [3.0]])
    chance = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    torch.testing.assert_close(attention_weights(q, k), torch.tensor([[1 - chance, chance]]))
    torch.testing.assert_close(scaled_dot_product_attention(q, k, v), torch.tensor([[1 + 2 * chance]]))


def test_attention_drops_weights():
    torch.manual_seed(0)
    q, k, v = torch.zeros(1, 2), torch.zeros(10_000, 2), torch.ones(10_000, 1)
    assert scaled_dot_product_attention(q, k, v, dropout_p=0.5).item() == pytest.approx(1, abs=0.05)
    assert scaled_dot_product_attention(q, k, v, dropout_p=0.5).item() != 1
    assert scaled_dot_product_attention(q, k, v, dropout_p=1.0).item() == 0


# Several heads

@given(seeds, st.sampled_from([(1, 1), (4, 1), (4, 2), (6, 3), (8, 8)]), st.integers(1, 3), sizes, sizes, booleans, booleans, booleans,
       st.sampled_from(["same", "memory", "three"]), st.sampled_from([None, "bool", "float", "each head"]), st.sampled_from([None, "bool", "float"]), booleans, booleans)
def test_heads_are_torchs(seed, size, batch, n, s, bias, batch_first, batched, kind, mask, padding, need, average):
    rng, (d, h) = generator(seed), size
    ours = MultiHeadAttention(d, h, bias=bias, batch_first=batch_first).double()
    theirs = nn.MultiheadAttention(d, h, bias=bias, batch_first=batch_first).double()
    for p in ours.parameters(): nn.init.normal_(p, generator=rng)
    theirs.load_state_dict(ours.state_dict())
    s, b = n if kind == "same" else s, batch if batched else 1
    x = [normal(rng, b, m, d) for m in (n, s, s)][:{"same": 1, "memory": 2, "three": 3}[kind]]
    x = [t[0] if not batched else t if batch_first else t.transpose(0, 1) for t in x]
    blocked = torch.rand(b * h if mask == "each head" else 1, n, s, generator=rng) < 0.5
    blocked[..., 0] = False  # torch gives nan where there is nothing to look at
    unseen = torch.rand(b, s, generator=rng) < 0.5
    unseen[:, 0] = False
    how = {"need_weights": need, "average_attn_weights": average}
    if mask: how["attn_mask"] = normal(rng, *blocked.shape) if mask == "float" else blocked
    if mask in ("bool", "float"): how["attn_mask"] = how["attn_mask"][0]
    if padding: how["key_padding_mask"] = (normal(rng, b, s) if padding == "float" else unseen)[slice(None) if batched else 0]
    if mask and padding and how["attn_mask"].dtype != how["key_padding_mask"].dtype:  # torch warns of mixed kinds
        how = {name: torch.zeros(m.shape, dtype=torch.float64).masked_fill(m, -math.inf) if getattr(m, "dtype", 0) == torch.bool else m
               for name, m in how.items()}
    spread = {"same": [0, 0, 0], "memory": [0, 1, 1], "three": [0, 1, 2]}[kind]
    found = []
    for module in (ours, theirs):
        weights = [p for _, p in sorted(module.named_parameters())]
        found.append(with_gradients(lambda *xs: module(*(xs[i] for i in spread), **how), x, weights))
    assert_same(*found)


def test_a_mask_for_each_head_goes_to_its_head():
    rng, ours, theirs = generator(0), MultiHeadAttention(8, 4, batch_first=True).double(), nn.MultiheadAttention(8, 4, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    x, mask = normal(rng, 2, 3, 8), normal(rng, 8, 3, 3)
    for need in (True, False): torch.testing.assert_close(ours(x, x, x, attn_mask=mask, need_weights=need)[0], theirs(x, x, x, attn_mask=mask)[0])


@given(seeds, sizes, booleans, booleans)
def test_heads_are_causal_as_torchs(seed, n, need, padded):
    rng, ours, theirs = generator(seed), MultiHeadAttention(6, 2, batch_first=True).double(), nn.MultiheadAttention(6, 2, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    ahead = torch.ones(n, n, dtype=torch.bool).triu(1)
    padding = {"key_padding_mask": torch.arange(n).expand(2, n) >= torch.tensor([[n], [1]])} if padded else {}
    x = normal(rng, 2, n, 6)
    expected = with_gradients(lambda x: theirs(x, x, x, attn_mask=ahead, is_causal=True, need_weights=need, **padding), [x])
    assert_same(with_gradients(lambda x: ours(x, x, x, is_causal=True, need_weights=need, **padding), [x]), expected)
    assert_same(with_gradients(lambda x: ours(x, x, x, is_causal=True, attn_mask=ahead, need_weights=need, **padding), [x]), expected)


@given(seeds, booleans, booleans)
def test_heads_exchange_state_and_start_as_torchs(seed, bias, batch_first):
    torch.manual_seed(seed)
    ours = MultiHeadAttention(6, 3, bias=bias, batch_first=batch_first)
    torch.manual_seed(seed)
    theirs = nn.MultiheadAttention(6, 3, bias=bias, batch_first=batch_first)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items(): assert torch.equal(weight, ours.state_dict()[name])
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("need_weights", [True, False])
def test_heads_are_finite_where_all_is_padding(need_weights):
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(4, 2, batch_first=True), torch.randn(2, 3, 4, requires_grad=True)
    out, _ = layer(x, x, x, key_padding_mask=torch.tensor([[True] * 3, [False] * 3]), need_weights=need_weights)
    torch.testing.assert_close(out[0], layer.out_proj.bias.expand(3, 4))
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_heads_drop_in_training_only():
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(4, 2, dropout=0.5, batch_first=True), torch.randn(1, 50, 4)
    for need in (True, False):
        assert not torch.equal(layer.train()(x, x, x, need_weights=need)[0], layer(x, x, x, need_weights=need)[0])
        assert torch.equal(layer.eval()(x, x, x, need_weights=need)[0], layer(x, x, x, need_weights=need)[0])
    weights = layer.train()(x, x, x, average_attn_weights=False)[1]
    assert 0.4 < (weights == 0).double().mean() < 0.6


# Positions

@given(st.integers(0, 40), st.integers(1, 8).map(lambda i: 2 * i))
def test_sinusoidal_positions_are_those_of_the_paper(n, d):
    table = sinusoidal_positions(n, d)
    assert table.shape == (n, d)
    for p in range(n):
        for i in range(d // 2):
            angle = p / 10_000 ** (2 * i / d)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@given(seeds, st.integers(1, 4).map(lambda i: 2 * i), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_rotary_keeps_lengths_and_sees_only_distances(seed, d, m, n, shift):
    rng = generator(seed)
    q, k = normal(rng, 1, d), normal(rng, 1, d)
    turned = [rotary(x, torch.tensor([p])) for x, p in ((q, m), (k, n), (q, m + shift), (k, n + shift))]
    torch.testing.assert_close(turned[0].norm(), q.norm())
    torch.testing.assert_close((turned[0] * turned[1]).sum(), (turned[2] * turned[3]).sum())
    z = torch.complex(*q.chunk(2, -1)) * torch.exp(1j * m * 10_000 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d))
    torch.testing.assert_close(turned[0], torch.cat([z.real, z.imag], -1))
    x = normal(rng, 2, 3, 5, d)
    torch.testing.assert_close(rotary(x), rotary(x, torch.arange(5)))


def test_rotary_in_half_precision_knows_far_positions():
    x, at = torch.randn(1, 8, generator=generator(0)), torch.tensor([1001])
    for dtype in (torch.bfloat16, torch.float16):
        assert rotary(x.to(dtype), at).dtype == dtype
        torch.testing.assert_close(rotary(x.to(dtype), at).float(), rotary(x, at), atol=0.03, rtol=0)


# Blocks

@given(seeds, st.integers(1, 3), sizes, sizes, booleans, booleans, booleans, booleans, st.sampled_from([None, 5]))
def test_blocks_are_torchs_layers(seed, batch, n, s, norm_first, cross, causal, padded, d_ff):
    rng = generator(seed)
    how = dict(dim_feedforward=d_ff or 24, dropout=0.0, norm_first=norm_first, batch_first=True)
    act = (F.gelu, F.relu)[seed % 2]
    ours = TransformerBlock(6, 2, d_ff, norm_first=norm_first, cross=cross, activation=act).double()
    theirs = (nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer)(6, 2, activation=act, **how).double()
    for p in ours.parameters(): nn.init.normal_(p, generator=rng)
    theirs.load_state_dict(ours.state_dict())
    x, memory = normal(rng, batch, n, 6), normal(rng, batch, s, 6)
    ahead = torch.ones(n, n, dtype=torch.bool).triu(1) if causal else None
    unseen = torch.rand(batch, s if cross else n, generator=rng) < 0.5
    unseen[:, 0] = False
    keep = ~unseen[:, None, None] if padded else None
    weights = [[p for _, p in sorted(m.named_parameters())] for m in (ours, theirs)]
    if cross:
        found = [with_gradients(lambda x, m: ours(x, m, memory_mask=keep, is_causal=causal), [x, memory], weights[0]),
                 with_gradients(lambda x, m: theirs(x, m, tgt_mask=ahead, tgt_is_causal=causal, memory_key_padding_mask=unseen if padded else None),
                                [x, memory], weights[1])]
    else:
        if causal and padded: keep = keep & ~ahead
        found = [with_gradients(lambda x: ours(x, attn_mask=keep, is_causal=causal and not padded), [x], weights[0]),
                 with_gradients(lambda x: theirs(x, src_mask=ahead, is_causal=causal and not padded, src_key_padding_mask=unseen if padded else None), [x], weights[1])]
    assert_same(*found, atol=1e-8)


def test_blocks_drop_in_training_only():
    torch.manual_seed(0)
    block, x = TransformerBlock(8, 2, dropout=0.5), torch.randn(2, 3, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
    assert block.self_attn.dropout == 0.5 and TransformerBlock(8, 2, dropout=0.3, cross=True).multihead_attn.dropout == 0.3


def test_what_is_added_to_the_stream_is_dropped():
    x = torch.randn(2, 3, 8, generator=generator(0))
    assert torch.equal(TransformerBlock(8, 2, dropout=1.0)(x), x)
    assert torch.equal(TransformerBlock(8, 2, dropout=1.0, cross=True)(x, x), x)


def test_the_memory_is_read_once_with_a_cache():
    block, x, cache, asked = TransformerBlock(8, 2, cross=True), torch.randn(1, 4, 8, generator=generator(0)), {}, []
    plain = block.multihead_attn.heads
    block.multihead_attn.heads = lambda x, parts="qkv": (asked.append(parts), plain(x, parts))[1]
    for part in x.split(1, 1): block(part, x, is_causal=True, cache=cache)
    assert asked.count("kv") == 1 and asked.count("q") == 4


@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_block_with_a_cache_gives_the_same(seed, cuts, turned, cross):
    rng, n = generator(seed), sum(cuts)
    block = TransformerBlock(8, 2, cross=cross).double()
    x, memory, at = normal(rng, 2, n, 8), normal(rng, 2, 3, 8) if cross else None, torch.arange(n)
    whole = block(x, memory, is_causal=True, positions=at if turned else None)
    cache, pieces = {}, []
    for part, where in zip(x.split(cuts, 1), at.split(cuts)):
        pieces.append(block(part, memory, is_causal=True, positions=where if turned else None, cache=cache))
    torch.testing.assert_close(torch.cat(pieces, 1), whole)


# GPT

@given(seeds, st.sampled_from(POSITIONS), booleans)
def test_gpt_looks_back_only(seed, positions, norm_first):
    rng = generator(seed)
    model = GPT(7, 8, 2, 2, 6, positions=positions, norm_first=norm_first).double()
    idx = tokens(rng, 7, 2, 6)
    changed = idx.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % 7
    logits = model(idx)
    assert logits.shape == (2, 6, 7)
    torch.testing.assert_close(model(changed)[:, :3], logits[:, :3])
    assert (model(changed)[:, 3:] - logits[:, 3:]).abs().max() > 1e-6
    torch.testing.assert_close(model(idx[:, :4]), logits[:, :4])


def test_gpt_knows_positions():
    torch.manual_seed(0)
    idx = torch.tensor([[3, 3, 3, 3]])
    for positions in POSITIONS:
        model = GPT(7, 16, 2, 1, 6, positions=positions)
        logits = model(idx)
        assert torch.allclose(logits[:, 0], logits[:, 3], atol=1e-6) == (positions in ("rotary", None)), positions
    model = GPT(7, 16, 2, 1, 6, positions="rotary")
    for p in model.parameters(): nn.init.normal_(p)
    assert not torch.allclose(model(torch.tensor([[1, 2, 3]]))[0, -1], model(torch.tensor([[2, 1, 3]]))[0, -1], atol=1e-3)


def test_gpt_ties_weights_and_starts_as_gpt2():
    torch.manual_seed(0)
    model = GPT(60, 64, 4, 8, 32)
    assert model.head.weight is model.embed.token.weight
    assert sum(p.numel() for p in model.parameters()) == 8 * (12 * 64 * 64 + 13 * 64) + 2 * 64 + (60 + 32) * 64
    for name, p in model.named_parameters():
        if name.endswith("bias"): assert (p == 0).all(), name
        elif "norm" in name: assert (p == 1).all(), name
        else:
            small = name.endswith(("out_proj.weight", "linear2.weight"))
            assert p.std().item() == pytest.approx(0.02 / 4 if small else 0.02, rel=0.1), name
    assert F.cross_entropy(model(tokens(generator(0), 60, 4, 32)).flatten(0, 1), tokens(generator(1), 60, 128)).item() == pytest.approx(math.log(60), abs=0.1)
    other = GPT(60, 64, 4, 8, 32)
    other.load_state_dict(model.state_dict())
    assert other.head.weight is other.embed.token.weight and torch.equal(other.head.weight, model.head.weight)


def test_waves_start_larger_than_the_vectors_of_tokens():
    for model, std in ((GPT(50, 64, 4, 1, 32, positions="sinusoidal"), 0.02), (EncoderDecoder(9, 9, 64, max_steps=32, positions="sinusoidal"), 0.05)):
        embed = model.embed if isinstance(model, GPT) else model.target
        torch.testing.assert_close(embed.waves, 5 * std * sinusoidal_positions(32, 64))


def loud(model, seed=0):
    "Weights so large that the logits differ."
    rng = generator(seed)
    for p in model.parameters(): nn.init.normal_(p, 0, 0.4, generator=rng)
    return model


@settings(max_examples=20)
@given(seeds, st.sampled_from(POSITIONS), st.integers(1, 9), st.integers(1, 12), st.integers(0, 25),
       st.sampled_from([{"temperature": 0}, {}, {"temperature": 2.0, "top_k": 4}, {"top_p": 0.8}]))
def test_the_cache_writes_the_same_text(seed, positions, block_size, prompt, n, how):
    model = loud(GPT(9, 8, 2, 2, block_size, positions=positions), seed).double()
    idx = tokens(generator(seed), 9, 2, prompt)
    texts = [model.generate(idx, n, **how, generator=generator(seed), use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(*texts) and texts[0].shape == (2, prompt + n) and torch.equal(texts[0][:, :prompt], idx)


def test_generation_is_what_it_says():
    "Greedily, and by hand: the most probable token, from the tokens that the rule lets it see."
    model = loud(GPT(9, 8, 2, 2, 6)).double()
    idx = torch.tensor([[1, 2]])
    for _ in range(20):
        with torch.no_grad(): logits = model(idx[:, context_start(idx.shape[1], 6):])
        idx = torch.cat([idx, logits[:, -1:].argmax(-1)], 1)
    for use_cache in (True, False): assert torch.equal(model.generate(torch.tensor([[1, 2]]), 20, temperature=0, use_cache=use_cache), idx)
    assert len(idx[0, 2:].unique()) > 1


def test_the_cache_saves_work():
    "With the cache, the network sees each token once."
    model, seen = GPT(9, 8, 2, 2, 64), []
    model.embed.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    model.generate(torch.tensor([[1, 2, 3]]), 20)
    assert seen == [3] + [1] * 19
    seen.clear()
    model.generate(torch.tensor([[1, 2, 3]]), 5, use_cache=False)
    assert seen == [3, 4, 5, 6, 7]


# One token at a time

class Halved(torch.nn.Linear):
    "A linear layer of another kind."
    def forward(self, x): return super().forward(x) / 2


def filled_reader(room):
    "A reader whose cache holds three tokens."
    model = GPT(5, 4, 2, 1, 6).eval()
    cache = [{} for _ in model.blocks]
    model(torch.tensor([[1, 2, 3]]), cache)
    return TokenReader(model, cache, room)


def calls_of(monkeypatch, work):
    "How often modules are called in `work`."
    call, calls = torch.nn.Module.__call__, []
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Module, "__call__", lambda module, *args, **how: calls.append(type(module)) or call(module, *args, **how))
        work()
    return calls


@settings(max_examples=25)
@given(seeds, st.sampled_from(POSITIONS), booleans, st.integers(1, 6), st.integers(1, 3))
def test_the_reader_gives_what_the_network_gives(seed, positions, norm_first, before, batch):
    model = loud(GPT(9, 8, 2, 2, 12, positions=positions, norm_first=norm_first, dropout=0.5), seed).double().eval()
    idx, cache = tokens(generator(seed), 9, batch, 12), [{} for _ in model.blocks]
    with torch.no_grad():
        model(idx[:, :before], cache)
        read = TokenReader(model, cache, 12)
        for i in range(before, 12): torch.testing.assert_close(read(idx[:, i]), model(idx[:, :i + 1])[:, -1])
        with pytest.raises(ValueError, match="expected at most 12 tokens, the room of this reader"): read(idx[:, 0])
    assert cache[0]["own"][0].shape[2] == before  # the cache that was given is left as it was


def test_the_reader_calls_no_blocks(monkeypatch):
    model = GPT(9, 8, 2, 2, 12)
    start = torch.tensor([[1, 2]])
    assert calls_of(monkeypatch, lambda: model.generate(start, 6)).count(TransformerBlock) == 2  # both blocks, for the beginning


def changed_by_hook(model): model.blocks[1].register_forward_hook(lambda module, args, out: -out)
def changed_by_early_hook(model): model.blocks[1].linear1.register_forward_pre_hook(lambda module, args: (-args[0],))
def changed_by_layer(model):
    layer = Halved(32, 8).double()
    layer.load_state_dict(model.blocks[0].linear2.state_dict())
    model.blocks[0].linear2 = layer
def changed_by_a_missing_norm(model): model.norm = model.blocks[0].norm1 = nn.Identity()
def changed_by_a_bias(model):
    model.head = nn.Linear(8, 9).double()
    nn.init.normal_(model.head.bias, 0, 9, generator=generator(0))
def changed_by_assignment(model): model.blocks[1].forward = lambda x, **how: -TransformerBlock.forward(model.blocks[1], x, **how)
def changed_by_a_flag(model): model.blocks[1].norm_first = False
def changed_by_assigned_part(model): model.blocks[1].think = lambda h: -h
def changed_by_method(model, monkeypatch): monkeypatch.setattr(TransformerBlock, "think", lambda self, h: -h)


@pytest.mark.parametrize("change", [changed_by_hook, changed_by_early_hook, changed_by_layer, changed_by_a_missing_norm, changed_by_a_bias,
                                    changed_by_assignment, changed_by_assigned_part, changed_by_a_flag, changed_by_method])
def test_a_network_that_was_changed_is_called_as_it_is(change, monkeypatch):
    "With the cache as without, and otherwise than before."
    model, start = loud(GPT(9, 8, 2, 2, 40)).double(), torch.tensor([[1, 2, 3]])
    before = model.generate(start, 30, temperature=0)
    change(*(model, monkeypatch)[:change.__code__.co_argcount])
    after = model.generate(start, 30, temperature=0)
    assert torch.equal(after, model.generate(start, 30, temperature=0, use_cache=False)) and not torch.equal(after, before)


def test_the_reader_of_a_network_in_training_keeps_dropout_and_gradients():
    model, idx = GPT(9, 8, 2, 2, 12, dropout=0.5), torch.tensor([[1, 2, 3]])
    cache = [{} for _ in model.blocks]
    with torch.no_grad():
        model(idx, cache)
        assert not torch.equal(*(TokenReader(model, cache, 12)(idx[:, 0]) for _ in range(2)))
    assert cache[0]["own"][0].shape[2] == 3
    model.eval()
    cache = [{} for _ in model.blocks]
    model(idx, cache)
    read = TokenReader(model, cache, 12)
    (read(idx[:, 0]) + read(idx[:, 1])).sum().backward()  # the second token does not change what the first one's gradient needs
    assert model.blocks[0].linear1.weight.grad.abs().sum() > 0


def test_what_is_written_follows_the_weights():
    "Weights that change between two texts are not remembered."
    model, start = loud(GPT(9, 8, 2, 2, 40)).double(), torch.tensor([[1, 2, 3]])
    first = model.generate(start, 30, temperature=0)
    loud(model, seed=1)
    second = model.generate(start, 30, temperature=0)
    assert not torch.equal(first, second) and torch.equal(second, model.generate(start, 30, temperature=0, use_cache=False))


def test_generation_leaves_the_mode_and_the_gradients_alone():
    model = GPT(9, 8, 2, 1, 6, dropout=0.5)
    for mode in (True, False):
        model.train(mode)
        a, b = (model.generate(torch.tensor([[1]]), 10, generator=generator(0)) for _ in range(2))
        assert torch.equal(a, b) and model.training is mode and not a.requires_grad
        F.cross_entropy(model(a[:, :6]).flatten(0, 1), a[0, :6]).backward()  # what was written may be trained on


def test_context_start():
    assert [context_start(n, 8) for n in (1, 8, 9, 12, 13, 16, 17)] == [0, 0, 4, 4, 8, 8, 12]
    for size in range(1, 20):
        starts = [context_start(n, size) for n in range(1, 200)]
        assert starts == sorted(starts) and all(1 <= n - s <= size for n, s in zip(range(1, 200), starts))
        assert max(n - s for n, s in zip(range(1, 200), starts)) == size and min(n - s for n, s in zip(range(size, 200), starts[size - 1:])) > size - max(size // 2, 1)


# Drawing tokens

@given(seeds, st.sampled_from([{}, {"temperature": 0.4}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.6}]), booleans)
def test_generate_draws_each_token_as_told(seed, how, use_cache):
    torch.manual_seed(seed)
    model, text = GPT(7, 8, 2, 2, block_size=12), tokens(generator(seed), 7, 2, 3)
    for p in model.parameters(): torch.nn.init.normal_(p, 0, 0.4)
    rng, expected = generator(seed), text
    with torch.no_grad():
        for _ in range(6): expected = torch.cat([expected, sample(model(expected)[:, -1], **how, generator=rng)[:, None]], 1)
    assert model.generate(text, 6, **how, generator=generator(seed), use_cache=use_cache).equal(expected)


# Encoder and decoder

@given(seeds, st.sampled_from(POSITIONS), booleans, st.integers(1, 6), st.integers(0, 4))
def test_padding_of_the_source_changes_nothing(seed, positions, norm_first, n, extra):
    rng = generator(seed)
    model = EncoderDecoder(9, 8, 8, 2, 2, 12, positions=positions, norm_first=norm_first).double()
    source, target = 1 + tokens(rng, 8, 2, n), 1 + tokens(rng, 7, 2, 5)
    logits = model(source, target)
    torch.testing.assert_close(model(F.pad(source, (0, extra)), target), logits)
    changed = target.clone()
    changed[:, 2:] = 1 + changed[:, 2:] % 7
    torch.testing.assert_close(model(source, changed)[:, :2], logits[:, :2])
    assert logits.shape == (2, 5, 8)


@settings(max_examples=15)
@given(seeds, st.sampled_from(POSITIONS), st.integers(1, 6), st.integers(1, 10))
def test_translating_with_a_cache_gives_the_same(seed, positions, n, most):
    rng = generator(seed)
    model = loud(EncoderDecoder(9, 9, 8, 2, 2, 12, positions=positions), seed).double()
    source = (1 + tokens(rng, 8, 6, n)) * (torch.arange(n) < torch.randint(1, n + 1, (6, 1), generator=rng))
    a, b = (model.generate(source, 1, 2, most, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(a, b) and a.shape[1] <= most
    for row, single in zip(a, source):  # each row alone gives the same
        alone = model.generate(single[single != 0][None], 1, 2, most)[0]
        assert torch.equal(row[:len(alone)], alone) and (row[len(alone):] == 0).all()
        if 2 in row.tolist(): assert (row[row.tolist().index(2) + 1:] == 0).all()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_encoder_decoder_is_torchs_transformer():
    "Encoder and decoder with copied weights."
    torch.manual_seed(0)
    ours = EncoderDecoder(9, 9, 8, 2, 2, 12, positions=None).double()
    how = dict(dim_feedforward=32, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True)
    theirs = nn.Transformer(8, 2, 2, 2, **how).double()
    theirs.encoder.layers.load_state_dict(ours.encoder.state_dict())
    theirs.decoder.layers.load_state_dict(ours.decoder.state_dict())
    source, target = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 3]]), torch.tensor([[1, 5, 4], [1, 3, 8]])
    unseen, ahead = source == 0, torch.ones(3, 3, dtype=torch.bool).triu(1)
    out = theirs(ours.source.token(source), ours.target.token(target), tgt_mask=ahead, src_key_padding_mask=unseen, memory_key_padding_mask=unseen)
    torch.testing.assert_close(ours(source, target), ours.head(out))


def test_nothing_is_written_behind_the_stop():
    model, script = EncoderDecoder(9, 9, 8, 2, 1), torch.tensor([[4, 2, 5, 6, 7], [3, 4, 5, 2, 7]])
    for use_cache in (True, False):
        steps = iter(range(5))
        model.decode = lambda target, *_: F.one_hot(script[:, next(steps)], 9).float()[:, None].expand(-1, target.shape[1], -1)
        assert model.generate(torch.tensor([[3], [4]]), 1, 2, 5, use_cache).tolist() == [[4, 2, 0, 0], [3, 4, 5, 2]]


def test_encoder_decoder_mode_is_left_alone():
    model = EncoderDecoder(9, 9, 8, 2, 1, dropout=0.5)
    source = torch.tensor([[3, 4]])
    assert torch.equal(model.generate(source, 1, 2, 5), model.generate(source, 1, 2, 5)) and model.training


# Byte pairs

TEXTS = st.text(max_size=60) | st.text("ab _1\n\té中😀", max_size=60)


@given(TEXTS, TEXTS, st.integers(0, 30))
def test_byte_pairs_lose_nothing(learned, text, n):
    merges = learn_merges(learned * 3, n)
    coder = BytePair(merges)
    tokens = coder.encode(text)
    assert coder.decode(tokens) == text and coder.decode(torch.tensor(tokens, dtype=torch.int64)) == text
    assert all(0 <= t < len(coder) for t in tokens) and len(coder) == 256 + len(merges) and len(merges) <= n
    assert len(tokens) <= len(text.encode())


@given(st.text("abc d", min_size=1, max_size=80), st.integers(1, 12))
def test_merges_are_those_of_counting_anew(text, n):
    words = [list(w.encode()) for w in attention._WORDS.findall(text)]
    expected = []
    for i in range(n):
        counts = {}
        for w in words:
            for pair in zip(w, w[1:]): counts[pair] = counts.get(pair, 0) + 1
        if not counts or max(counts.values()) < 2: break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        expected.append(best)
        for w in words:
            j = 0
            while j < len(w) - 1:
                if (w[j], w[j + 1]) == best: w[j:j + 2] = [256 + i]
                j += 1
    assert learn_merges(text, n) == expected
    assert BytePair(expected).encode(text) == [t for w in words for t in w]


def test_byte_pairs_on_an_example():
    assert learn_merges("aaabdaaabac", 3)[0] == (97, 97)  # Gage's own example
    coder = BytePair([(108, 111), (256, 119)])
    assert coder.encode("low slow") == [257, 32, 115, 257] and coder.decode([257]) == "low"
    assert coder.decode([0xff, 97]) == "�a" and coder.encode("") == [] and coder.decode([]) == ""


# Errors

@pytest.mark.parametrize("call, error, message", [
    (lambda: attention_weights(torch.ones(2, 3), torch.ones(2, 4)), ValueError, r"expected keys \(..., S, 3\), given \(2, 4\)"),
    (lambda: attention_weights(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 2).bool(), True), ValueError, "expected attn_mask or is_causal=True, given both"),
    (lambda: attention_weights(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 2).long()), TypeError, "expected a boolean or a floating-point mask, given torch.int64"),
    (lambda: scaled_dot_product_attention(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 3)), ValueError, r"given \(2, 3\), \(2, 3\) and \(3, 3\)"),
    (lambda: scaled_dot_product_attention(*[torch.ones(3)] * 3), ValueError, r"expected \(..., L, E\)"),
    (lambda: scaled_dot_product_attention(*[torch.ones(2, 3)] * 3, dropout_p=1.5), ValueError, "expected a probability dropout_p from 0 to 1, given 1.5"),
    (lambda: MultiHeadAttention(6, 4), ValueError, "expected embed_dim divisible by num_heads, given 6 and 4"),
    (lambda: MultiHeadAttention(0, 1), ValueError, "given 0 and 1"),
    (lambda: MultiHeadAttention(4, 2)(*[torch.ones(2, 1, 3)] * 3), ValueError, r"the last of size 4, given \[\(2, 1, 3\)"),
    (lambda: MultiHeadAttention(4, 2)(torch.ones(2, 4), *[torch.ones(2, 1, 4)] * 2), ValueError, "2 or 3 dimensions"),
    (lambda: MultiHeadAttention(4, 2)(torch.ones(2, 4), torch.ones(2, 4), torch.ones(3, 4)), ValueError, r"expected key and value of one shape, given \(2, 4\) and \(3, 4\)"),
    (lambda: MultiHeadAttention(4, 2)(*[torch.ones(2, 4)] * 3, attn_mask=torch.ones(2, 3).bool()), ValueError, r"expected a mask of shape \(2, 2\), given \(2, 3\)"),
    (lambda: MultiHeadAttention(4, 2)(*[torch.ones(2, 3, 4)] * 3, key_padding_mask=torch.ones(2, 3).bool()), ValueError, r"expected a mask of shape \(3, 2\), given \(2, 3\)"),
    (lambda: sinusoidal_positions(3, 5), ValueError, "even d, given 3 and 5"),
    (lambda: rotary(torch.ones(2, 3)), ValueError, r"expected vectors of even length, given shape \(2, 3\)"),
    (lambda: TransformerBlock(8, 2)(torch.ones(1, 2, 8), torch.ones(1, 2, 8)), ValueError, "expected no memory, since cross=False"),
    (lambda: TransformerBlock(8, 2, cross=True)(torch.ones(1, 2, 8)), ValueError, "expected a memory, since cross=True"),
    (lambda: TokenEmbedding(5, 4, 6, "absolute"), ValueError, "expected positions of .*'rotary'.*given 'absolute'"),
    (lambda: GPT(5, 4, 2, 1, 6)(torch.ones(1, 3)), TypeError, "expected tokens of type int64, given torch.float32"),
    (lambda: GPT(5, 4, 2, 1, 6)(torch.zeros(1, 7).long()), ValueError, r"at most 6 steps, given \(1, 7\) from position 0 on"),
    (lambda: GPT(5, 4, 2, 1, 6)(torch.zeros(3).long()), ValueError, r"expected tokens \(batch, steps\)"),
    (lambda: GPT(5, 4, 2, 1, 6).generate(torch.zeros(1, 0).long(), 3), ValueError, r"expected tokens \(batch, steps\), at least one"),
    (lambda: TokenReader(GPT(5, 4, 2, 1, 6), [{}], 6), ValueError, "expected a cache of 1 to 6 tokens and room for at most 6, given 0 and 6"),
    (lambda: filled_reader(room=2), ValueError, "given 3 and 2"),
    (lambda: filled_reader(room=7), ValueError, "room for at most 6, given 3 and 7"),
    (lambda: GPT(5, 4, 2, 1, 6).generate(torch.zeros(1, 1).long(), 1, top_k=0), ValueError, "expected top_k from 1, given 0"),
    (lambda: BytePair([(300, 1)]), ValueError, r"expected merges of earlier tokens, given \(300, 1\)")])
def test_bad_input_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message): call()


# The module, and the exercises

def test_public_names():
    assert set(attention.__all__) == {
        "attention_weights", "scaled_dot_product_attention", "MultiHeadAttention", "sinusoidal_positions", "rotary", "TransformerBlock", "POSITIONS",
        "TokenEmbedding", "init_transformer_", "GPT", "context_start", "TokenReader", "EncoderDecoder", "learn_merges", "BytePair"}


def test_import_is_silent_and_needs_no_fastai():
    code = "import sys, dlbook.attention; assert 'fastai' not in sys.modules and 'matplotlib' not in sys.modules"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_on_a_gpu():
    for positions in POSITIONS:
        model = GPT(9, 16, 2, 2, 8, positions=positions).cuda()
        F.cross_entropy(model(torch.zeros(2, 8, dtype=torch.int64, device="cuda")).flatten(0, 1), torch.zeros(16, dtype=torch.int64, device="cuda")).backward()
        start = torch.tensor([[1, 2]], device="cuda")
        assert torch.equal(*(model.generate(start, 20, temperature=0, use_cache=use) for use in (True, False)))
        pair = EncoderDecoder(9, 9, 16, 2, positions=positions).cuda()
        assert pair.generate(start, 1, 3, 5).is_cuda
        with torch.autocast("cuda", dtype=torch.bfloat16): model(start), pair(start, start)
    layer, x = MultiHeadAttention(8, 2, batch_first=True).cuda(), torch.randn(2, 3, 8, device="cuda")
    layer(x, x, x, is_causal=True, key_padding_mask=torch.zeros(2, 3, dtype=torch.bool, device="cuda"))


def reference(id): return find(id).reference


WRONG = [  # (exercise, an answer that is wrong in a way the book does not name, what the verdict says)
    ("10.1", 6.0, "too large"),
    ("10.1", 1.0, "too small"),
    ("10.2", lambda lengths, n: torch.ones(len(lengths), 1, n, n).bool(), "the mask should be"),
    ("10.2", lambda lengths, n: reference("10.2")(lengths, n)[:, 0], "should have shape"),
    ("10.2", lambda lengths, n: reference("10.2")(lengths, n).float(), "should have dtype torch.bool"),
    ("10.2", lambda lengths, n: reference("10.2")(lengths, n).transpose(-1, -2), "the mask should be"),
    ("10.4", lambda x, q, k, v, o, h: reference("10.4")(x, k, q, v, o, h), "the result should be"),
    ("10.4", lambda x, q, k, v, o, h: reference("10.4")(x, q.T, k.T, v.T, o.T, h), "the result should be"),
    ("10.4", lambda x, q, k, v, o, h: x, "the result should be"),
    ("10.3", lambda q, k, v, keys, values: (v, torch.cat([keys, k], 2), torch.cat([values, v], 2)), "what is found should be"),
    ("10.3", lambda q, k, v, keys, values: (reference("10.3")(q, k, v, keys, values)[0], torch.cat([keys, v], 2), torch.cat([values, k], 2)), "the new keys should be"),
    ("10.3", lambda q, k, v, keys, values: reference("10.3")(q, k, v, keys.mul_(1.0).add_(1.0), values), "changes its argument keys in place"),
    ("10.5", lambda m, s, out, scores, values: (m, s, out), "should be"),
    ("10.5", lambda m, s, out, scores, values: (scores.max() + m, *reference("10.5")(m, s, out, scores, values)[1:]), "m should be"),
    ("10.5", lambda m, s, out, scores, values: (*reference("10.5")(m, s, out, scores, values)[:2], out), "out should be"),
]


@pytest.mark.parametrize("id, answer, message", WRONG, ids=lambda v: v if isinstance(v, str) and v.startswith("10") else "")
def test_wrong_answers_are_told_what_is_wrong(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong"
    assert re.search(message, verdict.line), verdict.line


def test_references_agree_with_the_chapter():
    rng = generator(0)
    lengths, q, k, v = torch.tensor([3, 5, 1]), *(normal(rng, 3, 2, 5, 4) for _ in range(3))
    mask = reference("10.2")(lengths, 5)
    found = scaled_dot_product_attention(q, k, v, mask)
    for b, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[b, :, :n], scaled_dot_product_attention(q[b, :, :n], k[b, :, :n], v[b, :, :n], is_causal=True))
    layer, x = MultiHeadAttention(6, 3, bias=False, batch_first=True), torch.randn(2, 4, 6, generator=rng)
    torch.testing.assert_close(reference("10.4")(x, *(w.T for w in layer.in_proj_weight.chunk(3)), layer.out_proj.weight.T, 3), layer(x, x, x)[0])
    keys, values = k[:, :, :0], v[:, :, :0]
    for t in range(5):
        out, keys, values = reference("10.3")(q[:, :, t:t + 1], k[:, :, t:t + 1], v[:, :, t:t + 1], keys, values)
        torch.testing.assert_close(out, scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, t:t + 1])
    scores, values = normal(rng, 12), normal(rng, 12, 3)
    state = torch.tensor(-math.inf).double(), torch.tensor(0.0).double(), torch.zeros(3).double()
    for a, b in zip(scores.split(5), values.split(5)): state = reference("10.5")(*state, a, b)
    torch.testing.assert_close(state[2], scores.softmax(0) @ values)


def test_the_benchmark_compares_equal_networks():
    from benchmarks.attention import same_start
    ours, theirs, device = same_start(12)
    idx = torch.randint(65, (2, 12), generator=generator(0)).to(device)
    torch.testing.assert_close(ours(idx), theirs(idx), atol=1e-4, rtol=1e-4)
