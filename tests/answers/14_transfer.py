"Answers to the exercises of chapter 14, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["14.1"] = [
    0.004,
    4e-3,
    1e-5 * 8000 ** (2 / 3),
    1e-5 * 20 ** 2,
    np.geomspace(1e-5, 8e-2, 4)[2]]
WRONG["14.1"] = [
    (2e-4, "That is the rate of the second group"),
    (0.05333666, "you add the same amount from group to group"),
    (8e-2, "is too large"),
    (1e-5, "is too small"),
    (math.sqrt(1e-5 * 8e-2), "you took two steps of four"),
    (1e-5 * 8000 ** 0.5, "you took two steps of four")]


def _stlr(t, T, max_lr, cut_frac=0.1, ratio=32):
    cut = math.floor(T * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return max_lr * (1 + p * (ratio - 1)) / ratio


def stlr(cutf=math.floor, keep=False, noratio=False, sym=False, le=False, fall='T', fixratio=False, fixcut=False, neg=False, nomax=False, form=0):

    def f(t, T, max_lr, cut_frac=0.1, ratio=32):
        if fixratio: ratio = 32
        if fixcut: cut_frac = 0.1
        cut = cutf(T * cut_frac)
        if t < cut: p = t / cut
        elif fall == 'T': p = 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        elif fall == 'end': p = 1 - (t - cut) / (T - cut)
        elif fall == 'end1': p = 1 - (t - cut) / (T - 1 - cut)
        elif fall == 'same': p = 1 - (t - cut) / cut
        elif fall == 'paper': p = 1 - (t - cut) / (cut * (1 / cut_frac))
        else: p = 1
        if noratio: return max_lr * p
        return max_lr * (p * (ratio - 1)) / ratio if form == 1 else max_lr * (1 + p * ratio) / ratio if form == 2 else max_lr * 1 + p * (ratio - 1) / ratio if form == 3 else (1 + p * (ratio - 1)) / ratio
    return f


def st(**k):
    g = stlr(**k)
    if 'form' in k: return g
    return lambda t, T, max_lr, cut_frac=0.1, ratio=32: g(t, T, max_lr, cut_frac, ratio) * (1 if k.get('noratio') else max_lr)


RIGHT["14.2"] = [
    _stlr,
    lambda t, T, max_lr, cut_frac=0.1, ratio=32: torch.tensor(_stlr(t, T, max_lr, cut_frac, ratio)),
    lambda t, T, max_lr, cut_frac=0.1, ratio=32: (lambda cut: (lambda p: max_lr / ratio + max_lr * p * (1 - 1 / ratio))(min(t / cut, 1 - (t - cut) / (cut / cut_frac - cut))))(T * cut_frac // 1)]
WRONG["14.2"] = [
    (st(cutf=lambda v: v), "T · cut_frac is not rounded down to a whole number"),
    (st(cutf=math.ceil), "T · cut_frac is rounded up"),
    (st(noratio=True), "the rate starts at 0"),
    (st(fall="end"), "p falls to 0 exactly at T"),
    (st(fall="end1"), "the rate should be"),
    (st(fall="same"), "the rate falls as fast as it rises"),
    (st(fall="paper"), "the rate should be"),
    (lambda t, T, max_lr: _stlr(t, T, max_lr), "raises TypeError")]


def _ad(source, target):
    e = ((source > 0).double().mean() + (target <= 0).double().mean()) / 2
    return 2 * (1 - 2 * min(e, 1 - e))


def ad(flip=True, pooled=False, ge=False, swap=False, ret=0, sgn=0, absm=False):

    def f(s, t):
        a = (s >= 0 if ge else s > 0).double()
        b = (t < 0 if ge else t <= 0).double()
        if swap: a, b = (1 - a, 1 - b)
        e = torch.cat([a, b]).mean() if pooled else (a.mean() + b.mean()) / 2
        if flip: e = torch.minimum(e, 1 - e)
        if absm: return (2 * (1 - 2 * e)).abs()
        return 2 * (1 - 2 * e) if ret == 0 else 1 - 2 * e if ret == 1 else e if ret == 2 else 2 * (1 - e) if ret == 3 else 2 * (1 - 4 * e) if ret == 4 else 1 - e
    return f


RIGHT["14.3"] = [
    _ad,
    lambda s, t: 2 * abs(float((s > 0).float().mean()) - float((t > 0).float().mean())),
    lambda s, t: torch.abs((s > 0).float().mean() - (t > 0).float().mean()) * 2,
    lambda s, t: np.abs(np.mean(s.numpy() > 0) - np.mean(t.numpy() > 0)) * 2]
WRONG["14.3"] = [
    (ad(flip=False), "a classifier that is always wrong gets a negative distance"),
    (ad(pooled=True), "all samples are counted together"),
    (ad(ge=True), "a score of exactly 0 counts as the target"),
    (ad(ret=1), "That is half of it"),
    (ad(ret=2), "That is the error ε"),
    (ad(ret=3), "the distance should be"),
    (ad(ret=4), "the distance should be"),
    (lambda s, t: _ad(s, t).expand(1), "should have shape (), yours has (1,)"),
    (lambda s, t: 2 - 2 * ((s > 0).sum() + (t <= 0).sum()), "should have dtype torch.float64, yours has torch.int64")]

RIGHT["14.4"] = [
    lambda a, f, b, h, s: (h * b + s * f * a) / (h + s * f),
    lambda a, f, b, h, s: b + s * f / (h + s * f) * (a - b),
    lambda a, f, b, h, s: torch.linalg.solve(torch.diag(h + s * f), h * b + s * f * a),
    lambda a, f, b, h, s: torch.lerp(a, b, h / (h + s * f)),
    lambda a, f, b, h, s: torch.stack([(hh * bb + s * ff * aa) / (hh + s * ff) for aa, ff, bb, hh in zip(a, f, b, h)])]
WRONG["14.4"] = [
    (lambda a, f, b, h, s: (h * b + 2 * s * f * a) / (h + 2 * s * f), "λ counts twice"),
    (lambda a, f, b, h, s: (h * b + s / 2 * f * a) / (h + s / 2 * f), "the ½ of the penalty is kept while that of the loss is not"),
    (lambda a, f, b, h, s: (h * a + s * f * b) / (h + s * f), "the two tasks are swapped"),
    (lambda a, f, b, h, s: (b + s * f * a) / (1 + s * f), "the curvature of the second task is left out"),
    (lambda a, f, b, h, s: (h * b + s * a) / (h + s), "That is L2-SP"),
    (lambda a, f, b, h, s: (b + s * a) / (1 + s), "the weights should be"),
    (lambda a, f, b, h, s: (a + b) / 2, "the weights should be"),
    (lambda a, f, b, h, s: ((h * b).sum() + s * (f * a).sum()) / (h.sum() + s * f.sum()), "should have shape (1,), yours has ()")]


def _nm_loop(features, y):
    W = torch.stack([features[y == c].mean(0) for c in range(int(y.max()) + 1)])
    return (W, -W.square().sum(1) / 2)


_means = _nm_loop


RIGHT["14.5"] = [
    _nm_loop,
    lambda f, y: (2 * _nm_loop(f, y)[0], 2 * _nm_loop(f, y)[1]),
    lambda f, y: (lambda W: (W - W.mean(0), -W.square().sum(1) / 2))(_nm_loop(f, y)[0]),
    lambda f, y: (lambda o: (lambda W: (W, -0.5 * (W @ W.T).diagonal()))((o.T @ f) / o.sum(0)[:, None]))(F.one_hot(y).float()),
    lambda f, y: [_nm_loop(f, y)[0], _nm_loop(f, y)[1] + 7]]
WRONG["14.5"] = [
    (lambda f, y: (_means(f, y)[0], torch.zeros(len(_means(f, y)[0]))), "the bias is 0"),
    (lambda f, y: (_means(f, y)[0], -_means(f, y)[1]), "the bias has the wrong sign"),
    (lambda f, y: (_means(f, y)[0], 2 * _means(f, y)[1]), "The bias is twice as large as it should be"),
    (lambda f, y: (_means(f, y)[0], -_means(f, y)[0].norm(dim=1)), "the bias is minus the length of the mean"),
    (lambda f, y: (F.normalize(_means(f, y)[0]), torch.zeros(len(_means(f, y)[0]))), "the means are brought to length 1"),
    (lambda f, y: (_means(f, y)[0].T, _means(f, y)[1]), "your answer should give a weight of shape (2"),
    (lambda f, y: (_means(f, y)[0], _means(f, y)[1][:, None]), "your answer should give a bias of shape (2"),
    (lambda f, y: (torch.stack([f[y == c].sum(0) for c in range(int(y.max()) + 1)]), _means(f, y)[1]), "the class of each point should be"),
    (lambda f, y: (torch.stack([f[y == c].mean() * torch.ones(f.shape[1]) for c in range(int(y.max()) + 1)]), _means(f, y)[1]), "the class of each point should be")]
