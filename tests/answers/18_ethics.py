"Answers to the exercises of chapter 18, worked out from their statements; each wrong one with words that its verdict must say."
import bisect
import math

import numpy as np
import torch
import torch.nn.functional as F

from dlbook.ethics import rdp_epsilon

RIGHT, WRONG = {}, {}

RIGHT["18.1"] = [
    1 / 10,
    (100 * 0.8 / 0.8 - 80) / 200,
    (1 / 3) / (2 / 3) * 0.2 / 0.8 * 0.8,
    torch.tensor(20 / 200)]
WRONG["18.1"] = [
    (1 - 0.8, "the share of wrong ones among those granted"),
    (2 * 0.25 * 0.8, "the base rate is turned around"),
    (0.5 * 0.25, "the true positive rate is missing"),
    (20 / 300, "you divide by all people"),
    (0.5 * 4 * 0.8, "A rate is at most 1"),
    (180 / 200, "who do not pay and are refused"),
    (10, "percent"),
    (0.8, "0.8 is too large"),
    ("10%", "should be a number")]


def _by_counts(y_true, y_pred, group):
    count = torch.zeros(2, 2, 2)
    for g, t, p in zip(group.tolist(), y_true.tolist(), y_pred.tolist()): count[g, t, p] += 1
    rate = count[..., 1] / count.sum(-1)  # (group, truth)
    return (rate[1] - rate[0]).mean()


def _numpy(y_true, y_pred, group):
    t, p, g = (a.numpy() for a in (y_true, y_pred, group))
    rates = [[np.sum(p * (t == truth) * (g == name)) / np.sum((t == truth) * (g == name)) for truth in (0, 1)] for name in (0, 1)]
    return (np.sum(rates[1]) - np.sum(rates[0])) / 2


def _products(y_true, y_pred, group):
    y, p, g = y_true.double(), y_pred.double(), group.double()
    def rate(a, b): return (p @ (a * b)) / (a @ b)
    return 0.5 * (rate(y, g) - rate(y, 1 - g) + rate(1 - y, g) - rate(1 - y, 1 - g))


def rates(y_true, y_pred, group):
    def share(chosen): return y_pred[chosen].double().mean()
    return [[share((group == g) & (y_true == t)) for t in (0, 1)] for g in (0, 1)]


def gaps(*a):
    (fpr0, tpr0), (fpr1, tpr1) = rates(*a)
    return tpr1 - tpr0, fpr1 - fpr0


RIGHT["18.2"] = [_by_counts, _numpy, _products, lambda *a: sum(gaps(*a)) / 2]
WRONG["18.2"] = [
    (lambda y, p, g: sum(gaps(y, p, 1 - g)) / 2, "The sign is turned around"),
    (lambda *a: sum(abs(gap) for gap in gaps(*a)) / 2, "you take absolute values"),
    (lambda *a: sum(gaps(*a)), "That is the sum of the two differences"),
    (lambda *a: max(abs(gap) for gap in gaps(*a)), "That is the larger gap"),
    (lambda *a: gaps(*a)[0], "the true positive rates alone"),
    (lambda *a: gaps(*a)[1], "the difference should be"),
    (lambda *a: (gaps(*a)[0] - gaps(*a)[1]) / 2, "the difference should be"),
    (lambda y, p, g: sum(gaps(p, y, g)) / 2, "truth and decision are exchanged"),
    (lambda y, p, g: p[g == 1].float().mean() - p[g == 0].float().mean(), "the difference of the shares selected"),
    (lambda y, p, g: (y == p)[g == 1].float().mean() - (y == p)[g == 0].float().mean(), "the difference should be"),
    (gaps, "the difference should")]


def _python_max(loss, group): return max((loss[group == g].mean() for g in set(group.tolist())), key=torch.Tensor.item)


def _matrix(loss, group):
    member = (group[None] == group.unique()[:, None]).to(loss)  # (groups, n)
    return (member @ loss / member.sum(1)).amax()


def _scattered(loss, group):
    names, place, sizes = torch.unique(group, return_inverse=True, return_counts=True)
    return (torch.zeros(len(names)).scatter_add(0, place, loss) / sizes).max()


def _worst_found_first(loss, group):
    with torch.no_grad(): worst = max(group.tolist(), key=lambda g: loss[group == g].mean().item())
    chosen = group == worst
    return (loss * chosen).sum() / chosen.sum()


def means(loss, group): return [loss[group == g].mean() for g in group.unique()]


RIGHT["18.3"] = [_python_max, _matrix, _scattered, _worst_found_first]
WRONG["18.3"] = [
    (lambda loss, group: max(m.item() for m in means(loss, group)), "the gradient is lost"),
    (lambda loss, group: torch.stack(means(loss.detach(), group)).max(), "the gradient is lost"),
    (lambda loss, group: torch.tensor([m.item() for m in means(loss, group)], requires_grad=True).max(), "the gradient is lost"),
    (lambda loss, group: torch.stack([loss[group == g].sum() for g in group.unique()]).max(), "Take means"),
    (lambda loss, group: torch.stack(means(loss, group)).mean(), "the mean over the groups"),
    (lambda loss, group: loss.mean(), "the loss should be"),
    (lambda loss, group: loss.max(), "That is the worst person"),
    (lambda loss, group: torch.stack(means(loss, group)).min(), "best off"),
    (lambda loss, group: torch.stack([loss[group == g].mean() for g in range(int(group.max()) + 1)]).max(), "a number that does not occur"),
    (lambda loss, group: torch.stack([loss[group == g].mean() for g in (0, 1)]).max(), "the loss should be"),
    (lambda loss, group: torch.stack(means(loss, group)).logsumexp(0), "the loss should be"),
    (lambda loss, group: torch.stack(means(loss, group)), "should have shape (), yours has (2,)"),
    (means, "should give one number, yours gives a list"),
    (lambda loss, group: group.unique()[torch.stack(means(loss, group)).argmax()], "the loss should")]


def cheaper(p, cost_loss, cost_missed): return torch.minimum((1 - p) * cost_loss, p * cost_missed)


def _saved(p, cost_loss, cost_missed, k):
    costs = cheaper(p, cost_loss, cost_missed)
    return costs.sum() - costs.topk(k).values.sum()


def _one_after_the_other(p, cost_loss, cost_missed, k):
    costs = sorted((min((1 - q) * cost_loss, q * cost_missed) for q in p.tolist()), reverse=True)
    return sum(costs[k:])


def _by_threshold(p, cost_loss, cost_missed, k):
    "Grant above Chow's threshold."
    grant = p > cost_loss / (cost_loss + cost_missed)
    costs = np.where(grant, (1 - p) * cost_loss, p * cost_missed)
    return float(np.sort(costs)[::-1][k:].sum())


def reviewed(costs, order, k): return costs[order[k:]].sum()


def _ignoring(p, cost_loss, cost_missed, k): return cheaper(p, cost_loss, cost_missed).sum()


RIGHT["18.5"] = [_saved, _one_after_the_other, _by_threshold]
WRONG["18.5"] = [
    (lambda p, a, b, k: reviewed(cheaper(p, a, b), (p - 0.5).abs().argsort(), k), "nearest to one half"),
    (lambda p, a, b, k: reviewed(cheaper(p, a, b), (p - a / (a + b)).abs().argsort(), k), "nearest to Chow's threshold"),
    (lambda p, a, b, k: torch.where(p > 0.5, (1 - p) * a, p * b).sort(descending=True).values[k:].sum(), "you decide at one half"),
    (lambda p, a, b, k: cheaper(p, b, a).sort(descending=True).values[k:].sum(), "the two costs are exchanged"),
    (lambda p, a, b, k: cheaper(1 - p, a, b).sort(descending=True).values[k:].sum(), "the two costs are exchanged"),
    (lambda p, a, b, k: cheaper(p, a, b).sort().values[k:].sum(), "the cheapest cases are reviewed"),
    (lambda p, a, b, k: cheaper(p, a, b).sort().values[:-k].sum(), "with k = 0 that leaves nothing"),
    (lambda p, a, b, k: cheaper(p, a, b).sort(descending=True).values[k:].sum() / len(p), "That is the mean"),
    (_ignoring, "the cost should be"),
    (lambda p, a, b, k: cheaper(p, a, b).topk(k).values.sum(), "the cost should be"),
    (lambda p, a, b, k: cheaper(p, a, b).sort(descending=True).values[k:], "should have shape (), yours has (0,)")]


def spent(p): return math.log((1 + p) / (1 - p))


def _solved(answers, p):
    low, high = (1 - p) / 2, (1 + p) / 2  # chance of a 1 if the truth is 0, or 1
    return (answers.float().mean() - low) / (high - low), math.log(high) - math.log(low)


def _each(answers, p):
    a = answers.numpy()
    return np.mean((2 * a - 1 + p) / (2 * p)), np.log1p(p) - np.log1p(-p)


def _enumerated(answers, p):
    chance = {truth: {said: p * (said == truth) + (1 - p) * 0.5 for said in (0, 1)} for truth in (0, 1)}
    epsilon = max(math.log(chance[s][said] / chance[t][said]) for said in (0, 1) for s in (0, 1) for t in (0, 1))
    return [sum(answers.tolist()) / len(answers) / p - (1 / p - 1) / 2, epsilon]


def share(answers, p): return (answers.double().mean() - (1 - p) / 2) / p


RIGHT["18.4"] = [_solved, _each, _enumerated, lambda answers, p: torch.tensor([share(answers, p), 2 * math.atanh(p)])]
WRONG["18.4"] = [
    (lambda a, p: (a.double().mean(), spent(p)), "the estimate is the mean of the answers"),
    (lambda a, p: ((a.double().mean() - 0.5) / p, spent(p)), "you take away 1/2"),
    (lambda a, p: (a.double().mean() - (1 - p) / 2, spent(p)), "divide by p"),
    (lambda a, p: (min(max(float(share(a, p)), 0), 1), spent(p)), "you cut the estimate off"),
    (lambda a, p: ((a.double().mean() - (1 - p)) / p, spent(p)), "the estimate should be"),
    (lambda a, p: (share(a, p), math.log(p / (1 - p))), "people lie with probability 1 - p"),
    (lambda a, p: (share(a, p), (1 + p) / (1 - p)), "the ratio itself"),
    (lambda a, p: (share(a, p), math.log((p + (1 - p) / 2) / (1 - p))), "only half of them do"),
    (lambda a, p: (share(a, p), -spent(p)), "ε should be"),
    (lambda a, p: (share(a, p), len(a) * spent(p)), "for all answers together"),
    (lambda a, p: (share(a, p), math.log2((1 + p) / (1 - p))), "ε should be"),
    (lambda a, p: (spent(p), share(a, p)), "the estimate should be"),
    (share, "your answer should give 2 values")]


def _geometric(epsilon, sample_rate, steps, delta):
    low, high = 0.1, 100.0
    for _ in range(16):
        middle = math.sqrt(low * high)
        if rdp_epsilon(middle, sample_rate, steps, delta) > epsilon: low = middle
        else: high = middle
    return high


def _digits(epsilon, sample_rate, steps, delta):
    "One digit after the other, from the tens to the thousandths; each by halving."
    best = 0.1
    for size in (10, 1, 0.1, 0.01, 0.001):
        low, high = 0, 10
        while high - low > 1:
            middle = (low + high) // 2
            if rdp_epsilon(best + middle * size, sample_rate, steps, delta) > epsilon: low = middle
            else: high = middle
        best += low * size
    return best + 0.001


def _integers(epsilon, sample_rate, steps, delta):
    "The first of the noises 0.1, 0.101, 0.102, … that is enough."
    return 0.1 + 0.001 * bisect.bisect_left(range(99901), -epsilon, key=lambda i: -rdp_epsilon(0.1 + 0.001 * i, sample_rate, steps, delta))


def bisected(epsilon, sample_rate, steps, delta, turned=False, width=5e-4, top=100.0):
    low, high = 0.1, top
    while high - low > width:
        middle = (low + high) / 2
        if (rdp_epsilon(middle, sample_rate, steps, delta) <= epsilon) != turned: high = middle
        else: low = middle
    return high


RIGHT["18.6"] = [_geometric, _digits, _integers]
WRONG["18.6"] = [
    (lambda *a: bisected(*a, turned=True), "Is your comparison turned around?"),
    (lambda *a: 100, "far from the smallest"),
    (lambda epsilon, q, steps, delta: bisected(epsilon, q, 1, delta), "only one step is counted"),
    (lambda epsilon, q, steps, delta: bisected(epsilon, 1.0, steps, delta), "each example is in each batch"),
    (lambda epsilon, q, steps, delta: math.sqrt(2 * math.log(1.25 / delta)) * q * math.sqrt(steps) / epsilon, "a closed formula"),
    (lambda *a: bisected(*a, width=0.02), "the noise multiplier should be"),
    (lambda *a: bisected(*a, top=10.0), "the noise multiplier should be"),
    (lambda epsilon, q, steps, delta: rdp_epsilon(epsilon, q, steps, delta), "the noise multiplier should be"),
    (lambda *a: (bisected(*a), a[0]), "the noise multiplier should have shape ()")]


def _normalized(x, start, slope, epsilon, step_size):
    change = x + step_size * F.normalize(slope, dim=1) - start
    return torch.clamp(start + torch.renorm(change, 2, 0, epsilon), 0, 1)


def _image_by_image(x, start, slope, epsilon, step_size):
    out = []
    for a, s, g in zip(x, start, slope):
        a = a + step_size * g / (g @ g).sqrt()
        far = torch.dist(a, s)
        if far > epsilon: a = s + (a - s) * epsilon / far
        out.append(torch.tensor([min(max(v, 0.0), 1.0) for v in a.tolist()]))
    return torch.stack(out)


def _mixed(x, start, slope, epsilon, step_size):
    "The nearest point of the ball lies between the start and where the step leads."
    there = x + slope * (step_size / slope.pow(2).sum(1, keepdim=True).sqrt())
    share = epsilon / (there - start).norm(dim=1).clamp(min=epsilon)
    return ((1 - share)[:, None] * start + share[:, None] * there).clip(0, 1)


def unit(slope): return slope / slope.norm(dim=1, keepdim=True)


def back(there, start, epsilon): return start + torch.renorm(there - start, 2, 0, epsilon)


def _whole_batch(x, start, slope, epsilon, step_size):
    change = x + step_size * slope / slope.norm() - start
    return (start + change * min(1, epsilon / change.norm())).clamp(0, 1)


def _in_place(x, start, slope, epsilon, step_size):
    x += step_size * unit(slope)
    return back(x, start, epsilon).clamp(0, 1)


RIGHT["18.7"] = [_normalized, _image_by_image, _mixed]
WRONG["18.7"] = [
    (lambda x, s, g, e, t: back(x + t * g.sign(), s, e).clamp(0, 1), "you step by the sign"),
    (lambda x, s, g, e, t: back(x + t * g, s, e).clamp(0, 1), "the length of the gradient"),
    (_whole_batch, "over the whole batch"),
    (lambda x, s, g, e, t: (s + e * unit(x + t * unit(g) - s)).clamp(0, 1), "shorter ones shall stay as they are"),
    (lambda x, s, g, e, t: (s + (x + t * unit(g) - s).clamp(-e, e)).clamp(0, 1), "each pixel is cut at epsilon"),
    (lambda x, s, g, e, t: back(x + t * unit(g), s, e), "pixels leave [0, 1]"),
    (lambda x, s, g, e, t: back((x + t * unit(g)).clamp(0, 1), s, e), "before the length is limited"),
    (lambda x, s, g, e, t: back(x - t * unit(g), s, e).clamp(0, 1), "It looks as if you step down"),
    (lambda x, s, g, e, t: back(x + t * unit(g), x, e).clamp(0, 1), "only the step itself is limited"),
    (lambda x, s, g, e, t: back(s + t * unit(g), s, e).clamp(0, 1), "the next images should be"),
    (lambda x, s, g, e, t: (x + t * unit(g)).clamp(0, 1), "the next images should be"),
    (lambda x, s, g, e, t: back(x + t * F.normalize(g, dim=0), s, e).clamp(0, 1), "the next images should be"),
    (_in_place, "changes its argument x in place")]
