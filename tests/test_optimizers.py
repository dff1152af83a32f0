"Chapter 5: the optimizers' weights are torch's over many shapes and settings; schedules and the rate finder do what they say."
import copy
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook import optimizers
from dlbook.kit.exercises import find, judge
from dlbook.optimizers import (SGD, Adam, AdamW, Optimizer, RMSprop, cosine_decay, exponential_decay, linear_warmup, lr_find, one_cycle,
                               step_decay)

settings.register_profile("book", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("book")

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])
shape_lists = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4)
decays = st.sampled_from([0, 0.01, 0.3])


def largest_gap(make, theirs, seed, shapes=((3, 2), (4,)), dtype=torch.float32, steps=200, scale=1.0, skip=False):
    "The largest difference from torch's weights over `steps` steps, relative to the weights where they exceed 1."
    rng = torch.Generator().manual_seed(seed)
    ours = [torch.randn(shape, generator=rng, dtype=dtype) for shape in shapes]
    others = [p.clone() for p in ours]
    pair, gap = (make(ours), theirs(others)), 0.0
    for t in range(steps):
        for i, (p, q) in enumerate(zip(ours, others)):
            p.grad = q.grad = None if skip and (t + i) % 3 == 0 else scale * torch.randn(p.shape, generator=rng, dtype=dtype)
        for opt in pair: opt.step()
        for p, q in zip(ours, others):
            assert p.dtype == dtype
            gap = max(gap, ((p - q).abs() / q.abs().clamp(min=1)).max().item())
    return gap


def plain(make):
    "The optimizer with the readable loop in place of its fast step."
    def made(params):
        opt = make(params)
        opt.update_all = partial(Optimizer.update_all, opt)
        return opt
    return made


@given(seeds, shape_lists, dtypes, decays, st.sampled_from([(0, 0, False), (0.9, 0, False), (0.5, 0.3, False), (0.9, 0, True)]))
def test_sgd(seed, shapes, dtype, weight_decay, how):
    kwargs = dict(lr=0.1, weight_decay=weight_decay, momentum=how[0], dampening=how[1], nesterov=how[2])
    assert largest_gap(partial(SGD, **kwargs), partial(torch.optim.SGD, **kwargs), seed, shapes, dtype) < 1e-6


@given(seeds, shape_lists, dtypes, decays, st.booleans(), st.sampled_from([0, 0.9]), st.sampled_from([0.9, 0.99]))
def test_rmsprop(seed, shapes, dtype, weight_decay, centered, momentum, alpha):
    kwargs = dict(lr=0.01, weight_decay=weight_decay, centered=centered, momentum=momentum, alpha=alpha)
    assert largest_gap(partial(RMSprop, **kwargs), partial(torch.optim.RMSprop, **kwargs), seed, shapes, dtype) < 1e-6


@given(seeds, shape_lists, dtypes, decays, st.sampled_from(["Adam", "AdamW"]), st.sampled_from([(0.9, 0.999), (0.0, 0.5)]), st.booleans())
def test_adam(seed, shapes, dtype, weight_decay, name, betas, fast):
    kwargs = dict(lr=0.01, weight_decay=weight_decay, betas=betas)
    ours = partial(getattr(optimizers, name), **kwargs)
    assert largest_gap(ours if fast else plain(ours), partial(getattr(torch.optim, name), **kwargs), seed, shapes, dtype) < 1e-6


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("scale", [0, 1e-12, 1e6])
def test_defaults_and_extreme_gradients(name, scale):
    make, theirs = getattr(optimizers, name), getattr(torch.optim, name)
    assert largest_gap(make, theirs, 0, scale=scale) < 1e-6
    assert largest_gap(plain(make), theirs, 0, scale=scale) < 1e-6


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_arguments_are_torchs(name):
    import inspect
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (optimizers, torch.optim))
    names = list(ours)
    assert names == [n for n in theirs if n in names]  # the same order
    for n in names[1:]: assert ours[n].default == theirs[n].default, n


@pytest.mark.parametrize("make, theirs", [(partial(SGD, momentum=0.9), partial(torch.optim.SGD, momentum=0.9)), (Adam, torch.optim.Adam)])
def test_parameters_without_gradient_rest(make, theirs):
    assert largest_gap(partial(make, lr=0.1), partial(theirs, lr=0.1), 0, skip=True) < 1e-6
    w = torch.ones(2)
    make([w]).step()
    assert w.tolist() == [1, 1]


@pytest.mark.parametrize("make, theirs", [(SGD, torch.optim.SGD), (AdamW, torch.optim.AdamW), (RMSprop, torch.optim.RMSprop)])
def test_groups(make, theirs):
    def grouped(cls): return lambda params: cls([{"params": params[:1], "lr": 0.1, "weight_decay": 0}, {"params": iter(params[1:])}], lr=0.01, weight_decay=0.2)
    assert largest_gap(grouped(make), grouped(theirs), 3) < 1e-6


@pytest.mark.parametrize("make, theirs", [(partial(SGD, lr=0.1, momentum=0.9), partial(torch.optim.SGD, lr=0.1, momentum=0.9)), (SGD, torch.optim.SGD), (AdamW, torch.optim.AdamW),
                                          (partial(RMSprop, momentum=0.9, centered=True), partial(torch.optim.RMSprop, momentum=0.9, centered=True))])
@pytest.mark.parametrize("source", ["ours", "torch's"])
def test_state_goes_on(make, theirs, source):
    "Ten steps, then a fresh optimizer takes over the memory of ours or of torch's."
    rng, first = torch.Generator().manual_seed(0), [torch.ones(3), torch.zeros(2, 2)]
    whole, seen = theirs(first), []
    for t in range(20):
        if t == 10:
            second = [p.clone() for p in first]
            new = make(second)
            saved = copy.deepcopy((whole if source == "torch's" else kept).state_dict())
            new.load_state_dict(saved)
        elif t == 0: kept = make(third := [p.clone() for p in first])
        for i, p in enumerate(first):
            p.grad = torch.randn(p.shape, generator=rng)
            third[i].grad = p.grad.clone()
            if t >= 10: second[i].grad = p.grad.clone()
        whole.step()
        if t < 10: kept.step()
        else: new.step()
    assert max((p - q).abs().max() for p, q in zip(first, second)) < 1e-6


def test_loaded_state_is_a_copy_and_must_fit():
    w = torch.ones(2)
    opt = SGD([w], momentum=0.9)
    w.grad = torch.ones(2)
    opt.step()
    saved, other = opt.state_dict(), SGD([torch.ones(2)], lr=5.0)
    other.load_state_dict(saved)
    opt.step()
    (state,) = other.state.values()
    assert state["momentum_buffer"].tolist() == [1, 1] and other.param_groups[0]["lr"] == 1e-3
    with pytest.raises(ValueError, match=r"expected groups of \[2\] parameters, given groups of \[1\]"): SGD([w, torch.ones(1)]).load_state_dict(saved)


def test_state_survives_a_file(tmp_path):
    w = torch.ones(2)
    w.grad = torch.ones(2)
    opt = AdamW([w])
    opt.step()
    torch.save(opt.state_dict(), tmp_path / "opt.pt")
    other = AdamW([w])
    other.load_state_dict(torch.load(tmp_path / "opt.pt", weights_only=True))
    assert other.state[w]["step"] == 1 and torch.equal(other.state[w]["exp_avg"], opt.state[w]["exp_avg"])


def test_step_records_nothing_and_zero_grad_forgets():
    w = torch.ones(2, requires_grad=True)
    for make in (partial(SGD, momentum=0.9, weight_decay=0.1), RMSprop, Adam, AdamW):
        opt = make([w])
        w.square().sum().backward()
        opt.step()
        assert w.requires_grad and w.is_leaf and w.grad is not None
        opt.zero_grad()
        assert w.grad is None


@pytest.mark.parametrize("call, error, message", [
    (lambda: SGD([]), ValueError, "expected parameters to train, given none"),
    (lambda: SGD(torch.ones(2)), TypeError, "expected a list of tensors or of dicts, given a Tensor"),
    (lambda: SGD([1.0]), TypeError, "expected tensors to train, given float"),
    (lambda: Adam([torch.ones(1)], lr=-1), ValueError, "expected lr of at least 0, given -1"),
    (lambda: Adam([torch.ones(1)], lr=float("nan")), ValueError, "expected lr of at least 0, given nan"),
    (lambda: AdamW([torch.ones(1)], weight_decay=-0.1), ValueError, "expected weight_decay of at least 0, given -0.1"),
    (lambda: Adam([torch.ones(1)], betas=(0.9, 1.0)), ValueError, r"expected betas from 0 to below 1, given \(0.9, 1.0\)"),
    (lambda: SGD([torch.ones(1)], nesterov=True), ValueError, "nesterov expects momentum above 0 and dampening 0, given 0 and 0"),
    (lambda: step_decay(1.01), ValueError, "expected progress from 0 to 1, given 1.01"),
    (lambda: one_cycle(-0.1), ValueError, "expected progress from 0 to 1, given -0.1"),
    (lambda: linear_warmup(math.nan), ValueError, "expected progress from 0 to 1, given nan")])
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message): call()


def test_a_parameter_given_twice_is_refused():
    w = torch.ones(2)
    with pytest.raises(ValueError, match=r"expected each parameter once, given one of shape \(2,\) twice"): SGD([{"params": [w]}, {"params": [w]}])


@given(st.floats(0, 1), st.floats(1e-3, 10))
def test_schedules_stay_between_nothing_and_the_peak_and_scale(t, peak):
    for schedule in (step_decay, cosine_decay, linear_warmup, one_cycle):
        assert 0 <= schedule(t, peak) <= peak * (1 + 1e-9)
        assert schedule(t, peak) == pytest.approx(peak * schedule(t), abs=1e-9)


def test_schedules_at_their_corners():
    assert [step_decay(t) for t in (0, 0.49, 0.5, 0.75, 1)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert [exponential_decay(t, 2, 0.02) for t in (0, 0.5, 1)] == pytest.approx([2, 0.2, 0.02])
    assert [cosine_decay(t, 3, 1) for t in (0, 0.5, 1)] == pytest.approx([3, 2, 1])
    assert [linear_warmup(t, 2) for t in (0, 0.05, 0.1, 1)] == pytest.approx([0, 1, 2, 0])
    assert linear_warmup(0, share=0) == 1 and linear_warmup(0.55, then=exponential_decay) == pytest.approx(0.1)
    assert [one_cycle(t) for t in (0, 0.25, 1)] == pytest.approx([1 / 25, 1, 1e-5])


class Away(nn.Module):
    "One weight."

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(10.0))

    def forward(self, x): return self.w - x


@pytest.mark.parametrize("make", [partial(SGD, lr=0.3, momentum=0.9), partial(torch.optim.AdamW, lr=0.3), partial(AdamW, lr=0.3)])
def test_lr_find_leaves_everything_as_it_was(make):
    model = Away()
    opt = make(model.parameters())
    model(torch.zeros(1)).square().sum().backward()
    opt.step()
    weight, memory = model.w.item(), copy.deepcopy(opt.state_dict())
    rates, losses = lr_find(model, lambda error, _: error.square().mean(), [(torch.zeros(1), None)], opt, steps=40)
    assert model.w.item() == weight and opt.param_groups[0]["lr"] == 0.3
    for name, value in opt.state_dict()["state"][0].items(): assert torch.as_tensor(value).equal(torch.as_tensor(memory["state"][0][name])), name
    assert len(rates) == len(losses) <= 40 and rates[0] == pytest.approx(1e-7)
    assert rates[1] / rates[0] == pytest.approx((10 / 1e-7) ** (1 / 39))


def test_lr_find_gives_the_running_mean_of_the_loss():
    model, values = Away(), [1.0, 5.0, 2.0]
    batches = [(torch.tensor([10 - v]), None) for v in values]
    _, losses = lr_find(model, lambda error, _: error.mean(), batches, SGD(model.parameters()), start=1e-30, end=1e-29, steps=5, stop=100)
    assert losses == pytest.approx(find("05.4").reference(torch.tensor(values + values[:2]), 0.98).tolist(), rel=1e-5)


def test_lr_find_stops_at_an_explosion_and_restores_after_an_error():
    model, opt = Away(), None
    opt = SGD(model.parameters(), lr=0.1)
    rates, losses = lr_find(model, lambda error, _: error.square().mean(), [(torch.zeros(1), None)], opt, start=2.0, end=1e6)
    assert all(map(math.isfinite, losses)) and losses[-1] > 4 * min(losses[:-1]) and len(rates) == len(losses)
    assert all(loss <= 4 * min(losses[:i + 1]) for i, loss in enumerate(losses[:-1]))
    with pytest.raises(ValueError, match="expected mini-batches with a finite loss, given none"): lr_find(model, None, [], opt)
    def broken(error, _):
        if opt.param_groups[0]["lr"] > 1e-3: raise KeyError("broken")
        return error.square().mean()
    with pytest.raises(KeyError): lr_find(model, broken, [(torch.zeros(1), None)], opt)
    assert model.w.item() == 10 and opt.param_groups[0]["lr"] == 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_runs_on_a_gpu(name):
    ours, theirs = torch.ones(5, device="cuda"), torch.ones(5, device="cuda")
    pair = getattr(optimizers, name)([ours]), getattr(torch.optim, name)([theirs])
    for _ in range(200):
        ours.grad = theirs.grad = torch.randn(5, device="cuda")
        for opt in pair: opt.step()
    assert (ours - theirs).abs().max() < 1e-6


def test_fastai_trains_with_ours():
    from dlbook.kit.data import iris
    from fastai.optimizer import OptimWrapper
    from fastai.vision.all import Learner
    learn = Learner(iris().standardized().dls(bs=16, device="cpu"), nn.Linear(4, 3), opt_func=partial(OptimWrapper, opt=AdamW))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5, 0.1)
    assert learn.validate()[0] < 0.4 and learn.opt.hypers[0]["mom"] == pytest.approx(0.95, abs=0.01)


# Wrong answers that differ from the registered mistakes, and a word of the message that must name the fault.
WRONG = [
    ("05.1", 0.5, "0.5 is too large"), ("05.1", 0.1, "0.1 is too small"), ("05.1", "1/3", "number"),
    ("05.3", lambda grads, momentum: grads, "the buffer should be"), ("05.3", lambda grads, momentum: momentum * grads.sum(0), "should have shape"),
    ("05.4", lambda values, beta: values, "the mean should be"), ("05.4", lambda values, beta: values.mean(), "should have shape"),
    ("05.6", lambda p, g, m, v, v_max, t, lr: p - lr * g, "4 values"),
    ("05.6", lambda p, g, m, v, v_max, t, lr: (p - lr * g, m, v, v_max), "the new p should be"),
    ("05.6", lambda p, g, m, v, v_max, t, lr: find("05.6").reference(p, g, m.mul_(1.1), v, v_max, t, lr), "changes its argument m in place"),
    ("05.5", lambda t, peak, cycles: peak, "the rate should be"), ("05.5", lambda t, peak, cycles: cosine_decay(t * cycles, peak), "raises ValueError"),
    ("05.2", lambda grads, sizes: grads[0], "the gradient should be"), ("05.2", lambda grads, sizes: grads.mean(), "should have shape"),
]


@pytest.mark.parametrize("id, answer, message", WRONG)
def test_wrong_answers_are_named(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and message in verdict.line, verdict


def test_amsgrad_of_the_exercise_is_torchs():
    rng, step = torch.Generator().manual_seed(0), find("05.6").reference
    p, m, v, v_max = torch.ones(3), torch.zeros(3), torch.zeros(3), torch.zeros(3)
    theirs = torch.ones(3)
    opt = torch.optim.Adam([theirs], lr=0.1, amsgrad=True)
    for t in range(1, 50):
        theirs.grad = torch.randn(3, generator=rng)
        p, m, v, v_max = step(p, theirs.grad, m, v, v_max, t, 0.1)
        opt.step()
    assert (p - theirs).abs().max() < 1e-5


def test_import_needs_no_plotting():
    code = "import sys, dlbook.optimizers; print([m for m in ('matplotlib', 'networkx', 'fastai', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
