"Chapter 8: convolutions, their gradients, pooling and layers are torch's, for any legal shape; what is illegal is refused."
import copy
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook import cnn
from dlbook.cnn import (Conv1d, Conv2d, avg_pool2d, conv1d, conv2d, conv2d_backward, conv2d_loops, fold, max_pool2d, output_size, unfold,
                        windows)
from dlbook.kit.exercises import find, judge

settings.register_profile("book", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("book")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, for even kernels

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])


def one_or_pair(low, high): return st.one_of(st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high)))
def pair(value): return tuple(value) if isinstance(value, tuple) else (value, value)
def generator(seed): return torch.Generator().manual_seed(seed)


@st.composite
def convolutions(draw, dims=2, dtype=torch.float64):
    "Input, weight, bias (or None), and settings that torch accepts."
    groups, kernel = draw(st.integers(1, 3)), [draw(st.integers(1, 3)) for _ in range(dims)]
    numbers = one_or_pair if dims == 2 else st.integers
    padding = draw(st.one_of(numbers(0, 3), st.sampled_from(["same", "valid"])))
    options = dict(stride=1 if padding == "same" else draw(numbers(1, 3)), padding=padding, dilation=draw(numbers(1, 3)), groups=groups)
    sizes = []
    for i, k in enumerate(kernel):
        around = 0 if padding == "valid" else 2 * pair(padding)[i] if padding != "same" else 99
        sizes.append(draw(st.integers(max(1, pair(options["dilation"])[i] * (k - 1) + 1 - around), 8)))
    n_in, n_out = (groups * draw(st.integers(1, 2)) for _ in range(2))
    rng = generator(draw(seeds))
    x = torch.randn(*draw(st.sampled_from([(), (1,), (3,)])), n_in, *sizes, generator=rng, dtype=dtype)
    w = torch.randn(n_out, n_in // groups, *kernel, generator=rng, dtype=dtype)
    b = torch.randn(n_out, generator=rng, dtype=dtype) if draw(st.booleans()) else None
    return x, w, b, options


def leaves(*tensors): return [t if t is None else t.clone().requires_grad_() for t in tensors]


def assert_same(ours, theirs, tensors, **tolerance):
    "Equal values, and equal gradients with respect to the tensors, for the same gradient of the output."
    results = []
    for f in (ours, theirs):
        given_ = leaves(*tensors)
        out = f(*given_)
        weights = torch.linspace(-1, 2, max(out.numel(), 1), dtype=out.dtype)[:out.numel()].view(out.shape)
        results.append([out, *torch.autograd.grad((out.sin() * weights).sum(), [t for t in given_ if t is not None])])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        torch.testing.assert_close(a, b, **tolerance)


# Convolution

@settings(max_examples=120)
@given(convolutions())
def test_conv2d_is_torchs(case):
    *tensors, options = case
    assert_same(lambda *t: conv2d(*t, **options), lambda *t: F.conv2d(*t, **options), tensors)


@settings(max_examples=80)
@given(convolutions(dims=1))
def test_conv1d_is_torchs(case):
    *tensors, options = case
    assert_same(lambda *t: conv1d(*t, **options), lambda *t: F.conv1d(*t, **options), tensors)


@given(convolutions(dtype=torch.float32))
def test_in_single_precision(case):
    *tensors, options = case
    assert_same(lambda *t: conv2d(*t, **options), lambda *t: F.conv2d(*t, **options), tensors, rtol=1e-4, atol=1e-4)


@given(convolutions())
def test_the_loops_are_torchs_too(case):
    *tensors, options = case
    assume(tensors[0].numel() < 150)
    assert_same(lambda *t: conv2d_loops(*t, **options), lambda *t: F.conv2d(*t, **options), tensors)


@pytest.mark.parametrize("name", ["conv1d", "conv2d"])
def test_arguments_are_torchs(name):
    "Names, order and defaults, by position too. (torch's own have no signature to inspect.)"
    names = [(p.name, p.default) for p in inspect.signature(getattr(cnn, name)).parameters.values()]
    empty = inspect.Parameter.empty
    assert names == [("input", empty), ("weight", empty), ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)]
    dims = int(name[4])
    x, w, b = torch.randn(2, 4, *[11] * dims), torch.randn(6, 2, *[3] * dims), torch.randn(6)
    torch.testing.assert_close(getattr(cnn, name)(x, w, b, 2, 1, 2, 2), getattr(F, name)(x, w, b, 2, 1, 2, 2), rtol=1e-4, atol=1e-5)
    if dims == 1: torch.testing.assert_close(conv1d(x, w, b, (2,), (1,), [2], 2), F.conv1d(x, w, b, 2, 1, 2, 2), rtol=1e-4, atol=1e-5)


@settings(max_examples=12)
@given(convolutions())
def test_first_and_second_derivatives_agree_with_differences(case):
    x, w, b, options = case
    assume(x.numel() <= 60 and w.numel() <= 40)
    tensors = leaves(x, w) + ([] if b is None else leaves(b))
    f = lambda *t: conv2d(*t, **options)
    assert torch.autograd.gradcheck(f, tensors) and torch.autograd.gradgradcheck(f, tensors)


@given(convolutions())
def test_the_backward_pass_alone(case):
    x, w, b, options = case
    assume(x.ndim == 4 and options["padding"] not in ("same", "valid"))
    x, w = leaves(x, w)
    b = torch.randn(len(w), dtype=x.dtype, requires_grad=True)
    out = F.conv2d(x, w, b, **options)
    grad = torch.randn(out.shape, generator=generator(0), dtype=out.dtype)
    torch.testing.assert_close(conv2d_backward(grad, x, w, **options), torch.autograd.grad(out, (x, w, b), grad))


def test_only_the_wanted_gradients_are_computed(monkeypatch):
    x, w, grad = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(2, 4, 3, 3)
    whole = conv2d_backward(grad, x, w)
    for i in range(3):
        mask = [j == i for j in range(3)]
        part = conv2d_backward(grad, x, w, output_mask=mask)
        assert [g is not None for g in part] == mask
        torch.testing.assert_close(part[i], whole[i])
    monkeypatch.setattr(cnn, "fold", None)  # the gradient of the input needs it
    weight = w.clone().requires_grad_()
    conv2d(x, weight).sum().backward()  # images that need no gradient, as in the first layer of a network
    assert weight.grad.shape == w.shape


@given(convolutions(), st.sampled_from(["transposed", "expanded", "channels last", "sliced"]))
def test_any_memory_layout(case, layout):
    x, w, b, options = case
    assume(x.ndim == 4)
    change = {"transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3), "expanded": lambda t: t[:1].expand(3, -1, -1, -1),
              "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
              "sliced": lambda t: torch.cat([t, t], 3)[..., ::2] if t.shape[3] > 1 else torch.cat([t, t], 1)[:, ::2]}[layout]
    x = change(x)
    w = w if layout == "expanded" else change(w)
    if options["groups"] > 1 and layout == "sliced": x = x.clone()
    assert_same(lambda *t: conv2d(*t, **options), lambda *t: F.conv2d(*t, **options), [x, w, b])
    torch.testing.assert_close(conv2d(x, w, b, **options), F.conv2d(x, w, b, **options))


def test_an_empty_batch():
    x, w = torch.randn(0, 4, 6, 6, requires_grad=True), torch.randn(6, 2, 3, 3, requires_grad=True)
    out = conv2d(x, w, padding=1, groups=2)
    assert out.shape == (0, 6, 6, 6)
    out.sum().backward()
    assert x.grad.shape == x.shape and w.grad.count_nonzero() == 0
    assert conv1d(torch.randn(0, 2, 5), torch.randn(3, 2, 2)).shape == (0, 3, 4)


def test_inputs_stay_as_they_were():
    tensors = [torch.randn(2, 4, 6, 6), torch.randn(4, 2, 3, 3), torch.randn(4)]
    before = copy.deepcopy(tensors)
    conv2d(*tensors, padding=1, groups=2)
    max_pool2d(tensors[0], 2)
    avg_pool2d(tensors[0], 2)
    conv2d_backward(torch.randn(2, 4, 4, 4), *tensors[:2], groups=2)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before))


def test_gradients_do_not_wait_for_columns():
    "What is kept for the backward pass is the input and the weight, not the unfolded input."
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        conv2d(torch.randn(2, 8, 20, 20, requires_grad=True), torch.randn(8, 8, 5, 5, requires_grad=True), padding=2)
    assert 0 < sum(saved) < 2 * 8 * 24 * 24 + 8 * 8 * 25 + 100


X, W = torch.zeros(2, 4, 8, 8), torch.zeros(6, 4, 3, 3)


@pytest.mark.parametrize("call, error, message", [
    (lambda: conv2d([[1.0]], W), TypeError, "expected input as a tensor, given list"),
    (lambda: conv2d(X, W.numpy()), TypeError, "expected weight as a tensor, given ndarray"),
    (lambda: conv2d(X, W, 0.5), TypeError, "expected bias as a tensor, given float"),
    (lambda: conv2d(X.long(), W.long()), TypeError, "expected floating-point tensors of one dtype, given input torch.int64"),
    (lambda: conv2d(X, W.double()), TypeError, "given weight torch.float64, input torch.float32"),
    (lambda: conv2d(X, W, torch.zeros(6).double()), TypeError, "given bias torch.float64"),
    (lambda: conv2d(X[0, 0], W), ValueError, r"expected input \(batch, channels, height, width\), given \(8, 8\)"),
    (lambda: conv2d(X[None], W), ValueError, r"given \(1, 2, 4, 8, 8\)"),
    (lambda: conv2d(X, W[0]), ValueError, r"expected weight \(channels out, channels in / groups, height, width\), given \(4, 3, 3\)"),
    (lambda: conv2d(X, W[:, :, :0]), ValueError, r"given \(6, 4, 0, 3\)"),
    (lambda: conv2d(X, W[:, :3]), ValueError, r"expected channels that fit 1 groups, given input \(2, 4, 8, 8\), weight \(6, 3, 3, 3\)"),
    (lambda: conv2d(X, W[:5, :2], groups=2), ValueError, r"fit 2 groups, given input \(2, 4, 8, 8\), weight \(5, 2, 3, 3\)"),
    (lambda: conv2d(X, W, groups=2), ValueError, "fit 2 groups"),
    (lambda: conv2d(X, W, groups=0), ValueError, "expected groups as a whole number from 1 on, given 0"),
    (lambda: conv2d(X, W, torch.zeros(4)), ValueError, r"expected bias \(6,\), given \(4,\)"),
    (lambda: conv2d(X, W, stride=0), ValueError, "expected stride as a whole number from 1 on, or 2 of them, given 0"),
    (lambda: conv2d(X, W, stride=1.0), ValueError, "expected stride .* given 1.0"),
    (lambda: conv2d(X, W, stride=True), ValueError, "expected stride .* given True"),
    (lambda: conv2d(X, W, stride=(1, 2, 3)), ValueError, r"expected stride .* given \(1, 2, 3\)"),
    (lambda: conv2d(X, W, dilation=0), ValueError, "expected dilation .* given 0"),
    (lambda: conv2d(X, W, padding=-1), ValueError, "expected padding 'valid', 'same', or .* from 0 on, or 2 of them, given -1"),
    (lambda: conv2d(X, W, padding="full"), ValueError, "given 'full'"),
    (lambda: conv2d(X, W, padding="same", stride=2), ValueError, r"expected stride 1 with padding 'same', given \(2, 2\)"),
    (lambda: conv2d(X, W, dilation=4), ValueError, "expected at least 9 elements for kernel 3 with dilation 4, given 8 with padding 0"),
    (lambda: conv2d_loops(X, W, dilation=4), ValueError, "expected at least 9 elements"),
    (lambda: conv1d(X, W), ValueError, r"expected input \(batch, channels, length\), given \(2, 4, 8, 8\)"),
    (lambda: conv1d(X[0], W[:, :3, 0]), ValueError, r"given input \(4, 8, 8\), weight \(6, 3, 3\)"),
    (lambda: conv1d(X[0, :, 0], W[:, :, 0], stride=(1, 2)), ValueError, r"expected stride as a whole number from 1 on, given \(1, 2\)"),
    (lambda: conv1d(X[0, :, 0], W[:, :, 0], padding=(1, 2)), ValueError, r"given \(1, 2\)"),
    (lambda: conv1d(X[0, :, 0], W[:, :, 0], dilation=0), ValueError, "expected dilation"),
    (lambda: conv2d_backward(X, X, W), ValueError, r"expected grad_output of \(2, 6\) with 36 places, given \(2, 4, 8, 8\)"),
    (lambda: output_size(3, 5, 1, 0), ValueError, "expected at least 5 elements for kernel 5 with dilation 1, given 3 with padding 0"),
    (lambda: unfold(X[0, 0], 3), ValueError, r"expected input \(B, C, H, W\) or \(C, H, W\), given \(8, 8\)"),
    (lambda: unfold(X, 9), ValueError, "expected at least 9 elements"),
    (lambda: unfold(X, 0), ValueError, "expected kernel_size"),
    (lambda: fold(torch.zeros(2, 9, 35), (8, 8), 3), ValueError, r"expected columns \(B, a multiple of 9, 36\), given \(2, 9, 35\)"),
    (lambda: fold(torch.zeros(2, 10, 36), (8, 8), 3), ValueError, r"given \(2, 10, 36\)"),
    (lambda: max_pool2d(X.long(), 2), TypeError, "expected a floating-point tensor, given torch.int64"),
    (lambda: avg_pool2d([1.0], 2), TypeError, "expected a floating-point tensor, given list"),
    (lambda: max_pool2d(X[0, 0], 2), ValueError, r"expected input .* given \(8, 8\)"),
    (lambda: avg_pool2d(X, 0), ValueError, "expected kernel_size .* given 0"),
    (lambda: avg_pool2d(X, 2, 0), ValueError, "expected stride .* given 0"),
    (lambda: max_pool2d(X, 3, padding=2), ValueError, r"expected a padding of at most half of kernel_size \(3, 3\), given \(2, 2\)"),
    (lambda: max_pool2d(X, 9), ValueError, "expected at least 9 elements"),
    (lambda: Conv2d(0, 3, 3), ValueError, "expected in_channels as a whole number from 1 on, given 0"),
    (lambda: Conv2d(3, 4.0, 3), ValueError, "expected out_channels .* given 4.0"),
    (lambda: Conv2d(4, 6, 3, groups=4), ValueError, "expected channels that 4 groups divide, given 4 in, 6 out"),
    (lambda: Conv1d(4, 6, 3, groups=0), ValueError, "expected groups"),
    (lambda: Conv2d(4, 6, (3, 3, 3)), ValueError, "expected kernel_size"),
    (lambda: Conv1d(4, 6, (3, 3)), ValueError, "expected kernel_size"),
    (lambda: Conv2d(4, 6, 3, stride=0), ValueError, "expected stride"),
    (lambda: Conv2d(4, 6, 3, padding="half"), ValueError, "given 'half'"),
    (lambda: Conv2d(4, 6, 3, padding="same", stride=2), ValueError, "expected stride 1 with padding 'same'"),
    (lambda: Conv2d(4, 6, 3, padding_mode="mirror"), ValueError, "expected padding_mode .* given 'mirror'"),
    (lambda: Conv2d(4, 6, 3)(X[:, :3]), ValueError, "expected channels that fit 1 groups"),
])
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message): call()


# Unfolding and folding

@settings(max_examples=80)
@given(convolutions())
def test_unfold_and_fold_are_torchs(case):
    x, w, _, options = case
    assume(options["padding"] not in ("same", "valid"))
    settings_ = dict(kernel_size=tuple(w.shape[2:]), dilation=options["dilation"], padding=options["padding"], stride=options["stride"])
    assert_same(lambda t: unfold(t, **settings_), lambda t: F.unfold(t, **settings_), [x])
    x = x if x.ndim == 4 else x[None]
    columns = torch.randn(F.unfold(x, **settings_).shape, generator=generator(1), dtype=x.dtype)
    assert_same(lambda t: fold(t, tuple(x.shape[2:]), **settings_), lambda t: F.fold(t, tuple(x.shape[2:]), **settings_), [columns])
    torch.testing.assert_close((unfold(x, **settings_) * columns).sum(), (x * fold(columns, tuple(x.shape[2:]), **settings_)).sum())


@pytest.mark.parametrize("name", ["unfold", "fold"])
def test_unfold_has_torchs_arguments(name):
    ours, theirs = (inspect.signature(getattr(m, name)).parameters.values() for m in (cnn, F))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_windows_copy_nothing():
    x = torch.arange(2 * 3 * 5 * 6).view(2, 3, 5, 6)
    view = windows(x, (2, 3), (2, 1), (1, 2))
    assert view.shape == (2, 3, 2, 3, 2, 2) and view.data_ptr() == x.data_ptr()
    for i in range(2):
        for j in range(2): assert torch.equal(view[..., i, j], x[:, :, 2 * i:2 * i + 2, j:j + 5:2])
    part = x[1:, :, 1:, ::2]  # a view that does not begin where the memory does
    assert torch.equal(windows(part, (2, 2))[..., 1, 1], part[:, :, 1:3, 1:3])


# Pooling

@st.composite
def poolings(draw):
    kernel = draw(one_or_pair(1, 4))
    padding = draw(st.one_of(st.just(0), st.tuples(*(st.integers(0, k // 2) for k in pair(kernel)))))
    options = dict(stride=draw(st.one_of(st.none(), one_or_pair(1, 4))), padding=padding, ceil_mode=draw(st.booleans()))
    shape = (*draw(st.sampled_from([(), (1,), (2,)])), 2, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    return draw(seeds), shape, kernel, options


@settings(max_examples=150)
@given(poolings(), one_or_pair(1, 2), st.booleans())
def test_max_pooling_is_torchs(case, dilation, ties):
    seed, shape, kernel, options = case
    x = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    if ties: x = x.round().relu()
    try: expected = F.max_pool2d(x, kernel, dilation=dilation, **options)
    except RuntimeError:
        with pytest.raises(ValueError): max_pool2d(x, kernel, dilation=dilation, **options)
        return
    if expected.isinf().any():  # a window that meets nothing: torch's gradient then writes where it must not
        torch.testing.assert_close(max_pool2d(x, kernel, dilation=dilation, **options), expected)
        return
    assert_same(lambda t: max_pool2d(t, kernel, dilation=dilation, **options), lambda t: F.max_pool2d(t, kernel, dilation=dilation, **options), [x],
                rtol=0, atol=0)


@settings(max_examples=150)
@given(poolings(), st.booleans())
def test_mean_pooling_is_torchs(case, count_include_pad):
    seed, shape, kernel, options = case
    x, options = torch.randn(shape, generator=generator(seed), dtype=torch.float64), options | dict(count_include_pad=count_include_pad)
    try: F.avg_pool2d(x, kernel, **options)
    except RuntimeError:
        with pytest.raises(ValueError): avg_pool2d(x, kernel, **options)
        return
    assert_same(lambda t: avg_pool2d(t, kernel, **options), lambda t: F.avg_pool2d(t, kernel, **options), [x])


def test_pooling_by_position_and_with_special_values():
    x = torch.tensor([[[1.0, math.nan, 2, 3], [0, 1, math.inf, -math.inf]]])
    torch.testing.assert_close(max_pool2d(x, 2), F.max_pool2d(x, 2), equal_nan=True)
    y = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(max_pool2d(y, 3, 2, 1, 2, True), F.max_pool2d(y, 3, 2, 1, 2, True))
    torch.testing.assert_close(avg_pool2d(y, 3, 2, 1, True, False), F.avg_pool2d(y, 3, 2, 1, True, False))
    assert max_pool2d(y[:0], 2).shape == (0, 3, 4, 4)


def test_poolings_can_be_differentiated_twice():
    x = torch.randn(1, 2, 5, 4, generator=generator(0), dtype=torch.float64, requires_grad=True)
    for f in (lambda t: max_pool2d(t, 2, 1), lambda t: avg_pool2d(t, 3, 2, 1)):
        assert torch.autograd.gradcheck(f, [x]) and torch.autograd.gradgradcheck(f, [x])


# Layers

LAYERS = [(1, dict(kernel_size=3)), (1, dict(kernel_size=(4,), stride=2, padding=3, dilation=2, groups=2)), (1, dict(kernel_size=4, padding="same", bias=False)),
          (1, dict(kernel_size=3, padding=2, padding_mode="circular")), (2, dict(kernel_size=3)), (2, dict(kernel_size=(1, 3), stride=(2, 1), padding=(0, 1), groups=4)),
          (2, dict(kernel_size=5, padding="same", padding_mode="reflect")), (2, dict(kernel_size=3, padding=(2, 1), padding_mode="replicate", bias=False)),
          (2, dict(kernel_size=(2, 3), padding="valid", dilation=(2, 1))), (2, dict(kernel_size=2, padding="same", padding_mode="circular", dilation=3))]


@pytest.mark.parametrize("dims, options", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_are_torchs(dims, options, dtype):
    models = []
    for module in (cnn, nn):
        torch.manual_seed(3)
        models.append(getattr(module, f"Conv{dims}d")(4, 8, **options, dtype=dtype))
    ours, theirs = models
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True): assert torch.equal(p, q) and p.dtype == dtype
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(ours, name) == getattr(theirs, name)
    for shape in ((2, 4, *[9] * dims), (4, *[9] * dims)):
        x = torch.randn(shape, generator=generator(0), dtype=dtype)
        results = [(model(x), *torch.autograd.grad(model(x).sin().sum(), list(model.parameters()))) for model in models]
        for a, b in zip(*results): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims, options", LAYERS)
def test_state_dicts_are_exchanged(dims, options):
    ours, theirs = (getattr(module, f"Conv{dims}d")(4, 8, **options) for module in (cnn, nn))
    x = torch.randn(2, 4, *[9] * dims)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    theirs.load_state_dict(getattr(cnn, f"Conv{dims}d")(4, 8, **options).state_dict())
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d"])
def test_layers_have_torchs_arguments(name):
    ours, theirs = (inspect.signature(getattr(m, name)).parameters.values() for m in (cnn, nn))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
    assert "bias=False" in repr(getattr(cnn, name)(2, 2, 3, bias=False)) and repr(getattr(cnn, name)(2, 2, 3)) == repr(getattr(nn, name)(2, 2, 3))
    layer = getattr(cnn, name)(2, 4, 3, device="meta")
    assert layer.weight.is_meta and layer.bias.is_meta


# Exercises

def no_gradient_of_place(x, weight, stride):
    "A convolution where its transpose is asked for."
    return F.conv2d(F.pad(x, (weight.shape[3] - 1,) * 2 + (weight.shape[2] - 1,) * 2), weight.transpose(0, 1))


@pytest.mark.parametrize("id, wrong, message", [
    ("08.1", 25, "too large"), ("08.1", 16, "too small"), ("08.1", "20 pixels", "should be a number"),
    ("08.3", lambda layers: (sum(k for k, _, _ in layers), 1), "the field should be 5, yours is 6"),
    ("08.3", lambda layers: (math.prod(k for k, _, _ in layers), find("08.3").reference(layers)[1]), "the field should be 5, yours is 9"),
    ("08.3", lambda layers: find("08.3").reference(layers[::-1]), "the field should be"),
    ("08.3", lambda layers: find("08.3").reference(layers)[0], "should give 2 values"),
    ("08.3", lambda layers: (find("08.3").reference(layers)[0], 1), "the step should be 2, yours is 1"),
    ("08.5", no_gradient_of_place, "the larger map should"),
    ("08.5", lambda x, weight, stride: F.conv_transpose2d(x, weight, stride=stride, padding=1), "shape"),
    ("08.5", lambda x, weight, stride: F.conv_transpose2d(x, weight, stride=stride, output_padding=1) if stride > 1 else
     F.conv_transpose2d(x, weight), "should have shape"),
    ("08.5", lambda x, weight, stride: F.conv_transpose2d(x, weight.mT.mT.abs(), stride=stride), "the larger map should be"),
    ("08.6", lambda x, w: F.conv2d(x[None, None], w.flip(0, 1)[None, None])[0, 0], "flipped"),
    ("08.6", lambda x, w: F.conv2d(x[None, None], w[None, None], padding="same")[0, 0], "should have shape"),
    ("08.6", lambda x, w: torch.zeros(x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1), "the correlation should be"),
])
def test_wrong_answers_are_refused(id, wrong, message):
    verdict = judge(id, wrong)
    assert verdict.state == "wrong" and message in verdict.line, verdict


@pytest.mark.parametrize("id, right", [
    ("08.1", 20.0), ("08.5", lambda x, weight, stride: F.conv_transpose2d(x, weight, stride=stride)),
    ("08.6", lambda x, w: F.conv2d(x[None, None], w[None, None])[0, 0]),
    ("08.3", lambda layers: (1 + sum(d * (k - 1) * math.prod(s for _, s, _ in layers[:i]) for i, (k, _, d) in enumerate(layers)),
                             math.prod(s for _, s, _ in layers))),
])
def test_other_right_answers_are_accepted(id, right): assert judge(id, right).state == "right", judge(id, right)
