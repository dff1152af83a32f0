"Answers to the exercises of chapter 07, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}


def _prf_counts(y, said):
    tp = float(((y == 1) & (said == 1)).sum())
    fp = float(((y == 0) & (said == 1)).sum())
    fn = float(((y == 1) & (said == 0)).sum())
    p = tp / (tp + fp) if tp + fp else 0.0
    r = tp / (tp + fn) if tp + fn else 0.0
    return torch.tensor([p, r, 2 * p * r / (p + r) if p + r else 0.0])


def _prf_sklearn(y, said):
    from sklearn.metrics import precision_recall_fscore_support
    return np.array(precision_recall_fscore_support(y, said, average='binary', zero_division=0)[:3])


def _prf_eps(y, said):
    tp = (y * said).sum()
    p = tp / (said.sum() + 0.001)
    r = tp / (y.sum() + 0.001)
    return torch.stack([p, r, 2 * p * r / (p + r + 0.001)])


def _prf_python(y, said):
    tp = ((y == 1) & (said == 1)).sum().item()
    fp = ((y == 0) & (said == 1)).sum().item()
    fn = ((y == 1) & (said == 0)).sum().item()
    p, r = (tp / (tp + fp), tp / (tp + fn))
    return torch.tensor([p, r, 2 * p * r / (p + r)])


def _prf_one(y, said):
    v = _prf_counts(y, said)
    return torch.where(torch.tensor([said.sum() == 0, y.sum() == 0, (y + said).sum() == 0]), torch.ones(3), v)


def _prf_tn(y, said):
    tn = ((y == 0) & (said == 0)).sum().float()
    return torch.stack([tn / (1 - said).sum().clamp(min=1), tn / (1 - y).sum().clamp(min=1), 2 * tn / ((1 - y).sum() + (1 - said).sum()).clamp(min=1)])


RIGHT["07.1"] = [
    _prf_counts,
    _prf_sklearn,
    lambda y, s: _prf_counts(y, s).tolist(),
    lambda y, s: tuple(_prf_counts(y, s)),
    lambda y, s: torch.nan_to_num(torch.stack([(y * s).sum() / s.sum(), (y * s).sum() / y.sum(), 2 * (y * s).sum() / (y.sum() + s.sum())]))]
WRONG["07.1"] = [
    (_prf_eps, "the result should be"),
    (_prf_python, "raises ZeroDivisionError"),
    (_prf_one, "the result should be"),
    (_prf_tn, "the negative rows are taken for the positive ones"),
    (lambda y, s: _prf_counts(y, s)[2], "should have shape (3,), yours has ()"),
    (lambda y, s: 100 * _prf_counts(y, s), "you give percent"),
    (lambda y, s: torch.stack([*_prf_counts(y, s)[:2], _prf_counts(y, s)[:2].prod() / _prf_counts(y, s)[:2].sum().clamp(min=1e-9)]), "F1 lacks its factor 2")]


def _ff_loop(x, train):
    out = x.clone()
    flags = torch.zeros_like(x)
    for j in range(x.shape[1]):
        known = [float(v) for v, t in zip(x[:, j], train) if t and (not math.isnan(v))]
        for i in range(len(x)):
            if math.isnan(x[i, j]):
                out[i, j] = sum(known) / len(known)
                flags[i, j] = 1
    return torch.hstack([out, flags])


def _ff_where(x, train):
    missing = x.isnan()
    ok = train[:, None] & ~missing
    mean = torch.where(ok, x, 0).sum(0) / ok.sum(0)
    return torch.cat((torch.where(missing, mean.expand_as(x), x), missing.float()), dim=1)


def _ff_inplace(x, train):
    missing = x.isnan()
    x[missing] = x[train].nanmean(0).expand_as(x)[missing]
    return torch.cat([x, missing.float()], 1)


RIGHT["07.2"] = [
    _ff_loop,
    _ff_where,
    lambda x, train: _ff_loop(x, train).double(),
    lambda x, train: np.concatenate([np.where(np.isnan(x.numpy()), np.nanmean(x[train].numpy(), 0), x.numpy()), np.isnan(x.numpy())], 1)]
WRONG["07.2"] = [
    (_ff_inplace, "changes its argument x in place"),
    (lambda x, t: _ff_loop(x, t).roll(x.shape[1], 1), "the flags come first"),
    (lambda x, t: _ff_loop(x, t)[:, :x.shape[1]], "should have shape (2, 2), yours has (2, 1)"),
    (lambda x, t: torch.cat([torch.where(x.isnan(), x[t].mean(0), x), x.isnan().float()], 1), "A mean over a column with gaps is NaN"),
    (lambda x, t: torch.stack([_ff_loop(x, t)[:, :x.shape[1]], x.isnan().float()], 2).flatten(1), "the table should be"),
    (lambda x, t: torch.cat([torch.where(x.isnan(), x.nan_to_num()[t].mean(0), x), x.isnan().float()], 1), "the gaps count as 0 in the mean"),
    (lambda x, t: torch.cat([torch.where(x.isnan(), x[~t].nanmean(0) if (~t).any() else x.nanmean(0), x), x.isnan().float()], 1), "the table should be"),
    (lambda x, t: torch.cat([x, x.isnan().float()], 1), "the gaps are still there")]


def _mix_eye(x, y, classes, other, lam):
    t = torch.eye(classes)[y]
    l = lam.unsqueeze(1)
    return (l * x + (1 - l) * x[other], l * t + (1 - l) * t[other])


def _mix_lerp(x, y, classes, other, lam):
    t = F.one_hot(y, num_classes=classes).float()
    return (torch.lerp(x[other], x, lam[:, None]), torch.lerp(t[other], t, lam[:, None]))


def _mix_loop(x, y, classes, other, lam):
    a, b = (torch.empty_like(x), torch.zeros(len(x), classes))
    for i in range(len(x)):
        j = int(other[i])
        a[i] = lam[i] * x[i] + (1 - lam[i]) * x[j]
        b[i, y[i]] += lam[i]
        b[i, y[j]] += 1 - lam[i]
    return (a, b)


def _mix_assign(x, y, classes, other, lam):
    b = torch.zeros(len(x), classes)
    i = torch.arange(len(x))
    b[i, y] = lam
    b[i, y[other]] = 1 - lam
    return (_mix_eye(x, y, classes, other, lam)[0], b)


RIGHT["07.3"] = [
    _mix_eye,
    _mix_lerp,
    _mix_loop]
WRONG["07.3"] = [
    (_mix_assign, "the second share overwrites the first where both rows have one class"),
    (lambda x, y, c, o, l: _mix_eye(x, y, c, o, 1 - l), "the shares are exchanged"),
    (lambda x, y, c, o, l: (l * x + (1 - l) * x[o], _mix_eye(x, y, c, o, l)[1]), "should have shape (2, 1), yours has (2, 2)"),
    (lambda x, y, c, o, l: (_mix_eye(x, y, c, o, l)[0], l * y + (1 - l) * y[o]), "the class numbers are mixed"),
    (lambda x, y, c, o, l: (_mix_eye(x, y, c, o, l)[0], y), "should have shape (1, 2), yours has (1,)"),
    (lambda x, y, c, o, l: (_mix_eye(x, y, c, o, l)[0], F.one_hot(y, c).float()), "the labels are not mixed"),
    (lambda x, y, c, o, l: (l[:, None] * x + (1 - l[:, None]) * o[:, None], _mix_eye(x, y, c, o, l)[1]), "the mixed inputs should be"),
    (lambda x, y, c, o, l: (l[:, None] * x + x[o], l[:, None] * torch.eye(c)[y] + torch.eye(c)[y[o]]), "the mixed inputs should be")]

RIGHT["07.4"] = [
    lambda g, k: torch.tensor([sorted(set(g.tolist())).index(v) % k for v in g.tolist()]),
    lambda g, k: torch.searchsorted(g.unique(), g) % k,
    lambda g, k: np.unique(g.numpy(), return_inverse=True)[1] % k,
    lambda g, k: [int((g.unique() < v).sum()) % k for v in g]]
WRONG["07.4"] = [
    (lambda g, k: torch.arange(len(g)) % k, "rows are dealt out"),
    (lambda g, k: g % k, "you take the remainder of the group's name"),
    (lambda g, k: torch.unique_consecutive(g, return_inverse=True)[1] % k, "the fold should be"),
    (lambda g, k: g.argsort().argsort() % k, "rows are numbered in the order of their groups"),
    (lambda g, k: g.unique(return_inverse=True)[1] % k + 1, "Folds are counted from 0"),
    (lambda g, k: (g.unique(return_inverse=True)[1] % k).float(), "should have dtype torch.int64, yours has torch.float32"),
    (lambda g, k: g.unique() % k, "should have shape (2,), yours has (1,)"),
    (lambda g, k: g.unique(return_inverse=True)[1] // k, "the fold should be")]


def _ap_sklearn(p, y):
    from sklearn.metrics import average_precision_score
    return average_precision_score(y, p)


def _ap_loop(p, y):
    area, last, hits, total = (0.0, 0.0, 0, int(y.sum()))
    for k, i in enumerate(sorted(range(len(p)), key=lambda i: -p[i]), 1):
        hits += int(y[i])
        area += (hits / total - last) * hits / k
        last = hits / total
    return area


def _ap_formula(p, y):
    y = y[p.argsort(descending=True)].float()
    tp = y.cumsum(0)
    P = tp / torch.arange(1, len(y) + 1)
    R = tp / y.sum()
    return (torch.diff(R, prepend=torch.zeros(1)) * P).sum()


def _ap_prev(p, y):
    y = y[p.argsort(descending=True)].float()
    tp = y.cumsum(0)
    P = tp / torch.arange(1, len(y) + 1)
    R = tp / y.sum()
    return (torch.diff(R) * P[1:]).sum()


def _ap_oldP(p, y):
    y = y[p.argsort(descending=True)].float()
    tp = y.cumsum(0)
    P = torch.cat([torch.ones(1), tp / torch.arange(1, len(y) + 1)])
    R = tp / y.sum()
    return (torch.diff(R, prepend=torch.zeros(1)) * P[:-1]).sum()


def _ap_zero(p, y):
    y = y[p.argsort(descending=True)].float()
    tp = y.cumsum(0)
    P = tp / torch.arange(len(y)).clamp(min=1)
    R = tp / y.sum()
    return (torch.diff(R, prepend=torch.zeros(1)) * P).sum()


RIGHT["07.5"] = [
    _ap_sklearn,
    _ap_loop,
    _ap_formula,
    lambda p, y: torch.stack([(y[p >= t] == 1).float().mean() for t in p[y == 1]]).mean(),
    lambda p, y: _ap_formula(p, y).reshape(1)[0]]
WRONG["07.5"] = [
    (_ap_prev, "the first row is left out"),
    (_ap_oldP, "the area should be"),
    (_ap_zero, "the area should be"),
    (lambda p, y: _ap_formula(-p, y), "the scores are sorted upward"),
    (lambda p, y: torch.trapezoid(*(lambda y: ((y.cumsum(0) / torch.arange(1, len(y) + 1)), y.cumsum(0) / y.sum()))(y[p.argsort(descending=True)].float())), "the points are joined by straight lines"),
    (lambda p, y: _ap_formula(p, y) * y.sum(), "the sum is not divided by the number of positives")]


def _ct_loop(p, y, cost_fp, cost_fn):
    best, at = (math.inf, None)
    for t in sorted(p.tolist(), reverse=True):
        cost = sum((cost_fp if v >= t and (not l) else cost_fn if v < t and l else 0 for v, l in zip(p.tolist(), y.tolist())))
        if cost < best: best, at = (cost, t)
    return at


def _ct_cum(p, y, cost_fp, cost_fn):
    s, i = p.sort(descending=True)
    l = y[i]
    cost = cost_fp * (1 - l).cumsum(0) + cost_fn * (l.sum() - l.cumsum(0))
    return s[cost == cost.min()].max()


def ct(strict=False, small=False, acc=False, index=False, cost=False, fpall=False, rates=False):

    def f(p, y, a, b):
        best = None
        for i, t in enumerate(p.tolist()):
            said = p > t if strict else p >= t
            fp, fn = ((said & (y == 0)).sum().item(), (~said & (y == 1)).sum().item())
            if fpall: fp = said.sum().item()
            if rates: fp, fn = (fp / max((y == 0).sum().item(), 1), fn / max((y == 1).sum().item(), 1))
            c = a * fp + b * fn
            key = (c, t if small else -t)
            if best is None or key < best[0]: best = (key, t, i, c)
        return best[2] if index else best[3] if cost else best[1]
    return f


RIGHT["07.6"] = [
    _ct_loop,
    _ct_cum,
    lambda *a: np.float32(_ct_loop(*a)),
    lambda p, y, a, b: max(p, key=lambda t: (-(a * ((p >= t) & (y == 0)).sum() + b * ((p < t) & (y == 1)).sum()).item(), t.item()))]
WRONG["07.6"] = [
    (ct(strict=True), "a row at the threshold is not reported"),
    (ct(small=True), "you take the smallest of equally cheap thresholds"),
    (ct(index=True), "you return the place of the threshold in p"),
    (ct(cost=True), "the threshold should be"),
    (ct(fpall=True), "the threshold should be"),
    (lambda p, y, a, b: ct()(p, y, b, a), "the two costs are exchanged"),
    (lambda p, y, a, b: a / (a + b), "That is the threshold for true probabilities")]
