"Answers to the exercises of chapter 08, worked out from their statements; each wrong one with words that its verdict must say."
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dlbook.cnn import ResNet

RIGHT, WRONG = {}, {}

RIGHT["08.1"] = [
    20,
    20.0,
    torch.tensor(20),
    nn.Sequential(nn.Conv2d(1, 1, 5, 2, 1), nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 3, dilation=2))(torch.zeros(1, 1, 100, 100)).shape[-1]]
WRONG["08.1"] = [
    (22, "the dilation is forgotten"),
    (21, "you round up"),
    (19, "the padding of the first layer is forgotten"),
    (45, "is too large"),
    (12, "is too small")]

RIGHT["08.2"] = [
    lambda m, w, t: torch.einsum("nchw,nc->nhw", m, w[t]),
    lambda m, w, t: (m * w[t][:, :, None, None]).sum(1),
    lambda m, w, t: torch.stack([(w[c] @ a.flatten(1)).view(a.shape[1:]) for a, c in zip(m, t)]),
    lambda m, w, t: F.conv2d(m, w[:, :, None, None])[torch.arange(len(t)), t]]
WRONG["08.2"] = [
    (lambda m, w, t: torch.einsum("nchw,kc->nkhw", m, w), "These are the maps of all classes"),
    (lambda m, w, t: torch.einsum("nchw,nc->nhw", m, w[t]).relu(), "you cut off what is negative"),
    (lambda m, w, t: (m * w[t][:, :, None, None]).mean(1), "you take the mean over the channels"),
    (lambda m, w, t: (m * w[t][:, :, None, None]).mean((2, 3)), "should have shape (1, 2, 2), yours has (1, 1)"),
    (lambda m, w, t: (m * w[t][:, :, None, None]), "should have shape (1, 2, 2), yours has (1, 1, 2, 2)"),
    (lambda m, w, t: m.mean(1), "the weights are not used"),
    (lambda m, w, t: torch.einsum("nchw,c->nhw", m, w[t[0]]), "all images get the weights of the first image's class"),
    (lambda m, w, t: torch.einsum("nchw,kc->nhw", m, w), "the map should be"),
    (lambda m, w, t: torch.einsum("nchw,nc->nhw", m, w[t]).softmax(1), "the map should be")]


def _rf_back(layers):
    span = 1
    for k, s, d in reversed(layers): span = (span - 1) * s + (k - 1) * d + 1
    return (span, math.prod((s for _, s, _ in layers)))


def _rf_sum(layers):
    return [1 + sum((d * (k - 1) * math.prod((s for _, s, _ in layers[:i])) for i, (k, s, d) in enumerate(layers))), int(np.prod([s for _, s, _ in layers]))]


def rf(first=False, nod=False, nok=False, off=0, keff=False, sumstep=False, nostride=False, start=1):

    def f(layers):
        r, j = (start, 1)
        for k, s, d in layers:
            if first: j *= s
            r += (1 if nod else d) * (k if nok else k - 1) * (1 if nostride else j)
            if not first: j = j + s - 1 if sumstep else j * s
        return (r + off, j)
    return f


RIGHT["08.3"] = [
    _rf_back,
    _rf_sum,
    lambda layers: tuple(torch.tensor(v) for v in _rf_back(layers))]
WRONG["08.3"] = [
    (rf(first=True), "a layer's own stride counts for its reach"),
    (rf(nod=True), "the dilation is forgotten"),
    (rf(nok=True), "A kernel of k places reaches k - 1 steps beyond the first one"),
    (rf(off=-1), "you begin with a field of 0"),
    (rf(sumstep=True), "the field should be"),
    (rf(nostride=True), "the strides do not enter the field"),
    (lambda l: rf()(l)[0], "your answer should give 2 values"),
    (lambda l: (math.prod(k for k, _, _ in l), rf()(l)[1]), "the field should be")]


def _count_formula(n_in, n_out, widths, blocks):
    total = n_in * widths[0] * 9 + 2 * widths[0]
    before = widths[0]
    for i, w in enumerate(widths):
        for b in range(blocks):
            total += 9 * before * w + 2 * w + 9 * w * w + 2 * w
            if b == 0 and (i > 0 or before != w): total += before * w + 2 * w
            before = w
    return total + before * n_out + n_out


def bn(oc=0, rc=1, mom=0.1, eps=1e-05, dim=0, epsout=False, order=0, norm=True, same=False, var2=False):

    def f(x, rm, rv):
        m, v, w = (x.mean(dim, keepdim=dim == 1), x.var(dim, correction=oc, keepdim=dim == 1), x.var(dim, correction=rc))
        d = v.sqrt() + eps if epsout else v if var2 else (v + eps).sqrt()
        out = (x - m) / d
        a, b = ((1 - mom) * rm + mom * m.squeeze(-1) if dim == 0 else rm, (1 - mom) * rv + mom * w if dim == 0 else rv)
        return (out, a, b) if order == 0 else (out, b, a) if order == 1 else (a, b, out) if order == 2 else out
    return f


def cw(stem=1, bn=2, short=0, head=1, stembn=1, ks=9):

    def f(n_in, n_out, widths, blocks):
        total = (n_in * widths[0] * 9 + (2 * widths[0] if stembn else 0)) * stem
        before = widths[0]
        for i, w in enumerate(widths):
            for b in range(blocks):
                total += 9 * before * w + bn * w + 9 * w * w + bn * w
                if short == 0 and b == 0 and (i > 0): total += before * w + bn * w
                if short == 2 or (short == 3 and b == 0): total += before * w + bn * w
                if short == 4 and b == 0 and (before != w): total += before * w + bn * w
                if short == 5 and b == 0 and (i > 0): total += before * w
                if short == 6 and b == 0 and (i > 0): total += 9 * before * w + bn * w
                before = w
        return total + before * n_out + head * n_out
    return f


RIGHT["08.4"] = [
    _count_formula,
    lambda n_in, n_out, widths, blocks: sum(p.numel() for p in ResNet(n_in, n_out, widths, blocks).parameters() if p.requires_grad),
    lambda *a: torch.tensor(float(_count_formula(*a)))]
WRONG["08.4"] = [
    (cw(stem=0), "the stem is left out"),
    (cw(bn=0), "the number of weights should be"),
    (cw(bn=4), "the number of weights should be"),
    (cw(short=1), "the convolutions in the shortcuts are left out"),
    (cw(short=2), "each block has a convolution in its shortcut"),
    (cw(short=3), "the first stage has a convolution in its shortcut"),
    (cw(short=4), "a stage of the same width as the one before has no convoluti")]


def _tr_loop(x, w, stride):
    B, C, H, W = x.shape
    _, O, k, l = w.shape
    out = torch.zeros(B, O, (H - 1) * stride + k, (W - 1) * stride + l)
    for i in range(H):
        for j in range(W): out[:, :, i * stride:i * stride + k, j * stride:j * stride + l] += torch.einsum('bc,cokl->bokl', x[:, :, i, j], w)
    return out


def _tr_fold(x, w, stride):
    B, C, H, W = x.shape
    _, O, k, l = w.shape
    return F.fold(torch.einsum('bcn,cokl->boklnx'.replace('x', ''), x.flatten(2), w).reshape(B, O * k * l, H * W), ((H - 1) * stride + k, (W - 1) * stride + l), (k, l), stride=stride)


def _tr_grad(x, w, stride):
    B, C, H, W = x.shape
    _, O, k, l = w.shape
    return torch.nn.grad.conv2d_input((B, O, (H - 1) * stride + k, (W - 1) * stride + l), w, x, stride=stride)


def _tr_dilate(x, w, stride):
    B, C, H, W = x.shape
    _, O, k, l = w.shape
    z = torch.zeros(B, C, (H - 1) * stride + 1, (W - 1) * stride + 1)
    z[:, :, ::stride, ::stride] = x
    return F.conv2d(F.pad(z, (l - 1, l - 1, k - 1, k - 1)), w.flip(2, 3).transpose(0, 1))


def _tr_set(x, w, stride):
    B, C, H, W = x.shape
    _, O, k, l = w.shape
    out = torch.zeros(B, O, (H - 1) * stride + k, (W - 1) * stride + l)
    for i in range(H):
        for j in range(W): out[:, :, i * stride:i * stride + k, j * stride:j * stride + l] = torch.einsum('bc,cokl->bokl', x[:, :, i, j], w)
    return out


def _tr_noflip(x, w, stride):
    B, C, H, W = x.shape
    _, O, k, l = w.shape
    z = torch.zeros(B, C, (H - 1) * stride + 1, (W - 1) * stride + 1)
    z[:, :, ::stride, ::stride] = x
    return F.conv2d(F.pad(z, (l - 1, l - 1, k - 1, k - 1)), w.transpose(0, 1))


RIGHT["08.5"] = [
    lambda x, w, s: F.conv_transpose2d(x, w, stride=s),
    _tr_loop,
    _tr_fold,
    _tr_grad,
    _tr_dilate]
WRONG["08.5"] = [
    (_tr_set, "windows that overlap overwrite each other"),
    (_tr_noflip, "the kernel is flipped"),
    (lambda x, w, s: F.conv_transpose2d(x, w.transpose(0, 1), stride=s), "the two dimensions of channels are exchanged"),
    (lambda x, w, s: F.conv_transpose2d(x, w.flip(2, 3), stride=s), "the kernel is flipped"),
    (lambda x, w, s: F.conv_transpose2d(x, w, stride=1), "the stride is forgotten"),
    (lambda x, w, s: F.conv2d(x, w, stride=s), "should have shape (1, 1, 3, 3), yours has (1, 1, 1, 1)"),
    (lambda x, w, s: F.interpolate(x, scale_factor=s), "should have shape (1, 1, 3, 3), yours has (1, 1, 2, 2)")]


def _fft_conj(x, w):
    s = x.shape
    full = torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(w, s=s).conj(), s=s)
    return full[:s[0] - w.shape[0] + 1, :s[1] - w.shape[1] + 1]


def _fft_flip(x, w):
    n = (x.shape[0] + w.shape[0] - 1, x.shape[1] + w.shape[1] - 1)
    full = torch.fft.irfft2(torch.fft.rfft2(x, s=n) * torch.fft.rfft2(w.flip(0, 1), s=n), s=n)
    return full[w.shape[0] - 1:x.shape[0], w.shape[1] - 1:x.shape[1]]


def _fft(x, w, conj=True, s=True, crop=0, flip=False):
    n = x.shape
    W = torch.fft.rfft2(w.flip(0, 1) if flip else w, s=n)
    full = torch.fft.irfft2(torch.fft.rfft2(x) * (W.conj() if conj else W), s=n if s else None)
    k, l = w.shape
    return full[:n[0] - k + 1, :n[1] - l + 1] if crop == 0 else full[k - 1:, l - 1:] if crop == 1 else full if crop == 2 else full[k // 2:n[0] - k + 1 + k // 2, l // 2:n[1] - l + 1 + l // 2]


RIGHT["08.6"] = [
    _fft_conj,
    _fft_flip,
    lambda x, w: F.conv2d(x[None, None], w[None, None])[0, 0],
    lambda x, w: _fft_conj(x.double(), w.double())]
WRONG["08.6"] = [
    (lambda x, w: _fft(x, w, conj=False), "the conjugate is missing"),
    (lambda x, w: _fft(x, w, conj=False, crop=1), "That is the convolution"),
    (lambda x, w: _fft(x, w, s=False), "irfft2 takes an even width for granted"),
    (lambda x, w: _fft(x, w, crop=1), "you cut off the first rows and columns"),
    (lambda x, w: _fft(x, w, crop=2), "That is the correlation on the ring"),
    (lambda x, w: _fft(x, w, crop=3), "the correlation should be"),
    (lambda x, w: torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(w)), "should have shape (2, 1), yours has (2, 2)"),
    (lambda x, w: torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.fft2(w, s=x.shape).conj())[:x.shape[0] - w.shape[0] + 1, :x.shape[1] - w.shape[1] + 1], "should have dtype torch.float32, yours has torch.complex64"),
    (lambda x, w: _fft(x.T, w), "the correlation should be")]
