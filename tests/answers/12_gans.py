"Answers to the exercises of chapter 12, worked out from their statements; each wrong one with words that its verdict must say."
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["12.1"] = [
    math.log(3),
    1.0986,
    math.log(0.6) - math.log(0.2),
    math.log(0.75 / 0.25),
    torch.tensor(3.0).log()]
WRONG["12.1"] = [
    (0.75, "That is the probability"),
    (3, "That is the ratio of the densities"),
    (-math.log(3), "The sign is turned around"),
    (math.log(0.75), "That is the logarithm of the probability"),
    (math.log10(3), "is too small"),
    (math.log2(3), "is too large"),
    (1 / (1 + math.exp(-math.log(3))), "That is the probability")]
def lsd(r, f): return ((r - 1) ** 2).mean() / 2 + (f ** 2).mean() / 2
def lsg(r, f): return ((f - 1) ** 2).mean() / 2


RIGHT["12.2"] = [
    lambda r, f: (((r - 1) ** 2).mean() / 2 + (f ** 2).mean() / 2, ((f - 1) ** 2).mean() / 2),
    lambda r, f: [0.5 * (F.mse_loss(r, torch.ones_like(r)) + F.mse_loss(f, torch.zeros_like(f))), 0.5 * F.mse_loss(f, torch.ones_like(f))],
    lambda r, f: (float(sum((v - 1) ** 2 for v in r) / len(r) + sum(v ** 2 for v in f) / len(f)) / 2, float(sum((v - 1) ** 2 for v in f) / len(f)) / 2)]
WRONG["12.2"] = [
    (lambda r, f: (2 * lsd(r, f), 2 * lsg(r, f)), "Both are twice too large"),
    (lambda r, f: (lsg(r, f), lsd(r, f)), "The two are exchanged"),
    (lambda r, f: (lsd(f, r), lsg(r, f)), "the discriminator's loss should be"),
    (lambda r, f: (lsd(r, f), lsg(f, r)), "the generator's loss should be"),
    (lambda r, f: (lsd(r, f), (f ** 2).mean() / 2), "the generator wants 0 for its samples"),
    (lambda r, f: (((r - 1) ** 2).sum() / 2 + (f ** 2).sum() / 2, ((f - 1) ** 2).sum() / 2), "you sum; an expectation is a mean."),
    (lambda r, f: lsd(r, f), "your answer should give 2 values"),
    (lambda r, f: (torch.cat([(r - 1) ** 2, f ** 2]).mean() / 2, lsg(r, f)), "examples and samples are averaged together")]


def _avg_inplace(m, w, b):
    for x, y in zip(m, w): x.mul_(b).add_((1 - b) * y)
    return m


RIGHT["12.3"] = [
    lambda m, w, b: [b * x + (1 - b) * y for x, y in zip(m, w)],
    lambda m, w, b: [torch.lerp(y, x, b) for x, y in zip(m, w)],
    lambda m, w, b: list(torch._foreach_lerp(m, w, 1 - b)),
    lambda m, w, b: tuple(x + (1 - b) * (y - x) for x, y in zip(m, w))]
WRONG["12.3"] = [
    (_avg_inplace, "changes its argument mean in place"),
    (lambda m, w, b: [(1 - b) * x + b * y for x, y in zip(m, w)], "beta and 1 - beta are exchanged"),
    (lambda m, w, b: [(x + y) / 2 for x, y in zip(m, w)], "beta is not used"),
    (lambda m, w, b: [b * x + y for x, y in zip(m, w)], "the weights are not made smaller"),
    (lambda m, w, b: b * m[0] + (1 - b) * w[0], "That is the first tensor alone"),
    (lambda m, w, b: (b * x + (1 - b) * y for x, y in zip(m, w)), "should be a list, yours is of type generator"),
    (lambda m, w, b: [x - (1 - b) * y for x, y in zip(m, w)], "the mean at position"),
    (lambda m, w, b: [x * b for x in m], "the mean at position")]

RIGHT["12.4"] = [
    lambda x, y: (x.sort().values - y.sort()[0]).abs().mean(),
    lambda x, y: sum(abs(a - b) for a, b in zip(sorted(x.tolist()), sorted(y.tolist()))) / len(x),
    lambda x, y: np.abs(np.sort(x.numpy()) - np.sort(y.numpy())).mean(),
    lambda x, y: F.l1_loss(x.msort(), y.msort()),
    lambda x, y: min(F.l1_loss(x[list(p)], y) for p in itertools.permutations(range(len(x)))) if len(x) < 6 else F.l1_loss(x.msort(), y.msort())]
WRONG["12.4"] = [
    (lambda x, y: (x - y).abs().mean(), "the sets are not sorted"),
    (lambda x, y: ((x.msort() - y.msort()) ** 2).mean(), "distances are squared"),
    (lambda x, y: ((x.msort() - y.msort()) ** 2).mean().sqrt(), "the distance should be"),
    (lambda x, y: (x.msort() - y.msort()).mean(), "the sign is kept"),
    (lambda x, y: (x.msort() - y.msort()).abs().sum(), "That is the sum of the distances"),
    (lambda x, y: (x.mean() - y.mean()).abs(), "That is the distance of the means"),
    (lambda x, y: (x.msort() - y.msort()).abs(), "should have shape (), yours has (2,)"),
    (lambda x, y: (x.argsort() - y.argsort()).abs().float().mean(), "the distance should be")]

RIGHT["12.5"] = [
    lambda d, t: (d <= t).triu(1).sum(),
    lambda d, t: sum(1 for i in range(len(d)) for j in range(i) if d[i, j] <= t),
    lambda d, t: ((d <= t).sum() - len(d)) // 2,
    lambda d, t: int((d[tuple(torch.triu_indices(len(d), len(d), 1))] <= t).sum()),
    lambda d, t: float(((d <= t).sum() - (d.diagonal() <= t).sum()) / 2)]
WRONG["12.5"] = [
    (lambda d, t: (d <= t).sum(), "each pair counts twice"),
    (lambda d, t: (d <= t).triu().sum(), "each sample counts as its own twin"),
    (lambda d, t: (d <= t).sum() - len(d), "each pair counts twice"),
    (lambda d, t: (d < t).triu(1).sum(), "pairs at exactly the threshold do not count"),
    (lambda d, t: (d <= t).sum() // 2, "samples count as their own twins"),
    (lambda d, t: (d <= t).triu(1).float().mean(), "the number of pairs should be"),
    (lambda d, t: (d <= t).triu(1).any(1).sum(), "the number of pairs should be"),
    (lambda d, t: (d <= t).triu(1).nonzero(), "should have shape (), yours has (0, 2)")]


def _opt_list(field, start, lr, steps):
    s, out, last = (start, [start], None)
    for _ in range(steps):
        g = field(s)
        s = s + lr * (2 * g - (g if last is None else last))
        last = g
        out.append(s)
    return torch.stack(out)


def _opt_tensor(field, start, lr, steps):
    out = torch.zeros(steps + 1, len(start))
    out[0] = start
    before = field(start)
    for t in range(steps):
        now = field(out[t])
        out[t + 1] = out[t] + 2 * lr * now - lr * before
        before = now
    return out


def opt(sign=1, zero=False, extra=False, plain=False, drop=0, stale=False, alias=False, more=False, w=(2, 1), rev=False, steps_off=0):

    def f(field, start, lr, steps):
        s, out, last = (start.clone(), [start.clone()], torch.zeros_like(start) if zero else field(start))
        for _ in range(steps + steps_off):
            g = field(s)
            if extra: d = field(s + lr * g)
            elif plain: d = g
            else: d = w[0] * g - w[1] * last
            if alias:
                s += sign * lr * d
                out.append(s)
            else:
                s = s + sign * lr * d
                out.append(s)
            if not stale: last = g
        return torch.stack(out)[drop:] if not rev else torch.stack(out).T
    return f


RIGHT["12.6"] = [
    _opt_list,
    _opt_tensor]
WRONG["12.6"] = [
    (opt(sign=-1), "The sign is turned around"),
    (opt(zero=True), "the last direction before the first step is 0"),
    (opt(extra=True), "Those are extragradient steps"),
    (opt(plain=True), "Those are plain steps"),
    (opt(drop=1), "the start is missing"),
    (opt(alias=True), "the states should be"),
    (opt(w=(1.5, 0.5)), "the states should be"),
    (opt(rev=True), "should have shape (4, 2), yours has (2, 4)"),
    (opt(steps_off=1), "should have shape (4, 2), yours has (5, 2)")]
