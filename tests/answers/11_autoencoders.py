"Answers to the exercises of chapter 11, worked out from their statements; each wrong one with words that its verdict must say."
import math

import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["11.1"] = [
    1.75 * 6 / 64,
    0.164,
    10.5 / 64,
    0.1640625,
    0.16406]
WRONG["11.1"] = [
    (10.5, "That is the number of bits of a block"),
    (1.75, "That is the number of bits of a single number"),
    (2 * 6 / 64, "each number takes two bits"),
    (1.75 / 64, "is too small"),
    (1.75 * 6 / 8, "is too large"),
    (1.213 * 6 / 64, "That is the rate in nats")]
def kl(a, b, c, d): return 0.5 * (d - b + (b - d).exp() + (a - c) ** 2 / d.exp() - 1)


RIGHT["11.2"] = [
    lambda a, b, c, d: 0.5 * (d - b + (b - d).exp() + (a - c) ** 2 / d.exp() - 1),
    lambda a, b, c, d: torch.distributions.kl_divergence(torch.distributions.Normal(a, (b / 2).exp()), torch.distributions.Normal(c, (d / 2).exp())),
    lambda a, b, c, d: (d.exp().sqrt() / b.exp().sqrt()).log() + (b.exp() + (a - c).square()) / (2 * d.exp()) - 0.5]
WRONG["11.2"] = [
    (lambda a, b, c, d: kl(c, d, a, b), "p and q are swapped"),
    (lambda a, b, c, d: 2 * kl(a, b, c, d), "It is twice as large as it should be"),
    (lambda a, b, c, d: kl(a, b, c, d).sum(), "Return a number for each place"),
    (lambda a, b, c, d: kl(a, b, c, d).mean(), "should have shape (1,), yours has ()"),
    (lambda a, b, c, d: kl(a, 2 * b, c, 2 * d), "the given logarithms are taken as those of the deviations"),
    (lambda a, b, c, d: 0.5 * ((d / b).log() + (b + (a - c) ** 2) / d - 1), "What is given are logarithms of variances"),
    (lambda a, b, c, d: 0.5 * (d - b + (b - d).exp() + (a - c) ** 2 / b.exp() - 1), "the divergence should be"),
    (lambda a, b, c, d: 0.5 * (a ** 2 + b.exp() - b - 1), "the divergence should be"),
    (lambda a, b, c, d: kl(a, b, c, d).sum(-1), "should have shape (1,), yours has ()")]
def sp(m, r): return r * torch.log(r / m) + (1 - r) * torch.log((1 - r) / (1 - m))


RIGHT["11.3"] = [
    lambda z, r: (r * torch.log(r / z.mean(0)) + (1 - r) * torch.log((1 - r) / (1 - z.mean(0)))).sum(),
    lambda z, r: sum(r * math.log(r / float(c.mean())) + (1 - r) * math.log((1 - r) / (1 - float(c.mean()))) for c in z.T),
    lambda z, r: torch.distributions.kl_divergence(torch.distributions.Bernoulli(torch.tensor(r)), torch.distributions.Bernoulli(z.mean(0))).sum()]
WRONG["11.3"] = [
    (lambda z, r: sp(z.mean(0), r).mean(), "you take the mean over the columns"),
    (lambda z, r: sp(z, r).sum(), "the penalty should be"),
    (lambda z, r: sp(z, r).mean(0).sum(), "the formula is applied to each code"),
    (lambda z, r: sp(z.mean(1), r).sum(), "you average over the columns"),
    (lambda z, r: sp(z.mean(0), r), "should have shape (), yours has (1,)"),
    (lambda z, r: sp(z.mean(), r), "one mean is taken of all codes"),
    (lambda z, r: (r * torch.log(r / z.mean(0))).sum(), "The second term is missing"),
    (lambda z, r: sp(z.sum(0), r).sum(), "the penalty should be")]


def _slerp_atan(a, b, t):
    u, v = (a / a.norm(), b / b.norm())
    w = 2 * torch.atan2((u - v).norm(), (u + v).norm())
    return torch.sin((1 - t) * w) / torch.sin(w) * a + torch.sin(t * w) / torch.sin(w) * b


def _slerp_acos(a, b, t):
    w = math.acos(float(a.double() @ b.double() / (a.double().norm() * b.double().norm())))
    return (math.sin((1 - t) * w) * a + math.sin(t * w) * b) / math.sin(w)


def slerp(norm='both', swap=False, deg=False, cos=False, nosin=False, unit=False, fn='acos'):

    def f(a, b, t):
        d = a @ b
        if norm == 'both': d = d / (a.norm() * b.norm())
        if norm == 'one': d = d / a.norm()
        if norm == 'sq': d = d / (a.norm() * b.norm()) ** 2
        w = torch.acos(d.clamp(-1, 1)) if fn == 'acos' else torch.asin(d.clamp(-1, 1)) if fn == 'asin' else d
        if deg: w = torch.rad2deg(w)
        if swap: t = 1 - t
        if unit: a, b = (a / a.norm(), b / b.norm())
        s = 1 if nosin else w.sin()
        return torch.sin((1 - t) * w) / s * a + torch.sin(t * w) / s * b
    return f


RIGHT["11.4"] = [
    _slerp_atan,
    _slerp_acos,
    lambda a, b, t: (lambda w: torch.sin((1 - t) * w) / w.sin() * a + (t * w).sin() / w.sin() * b)(F.cosine_similarity(a, b, dim=0).acos())]
WRONG["11.4"] = [
    (slerp(norm="no"), "the code should be"),
    (slerp(norm="one"), "the code should be"),
    (slerp(swap=True), "the way is gone backward"),
    (slerp(deg=True), "the angle is in degrees"),
    (slerp(nosin=True), "the division by sin ω is missing"),
    (slerp(unit=True), "both codes are shortened to length 1"),
    (lambda a, b, t: torch.lerp(a, b, t), "That is the straight line")]


def _alarm_loop(scores, rate):
    for s in sorted(scores.tolist()):
        if sum((v > s for v in scores.tolist())) <= rate * len(scores): return torch.tensor(s)


def _alarm_matrix(scores, rate): return scores[(scores[None] > scores[:, None]).sum(1) <= rate * len(scores)].min()
def _alarm_sorted(scores, rate): return scores.sort(descending=True).values[min(math.floor(rate * len(scores)), len(scores) - 1)]


RIGHT["11.5"] = [
    _alarm_loop,
    _alarm_matrix,
    _alarm_sorted,
    lambda s, r: s[torch.stack([(s > t).double().mean() <= r + 1e-12 for t in s])].min(),
    lambda s, r: s.kthvalue(max(len(s) - math.floor(r * len(s)), 1)).values,
    lambda s, r: float(_alarm_loop(s, r))]
WRONG["11.5"] = [
    (lambda s, r: torch.quantile(s, 1 - r), "A quantile lies between two scores in general"),
    (lambda s, r: torch.quantile(s, r), "the threshold should be"),
    (lambda s, r: s.sort().values[math.floor(r * len(s)) if r < 1 else -1], "the threshold should be"),
    (lambda s, r: s.sort(descending=True).values[min(math.ceil(r * len(s)), len(s) - 1)], "rate · n is rounded up"),
    (lambda s, r: s.sort(descending=True).values[max(math.floor(r * len(s)) - 1, 0)], "you are off by one"),
    (lambda s, r: s.max(), "no alarm at all is allowed"),
    (lambda s, r: s.sort(descending=True).values[min(round(r * len(s)), len(s) - 1)], "rate · n is rounded to the nearest number"),
    (lambda s, r: s.sort(descending=True).values[min(math.floor(r * len(s)), len(s) - 1)][None], "should have shape (), yours has (1,)"),
    (lambda s, r: (s > s.quantile(1 - r)).sum(), "should have dtype torch.float32, yours has torch.int64")]


def _vq_cdist(z, codebook):
    q = codebook[torch.cdist(z, codebook).argmin(1)]
    return z + (q - z).detach()


def _vq_function(z, codebook):

    class Through(torch.autograd.Function):

        @staticmethod
        def forward(ctx, z, c): return c[((z[:, None] - c) ** 2).sum(2).argmin(1)]

        @staticmethod
        def backward(ctx, g): return (g, None)
    return Through.apply(z, codebook)


def _vq_minus(z, codebook):
    with torch.no_grad(): q = torch.stack([min(codebook, key=lambda c: float((c - v).norm())) for v in z])
    return q + z - z.detach()


def vq(mode='st', near='min', det=True):

    def f(z, c):
        d = ((z[:, None] - c) ** 2).sum(2) if near != 'dot' else -(z @ c.T)
        if near == 'l1': d = (z[:, None] - c).abs().sum(2)
        i = d.argmax(1) if near == 'max' else d.argmin(1)
        if near == 'col': i = ((z[:, None] - c) ** 2).sum(2).argmin(0)[:len(z)]
        q = c[i]
        return {'st': z + (q - z).detach(), 'q': q, 'qd': q.detach(), 'book': q + z - z.detach(), 'minus': z - (q - z).detach(), 'zd': z.detach() + (q - z), 'avg': (z + q) / 2, 'z': z, 'idx': i, 'double': z + z + (q - 2 * z).detach(), 'req': q.detach().requires_grad_()}[mode]
    return f


RIGHT["11.6"] = [
    _vq_cdist,
    _vq_function,
    _vq_minus]
WRONG["11.6"] = [
    (vq("q"), "The value is right"),
    (vq("qd"), "The value is right"),
    (vq("book"), "The value is right"),
    (vq("minus"), "The correction has the wrong sign"),
    (vq("zd"), "the gradient for z should be"),
    (vq("avg"), "the replaced codes should be"),
    (vq("idx"), "you return the numbers of the rows"),
    (lambda z, c: (vq()(z, c), 0), "should be a tensor, yours is a tuple of tensors; torch.stack makes one of them")]
