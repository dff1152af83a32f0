"Chapter 4: the engine's values and gradients are torch's, over many shapes, dtypes and extremes."
import math
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbook.backprop import Tensor, Value, cross_entropy, draw_graph, gradcheck, topological_order, unbroadcast
from dlbook.kit.exercises import judge

settings.register_profile("book", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("book")

dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)
shapes = st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple)


def draws(seed, dtype, *sizes, positive=False):
    rng = torch.Generator().manual_seed(seed)
    out = [torch.randn(size, generator=rng, dtype=dtype) for size in sizes]
    return [o.abs() + 0.1 for o in out] if positive else out


def same(f, inputs, reference=None):
    "Values and gradients of `f` agree with torch's own, for random slopes of the result."
    ours, theirs = [Tensor(i.clone(), requires_grad=True) for i in inputs], [i.clone().requires_grad_() for i in inputs]
    result, expected = f(*ours), (reference or f)(*theirs)
    assert result.shape == expected.shape and result.dtype == expected.dtype
    torch.testing.assert_close(result.data, expected.detach(), equal_nan=True)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(expected.dtype)
    result.backward(g)
    expected.backward(g)
    for our, their in zip(ours, theirs):
        assert our.grad.dtype == their.grad.dtype
        torch.testing.assert_close(our.grad, their.grad, equal_nan=True)


@st.composite
def broadcastable(draw):
    "Two shapes that broadcast with each other."
    full = draw(shapes)
    def thin(): return tuple(1 if draw(st.booleans()) else n for n in full)[draw(st.integers(0, len(full))):]
    return thin(), thin()


@given(broadcastable(), dtypes, seeds, st.sampled_from(["+", "-", "*", "/", "**"]))
def test_arithmetic(sizes, dtype, seed, op):
    f = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
         "**": lambda a, b: a ** b}[op]
    same(f, draws(seed, dtype, *sizes, positive=op in ("/", "**")))


@given(shapes, dtypes, seeds, st.sampled_from([0.5, 2, -1.5, 3]))
def test_arithmetic_with_numbers(size, dtype, seed, n):
    same(lambda a: (n - a) * n / (n * a + n / a) + n + a ** n + 2 ** a, draws(seed, dtype, size, positive=True))


def test_mixed_dtypes_keep_the_dtype_of_each_input():
    a, b = Tensor(torch.ones(2, 3), True), Tensor(torch.ones(3, dtype=torch.float64), True)
    (a * b).sum().backward()
    assert a.grad.dtype == torch.float32 and b.grad.dtype == torch.float64


@pytest.mark.parametrize("base, exponent", [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (-2.0, 3.0), (-2.0, 0.0), (4.0, 0.5)])
def test_power_at_its_corners(base, exponent):
    same(lambda a: a ** exponent, [torch.tensor([base, base])])
    ours, theirs = Value(base), torch.tensor(base, dtype=torch.float64, requires_grad=True)
    result, expected = ours ** exponent, theirs ** exponent
    result.backward()
    expected.backward()
    assert result.data == expected.item() and math.isclose(ours.grad, theirs.grad.item(), rel_tol=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 0.5, 2.0])
def test_slope_of_an_exponent_where_the_base_is_zero(exponent):
    "0 ** n stays 0 around n > 0, and torch takes 0 at n = 0 as well, where log 0 would be infinite."
    same(lambda a, n: a ** n, [torch.tensor([0.0, 3.0]), torch.tensor([exponent, exponent])])


@given(st.data(), dtypes, seeds)
def test_matmul(data, dtype, seed):
    n, d, m = (data.draw(st.integers(1, 5)) for _ in range(3))
    batch_a, batch_b = data.draw(broadcastable())
    a = (d,) if data.draw(st.booleans()) and not batch_a else (*batch_a, n, d)
    b = (d,) if data.draw(st.booleans()) and not batch_b else (*batch_b, d, m)
    same(lambda a, b: a @ b, draws(seed, dtype, a, b))


@given(st.data(), dtypes, seeds, st.sampled_from(["sum", "mean", "amax"]), st.booleans())
def test_reductions(data, dtype, seed, name, keepdim):
    size = data.draw(shapes)
    every = () if name == "amax" else None
    if size:
        dims = data.draw(st.sets(st.integers(0, len(size) - 1), min_size=1))
        dim = data.draw(st.sampled_from([every, min(dims), min(dims) - len(size), tuple(dims)]))
    else: dim = every
    same(lambda a: getattr(a, name)(dim=dim, keepdim=keepdim), draws(seed, dtype, size))


def test_largest_elements_share_the_slope():
    same(lambda a: a.amax(1), [torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])])


@given(st.data(), dtypes, seeds)
def test_changes_of_shape(data, dtype, seed):
    size = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple))
    d0, d1 = (data.draw(st.integers(-len(size), len(size) - 1)) for _ in range(2))
    x = draws(seed, dtype, size)
    same(lambda a: a.transpose(d0, d1), x)
    same(lambda a: a.reshape(-1, size[0]), x)
    same(lambda a: a.reshape((math.prod(size),)), x)
    same(lambda a: a.T @ a, draws(seed, dtype, (3, 2)))


INDICES = [0, -1, slice(1, None), slice(None, None, 2), ..., None, [0, 0, 2], (slice(None), 1), (..., [1, 1, 0]), (0, slice(None), None),
           torch.tensor([2, 0, 0]), torch.tensor([True, False, True]), (torch.tensor([0, 2]), torch.tensor([1, 1])), torch.zeros(3, 2, 4, dtype=torch.bool)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index): same(lambda a: a[index], draws(0, torch.float64, (3, 2, 4)))


@given(shapes, dtypes, seeds, st.sampled_from(["exp", "relu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "silu", "gelu"]))
def test_activations(size, dtype, seed, name):
    reference = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    same(lambda a: getattr(a, name)(), [3 * i for i in draws(seed, dtype, size)], reference)


@given(shapes, dtypes, seeds, st.sampled_from(["log", "sqrt"]))
def test_functions_of_positive_numbers(size, dtype, seed, name):
    same(lambda a: getattr(a, name)(), draws(seed, dtype, size, positive=True))


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "silu", "gelu"])
def test_activations_stay_finite_for_extremes(name):
    x = Tensor(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]), requires_grad=True)
    y = getattr(x, name)()
    y.backward(torch.ones(5))
    assert y.data.isfinite().all() and x.grad.isfinite().all()


@given(st.integers(1, 5), st.integers(1, 6), dtypes, seeds, st.sampled_from([1, 100, 1e4]))
def test_softmax_and_cross_entropy(n, classes, dtype, seed, scale):
    scores, = draws(seed, dtype, (n, classes))
    target = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    for dim in (0, 1, -1):
        same(lambda a: a.softmax(dim), [scores * scale])
        same(lambda a: a.log_softmax(dim), [scores * scale])
    same(lambda a: cross_entropy(a, target), [scores * scale], lambda a: torch.nn.functional.cross_entropy(a, target))


finite = st.floats(-3, 3).filter(lambda v: abs(v) > 0.05)


def expression(p, q, r):
    return ((p * q - r / p) ** 3 / 9 + 2 ** q - 1 / p + (r * p).sigmoid() - (q * q + 1).log() * (3 - p).relu() + (-r).exp() / (5 + q ** 2)
            + (p - 2 * r).tanh() + (q * q + 1) ** r)


@given(finite, finite, finite)
def test_value_agrees_with_torch(p, q, r):
    ours, theirs = [Value(v) for v in (p, q, r)], [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (p, q, r)]
    result, expected = expression(*ours), expression(*theirs)
    result.backward()
    expected.backward()
    assert math.isclose(result.data, expected.item(), rel_tol=1e-9, abs_tol=1e-12)
    for v, t in zip(ours, theirs): assert math.isclose(v.grad, t.grad.item(), rel_tol=1e-8, abs_tol=1e-9)


@given(st.floats(0.01, 4), st.floats(-3, 3))
def test_value_powers_and_logarithms_agree_with_torch(base, exponent):
    "On both sides of base 1, where the logarithm changes its sign."
    ours, theirs = [Value(base), Value(exponent)], [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (base, exponent)]
    results = [f[0] ** f[1] + f[0].log() for f in (ours, theirs)]
    for result in results: result.backward()
    assert math.isclose(results[0].data, results[1].item(), rel_tol=1e-9, abs_tol=1e-12)
    for our, their in zip(ours, theirs): assert math.isclose(our.grad, their.grad.item(), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("base, exponent", [(0, 0.5), (0, 1), (0, 2.5), (0, 0), (-2, 3), (-0.5, -2)])
def test_value_powers_at_their_corners(base, exponent):
    ours, theirs = Value(base), torch.tensor(float(base), dtype=torch.float64, requires_grad=True)
    (ours ** exponent).backward()
    (theirs ** exponent).backward()
    assert (ours.grad == theirs.grad.item()) and (Value(base) ** exponent).data == (theirs.detach() ** exponent).item()


@pytest.mark.parametrize("call, message", [
    (lambda: Value(-2) ** 0.5, "-2 ** 0.5 is not a real number"), (lambda: Value(0) ** -1, "0 ** -1 is not a real number"),
    (lambda: Value(-2) ** math.inf, "-2 ** inf is not a real number"), (lambda: Value(0).log(), "log expects a positive number, given 0"),
    (lambda: Value(-1).log(), "log expects a positive number, given -1")])
def test_values_without_a_real_result_are_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)): call()


def test_gradcheck_tolerances():
    "An error is compared with atol + rtol * |slope|: the relative part grows with the slope, the absolute one does not."
    from dlbook.backprop import _node

    def scaled(slope, error): return lambda a: _node(a.data * slope, "off", (a, lambda g: g * (slope + error)))
    x = Tensor(torch.tensor([0.5], dtype=torch.float64), requires_grad=True)
    assert gradcheck(scaled(1000.0, 0.9), x)  # 1e-3 * 1000 allows 1
    with pytest.raises(ValueError, match="backward gives 997.*, finite differences 996"): gradcheck(scaled(1000.0, 1.1), x)
    assert gradcheck(scaled(0.0, 0.9e-5), x)
    with pytest.raises(ValueError): gradcheck(scaled(0.0, 1.1e-5), x)
    with pytest.raises(ValueError): gradcheck(scaled(1000.0, 0.9), x, rtol=1e-4)
    assert gradcheck(scaled(0.0, 0.5), x, atol=1)


def test_a_drawing_has_an_arrow_for_each_edge_and_room_for_each_node():
    a, b = Value(2, name="a"), Value(3, name="b")
    ax = draw_graph(a * b + a)
    assert len(ax.patches) == 4  # a and b to the product; product and a to the sum
    places = {t.get_text().split("\n")[0]: t.get_position() for t in ax.texts}
    assert places["+"][0] == 0 and places["×"][0] == -1 and places["a"][0] == places["b"][0] == -2
    assert places["a"][1] == 0.5 and places["b"][1] == -0.5 and places["+"][1] == 0
    width, height = ax.figure.get_size_inches()
    assert math.isclose(width, 1.4 * 3 + 0.4) and math.isclose(height, 0.75 * 2 + 0.4)


@given(st.floats(-1e4, 1e4), st.sampled_from(["relu", "tanh", "sigmoid"]))
def test_value_activations_over_the_whole_range(v, name):
    ours, theirs = Value(v), torch.tensor(v, dtype=torch.float64, requires_grad=True)
    result, expected = getattr(ours, name)(), getattr(theirs, name)()
    result.backward()
    expected.backward()
    assert math.isclose(result.data, expected.item(), rel_tol=1e-9, abs_tol=1e-15)
    assert math.isclose(ours.grad, theirs.grad.item(), rel_tol=1e-9, abs_tol=1e-15)


def test_value_exp_overflows_to_infinity(): assert Value(1000).exp().data == math.inf


@pytest.mark.parametrize("make", [Value, lambda v: Tensor(v, requires_grad=True)])
def test_gradients_accumulate_over_uses_and_calls(make):
    a = make(3.0)
    b = a * a + a
    b.backward()
    assert float(a.grad) == 7
    b.backward()  # a second walk over the same graph adds the same slopes once more, not more
    assert float(a.grad) == 14


def test_leaves_do_not_share_their_gradients():
    a, b = Tensor([1.0], True), Tensor([2.0], True)
    (a + b).backward()
    a.grad.zero_()
    assert b.grad.item() == 1


@pytest.mark.parametrize("make", [Value, lambda v: Tensor(v, requires_grad=True)])
def test_deep_graphs_do_not_overflow_the_stack(make):
    start = v = make(1.0)
    for _ in range(30_000): v = v + 1.0
    v.backward()
    assert float(start.grad) == 1
    del v  # freeing the chain must not recurse either


def test_walk_visits_each_node_once():
    "A ladder of 60 doublings has 2^60 paths; the walk must not follow each of them."
    start = v = Value(1.0)
    for _ in range(60): v = v + v
    v.backward()
    assert start.grad == 2.0**60 and len(topological_order(v)) == 61


def test_only_leaves_that_ask_for_it_get_a_gradient():
    a, b = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0])
    c = a * b
    c.sum().backward()
    assert a.grad.tolist() == [3, 4] and b.grad is None and c.grad is None


def test_data_is_plain_torch_and_not_tracked_by_it():
    a = Tensor(torch.ones(2, requires_grad=True), True)
    assert type((a * 2).data) is torch.Tensor and not (a * 2).data.requires_grad


def test_plain_torch_tensors_on_either_side():
    a, t = Tensor(torch.ones(2, 2), True), torch.full((2, 2), 2.0)
    for result in (a + t, t + a, a * t, t * a, a - t, t - a, a / t, t / a, a @ t, t @ a): assert isinstance(result, Tensor)


@pytest.mark.parametrize("call, error, message", [
    (lambda: Value("2"), TypeError, "expected a number, given str"),
    (lambda: Value(-1).log(), ValueError, "positive number, given -1"),
    (lambda: Value(-8) ** 0.5, ValueError, "not a real number"),
    (lambda: Tensor([1, 2], requires_grad=True), TypeError, "floating-point tensors have gradients, given torch.int64"),
    (lambda: Tensor([1.0, 2.0]).sum().backward(), ValueError, "requires_grad=True"),
    (lambda: Tensor([1.0, 2.0], True).backward(), ValueError, r"single number.*\(2,\)"),
    (lambda: Tensor([1.0, 2.0], True).backward(torch.ones(3)), ValueError, r"expected grad of shape \(2,\), given \(3,\)"),
    (lambda: Tensor(torch.ones(2, 3)) + torch.ones(4), ValueError, r"\(2, 3\) and \(4,\)"),
    (lambda: Tensor(torch.ones(2, 3)) @ torch.ones(4, 2), ValueError, r"\(2, 3\) and \(4, 2\)"),
    (lambda: cross_entropy(Tensor(torch.ones(2, 3)), torch.tensor([0])), ValueError, r"\(2, 3\) and \(1,\)"),
    (lambda: gradcheck(lambda a: a, Tensor([1.0], True)), ValueError, "expected float64"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message): call()


def test_gradcheck_finds_any_wrong_element():
    x = Tensor(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), requires_grad=True)

    def wrong_at(place):
        def f(a):
            out = a * 1.0
            factor = torch.ones(2, 2, dtype=torch.float64)
            factor.view(-1)[place] = 1.01
            parent, vjp = out._edges[0]
            out._edges = ((parent, lambda g: vjp(g) * factor),)
            return out
        return f

    assert gradcheck(lambda a: (a * a).sum(0), x) is True
    for place in range(4):
        with pytest.raises(ValueError, match=r"input 0, element \[%d, %d\]" % divmod(place, 2)): gradcheck(wrong_at(place), x)


def test_gradcheck_leaves_its_inputs_alone():
    x = Tensor(torch.ones(3, dtype=torch.float64), requires_grad=True)
    gradcheck(lambda a: a * a, x)
    assert x.grad is None and x.data.tolist() == [1, 1, 1]


@given(broadcastable())
def test_unbroadcast_undoes_expand(sizes):
    a, b = sizes
    full = torch.broadcast_shapes(a, b)
    like = torch.zeros(a, dtype=torch.float64)
    g = torch.randn(full, dtype=torch.float64)
    x = torch.zeros(a, dtype=torch.float64, requires_grad=True)
    x.expand(full).backward(g)
    torch.testing.assert_close(unbroadcast(g, like), x.grad)


def test_a_drawing_shows_each_node_once():
    import matplotlib
    matplotlib.use("Agg")
    a, b = Value(2, name="a"), Value(3, name="b")
    c = a * b + a
    c.backward()
    texts = [t.get_text() for t in draw_graph(c).texts]
    assert sorted(t.split("\n")[0] for t in texts) == ["+", "a", "b", "×"] and "a\n2\nslope 4" in texts


def test_engine_runs_without_torch_autograd():
    "Gradients come out although torch is told to record nothing."
    with torch.inference_mode():
        a = Tensor(torch.ones(2, 2), True)
        (a @ a).tanh().sum().backward()
        assert a.grad is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_on_a_gpu():
    a, w = Tensor(torch.randn(4, 3, device="cuda"), True), Tensor(torch.randn(3, 2, device="cuda"), True)
    cross_entropy((a @ w).relu(), torch.tensor([0, 1, 1, 0], device="cuda")).backward()
    assert a.grad.is_cuda and w.grad.is_cuda


def test_nothing_is_kept_alive_after_the_loss_is_gone():
    import gc
    import weakref
    a = Tensor(torch.ones(3), True)
    loss = (a * 2).sum()
    seen = weakref.ref(loss)
    loss.backward()
    gc.disable()
    try:
        del loss
        assert seen() is None, "a cycle keeps the graph alive until the garbage collector runs"
    finally: gc.enable()


# Wrong answers that differ from the registered mistakes, and a word of the message that must name the fault.
WRONG = [
    ("04.1", 9, "9 is too large"), ("04.1", 2, "2 is too small"), ("04.1", lambda: 8, "should be a value"),
    ("04.2", lambda x, W, g: (g @ W, g.T @ x), "3 values"), ("04.2", lambda x, W, g: (g @ W.T, g.T @ x, g.sum(0)), "raises RuntimeError"),
    ("04.2", lambda x, W, g: (g @ W, g.T @ x, g.sum(1)), "gradient of b"),
    ("04.3", lambda v: v ** 2, "the value should be"), ("04.3", lambda v: math.sqrt(v.data), "should give a Value, yours gives float"),
    ("04.4", lambda idx, g, words: torch.zeros(words, g.shape[1]), "the gradient of the table should be"),
    ("04.4", lambda idx, g, words: torch.zeros(words).index_add_(0, idx, g.sum(1)), "should have shape (2, 1), yours has (2,)"),
    ("04.4", lambda idx, g, words: torch.zeros(words, g.shape[1]).index_add_(0, idx, g.mul_(2)), "changes its argument g in place"),
    ("04.5", lambda f, x: 0.0, "the slope should be 6, yours is 0"), ("04.5", lambda f, x: f(x), "the slope should be"),
    ("04.6", lambda x, g: g, "should be"), ("04.6", lambda x, g: g.sum(1), "should have shape"),
]


@pytest.mark.parametrize("id, answer, message", WRONG)
def test_wrong_answers_are_named(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and message in verdict.line, verdict


def test_import_needs_no_plotting():
    code = "import sys, dlbook.backprop; print([m for m in ('matplotlib', 'networkx', 'fastai', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
