"""Chapter 03: the losses equal torch's, stay finite, name what is wrong, and the exercises judge fairly."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from dlbook.activations import log_softmax, softmax
from dlbook.kit.exercises import find, judge
from dlbook.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
)

settings.register_profile("losses", deadline=None, max_examples=40)
settings.load_profile("losses")

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])
reductions = st.sampled_from(["none", "mean", "sum"])
scales = st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4])
shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)
class_shapes = st.one_of(st.tuples(st.integers(1, 6)),
                         st.tuples(st.integers(1, 5), st.integers(1, 6)),
                         st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
                         st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)))


def assert_same(ours, theirs, input, *args, **kwargs):
    "The same values and the same gradient with respect to `input`, up to rounding in sums of numbers as large as the input."
    a, b = input.clone().requires_grad_(), input.clone().requires_grad_()
    x, y = ours(a, *args, **kwargs), theirs(b, *args, **kwargs)
    eps = torch.finfo(input.dtype).eps
    size = max(1.0, input.abs().max().item() if input.numel() else 1.0)
    torch.testing.assert_close(x, y, rtol=32 * eps, atol=64 * eps * size, equal_nan=True)
    upstream = torch.linspace(0.5, 1.5, max(x.numel(), 1), dtype=x.dtype)[:x.numel()].view(x.shape)
    grad_x, = torch.autograd.grad(x, a, upstream)
    grad_y, = torch.autograd.grad(y, b, upstream)
    torch.testing.assert_close(grad_x, grad_y, rtol=64 * eps, atol=64 * eps * max(1.0, grad_y.nan_to_num().abs().max().item()),
                               equal_nan=True)


def class_case(shape, dtype, scale, seed):
    "Scores, class numbers, some of them ignored, a distribution for each, and class weights."
    rng, dim = torch.Generator().manual_seed(seed), min(len(shape) - 1, 1)
    target = torch.randint(shape[dim], shape[:dim] + shape[dim + 1:], generator=rng)
    ignored = target.where(torch.rand(target.shape, generator=rng) > 0.3, -100)
    return (torch.randn(shape, generator=rng, dtype=dtype) * scale, target, ignored,
            torch.randn(shape, generator=rng, dtype=dtype).softmax(dim), torch.rand(shape[dim], generator=rng, dtype=dtype) + 0.1)


# ---- regression ------------------------------------------------------------------------------------------------------

@given(shapes, dtypes, scales, reductions, seeds, st.floats(0.01, 100))
def test_regression_losses_equal_torch(shape, dtype, scale, reduction, seed, delta):
    rng = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(shape, generator=rng, dtype=dtype) * s for s in (scale, 1))
    assert_same(mse_loss, F.mse_loss, x, y, reduction=reduction)
    assert_same(l1_loss, F.l1_loss, x, y, reduction=reduction)
    assert_same(huber_loss, F.huber_loss, x, y, reduction, delta)


def test_regression_losses_by_hand():
    x, y = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0.0, 3.0, 2.0])
    assert mse_loss(x, y, reduction="none").tolist() == [0, 4, 9]
    assert l1_loss(x, y).item() == pytest.approx(5 / 3)
    assert huber_loss(x, y, delta=2.0, reduction="none").tolist() == [0, 2, 4]
    assert huber_loss(x, y, delta=math.inf, reduction="sum").item() == 6.5


def test_gradient_of_the_target_too():
    x = torch.tensor([1.0, 2.0])
    for loss in (mse_loss, l1_loss, huber_loss):
        y = torch.tensor([0.5, 4.0], requires_grad=True)
        y2 = y.detach().clone().requires_grad_()
        loss(x, y).backward()
        getattr(F, loss.__name__)(x, y2).backward()
        torch.testing.assert_close(y.grad, y2.grad)


# ---- classification --------------------------------------------------------------------------------------------------

@given(shapes, dtypes, scales, reductions, seeds, st.booleans(), st.booleans(), st.booleans())
def test_binary_cross_entropy_equals_torch(shape, dtype, scale, reduction, seed, soft, weighted, pos_weighted):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=rng, dtype=dtype) * scale
    y = torch.rand(shape, generator=rng, dtype=dtype)
    last = shape[-1:]
    assert_same(binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, x, y if soft else y.round(),
                torch.rand(last, generator=rng, dtype=dtype) if weighted else None, reduction=reduction,
                pos_weight=3 * torch.rand(last, generator=rng, dtype=dtype) if pos_weighted else None)


@given(class_shapes, dtypes, scales, reductions, seeds, st.booleans(), st.booleans())
def test_nll_loss_equals_torch(shape, dtype, scale, reduction, seed, weighted, some_ignored):
    x, target, ignored, _, weight = class_case(shape, dtype, scale, seed)
    assert_same(nll_loss, F.nll_loss, x, ignored if some_ignored else target, weight if weighted else None, reduction=reduction)


@given(class_shapes, dtypes, scales, reductions, seeds, st.booleans(), st.sampled_from(["hard", "ignored", "soft"]),
       st.sampled_from([0.0, 0.1, 0.7, 1.0]))
def test_cross_entropy_equals_torch(shape, dtype, scale, reduction, seed, weighted, kind, smoothing):
    x, target, ignored, distribution, weight = class_case(shape, dtype, scale, seed)
    assert_same(cross_entropy, F.cross_entropy, x, {"hard": target, "ignored": ignored, "soft": distribution}[kind],
                weight if weighted else None, reduction=reduction, label_smoothing=smoothing)


@given(class_shapes, st.integers(0, 5), seeds, reductions, st.sampled_from([0.0, 0.2]))
def test_another_ignore_index(shape, ignore_index, seed, reduction, smoothing):
    x, target, _, _, weight = class_case(shape, torch.float64, 1.0, seed)
    assert_same(cross_entropy, F.cross_entropy, x, target, weight, ignore_index=ignore_index, reduction=reduction,
                label_smoothing=smoothing)


@given(class_shapes, dtypes, reductions, seeds, st.booleans())
def test_focal_loss_without_gamma_is_cross_entropy(shape, dtype, reduction, seed, weighted):
    x, _, ignored, _, weight = class_case(shape, dtype, 3.0, seed)
    weight = weight if weighted else None
    assert_same(lambda *a: focal_loss(*a, gamma=0.0, weight=weight, reduction=reduction),
                lambda *a: F.cross_entropy(*a, weight=weight, reduction=reduction), x, ignored)


@given(st.integers(1, 20), st.sampled_from([0.5, 1.0, 2.0, 5.0]), st.floats(0.05, 0.95), seeds)
def test_focal_loss_equals_torchvision(n, gamma, alpha, seed):
    rng = torch.Generator().manual_seed(seed)
    z, y = 3 * torch.randn(n, generator=rng, dtype=torch.float64), torch.randint(2, (n,), generator=rng)
    weight = torch.tensor([1 - alpha, alpha], dtype=torch.float64)

    def ours(z): return focal_loss(torch.stack([torch.zeros_like(z), z], 1), y, gamma, weight, reduction="none")

    torch.testing.assert_close(ours(z), sigmoid_focal_loss(z, y.double(), alpha, gamma), rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(ours, z.clone().requires_grad_())


def test_focal_mean_is_the_weighted_mean():
    x, _, ignored, _, weight = class_case((6, 4), torch.float64, 1.0, 0)
    each = focal_loss(x, ignored, weight=weight, reduction="none")
    total = sum(weight[t].item() for t in ignored.tolist() if t >= 0)
    torch.testing.assert_close(focal_loss(x, ignored, weight=weight), each.sum() / total)


def test_uint8_class_numbers_as_in_torch():
    x, target, *_ = class_case((6, 4), torch.float32, 1.0, 0)
    torch.testing.assert_close(cross_entropy(x, target.to(torch.uint8)), F.cross_entropy(x, target))


def test_nothing_to_average_is_nan_as_in_torch():
    assert cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).isnan()
    assert cross_entropy(torch.zeros(2, 3), torch.tensor([-100, -100])).isnan()
    assert cross_entropy(torch.zeros(2, 3), torch.tensor([-100, -100]), reduction="sum") == 0
    assert mse_loss(torch.zeros(0), torch.zeros(0)).isnan()


# ---- extremes --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("high", [0.0, 50.0, 100.0, 1e4])
def test_finite_for_large_scores_in_float32(high):
    z = torch.tensor([[high, 0.0, -high], [-high, high, high], [high, high, -high]])
    for name, loss in [("cross_entropy", cross_entropy),
                       ("smoothed", lambda z, t: cross_entropy(z, t, label_smoothing=0.1)),
                       ("soft", lambda z, t: cross_entropy(z, F.one_hot(t, 3).float()))] + [
                       (f"focal {g}", lambda z, t, g=g: focal_loss(z, t, gamma=g)) for g in (0, 0.3, 1, 2, 5)]:
        for t in range(3):
            a = z.clone().requires_grad_()
            value = loss(a, torch.tensor([t, t, t]))
            gradient, = torch.autograd.grad(value, a)
            assert value.isfinite() and gradient.isfinite().all(), (name, t)
    for target in (0.0, 0.5, 1.0):
        a = z.clone().requires_grad_()
        value = binary_cross_entropy_with_logits(a, torch.full_like(z, target), pos_weight=torch.tensor(3.0))
        gradient, = torch.autograd.grad(value, a)
        assert value.isfinite() and gradient.isfinite().all(), target
    for loss in (mse_loss, l1_loss, huber_loss):
        a = z.clone().requires_grad_()
        value = loss(a, -z)
        assert value.isfinite() and torch.autograd.grad(value, a)[0].isfinite().all()


def test_small_losses_keep_their_digits():
    z = torch.tensor([15.0])
    assert binary_cross_entropy_with_logits(z, torch.ones(1)).item() == pytest.approx(math.log1p(math.exp(-15)), rel=1e-5)
    # a soft target far out: the sum of two positive terms, where torch's difference of large ones loses digits
    z, y = torch.tensor([-1e4]), torch.tensor([1e-4])
    assert binary_cross_entropy_with_logits(z, y).item() == pytest.approx(1.0, rel=1e-5)


def test_minus_infinity_masks_a_class():
    z = torch.tensor([[1.0, -math.inf, 0.0]], requires_grad=True)
    loss = cross_entropy(z, torch.tensor([0]))
    torch.testing.assert_close(loss, cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0])))
    assert torch.autograd.grad(loss, z)[0].tolist()[0][1] == 0


def test_inputs_stay_as_they_were():
    x, target, ignored, distribution, weight = class_case((6, 4), torch.float32, 1.0, 0)
    for loss, *args in [(cross_entropy, x, ignored, weight), (cross_entropy, x, distribution, weight), (focal_loss, x, ignored, 2.0, weight),
                        (mse_loss, x, distribution), (binary_cross_entropy_with_logits, x, distribution), (huber_loss, x, distribution)]:
        before = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
        loss(*args)
        assert all(torch.equal(a, b) for a, b in zip(args, before) if isinstance(a, torch.Tensor)), loss


# ---- what is wrong ---------------------------------------------------------------------------------------------------

x23, y2 = torch.zeros(2, 3), torch.tensor([0, 2])


@pytest.mark.parametrize("call, error, parts", [
    (lambda: mse_loss(torch.zeros(4, 1), torch.zeros(4)), ValueError, ["(4, 1)", "(4,)"]),
    (lambda: l1_loss(torch.zeros(2), torch.zeros(3)), ValueError, ["(2,)", "(3,)"]),
    (lambda: huber_loss(torch.zeros(2), torch.zeros(2), delta=0.0), ValueError, ["delta > 0", "0.0"]),
    (lambda: huber_loss(torch.zeros(2), torch.zeros(2), delta=math.nan), ValueError, ["delta > 0", "nan"]),
    (lambda: mse_loss(torch.zeros(2), torch.zeros(2), reduction="average"), ValueError, ["'mean'", "'average'"]),
    (lambda: mse_loss([0.0], torch.zeros(1)), TypeError, ["input", "list"]),
    (lambda: mse_loss(torch.zeros(1), 0.0), TypeError, ["target", "float"]),
    (lambda: l1_loss(torch.tensor([1]), torch.tensor([1])), TypeError, ["floats", "torch.int64"]),
    (lambda: binary_cross_entropy_with_logits(x23, torch.full((2, 3), 2.0)), ValueError, ["between 0 and 1", "2"]),
    (lambda: binary_cross_entropy_with_logits(x23, torch.full((2, 3), math.nan)), ValueError, ["between 0 and 1", "nan"]),
    (lambda: binary_cross_entropy_with_logits(x23, torch.ones(2, 3, dtype=torch.int64)), TypeError, ["floats", "torch.int64"]),
    (lambda: binary_cross_entropy_with_logits(x23[:, :1], torch.zeros(2)), ValueError, ["(2, 1)", "(2,)"]),
    (lambda: cross_entropy(x23, torch.tensor([0, 3])), ValueError, ["0 to 2", "3"]),
    (lambda: cross_entropy(x23, torch.tensor([-1, 0])), ValueError, ["0 to 2", "-1"]),
    (lambda: nll_loss(x23, torch.tensor([0, 3])), ValueError, ["0 to 2", "3"]),
    (lambda: focal_loss(x23, torch.tensor([0, 3])), ValueError, ["0 to 2", "3"]),
    (lambda: cross_entropy(x23, torch.tensor([0, 1, 2])), ValueError, ["(2,)", "(2, 3)", "(3,)"]),
    (lambda: cross_entropy(x23, y2[:, None]), ValueError, ["(2,)", "(2, 1)"]),
    (lambda: cross_entropy(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.int64)), ValueError, ["(2, 3)", "(2, 5)"]),
    (lambda: cross_entropy(x23, y2.float()), TypeError, ["int64", "torch.float32"]),
    (lambda: cross_entropy(x23, torch.zeros(2, 3, dtype=torch.int64)), TypeError, ["floats", "torch.int64"]),
    (lambda: cross_entropy(x23, torch.full((2, 3), 1.5)), ValueError, ["between 0 and 1", "1.5"]),
    (lambda: cross_entropy(x23, y2, torch.ones(2)), ValueError, ["(3,)", "(2,)"]),
    (lambda: cross_entropy(x23, y2, label_smoothing=1.5), ValueError, ["0 to 1", "1.5"]),
    (lambda: cross_entropy(x23, y2, reduction="avg"), ValueError, ["'sum'", "'avg'"]),
    (lambda: cross_entropy(x23.long(), y2), TypeError, ["floats", "torch.int64"]),
    (lambda: cross_entropy(torch.tensor(1.0), torch.tensor(0)), ValueError, ["(C,)", "()"]),
    (lambda: cross_entropy(x23, [0, 2]), TypeError, ["target", "list"]),
    (lambda: cross_entropy([[0.0]], y2), TypeError, ["input", "list"]),
    (lambda: focal_loss(x23, y2, gamma=-1), ValueError, ["gamma >= 0", "-1"]),
    (lambda: focal_loss(x23, y2.float()), TypeError, ["int64", "torch.float32"]),
])
def test_messages_name_what_was_expected_and_given(call, error, parts):
    with pytest.raises(error) as caught: call()
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("loss", [mse_loss, l1_loss, nll_loss, cross_entropy, binary_cross_entropy_with_logits])
def test_what_stands_behind_retired_arguments_of_torch_must_be_named(loss):
    args = (x23, y2) if loss in (nll_loss, cross_entropy) else (x23, x23)
    weight = () if loss in (mse_loss, l1_loss) else (None,)
    with pytest.raises(TypeError, match="positional"): loss(*args, *weight, "sum")
    loss(*args, *weight, reduction="sum")


# ---- exercises -------------------------------------------------------------------------------------------------------

def gradient_loop(scores, y):
    out = softmax(scores, 1).clone()
    for i, c in enumerate(y.tolist()): out[i, c] -= 1
    return out / scores.shape[0]


def gradient_by_autograd(scores, y):
    z = scores.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(z, y), z)[0]


def pinball_branches(prediction, target, q):
    e = target - prediction
    return torch.where(e >= 0, q * e, (q - 1) * e).mean()


def sentence_loop(scores, target, lengths):
    rows = [F.cross_entropy(s[:n], t[:n], reduction="none") for s, t, n in zip(scores, target, lengths.tolist())]
    return torch.cat(rows).mean()


def gce_from_probabilities(scores, y, q):
    return ((1 - scores.softmax(1).gather(1, y[:, None])[:, 0] ** q) / q).mean()


@pytest.mark.parametrize("id, answer", [
    ("03.1", 2.3026), ("03.1", math.log(10)), ("03.1", torch.tensor(2.3026)),
    ("03.2", gradient_loop), ("03.2", gradient_by_autograd),
    ("03.3", pinball_branches), ("03.5", sentence_loop),
    ("03.6", lambda classes, eps: math.log(1 + classes * (1 - eps) / eps)),
    ("03.4", gce_from_probabilities),
])
def test_right_answers_written_in_other_ways(id, answer):
    verdict = judge(id, answer)
    assert verdict.state == "right", verdict


@pytest.mark.parametrize("id, answer, message", [
    ("03.1", 3.0, "too large"),
    ("03.1", math.log10(10), "base 10"),
    ("03.1", lambda: 2.3026, "should be a value"),
    ("03.2", lambda scores, y: (scores.softmax(1) - F.one_hot(y, scores.shape[1])) / 1, "mean is missing"),
    ("03.2", lambda scores, y: F.one_hot(y, scores.shape[1]) / len(y) - softmax(scores, 1) / len(y), "sign is turned"),
    ("03.2", lambda scores, y: (scores - F.one_hot(y, scores.shape[1])) / len(y), "the gradient should be"),
    ("03.2", lambda scores, y: softmax(scores, 1)[torch.arange(len(y)), y] - 1, "should have shape (1, 2)"),
    ("03.3", lambda prediction, target, q: (prediction - target).abs().mean(), "the loss should be"),
    ("03.3", lambda prediction, target, q: torch.where(prediction > target, q * (prediction - target), (1 - q) * (target - prediction)).mean(),
     "sides are swapped"),
    ("03.3", lambda prediction, target, q: torch.maximum(q * (target - prediction), (q - 1) * (target - prediction)), "should have shape ()"),
    ("03.5", lambda scores, target, lengths: F.cross_entropy(scores.flatten(0, 1), target.flatten()), "filling counts"),
    ("03.5", lambda scores, target, lengths: torch.stack([F.cross_entropy(s[:n], t[:n]) for s, t, n in zip(scores, target, lengths)]).mean(),
     "average each sentence first"),
    ("03.5", lambda scores, target, lengths: cross_entropy(scores, target), "raises"),
    ("03.6", lambda classes, eps: math.log((1 - eps) * classes / eps), "its own share"),
    ("03.6", lambda classes, eps: math.log(classes), "the gap should be"),
    ("03.4", lambda scores, y, q: -log_softmax(scores, 1)[torch.arange(len(y)), y].mean(), "the loss should be"),
    ("03.4", lambda scores, y, q: F.cross_entropy(scores * q, y), "the loss should be"),
    ("03.4", lambda scores, y, q: (1 - (q * log_softmax(scores, 1)[torch.arange(len(y)), y]).exp()).mean(), "division by q"),
])
def test_wrong_answers_are_told_why(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and message in verdict.line, verdict
