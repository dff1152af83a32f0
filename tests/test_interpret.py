"Attributions equal to captum's and scikit-learn's, true where the truth is known by construction; errors at the door."
import itertools
import math
import subprocess
import sys
import warnings

import captum.attr as captum
import numpy as np
import pytest
import scipy.stats
import sklearn.inspection
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from dlbook.cnn import ResNet
from dlbook.interpret import *
from dlbook.neurons import MLP

fast = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10_000)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")


def rng_of(seed): return torch.Generator().manual_seed(seed)
def randn(*shape, seed=0): return torch.randn(*shape, generator=rng_of(seed))
def close(a, b, tol=1e-5): torch.testing.assert_close(a, b.to(a.dtype), rtol=1e-4, atol=tol)


def line(x): return 2 * x[:, 0] - 3 * x[:, 1]
def product(x): return x[:, 0] * x[:, 1] + x[:, 2]
def saturated(x): return 1 - (1 - x[:, 0]).relu()


POINT = torch.tensor([[2.0, 3.0, 1.0]])


@pytest.fixture(scope="module")
def convnet():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 20, 3))


@pytest.fixture(scope="module")
def images(): return torch.rand(4, 2, 8, 10, generator=rng_of(1)), torch.tensor([0, 1, 2, 1])


@pytest.fixture(scope="module")
def table():
    torch.manual_seed(1)
    return MLP([5, 16, 3]), randn(1, 5, seed=2)


# Scores and gradients

def test_class_scores_picks_the_targets(convnet, images):
    x, y = images
    out = convnet(x)
    assert torch.equal(class_scores(convnet, x, y), out[range(4), y]) and torch.equal(class_scores(convnet, x, 2), out[:, 2])
    assert torch.equal(class_scores(line, POINT), line(POINT))
    assert torch.equal(class_scores(lambda x: line(x)[:, None], POINT.expand(3, -1)), line(POINT).expand(3))


@pytest.mark.parametrize("error, x, target, expected, given_", [
    (TypeError, torch.ones(2, 3, dtype=torch.int64), None, "floating-point", "int64"),
    (TypeError, torch.ones(2, 3), torch.tensor([0.0, 1.0]), "class numbers", "float32"),
    (TypeError, torch.ones(2, 3), True, "class numbers", "bool"),
    (ValueError, torch.ones(2, 3), None, "a target for outputs", ""),
    (ValueError, torch.ones(2, 3), torch.tensor([0, 1, 2]), "n = 2", r"\(3,\)"),
    (ValueError, torch.ones(2, 3), 4, "from 0 to 3", "4"),
    (ValueError, torch.ones(2, 3), torch.tensor([0, -1]), "from 0 to 3", "-1"),
])
def test_class_scores_refuses_what_does_not_fit(error, x, target, expected, given_):
    with pytest.raises(error, match=f"expected.*{expected}.*{given_}"): class_scores(nn.Linear(3, 4) if x.is_floating_point() else None, x, target)


def test_a_network_in_training_mode_is_refused():
    net = ResNet(1, 3, widths=(4,))
    with pytest.raises(ValueError, match="evaluation mode"): saliency(net, torch.rand(2, 1, 8, 8), 0)
    assert saliency(net.eval(), torch.rand(2, 1, 8, 8), 0).shape == (2, 1, 8, 8)
    saliency(nn.Linear(3, 2), POINT, 0)  # nothing in it depends on the mode


def test_gradients_of_known_functions():
    assert input_gradient(line, POINT).tolist() == [[2, -3, 0]] and saliency(line, POINT).tolist() == [[2, 3, 0]]
    assert input_gradient(product, POINT).tolist() == [[3, 2, 1]]
    with torch.no_grad(): assert input_gradient(line, POINT).tolist() == [[2, -3, 0]]
    assert not POINT.requires_grad


def test_gradient_methods_are_captums(convnet, images):
    x, y = images
    close(saliency(convnet, x, y), captum.Saliency(convnet).attribute(x.clone(), y))
    close(input_gradient(convnet, x, y), captum.Saliency(convnet).attribute(x.clone(), y, abs=False))
    close(x * input_gradient(convnet, x, y), captum.InputXGradient(convnet).attribute(x.clone(), y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        close(guided_backprop(convnet, x, y), captum.GuidedBackprop(convnet).attribute(x.clone(), y))


def test_guided_backprop_rectifies_every_call_of_relu():
    "As a function, a method and a module; and leaves the model as it was."
    x = torch.tensor([[1.0, -2.0]])
    for relu in (torch.relu, lambda t: t.relu(), nn.functional.relu, nn.ReLU(), nn.ReLU(inplace=True)):
        assert guided_backprop(lambda t: -relu(t + 0).sum(1), x).tolist() == [[0, 0]]
        assert guided_backprop(lambda t: relu(t + 0).sum(1), x).tolist() == [[1, 0]]
        assert input_gradient(lambda t: -relu(t + 0).sum(1), x).tolist() == [[-1, 0]]
    net = ResNet(1, 3, widths=(4, 8)).eval()
    image = torch.rand(2, 1, 8, 8, generator=rng_of(0))
    before = input_gradient(net, image, 1)
    assert not torch.allclose(guided_backprop(net, image, 1), before) and torch.equal(input_gradient(net, image, 1), before)


@pytest.mark.parametrize("target", [1, "each"])
def test_smoothgrad_is_captums_with_the_same_draws(convnet, images, target):
    x, y = images
    target = y if target == "each" else target
    for method, theirs in ((saliency, captum.Saliency(convnet)), (lambda m, x, t: x * input_gradient(m, x, t), captum.InputXGradient(convnet))):
        torch.manual_seed(3)
        expected = captum.NoiseTunnel(theirs).attribute(x.clone(), nt_type="smoothgrad", nt_samples=6, stdevs=0.2, target=target)
        close(smoothgrad(convnet, x, target, method, noise=0.2, samples=6, seed=3), expected)


def test_smoothgrad_smooths_and_repeats(convnet, images):
    x, y = images
    assert torch.equal(smoothgrad(convnet, x, y, samples=4, seed=1), smoothgrad(convnet, x, y, samples=4, seed=1))
    assert not torch.equal(smoothgrad(convnet, x, y, samples=4, seed=1), smoothgrad(convnet, x, y, samples=4, seed=2))
    close(smoothgrad(convnet, x, y, noise=0.0, samples=2), saliency(convnet, x, y))
    assert torch.equal(smoothgrad(convnet, x, y.tolist(), samples=4), smoothgrad(convnet, x, y, samples=4))  # a list is as good
    for bad in (dict(samples=0), dict(noise=-1)):
        with pytest.raises(ValueError, match="expected samples >= 1"): smoothgrad(convnet, x, y, **bad)


# Integrated gradients

def test_integrated_gradients_of_known_functions():
    close(integrated_gradients(line, POINT), torch.tensor([[4.0, -9.0, 0.0]]))
    close(integrated_gradients(product, POINT, steps=1), torch.tensor([[3.0, 3.0, 1.0]]))
    close(integrated_gradients(product, POINT, baseline=torch.tensor([1.0, 1.0, 1.0])), torch.tensor([[2.0, 3.0, 0.0]]))
    assert input_gradient(saturated, POINT).abs().sum() == 0  # flat at x
    assert integrated_gradients(saturated, POINT, steps=500)[0, 0].item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_integrated_gradients_are_captums(convnet, images, steps):
    x, y = images
    for baseline in (None, 0.3, torch.full((1, 2, 8, 10), 0.5)):
        ours = integrated_gradients(convnet, x, y, baseline, steps)
        theirs, gap = captum.IntegratedGradients(convnet).attribute(x.clone(), baseline, y, n_steps=steps, return_convergence_delta=True)
        close(ours, theirs)
        close(completeness_gap(convnet, x, y, ours, baseline), gap)


@fast
@given(seeds, st.integers(1, 4))
def test_integrated_gradients_are_complete(seed, n):
    W, V = randn(4, 6, seed=seed), randn(6, 3, seed=seed + 1)
    model, x, baseline = (lambda x: (x @ W).tanh() @ V), randn(n, 4, seed=seed + 2), randn(4, seed=seed + 3)
    target = torch.randint(3, (n,), generator=rng_of(seed))
    found = integrated_gradients(model, x, target, baseline, steps=100)
    assert completeness_gap(model, x, target, found, baseline).abs().max() < 1e-3
    assert completeness_gap(model, x, target, found + 1, baseline).min() > 3.9


def test_integrated_gradients_refuse(convnet, images):
    x, y = images
    with pytest.raises(ValueError, match="steps >= 1, given 0"): integrated_gradients(convnet, x, y, steps=0)
    with pytest.raises(ValueError, match=r"spreads over \(4, 2, 8, 10\), given \(3,\)"): integrated_gradients(convnet, x, y, torch.zeros(3))
    with pytest.raises(ValueError, match="expected 4 attributions, given 3"): completeness_gap(convnet, x, y, x[:3])


# Taking away

@pytest.mark.parametrize("window, stride", [(1, 1), (3, 1), (3, 2), (4, 3), (5, 5)])
def test_occlusion_is_captums(convnet, images, window, stride):
    x, y = images
    theirs = captum.Occlusion(convnet).attribute(x, (2, window, window), (2, stride, stride), 0.25, y)
    close(occlusion(convnet, x, y, window, stride, 0.25), theirs[:, :1])


def test_occlusion_of_a_linear_image_model():
    weights = torch.arange(9.0).view(1, 1, 3, 3)
    def model(x): return (x * weights).sum((1, 2, 3))
    close(occlusion(model, torch.ones(1, 1, 3, 3), None, window=1), weights)
    assert occlusion(model, torch.ones(1, 1, 3, 3), None, window=3).unique().tolist() == [36]


@pytest.mark.parametrize("options", [dict(window=0), dict(stride=4), dict(stride=0), dict(window=9)])
def test_occlusion_refuses(convnet, images, options):
    with pytest.raises(ValueError, match="expected 1 <= stride <= window <= 8, given"): occlusion(convnet, *images, **options)
    with pytest.raises(ValueError, match="expected images"): occlusion(convnet, images[0][0], images[1])


def test_grad_cam_is_captums(convnet, images):
    x, y = images
    for layer in (convnet[0], convnet[2]):
        theirs = captum.LayerGradCam(convnet, layer).attribute(x.clone(), y, relu_attributions=True)
        close(grad_cam(convnet, layer, x, y), theirs)
    assert grad_cam(convnet, convnet[2], x, y).min() >= 0 and not grad_cam(convnet, convnet[2], x, y).requires_grad


def test_grad_cam_of_a_residual_network_with_frozen_weights():
    net = ResNet(1, 4, widths=(4, 8)).eval().requires_grad_(False)
    x = torch.rand(2, 1, 12, 12, generator=rng_of(0))
    found = grad_cam(net, net.stages[-1], x, 3)
    maps = net.stages(net.stem(x))
    by_hand = (maps * net.head[-1].weight[3].view(1, -1, 1, 1) / 36).sum(1, keepdim=True).relu()  # behind the maps: a mean and one linear layer
    close(found, by_hand)


def test_grad_cam_refuses(convnet, images):
    x, y = images
    with pytest.raises(ValueError, match=r"given one that gives \[\]"): grad_cam(convnet, nn.Conv2d(1, 1, 1), x, y)
    with pytest.raises(ValueError, match=r"given one that gives \[\(4, 3\)\]"): grad_cam(convnet, convnet[-1], x, y)
    assert not any(m._forward_hooks for m in convnet.modules())
    with pytest.raises(ValueError, match="classes from 0 to 2"): grad_cam(convnet, convnet[2], x, 7)
    assert not any(m._forward_hooks for m in convnet.modules()), "the hook stays behind"


# Coalitions

def test_coalition_scores():
    keep = torch.tensor([[False, False], [True, False], [True, True]])
    groups = torch.tensor([0, 0, 1])
    assert coalition_scores(product, POINT, None, keep, groups).tolist() == [0, 6, 7]
    assert coalition_scores(product, POINT, None, keep, groups, torch.tensor([1.0, 1.0, 5.0])).tolist() == [6, 11, 7]


@pytest.mark.parametrize("x, keep, groups, message", [
    (POINT.expand(2, -1), torch.ones(1, 3, dtype=torch.bool), None, r"one input \(1, ...\), given \(2, 3\)"),
    (POINT, torch.ones(1, 2, dtype=torch.bool), None, r"coalitions \(m, 3\), given \(1, 2\)"),
    (POINT, torch.ones(1, 3, dtype=torch.bool), torch.tensor([0, 2, 2]), r"without a gap.*\[0, 2\]"),
    (POINT, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0, 1]), r"groups of shape \(3,\)"),
])
def test_coalition_scores_refuse(x, keep, groups, message):
    with pytest.raises(ValueError, match=message): coalition_scores(product, x, None, keep, groups)


def test_shapley_values_of_known_functions():
    close(shapley_values(line, POINT), torch.tensor([4.0, -9.0, 0.0]))
    close(shapley_values(product, POINT), torch.tensor([3.0, 3.0, 1.0]))
    close(shapley_values(lambda x: x.prod(1), POINT), torch.tensor([2.0, 2.0, 2.0]))
    close(shapley_values(lambda x: x[:, :2].amax(1), torch.tensor([[1.0, 3.0, 9.0]])), torch.tensor([0.5, 2.5, 0.0]))
    close(shapley_values(product, POINT, None, torch.tensor([1, 1, 0])), torch.tensor([1.0, 6.0]))


def test_shapley_values_are_captums(table, convnet, images):
    net, row = table
    for baseline in (None, torch.full((1, 5), 0.5)):
        close(shapley_values(net, row, 1, None, baseline), captum.ShapleyValues(net).attribute(row, baseline, 1)[0])
    groups = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(10) // 5).repeat(2, 1, 1)
    theirs = captum.ShapleyValues(convnet).attribute(images[0][:1], 0.5, 0, feature_mask=groups[None])[0]
    close(shapley_values(convnet, images[0][:1], 0, groups, 0.5)[groups], theirs)


@fast
@given(seeds, st.integers(1, 5))
def test_shapley_values_are_the_mean_over_all_orders(seed, d):
    W = randn(d, 4, seed=seed)
    def f(x): return (x @ W).sigmoid().prod(1)
    x, baseline, gains = randn(1, d, seed=seed + 1), randn(1, d, seed=seed + 2), torch.zeros(d)
    for order in itertools.permutations(range(d)):
        now = baseline.clone()
        for i in order:
            before = f(now)
            now[0, i] = x[0, i]
            gains[i] += (f(now) - before).item() / math.factorial(d)
    found = shapley_values(f, x, None, None, baseline)
    close(found, gains)
    close(found.sum(), (f(x) - f(baseline))[0])


def test_shapley_values_refuse_too_many_features():
    with pytest.raises(ValueError, match="at most 16 features, given 17"): shapley_values(lambda x: x.sum(1), torch.ones(1, 17))


def test_sampled_shapley_values_are_captums_with_the_same_orders(table):
    net, row = table
    torch.manual_seed(5)
    theirs = captum.ShapleyValueSampling(net).attribute(row, 0.1, target=1, n_samples=30)[0]
    close(shapley_sample(net, row, 1, None, 0.1, samples=30, seed=5)[0], theirs)


def test_sampled_shapley_values_agree_with_exact_ones_within_their_error(table):
    net, row = table
    exact = shapley_values(net, row, 2)
    scores = []
    for seed in range(40):
        estimate, error = shapley_sample(net, row, 2, samples=60, seed=seed)
        close(estimate.sum(), exact.sum())
        scores.append((estimate - exact) / error)
    scores = torch.stack(scores)
    assert 0.8 < scores.std() < 1.25 and scores.mean().abs() < 0.25
    estimate, error = shapley_sample(line, POINT, samples=3)
    close(estimate, torch.tensor([4.0, -9.0, 0.0]))
    assert error.abs().max() < 1e-6
    with pytest.raises(ValueError, match="samples >= 2, given 1"): shapley_sample(line, POINT, samples=1)


def draws(samples, d, seed): return torch.rand(samples, d, generator=rng_of(seed)) < 0.5


@pytest.mark.parametrize("width", [0.2, 0.5, 3.0])
def test_lime_is_weighted_least_squares(table, width):
    net, row = table
    keep = draws(60, 5, 2)
    weight = torch.exp(-((1 - keep.double().mean(1)) / width) ** 2)
    score = coalition_scores(net, row, 1, keep)
    reference = LinearRegression().fit(keep, score, weight)
    slopes, explained = lime(net, row, 1, samples=60, width=width, seed=2)
    assert np.allclose(slopes, reference.coef_, atol=1e-4) and explained == pytest.approx(reference.score(keep, score, weight), abs=1e-5)


def test_lime_is_captums_with_the_same_draws(table):
    net, row = table
    given_ = iter(draws(50, 5, 4).float())
    def near(original, perturbed, kept, **_): return math.exp(-((1 - kept.double().mean()) / 0.5) ** 2)
    theirs = captum.Lime(net, SkLearnLinearRegression(), near, lambda *_, **__: next(given_)[None])
    expected = theirs.attribute(row, target=1, n_samples=50, return_input_shape=False)[0]
    close(lime(net, row, 1, samples=50, seed=4)[0], expected, tol=1e-4)


def test_lime_of_known_functions():
    slopes, explained = lime(line, POINT, samples=30)
    close(slopes, torch.tensor([4.0, -9.0, 0.0]))
    assert explained == pytest.approx(1)
    groups = torch.tensor([0, 1, 1])
    close(lime(line, POINT, None, groups, torch.tensor([1.0, 0.0, 0.0]), samples=30)[0], torch.tensor([2.0, -9.0]))
    assert lime(product, POINT)[1] < 0.95  # a product is no line
    for bad in (dict(samples=4), dict(width=0)):
        with pytest.raises(ValueError, match="expected samples >= 5 and width > 0"): lime(line, POINT, **bad)


def test_lime_with_the_shapley_kernel_gives_shapley_values(table):
    "Lundberg and Lee: the weighted fit on all coalitions, with none and all held fast, gives the exact values."
    from dlbook.solutions.ch17 import shapley_kernel
    net, row = table
    keep = torch.tensor(list(itertools.product([False, True], repeat=5)))
    weight = shapley_kernel(keep).double()
    weight[[0, -1]] = 1e7
    fit = LinearRegression().fit(keep, coalition_scores(net, row, 1, keep), weight)
    assert np.allclose(fit.coef_, shapley_values(net, row, 1), atol=1e-4)


# Permutation importance

@pytest.mark.parametrize("seed, repeats", [(0, 1), (7, 4)])
def test_permutation_importance_is_scikit_learns(seed, repeats):
    x, y = randn(60, 4, seed=seed), torch.arange(60) % 3
    x[:, 1] += y
    judge = LogisticRegression().fit(x.numpy(), y.numpy())
    ours = permutation_importance(lambda x, y: judge.score(x.numpy(), y.numpy()), x, y, repeats, seed)
    theirs = sklearn.inspection.permutation_importance(judge, x.numpy(), y.numpy(), n_repeats=repeats, random_state=seed).importances
    assert ours.shape == (4, repeats) and np.allclose(ours, theirs)
    assert ours.mean(1).argmax() == 1


def test_permutation_importance_is_captums():
    "captum shuffles by a function that it is given; it gets the order that ours draws."
    rng = torch.Generator().manual_seed(3)
    x, y = torch.randn(50, 4, generator=rng), torch.randn(50, generator=rng)
    y = y + 2 * x[:, 1] * x[:, 2]
    def score(x, y): return -(x[:, 1] * x[:, 2] + 0.3 * x[:, 0] - y).abs().mean()

    def shuffled(x, mask):
        rng, order = np.random.RandomState(np.random.RandomState(5).randint(np.iinfo(np.int32).max + 1)), np.arange(len(x))
        rng.shuffle(order)
        return torch.where(mask, x[torch.from_numpy(order)], x)

    theirs = captum.FeaturePermutation(lambda x: score(x, y), perm_func=shuffled).attribute(x)
    ours = permutation_importance(score, x, y, n_repeats=1, seed=5)[:, 0]
    assert (ours[:3] != 0).all() and ours[3] == 0  # the last column is not used
    torch.testing.assert_close(ours.float(), theirs.flatten(), rtol=1e-4, atol=1e-5)


def test_permutation_importance_of_groups():
    "Two equal columns stand in for each other, unless they are shuffled together; rows of a group stay whole."
    base = randn(200, 1, seed=0)
    x, y = torch.cat([base, base, randn(200, 1, seed=1)], 1), base[:, 0] > 0
    def score(x, y): return ((x[:, :2].amax(1) > 0) == y).double().mean().item()
    single = permutation_importance(score, x, y)
    together = permutation_importance(score, x, y, groups=torch.tensor([0, 0, 1]))
    assert together.shape == (2, 5) and together[0].mean() > 1.5 * single[0].mean() and together[1].abs().max() == single[2].abs().max() == 0
    whole = permutation_importance(lambda x, y: float((x[:, 0] == x[:, 1]).all()), x, y, groups=torch.tensor([0, 0, 1]))
    assert whole.abs().max() == 0
    before = x.clone()
    permutation_importance(score, x, y)
    assert torch.equal(x, before)
    for bad in ((x[0], y, 1), (x, y[:3], 1), (x, y, 0)):
        with pytest.raises(ValueError, match="expected x"): permutation_importance(score, *bad)


# Making images

def test_feature_visualization_climbs():
    template = torch.rand(2, 1, 4, 4, generator=rng_of(0)) - 0.5
    def match(x): return torch.einsum("nchw,kchw->nk", x, template)
    units = torch.tensor([0, 1])
    made = feature_visualization(match, units, (1, 4, 4), steps=60, jitter=0, roughness=0)
    assert torch.equal(made > 0.5, template > 0) and made.min() == 0 and made.max() == 1
    start = feature_visualization(match, units, (1, 4, 4), steps=0)
    assert match(made)[range(2), units].gt(match(start)[range(2), units]).all()


def test_feature_visualization_restraints(convnet):
    units = torch.tensor([0, 1, 2])
    def make(**options): return feature_visualization(convnet, units, (2, 8, 10), steps=30, **options)
    assert torch.equal(make(seed=1), make(seed=1)) and not torch.equal(make(seed=1), make(seed=2))
    assert make(roughness=50).diff(dim=3).abs().mean() < 0.5 * make(roughness=0).diff(dim=3).abs().mean()
    assert not torch.allclose(make(jitter=0), make(jitter=2))
    assert all(p.grad is None for p in convnet.parameters())
    with pytest.raises(ValueError, match="jitter >= 0"): make(jitter=-1)


def test_feature_visualization_moves_the_image_both_ways():
    got = []
    def model(x):
        got.append(x.detach().clone())
        return x.flatten(1)
    start = feature_visualization(model, torch.tensor([0]), (1, 5, 5), steps=40, lr=0.0, jitter=1)
    moves = {(dy, dx) for x in got for dy, dx in itertools.product(range(-2, 3), repeat=2) if torch.equal(start.roll((dy, dx), (2, 3)), x)}
    assert moves == set(itertools.product((-1, 0, 1), repeat=2))


# Attention

@fast
@given(seeds, st.integers(1, 3), st.integers(1, 4))
def test_rollout_sums_over_paths(seed, layers, steps):
    weights = [torch.rand(2, 3, steps, steps, generator=rng_of(seed + i)).softmax(-1) for i in range(layers)]
    rolled = attention_rollout(weights)
    by_paths = torch.zeros(2, steps, steps)
    for path in itertools.product(range(steps), repeat=layers + 1):  # from the output down to the input
        share = torch.ones(2)
        for layer, a, b in zip(reversed(weights), path, path[1:]): share = share * (layer[:, :, a, b].mean(1) + (a == b)) / 2
        by_paths[:, path[0], path[-1]] += share
    close(rolled, by_paths)
    close(rolled.sum(-1), torch.ones(2, steps))
    close(attention_rollout([w.mean(1) for w in weights]), rolled)


def test_rollout_refuses():
    for bad in ([], [torch.ones(2, 3, 4)], [torch.ones(1, 3, 3), torch.ones(1, 2, 2)], [torch.ones(3, 3)]):
        with pytest.raises(ValueError, match="expected (the )?weights"): attention_rollout(bad)


# Measures

@fast
@given(seeds, st.sampled_from([1, 3, 1000]))
def test_rank_correlation_is_spearmans(seed, levels):
    a, b = (torch.randint(-levels, levels + 1, (3, 4, 5), generator=rng_of(seed + i)).float() for i in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [scipy.stats.spearmanr(p.flatten(), q.flatten()).statistic for p, q in zip(a, b)]
    assert np.allclose(rank_correlation(a, b), np.nan_to_num(theirs))


def test_rank_correlation_of_constants_and_wrong_shapes():
    assert rank_correlation(torch.ones(2, 4), randn(2, 4)).tolist() == [0, 0]
    assert rank_correlation(randn(2, 4).exp(), randn(2, 4)).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="maps of one shape"): rank_correlation(torch.ones(2, 4), torch.ones(2, 5))


def test_perturbation_curves():
    weights = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    def model(x): return (x * weights).sum((1, 2, 3))
    ones, order = torch.ones(2, 3, 2, 2), torch.stack([weights, -weights])[:, None]
    assert perturbation_curve(model, ones, None, order, steps=4).tolist() == [[18, 9, 3, 0, 0], [18, 18, 15, 9, 0]]
    assert perturbation_curve(model, ones, None, order, insert=True, steps=4).tolist() == [[0, 9, 15, 18, 18], [0, 0, 3, 9, 18]]
    assert perturbation_curve(model, ones, None, order, steps=2, baseline=2.0)[0].tolist() == [18, 33, 36]
    for bad in (dict(maps=order[:, :, :1]), dict(maps=order, steps=0)):
        with pytest.raises(ValueError, match=r"expected maps \(2, 1, 2, 2\) and steps >= 1"): perturbation_curve(model, ones, None, **bad)


def test_insertion_and_deletion_mirror_each_other(convnet, images):
    x, y = images
    order = torch.rand(4, 1, 8, 10, generator=rng_of(0))
    deleted = perturbation_curve(convnet, x, y, order, steps=10)
    inserted = perturbation_curve(convnet, x, y, -order, insert=True, steps=10)
    close(deleted, inserted.flip(1))
    close(deleted[:, 0], class_scores(convnet, x, y))
    close(deleted[:, -1], class_scores(convnet, 0 * x, y))


def test_the_module_imports_nothing_that_it_does_not_need():
    code = "import sys, dlbook.interpret; print([m for m in ('matplotlib', 'fastai', 'captum', 'sklearn', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
