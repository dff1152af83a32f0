"Answers to the exercises of chapter 03, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["03.1"] = [
    math.log(10),
    2.303,
    2.3026,
    -math.log(0.1),
    torch.tensor(10.0).log()]
WRONG["03.1"] = [
    (math.log2(10), "That is in bits"),
    (1.0, "That is the logarithm to base 10"),
    (0.1, "That is the probability of the right class"),
    (-math.log(10), "The sign is wrong"),
    (10, "is too large"),
    (0, "is too small"),
    (2.3, "is too small")]


def _grad_loop(s, y):
    out = torch.softmax(s, 1)
    for i, c in enumerate(y): out[i, c] -= 1
    return out / len(s)


def _grad_index(s, y):
    p = s.log_softmax(1).exp()
    p[torch.arange(len(y)), y] -= 1
    return p.div(len(y)).numpy()


RIGHT["03.2"] = [
    lambda s, y: (torch.softmax(s, 1) - F.one_hot(y, s.shape[1])) / len(y),
    lambda s, y: torch.autograd.functional.jacobian(lambda z: F.cross_entropy(z, y), s),
    _grad_loop,
    _grad_index]
WRONG["03.2"] = [
    (lambda s, y: torch.softmax(s, 1) - F.one_hot(y, s.shape[1]), "the mean is missing"),
    (lambda s, y: (F.one_hot(y, s.shape[1]) - torch.softmax(s, 1)) / len(y), "the sign is turned"),
    (lambda s, y: (torch.softmax(s, 1) - F.one_hot(y, s.shape[1])) / s.numel(), "you divide by the number of scores"),
    (lambda s, y: (torch.softmax(s, 1) - F.one_hot(y, s.shape[1])) / s.shape[1], "you divide by the number of classes"),
    (lambda s, y: (torch.softmax(s, 0) - F.one_hot(y, s.shape[1])) / len(y), "softmax runs over the samples"),
    (lambda s, y: (torch.softmax(s, 1) - F.one_hot(y, s.shape[1])).mean(0), "should have shape (1, 2), yours has (2,)"),
    (lambda s, y: (torch.sigmoid(s) - F.one_hot(y, s.shape[1])) / len(y), "the gradient should be"),
    (lambda s, y: (torch.softmax(s, 1) - y) / len(y), "the gradient should be"),
    (lambda s, y: F.cross_entropy(s, y), "should have shape (1, 2), yours has ()")]

RIGHT["03.3"] = [
    lambda p, t, q: torch.maximum(q * (t - p), (q - 1) * (t - p)).mean(),
    lambda p, t, q: torch.where(t >= p, q * (t - p), (1 - q) * (p - t)).mean(),
    lambda p, t, q: (q * F.relu(t - p) + (1 - q) * F.relu(p - t)).mean(),
    lambda p, t, q: ((t - p) * (q - (t < p).float())).mean(),
    lambda p, t, q: (0.5 * (t - p).abs() + (q - 0.5) * (t - p)).mean().item()]
WRONG["03.3"] = [
    (lambda p, t, q: torch.maximum(q * (t - p), (q - 1) * (t - p)).sum(), "you sum; give the mean."),
    (lambda p, t, q: torch.maximum(q * (p - t), (q - 1) * (p - t)).mean(), "the sides are swapped"),
    (lambda p, t, q: torch.where(t >= p, q * (t - p), (q - 1) * (p - t)).mean(), "the second branch is negative"),
    (lambda p, t, q: torch.where(t >= p, q * (t - p), (1 - q) * (t - p)).mean(), "the second branch is negative"),
    (lambda p, t, q: torch.maximum(q * (t - p), (q - 1) * (t - p)), "should have shape (), yours has (1,)"),
    (lambda p, t, q: torch.minimum(q * (t - p), (q - 1) * (t - p)).mean(), "you take the smaller of the two branches"),
    (lambda p, t, q: torch.where(t >= p, q * (t - p) ** 2, (1 - q) * (t - p) ** 2).mean(), "the loss should be"),
    (lambda p, t, q: torch.quantile((t - p).abs(), q), "the loss should be"),
    (lambda p, t, q: torch.maximum(q * (t - p), (q - 1) * (t - p)).mean(0), "should have shape (), yours has (3,)")]

RIGHT["03.4"] = [
    lambda s, y, q: ((1 - torch.softmax(s, 1).gather(1, y[:, None])[:, 0] ** q) / q).mean(),
    lambda s, y, q: -torch.expm1(-q * F.cross_entropy(s, y, reduction="none")).mean() / q,
    lambda s, y, q: sum((1 - float(row.softmax(0)[c]) ** q) / q for row, c in zip(s, y)) / len(y),
    lambda s, y, q: (1 - (torch.softmax(s, 1) * F.one_hot(y, s.shape[1])).sum(1).pow(q)).mean() / q]
WRONG["03.4"] = [
    (lambda s, y, q: (1 - torch.softmax(s, 1)[torch.arange(len(y)), y]) ** q / q, "should have shape (), yours has (1,)"),
    (lambda s, y, q: ((1 - torch.softmax(s, 1)[torch.arange(len(y)), y]) ** q / q).mean(), "1 - p is taken to the power q"),
    (lambda s, y, q: (1 - torch.softmax(s, 0)[torch.arange(len(y)), y] ** q).mean() / q, "the loss should be"),
    (lambda s, y, q: (1 - s[torch.arange(len(y)), y] ** q).mean() / q, "the loss should be"),
    (lambda s, y, q: (1 - torch.softmax(s, 1)[torch.arange(len(y)), y] ** q) / q, "should have shape (), yours has (1,)"),
    (lambda s, y, q: (1 - torch.softmax(s, 1)[torch.arange(len(y)), y].mean() ** q) / q, "the probabilities are averaged first")]


def _sentence_mask(scores, target, lengths):
    mask = torch.arange(scores.shape[1]) < lengths[:, None]
    return F.cross_entropy(scores[mask], target[mask])


def _sentence_loop(scores, target, lengths):
    total = 0
    for s, t, n in zip(scores, target, lengths.tolist()): total = total + F.cross_entropy(s[:n], t[:n], reduction='sum')
    return total / lengths.sum()


def _sentence_ignore(scores, target, lengths):
    target = target.clone()
    for i, n in enumerate(lengths): target[i, n:] = -100
    return F.cross_entropy(scores.transpose(1, 2), target)


def _sentence_product(scores, target, lengths):
    mask = (torch.arange(scores.shape[1])[None] < lengths[:, None]).float()
    return (F.cross_entropy(scores.movedim(2, 1), target, reduction='none') * mask).sum() / mask.sum()


def _sentence_mean_of_means(scores, target, lengths): return torch.stack([F.cross_entropy(s[:n], t[:n]) for s, t, n in zip(scores, target, lengths.tolist())]).mean()
def _sentence_divided_by_all(scores, target, lengths): return _sentence_mask(scores, target, lengths) * lengths.sum() / target.numel()
def _sentence_by_count(scores, target, lengths): return _sentence_mask(scores, target, lengths) * lengths.sum() / len(lengths)


def _sentence_view(scores, target, lengths):
    mask = (torch.arange(scores.shape[1])[None] < lengths[:, None]).float()
    return (F.cross_entropy(scores.reshape(scores.shape[0], scores.shape[2], -1), target, reduction='none') * mask).sum() / mask.sum()


def _sentence_inclusive(scores, target, lengths):
    mask = torch.arange(scores.shape[1]) <= lengths[:, None]
    return F.cross_entropy(scores[mask], target[mask])


def _sentence_zeroed(scores, target, lengths):
    mask = torch.arange(scores.shape[1]) < lengths[:, None]
    return F.cross_entropy((scores * mask[..., None]).transpose(1, 2), target * mask)


RIGHT["03.5"] = [
    _sentence_mask,
    _sentence_loop,
    _sentence_ignore,
    _sentence_product]
WRONG["03.5"] = [
    (_sentence_mean_of_means, "you average each sentence first"),
    (_sentence_divided_by_all, "you divide by all positions"),
    (_sentence_by_count, "the loss should be"),
    (_sentence_view, "a reshape mixed up positions and classes"),
    (_sentence_inclusive, "one position of the filling counts"),
    (_sentence_zeroed, "the loss should be"),
    (lambda s, t, n: F.cross_entropy(s, t), "raises RuntimeError"),
    (lambda s, t, n: F.cross_entropy(s.transpose(1, 2), t), "the filling counts")]

RIGHT["03.6"] = [
    lambda classes, eps: math.log((1 - eps + eps / classes) / (eps / classes)),
    lambda classes, eps: math.log1p(classes * (1 - eps) / eps),
    lambda K, e: np.log(K - (K - 1) * e) - np.log(e),
    lambda classes, eps: torch.tensor((classes - (classes - 1) * eps) / eps).log()]
WRONG["03.6"] = [
    (lambda classes, eps: math.log((1 - eps) / eps), "all of eps went to one other class"),
    (lambda classes, eps: math.log((1 - eps) * (classes - 1) / eps), "eps is spread over the other classes only"),
    (lambda classes, eps: (1 - eps + eps / classes) / (eps / classes), "That is the ratio of the probabilities"),
    (lambda classes, eps: -math.log((1 - eps + eps / classes) / (eps / classes)), "The sign is turned around"),
    (lambda classes, eps: math.log2((1 - eps + eps / classes) / (eps / classes)), "the logarithm has the base 2"),
    (lambda classes, eps: 1 - eps, "the gap should be"),
    (lambda classes, eps: math.log(1 - eps + eps / classes), "the gap should be")]
