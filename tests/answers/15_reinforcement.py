"Answers to the exercises of chapter 15, worked out from their statements; each wrong one with words that its verdict must say."
import math

import torch

RIGHT, WRONG = {}, {}

RIGHT["15.1"] = [
    1.125,
    9 / 8,
    0.5 + 0.625,
    sum(r * 0.5 ** k for k, r in enumerate([0, 0, 2, 0, 10]))]
WRONG["15.1"] = [
    (12, "That is the sum without the discount"),
    (0.5625, "Count the steps"),
    (2.25, "Count the steps"),
    (6, "is too large"),
    (0.875, "is too small"),
    (0.25 + 0.3125, "Count the steps")]

RIGHT["15.2"] = [
    lambda r, p, q, e, g: r + g * q * (1 - e) - p,
    lambda r, p, q, e, g: torch.where(e > 0, r - p, r + g * q - p),
    lambda r, p, q, e, g: torch.stack([a + (0 if d else g * c) - b for a, b, c, d in zip(r, p, q, e)])]
WRONG["15.2"] = [
    (lambda r, p, q, e, g: r + g * q - p, "At an end the potential of the next state counts as 0"),
    (lambda r, p, q, e, g: r + (g * q - p) * (1 - e), "At an end the potential of the state that was left is still subtracted"),
    (lambda r, p, q, e, g: r + q * (1 - e) - p, "The potential of the next state is discounted by γ"),
    (lambda r, p, q, e, g: r - g * q * (1 - e) + p, "The sign is turned"),
    (lambda r, p, q, e, g: r + g * (q * (1 - e) - p), "Only the potential of the next state is discounted"),
    (lambda r, p, q, e, g: (r + g * q * (1 - e) - p).sum(), "should have shape (1,), yours has ()"),
    (lambda r, p, q, e, g: r * (1 - e) + g * q * (1 - e) - p, "the reward should be")]


def _es_loop(reward, next_q, ended, gamma, eps):
    out = []
    for r, q, e in zip(reward.tolist(), next_q.tolist(), ended.tolist()):
        p = [eps / len(q)] * len(q)
        p[q.index(max(q))] += 1 - eps
        out.append(r + (0 if e else gamma * sum((a * b for a, b in zip(p, q)))))
    return torch.tensor(out)


def _es_policy(reward, next_q, ended, gamma, eps):
    p = torch.full_like(next_q, eps / next_q.shape[1]).scatter_add(1, next_q.argmax(1, keepdim=True), torch.full((len(next_q), 1), 1.0 - eps))
    return reward + gamma * (1 - ended) * (p * next_q).sum(-1)


def es(mask=True, eps1=False, maxonly=False, meanonly=False, other=False, k1=False, summ=False, wrongmask=False, rmask=False, nog=False, dim=1, swap=False):

    def f(r, q, e, g, eps):
        if swap: eps = 1 - eps
        m, mu = (q.amax(dim), q.mean(dim))
        v = m if maxonly else mu if meanonly else (1 - eps) * m + eps * (q.sum(dim) - m) / max(q.shape[1] - 1, 1) if other else (1 - eps) * m + eps * q.sum(dim) if summ else m + eps * mu if k1 else (1 - eps) * m + eps * mu
        k = e if wrongmask else 1 - e if mask else 1
        return (r + g * v) * (1 - e) if rmask else r + (1 if nog else g) * k * v
    return f


RIGHT["15.3"] = [
    _es_loop,
    _es_policy,
    lambda r, q, e, g, eps: torch.where(e == 1, r, r + g * ((1 - eps) * q.amax(1) + eps * q.mean(1)))]
WRONG["15.3"] = [
    (es(mask=False), "An episode that has ended brings nothing more"),
    (es(maxonly=True), "That is Q-learning"),
    (es(meanonly=True), "That is the target of a policy that is always random"),
    (es(other=True), "The random action can be the best one too"),
    (es(summ=True), "ε is not divided by the number of actions"),
    (lambda r, q, e, g, eps: (es()(r, q, e, g, eps))[:, None], "should have shape (1,), yours has (1, 1)"),
    (lambda r, q, e, g, eps: r + g * (1 - e)[:, None] * q, "should have shape (1,), yours has (1, 2)"),
    (lambda r, q, e, g, eps: g * (1 - e) * ((1 - eps) * q.amax(1) + eps * q.mean(1)), "the target should be"),
    (lambda r, q, e, g, eps: es()(r, q, e, g, eps) - q.amax(1), "the target should be")]


def _ns_loop(rewards, values, gamma, n):
    T, out = (len(rewards), [])
    for t in range(T):
        end = min(t + n, T)
        out.append(sum((gamma ** (k - t) * rewards[k] for k in range(t, end))) + gamma ** (end - t) * values[end])
    return torch.stack(out)


def _ns_repeat(rewards, values, gamma, n):
    T = len(rewards)
    y = torch.cat([values, values[-1:].expand(n)])
    y = values.clone()
    for _ in range(n): y = torch.cat([rewards + gamma * y[1:], values[-1:]])
    return y[:T]


def ns(off=0, lastg=False, zero=False, nov=False, nog=False, absg=False, full=False, vt=False):

    def f(rewards, values, gamma, n):
        T, out = (len(rewards), [])
        for t in range(T):
            end = min(t + n + off, T)
            g = lambda k: 1 if nog else gamma ** (k if absg else k - t)
            s = sum((g(k) * rewards[k] for k in range(t, end)), torch.tensor(0.0))
            if nov or (zero and t + n > T): pass
            elif full: s = s + gamma ** n * values[end]
            elif vt: s = s + gamma ** (end - t) * values[min(end, T - 1)]
            elif lastg: s = s + values[end]
            else: s = s + g(end) * values[end]
            out.append(s)
        return torch.stack(out)
    return f


def _ns_cut(rewards, values, gamma, n): return _ns_loop(rewards, values, gamma, n)[:max(len(rewards) - n + 1, 0)]


RIGHT["15.4"] = [
    _ns_loop,
    _ns_repeat]
WRONG["15.4"] = [
    (ns(off=1), "one reward too many counts"),
    (ns(off=-1), "one reward is missing"),
    (ns(lastg=True), "the targets should be"),
    (ns(zero=True), "the targets should be"),
    (ns(nov=True), "The value behind the last reward is missing"),
    (ns(absg=True), "the discount begins at the start of the episode"),
    (ns(full=True), "Near the end fewer than n rewards are left"),
    (_ns_cut, "should have shape (2,), yours has (1,)"),
    (lambda r, v, g, n: torch.cat([_ns_loop(r, v, g, n), v[-1:]]), "should have shape (2,), yours has (3,)")]

RIGHT["15.5"] = [
    lambda n, o, r: torch.softmax((n - o).sum(1), 0) @ r,
    lambda n, o, r: (lambda l: ((l - l.max()).exp() * r).sum() / (l - l.max()).exp().sum())((n - o).sum(1)),
    lambda n, o, r: (lambda l: sum(math.exp(a - max(l)) * float(b) for a, b in zip(l, r)) / sum(math.exp(a - max(l)) for a in l))((n.double().sum(1) - o.double().sum(1)).tolist())]
WRONG["15.5"] = [
    (lambda n, o, r: ((n - o).sum(1).exp() * r).mean(), "That is the plain estimate"),
    (lambda n, o, r: ((n - o).sum(1).exp() * r).sum() / (n - o).sum(1).exp().sum(), "With long episodes this overflows"),
    (lambda n, o, r: torch.softmax((o - n).sum(1), 0) @ r, "The ratio is turned"),
    (lambda n, o, r: torch.softmax((n - o).mean(1), 0) @ r, "A product of ratios is a sum of logarithms"),
    (lambda n, o, r: torch.softmax((n - o).prod(1), 0) @ r, "the estimate should be"),
    (lambda n, o, r: torch.softmax(n.sum(1), 0) @ r, "The old policy has no say"),
    (lambda n, o, r: ((n - o).sum(1).softmax(0) * r), "should have shape (), yours has (2,)"),
    (lambda n, o, r: (((n - o).exp() * r[:, None]).sum() / (n - o).exp().sum()), "the estimate should be")]
