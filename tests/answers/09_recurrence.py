"Answers to the exercises of chapter 09, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RIGHT, WRONG = {}, {}

RIGHT["09.1"] = [
    4 * 128 * (64 + 128 + 2),
    99328.0,
    sum(p.numel() for p in nn.LSTM(64, 128).parameters())]
WRONG["09.1"] = [
    (98816, "one bias is missing"),
    (98304, "the biases are missing"),
    (24832, "you count one gate"),
    (74496, "Three blocks are those of a GRU"),
    (4 * 128 * 64, "is too small"),
    (4 * 64 * (64 + 128 + 2), "the sizes are swapped"),
    (128 * 128 * 4, "is too small")]

RIGHT["09.2"] = [
    lambda out, lengths: out[lengths - 1, torch.arange(len(lengths))],
    lambda out, lengths: torch.stack([out[n - 1, b] for b, n in enumerate(lengths.tolist())]),
    lambda out, lengths: out.gather(0, (lengths - 1).view(1, -1, 1).expand(1, -1, out.shape[2]))[0],
    lambda out, lengths: out.transpose(0, 1)[torch.arange(len(lengths)), lengths - 1],
    lambda out, lengths: torch.einsum("tbm,tb->bm", out, F.one_hot(lengths - 1, len(out)).T.float())]
WRONG["09.2"] = [
    (lambda o, n: o[-1], "you take the last step of the batch"),
    (lambda o, n: o[n - 1], "One index picks a step for all sequences"),
    (lambda o, n: o[torch.clamp(n, max=len(o) - 1), torch.arange(len(n))], "you read one step too late"),
    (lambda o, n: o[n, torch.arange(len(n))], "the outputs should be"),
    (lambda o, n: torch.stack([o[:k, b] .mean(0) for b, k in enumerate(n)]), "you average over the steps"),
    (lambda o, n: torch.stack([o[b, k - 1] if b < len(o) and k - 1 < o.shape[1] else o[0, 0] for b, k in enumerate(n.tolist())]), "the outputs should be"),
    (lambda o, n: o[n - 1, torch.arange(len(n))][None], "should have shape (1, 1), yours has (1, 1, 1)"),
    (lambda o, n: o[:, torch.arange(len(n)), n - 1], "should have shape (1, 1), yours has (2, 1)"),
    (lambda o, n: o[n - 2, torch.arange(len(n))], "you stop one step too early")]


def _bits_mask(l, t, n):
    m = torch.arange(l.shape[1]) < n[:, None]
    return F.cross_entropy(l[m], t[m]) / math.log(2)


def _bits_loop(l, t, n):
    bits, count = (0.0, 0)
    for i in range(len(l)):
        for j in range(int(n[i])):
            bits -= math.log2(float(l[i, j].double().softmax(0)[t[i, j]]))
            count += 1
    return bits / count


def _bits_sum(l, t, n):
    p = l.log_softmax(2).gather(2, t.clamp(0, l.shape[2] - 1)[..., None])[..., 0]
    m = torch.arange(l.shape[1])[None] < n[:, None]
    return -(p * m).sum() / m.sum() / np.log(2)


RIGHT["09.3"] = [
    _bits_mask,
    _bits_loop,
    _bits_sum,
    lambda l, t, n: torch.nn.functional.cross_entropy(l.transpose(1, 2), t.masked_fill(torch.arange(l.shape[1]) >= n[:, None], -100)) * math.log2(math.e)]
WRONG["09.3"] = [
    (lambda l, t, n: _bits_mask(l, t, n) * math.log(2), "it is in nats"),
    (lambda l, t, n: F.cross_entropy(l.flatten(0, 1), t.flatten()) / math.log(2), "the filling is counted too"),
    (lambda l, t, n: torch.stack([_bits_mask(l[i:i+1], t[i:i+1], n[i:i+1]) for i in range(len(l))]).mean(), "you average over sequences"),
    (lambda l, t, n: _bits_mask(l, t, n) * n.sum(), "you give the sum"),
    (lambda l, t, n: -_bits_mask(l, t, n), "The sign is turned around"),
    (lambda l, t, n: _bits_mask(l, t, n + 1), "the mean should be"),
    (lambda l, t, n: _bits_mask(l, t, n - 1), "the mean should be"),
    (lambda l, t, n: torch.stack([_bits_mask(l[i:i+1], t[i:i+1], n[i:i+1]) for i in range(len(l))]), "should have shape (), yours has (1,)")]


def peep(order='ifgo', old=False, tanh_out=True, gt=True, wt=True, forget=True, pswap=(0, 1, 2), usep=True, ret=0, gpeep=False, coupled=False, mutate=False, hp=False):

    def f(x, h, c, W, p):
        z = x + (h @ W.T if wt else h @ W.view(W.shape[1], W.shape[0]))
        d = dict(zip(order, z.chunk(4, 1)))
        k = h if hp else c
        P = [p[j] if usep else p[j] * 0 for j in pswap]
        i, fo = (torch.sigmoid(d['i'] + P[0] * k), torch.sigmoid(d['f'] + P[1] * k))
        g = d['g'] + (p[0] * c if gpeep else 0)
        g = torch.tanh(g) if gt else torch.sigmoid(g)
        if coupled: fo = 1 - i
        new = (fo * c if forget else c) + i * g
        if mutate:
            c.mul_(fo).add_(i * g)
            new = c
        o = torch.sigmoid(d['o'] + P[2] * (c if old else h if hp else new))
        H = o * (new.tanh() if tanh_out else new)
        return (H, new) if ret == 0 else (new, H) if ret == 1 else H if ret == 2 else (o, H, new)
    return f


def _peep_named(x, h, c, W_hh, peep):
    m = h.shape[1]
    z = x + F.linear(h, W_hh)
    i = torch.sigmoid(z[:, :m] + peep[0] * c)
    f = torch.sigmoid(z[:, m:2 * m] + peep[1] * c)
    g = torch.tanh(z[:, 2 * m:3 * m])
    new = f * c + i * g
    return (torch.sigmoid(z[:, 3 * m:] + new * peep[2]) * new.tanh(), new)


def _peep_loop(x, h, c, W, p):
    B, m = h.shape
    H, C = (torch.empty_like(h), torch.empty_like(c))
    s = lambda v: 1 / (1 + math.exp(-v))
    for b in range(B):
        z = x[b] + W @ h[b]
        for k in range(m):
            i, f, g = (s(z[k] + p[0, k] * c[b, k]), s(z[m + k] + p[1, k] * c[b, k]), math.tanh(z[2 * m + k]))
            C[b, k] = f * c[b, k] + i * g
            H[b, k] = s(z[3 * m + k] + p[2, k] * C[b, k]) * math.tanh(C[b, k])
    return [H, C]


RIGHT["09.4"] = [
    _peep_named,
    _peep_loop]
WRONG["09.4"] = [
    (peep(order="ifog"), "the blocks are taken in the order i"),
    (peep(order="figo"), "the new h should be"),
    (peep(order="iofg"), "the new h should be"),
    (peep(old=True), "the output gate sees the old cell state"),
    (peep(tanh_out=False), "the tanh of the new cell state is missing in h"),
    (peep(gt=False), "the candidate g goes through a sigmoid"),
    (peep(pswap=(1, 0, 2)), "the peepholes of the input and the forget gate are swapped"),
    (peep(ret=2), "your answer should give 2 values"),
    (peep(ret=3), "your answer should give 2 values")]


def _bptt_forward(a, x):
    h = dh = 0.0
    for v in x.tolist(): h, dh = (a * h + v, h + a * dh)
    return (h, dh)


def _bptt_back(a, x):
    hs = [torch.tensor(0.0)]
    for v in x: hs.append(a * hs[-1] + v)
    g, total = (1.0, 0.0)
    for t in range(len(x), 0, -1):
        total += g * hs[t - 1]
        g *= a
    return (hs[-1], total)


def _bptt_sum(a, x):
    T = len(x)
    return (sum((a ** (T - 1 - t) * x[t] for t in range(T))), sum(((T - 1 - t) * a ** (T - 2 - t) * x[t] for t in range(T - 1))))


def bptt(trunc=False, use_new=False, power=0, noa=False, xs=False):

    def f(a, x):
        h = dh = 0.0
        for v in x.tolist():
            if trunc: h, dh = (a * h + v, h)
            elif use_new:
                h = a * h + v
                dh = h + a * dh
            elif noa: h, dh = (a * h + v, h + dh)
            elif xs: h, dh = (a * h + v, v + a * dh)
            else: h, dh = (a * h + v, h + a * dh)
        return (h, dh)
    return f


def _bptt_all(a, x):
    hs, h = ([], 0.0)
    for v in x.tolist():
        h = a * h + v
        hs.append(h)
    return (torch.tensor(hs), _bptt_forward(a, x)[1])


RIGHT["09.5"] = [
    _bptt_forward,
    _bptt_back,
    _bptt_sum]
WRONG["09.5"] = [
    (bptt(trunc=True), "you differentiate the last copy of a only"),
    (bptt(use_new=True), "each step's delta multiplies the state after the step"),
    (bptt(noa=True), "delta stays 1"),
    (bptt(xs=True), "you give the state twice"),
    (_bptt_all, "should have shape (), yours has (1,)"),
    (lambda a, x: _bptt_forward(a, x)[::-1], "The two are exchanged"),
    (lambda a, x: _bptt_forward(a, x)[1], "your answer should give 2 values"),
    (lambda a, x: (_bptt_forward(a, x)[0], len(x) * a ** (len(x) - 1)), "the derivative should be"),
    (lambda a, x: (_bptt_forward(a, x)[0], -_bptt_forward(a, x)[1]), "the derivative should be")]
