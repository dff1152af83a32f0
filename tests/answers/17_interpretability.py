"Answers to the exercises of chapter 17, worked out from their statements; each wrong one with words that its verdict must say."
import itertools
import math

import numpy as np
import torch

RIGHT, WRONG = {}, {}


def product(a, b): return a * b + a


RIGHT["17.1"] = [
    5,
    (product(2, 0) - product(0, 0)) / 2 + (product(2, 3) - product(0, 3)) / 2,
    2 * 3 / 2 + 2,
    torch.tensor([2.0, 8.0]).mean()]
WRONG["17.1"] = [
    (2, "when it comes first"),
    (8, "when it comes last"),
    (2 * (3 + 1), "gradient times input"),
    (3, "the value of x2"),
    (10, "the sum over both orders"),
    (4, "That is the gradient at x"),
    (6, "6 is too large"),
    ((5, 3), "should have shape ()")]


def _rows(model, x, target):
    out = []
    for row, number in zip(x, target):
        z = torch.tensor(row.tolist(), requires_grad=True)
        model(z[None])[0, number].backward()
        out.append((z * z.grad).detach())
    return torch.stack(out)


def _hot(model, x, target):
    z = x.clone().requires_grad_()
    scores = model(z)
    scores.backward(torch.nn.functional.one_hot(target, scores.shape[1]).to(scores))
    return x * z.grad


def _jacobian(model, x, target):
    full = torch.autograd.functional.jacobian(model, x)  # (n, classes, n, d)
    rows = range(len(x))
    return full[rows, target, rows] * x


def _per_example(model, x, target):
    slope = torch.func.grad(lambda row, t: model(row[None])[0].gather(0, t[None])[0])
    return torch.func.vmap(slope)(x, target) * x


def slopes(model, x, pick):
    z = x.detach().clone().requires_grad_()
    return torch.autograd.grad(pick(model(z)), z)[0]


def _on_x(model, x, target):
    x.requires_grad_()
    model(x)[range(len(x)), target].sum().backward()
    return x.detach() * x.grad


def _wrong_axis(model, x, target): return x * slopes(model, x, lambda out: out[:, target].sum())


RIGHT["17.2"] = [_rows, _hot, _jacobian, _per_example]
WRONG["17.2"] = [
    (lambda model, x, target: slopes(model, x, lambda out: out[range(len(x)), target].sum()), "That is the gradient alone"),
    (lambda model, x, target: x * slopes(model, x, lambda out: out.sum()), "the scores of all classes"),
    (lambda model, x, target: x * slopes(model, x, lambda out: out[range(len(x)), target].mean()), "the mean over the batch"),
    (lambda model, x, target: x * slopes(model, x, lambda out: out.max(1).values.sum()), "each row's largest score"),
    (lambda model, x, target: x * slopes(model, x, lambda out: out.softmax(1)[range(len(x)), target].sum()), "probabilities"),
    (lambda model, x, target: x * slopes(model, x, lambda out: out.log_softmax(1)[range(len(x)), target].sum()), "the attribution should be"),
    (lambda model, x, target: _rows(model, x, target).abs(), "the sign is kept"),
    (lambda model, x, target: _rows(model, x, target).sum(1), "should have shape (2, 2), yours has (2,)"),
    (_on_x, "it requires a gradient now"),
    (_wrong_axis, "the attribution should be"),
    (lambda model, x, target: torch.autograd.grad(model(x).sum(), x)[0] * x, "does not require grad")]


def _one_by_one(f, x, baseline, steps):
    total = torch.zeros_like(x)
    for k in range(steps):
        point = baseline + (2 * k + 1) / (2 * steps) * (x - baseline)
        point.requires_grad_()
        f(point[None]).squeeze().backward()
        total += point.grad
    return total * (x - baseline) / steps


def along(f, x, baseline, at):
    points = torch.lerp(baseline.expand(len(at), -1), x.expand(len(at), -1), torch.as_tensor(at, dtype=x.dtype)[:, None]).requires_grad_()
    return torch.autograd.grad(f(points).sum(), points)[0]


def _between_ends(f, x, baseline, steps):
    ends = torch.linspace(0, 1, steps + 1)
    return along(f, x, baseline, (ends[:-1] + ends[1:]) / 2).mean(0) * (x - baseline)


def _by_alpha(f, x, baseline, steps):
    "The pieces' lengths are the weights."
    middles = np.arange(0.5, steps) / steps
    return torch.einsum("kd,d->d", along(f, x, baseline, middles), (x - baseline) / steps)


def middles(steps): return (torch.arange(steps) + 0.5) / steps


def _trapezoids(f, x, baseline, steps):
    found = along(f, x, baseline, torch.linspace(0, 1, steps + 1))
    return (found[:-1] + found[1:]).mean(0) / 2 * (x - baseline)


RIGHT["17.3"] = [_one_by_one, _between_ends, _by_alpha]
WRONG["17.3"] = [
    (lambda f, x, b, n: along(f, x, b, torch.arange(n) / n).mean(0) * (x - b), "the beginning of each piece"),
    (lambda f, x, b, n: along(f, x, b, torch.arange(1, n + 1) / n).mean(0) * (x - b), "the end of each piece"),
    (lambda f, x, b, n: along(f, x, b, torch.linspace(0, 1, n)).mean(0) * (x - b), "from one end of the path to the other"),
    (lambda f, x, b, n: along(f, x, b, middles(n)).mean(0) * x, "multiply by x - baseline"),
    (lambda f, x, b, n: along(f, x, b, middles(n)).mean(0), "That is the mean gradient"),
    (lambda f, x, b, n: along(f, x, b, middles(n)).sum(0) * (x - b), "the gradients are summed"),
    (lambda f, x, b, n: along(f, x, b, middles(n)).mean(0) * (b - x), "The sign is turned around"),
    (lambda f, x, b, n: along(f, x, 0 * b, middles(n)).mean(0) * x, "the attribution should be"),
    (lambda f, x, b, n: along(f, x, 0 * b, middles(n)).mean(0) * (x - b), "the attribution should be"),
    (lambda f, x, b, n: along(f, x, b, [1.0])[0] * (x - b), "at x alone"),
    (_trapezoids, "the attribution should be"),
    (lambda f, x, b, n: along(f, x, b, middles(n)) * (x - b), "should have shape (2,), yours has (1, 2)")]


def _hits(maps, masks):
    hits = 0
    for values, inside in zip(maps, masks):
        row, col = divmod(int(values.argmax()), values.shape[1])
        hits += bool(inside[row, col])
    return hits / len(maps)


def _best_inside(maps, masks):
    "The best of all is inside if nothing outside is larger."
    inside = maps.masked_fill(~masks, -math.inf).amax((1, 2))
    return (inside == maps.amax((1, 2))).float().mean()


def _numpy(maps, masks):
    n = len(maps)
    return float(masks.numpy().reshape(n, -1)[np.arange(n), maps.numpy().reshape(n, -1).argmax(1)].mean())


RIGHT["17.4"] = [_hits, _best_inside, _numpy]
WRONG["17.4"] = [
    (lambda maps, masks: _hits(maps.abs(), masks), "the largest size"),
    (lambda maps, masks: _hits(-maps, masks), "the smallest value"),
    (lambda maps, masks: 1 - _hits(maps, masks), "the share of the maps that miss"),
    (lambda maps, masks: _hits(maps, ~masks), "the share of the maps that miss"),
    (lambda maps, masks: _hits(maps, masks) * len(maps), "the number of hits"),
    (lambda maps, masks: masks.float().mean(), "the share of the pixels inside"),
    (lambda maps, masks: _hits(maps * masks, masks), "the share should be"),
    (lambda maps, masks: ((maps * masks).amax((1, 2)) == maps.amax((1, 2))).float().mean(), "that 0 is the largest"),
    (lambda maps, masks: (maps * masks).sum() / maps.sum(), "the share should be"),
    (lambda maps, masks: masks.flatten()[maps.argmax()].float(), "the share should be"),
    (lambda maps, masks: masks.flatten(1).gather(1, maps.flatten(1).argmax(1, keepdim=True)).float(), "should have shape (), yours has (2, 1)")]


def _pascal(keep):
    m, d = keep.shape
    out = torch.zeros(m)
    for i, row in enumerate(keep.tolist()):
        s = sum(row)
        if 0 < s < d: out[i] = (d - 1) / (math.comb(d, s) * s * (d - s))
    return out


def _gamma(keep):
    d, s = keep.shape[1], keep.float().sum(1)
    log_ways = torch.lgamma(torch.tensor(d + 1.0)) - torch.lgamma(s + 1) - torch.lgamma(d - s + 1)
    return ((d - 1) / (log_ways.exp() * s * (d - s))).nan_to_num(posinf=0.0)


def _beta(keep):
    "By (s - 1)! (d - s - 1)! (d - 1) / d!, which is the same."
    d = keep.shape[1]
    def weigh(s): return math.factorial(s - 1) * math.factorial(d - s - 1) * (d - 1) / math.factorial(d) if s % d else 0.0
    return np.array([weigh(int(s)) for s in keep.sum(1)], dtype=np.float32)


def _counted(keep):
    "The number of coalitions of each size, by counting them."
    d = keep.shape[1]
    sizes = torch.tensor(list(itertools.product((0, 1), repeat=d))).sum(1)
    ways, s = sizes.bincount(), keep.sum(1)
    return torch.where(keep.any(1) & ~keep.all(1), (d - 1) / (ways[s] * s * (d - s)), 0.0)


def kernel(keep, ends=0.0, top=None, below=lambda d, s: math.comb(d, s) * s * (d - s)):
    d = keep.shape[1]
    return torch.tensor([ends if s % d == 0 else (d - 1 if top is None else top(d)) / below(d, s) for s in keep.sum(1).tolist()])


RIGHT["17.5"] = [_pascal, _gamma, _beta, _counted]
WRONG["17.5"] = [
    (lambda keep: kernel(keep, below=lambda d, s: s * (d - s)), "the binomial coefficient is missing"),
    (lambda keep: kernel(keep, top=lambda d: 1, below=math.comb), "only the binomial coefficient is there"),
    (lambda keep: kernel(keep, top=lambda d: 1), "d - 1 above the fraction is missing"),
    (lambda keep: kernel(keep, ends=1.0), "none and all get a weight"),
    (lambda keep: kernel(keep, ends=math.inf), "For none and all the formula divides by 0"),
    (lambda keep: torch.tensor([kernel(row[None], below=lambda d, s: 0) for row in keep]), "For none and all the formula divides by 0"),
    (lambda keep: kernel(keep) / kernel(keep).sum(), "sum to 1"),
    (lambda keep: kernel(keep, top=lambda d: d), "the weights should be"),
    (lambda keep: kernel(keep, ends=1e6), "the weights should be"),
    (lambda keep: kernel(keep.T), "add over the coalitions")]


def _isin(a, b, k): return torch.isin(a.abs().flatten().topk(k).indices, b.abs().flatten().argsort(descending=True)[:k]).float().mean()


def _masks(a, b, k):
    first, second = (m.abs() >= m.abs().flatten().msort()[-k] for m in (a, b))
    return int((first & second).sum()) / k


def _loops(a, b, k):
    def top(m): return sorted(np.ndindex(*m.shape), key=lambda place: -abs(m[place].item()))[:k]
    chosen = top(b)
    return sum(place in chosen for place in top(a)) / k


def places(m, k): return set(m.flatten().topk(k).indices.tolist())


RIGHT["17.6"] = [_isin, _masks, _loops]
WRONG["17.6"] = [
    (lambda a, b, k: len(places(a, k) & places(b, k)) / k, "negative values do not count"),
    (lambda a, b, k: len(places(a.abs(), k) & places(b.abs(), k)) / len(places(a.abs(), k) | places(b.abs(), k)), "by the union"),
    (lambda a, b, k: len(places(a.abs(), k) & places(b.abs(), k)), "the number of shared elements"),
    (lambda a, b, k: _masks(a, b, k) * k / a.numel(), "the number of elements of a map"),
    (lambda a, b, k: (a.abs().flatten().topk(k)[1] == b.abs().flatten().topk(k)[1]).float().mean(), "in the same order"),
    (lambda a, b, k: len(set(a.abs().flatten().topk(k)[0].tolist()) & set(b.abs().flatten().topk(k)[0].tolist())) / k, "the share should be"),
    (lambda a, b, k: len(places(-a.abs(), k) & places(-b.abs(), k)) / k, "the share should be"),
    (lambda a, b, k: torch.isin(a.abs().topk(min(k, a.shape[1])).indices, b.abs().topk(min(k, a.shape[1])).indices).float().mean(), "the share should be")]
