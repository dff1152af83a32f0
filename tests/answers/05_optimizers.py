"Answers to the exercises of chapter 05, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch

RIGHT, WRONG = {}, {}

RIGHT["05.1"] = [
    1 / 3,
    0.333,
    0.33,
    2 / 6,
    torch.tensor(1 / 3),
    0.3333]
WRONG["05.1"] = [
    (1 / 6, "That is 1 / L"),
    (2 / 3, "you took the factor 3 for L"),
    (1.0, "is too large"),
    (3, "is too large")]

RIGHT["05.2"] = [
    lambda g, s: (s / s.sum()) @ g,
    lambda g, s: torch.einsum("k,kd->d", s.float(), g) / s.sum(),
    lambda g, s: torch.cat([row.expand(n, -1) for row, n in zip(g, s.tolist())]).mean(0),
    lambda g, s: np.average(g.numpy(), axis=0, weights=s.numpy()),
    lambda g, s: sum(n * row for n, row in zip(s, g)) / sum(s)]
WRONG["05.2"] = [
    (lambda g, s: (g * s[:, None]).sum(0) / len(s), "you divide by the number of pieces"),
    (lambda g, s: (g * s[:, None] / s.sum()).mean(0), "you divide by the number of pieces once more"),
    (lambda g, s: (g * s[:, None]).sum(1) / s.sum(), "should have shape (2,), yours has (1,)"),
    (lambda g, s: (g * s[:, None]).sum() / s.sum(), "should have shape (2,), yours has ()"),
    (lambda g, s: g.sum(0) / s.sum(), "the gradients are not multiplied by the sizes"),
    (lambda g, s: (g * (s // s.sum())[:, None]).sum(0), "the gradient should be"),
    (lambda g, s: (g * s[:, None]).sum(0) / s.max(), "the gradient should be")]


def _mb_inplace(grads, momentum):
    buf, out = (torch.zeros(grads.shape[1]), [])
    for g in grads:
        buf.mul_(momentum).add_(g)
        out.append(buf.clone())
    return torch.stack(out)


def _mb_matrix(grads, momentum):
    T = len(grads)
    i = torch.arange(T)
    return torch.tril(float(momentum) ** (i[:, None] - i).clamp(min=0)) @ grads


def _mb_numpy(grads, momentum):
    out = np.zeros_like(grads.numpy())
    b = 0
    for t, g in enumerate(grads.numpy()):
        b = momentum * b + g
        out[t] = b
    return out


def _mb_empty(grads, momentum):
    out = torch.empty_like(grads)
    for t in range(len(grads)): out[t] = grads[t] + (momentum * out[t - 1] if t else 0)
    return out


def _mb_alias(grads, momentum):
    buf, out = (torch.zeros(grads.shape[1]), [])
    for g in grads:
        buf.mul_(momentum).add_(g)
        out.append(buf)
    return torch.stack(out)


def _mb_ema(grads, momentum):
    b, out = (torch.zeros(grads.shape[1]), [])
    for g in grads:
        b = momentum * b + (1 - momentum) * g
        out.append(b)
    return torch.stack(out)


def _mb_last(grads, momentum): return _mb_inplace(grads, momentum)[-1]
def _mb_neg(grads, momentum): return -_mb_inplace(grads, momentum)


def _mb_mutate(grads, momentum):
    buf, out = (grads[0], [grads[0]])
    for g in grads[1:]:
        buf = buf.mul_(momentum).add_(g)
        out.append(buf.clone())
    return torch.stack(out)


def _mb_swapped(grads, momentum):
    b, out = (grads[0], [grads[0]])
    for g in grads[1:]:
        b = b + momentum * g
        out.append(b)
    return torch.stack(out)


RIGHT["05.3"] = [
    _mb_inplace,
    _mb_matrix,
    _mb_numpy,
    _mb_empty]
WRONG["05.3"] = [
    (_mb_alias, "All rows are the last one"),
    (_mb_ema, "the gradient enters with 1 - momentum"),
    (_mb_last, "should have shape (2, 1), yours has (1,)"),
    (_mb_neg, "the buffer should be"),
    (_mb_mutate, "changes its argument grads in place"),
    (_mb_swapped, "the buffer should be")]


def _rm_loop(values, beta):
    m, out = (0.0, [])
    for i in range(len(values)):
        m = beta * m + (1 - beta) * values[i].item()
        out.append(m / (1 - beta ** (i + 1)))
    return torch.tensor(out)


def _rm_weights(values, beta):
    return torch.stack([(values[:t] * (w := torch.tensor([float(beta) ** (t - 1 - i) for i in range(t)]))).sum() / w.sum() for t in range(1, len(values) + 1)])


def _rm_list(values, beta): return _rm_loop(values, beta).tolist()


def _rm_from_first(values, beta):
    m, out = (values[0], [values[0]])
    for v in values[1:]:
        m = beta * m + (1 - beta) * v
        out.append(m)
    return torch.stack(out)


def _rm_off(values, beta):
    m, out = (0.0, [])
    for i, v in enumerate(values):
        m = beta * m + (1 - beta) * v
        out.append(m / (1 - beta ** (i + 2)))
    return torch.stack(out)


def _rm_zero(values, beta):
    m, out = (0.0, [])
    for i, v in enumerate(values):
        m = beta * m + (1 - beta) * v
        out.append(m / (1 - beta ** i))
    return torch.stack(out)


def _rm_uncorrected(values, beta):
    m, out = (0.0, [])
    for v in values:
        m = beta * m + (1 - beta) * v
        out.append(m)
    return torch.stack(out)


def _rm_times(values, beta): return _rm_uncorrected(values, beta) * (1 - beta)
def _rm_mult(values, beta): return torch.stack([m * (1 - beta ** (i + 1)) for i, m in enumerate(_rm_uncorrected(values, beta))])


RIGHT["05.4"] = [
    _rm_loop,
    _rm_weights,
    _rm_list,
    lambda values, beta: _rm_loop(values, beta).numpy(),
    lambda v, b: _rm_loop(v, b).double()]
WRONG["05.4"] = [
    (_rm_from_first, "the mean starts at the first value"),
    (_rm_off, "the exponent is one too large"),
    (_rm_zero, "the exponent begins at 0"),
    (_rm_uncorrected, "the bias correction is missing"),
    (_rm_times, "the mean should be"),
    (_rm_mult, "the mean should be"),
    (lambda v, b: _rm_loop(v, b)[-1], "should have shape (1,), yours has ()"),
    (lambda v, b: _rm_loop(v, b)[:, None], "should have shape (1,), yours has (1, 1)")]


def _wr_mod(t, peak, cycles):
    if t >= 1: return 0.0
    local = t % (1 / cycles) * cycles
    return peak * (1 + math.cos(math.pi * local)) / 2


def _wr_floor(t, peak, cycles):
    k = min(int(t * cycles), cycles - 1)
    return 0.5 * peak * (1 + math.cos(math.pi * (t * cycles - k)))


def _wr_torch(t, peak, cycles):
    u = t * cycles
    u = 1.0 if t == 1 else u - math.floor(u)
    return float(peak / 2 * (1 + torch.cos(torch.tensor(math.pi * u))))


RIGHT["05.5"] = [
    _wr_mod,
    _wr_floor,
    _wr_torch]
WRONG["05.5"] = [
    (lambda t, peak, cycles: peak * (1 + math.cos(math.pi * t * cycles)) / 2, "the rate climbs back along the cosine"),
    (lambda t, peak, cycles: 0.5 * peak * (1 + math.cos(math.pi * (t * cycles - min(math.ceil(t * cycles) - 1, cycles - 1)))), "the rate should be"),
    (lambda t, peak, cycles: peak * (1 - math.cos(math.pi * (t * cycles - min(int(t * cycles), cycles - 1)))) / 2, "the rate rises in each cycle"),
    (lambda t, peak, cycles: peak * math.cos(math.pi / 2 * (t * cycles - min(int(t * cycles), cycles - 1))), "the rate should be"),
    (lambda t, peak, cycles: peak * (1 + math.cos(2 * math.pi * (t * cycles - min(int(t * cycles), cycles - 1)))) / 2, "the rate climbs back along the cosine"),
    (lambda t, peak, cycles: 0.5 * (1 + math.cos(math.pi * (t * cycles - min(int(t * cycles), cycles - 1)))), "the peak is not used")]


def _ams_inplace(p, g, m, v, v_max, t, lr):
    b1, b2 = (0.9, 0.999)
    m = m.lerp(g, 1 - b1)
    v = b2 * v + (1 - b2) * g.square()
    v_max = torch.where(v > v_max, v, v_max)
    denominator = v_max.sqrt() / math.sqrt(1 - b2 ** t) + 1e-08
    return (p - lr / (1 - b1 ** t) * m / denominator, m, v, v_max)


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


def _ams_torch(p, g, m, v, v_max, t, lr):
    with torch.enable_grad():
        w = p.clone().requires_grad_()
        opt = torch.optim.Adam([w], lr=lr, amsgrad=True)
        opt.state[w] = dict(step=torch.tensor(float(t - 1)), exp_avg=m.clone(), exp_avg_sq=v.clone(), max_exp_avg_sq=v_max.clone())
        w.grad = g.clone()
        opt.step()
        s = opt.state[w]
    return (w.detach(), s['exp_avg'], s['exp_avg_sq'], s['max_exp_avg_sq'])


def _ams(p, g, m, v, v_max, t, lr, b1=0.9, b2=0.999, eps_in=False, corr_first=False, mutate=False, plus=False, tt=0, no_m=False, no_v=False, l2=False, order=0, maxnum=False, eps=1e-08, gsq=True):
    if mutate: m = m.mul_(b1).add_((1 - b1) * g)
    else: m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * (g * g if gsq else g.abs())
    c1, c2 = (1 - b1 ** (t + tt), 1 - b2 ** (t + tt))
    if no_m: c1 = 1
    if no_v: c2 = 1
    if corr_first:
        v_max = torch.maximum(v_max, v / c2)
        top = v_max
    elif maxnum:
        v_max = torch.maximum(v_max, v).max().expand_as(v)
        top = v_max / c2
    else:
        v_max = torch.maximum(v_max, v)
        top = v_max / c2
    d = (top + eps).sqrt() if eps_in else top.sqrt() + eps
    step = lr * m / c1 / d
    p = p + step if plus else p - step
    return (p, m, v, v_max) if order == 0 else (p, v, m, v_max) if order == 1 else (p, m, v)


def ams(**k): return lambda p, g, m, v, v_max, t, lr: _ams(p, g, m, v, v_max, t, lr, **k)


RIGHT["05.6"] = [
    _ams_inplace,
    _ams_torch]
WRONG["05.6"] = [
    (ams(corr_first=True), "the bias correction comes before the maximum"),
    (ams(mutate=True), "changes its argument m in place"),
    (ams(plus=True), "the step goes uphill"),
    (ams(tt=-1), "the new p should be"),
    (ams(tt=1), "the new p should be"),
    (ams(order=2), "your answer should give 4 values"),
    (ams(eps_in=True), "ε stands under the root"),
    (ams(eps=0), "ε is missing")]
