"Answers to the exercises of chapter 10, worked out from their statements; each wrong one with words that its verdict must say."
import math

import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["10.1"] = [
    5,
    5.0,
    (1 * 8 + 2 * 16 + 5 * 0) / 8,
    (torch.tensor([1.0, 2, 5]).log().softmax(0) * torch.tensor([8.0, 16, 0])).sum()]
WRONG["10.1"] = [
    (40, "the weights are not divided by their sum"),
    (8, "That is the plain mean of the values"),
    (0, "you took the value of the best key"),
    (24, "is too large"),
    (16, "is too large"),
    (float((torch.tensor([1.0, 2, 5]).softmax(0) * torch.tensor([8.0, 16, 0])).sum()), "1, 2 and 5 are taken for the scores; the scores are their lo"),
    (float(math.log(2) * 16), "you weigh the values with the scores")]


def _mask_loop(lengths, n):
    out = torch.zeros(len(lengths), 1, n, n, dtype=torch.bool)
    for b, l in enumerate(lengths.tolist()):
        for i in range(n): out[b, 0, i, :min(i + 1, l)] = True
    return out


AR = torch.arange


RIGHT["10.2"] = [
    _mask_loop,
    lambda lengths, n: (torch.tril(torch.ones(n, n, dtype=torch.bool)) & (torch.arange(n) < lengths[:, None])[:, None, :])[:, None],
    lambda lengths, n: (torch.ones(n, n).tril()[None, None] * (torch.arange(n)[None, None, None] < lengths.view(-1, 1, 1, 1))).bool(),
    lambda lengths, n: _mask_loop(lengths, n).numpy(),
    lambda lengths, n: _mask_loop(lengths, n).tolist()]
WRONG["10.2"] = [
    (lambda s, n: ~_mask_loop(s, n), "True means not to look"),
    (lambda s, n: _mask_loop(s, n)[:, 0], "The mask has the shape (B"),
    (lambda s, n: _mask_loop(s, n).transpose(2, 3), "rows and columns are exchanged"),
    (lambda s, n: _mask_loop(torch.full_like(s, n), n), "the padding may be looked at"),
    (lambda s, n: (AR(n) < s[:, None])[:, None, None].expand(-1, 1, n, n), "the future may be looked at"),
    (lambda s, n: torch.where(_mask_loop(s, n), 0.0, -math.inf), "should have dtype torch.bool, yours has torch.float32"),
    (lambda s, n: _mask_loop(s, n)[:1], "should have shape (2, 1, 3, 3), yours has (1, 1, 3, 3)"),
    (lambda s, n: (AR(n) <= AR(n)[:, None]) | (AR(n) < s[:, None])[:, None, None], "the mask should be"),
    (lambda s, n: _mask_loop(s - 1, n), "the mask should be")]


def _cache_sdpa(q, k, v, keys, values):
    K, V = (torch.cat((keys, k), 2), torch.cat((values, v), 2))
    return (F.scaled_dot_product_attention(q, K, V), K, V)


def _cache_loop(q, k, v, keys, values):
    K, V = (torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2))
    s = torch.einsum('bhqe,bhke->bhqk', q, K) / math.sqrt(q.shape[-1])
    return [torch.einsum('bhqk,bhke->bhqe', s.softmax(-1), V), K, V]


def cache(new_first=False, without=False, scale=True, dim=2, ret=0, attn_old=False, swap=False, softdim=-1, tscale=False, keeponly=False, causal=False):

    def f(q, k, v, keys, values):
        if swap: k, v = (v, k)
        K, V = (torch.cat([k, keys], dim), torch.cat([v, values], dim)) if new_first else (torch.cat([keys, k], dim), torch.cat([values, v], dim))
        a, b = (keys, values) if attn_old else (K, V)
        s = q @ a.transpose(2, 3) / (a.shape[2] ** 0.5 if tscale else q.shape[-1] ** 0.5 if scale else 1)
        o = s.softmax(softdim) @ b
        if causal: o = F.scaled_dot_product_attention(q, K, V, is_causal=True)
        return (o, K, V) if ret == 0 else (o, k, v) if ret == 1 else (o, keys, values) if ret == 2 else o if ret == 3 else (o, V, K) if ret == 4 else (K, V, o) if ret == 5 else (o, (K, V))
    return f


RIGHT["10.3"] = [
    _cache_sdpa,
    _cache_loop]
WRONG["10.3"] = [
    (cache(new_first=True), "the new key stands in front"),
    (cache(attn_old=True), "the token looks before its own key and value are appended"),
    (cache(scale=False), "the scores are not divided by the root of e"),
    (cache(dim=1), "should have shape (1, 1, 1, 2), yours has (1, 2, 1, 2)"),
    (cache(dim=3), "raises RuntimeError"),
    (cache(ret=1), "the key and value of the new token alone are given back"),
    (cache(ret=2), "the old keys and values are given back"),
    (cache(softdim=2), "what is found should be"),
    (cache(tscale=True), "what is found should be")]


def _heads_loop(x, wq, wk, wv, wo, h):
    q, k, v = (x @ wq, x @ wk, x @ wv)
    e = x.shape[2] // h
    outs = []
    for i in range(h):
        s = slice(i * e, (i + 1) * e)
        outs.append(torch.softmax(q[..., s] @ k[..., s].transpose(1, 2) / e ** 0.5, -1) @ v[..., s])
    return torch.cat(outs, -1) @ wo


def _heads_sdpa(x, wq, wk, wv, wo, h):
    B, n, d = x.shape
    split = lambda t: t.view(B, n, h, d // h).transpose(1, 2)
    return F.scaled_dot_product_attention(split(x @ wq), split(x @ wk), split(x @ wv)).transpose(1, 2).flatten(2) @ wo


def _heads_mha(x, wq, wk, wv, wo, h):
    return F.multi_head_attention_forward(*[x.transpose(0, 1)] * 3, x.shape[2], h, torch.cat([wq.T, wk.T, wv.T]), None, None, None, False, 0.0, wo.T, None, need_weights=False)[0].transpose(0, 1)


def sp(m, r): return r * torch.log(r / m) + (1 - r) * torch.log((1 - r) / (1 - m))


def heads(scale='e', wo=True, split='cols', back=True, swapqk=False, softdim=-1, T=False, soft=True, merge='t', h1=False, causal=False, mean=False):

    def f(x, wq, wk, wv, w_o, h):
        B, n, d = x.shape
        if h1: h = 1
        e = d // h

        def sp(t):
            if split == 'cols': return t.reshape(B, n, h, e).transpose(1, 2)
            if split == 'inter': return t.reshape(B, n, e, h).permute(0, 3, 1, 2)
            return t.reshape(B, h, n, e)
        q, k, v = (sp(x @ (w.T if T else w)) for w in (wq, wk, wv))
        if swapqk: q, k = (k, q)
        s = q @ k.transpose(2, 3) / {'e': e ** 0.5, 'd': d ** 0.5, '1': 1, 'ee': e}[scale]
        if causal: s = s.masked_fill(~torch.ones(n, n).tril().bool(), -math.inf)
        a = s.softmax(softdim) if soft else s
        o = a @ v
        o = o.mean(1).repeat(1, 1, h) if mean else o.transpose(1, 2).reshape(B, n, d) if merge == 't' else o.reshape(B, n, d)
        return o @ w_o if wo else o
    return f


RIGHT["10.4"] = [
    _heads_loop,
    _heads_sdpa,
    _heads_mha]
WRONG["10.4"] = [
    (heads(scale="d"), "you divide by the root of d"),
    (heads(scale="1"), "the scores are not divided by the root of d / h"),
    (heads(scale="ee"), "you divide by d / h"),
    (heads(wo=False), "the output matrix is missing"),
    (heads(split="inter"), "head 0 has every h-th column"),
    (heads(T=True), "the result should be"),
    (heads(soft=False), "the result should be")]


def _tile_loop(m, s, out, scores, values):
    total = out * s
    top = float(m)
    s = float(s)
    for x, v in zip(scores.tolist(), values):
        new = max(top, x)
        f = math.exp(top - new) if top > -math.inf else 0.0
        s, total, top = (s * f + math.exp(x - new), total * f + math.exp(x - new) * v, new)
    return (top, s, total / s)


def _tile_lse(m, s, out, scores, values):
    z = torch.logaddexp(torch.as_tensor(m) + torch.as_tensor(s).log(), scores.logsumexp(0)) if s > 0 else scores.logsumexp(0)
    top = torch.maximum(torch.as_tensor(m), scores.max())
    old = torch.exp(torch.as_tensor(m) + torch.as_tensor(s).log() - z) if s > 0 else 0.0
    return (top, (z - top).exp(), old * out + (scores - z).exp() @ values)


def S(var, gamma): return gamma / (var + 1e-05).sqrt()


def _tile_cat(m, s, out, scores, values):
    M = torch.maximum(torch.as_tensor(m), scores.max())
    a = torch.exp(torch.as_tensor(m) - M) * s
    w = (scores - M).exp()
    S = a + w.sum()
    return (M, S, (a * out + w @ values) / S)


def tile(rescale=True, sums=False, outscale=True, oldmax=False, noM=False, order=0, mean=False, mnew=False, prev=False):

    def f(m, s, out, scores, values):
        m, s = (torch.as_tensor(m), torch.as_tensor(s))
        M = scores.max() if mnew else torch.maximum(m, scores.max())
        f = torch.exp(m - M) if rescale else torch.tensor(1.0)
        w = scores.exp() if noM else (scores - (m if oldmax and m > -math.inf else M)).exp()
        S = f * s + w.sum()
        if sums: return (M, S, f * out + w @ values)
        o = ((f * s if outscale else s) * out + w @ values) / S
        if mean: o = (out + w / w.sum() @ values) / 2
        if prev: o = f * out + w @ values / S
        return (M, S, o) if order == 0 else (S, M, o) if order == 1 else (o, M, S) if order == 2 else o
    return f


RIGHT["10.5"] = [
    _tile_loop,
    _tile_lse,
    _tile_cat]
WRONG["10.5"] = [
    (tile(rescale=False), "the old sum is kept as it was"),
    (tile(sums=True), "out is treated as a sum"),
    (tile(outscale=False), "the old mean is weighted with the old s"),
    (tile(oldmax=True), "s should be"),
    (tile(noM=True), "s should be"),
    (tile(order=2), "should have shape (), yours has (1,)"),
    (tile(order=3), "your answer should give 3 values"),
    (tile(mean=True), "old and new mean count alike"),
    (tile(mnew=True), "the old m is forgotten")]
