"Answers to the exercises of chapter 06, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["06.1"] = [
    math.sqrt(6 / 400),
    0.1225,
    0.122,
    math.sqrt(2) * math.sqrt(3 / 400),
    torch.tensor(0.015).sqrt()]
WRONG["06.1"] = [
    (math.sqrt(3 / 400), "the ReLU is forgotten"),
    (0.015, "is too small"),
    (math.sqrt(2 / 400), "That is the standard deviation"),
    (math.sqrt(6 / 100), "you took the outputs"),
    (math.sqrt(6 / 500), "That is Xavier's rule"),
    (math.sqrt(2 / 100), "That is the standard deviation for the outputs"),
    (-math.sqrt(6 / 400), "is too small")]

RIGHT["06.2"] = [
    lambda p, t: (((p.sum(0) / len(p) - t) ** 2).mean(), ((p - p.mean(0)) ** 2).mean()),
    lambda p, t: [F.mse_loss(p.mean(0), t), p.var(0, unbiased=False).mean()],
    lambda p, t: (float(((p.mean(0) - t) ** 2).mean()), float((p.square().mean(0) - p.mean(0) ** 2).mean())),
    lambda p, t: (np.mean((p.numpy().mean(0) - t.numpy()) ** 2), p.numpy().var(0).mean()),
    lambda p, t: (((p - t) ** 2).mean() - p.var(0, correction=0).mean(), p.var(0, correction=0).mean())]
WRONG["06.2"] = [
    (lambda p, t: ((p.mean(0) - t).mean(), p.var(0, correction=0).mean()), "bias² should be"),
    (lambda p, t: ((p.mean(0) - t).square(), p.var(0, correction=0)), "should have shape (), yours has (1,)"),
    (lambda p, t: ((p.mean(0) - t).square().sum(), p.var(0, correction=0).sum()), "bias² should be"),
    (lambda p, t: (p.var(0, correction=0).mean(), (p.mean(0) - t).square().mean()), "The two are exchanged"),
    (lambda p, t: ((p.mean(0) - t).square().mean(), p.std(0, correction=0).mean()), "you give the standard deviation")]


def _bn_loop(x, rm, rv):
    n = len(x)
    m = x.sum(0) / n
    d = x - m
    v = (d * d).sum(0) / n
    return (d * torch.rsqrt(v + 1e-05), rm + 0.1 * (m - rm), rv + 0.1 * (v * n / (n - 1) - rv))


def _bn_torch(x, rm, rv):
    rm, rv = (rm.clone(), rv.clone())
    return (F.batch_norm(x, rm, rv, training=True, momentum=0.1, eps=1e-05), rm, rv)


def _bn_lerp(x, rm, rv): return ((x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-05), rm.lerp(x.mean(0), 0.1), torch.lerp(rv, x.var(0), 0.1))


def bn(oc=0, rc=1, mom=0.1, eps=1e-05, dim=0, epsout=False, order=0, norm=True, same=False, var2=False):

    def f(x, rm, rv):
        m, v, w = (x.mean(dim, keepdim=dim == 1), x.var(dim, correction=oc, keepdim=dim == 1), x.var(dim, correction=rc))
        d = v.sqrt() + eps if epsout else v if var2 else (v + eps).sqrt()
        out = (x - m) / d
        a, b = ((1 - mom) * rm + mom * m.squeeze(-1) if dim == 0 else rm, (1 - mom) * rv + mom * w if dim == 0 else rv)
        return (out, a, b) if order == 0 else (out, b, a) if order == 1 else (a, b, out) if order == 2 else out
    return f


RIGHT["06.3"] = [
    _bn_loop,
    _bn_torch,
    _bn_lerp]
WRONG["06.3"] = [
    (bn(rc=0), "the running variance takes the variance that divides by n"),
    (bn(oc=1), "you normalize with the variance that divides by n - 1"),
    (bn(oc=1, rc=0), "the two variances are exchanged"),
    (bn(mom=0.9), "the shares are swapped"),
    (bn(order=1), "the new running mean should be"),
    (bn(order=2), "should have shape (3, 1), yours has (1,)"),
    (bn(order=3), "your answer should give 3 values"),
    (bn(var2=True), "the normalized batch should be"),
    (bn(epsout=True), "ε is added to the deviation")]


def _sf_loop(y, k):
    seen, out = ({}, [])
    for c in y.tolist():
        out.append(seen.get(c, 0) % k)
        seen[c] = seen.get(c, 0) + 1
    return torch.tensor(out)


def _sf_rank(y, k): return torch.tensor([int((y[:i] == c).sum()) % k for i, c in enumerate(y)])


def _sf_mask(y, k):
    out = torch.zeros_like(y)
    for c in y.unique(): out[y == c] = torch.arange(int((y == c).sum())) % k
    return out


def _sf_sorted(y, k): return torch.cat([torch.arange(int((y == c).sum())) % k for c in y.unique()])


def _sf_across(y, k):
    out = torch.zeros_like(y)
    out[y.argsort(stable=True)] = torch.arange(len(y)) % k
    return out


def _sf_blocks(y, k):
    out = torch.zeros_like(y)
    for c in y.unique():
        n = int((y == c).sum())
        out[y == c] = torch.arange(n) * k // n
    return out


RIGHT["06.4"] = [
    _sf_loop,
    _sf_rank,
    _sf_mask,
    lambda y, k: (F.one_hot(y).cumsum(0).gather(1, y[:, None])[:, 0] - 1) % k,
    lambda y, k: _sf_loop(y, k).tolist()]
WRONG["06.4"] = [
    (_sf_sorted, "you return the folds class by class"),
    (_sf_across, "the count goes on from class to class"),
    (_sf_blocks, "each fold gets a run of neighbors"),
    (lambda y, k: torch.arange(len(y)) % k, "you count all samples together"),
    (lambda y, k: y % k, "a class goes into one fold as a whole"),
    (lambda y, k: (_sf_loop(y, k) + 1) % k, "the fold should be"),
    (lambda y, k: _sf_loop(y, k).float(), "should have dtype torch.int64, yours has torch.float32"),
    (lambda y, k: [(_sf_loop(y, k) == f).nonzero() for f in range(k)], "should be a tensor, yours is a list of tensors; torch.stack makes one of them"),
    (lambda y, k: _sf_loop(y, 10**6), "the fold should be")]


def _stop_loop(losses, patience):
    best, at = (math.inf, 0)
    for e, l in enumerate(losses.tolist()):
        if l < best: best, at = (l, e)
        elif e - at >= patience: return (e + 1, at)
    return (len(losses), at)


def _stop_wait(losses, patience):
    wait, at = (0, 0)
    for e in range(1, len(losses)):
        if losses[e] < losses[at]: at, wait = (e, 0)
        else:
            wait += 1
            if wait == patience: return [e + 1, at]
    return [len(losses), at]


def _stop_torch(losses, patience):
    n = len(losses)
    for e in range(n):
        at = int(losses[:e + 1].argmin())
        if e - at >= patience: return (torch.tensor(e + 1), torch.tensor(at))
    return (torch.tensor(n), losses.argmin())


def _stop_v(cmp='lt', ge=0, off=0, best='at', reset=True):

    def f(losses, patience):
        bestl, at, wait, up = (math.inf, 0, 0, 0)
        L = losses.tolist()
        for e, l in enumerate(L):
            if l < bestl or (cmp == 'le' and l <= bestl): bestl, at = (l, e)
            elif e - at >= patience + ge: return (e + 1 + off, {'at': at, 'loss': bestl, 'last': e, 'one': at + 1}[best])
        return (len(L) + off, {'at': at, 'loss': bestl, 'last': len(L) - 1, 'one': at + 1}[best])
    return f


RIGHT["06.5"] = [
    _stop_loop,
    _stop_wait,
    _stop_torch,
    lambda l, p: torch.tensor(_stop_loop(l, p))]
WRONG["06.5"] = [
    (_stop_v(cmp="le"), "an equal loss counts as an improvement"),
    (_stop_v(ge=1), "it waits one epoch too long"),
    (_stop_v(ge=-1), "the number of epochs should be"),
    (_stop_v(off=-1), "you give the number of the last epoch"),
    (_stop_v(best="loss"), "the epoch kept should be"),
    (_stop_v(best="last"), "the last weights are kept"),
    (_stop_v(best="one"), "The epoch kept is counted from 0"),
    (lambda l, p: _stop_loop(l, p)[0], "your answer should give 2 values")]


def _fold_diag(weight, bias, mean, var, gamma, beta):
    s = gamma * torch.rsqrt(var + 1e-05)
    return (torch.diag(s) @ weight, s * bias + (beta - s * mean))


def _fold_probe(weight, bias, mean, var, gamma, beta):
    f = lambda x: F.batch_norm(x @ weight.T + bias, mean, var, gamma, beta)
    b = f(torch.zeros(1, weight.shape[1]))[0]
    return ((f(torch.eye(weight.shape[1])) - b).T, b)


def S(var, gamma): return gamma / (var + 1e-05).sqrt()


RIGHT["06.6"] = [
    _fold_diag,
    _fold_probe,
    lambda weight, bias, mean, var, gamma, beta: ((weight.T * (gamma / (var + 1e-5) ** 0.5)).T, gamma * (bias - mean) / (var + 1e-5) ** 0.5 + beta)]
WRONG["06.6"] = [
    (lambda w, b, m, v, g, be: (w * S(v, g), (b - m) * S(v, g) + be), "Each row of the weight is scaled"),
    (lambda w, b, m, v, g, be: (w * S(v, g)[:, None], b * S(v, g) + be), "the mean is left out"),
    (lambda w, b, m, v, g, be: (w * S(v, g)[:, None], (b + m) * S(v, g) + be), "the mean is added"),
    (lambda w, b, m, v, g, be: (w * S(v, g)[:, None], b - m * S(v, g) + be), "the bias of the linear layer is not scaled"),
    (lambda w, b, m, v, g, be: (w * S(v, g)[:, None], -m * S(v, g) + be), "the bias of the linear layer is left out"),
    (lambda w, b, m, v, g, be: (w * g[:, None], (b - m) * g + be), "the weight should be"),
    (lambda w, b, m, v, g, be: (w / (v + 1e-5).sqrt()[:, None], (b - m) / (v + 1e-5).sqrt() + be), "the weight should be"),
    (lambda w, b, m, v, g, be: ((w * S(v, g)[:, None]).T, (b - m) * S(v, g) + be), "should have shape (2, 3), yours has (3, 2)"),
    (lambda w, b, m, v, g, be: ((b - m) * S(v, g) + be, w * S(v, g)[:, None]), "should have shape (1, 1), yours has (1,)")]
