"Chapter 6: initializers, dropout and normalization are torch's; stopping, folds, ensembles and clipping do what they say."
import inspect
import math
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook import training
from dlbook.kit.exercises import find, judge
from dlbook.training import (BatchNorm, Dropout, EarlyStopping, Ensemble, LayerNorm, clip_grad_norm_, kaiming_normal_, kaiming_uniform_,
                             kfold, l1_penalty, l2_penalty, xavier_normal_, xavier_uniform_)

settings.register_profile("book", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("book")

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])
INITS = ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"]


def generator(seed): return torch.Generator().manual_seed(seed)


# Initializers

@given(seeds, st.lists(st.integers(1, 6), min_size=2, max_size=5), dtypes, st.sampled_from(INITS[:2]), st.sampled_from([1.0, 0.3, 2.5]))
def test_xavier_draws_what_torch_draws(seed, shape, dtype, name, gain):
    ours, theirs = (getattr(m, name)(torch.empty(shape, dtype=dtype), gain, generator(seed)) for m in (training, nn.init))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@given(seeds, st.lists(st.integers(1, 6), min_size=2, max_size=5), dtypes, st.sampled_from(INITS[2:]), st.sampled_from([0, 0.2, 1.5]),
       st.sampled_from(["fan_in", "fan_out"]), st.sampled_from(["leaky_relu", "relu", "linear", "tanh", "sigmoid", "selu"]))
def test_kaiming_draws_what_torch_draws(seed, shape, dtype, name, a, mode, nonlinearity):
    ours, theirs = (getattr(m, name)(torch.empty(shape, dtype=dtype), a, mode, nonlinearity, generator(seed)) for m in (training, nn.init))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", INITS)
def test_initializers_have_torchs_arguments_and_fill_in_place(name):
    ours, theirs = (inspect.signature(getattr(m, name)).parameters for m in (training, nn.init))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    w = torch.zeros(4, 3, requires_grad=True)
    assert getattr(training, name)(w) is w and w.requires_grad and w.is_leaf and (w != 0).all()
    torch.manual_seed(0)
    expected = getattr(nn.init, name)(torch.empty(4, 3))
    torch.manual_seed(0)
    torch.testing.assert_close(getattr(training, name)(torch.empty(4, 3)), expected)
    assert getattr(training, name)(torch.empty(0, 3)).shape == (0, 3)
    assert getattr(training, name)(torch.empty(0, 0)).shape == (0, 0)


def test_initializers_keep_the_mean_square():
    "The rule itself: a Kaiming layer and a ReLU keep the size of a signal, a Xavier layer that of a linear one."
    x = torch.randn(2000, 400, generator=generator(0))
    for init, act in ((kaiming_normal_, torch.relu), (kaiming_uniform_, torch.relu), (xavier_normal_, lambda z: z), (xavier_uniform_, lambda z: z)):
        w = init(torch.empty(400, 400), generator=generator(1))
        assert act(x @ w.T).square().mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("call, error, message", [
    (lambda: xavier_normal_(torch.empty(3)), ValueError, r"expected a weight \(n_out, n_in, ...\), given shape \(3,\)"),
    (lambda: kaiming_normal_([1.0]), TypeError, "expected a tensor, given list"),
    (lambda: xavier_uniform_(torch.zeros(2, 2).long()), TypeError, "expected floating-point weights, given torch.int64"),
    (lambda: kaiming_uniform_(torch.empty(2, 2), mode="fan"), ValueError, "expected mode 'fan_in' or 'fan_out', given 'fan'"),
    (lambda: kaiming_uniform_(torch.empty(2, 2), nonlinearity="swish"), ValueError, "expected nonlinearity of .*'tanh'.*given 'swish'"),
    (lambda: Dropout(1.1), ValueError, "expected a probability p from 0 to 1, given 1.1"),
    (lambda: Dropout(math.nan), ValueError, "given nan"),
    (lambda: Dropout()(torch.ones(2).long()), TypeError, "expected floating-point activations, given torch.int64"),
    (lambda: BatchNorm(0), ValueError, "expected num_features, a whole number from 1, given 0"),
    (lambda: BatchNorm(3)(torch.ones(2, 4)), ValueError, r"expected 2 to 4 dimensions \(n, 3, ...\), given \(2, 4\)"),
    (lambda: BatchNorm(3)(torch.ones(3)), ValueError, r"given \(3,\)"),
    (lambda: BatchNorm(3)(torch.ones(2, 3, 1, 1, 1)), ValueError, "expected 2 to 4 dimensions"),
    (lambda: BatchNorm(3)(torch.ones(1, 3)), ValueError, r"expected more than 1 value per channel in training, given shape \(1, 3\)"),
    (lambda: LayerNorm(()), ValueError, r"expected sizes of the last dimensions, whole numbers from 1, given \(\)"),
    (lambda: LayerNorm((2, 0)), ValueError, r"given \(2, 0\)"),
    (lambda: LayerNorm(3)(torch.ones(3, 2)), ValueError, r"expected inputs of shape \(..., 3\), given \(3, 2\)"),
    (lambda: LayerNorm((2, 3))(torch.ones(3)), ValueError, r"expected inputs of shape \(..., 2, 3\), given \(3,\)"),
    (lambda: EarlyStopping(patience=0), ValueError, "expected patience, a whole number from 1, given 0"),
    (lambda: EarlyStopping(min_delta=-1), ValueError, "expected min_delta of at least 0, given -1"),
    (lambda: kfold(5, 1), ValueError, "expected 2 <= k <= n folds, given k = 1 and n = 5"),
    (lambda: kfold(5, 6), ValueError, "given k = 6 and n = 5"),
    (lambda: kfold(5.0, 2), ValueError, "expected n, a whole number, given 5.0"),
    (lambda: Ensemble([]), ValueError, "expected at least one model, given none"),
    (lambda: Ensemble([nn.Linear(2, 3), nn.Linear(2, 4)])(torch.ones(1, 2)), ValueError, r"expected outputs of one shape, given \[\(1, 3\), \(1, 4\)\]"),
    (lambda: l1_penalty([]), ValueError, "expected weights, given none"),
    (lambda: l2_penalty([1.0]), TypeError, "expected tensors, given float")])
def test_bad_input_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message): call()


# Penalties

@given(seeds, st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4), dtypes)
def test_penalties_and_their_gradients(seed, shapes, dtype):
    ws = [torch.randn(shape, generator=generator(seed), dtype=dtype).requires_grad_() for shape in shapes]
    flat = torch.cat([w.detach().flatten() for w in ws])
    torch.testing.assert_close(l1_penalty(iter(ws)).detach(), torch.linalg.vector_norm(flat, 1))
    torch.testing.assert_close(l2_penalty(iter(ws)).detach(), torch.linalg.vector_norm(flat).square() / 2)
    for w, g in zip(ws, torch.autograd.grad(l1_penalty(ws), ws)): assert torch.equal(g, w.sign())
    for w, g in zip(ws, torch.autograd.grad(l2_penalty(ws), ws)): torch.testing.assert_close(g, w.detach())
    torch.testing.assert_close(l2_penalty(ws[0]), ws[0].square().sum() / 2)


# Dropout

@given(seeds, st.sampled_from([0, 0.1, 0.5, 0.9, 1]), st.lists(st.integers(1, 6), min_size=1, max_size=4), dtypes, st.booleans())
def test_dropout_is_torchs(seed, p, shape, dtype, mode):
    x = torch.randn(shape, generator=generator(seed), dtype=dtype)
    found = []
    for make in (Dropout, nn.Dropout):
        torch.manual_seed(seed)
        leaf, layer = x.clone().requires_grad_(), make(p).train(mode)
        out = layer(leaf)
        out.square().sum().backward()
        found.append((out.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])


def test_dropout_keeps_the_mean_and_its_default():
    torch.manual_seed(0)
    out = Dropout()(torch.ones(100_000))
    assert set(out.unique().tolist()) == {0.0, 2.0} and out.mean().item() == pytest.approx(1, abs=0.02)
    assert Dropout(1)(torch.ones(5)).tolist() == [0] * 5 and Dropout(0)(torch.ones(5)).tolist() == [1] * 5


# Normalization

def compared(ours, theirs, x):
    "Results, gradients and state of two layers on the same input."
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    outs = [layer(leaf) for layer, leaf in zip((ours, theirs), leaves)]
    for out, layer in zip(outs, (ours, theirs)):
        layer.zero_grad()
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    tolerance = dict(rtol=1e-3, atol=1e-4) if x.dtype == torch.float32 else dict(rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(outs[0], outs[1], **tolerance)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, **tolerance)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True): torch.testing.assert_close(p.grad, q.grad, **tolerance)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items(): torch.testing.assert_close(ours.state_dict()[name], value, **tolerance)


@given(seeds, st.sampled_from([(4,), (2, 3), (3, 2, 2)]), st.integers(1, 4), dtypes, st.sampled_from([0.1, 0.5, None, 1.0, 0.0]), st.booleans(), st.booleans(),
       st.sampled_from([1e-5, 0.1]))
def test_batch_norm_is_torchs_in_both_modes(seed, size, channels, dtype, momentum, affine, track, eps):
    rng = generator(seed)
    n, *places = size
    args = dict(eps=eps, momentum=momentum, affine=affine, track_running_stats=track)
    theirs = (nn.BatchNorm2d if len(places) == 2 else nn.BatchNorm1d)(channels, **args).to(dtype)
    ours = BatchNorm(channels, **args).to(dtype)
    if affine:
        for p, q in zip(ours.parameters(), theirs.parameters()): q.data = p.data.copy_(torch.randn(channels, generator=rng)).clone()
    for mode in (True, True, False, True):
        ours.train(mode), theirs.train(mode)
        compared(ours, theirs, 3 * torch.randn(n, channels, *places, generator=rng, dtype=dtype) + 2)
    other = BatchNorm(channels, **args).to(dtype)
    other.load_state_dict(theirs.state_dict())
    type(theirs)(channels, **args).to(dtype).load_state_dict(ours.state_dict())
    x = torch.randn(n, channels, *places, generator=rng, dtype=dtype)
    torch.testing.assert_close(other.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_batch_norm_evaluates_a_single_sample_and_keeps_its_state_then():
    layer = BatchNorm(3)
    layer(torch.randn(8, 3))
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    x = torch.randn(1, 3)
    expected = (x - layer.running_mean) / (layer.running_var + 1e-5).sqrt()
    torch.testing.assert_close(layer.eval()(x), expected)
    for k, v in layer.state_dict().items(): assert torch.equal(v, before[k]), k
    assert not layer.running_mean.requires_grad and layer.num_batches_tracked == 1
    with pytest.raises(ValueError, match="more than 1 value"): BatchNorm(3, track_running_stats=False).eval()(x)


@given(seeds, st.sampled_from([(5,), (1,), (2, 3), (3, 2, 2)]), st.lists(st.integers(1, 3), max_size=2), dtypes, st.booleans(), st.booleans(), st.sampled_from([1e-5, 0.1]))
def test_layer_norm_is_torchs(seed, shape, before, dtype, affine, bias, eps):
    rng = generator(seed)
    given_shape = shape[0] if len(shape) == 1 else shape
    pair = [make(given_shape, eps, affine, bias).to(dtype) for make in (LayerNorm, nn.LayerNorm)]
    for p, q in zip(*(layer.parameters() for layer in pair)): q.data = p.data.copy_(torch.randn(shape, generator=rng)).clone()
    x = 3 * torch.randn(*before, *shape, generator=rng, dtype=dtype) + 2
    compared(*pair, x)
    compared(*(layer.eval() for layer in pair), x)


@pytest.mark.parametrize("make, theirs", [(BatchNorm, nn.BatchNorm1d), (LayerNorm, nn.LayerNorm)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(make, theirs, dtype):
    "Also where the square does not fit into float16."
    x = (300 * torch.randn(64, 5, generator=generator(0))).to(dtype)
    ours, other = make(5), theirs(5)
    for mode in (True, False):
        out, expected = ours.train(mode)(x), other.train(mode)(x.float())
        assert out.dtype == dtype and out.isfinite().all()
        torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=2e-2)
    for name, value in other.state_dict().items(): torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ours, theirs", [(Dropout, nn.Dropout), (BatchNorm, nn.BatchNorm1d), (LayerNorm, nn.LayerNorm), (clip_grad_norm_, nn.utils.clip_grad_norm_)])
def test_arguments_are_torchs(ours, theirs):
    mine, others = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in others][:len(mine)]


# Early stopping

def trained(values, epochs=None, fits=1, **settings):
    "A learner whose validation loss in epoch i is values[i], with a weight that is i + 1 then; and the callback."
    import dlbook.kit.loaders
    from fastai.callback.core import Callback
    from fastai.vision.all import Learner
    data = (torch.ones(4, 1), torch.zeros(4, 1))
    dls = dlbook.kit.loaders.device_dls(data, data, bs=4, device="cpu")

    class Script(Callback):
        "Sets the weight, and the validation loss."
        order = 55
        def before_epoch(self):
            if not hasattr(self, "lr_finder") and not self.lock.locked(): self.learn.model.weight.data.fill_(self.epoch + 1.0)
        def after_epoch(self):
            if not hasattr(self, "lr_finder") and not self.lock.locked(): self.learn.recorder.values[-1][1] = values[self.epoch]

    learn = Learner(dls, nn.Linear(1, 1, bias=False), loss_func=nn.MSELoss(), lr=0.0, metrics=lambda p, y: p.mean(), cbs=Script())
    stopper = EarlyStopping(**settings)
    for _ in range(fits):
        with learn.no_bar(), learn.no_logging(): learn.fit(epochs or len(values), cbs=stopper)
    return learn, stopper


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]), min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=15)
def test_early_stopping_is_the_rule_of_the_exercise(values, patience):
    learn, stopper = trained(values, patience=patience)
    epochs, best = find("06.5").reference(torch.tensor(values), patience)
    assert (len(learn.recorder.values), stopper.best_epoch) == (epochs, best)
    assert learn.model.weight.item() == best + 1 and stopper.best == values[best]


def test_early_stopping_settings():
    assert inspect.signature(EarlyStopping).parameters["patience"].default == 3
    learn, stopper = trained([1.0, 0.95, 0.92, 0.5, 0.1], patience=2, min_delta=0.1)
    assert len(learn.recorder.values) == 3 and learn.model.weight.item() == 1
    learn, stopper = trained([math.nan, 2.0, math.nan, math.inf], patience=2)
    assert stopper.best_epoch == 1 and learn.model.weight.item() == 2
    learn, stopper = trained([math.nan, math.nan, math.nan], patience=2)
    assert len(learn.recorder.values) == 2 and learn.model.weight.item() == 2  # nothing to bring back
    with pytest.raises(ValueError, match=r"expected monitor of \['train_loss', 'valid_loss', .*\], given 'accuracy'"): trained([1.0], monitor="accuracy")


def test_early_stopping_of_a_metric_looks_for_the_largest():
    import dlbook.kit.loaders
    from fastai.vision.all import Learner
    data = (torch.ones(4, 1), torch.zeros(4, 1))

    def height(p, y): return heights.pop(0)

    for better, values in (("height", [1.0, 3.0, 2.0, 2.5, 9.0]), ("height_error", [3.0, 1.0, 2.0, 1.5, 0.0])):
        heights = [torch.tensor(v) for v in values]
        height.__name__ = better
        learn = Learner(dlbook.kit.loaders.device_dls(data, data, bs=4, device="cpu"), nn.Linear(1, 1), loss_func=nn.MSELoss(), lr=0.1, metrics=height)
        stopper = EarlyStopping(better, patience=2)
        with learn.no_bar(), learn.no_logging(): learn.fit(5, cbs=stopper)
        assert (len(learn.recorder.values), stopper.best_epoch) == (4, 1)


def test_early_stopping_brings_back_buffers_and_starts_anew_and_lets_others_work():
    learn, stopper = trained([5.0, 6.0, 7.0, 8.0], patience=2, fits=2)
    assert stopper.best_epoch == 0 and learn.model.weight.item() == 1
    learn.add_cb(stopper)
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.lr_find(num_it=5, show_plot=False)
        learn.get_preds()
    assert learn.model.weight.item() == 1 and stopper.best_epoch == 0 and stopper.best == 5

    from dlbook.kit.data import iris
    from fastai.vision.all import Learner
    model = nn.Sequential(BatchNorm(4), nn.Linear(4, 3))
    learn = Learner(iris().dls(bs=16, device="cpu"), model)
    with learn.no_bar(), learn.no_logging():
        learn.fit(6, 3.0, cbs=(stopper := EarlyStopping(patience=2)))
        assert learn.validate()[0] == pytest.approx(stopper.best, abs=1e-6)


def test_early_stopping_survives_an_interruption(tmp_path):
    "With the kit's checkpoints: what it remembers is part of the state of a run."
    from dlbook.kit.checkpoints import Checkpoints
    from dlbook.kit.data import iris
    from fastai.callback.core import Callback
    from fastai.vision.all import Learner

    class Cut(Callback):
        order = 300
        def __init__(self, at): self.at = at
        def before_epoch(self):
            if self.epoch == self.at: raise KeyError("cut")

    def run(folder, cut=None, resume=False):
        torch.manual_seed(0)
        learn, stopper = Learner(iris().dls(bs=16, device="cpu"), nn.Sequential(BatchNorm(4), Dropout(0.2), nn.Linear(4, 3))), EarlyStopping(patience=2)
        with learn.no_bar(), learn.no_logging():
            learn.fit(12, 1.0, cbs=[stopper, Checkpoints(tmp_path / folder, resume=resume)] + ([Cut(cut)] if cut else []))
        return learn, stopper

    whole, first = run("whole")
    epochs = len(whole.recorder.values)
    assert epochs < 12
    with pytest.raises(KeyError): run("cut", cut=epochs - 1)
    resumed, second = run("cut", resume=True)
    assert (first.best_epoch, first.best) == (second.best_epoch, second.best)
    for p, q in zip(whole.model.state_dict().values(), resumed.model.state_dict().values()): assert torch.equal(p, q)


# Folds

@given(st.integers(2, 40), st.data(), st.integers(0, 100))
def test_kfold_is_a_partition_with_scikit_learns_sizes(n, data, seed):
    from sklearn.model_selection import KFold
    k = data.draw(st.integers(2, n))
    splits = list(kfold(n, k, seed))
    assert [len(v) for _, v in splits] == [len(v) for _, v in KFold(k).split(range(n))]
    assert sorted(torch.cat([v for _, v in splits]).tolist()) == list(range(n))
    for train, valid in splits:
        assert train.dtype == valid.dtype == torch.int64
        assert sorted(torch.cat([train, valid]).tolist()) == list(range(n))
    again = list(kfold(n, k, seed))
    assert all(torch.equal(a, b) for one, two in zip(splits, again) for a, b in zip(one, two))


def test_kfold_shuffles_by_its_seed():
    orders = [torch.cat([v for _, v in kfold(50, 5, seed)]).tolist() for seed in range(3)]
    assert len({tuple(o) for o in orders}) == 3 and list(range(50)) not in orders
    state = torch.get_rng_state()
    list(kfold(10))
    assert torch.equal(state, torch.get_rng_state()) and len(list(kfold(10))) == 5


# Ensembles

@given(seeds, st.integers(1, 4), st.integers(2, 5), st.sampled_from([(), (3,), (2, 2)]), st.sampled_from([1.0, 100.0]))
def test_ensemble_is_the_log_of_the_mean_probability(seed, members, classes, places, scale):
    logits = [scale * torch.randn(4, classes, *places, generator=generator(seed + i), dtype=torch.float64) for i in range(members)]

    class Fixed(nn.Module):
        def __init__(self, value): super().__init__(); self.value = value
        def forward(self, x, factor): return self.value * factor

    out = Ensemble([Fixed(v) for v in logits])(None, 1.0)
    mean = torch.stack([v.softmax(1) for v in logits]).mean(0)
    torch.testing.assert_close(out.exp(), mean, rtol=1e-8, atol=1e-12)
    target = torch.randint(classes, (4, *places), generator=generator(seed))
    torch.testing.assert_close(nn.functional.cross_entropy(out, target), nn.functional.nll_loss(out, target))
    assert out.isfinite().all()


def test_ensemble_trains_its_members_and_follows_the_mode():
    models = [nn.Sequential(nn.Linear(3, 4), Dropout(), nn.Linear(4, 2)) for _ in range(3)]
    both = Ensemble(iter(models))
    both(torch.randn(5, 3)).sum().backward()
    assert len(list(both.parameters())) == 12 and all(p.grad is not None for p in both.parameters())
    both.eval()
    assert not any(m.training for m in models)
    far = Ensemble([nn.Identity()] * 2)(torch.tensor([[0.0, -2000.0]]))
    assert far.tolist() == [[0.0, -2000.0]]  # a probability too small for a float


# Clipping

@given(seeds, st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4), dtypes, st.sampled_from([0.0, 0.1, 1.0, 100.0]),
       st.sampled_from([0.5, 1.0, 2.0, 3.0, math.inf]), st.sampled_from([0.0, 1e-12, 1.0, 1e6]))
def test_clipping_is_torchs(seed, shapes, dtype, max_norm, norm_type, scale):
    rng = generator(seed)
    pair = [[torch.zeros(shape, dtype=dtype) for shape in shapes] + [torch.zeros(2)] for _ in range(2)]
    for p, q in list(zip(*pair))[:-1]:
        p.grad = scale * torch.randn(p.shape, generator=rng, dtype=dtype)
        q.grad = p.grad.clone()
    ours, theirs = clip_grad_norm_(iter(pair[0]), max_norm, norm_type), nn.utils.clip_grad_norm_(pair[1], max_norm, norm_type)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for p, q in list(zip(*pair))[:-1]: torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-30)
    assert pair[0][-1].grad is None


def test_clipping_keeps_the_direction_and_what_is_short():
    w = torch.zeros(2, requires_grad=True)
    w.grad = torch.tensor([3.0, 4.0])
    assert clip_grad_norm_(w, 10.0).item() == 5 and w.grad.tolist() == [3, 4]
    assert clip_grad_norm_([w], 1.0).item() == 5 and w.grad.tolist() == pytest.approx([0.6, 0.8])
    assert clip_grad_norm_([], 1.0).item() == 0 and clip_grad_norm_([torch.zeros(1)], 1.0).item() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_clipping_of_broken_gradients(value):
    w = torch.zeros(2)
    w.grad = torch.tensor([value, 1.0])
    with pytest.raises(RuntimeError, match="expected gradients of finite norm, given gradients of norm (nan|inf)"): clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    assert w.grad[1] == 1
    assert not clip_grad_norm_(w, 1.0).isfinite()


# The module, and the exercises

def test_public_names():
    assert set(training.__all__) == {*INITS, "l1_penalty", "l2_penalty", "Dropout", "BatchNorm", "LayerNorm", "EarlyStopping", "kfold", "Ensemble", "clip_grad_norm_"}


def test_import_is_silent():
    done = subprocess.run([sys.executable, "-W", "default", "-c", "import dlbook.training"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and "torch.jit" not in done.stderr, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_on_a_gpu():
    model = nn.Sequential(nn.Linear(4, 8), BatchNorm(8), nn.ReLU(), Dropout(0.2), LayerNorm(8), nn.Linear(8, 3)).cuda()
    for p in model.parameters():
        if p.ndim == 2: kaiming_normal_(p, generator=torch.Generator("cuda").manual_seed(0))
    both = Ensemble([model])
    with torch.autocast("cuda", dtype=torch.float16): loss = nn.functional.cross_entropy(both(torch.randn(6, 4, device="cuda")), torch.arange(6, device="cuda") % 3)
    loss.backward()
    assert clip_grad_norm_(both.parameters(), 1.0).isfinite()


WRONG = [  # (exercise, an answer that is wrong in a way the book does not name, what the verdict says)
    ("06.1", 1.0, "too large"),
    ("06.1", 0.02, "too small"),
    ("06.3", lambda x, m, v: (x - x.mean(0), 0.9 * m + 0.1 * x.mean(0), 0.9 * v + 0.1 * x.var(0)), "the normalized batch should be"),
    ("06.3", lambda x, m, v: (find("06.3").reference(x, m, v)[0], x.mean(0), find("06.3").reference(x, m, v)[2]), "the new running mean should be"),
    ("06.3", lambda x, m, v: find("06.3").reference(x, m, v.mul_(1.0).add_(1.0)), "changes its argument running_var in place"),
    ("06.6", lambda w, b, mean, var, gamma, beta: (w, b), "the weight should be"),
    ("06.6", lambda w, b, mean, var, gamma, beta: (find("06.6").reference(w, b, mean, var, gamma, beta)[0], b - mean), "the bias should be"),
    ("06.6", lambda w, b, mean, var, gamma, beta: (w * gamma[:, None].T / (var + 1e-5).sqrt(), b), "raises RuntimeError|should"),
    ("06.4", lambda y, k: torch.zeros_like(y), "the fold should be"),
    ("06.4", lambda y, k: (y % k).float(), "should have dtype torch.int64"),
    ("06.4", lambda y, k: torch.stack([(y == c).cumsum(0) for c in y.unique()]).amax(0) % k, "the fold should be"),
    ("06.5", lambda losses, patience: (len(losses), 0), "should be"),
    ("06.5", lambda losses, patience: int(losses.argmin()), "should give 2 values"),
    ("06.2", lambda predicted, truth: (0.0, predicted.var(0, correction=0).mean()), "bias² should be"),
    ("06.2", lambda predicted, truth: ((predicted.mean(0) - truth).square().mean(), predicted.std(0, correction=0).mean()), "the variance should be"),
]


@pytest.mark.parametrize("id, answer, message", WRONG, ids=lambda v: v if isinstance(v, str) and v.startswith("06") else "")
def test_wrong_answers_are_told_what_is_wrong(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong"
    import re
    assert re.search(message, verdict.line), verdict.line


def test_references_agree_with_the_chapter():
    x, mean, var = torch.randn(6, 3), torch.zeros(3), torch.ones(3)
    layer = BatchNorm(3, affine=False)
    out, new_mean, new_var = find("06.3").reference(x, mean, var)
    torch.testing.assert_close(layer(x), out)
    torch.testing.assert_close((layer.running_mean, layer.running_var), (new_mean, new_var))
    linear, norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
    for _ in range(3): norm(torch.randn(8, 3))
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    weight, bias = find("06.6").reference(linear.weight, linear.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    z = torch.randn(5, 4)
    torch.testing.assert_close(z @ weight.T + bias, norm.eval()(linear(z)))
    bound = kaiming_uniform_(torch.empty(100, 400)).abs().max().item()
    assert bound == pytest.approx(find("06.1").reference, rel=1e-3)
    predicted, truth = torch.randn(7, 5), torch.randn(5)
    assert sum(find("06.2").reference(predicted, truth)).item() == pytest.approx((predicted - truth).square().mean().item(), rel=1e-5)
