"Chapter 01: perceptron, neuron, layer and MLP against torch, scikit-learn and the theorem; errors; exercises."
import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook.kit.exercises import find, judge
from dlbook.neurons import MLP, Layer, Neuron, Perceptron

ACTS = [(None, nn.Identity()), (torch.relu, nn.ReLU()), (torch.sigmoid, nn.Sigmoid()), (torch.tanh, nn.Tanh())]
sizes, seeds = st.integers(1, 9), st.integers(0, 2**31)
fast = settings(max_examples=40, deadline=None)


def tensors(seed, *shapes, dtype=torch.float64, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=rng, dtype=dtype) for shape in shapes]


def assert_same(ours, theirs, x):
    "Same outputs, and the same gradients of input and parameters (compared flat: a neuron has no axis for its one output)."
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = ours(x1), theirs(x2)
    torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    for p, q in zip([x1, *ours.parameters()], [x2, *theirs.parameters()], strict=True):
        single = {"rtol": 1e-5, "atol": 1e-5} if p.dtype == torch.float32 else {}  # sums in another order: on some processors more than torch's 1.3e-6
        torch.testing.assert_close(p.grad.reshape(-1), q.grad.reshape(-1), **single)


# ---- layers and networks ----

@fast
@given(seeds, sizes, sizes, st.lists(sizes, max_size=3), st.sampled_from(ACTS), st.sampled_from([torch.float32, torch.float64]),
       st.sampled_from([1e-20, 1.0, 1e4]))
def test_layer_equals_linear(seed, n_in, n_out, lead, act, dtype, scale):
    ours, linear = Layer(n_in, n_out, act[0]).to(dtype), nn.Linear(n_in, n_out, dtype=dtype)
    linear.load_state_dict(ours.state_dict())
    assert_same(ours, nn.Sequential(linear, act[1]), tensors(seed, (*lead, n_in), dtype=dtype, scale=scale)[0])


@fast
@given(seeds, sizes, st.integers(0, 5), st.sampled_from(ACTS), st.sampled_from([torch.float32, torch.float64]))
def test_neuron_equals_linear_with_one_output(seed, n_in, n, act, dtype):
    ours, linear = Neuron(n_in, act[0]).to(dtype), nn.Linear(n_in, 1, dtype=dtype)
    linear.load_state_dict({"weight": ours.weight[None], "bias": ours.bias[None]})
    assert ours.weight.shape == (n_in,) and ours.bias.shape == ()
    assert_same(ours, nn.Sequential(linear, act[1], nn.Flatten(0)), tensors(seed, (n, n_in), dtype=dtype)[0])


@fast
@given(seeds, st.lists(sizes, min_size=2, max_size=5), st.integers(0, 4), st.sampled_from(ACTS), st.sampled_from(ACTS))
def test_mlp_equals_sequential(seed, widths, n, act, out_act):
    ours, modules = MLP(widths, act[0], out_act[0]).double(), []
    for i, layer in enumerate(ours.layers):
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=torch.float64)
        linear.load_state_dict(layer.state_dict())
        modules += [linear, act[1] if i < len(widths) - 2 else out_act[1]]
    assert_same(ours, nn.Sequential(*modules), tensors(seed, (n, widths[0]))[0])
    assert sum(p.numel() for p in ours.parameters()) == sum((d + 1) * m for d, m in zip(widths, widths[1:]))


def test_defaults_are_relu_inside_and_scores_outside():
    assert Neuron(2).act is torch.relu and Layer(2, 3).act is torch.relu
    assert [layer.act for layer in MLP([2, 3, 4, 1]).layers] == [torch.relu, torch.relu, None]
    assert list(MLP([2, 3, 1]).state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


@fast
@given(seeds, st.integers(1, 300), sizes)
def test_first_weights_are_those_of_linear(seed, n_in, n_out):
    torch.manual_seed(seed)
    ours = Layer(n_in, n_out)
    torch.manual_seed(seed)
    torch.testing.assert_close(ours.state_dict(), nn.Linear(n_in, n_out).state_dict(), rtol=1e-5, atol=1e-7)
    neuron, bound = Neuron(n_in), 1 / math.sqrt(n_in)
    assert neuron.weight.abs().max() <= bound and neuron.bias.abs() <= bound


def test_mlp_moves_copies_and_runs_under_autocast():
    net = MLP([4, 8, 2])
    x = torch.randn(3, 4)
    torch.testing.assert_close(copy.deepcopy(net)(x), net(x))
    assert net.double()(x.double()).dtype == torch.float64
    exact = net.float()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()): torch.testing.assert_close(net(given).float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("make", [lambda: Neuron(3), lambda: Layer(3, 2), lambda: MLP([3, 4, 2])])
def test_wrong_inputs_are_refused(make):
    module = make()
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3\), given \(5, 4\)"): module(torch.randn(5, 4))
    with pytest.raises(ValueError, match=r"given \(\)"): module(torch.tensor(1.0))
    with pytest.raises(TypeError, match="torch.float32.*torch.float64"): module(torch.randn(5, 3).double())
    with pytest.raises(TypeError, match="torch.float32.*torch.int64"): module(torch.ones(5, 3, dtype=torch.int64))


@pytest.mark.parametrize("make, error, message", [
    (lambda: Neuron(0), ValueError, "n_in.*given 0"),
    (lambda: Layer(2.0, 1), ValueError, r"n_in.*given 2\.0"),
    (lambda: Layer(2, -1), ValueError, "n_out.*given -1"),
    (lambda: MLP([2, 0, 1]), ValueError, "n_out.*given 0"),
    (lambda: MLP([3]), ValueError, r"two sizes.*given \[3\]"),
    (lambda: MLP([]), ValueError, r"two sizes.*given \[\]"),
    (lambda: MLP([2, 2, 1], act="relu"), TypeError, "activation, given 'relu'"),
    (lambda: MLP([2, 2, 1], act=nn.ReLU), TypeError, "activation, given <class"),
    (lambda: MLP([2, 1], out_act=3), TypeError, "activation, given 3"),
    (lambda: Perceptron(0), ValueError, "n_in.*given 0"),
    (lambda: Perceptron("2"), ValueError, "n_in.*given '2'"),
])
def test_wrong_sizes_and_activations_are_refused(make, error, message):
    with pytest.raises(error, match=message): make()


# ---- the perceptron ----

def plain_perceptron(x, y, max_epochs):
    "The rule once more, written with Python numbers alone: weights, bias and mistakes."
    w, b, mistakes = [0.0] * len(x[0]), 0.0, 0
    for _ in range(max_epochs):
        clean = True
        for row, label in zip(x, y):
            answer = 1 if sum(p * q for p, q in zip(w, row)) + b > 0 else 0
            if answer != label:
                sign = 1 if label == 1 else -1
                w, b = [p + sign * q for p, q in zip(w, row)], b + sign
                mistakes, clean = mistakes + 1, False
        if clean: break
    return w, b, mistakes


@fast
@given(seeds, st.integers(1, 12), st.integers(1, 4), st.integers(1, 12))
def test_perceptron_equals_plain_python(seed, n, d, max_epochs):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (n, d), generator=rng).double()  # whole numbers: scores of exactly 0 happen
    y = torch.randint(2, (n,), generator=rng)
    p = Perceptron(d)
    w, b, mistakes = plain_perceptron(x.tolist(), y.tolist(), max_epochs)
    for _ in range(2):  # fit begins anew each time
        assert p.fit(x, y, max_epochs) == mistakes
        assert p.weight.tolist() == w and p.bias.item() == b
    answers = p.predict(x)
    assert answers.dtype == torch.int64 and answers.tolist() == [int(sum(q * v for q, v in zip(w, row)) + b > 0) for row in x.tolist()]


@fast
@given(seeds, st.integers(2, 40), st.integers(1, 8), st.floats(0.03, 1.0))
def test_mistakes_stay_below_the_bound(seed, n, d, margin):
    u, x = tensors(seed, (d,), (n, d))
    u, b = u / u.norm(), 0.2
    x = x + (torch.where(x @ u + b > 0, 1.0, -1.0) * margin)[:, None] * u
    z = x @ u + b
    gamma, R = z.abs().min() / math.sqrt(1 + b * b), (x.square().sum(1).max() + 1).sqrt()
    p = Perceptron(d)
    assert p.fit(x, (z > 0).long(), max_epochs=100_000) <= (R / gamma) ** 2
    assert torch.equal(p.predict(x), (z > 0).long())


@fast
@given(seeds, st.integers(3, 40), st.integers(1, 6))
def test_perceptron_equals_scikit_learn(seed, n, d):
    from sklearn.linear_model import Perceptron as SklearnPerceptron
    x, noise = tensors(seed, (n, d), (n,))
    y = (x[:, 0] + 0.3 * noise > 0).long()
    y[0], y[1] = 1, 0  # scikit-learn counts a score of exactly 0 with label 0 as a mistake, so begin with a 1
    ours, theirs = Perceptron(d), SklearnPerceptron(shuffle=False, tol=None, max_iter=7)
    theirs.fit(x.numpy(), y.numpy())
    ours.fit(x, y, max_epochs=7)
    np.testing.assert_allclose(ours.weight, theirs.coef_[0], atol=1e-9)
    np.testing.assert_allclose(ours.bias, theirs.intercept_[0], atol=1e-9)


def test_perceptron_takes_lists_arrays_and_booleans():
    x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 0, 0, 1]
    counts = [Perceptron(2).fit(*pair) for pair in [(x, y), (np.array(x), np.array(y)), (torch.tensor(x).float(), torch.tensor(y) == 1),
                                                    (torch.tensor(x).double(), torch.tensor(y).float())]]
    assert len(set(counts)) == 1 and counts[0] > 0
    assert Perceptron(2).predict(x).tolist() == [0, 0, 0, 0]
    assert Perceptron(2).fit([[1.0, 2.0]], [0]) == 0


@pytest.mark.parametrize("call, message", [
    (lambda p: p.fit(torch.ones(3, 2), [0, 1, 2]), "labels 0 or 1, given 2"),
    (lambda p: p.fit(torch.ones(3, 2), [1, -1, 1]), "labels 0 or 1, given -1"),
    (lambda p: p.fit(torch.ones(3, 2), [0.0, 0.5, 1.0]), r"labels 0 or 1, given 0\.5"),
    (lambda p: p.fit(torch.ones(2, 2), [0.0, float("nan")]), "labels 0 or 1, given nan"),
    (lambda p: p.fit(torch.ones(3, 3), [0, 1, 1]), r"x of shape \(n, 2\), given \(3, 3\)"),
    (lambda p: p.fit(torch.ones(2), [1]), r"x of shape \(n, 2\), given \(2,\)"),
    (lambda p: p.fit(torch.ones(3, 2), [0, 1]), r"y of shape \(3,\).*given \(2,\)"),
    (lambda p: p.fit(torch.ones(3, 2), [[0], [1], [1]]), r"y of shape \(3,\).*given \(3, 1\)"),
    (lambda p: p.fit([[1.0, float("inf")]], [1]), "finite"),
    (lambda p: p.fit([[1.0, 1.0]], [1], max_epochs=0), "max_epochs.*given 0"),
    (lambda p: p.predict(torch.ones(3, 1)), r"x of shape \(n, 2\), given \(3, 1\)"),
    (lambda p: p.predict([[float("nan"), 1.0]]), "finite"),
])
def test_perceptron_refuses(call, message):
    p = Perceptron(2)
    with pytest.raises(ValueError, match=message): call(p)
    assert p.weight.tolist() == [0, 0]  # nothing was learned from it


# ---- exercises ----

def _parity_by_step(n):  # forgets that the output must come down again
    return torch.ones(n, n), torch.zeros(n), torch.ones(n) / n, 0.0


WRONG = [
    ("01.1", lambda: (-3.0, -3.0, 2.0), "should be 1 at [0], yours is 0. These are weights for NOR"),
    ("01.1", lambda: (2.0, 2.0, -3.0), "These are weights for AND"),
    ("01.1", lambda: (-1.0, -1.0), "three numbers w1, w2, b"),
    ("01.2", lambda x, w, b: (x * w).sum(-1) + b, "This is the score"),
    ("01.2", lambda x, w, b: (x @ w + b) / w.square().sum(), "not by its square"),
    ("01.2", lambda x, w, b: ((x @ w + b) / w.norm())[:, None], "should have shape (1,), yours has (1, 1)"),
    ("01.3", lambda w, b, x, y: (w + x * (1 if y == 1 else -1), b + (1 if y == 1 else -1)), "change only after a mistake"),
    ("01.3", lambda w, b, x, y: (w + x * (y - float(w @ x > -b)), b), "The bias learns as well"),
    ("01.3", lambda w, b, x, y: w, "should give 2 values (the new weights, the new bias)"),
    ("01.4", lambda x, W1, b1, W2, b2: ((x @ W1.T + b1).clamp(min=0) @ W2.T + b2).clamp(min=0), "it has no ReLU"),
    ("01.4", lambda x, W1, b1, W2, b2: nn.functional.linear(nn.functional.linear(x, W1, b1), W2, b2), "no ReLU between your layers"),
    ("01.5", 96, "too small"),
    ("01.5", 14.0, "for two bits"),
    ("01.6", _parity_by_step, "for n = 2 the network's answer"),
    ("01.6", lambda n: (torch.ones(n, n).T, -torch.arange(n), torch.tensor([1.0, -2.0] + [-2.0] * n)[:n], 0), "needs a third bend"),
    ("01.6", lambda n: (torch.ones(n), torch.zeros(n), torch.ones(n), 0.0), "should give W1 of shape (2, 2), yours has (2,)"),
]


@pytest.mark.parametrize("id, answer, message", WRONG)
def test_wrong_answers_are_told_what_is_wrong(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and message in verdict.line, verdict.line
    assert "\n" not in verdict.line


@pytest.mark.parametrize("id, answer", [
    ("01.1", lambda: torch.tensor([-5.0, -4.0, 7.0]).tolist()),
    ("01.2", lambda x, w, b: (x @ w + b) / math.sqrt(float(w @ w))),
    ("01.4", lambda x, W1, b1, W2, b2: nn.functional.linear(nn.functional.linear(x, W1, b1).relu(), W2, b2)),
    ("01.6", lambda n: (2 * torch.ones(n, n), -2 * torch.arange(n), torch.tensor([0.5] + [-1.0, 1.0] * n)[:n], 0)),
])
def test_other_right_answers_pass(id, answer):
    assert judge(id, answer).state == "right", judge(id, answer).line
