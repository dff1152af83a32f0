"Answers to the exercises of chapter 04, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F

from dlbook.backprop import Value

RIGHT, WRONG = {}, {}

RIGHT["04.1"] = [
    8,
    8.0,
    torch.tensor(8.0),
    Value(8).data]
WRONG["04.1"] = [
    (2, "is too small"),
    (7, "is too small"),
    (13, "is too large"),
    (5, "5 is the slope over the arrow from b to the product")]

RIGHT["04.2"] = [
    lambda x, W, g: [g.mm(W), torch.einsum("nm,nd->md", g, x), g.sum(dim=0)],
    lambda x, W, g: (torch.einsum("nm,md->nd", g, W), sum(torch.outer(a, b) for a, b in zip(g, x)), torch.ones(len(g)) @ g),
    lambda x, W, g: (torch.matmul(g, W), (x.T @ g).T, g.T.sum(1)),
    lambda x, W, g: (g.numpy() @ W.numpy(), g.numpy().T @ x.numpy(), g.numpy().sum(0))]
WRONG["04.2"] = [
    (lambda x, W, g: (g @ W.T, g.T @ x, g.sum(0)), "W is transposed once too often"),
    (lambda x, W, g: (g.T @ x, g @ W, g.sum(0)), "the slopes of x and W stand in each other's place"),
    (lambda x, W, g: (g @ W, g.T @ x, g.sum(1)), "b has one element for each output"),
    (lambda x, W, g: (g @ W, g.T @ x, g.sum()), "should have shape (3,), yours has ()"),
    (lambda x, W, g: (g @ W, g.T @ x, torch.ones(W.shape[0])), "the gradient of b should be"),
    (lambda x, W, g: (g @ W, g.T @ x, g.sum(0, keepdim=True)), "should have shape (3,), yours has (1, 3)")]
def _root(v): return Value(v.data ** 0.5, [(v, 0.5 * v.data ** (-0.5))])
def _root_torch(v): return Value(math.sqrt(v.data), edges=((v, 1 / (2 * math.sqrt(v.data))),), name='root')


RIGHT["04.3"] = [
    _root,
    _root_torch,
    lambda v: Value(np.sqrt(v.data), ((v, 0.5 / np.sqrt(v.data)),))]
WRONG["04.3"] = [
    (lambda v: math.sqrt(v.data), "your answer should give a Value"),
    (lambda v: Value(math.sqrt(v.data), (v, 0.5 / math.sqrt(v.data))), "your answer should give a Value whose edges are pairs (Value"),
    (lambda v: Value(math.sqrt(v.data), ((v, 0.5 * v.data),)), "the slope should be"),
    (lambda v: Value(math.sqrt(v.data), ((v, 2 * math.sqrt(v.data)),)), "the slope should be"),
    (lambda v: Value(math.sqrt(v.data), ((v, -0.5 / math.sqrt(v.data)),)), "The sign is wrong"),
    (lambda v: Value(math.sqrt(v), ((v, 0.5),)), "The number in a Value is its data"),
    (lambda v: Value(math.sqrt(v.data), ((v, 1.0),)), "The local derivative is not 1")]


def _lookup_loop(idx, g, words):
    out = torch.zeros(words, g.shape[1])
    for i, row in zip(idx, g): out[i] += row
    return out


def _lookup_put(idx, g, words): return torch.zeros(words, g.shape[1]).index_put_((idx,), g, accumulate=True)


def _lookup_add_at(idx, g, words):
    out = np.zeros((words, g.shape[1]), dtype=np.float32)
    np.add.at(out, idx.numpy(), g.numpy())
    return out


def _lookup_inc(idx, g, words):
    out = torch.zeros(words, g.shape[1])
    out[idx] += g
    return out


def _lookup_first(idx, g, words):
    out = torch.zeros(words, g.shape[1])
    for i, row in zip(idx.tolist(), g):
        if not out[i].any(): out[i] = row
    return out


RIGHT["04.4"] = [
    _lookup_loop,
    _lookup_put,
    _lookup_add_at,
    lambda idx, g, words: F.one_hot(idx, words).float().T @ g,
    lambda idx, g, words: torch.stack([g[idx == w].sum(0) for w in range(words)]),
    lambda idx, g, words: torch.zeros(words, g.shape[1]).scatter_add_(0, idx[:, None].expand_as(g), g)]
WRONG["04.4"] = [
    (_lookup_inc, "A word that occurs several times must get the sum of its slopes"),
    (_lookup_first, "the gradient of the table should be"),
    (lambda idx, g, words: g[idx], "the gradient of the table should be"),
    (lambda idx, g, words: _lookup_loop(idx, g, words).T, "should have shape (2, 1), yours has (1, 2)"),
    (lambda idx, g, words: _lookup_loop(idx, g.sum(1, keepdim=True), words), "should have shape (4, 2), yours has (4, 1)")]


class _D:

    def __init__(self, v, d=0.0): self.v, self.d = (v, d)

    @staticmethod
    def of(x): return x if isinstance(x, _D) else _D(x)

    def __add__(self, o):
        o = _D.of(o)
        return _D(self.v + o.v, self.d + o.d)

    def __radd__(self, o): return self + o

    def __mul__(self, o):
        o = _D.of(o)
        return _D(self.v * o.v, self.v * o.d + self.d * o.v)

    def __rmul__(self, o): return self * o


def _slope_one(f, x):
    y = f(_D(x, 1.0))
    return _D.of(y).d


def _slope_pairs(f, x):

    class N(tuple):

        def __add__(s, o):
            o = o if isinstance(o, N) else N((o, 0))
            return N((s[0] + o[0], s[1] + o[1]))

        def __mul__(s, o):
            o = o if isinstance(o, N) else N((o, 0))
            return N((s[0] * o[0], s[1] * o[0] + s[0] * o[1]))
        __radd__, __rmul__ = (__add__, __mul__)
    y = f(N((x, 1)))
    return torch.tensor(float(y[1] if isinstance(y, N) else 0))


def _slope_no_constant(f, x): return f(_D(x, 1.0)).d
def _slope_seed0(f, x): return _D.of(f(_D(x))).d
def _slope_value(f, x): return _D.of(f(_D(x, 1.0))).v


def _slope_no_reverse(f, x):

    class N:

        def __init__(self, v, d): self.v, self.d = (v, d)

        def __add__(s, o): return N(s.v + getattr(o, 'v', o), s.d + getattr(o, 'd', 0))

        def __mul__(s, o): return N(s.v * getattr(o, 'v', o), s.d * getattr(o, 'v', o) + s.v * getattr(o, 'd', 0))
    return getattr(f(N(x, 1.0)), 'd', 0.0)


def _slope_constant_one(f, x):

    class N:

        def __init__(self, v, d=1.0): self.v, self.d = (v, d)

        def __add__(s, o):
            o = o if isinstance(o, N) else N(o)
            return N(s.v + o.v, s.d + o.d)

        def __mul__(s, o):
            o = o if isinstance(o, N) else N(o)
            return N(s.v * o.v, s.d * o.v + s.v * o.d)
        __radd__, __rmul__ = (__add__, __mul__)
    return getattr(f(N(x)), 'd', 0.0)


def _slope_forward_difference(f, x): return (f(x + 1e-06) - f(x)) / 1e-06


def _slope_sum_wrong(f, x):

    class N(_D):

        def __add__(s, o):
            o = _D.of(o)
            return N(s.v + o.v, s.d * o.d)

        def __mul__(s, o):
            o = _D.of(o)
            return N(s.v * o.v, s.v * o.d + s.d * o.v)
        __radd__, __rmul__ = (__add__, __mul__)
    return _D.of(f(N(x, 1.0))).d


RIGHT["04.5"] = [
    _slope_one,
    _slope_pairs]
WRONG["04.5"] = [
    (_slope_no_constant, "raises AttributeError"),
    (_slope_seed0, "The number that f is called with has the slope 1"),
    (_slope_value, "That is the value of f"),
    (_slope_no_reverse, "raises TypeError"),
    (_slope_constant_one, "plain numbers have the slope 1"),
    (_slope_forward_difference, "This nudges x and runs f twice"),
    (_slope_sum_wrong, "the slope should be")]


def _std_autograd(x, g):
    with torch.enable_grad():
        z = x.clone().requires_grad_()
        s = z.var(1, correction=0, keepdim=True).sqrt()
        return torch.autograd.grad(((z - z.mean(1, keepdim=True)) / s * g).sum(), z)[0]


def _std_jacobian(x, g):
    rows = []
    for r, s in zip(x, g):
        d = len(r)
        mu = r.mean()
        sd = ((r - mu) ** 2).mean() ** 0.5
        y = (r - mu) / sd
        J = (torch.eye(d) - 1 / d - torch.outer(y, y) / d) / sd
        rows.append(J.T.to(s.dtype) @ s)
    return torch.stack(rows)


def _std(x): return x.std(1, correction=0, keepdim=True)
def _y(x): return (x - x.mean(1, keepdim=True)) / _std(x)


RIGHT["04.6"] = [
    _std_autograd,
    _std_jacobian]
WRONG["04.6"] = [
    (lambda x, g: (g - g.mean(1, keepdim=True) - _y(x) * (g * _y(x)).sum(1, keepdim=True)) / _std(x), "you sum y·g over the row"),
    (lambda x, g: (g - _y(x) * (g * _y(x)).mean(1, keepdim=True)) / _std(x), "The way over μ is missing"),
    (lambda x, g: (g - g.mean(1, keepdim=True) + _y(x) * (g * _y(x)).mean(1, keepdim=True)) / _std(x), "The term with y has the wrong sign"),
    (lambda x, g: (g - g.mean() - _y(x) * (g * _y(x)).mean()) / _std(x), "the gradient of x should be"),
    (lambda x, g: (g - g.mean(1, keepdim=True) - _y(x) * (g * _y(x)).mean(1, keepdim=True)) * _std(x), "the gradient of x should be"),
    (lambda x, g: g - g.mean(1, keepdim=True) - _y(x) * (g * _y(x)).mean(1, keepdim=True), "The division by σ is missing")]
