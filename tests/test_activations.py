"""Chapter 02: parity with torch in values and gradients, extremes, errors, and the exercises."""

import ast
import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import dlbook.activations as A
from dlbook.kit.exercises import find, judge

ELEMENTWISE = [
    (A.sigmoid, torch.sigmoid, {}), (A.tanh, torch.tanh, {}), (A.relu, F.relu, {}),
    (A.leaky_relu, F.leaky_relu, {}), (A.leaky_relu, F.leaky_relu, {"negative_slope": 0.3}), (A.leaky_relu, F.leaky_relu, {"negative_slope": 0.0}),
    (A.elu, F.elu, {}), (A.elu, F.elu, {"alpha": 2.5}),
    (A.gelu, F.gelu, {}), (A.gelu, F.gelu, {"approximate": "tanh"}), (A.silu, F.silu, {}),
    (A.softplus, F.softplus, {}), (A.softplus, F.softplus, {"beta": 0.3, "threshold": 5}), (A.softplus, F.softplus, {"beta": 4.0}),
]
ROWWISE = [(A.softmax, F.softmax), (A.log_softmax, F.log_softmax)]
EXTREMES = [0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6, 20.0, -20.0, 88.0, -88.0, 90.0, -90.0, 104.0, -104.0, 710.0, -750.0, 1e4, -1e4]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def name_of(case):
    return case.__name__ if callable(case) else str(case) if isinstance(case, dict) else ""


def both(ours, theirs, x, options):
    "Values and gradients of the two functions at `x`, weighted so that no two elements count alike."
    weights = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape)
    results = []
    for f in (ours, theirs):
        z = x.clone().requires_grad_()
        value = f(z, **options)
        results.append((value.detach(), torch.autograd.grad((weights * value).sum(), z)[0]))
    return results


@st.composite
def tensors(draw, min_dims=0):
    shape = draw(st.lists(st.integers(1, 5), min_size=min_dims, max_size=4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    number = st.one_of(st.floats(-12, 12, width=32), st.sampled_from(EXTREMES))
    n = math.prod(shape)
    return torch.tensor(draw(st.lists(number, min_size=n, max_size=n)), dtype=dtype).view(shape)


@pytest.mark.parametrize("ours, theirs, options", ELEMENTWISE, ids=name_of)
@settings(max_examples=40, deadline=None)
@given(x=tensors())
def test_elementwise_parity(ours, theirs, options, x):
    mine, torchs = both(ours, theirs, x, options)
    assert mine[0].shape == x.shape and mine[0].dtype == x.dtype
    assert all(part.isfinite().all() for part in mine)
    torch.testing.assert_close(mine, torchs)


@pytest.mark.parametrize("ours, theirs", ROWWISE, ids=name_of)
@settings(max_examples=80, deadline=None)
@given(x=tensors(), data=st.data())
def test_rowwise_parity(ours, theirs, x, data):
    size = max(x.ndim, 1)
    dim = data.draw(st.integers(-size, size - 1))
    mine, torchs = both(ours, theirs, x, {"dim": dim})
    assert all(part.isfinite().all() for part in mine)
    torch.testing.assert_close(mine, torchs)
    p = mine[0] if ours is A.softmax else mine[0].exp()
    torch.testing.assert_close(p.sum(dim), torch.ones_like(p.sum(dim)))


@pytest.mark.parametrize("ours, theirs, options", ELEMENTWISE, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_extreme(ours, theirs, options, dtype):
    x = torch.tensor(EXTREMES, dtype=dtype)
    mine, torchs = both(ours, theirs, x, options)
    assert all(part.isfinite().all() for part in mine)
    torch.testing.assert_close(mine, torchs)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("ours, theirs, options", ELEMENTWISE + [(f, g, {"dim": 0}) for f, g in ROWWISE], ids=name_of)
def test_half_precision(ours, theirs, options, dtype, tolerance):
    x = torch.cat([torch.linspace(-15, 15, 301), torch.tensor([1e4, -1e4])]).to(dtype)
    mine, torchs = both(ours, theirs, x, options)
    assert mine[0].dtype == dtype and all(part.isfinite().all() for part in mine)
    torch.testing.assert_close(mine, torchs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("f", [A.sigmoid, A.tanh, A.silu, A.gelu, A.elu])
def test_small_numbers_keep_their_digits(f):
    "Relative error, which the tolerances for values near zero would hide."
    x = torch.logspace(-12, -2, 50)
    exact = f(x.double()).float()
    torch.testing.assert_close(f(x), exact, rtol=1e-6, atol=0)


def test_tails_keep_their_digits():
    x = torch.linspace(-80, -10, 100)
    for ours, theirs in [(A.sigmoid, torch.sigmoid), (A.softplus, F.softplus), (A.silu, F.silu)]:
        torch.testing.assert_close(ours(x), theirs(x.double()).float(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("ours, theirs, options", ELEMENTWISE, ids=name_of)
def test_slope_at_zero(ours, theirs, options):
    for zero in (0.0, -0.0):
        slopes = []
        for f in (ours, theirs):
            z = torch.tensor(zero, requires_grad=True)
            f(z, **options).backward()
            slopes.append(z.grad)
        torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("ours, theirs, options", ELEMENTWISE, ids=name_of)
def test_nan_stays_nan_and_infinities_as_torch(ours, theirs, options):
    # Torch's own gelu gives nan at infinity on some processors, depending on how many numbers it handles at a time.
    x = torch.tensor([math.nan] if ours is A.gelu else [math.nan, math.inf, -math.inf])
    torch.testing.assert_close(ours(x, **options), theirs(x, **options), equal_nan=True)


@pytest.mark.parametrize("ours, theirs", ROWWISE, ids=name_of)
def test_masked_and_empty_rows(ours, theirs):
    masked = torch.tensor([[0.0, -math.inf, 1.0], [-math.inf, 5.0, -math.inf]])
    torch.testing.assert_close(ours(masked, 1), theirs(masked, 1))
    for shape in [(0,), (0, 3), (2, 0)]:
        assert ours(torch.empty(shape), dim=-1).shape == shape
    torch.testing.assert_close(ours(torch.tensor(3.0), 0), theirs(torch.tensor(3.0), 0))


@pytest.mark.parametrize("f, options", [(f, o) for f, _, o in ELEMENTWISE] + [(f, {"dim": 0}) for f, _ in ROWWISE], ids=name_of)
def test_second_derivative(f, options):
    x = torch.tensor([-3.0, -0.5, 0.7, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: f(z, **options), x)
    assert torch.autograd.gradgradcheck(lambda z: f(z, **options), x)


@pytest.mark.parametrize("f, options", [(f, {}) for f, _, o in ELEMENTWISE if not o] + [(f, {"dim": 0}) for f, _ in ROWWISE], ids=name_of)
@pytest.mark.parametrize("wrong, given", [
    (torch.tensor([1, 2]), "int64"), (torch.tensor([True]), "bool"), (torch.tensor([1j]), "complex64"),
    ([1.0, 2.0], "list"), (1.0, "float"), (None, "NoneType"),
], ids=["int", "bool", "complex", "list", "float", "None"])
def test_wrong_input_is_named(f, options, wrong, given):
    with pytest.raises(TypeError, match=f"expected a tensor of floating-point numbers, given .*{given}"):
        f(wrong, **options)


@pytest.mark.parametrize("f", [f for f, _ in ROWWISE], ids=name_of)
def test_wrong_dim_is_named(f):
    with pytest.raises(ValueError, match=r"expected dim from -2 to 1 for a tensor of shape \(2, 3\), given 2"):
        f(torch.zeros(2, 3), 2)
    with pytest.raises(ValueError, match="given -3"):
        f(torch.zeros(2, 3), dim=-3)
    with pytest.raises(TypeError, match="expected dim to be an int, given None"):
        f(torch.zeros(2, 3), None)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match='expected approximate to be "none" or "tanh", given \'fast\''):
        A.gelu(torch.zeros(1), approximate="fast")
    with pytest.raises(ValueError, match="expected beta other than 0"):
        A.softplus(torch.zeros(1), beta=0)


def test_inputs_are_left_alone():
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    for f, _, options in ELEMENTWISE: f(x, **options)
    for f, _ in ROWWISE: f(x, 0)
    assert torch.equal(x, before)


def test_names_and_defaults_are_torchs():
    assert set(A.__all__) == set("sigmoid tanh relu leaky_relu elu gelu silu softplus softmax log_softmax".split())
    for ours, theirs, _ in ELEMENTWISE:
        assert list(inspect.signature(ours).parameters)[0] == "input"
    for name, option, default in [("leaky_relu", "negative_slope", 0.01), ("elu", "alpha", 1.0), ("gelu", "approximate", "none"),
                                  ("softplus", "beta", 1.0), ("softplus", "threshold", 20.0)]:
        assert inspect.signature(getattr(A, name)).parameters[option].default == default


def test_torchs_own_activations_are_not_called():
    attributes = {node.attr for node in ast.walk(ast.parse(inspect.getsource(A))) if isinstance(node, ast.Attribute)}
    assert not attributes & ({"nn", "special", "logsumexp"} | set(A.__all__))


# Exercises. The wrong answers here are not those that the exercises know.

EXERCISES = ["02.1", "02.2", "02.4", "02.3", "02.5"]


def slope_of_tanh(z):
    return 1 - torch.tanh(z)**2


def slope_by_autograd_of_a_bad_form(z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad((1 / (1 + torch.exp(-z))).sum(), z)[0]


def slope_summed(z):
    s = torch.sigmoid(z)
    return (s * (1 - s)).sum()


def log_of_mean(z, dim):
    return torch.logsumexp(z, dim) - math.log(z.shape[dim])


def overall_maximum(z, dim):
    return z.max() + torch.log(torch.exp(z - z.max()).sum(dim))


def base_two(z, dim):
    return torch.logsumexp(z, dim) / math.log(2)


def alive_units(z):
    return int((z > 0).any(0).sum())


def fixed_count(z):
    return z.shape[1]


def jacobian_without_ones(p, g):
    return -p * (g * p).sum(1, keepdim=True)


def rows_of_ones(p, g):
    return torch.zeros_like(p)


def slope_transposed(p, g):
    return (p * (g - (g * p).sum(1, keepdim=True))).T


@pytest.mark.parametrize("id, answer, fault", [
    ("02.1", slope_of_tanh, r"for z of shape|for z = \[0\.0\]"),
    ("02.1", slope_of_tanh, "the slope should be 0.25 at \\[0\\], yours is 1"),
    ("02.1", slope_by_autograd_of_a_bad_form, "yours is nan"),
    ("02.1", slope_summed, r"the slope should have shape \(1,\), yours has \(\)"),
    ("02.2", 4.0**11, "too large"),
    ("02.2", 4.0**8, "too small"),
    ("02.2", "a million", "number"),
    ("02.2", lambda: 4**10, "call it"),
    ("02.4", log_of_mean, "the result should be 0.693147, yours is 0"),
    ("02.4", overall_maximum, "yours is -inf"),
    ("02.4", base_two, "the result should be 0.693147, yours is 1"),
    ("02.3", alive_units, "the number of dead units should be"),
    ("02.3", fixed_count, "the number of dead units should be 0, yours is 1"),
    ("02.5", jacobian_without_ones, r"the slope should be .* at \[0, 0\]"),
    ("02.5", rows_of_ones, "yours is 0"),
    ("02.5", slope_transposed, r"the slope should have shape \(1, 2\), yours has \(2, 1\)"),
])
def test_wrong_answers_are_refused_with_the_fault(id, answer, fault):
    verdict = judge(id, answer)
    assert verdict.state == "wrong"
    assert re.search(fault, verdict.line), verdict.line


@pytest.mark.parametrize("id", EXERCISES)
def test_open_answers_stay_open(id):
    assert judge(id, ...).state == "open"
    if callable(find(id).reference): assert judge(id, lambda *arguments: None).state == "open"
