"Autoencoders from scratch: equal to torch, scikit-learn and SciPy; bounds that are bounds; errors at the door."
import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

import dlbook.kit.loaders  # noqa: F401  keeps a warning of torch's away
from dlbook import autoencoders
from dlbook.autoencoders import *
from dlbook.kit.exercises import find, judge
from dlbook.kit.loaders import device_dls
from fastai.callback.core import TrainEvalCallback
from fastai.callback.schedule import Learner

fast = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10**6)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same_gradients(ours, theirs, inputs):
    to = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    for g, h in zip(*(torch.autograd.grad(out, inputs, to, retain_graph=True) for out in (ours, theirs))):
        torch.testing.assert_close(g, h)


# Principal components

@fast
@given(seeds, st.integers(2, 12), st.integers(1, 7), st.data())
def test_pca_as_scikit_learns(seed, n, d, data):
    k = data.draw(st.integers(1, min(n, d)))
    x = normal(seed, n, d) * torch.arange(d, 0, -1) + 3
    mean, components = pca(x, k)
    theirs = PCA(k, svd_solver="full").fit(x.numpy())
    np.testing.assert_allclose(mean, theirs.mean_, atol=1e-9)
    assert components.shape == (k, d)
    torch.testing.assert_close(components @ components.T, torch.eye(k, dtype=torch.float64))
    if k < n:  # the last direction of n points is arbitrary, they span only n - 1
        np.testing.assert_allclose(np.abs((components.numpy() * theirs.components_).sum(1)), 1, atol=1e-6)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_pca_says_what_k_it_can_do(k):
    with pytest.raises(ValueError, match=f"expected k from 1 to 3, given {k}"): pca(torch.randn(5, 3), k)


def test_pca_says_what_it_takes():
    with pytest.raises(TypeError, match="expected x as a tensor, given ndarray"): pca(np.zeros((3, 3)), 1)
    with pytest.raises(TypeError, match="expected x of floating-point numbers, given torch.int64"): pca(torch.ones(3, 3).long(), 1)
    with pytest.raises(ValueError, match=r"expected x with 2 dimensions and a sample, given \(3,\)"): pca(torch.ones(3), 1)
    with pytest.raises(ValueError, match=r"given \(0, 3\)"): pca(torch.ones(0, 3), 1)


@fast
@given(seeds, st.integers(1, 4), st.integers(1, 4), st.integers(4, 9))
def test_cosines_as_scipys_angles(seed, k, m, d):
    a, b = normal(seed, k, d), normal(seed + 1, m, d)
    cosines = subspace_cosines(a, b)
    np.testing.assert_allclose(cosines, np.cos(np.sort(subspace_angles(a.T.numpy(), b.T.numpy()))), atol=1e-7)
    assert (cosines <= 1).all() and (cosines.diff() <= 0).all()


def test_cosines_of_the_same_and_of_orthogonal_subspaces():
    a = normal(0, 3, 8)
    torch.testing.assert_close(subspace_cosines(a, normal(1, 3, 3) @ a), torch.ones(3, dtype=torch.float64))
    assert subspace_cosines(torch.eye(5)[:2], torch.eye(5)[3:]).abs().max() < 1e-6
    with pytest.raises(ValueError, match=r"rows of one length, given \(2, 3\) and \(2, 4\)"):
        subspace_cosines(torch.ones(2, 3), torch.ones(2, 4))


# Autoencoders

@fast
@given(seeds, st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(1, 4))
def test_dense_is_linear_layers_with_gelu_between(seed, sizes, n):
    torch.manual_seed(seed)
    net, x = dense(sizes), torch.randn(n, sizes[0], requires_grad=True)
    h = x
    linear = [m for m in net if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] + [linear[-1].out_features] == sizes
    for i, layer in enumerate(linear): h = F.linear(h if i == 0 else F.gelu(h), layer.weight, layer.bias)
    torch.testing.assert_close(net(x), h)
    same_gradients(net(x), h, (x, linear[0].weight))


def test_dense_takes_images_and_gives_shapes():
    assert dense([12, 5, 6], (1, 2, 3))(torch.randn(4, 3, 2, 2)).shape == (4, 1, 2, 3)
    assert any(isinstance(m, nn.Tanh) for m in dense([3, 2, 1], act=nn.Tanh))
    with pytest.raises(ValueError, match=r"expected a shape of 6 numbers, given \(2, 2\)"): dense([3, 6], (2, 2))
    for sizes in ([3], [3, 0], [3, 2.0], []):
        with pytest.raises(ValueError, match="expected at least 2 whole numbers from 1"): dense(sizes)


def test_an_autoencoder_is_its_halves_in_a_row():
    torch.manual_seed(0)
    model = Autoencoder(nn.Linear(5, 2), nn.Linear(2, 5))
    x = torch.randn(3, 5)
    chain = nn.Sequential(model.encoder, model.decoder)
    assert torch.equal(model(x), chain(x)) and torch.equal(model.encode(x), chain[0](x))
    assert torch.equal(model.decode(model.encode(x)), model(x))
    chain2 = Autoencoder(nn.Linear(5, 2), nn.Linear(2, 5))
    chain2.load_state_dict(model.state_dict())
    assert torch.equal(chain2(x), model(x))
    with pytest.raises(ValueError, match=r"expected a decoder that gives \(3, 5\), given \(3, 4\)"):
        Autoencoder(nn.Linear(5, 2), nn.Linear(2, 4))(x)


def test_a_linear_autoencoder_becomes_pca():
    x = normal(0, 60, 6) * torch.tensor([3.0, 2.0, 1.0, 0.3, 0.2, 0.1])
    torch.manual_seed(0)
    model = Autoencoder(nn.Linear(6, 2), nn.Linear(2, 6)).double()
    opt = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = F.mse_loss(model(x), x)
        loss.backward()
        return loss
    opt.step(closure)
    mean, components = pca(x, 2)
    assert subspace_cosines(model.decoder.weight.detach().T, components).min() > 0.9999
    torch.testing.assert_close(model(x), mean + (x - mean) @ components.T @ components, rtol=0, atol=0.01)


@fast
@given(seeds, st.sampled_from([1.0, 255.0, 2.0]))
def test_psnr_by_its_definition(seed, peak):
    a, b = peak * torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed)), peak * torch.rand(2, 1, 4, 4)
    assert psnr(a, b, peak).item() == pytest.approx(10 * math.log10(peak ** 2 / ((a - b) ** 2).mean().item()), abs=1e-3)


def test_psnr_says_what_it_takes():
    assert psnr(torch.zeros(1, 2), torch.full((1, 2), 0.1)).item() == pytest.approx(20, abs=1e-4)
    assert psnr(torch.ones(3), torch.ones(3)).item() == math.inf
    with pytest.raises(ValueError, match="images of one shape"): psnr(torch.zeros(2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="expected a peak above 0, given 0"): psnr(torch.zeros(2), torch.zeros(2), 0)


def test_noise_is_added_in_training_only():
    model = DenoisingAutoencoder(nn.Identity(), nn.Identity(), noise=0.5)
    x = torch.full((200, 200), 2.0)
    torch.manual_seed(3)
    out = model(x)
    torch.manual_seed(3)
    torch.testing.assert_close(out, x + 0.5 * torch.randn(200, 200))
    assert torch.equal(model.eval()(x), x)
    first, again = (model.corrupt(x, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again) and (first - x).std().item() == pytest.approx(0.5, rel=0.02)
    assert model.corrupt(x.double()).dtype == torch.float64
    assert isinstance(model, Autoencoder)
    for noise in (-0.1, math.nan):
        with pytest.raises(ValueError, match="expected noise of at least 0"): DenoisingAutoencoder(nn.Identity(), nn.Identity(), noise)


@fast
@given(seeds, st.integers(1, 5), st.integers(0, 4))
def test_top_k_keeps_the_largest(seed, k, more):
    z = normal(seed, 3, k + more).requires_grad_()
    out = TopK(k)(z)
    assert (out != 0).sum(1).tolist() == [k] * 3
    mask = z >= z.sort(descending=True).values[:, k - 1:k]
    theirs = z * mask
    torch.testing.assert_close(out, theirs)
    same_gradients(out, theirs, (z,))


def test_top_k_says_what_it_takes():
    assert TopK(2)(torch.tensor([-1.0, -3.0, -2.0])).tolist() == [-1, 0, -2]  # the largest, not those largest in size
    for k in (0, -1, 1.5):
        with pytest.raises(ValueError, match="expected k, a whole number from 1"): TopK(k)
    with pytest.raises(ValueError, match="expected codes of at least 3 numbers, given 2"): TopK(3)(torch.ones(1, 2))


# Convolutions backward

@fast
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3),
       st.integers(0, 1), st.booleans())
def test_conv_transpose2d_as_torchs(seed, c_in, c_out, h, w, kh, kw, stride, padding, biased):
    if (h - 1) * stride + kh - 2 * padding < 1 or (w - 1) * stride + kw - 2 * padding < 1: return
    x, weight = normal(seed, 2, c_in, h, w).requires_grad_(), normal(seed + 1, c_in, c_out, kh, kw).requires_grad_()
    bias = normal(seed + 2, c_out).requires_grad_() if biased else None
    ours = conv_transpose2d(x, weight, bias, stride, padding)
    theirs = F.conv_transpose2d(x, weight, bias, stride, padding)
    torch.testing.assert_close(ours, theirs)
    same_gradients(ours, theirs, (x, weight, bias) if biased else (x, weight))


def test_conv_transpose2d_says_what_it_takes():
    with pytest.raises(ValueError, match=r"given \(1, 2, 3, 3\) and \(3, 2, 2, 2\)"):
        conv_transpose2d(torch.ones(1, 2, 3, 3), torch.ones(3, 2, 2, 2))
    with pytest.raises(ValueError, match="expected input"): conv_transpose2d(torch.ones(2, 3, 3), torch.ones(2, 2, 2, 2))


@fast
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(1, 3), st.integers(1, 5))
def test_conv_halves_fit_together(channels, factor, n_code):
    size = factor * 2 ** (len(channels) - 1)
    encoder, decoder = conv_encoder(channels, size, n_code), conv_decoder(channels, size, n_code)
    x = torch.randn(2, channels[0], size, size)
    z = encoder(x)
    assert z.shape == (2, n_code) and decoder(z).shape == x.shape
    assert [m.out_channels for m in encoder if isinstance(m, nn.Conv2d)] == channels[1:]
    assert [m.out_channels for m in decoder if isinstance(m, nn.ConvTranspose2d)] == channels[-2::-1]
    assert isinstance(encoder[-1], nn.Linear) and isinstance(decoder[-1], nn.ConvTranspose2d)
    assert sum(isinstance(m, nn.GELU) for m in encoder) == sum(isinstance(m, nn.GELU) for m in decoder) == len(channels) - 1


@pytest.mark.parametrize("make", [conv_encoder, conv_decoder])
def test_conv_halves_say_what_they_take(make):
    for size in (6, 2, 1):
        with pytest.raises(ValueError, match=f"a size that can be halved 2 times, given {size}"): make([1, 2, 3], size, 4)
    with pytest.raises(ValueError, match="expected at least 2 whole numbers"): make([1], 8, 4)


# Scores and bits

@fast
@given(seeds, st.integers(2, 40))
def test_auroc_as_scikit_learns(seed, n):
    rng = torch.Generator().manual_seed(seed)
    scores, positive = torch.randint(0, 6, (n,), generator=rng), torch.rand(n, generator=rng) > 0.5
    positive[0], positive[1] = True, False
    assert auroc(scores.float(), positive).item() == pytest.approx(roc_auc_score(positive, scores))
    assert auroc(-scores.float(), positive).item() == pytest.approx(1 - roc_auc_score(positive, scores))


def test_auroc_says_what_it_takes():
    for labels in (torch.ones(3), torch.zeros(3)):
        with pytest.raises(ValueError, match="expected both kinds, given only one"): auroc(torch.ones(3), labels)
    with pytest.raises(ValueError, match=r"scores and labels \(n,\), given \(3,\) and \(2,\)"): auroc(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="scores and labels"): auroc(torch.ones(3, 1), torch.ones(3, 1))


@fast
@given(st.floats(-4, 4), st.floats(0.2, 6))
def test_bits_are_those_of_a_distribution_over_whole_numbers(mu, scale):
    q = torch.arange(-150.0, 151).double()[:, None]
    bits = logistic_bits(q, torch.tensor([mu]).double(), torch.tensor([scale]).double())
    assert (2 ** -bits).sum().item() == pytest.approx(1, abs=1e-5)
    cdf = lambda v: torch.sigmoid((v - mu) / scale)
    near = (q - mu).abs() < 3 * scale + 1
    torch.testing.assert_close(bits[near], -torch.log2(cdf(q + 0.5) - cdf(q - 0.5))[near], rtol=1e-4, atol=1e-4)


def test_bits_have_gradients_and_broadcast():
    q, mu, scale = normal(0, 4, 3) * 2, normal(1, 3).requires_grad_(), (normal(2, 3).abs() + 0.5).requires_grad_()
    ours = logistic_bits(q, mu, scale)
    theirs = -torch.log2(torch.sigmoid((q + 0.5 - mu) / scale) - torch.sigmoid((q - 0.5 - mu) / scale))
    torch.testing.assert_close(ours, theirs)
    same_gradients(ours, theirs, (mu, scale))
    assert torch.isfinite(logistic_bits(torch.tensor([500.0]), torch.zeros(1), torch.ones(1))).all()
    with pytest.raises(ValueError, match="expected scales above 0, given 0"): logistic_bits(q, mu, torch.zeros(3))


# Variational

@fast
@given(seeds, st.lists(st.integers(1, 4), max_size=3))
def test_kl_as_torchs(seed, shape):
    mu, logvar = (normal(seed + i, *shape).requires_grad_() if shape else normal(seed + i, 1).squeeze().requires_grad_() for i in range(2))
    ours, theirs = kl_normal(mu, logvar), kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(ours, theirs)
    same_gradients(ours, theirs, (mu, logvar))


def test_kl_says_what_it_takes():
    assert kl_normal(torch.zeros(2), torch.zeros(2)).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"mu and logvar of one shape, given \(2,\) and \(2, 1\)"): kl_normal(torch.zeros(2), torch.zeros(2, 1))


@fast
@given(seeds, st.integers(1, 5))
def test_reparameterize_as_rsample(seed, n):
    mu, logvar = normal(seed, n, 3).requires_grad_(), normal(seed + 1, n, 3).requires_grad_()
    torch.manual_seed(seed)
    ours = reparameterize(mu, logvar)
    torch.manual_seed(seed)
    theirs = Normal(mu, (logvar / 2).exp()).rsample()
    torch.testing.assert_close(ours, theirs)
    same_gradients(ours, theirs, (mu, logvar))
    rng = lambda: torch.Generator().manual_seed(seed)
    assert torch.equal(reparameterize(mu, logvar, rng()), reparameterize(mu, logvar, rng()))
    assert ours.dtype == torch.float64


def vae(k=2, d=4, seed=0):
    torch.manual_seed(seed)
    return VAE(dense([d, 8, 2 * k]), dense([k, 8, d], (1, 1, d)), k)


def bits_of(seed, n=5, d=4): return (normal(seed, n, 1, 1, d, dtype=torch.float32) > 0).float()


def test_a_vae_encodes_means_first():
    model, x = vae(), bits_of(0)
    mu, logvar = model.encode(x)
    assert torch.equal(torch.cat([mu, logvar], 1), model.encoder(x)) and mu.shape == (5, 2)
    for width in (2, 3, 5):
        with pytest.raises(ValueError, match=rf"an encoder that gives \(n, 4\), given \(5, {width}\)"):
            VAE(dense([4, width]), dense([2, 4]), 2).encode(x)


def test_a_vae_draws_in_training_only():
    model, x = vae(), bits_of(0)
    torch.manual_seed(1)
    logits, mu, logvar = model(x)
    torch.manual_seed(1)
    assert torch.equal(logits, model.decode(reparameterize(mu, logvar)))
    model.eval()
    assert torch.equal(model(x)[0], model.decode(mu)) and logits.shape == x.shape


def test_samples_are_decoded_codes_of_the_prior():
    model = vae()
    rng = lambda: torch.Generator().manual_seed(4)
    torch.testing.assert_close(model.sample(3, rng()), model.decode(torch.randn(3, 2, generator=rng())).sigmoid().detach())
    out = model.sample(7, rng())
    assert out.shape == (7, 1, 1, 4) and not out.requires_grad and out.min() >= 0 and out.max() <= 1
    torch.manual_seed(4)
    assert torch.equal(model.sample(3), model.sample(3, rng()))
    assert model.double().sample(2).dtype == torch.float64


@fast
@given(seeds, st.integers(1, 6))
def test_loss_is_minus_the_bound(seed, n):
    logits, mu, logvar = (normal(seed + i, n, *s).requires_grad_() for i, s in enumerate(((1, 2, 2), (3,), (3,))))
    x = (normal(seed + 3, n, 1, 2, 2) > 0).double()
    zero, one = torch.zeros(n, 3).double(), torch.ones(n, 3).double()
    kl = kl_divergence(Independent(Normal(mu, (logvar / 2).exp()), 1), Independent(Normal(zero, one), 1))
    said = Independent(Bernoulli(logits=logits), 3).log_prob(x)
    for beta in (1.0, 0.0, 2.5):
        ours, theirs = VAELoss(beta)((logits, mu, logvar), x), (beta * kl - said).mean()
        torch.testing.assert_close(ours, theirs)
        same_gradients(ours, theirs, (logits, mu, logvar) if beta else (logits,))


def test_free_bits_are_a_floor_for_each_number():
    logits, x = torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    mu = torch.tensor([[2.0, 0.1], [0.0, 0.1]], requires_grad=True)  # 1 nat on average, and 0.005
    loss = VAELoss(free_bits=0.25)((logits, mu, torch.zeros(2, 2)), x)
    assert loss.item() == pytest.approx(math.log(2) + 1 + 0.25)
    loss.backward()
    assert mu.grad[0, 0] != 0 and mu.grad[:, 1].tolist() == [0, 0]  # what is free is not pressed further
    assert VAELoss(beta=2.0, free_bits=3.0)((logits, mu, torch.zeros(2, 2)), x).item() == pytest.approx(math.log(2) + 12)
    for kwargs in (dict(beta=-1), dict(free_bits=-0.1), dict(beta=math.nan)):
        with pytest.raises(ValueError, match=f"expected {next(iter(kwargs))} of at least 0"): VAELoss(**kwargs)


def quiet(model, loss, x, cbs=(), bs=8):
    return Learner(device_dls((x, x), (x, x), bs=bs, device="cpu"), model, loss_func=loss, default_cbs=False, cbs=[TrainEvalCallback(), *cbs])


class Watch(autoencoders.Callback):
    order = 90
    def __init__(self): self.seen = []
    def before_batch(self):
        if self.training: self.seen.append(self.loss_func.beta)


@pytest.mark.parametrize("share, beta, expected", [(0.5, 1.0, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]), (1.0, 4.0, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])])
def test_warmup_raises_beta(share, beta, expected):
    watch, loss = Watch(), VAELoss(beta)
    learn = quiet(vae(), loss, bits_of(0, 32), [KLWarmup(share), watch])
    learn.fit(2, 1e-3)
    assert watch.seen == pytest.approx(expected) and loss.beta == beta
    learn.fit(1, 1e-3)
    assert loss.beta == beta and watch.seen[8] == 0


def test_warmup_says_what_share_it_takes():
    for share in (0, -1, 1.1):
        with pytest.raises(ValueError, match="expected a share above 0 and at most 1"): KLWarmup(share)


def test_a_learner_trains_a_vae():
    x = torch.cat([torch.zeros(32, 1, 1, 16), torch.ones(32, 1, 1, 16)])
    model = vae(d=16)
    before = -iwae_bound(model, x, 50).mean().item()
    quiet(model, VAELoss(), x).fit(30, 1e-2)
    after = -iwae_bound(model.eval(), x, 50).mean().item()
    assert before > 10 and after < 2  # log 2 would be the best, and without a code it is 16 log 2
    assert active_units(model, x).any()


# Bounds

def exact(model, x, n=4001):
    line = torch.linspace(-8, 8, n)[:, None]
    said = Bernoulli(logits=model.decode(line).flatten(1)).log_prob(x.flatten(1)[:, None]).sum(2)
    return (said + Normal(0.0, 1.0).log_prob(line)[:, 0] + math.log(16 / (n - 1))).logsumexp(1).detach()


def steep(seed=0):
    model = vae(1, seed=seed)
    for p in model.decoder.parameters(): p.data.mul_(4)
    return model


@pytest.mark.parametrize("seed", range(3))
def test_bounds_tighten_toward_the_integral(seed):
    model, x = steep(seed), bits_of(seed, 3)
    truth, rng = exact(model, x), torch.Generator().manual_seed(0)
    many = lambda k, times: iwae_bound(model, x.repeat(times, 1, 1, 1), k, rng).view(times, 3).mean(0)
    means = torch.stack([many(1, 4000), many(4, 2000), many(64, 500)])
    assert (means.diff(dim=0) > -0.03).all() and (means.diff(dim=0).sum(1) > 0).all()
    assert (means < truth + 0.03).all()
    torch.testing.assert_close(iwae_bound(model, x, 50_000, rng), truth, atol=0.06, rtol=0)


def test_the_first_bound_is_the_loss():
    model, x = steep(), bits_of(1, 4)
    torch.manual_seed(0)
    loss = torch.stack([VAELoss()(model(x), x) for _ in range(3000)]).mean()
    assert -iwae_bound(model, x.repeat(3000, 1, 1, 1), 1, torch.Generator().manual_seed(0)).mean().item() == pytest.approx(loss.item(), abs=0.1)


def test_bounds_do_not_depend_on_the_chunks_or_the_mode():
    model, x = steep(), bits_of(1, 6)
    one = iwae_bound(model, x, 20_000, torch.Generator().manual_seed(0), chunk=10**6)
    few = iwae_bound(model.eval(), x, 20_000, torch.Generator().manual_seed(1), chunk=1)
    assert one.shape == few.shape == (6,) and not one.requires_grad
    torch.testing.assert_close(one, few, atol=0.06, rtol=0)
    again = [iwae_bound(model, x, 3, torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*again)
    for k in (0, -1, 2.0):
        with pytest.raises(ValueError, match="expected k, a whole number from 1"): iwae_bound(model, x, k)


def test_a_perfect_posterior_needs_one_draw():
    "Where the decoder ignores the code and the encoder gives the prior, each weight is p(x)."
    model = vae()
    for p in [*model.encoder[-1].parameters(), model.decoder[1].weight]: p.data.zero_()
    x = bits_of(0)
    truth = Bernoulli(logits=model.decode(torch.zeros(1, 2))).log_prob(x).flatten(1).sum(1)
    for k in (1, 7): torch.testing.assert_close(iwae_bound(model, x, k), truth.detach(), atol=1e-4, rtol=0)
    assert not active_units(model, x).any()


def test_active_units_by_the_variance_of_the_means():
    model = VAE(nn.Flatten(), dense([2, 4]), 2)
    x = torch.stack([torch.linspace(-1, 1, 9), torch.full((9,), 5.0), torch.randn(9), torch.randn(9)], 1)
    assert active_units(model, x).tolist() == [True, False]
    assert active_units(model, x, threshold=0.5).tolist() == [False, False]
    x = torch.tensor([[0.0, 0, 0, 0], [0.15, 0.13, 0, 0]])  # variances 0.01125 and 0.00845
    assert active_units(model, x).tolist() == [True, False]


# Around it

def test_the_gpu_cell_runs_when_it_is_made_small():
    "Its own words, with fewer glyphs, on whatever device is there."
    cells = json.loads((ROOT / "nbs" / "11_autoencoders.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    large, = [s for s in sources if "#| cuda" in s]
    helpers, = [s for s in sources if "def trained(" in s]
    names = {**vars(autoencoders), "shown": []}
    setup = ("from functools import partial\nfrom fastai.callback.core import CancelValidException, TrainEvalCallback\n"
             "from fastai.callback.schedule import Learner\nfrom fastai.optimizer import OptimWrapper\nfrom dlbook.kit.data import glyphs\n"
             "from dlbook.kit.loaders import device_dls\ndef show_images(x, **more): shown.append(x)\ndef binary(x): return (x > 0.5).float()\n")
    small = large.replace("if torch.cuda.is_available():", "if True:").replace("100_000", "200").replace("30, 2e-3", "1, 2e-3")
    if not torch.cuda.is_available(): small = small.replace(".cuda()", "").replace(", MixedPrecision()", "")
    exec(setup + helpers + "\n" + small, names)
    assert names["shown"][0].shape == (40, 1, 28, 28)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_on_a_gpu():
    model, x = vae().cuda(), bits_of(0).cuda()
    assert VAELoss()(model(x), x).is_cuda and model.sample(2, torch.Generator().manual_seed(0)).is_cuda
    assert iwae_bound(model, x, 5).is_cuda and active_units(model, x).is_cuda
    assert pca(x.flatten(1), 2)[1].is_cuda and DenoisingAutoencoder(nn.Identity(), nn.Identity())(x).is_cuda
    assert conv_transpose2d(torch.randn(1, 2, 3, 3).cuda(), torch.randn(2, 1, 4, 4).cuda(), None, 2, 1).is_cuda


WRONG = [  # (exercise, an answer that is wrong in a way the book does not name, what the verdict says)
    ("11.1", 0.5, "too large"),
    ("11.1", 0.01, "too small"),
    ("11.2", lambda mu_p, logvar_p, mu_q, logvar_q: (mu_p - mu_q) ** 2, "the divergence should be"),
    ("11.2", lambda mu_p, logvar_p, mu_q, logvar_q: -find("11.2").reference(mu_p, logvar_p, mu_q, logvar_q), "the divergence should be"),
    ("11.3", lambda codes, rho: (codes.mean(0) - rho).abs().sum(), "the penalty should be"),
    ("11.3", lambda codes, rho: find("11.3").reference(codes, rho).repeat(2), "the penalty should have shape"),
    ("11.5", lambda scores, rate: scores.min(), "the threshold should be"),
    ("11.5", lambda scores, rate: scores.median(), "the threshold should be"),
    ("11.4", lambda a, b, t: a, "the code should be"),
    ("11.4", lambda a, b, t: torch.lerp(a, b, t) / torch.lerp(a, b, t).norm(), "the code should be"),
    ("11.6", lambda z, codebook: z, "the replaced codes should be"),
    ("11.6", lambda z, codebook: z + 2 * (codebook[torch.cdist(z, codebook).argmin(1)] - z).detach(), "the replaced codes should be"),
]


@pytest.mark.parametrize("id, answer, message", WRONG, ids=lambda v: v if isinstance(v, str) and v.startswith("11") else "")
def test_wrong_answers_are_told_what_is_wrong(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and re.search(message, verdict.line), verdict.line


def test_references_agree_with_torch_and_the_chapter():
    args = [normal(i, 3, 2) for i in range(4)]
    theirs = kl_divergence(Normal(args[0], (args[1] / 2).exp()), Normal(args[2], (args[3] / 2).exp()))
    torch.testing.assert_close(find("11.2").reference(*args), theirs)
    torch.testing.assert_close(find("11.2").reference(*args[:2], 0 * args[2], 0 * args[3]), kl_normal(*args[:2]))
    codes = normal(0, 6, 3).sigmoid()
    coins = kl_divergence(Bernoulli(torch.full((3,), 0.1).double()), Bernoulli(codes.mean(0))).sum()
    torch.testing.assert_close(find("11.3").reference(codes, 0.1), coins)
    entropy = torch.distributions.Categorical(torch.tensor([0.5, 0.25, 0.125, 0.125])).entropy().item() / math.log(2)
    assert find("11.1").reference == pytest.approx(6 * entropy / 64)
    a, b = normal(1, 5), normal(2, 5)
    b = b / b.norm() * a.norm()
    angle = lambda u, v: torch.arccos(F.cosine_similarity(u, v, dim=0))
    for t in (0.25, 0.5):
        there = find("11.4").reference(a, b, t)
        torch.testing.assert_close(angle(a, there), t * angle(a, b))
        torch.testing.assert_close(there.norm(), a.norm())
