"Adversarial networks from scratch: losses, penalties and norms equal to torch's, distances to scipy's; errors at the door."
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook import gans
from dlbook.gans import *
from dlbook.kit.exercises import find, judge

fast = settings(max_examples=25, deadline=None)
seeds, sizes = st.integers(0, 10_000), st.integers(1, 6)


def rng_of(seed): return torch.Generator().manual_seed(seed)
def randn(*shape, seed=0): return torch.randn(*shape, generator=rng_of(seed), dtype=torch.float64)


def same(ours, theirs, *inputs, **tolerance):
    "Equal values and equal gradients."
    inputs = [i.clone().requires_grad_() for i in inputs]
    a, b = ours(*inputs), theirs(*inputs)
    torch.testing.assert_close(a, b, **tolerance)
    for p, q in zip(torch.autograd.grad(a, inputs), torch.autograd.grad(b, inputs)): torch.testing.assert_close(p, q, **tolerance)


def bce(scores, target): return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


# Losses

@fast
@given(sizes, sizes, st.sampled_from([0.1, 1.0, 50.0]), seeds)
def test_losses_are_cross_entropies(n, m, scale, seed):
    real, fake = scale * randn(n, seed=seed), scale * randn(m, 2, seed=seed + 1)
    same(discriminator_loss, lambda r, f: bce(r, 1.0) + bce(f, 0.0), real, fake)
    same(saturating_loss, lambda f: -bce(f, 0.0), fake)
    same(nonsaturating_loss, lambda f: bce(f, 1.0), fake)
    same(critic_loss, lambda r, f: f.sum() / f.numel() - r.sum() / r.numel(), real, fake)
    same(wasserstein_loss, lambda f: -f.sum() / f.numel(), fake)


def test_losses_stay_finite_at_extreme_scores():
    extreme = torch.tensor([-1e4, 1e4])
    assert discriminator_loss(extreme, extreme).item() == pytest.approx(1e4)
    assert saturating_loss(extreme).item() == pytest.approx(-5e3) and nonsaturating_loss(extreme).item() == pytest.approx(5e3)


def test_where_the_losses_pull():
    for loss, bad, good in ((saturating_loss, 0.0, -1.0), (nonsaturating_loss, -1.0, 0.0)):
        for at, slope in ((-20.0, bad), (20.0, good)):
            s = torch.tensor([at], requires_grad=True)
            assert torch.autograd.grad(loss(s), s)[0].item() == pytest.approx(slope, abs=1e-6)


def test_the_optimum_of_the_game():
    "With the best discriminator, log p/q, the value is -log 4 + 2 JS."
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.1, 0.3, 0.6]).double()
    best, m = (p / q).log(), (p + q) / 2
    js = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    value = sum(pi * -F.softplus(-s) + qi * -F.softplus(s) for pi, qi, s in zip(p, q, best))
    torch.testing.assert_close(value, -math.log(4) + 2 * js)


# Games

def bilinear(s): return torch.stack([-s[1], s[0]])


@fast
@given(st.floats(0.01, 0.9), st.integers(0, 20), seeds)
def test_bilinear_games(lr, steps, seed):
    start = torch.tensor([1.0, 0.5]) + torch.rand(2, generator=rng_of(seed))
    turn = torch.tensor([[0.0, -1], [1, 0]]).double()
    eye = torch.eye(2).double()
    once = {"simultaneous": eye + lr * turn, "extragradient": eye + lr * turn @ (eye + lr * turn),
            "alternating": torch.tensor([[1, -lr], [lr, 1 - lr**2]], dtype=torch.float64)}
    for method, matrix in once.items():
        path = play(bilinear, start, lr, steps, method)
        assert path.shape == (steps + 1, 2) and path.dtype == torch.float64
        for t in range(steps + 1):
            torch.testing.assert_close(path[t], torch.linalg.matrix_power(matrix, t) @ start.double(), rtol=1e-6, atol=1e-8)


def test_play_leaves_its_start_and_refuses_nonsense():
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    play(bilinear, start, 0.1, 3, "alternating")
    assert start.tolist() == [1, 0]
    for lr, method in ((0.1, "newton"), (0.0, "simultaneous"), (-1, "extragradient"), (float("nan"), "simultaneous")):
        with pytest.raises(ValueError, match=f"expected simultaneous, alternating or extragradient, and lr > 0, given '{method}'"):
            play(bilinear, start, lr, 1, method)


# Penalties

def smooth(d, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, 5), nn.Tanh(), nn.Linear(5, 1)).double()


@fast
@given(st.integers(1, 5), st.integers(1, 4), seeds)
def test_zero_penalty_of_samples(n, d, seed):
    net = smooth(d, seed)
    x = randn(n, d, seed=seed).requires_grad_()
    expected = torch.func.vmap(torch.func.grad(lambda one: net(one)[0]))(x).square().sum(1).mean()
    for scores in (net(x), net(x)[:, 0]):
        ours = zero_penalty(scores, x)
        torch.testing.assert_close(ours, expected)
        for a, b in zip(torch.autograd.grad(ours, net[0].weight), torch.autograd.grad(expected, net[0].weight, retain_graph=True)):
            torch.testing.assert_close(a, b)


@fast
@given(st.integers(1, 4), st.integers(1, 4), seeds)
def test_zero_penalty_of_several_networks_and_of_images(k, n, seed):
    net = MLPs(k, [3, 4, 1], waves=2, seed=seed).double()
    x = randn(k, n, 3, seed=seed).requires_grad_()
    slopes = [torch.autograd.grad(net(x)[i, j, 0], x)[0].square().sum() for i in range(k) for j in range(n)]
    torch.testing.assert_close(zero_penalty(net(x), x), sum(slopes) / (k * n))
    images = randn(n, 2, 3, 3, seed=seed).requires_grad_()
    flat = smooth(18, seed)
    slopes = [torch.autograd.grad(flat(images.flatten(1))[j, 0], images)[0].square().sum() for j in range(n)]
    torch.testing.assert_close(zero_penalty(flat(images.flatten(1)), images), sum(slopes) / n)


@fast
@given(st.integers(1, 5), st.sampled_from([(3,), (1, 2, 2), (4, 3)]), seeds)
def test_gradient_penalty_is_taken_between_the_pairs(n, shape, seed):
    real, fake = randn(n, *shape, seed=seed), randn(n, *shape, seed=seed + 1)
    net, seen = smooth(shape[-1], seed), []

    def critic(x):
        seen.append(x)
        return net(x) if x.ndim < 4 else net(x).flatten(1).sum(1)

    ours = gradient_penalty(critic, real, fake, rng_of(seed))
    lead = 2 if len(shape) == 2 else 1  # several networks: each sample of each has a place of its own
    share = torch.rand(real.shape[:lead], generator=rng_of(seed)).double().reshape(*real.shape[:lead], *[1] * (real.ndim - lead))
    torch.testing.assert_close(seen[0], real + share * (fake - real))
    places = seen[0].detach().flatten(0, lead - 1)
    slopes = torch.stack([torch.autograd.grad(net(p.requires_grad_()).sum(), p)[0].norm() for p in places.unbind()])
    torch.testing.assert_close(ours, (slopes - 1).square().mean(), rtol=1e-5, atol=1e-7)
    assert torch.autograd.grad(ours, net[0].weight)[0].isfinite().all()


def test_gradient_penalty_of_a_flat_critic_has_a_gradient():
    w = torch.zeros(1, 2, requires_grad=True)
    penalty = gradient_penalty(lambda x: F.linear(x, w), torch.randn(4, 2), torch.randn(4, 2))
    assert penalty.item() == pytest.approx(1, abs=1e-4) and torch.autograd.grad(penalty, w)[0].isfinite().all()


def test_gradient_penalty_sends_nothing_to_its_data():
    real, fake = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    w = torch.ones(1, 2, requires_grad=True)
    gradient_penalty(lambda x: F.linear(x, w).square(), real, fake).backward()
    assert real.grad is None and fake.grad is None and w.grad is not None


def test_penalties_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="expected x with requires_grad=True"): zero_penalty(torch.zeros(2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"expected as many samples as examples, given \(3, 2\) and \(4, 2\)"):
        gradient_penalty(lambda x: x.sum(1), torch.zeros(4, 2), torch.zeros(3, 2))


# Spectral normalization

@fast
@given(st.sampled_from(["linear", "conv", "embedding"]), st.integers(2, 5), st.integers(2, 5), st.integers(1, 4), seeds)
def test_spectral_norm_is_torchs(kind, a, b, steps, seed):
    torch.manual_seed(seed)
    layer = {"linear": nn.Linear(a, b), "conv": nn.Conv2d(a, b, 3), "embedding": nn.Embedding(a, b)}[kind].double()
    theirs = nn.utils.parametrizations.spectral_norm(layer)
    weight = theirs.parametrizations.weight.original
    ours = SpectralNorm(weight)
    ours.load_state_dict(theirs.parametrizations.weight[0].state_dict())
    for mode in [True] * steps + [False, False]:
        ours.train(mode), theirs.train(mode)
        x, y = ours(weight), theirs.weight
        torch.testing.assert_close(x, y)
        torch.testing.assert_close(*(torch.autograd.grad(w.sin().sum(), weight)[0] for w in (x, y)))
    for name, value in theirs.parametrizations.weight[0].state_dict().items(): torch.testing.assert_close(ours.state_dict()[name], value)


@fast
@given(st.integers(1, 4), st.integers(2, 5), st.integers(2, 5), seeds)
def test_spectral_norm_of_several_matrices_is_that_of_each(k, a, b, seed):
    W = randn(k, a, b, seed=seed).requires_grad_()
    many = SpectralNorm(W, many=True, generator=rng_of(seed))
    singles = []
    for i in range(k):
        single = SpectralNorm(W[i])
        single._u.copy_(many._u[i]), single._v.copy_(many._v[i])
        singles.append(single)
    for _ in range(2):
        theirs = torch.stack([single(w) for single, w in zip(singles, W)])
        ours = many(W)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*(torch.autograd.grad(w.sin().sum(), W)[0] for w in (ours, theirs)))
    many.turn(W.detach(), 2000)
    assert torch.linalg.matrix_norm(many.eval()(W), 2).sub(1).abs().max() < 1e-2


def test_a_second_look_does_not_spoil_the_gradient_of_the_first():
    W = randn(3, 4).requires_grad_()
    norm = SpectralNorm(W)
    first, u, v = norm(W), norm._u.clone(), norm._v.clone()
    norm(W)
    first.sin().sum().backward()  # as with a discriminator that is called on examples, then on samples
    given = W.grad.clone()
    W.grad = None
    (W / (u @ W @ v)).sin().sum().backward()
    torch.testing.assert_close(given, W.grad)


def test_spectral_norm_starts_near_and_the_same_for_a_seed():
    W = torch.diag(torch.tensor([4.0, 1.0, 0.5]))
    a, b = (SpectralNorm(W, generator=rng_of(3)).eval() for _ in range(2))
    assert torch.equal(a._v, b._v) and a(W)[0, 0].item() == pytest.approx(1, abs=1e-5)


# Several perceptrons

@fast
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3), st.booleans(), seeds)
def test_mlps_are_single_networks(k, n, waves, spectral, seed):
    net = MLPs(k, [2, 5, 3, 1], waves=waves, spectral=spectral, seed=seed).double().eval()
    for b in net.biases: nn.init.normal_(b, generator=rng_of(seed))
    x = randn(k, n, 2, seed=seed)
    for i in range(k):
        h = x[i]
        h = torch.cat([h] + [torch.stack([f(h[:, c] * 2.0**w / 2) for c in range(2) for w in range(waves)], 1)
                             for f in (torch.sin, torch.cos) if waves], 1)
        for layer, (w, b) in enumerate(zip(net.weights, net.biases)):
            weight = w[i] / (net.norms[layer]._u[i] @ w[i] @ net.norms[layer]._v[i]) if spectral else w[i]
            h = F.linear(h, weight.T, b[i, 0])
            if layer < 2: h = F.leaky_relu(h, 0.2)
        torch.testing.assert_close(net(x)[i], h)


def test_mlps_do_not_touch_each_other():
    net, x = MLPs(3, [2, 4, 1], waves=1), torch.randn(3, 5, 2)
    net(x)[1].sum().backward()
    for p in net.parameters(): assert not p.grad[[0, 2]].any() and p.grad[1].any()


def test_mlps_start_with_he_and_their_seed():
    a, b, c = (MLPs(4, [10, 200, 1], seed=s) for s in (1, 1, 2))
    assert all(map(torch.equal, a.parameters(), b.parameters())) and not torch.equal(a.weights[0], c.weights[0])
    assert a.weights[0].std().item() == pytest.approx(math.sqrt(2 / 10), rel=0.05) and not any(p.any() for p in a.biases)


def test_mlps_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"expected at least two sizes, given \[3\]"): MLPs(2, [3])
    for x in (torch.zeros(5, 2), torch.zeros(3, 5, 2)):
        with pytest.raises(ValueError, match=r"expected x of shape \(2, n, d\), given"): MLPs(2, [2, 1])(x)


# Steps and training

class Recorder(nn.Module):
    "A player that notes what it was given."
    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, *inputs):
        self.seen.append(inputs)
        return self.inner(inputs[0])


def pair(d=2):
    torch.manual_seed(0)
    return nn.Linear(3, d).double(), nn.Linear(d, 1).double()


@pytest.mark.parametrize("penalized", [False, True])
def test_a_step_of_the_discriminator(penalized):
    G, D = pair()
    real, z = randn(4, 2, seed=1), randn(6, 3, seed=2)
    fake = G(z).detach()
    expected = bce(D(real), 1.0) + bce(D(fake), 0.0) + (D.weight.square().sum() if penalized else 0)
    grads, before = torch.autograd.grad(expected, D.parameters()), [p.clone() for p in D.parameters()]
    got = discriminator_step(G, D, torch.optim.SGD(D.parameters(), 0.1), (real,), (z,),
                             penalty=(lambda D, x, scores: zero_penalty(scores, x)) if penalized else None)
    torch.testing.assert_close(got, (bce(nn.functional.linear(real, *before), 1.0) + bce(nn.functional.linear(fake, *before), 0.0)))
    for p, b, g in zip(D.parameters(), before, grads): torch.testing.assert_close(p, b - 0.1 * g)
    assert all(p.grad is None for p in G.parameters()) and not got.requires_grad


def test_a_step_of_the_generator():
    G, D = pair()
    D.bias.requires_grad_(False)
    z = randn(6, 3)
    grads, before = torch.autograd.grad(bce(D(G(z)), 1.0), G.parameters()), [p.clone() for p in G.parameters()]
    expected, kept = bce(D(G(z)), 1.0).detach(), [p.clone() for p in D.parameters()]
    got = generator_step(G, D, torch.optim.SGD(G.parameters(), 0.1), (z,))
    torch.testing.assert_close(got, expected)
    for p, b, g in zip(G.parameters(), before, grads): torch.testing.assert_close(p, b - 0.1 * g)
    assert all(map(torch.equal, D.parameters(), kept)) and all(p.grad is None for p in D.parameters())
    assert D.weight.requires_grad and not D.bias.requires_grad  # as it was


def test_classes_go_to_both_players_in_order():
    G, D = map(Recorder, pair())
    opt = torch.optim.SGD(D.parameters(), 0.1)
    real_y, fake_y = torch.tensor([1, 2]), torch.tensor([3, 4, 5])
    discriminator_step(G, D, opt, (randn(2, 2), real_y), (randn(3, 3), fake_y))
    assert torch.equal(G.seen[0][1], fake_y) and D.seen[0][1].tolist() == [1, 2, 3, 4, 5]
    generator_step(G, D, torch.optim.SGD(G.parameters(), 0.1), (randn(3, 3), fake_y))
    assert D.seen[1][1].tolist() == [3, 4, 5]


def test_losses_of_several_networks_are_split_along_their_samples():
    G, D = MLPs(2, [3, 2]), MLPs(2, [2, 1], seed=1)
    real, z, seen = torch.randn(2, 4, 2), torch.randn(2, 5, 3), []

    def loss(a, b):
        seen.append((a, b))
        return discriminator_loss(a, b)

    expected = D(real).detach(), D(G(z)).detach()
    discriminator_step(G, D, torch.optim.SGD(D.parameters(), 0.1), (real,), (z,), loss)
    for a, b in zip(seen[0], expected): torch.testing.assert_close(a.detach(), b)


def batches(seed=0):
    rng = rng_of(seed)
    return lambda: (torch.randn(1, 8, 2, generator=rng),), lambda: (torch.randn(1, 8, 3, generator=rng),)


def test_training_is_steps_by_turns_with_falling_rates():
    G, D = MLPs(1, [3, 2]), MLPs(1, [2, 4, 1], seed=1)
    g, d = MLPs(1, [3, 2]), MLPs(1, [2, 4, 1], seed=1)
    watched, shares = [], []

    def penalty(D, x, scores, done):
        shares.append(done)
        return zero_penalty(scores, x)

    history = train_gan(G, D, *batches(), 4, lr=(1e-2, 2e-2), losses=(wasserstein_loss, critic_loss), penalty=penalty, watch=watched.append)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 1.0, betas=(0.5, 0.99)) for net in (g, d))
    real, noise = batches()
    expected = []
    for step in range(4):
        opt_g.param_groups[0]["lr"], opt_d.param_groups[0]["lr"] = 1e-2 * (1 - step / 4), 2e-2 * (1 - step / 4)
        x = real()
        loss_d = discriminator_step(g, d, opt_d, x, noise(), critic_loss, lambda D, x, scores: zero_penalty(scores, x))
        expected.append((generator_step(g, d, opt_g, noise(), wasserstein_loss).item(), loss_d.item()))
    assert watched == [0, 1, 2, 3] and shares == [0, 0.25, 0.5, 0.75]
    np.testing.assert_allclose(history, expected, rtol=1e-4, atol=1e-6)
    for p, q in zip([*G.parameters(), *D.parameters()], [*g.parameters(), *d.parameters()]): torch.testing.assert_close(p, q)
    with pytest.raises(ValueError, match="expected at least 1 step, given 0"): train_gan(G, D, *batches(), 0)


# Modes

@fast
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3), st.floats(0.05, 1.0), st.sampled_from([1.0, 3.0]), seeds)
def test_mode_coverage_counts(n, m, d, std, within, seed):
    x, centers = randn(n, d, seed=seed), randn(m, d, seed=seed + 1)
    hit, good = set(), 0
    for p in x:
        distances = [(p - c).norm().item() for c in centers]
        if min(distances) <= within * std:
            good += 1
            hit.add(distances.index(min(distances)))
    assert mode_coverage(x, centers, std, within) == (len(hit), pytest.approx(good / n))


def test_mode_coverage_of_edge_cases():
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    assert mode_coverage(torch.full((3, 2), float("nan")), centers, 1.0) == (0, 0.0)
    assert mode_coverage(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2), 1.0) == (1, 1.0)  # at exactly three deviations
    for x, c in ((torch.zeros(0, 2), centers), (torch.zeros(3), centers), (torch.zeros(3, 3), centers)):
        with pytest.raises(ValueError, match=r"expected samples \(n, d\), centers \(m, d\), given"): mode_coverage(x, c, 1.0)
    for std in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="expected a standard deviation above 0"): mode_coverage(centers, centers, std)


# Images

@pytest.mark.parametrize("size, channels, width, classes", [(4, 1, 4, 0), (8, 3, 2, 3), (16, 1, 2, 0), (32, 2, 1, 5)])
def test_shapes_of_the_convolutional_players(size, channels, width, classes):
    G, D = Generator(7, size, channels, width, classes), Discriminator(size, channels, width, classes)
    y = (torch.arange(3) % classes,) if classes else ()
    x = G(torch.randn(3, 7), *y)
    assert x.shape == (3, channels, size, size) and 0 <= x.min() and x.max() <= 1
    assert D(x, *y).shape == (3,)
    D(x, *y).sum().backward()
    assert all(p.grad is not None for p in G.parameters()) and all(p.grad is not None for p in D.parameters())
    wide = [m.num_features for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
    assert wide == [width * 2**i for i in range(len(wide) - 1, -1, -1)] and len(wide) == math.log2(size) - 1
    assert D.head.in_features == width * size // 4 * 16


def test_conditional_players_use_their_classes():
    torch.manual_seed(0)
    G, D = Generator(4, classes=3, width=2).eval(), Discriminator(classes=3, width=2)
    z, y = torch.randn(3, 4), torch.tensor([2, 0, 1])
    torch.testing.assert_close(G(z, y), G.net(torch.cat([z, torch.eye(3)[y]], 1)))
    x = torch.rand(3, 1, 8, 8)
    features = D.body(x)
    torch.testing.assert_close(D(x, y), D.head(features)[:, 0] + (D.embed(y) @ features.T).diag())
    same = D(x[:1].expand(3, -1, -1, -1), torch.arange(3))
    assert len(same.unique()) == 3


def test_a_discriminator_with_spectral_norm():
    D = Discriminator(width=4, classes=3, spectral=True)
    for _ in range(200): D(torch.rand(1, 1, 8, 8), torch.tensor([0]))
    D.eval()
    layers = [m for m in D.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
    assert len(layers) == 4
    for layer in layers: assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)
    assert not any("original" in name for name, _ in Discriminator(width=4).named_parameters())


def test_convolutional_players_refuse_what_does_not_fit():
    for size in (0, 2, 6, 12, 28):
        for kind in (Generator, Discriminator):
            with pytest.raises(ValueError, match=f"expected a size of 4, 8, 16, 32 ..., given {size}"): kind(size=size)
    with pytest.raises(ValueError, match="expected classes of at least 0, given -1"): Generator(classes=-1)
    with pytest.raises(ValueError, match=r"expected noise of shape \(n, 5\), given \(2, 4\)"): Generator(5)(torch.zeros(2, 4))
    z, x, y = torch.zeros(2, 5), torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    for call in (lambda: Generator(5)(z, y), lambda: Discriminator()(x, y)):
        with pytest.raises(ValueError, match="expected no classes, given some"): call()
    for call in (lambda: Generator(5, classes=2)(z), lambda: Discriminator(classes=2)(x)):
        with pytest.raises(ValueError, match="expected classes, given none"): call()


# Distances

@fast
@given(st.integers(1, 5), st.integers(2, 30), st.integers(2, 30), seeds)
def test_frechet_distance_is_scipys(d, n, m, seed):
    x, y = randn(n, d, seed=seed), randn(m, d, seed=seed + 1) @ randn(d, d, seed=seed + 2) + 1
    A, B = (np.atleast_2d(np.cov(t.numpy().T)) for t in (x, y))
    root = scipy.linalg.sqrtm(A @ B + 1e-13 * np.eye(d)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(A + B - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6, abs=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6 * (1 + np.trace(A)))


@fast
@given(st.integers(2, 20), st.floats(0.1, 5), st.floats(-3, 3), seeds)
def test_frechet_distance_on_a_line_and_of_a_moved_set(n, scale, shift, seed):
    x = randn(n, 1, seed=seed)
    closed = (scale * x + shift - x).mean() ** 2 + ((scale - 1) * x.std()) ** 2
    assert frechet_distance(x, scale * x + shift) == pytest.approx(closed.item(), rel=1e-6, abs=1e-9)
    wide = randn(n, 3, seed=seed)
    assert frechet_distance(wide, wide + shift) == pytest.approx(3 * shift**2, rel=1e-6, abs=1e-6)


def test_frechet_distance_takes_floats_with_gradients_and_refuses_other_shapes():
    x = torch.randn(9, 3, requires_grad=True)
    assert isinstance(frechet_distance(x, x + 1), float)
    for a, b in ((torch.zeros(1, 2), torch.zeros(3, 2)), (torch.zeros(3, 2), torch.zeros(3, 3)), (torch.zeros(3), torch.zeros(3))):
        with pytest.raises(ValueError, match=r"expected features \(n, d\) and \(m, d\), n, m > 1, given"): frechet_distance(a, b)


@fast
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(2,), (1, 2, 3)]), seeds)
def test_nearest_examples(n, m, shape, seed):
    x, bank = randn(n, *shape, seed=seed), randn(m, *shape, seed=seed + 1)
    distance, which = nearest_examples(x, bank)
    for i in range(n):
        all_of_them = [(x[i] - b).norm().item() for b in bank]
        assert distance[i].item() == pytest.approx(min(all_of_them), rel=1e-6) and which[i] == int(np.argmin(all_of_them))


def test_nearest_examples_refuses_other_shapes():
    for a, b in ((torch.zeros(2, 3), torch.zeros(2, 4)), (torch.zeros(0, 3), torch.zeros(2, 3)), (torch.zeros(2, 3), torch.zeros(0, 3))):
        with pytest.raises(ValueError, match="expected samples and examples of one shape, given"): nearest_examples(a, b)


# The module and the chapter

def test_public_names():
    assert {"Generator", "Discriminator", "discriminator_loss", "saturating_loss", "nonsaturating_loss", "critic_loss", "wasserstein_loss",
            "gradient_penalty", "zero_penalty", "SpectralNorm", "MLPs", "mode_coverage", "frechet_distance", "nearest_examples", "play",
            "discriminator_step", "generator_step", "train_gan"} == set(gans.__all__)


def test_import_is_light():
    code = "import sys, dlbook.gans; print([m for m in ('fastai', 'matplotlib', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_cell_for_a_gpu_is_right_on_a_small_scale(monkeypatch):
    "It was not run on a GPU; here it runs on the CPU, with few images, few steps and narrow players."
    cells = json.loads((ROOT / "nbs" / "12_gans.ipynb").read_text(encoding="utf-8"))["cells"]
    code, = ["".join(c["source"]) for c in cells if "#| cuda" in "".join(c["source"])]
    assert not any(c.get("outputs") for c in cells if "#| cuda" in "".join(c["source"]))
    for a, b in ((".cuda()", ""), ('"cuda"', '"cpu"'), ("40_000", "360"), ("10_000", "2"), ("width=64", "width=2"), ("n=128", "n=16")):
        assert a in code
        code = code.replace(a, b)
    shown = []
    exec(code, {"F": F, "torch": torch, "Generator": Generator, "Discriminator": Discriminator, "train_gan": train_gan,
                "flat": lambda D, x, scores, done: zero_penalty(scores, x) / 2, "show_images": lambda x, cols: shown.append(x)})
    assert shown[0].shape == (36, 1, 32, 32)


def _sorted_by_hand(x, y): return sum(abs(a - b) for a, b in zip(sorted(x.tolist()), sorted(y.tolist()))) / len(x)


@pytest.mark.parametrize("id, answer, message", [
    ("12.1", 1 / 3, "is too small"),
    ("12.1", math.log2(3), "is too large"),
    ("12.2", lambda real, fake: ((real - 1).square().mean() / 2 + fake.square().mean() / 2, fake.square().mean() / 2), "the generator's loss"),
    ("12.2", lambda real, fake: ((real - 1).abs().mean() / 2 + fake.abs().mean() / 2, (fake - 1).square().mean() / 2), "the discriminator's loss"),
    ("12.6", lambda field, start, lr, steps: torch.stack([start] * (steps + 1)), "the states should be"),
    ("12.6", lambda field, start, lr, steps: play(field, start, lr, steps, "extragradient").float(), "the states should be"),
    ("12.3", lambda mean, weights, beta: [beta * m - (1 - beta) * w for m, w in zip(mean, weights)], "should be"),
    ("12.3", lambda mean, weights, beta: [beta * m + (1 - beta) * w for m, w in zip(mean, weights)][:1], "should have 2 elements"),
    ("12.4", lambda x, y: (x.sort().values - y.sort().values).mean(), "the distance should be"),
    ("12.4", lambda x, y: (x.sort().values - y.sort().values).abs().max(), "the distance should be"),
    ("12.5", lambda d, threshold: int((d <= threshold).sum() / 2), "should be"),
    ("12.5", lambda d, threshold: len(d), "should be"),
])
def test_wrong_answers_are_told_what_is_wrong(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and message in verdict.line and "\n" not in verdict.line, verdict


def test_references_agree_with_the_chapter():
    x, y = randn(7), randn(7, seed=1)
    assert find("12.4").reference(x, y).item() == pytest.approx(_sorted_by_hand(x, y))
    path = find("12.6").reference(lambda s: bilinear(s), torch.tensor([1.0, 0.0]), 0.3, 200)
    assert path[-1].norm() < 0.1 and path.shape == (201, 2)  # it arrives
    d, g = find("12.2").reference(torch.ones(3), torch.zeros(3))
    assert d == 0 and g == 0.5
