"Privacy, federated averaging, robustness: the accountant against Opacus, gradients against loops, masks that cancel, processes that end."
import copy
import itertools
import math
import multiprocessing
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn
from torch.nn.utils import parameters_to_vector

from dlbook import ethics
from dlbook.ethics import (attack_curve, client_update, clipped_gradients, dp_sgd, federated_average, federated_processes, fgsm, gaussian_rdp,
                           mask_vector, membership_inference, model_inversion, pair_keys, pgd, rdp_epsilon, secure_sum)
from dlbook.neurons import MLP

fast = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)
PRIME = 2**521 - 1


def rng_of(seed): return torch.Generator().manual_seed(seed)
def vector(model): return parameters_to_vector(model.parameters()).detach()


def net_and_data(seed=0, n=12, d=5, classes=3, dtype=torch.float32):
    torch.manual_seed(seed)
    return MLP([d, 7, classes]).to(dtype), torch.randn(n, d, dtype=dtype), torch.randint(classes, (n,))


# Who was in the training set?

@fast
@given(seeds)
def test_the_plain_attack_is_minus_the_loss(seed):
    logits, y = torch.randn(9, 4, generator=rng_of(seed)), torch.randint(4, (9,), generator=rng_of(seed))
    torch.testing.assert_close(membership_inference(logits, y), logits.log_softmax(1)[torch.arange(9), y])


@fast
@given(seeds)
def test_the_likelihood_ratio_is_that_of_two_normal_densities(seed):
    rng, k, n = rng_of(seed), 8, 5
    logits, shadows = torch.randn(n, 3, generator=rng).double(), torch.randn(k, n, 3, generator=rng).double()
    y, trained = torch.randint(3, (n,), generator=rng), torch.rand(k, n, generator=rng) < 0.5
    trained[:2], trained[2:4] = True, False
    def surety(logits, c): return torch.logit(logits.softmax(0)[c]).item()
    kinds = []
    for kind in (True, False):
        values = [[surety(shadows[j, i], y[i]) for j in range(k) if trained[j, i] == kind] for i in range(n)]
        spread = math.sqrt(sum(np.var(v) * len(v) for v in values) / (sum(map(len, values)) - n))
        kinds.append([norm.logpdf(surety(logits[i], y[i]), np.mean(v), spread) for i, v in enumerate(values)])
    expected = torch.tensor(np.subtract(*kinds))
    torch.testing.assert_close(membership_inference(logits, y, shadows, trained), expected, rtol=1e-6, atol=1e-6)


@fast
@given(seeds)
def test_attack_curves_are_those_of_scikit_learn(seed):
    rng = rng_of(seed)
    scores, member = torch.randint(8, (30,), generator=rng).float(), torch.rand(30, generator=rng) < 0.4
    member[:2] = torch.tensor([True, False])
    fpr, tpr = attack_curve(scores, member)
    theirs = roc_curve(member, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, theirs[0]), np.testing.assert_allclose(tpr, theirs[1])
    assert torch.trapezoid(tpr, fpr).item() == pytest.approx(roc_auc_score(member, scores))


def test_attacks_refuse_what_does_not_fit():
    logits, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.long)
    shadows, trained = torch.randn(6, 4, 3), torch.tensor([True, False] * 3)[:, None].expand(6, 4)
    membership_inference(logits, y, shadows, trained)
    with pytest.raises(ValueError, match=r"given \(4, 3\) and \(3,\)"): membership_inference(logits, y[:3])
    for args in ((shadows, None), (shadows[:, :3], trained), (shadows, trained[:5])):
        with pytest.raises(ValueError, match="expected shadows"): membership_inference(logits, y, *args)
    for wrong in (trained | True, trained & False):
        with pytest.raises(ValueError, match="with it and without it"): membership_inference(logits, y, shadows, wrong)
    for member in (torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="only one kind"): attack_curve(torch.rand(4), member)


def area(net, x, y, member):
    with torch.no_grad(): fpr, tpr = attack_curve(membership_inference(net(x), y), member)
    return torch.trapezoid(tpr, fpr).item()


def test_the_attack_finds_what_was_learned_by_heart_and_private_training_hides_it():
    rng = rng_of(0)
    x, y = torch.randn(120, 20, generator=rng), torch.randint(2, (120,), generator=rng)  # labels without a rule: only to be learned by heart
    member = torch.arange(120) < 60
    found = {}
    for noise, clip in ((0.0, math.inf), (4.0, 1.0)):
        torch.manual_seed(0)
        net = MLP([20, 64, 2])
        epsilon = dp_sgd(net, torch.optim.Adam(net.parameters(), 1e-2), x[:60], y[:60], noise, 0.5, 60, clip, 1e-4)
        found[epsilon] = area(net, x, y, member)
    (plain, open_), (spent, hidden) = sorted(found.items(), reverse=True)
    assert plain == math.inf and 1 < spent < 6
    assert open_ > 0.75 and hidden < 0.7 and hidden < open_ - 0.15


# Gradients, one for each example

def by_loop(net, x, y, clip, loss_func=F.cross_entropy):
    total, lengths = [torch.zeros_like(p) for p in net.parameters()], []
    for one, label in zip(x, y):
        grads = torch.autograd.grad(loss_func(net(one[None]), label[None]), list(net.parameters()))
        lengths.append(torch.cat([g.flatten() for g in grads]).norm())
        for t, g in zip(total, grads): t += g * min(1.0, clip / lengths[-1].item())
    return total, torch.stack(lengths)


@fast
@given(seeds, st.sampled_from([0.05, 0.5, 1.0, 100.0, math.inf]))
def test_clipped_gradients_are_those_of_a_loop(seed, clip):
    net, x, y = net_and_data(seed, dtype=torch.float64)
    sums, lengths = clipped_gradients(net, x, y, clip)
    expected, theirs = by_loop(net, x, y, clip)
    torch.testing.assert_close(lengths, theirs)
    for a, b in zip(sums, expected, strict=True): torch.testing.assert_close(a, b)
    assert torch.cat([s.flatten() for s in sums]).norm() <= clip * len(x) * (1 + 1e-9)


def test_clipped_gradients_of_a_convolution_and_of_another_loss():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    x, y = torch.randn(5, 1, 4, 4).double(), torch.randn(5, 3).double()
    for a, b in zip(clipped_gradients(net, x, y, 0.3, F.mse_loss)[0], by_loop(net, x, y, 0.3, F.mse_loss)[0], strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.filterwarnings("ignore")
def test_clipped_gradients_are_those_of_opacus():
    from opacus import GradSampleModule
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    x, y = torch.randn(12, 5).double(), torch.randint(3, (12,))
    ours, lengths = clipped_gradients(net, x, y, 0.5)
    theirs = GradSampleModule(copy.deepcopy(net), loss_reduction="sum")
    F.cross_entropy(theirs(x), y, reduction="sum").backward()
    each = [p.grad_sample for p in theirs.parameters()]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in each]).norm(dim=0)
    torch.testing.assert_close(lengths, norms)
    for a, g in zip(ours, each, strict=True): torch.testing.assert_close(a, torch.einsum("n,n...->...", (0.5 / norms).clamp(max=1), g))


def test_clipped_gradients_refuse_what_mixes_examples():
    mixed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x, y = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
    with pytest.raises(ValueError, match="batch normalization mixes"): clipped_gradients(mixed, x, y, 1.0)
    clipped_gradients(mixed.eval(), x, y, 1.0)
    for clip in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="expected clip above 0"): clipped_gradients(nn.Linear(3, 2), x, y, clip)
    sums, lengths = clipped_gradients(nn.Linear(3, 2), x[:0], y[:0], 1.0)
    assert [s.abs().sum().item() for s in sums] == [0, 0] and lengths.shape == (0,)


# The accountant

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("noise", [0.4, 0.7, 1.1, 3.0, 20.0])
def test_the_accountant_agrees_with_that_of_opacus(noise):
    from opacus.accountants import RDPAccountant
    for rate, steps, delta in itertools.product((0.001, 0.02, 0.3, 1.0), (1, 50, 3000), (1e-3, 1e-5, 1e-8)):
        theirs = RDPAccountant()
        theirs.history = [(noise, rate, steps)]
        assert rdp_epsilon(noise, rate, steps, delta) == pytest.approx(max(theirs.get_epsilon(delta), 0), rel=1e-6, abs=1e-9), (rate, steps, delta)


@fast
@given(st.floats(1.05, 30), st.floats(0.5, 5), st.floats(0.001, 0.999))
def test_the_divergence_is_the_integral(order, noise, rate):
    low, high, n = -40 * noise, 40 * noise + 2 * order, 20_000
    z = torch.linspace(low, high, n + 1, dtype=torch.float64)
    ratio = torch.logaddexp(torch.full_like(z, math.log1p(-rate)), math.log(rate) + (2 * z - 1) / (2 * noise**2))
    logs = order * ratio - z.square() / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi) * n / (high - low))
    assert gaussian_rdp(order, noise, rate) == pytest.approx(logs.logsumexp(0).item() / (order - 1), rel=1e-4, abs=1e-10)


def test_the_accountant_at_its_ends():
    assert gaussian_rdp(3.0, 2.0, 1.0) == 3 / 8 and gaussian_rdp(3.0, 2.0, 0.0) == 0 and gaussian_rdp(3.0, 0.0, 0.5) == math.inf
    assert rdp_epsilon(0.0, 0.1, 5, 1e-5) == math.inf and rdp_epsilon(1.0, 0.1, 0, 1e-5) == 0 == rdp_epsilon(1.0, 0.0, 5, 1e-5)
    assert rdp_epsilon(1000.0, 0.01, 1, 0.5) == 0  # never below
    values = [rdp_epsilon(s, 0.2, 100, 1e-5) for s in (0.6, 1.0, 2.0, 8.0)]
    assert values == sorted(values, reverse=True)
    for wrong in ((-1, 0.1, 1, 1e-5), (1, 1.1, 1, 1e-5), (1, -0.1, 1, 1e-5), (1, 0.1, -1, 1e-5), (1, 0.1, 1, 0), (1, 0.1, 1, 1), (1, 0.1, 1, float("nan"))):
        with pytest.raises(ValueError, match="expected noise_multiplier >= 0"): rdp_epsilon(*wrong)


# Private training

def test_without_noise_and_clipping_it_is_descent():
    net, x, y = net_and_data()
    ours, theirs = copy.deepcopy(net), copy.deepcopy(net)
    assert dp_sgd(ours, torch.optim.SGD(ours.parameters(), 0.1, momentum=0.9), x, y, 0.0, 1.0, 4, clip=math.inf) == math.inf
    opt = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    for _ in range(4): opt.zero_grad(), F.cross_entropy(theirs(x), y).backward(), opt.step()
    torch.testing.assert_close(vector(ours), vector(theirs))


def step_of(net, x, y, *args, **more):
    "The mean gradient that one private step follows."
    moved = copy.deepcopy(net)
    epsilon = dp_sgd(moved, torch.optim.SGD(moved.parameters(), 1.0), x, y, *args, **more)
    return vector(net) - vector(moved), epsilon


def test_the_noise_has_the_size_that_the_accountant_assumes():
    torch.manual_seed(0)
    net, x, y = MLP([50, 100, 3]), torch.randn(8, 50), torch.randint(3, (8,))
    for noise, clip, rate in ((30.0, 0.1, 1.0), (5.0, 1.0, 0.5)):
        step, epsilon = step_of(net, x, y, noise, rate, 1, clip=clip, delta=1e-3)
        assert step.std().item() == pytest.approx(noise * clip / (rate * 8), rel=0.1)
        assert epsilon == rdp_epsilon(noise, rate, 1, 1e-3)
    again, _ = step_of(net, x, y, 5.0, 0.5, 1, clip=1.0, delta=1e-3)
    assert torch.equal(step, again) and not torch.equal(step, step_of(net, x, y, 5.0, 0.5, 1, clip=1.0, seed=1)[0])
    with pytest.raises(ValueError, match="expected a finite clip"): dp_sgd(net, None, x, y, 1.0, 0.5, 1, clip=math.inf)


def test_noise_is_new_in_each_step_and_each_parameter():
    net = nn.Linear(40, 40)
    x, y = torch.zeros(4, 40), torch.zeros(4, dtype=torch.long)
    one, _ = step_of(net, x, y, 100.0, 1.0, 1, clip=1.0)
    two, _ = step_of(net, x, y, 100.0, 1.0, 2, clip=1.0)
    assert two.std() / one.std() == pytest.approx(2**0.5, rel=0.1)
    assert abs(torch.corrcoef(torch.stack([one[:40], one[-40:]]))[0, 1]) < 0.5


def test_each_example_tosses_its_own_coin(monkeypatch):
    net, seen = nn.Linear(3, 2), []
    def spy(model, x, y, *args):
        seen.append(x[:, 0].long())
        return [torch.zeros_like(p) for p in model.parameters()], None
    monkeypatch.setattr(ethics, "clipped_gradients", spy)
    x = torch.arange(100.0)[:, None].expand(100, 3)
    dp_sgd(net, torch.optim.SGD(net.parameters(), 0.1), x, torch.zeros(100, dtype=torch.long), 0.0, 0.3, 400, clip=1.0)
    sizes = torch.tensor([float(len(rows)) for rows in seen])
    assert sizes.mean() == pytest.approx(30, abs=1) and sizes.std() == pytest.approx(math.sqrt(100 * 0.3 * 0.7), rel=0.15)  # not a fixed size
    assert torch.bincount(torch.cat(seen), minlength=100).min() > 80 and all(len(rows.unique()) == len(rows) for rows in seen)


# Inversion

def test_inversion_takes_the_steps_of_its_paper():
    torch.manual_seed(0)
    net = MLP([6, 5, 3])
    x = torch.zeros(1, 6)
    for _ in range(3):
        z = x.clone().requires_grad_()
        (1 - net(z).softmax(1)[0, 1]).backward()
        x = ((z - 0.7 * z.grad).detach().clamp(0, 1) * 0.9)
    ours, sure = model_inversion(net, 1, (6,), steps=3, lr=0.7, enough=2, process=lambda x: 0.9 * x)
    with torch.no_grad(): probabilities = [net(t).softmax(1)[0, 1].item() for t in (x, torch.zeros(1, 6))]
    assert sure >= max(probabilities) - 1e-6 and net(ours[None]).softmax(1)[0, 1].item() == pytest.approx(sure)
    if sure == pytest.approx(probabilities[0]): torch.testing.assert_close(ours, x[0])


def test_inversion_finds_what_a_linear_model_looks_for_and_stops_when_sure():
    net = nn.Linear(4, 2)
    with torch.no_grad(): net.weight.copy_(torch.tensor([[5.0, -5, 5, -5], [-5, 5, -5, 5]])), net.bias.zero_()
    for target, expected in ((0, [1, 0, 1, 0]), (1, [0, 1, 0, 1])):
        image, sure = model_inversion(net, target, (4,), steps=500, enough=2.0)
        assert sure > 0.999 and image.tolist() == pytest.approx(expected, abs=0.2)
    _, early = model_inversion(net, 0, (4,), lr=0.05, enough=0.8)
    assert 0.8 <= early < 0.99
    for target in (-1, 2):
        with pytest.raises(ValueError, match="expected a class from 0 to 1"): model_inversion(net, target, (4,))


# Federated averaging

def descend(net, x, y, steps, lr):
    opt = torch.optim.SGD(net.parameters(), lr)
    for _ in range(steps): opt.zero_grad(), F.cross_entropy(net(x), y).backward(), opt.step()
    return vector(net)


@fast
@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_one_client_is_centralized_descent_exactly(seed, rounds, steps):
    net, x, y = net_and_data(seed)
    ours = federated_average(copy.deepcopy(net), [(x, y)], rounds, steps, 0.1)
    assert torch.equal(vector(ours), descend(copy.deepcopy(net), x, y, rounds * steps, 0.1))


@fast
@given(seeds, st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 4))
def test_one_full_step_of_unequal_clients_is_a_step_on_all_data(seed, sizes, rounds):
    net, x, y = net_and_data(seed, n=sum(sizes), dtype=torch.float64)
    clients = list(zip(x.split(sizes), y.split(sizes)))
    ours = federated_average(copy.deepcopy(net), clients, rounds, 1, 0.1)
    torch.testing.assert_close(vector(ours), descend(copy.deepcopy(net), x, y, rounds, 0.1))


def test_the_average_is_weighted_and_watched():
    net, x, y = net_and_data()
    clients, seen = [(x[:2], y[:2]), (x[2:], y[2:])], []
    before = vector(net).clone()
    federated_average(net, clients, 2, 3, 0.2, bs=4, seed=7, watch=lambda *args: seen.append(args))
    assert [turn for turn, *_ in seen] == [0, 1] and torch.equal(seen[0][1], before)
    torch.testing.assert_close(seen[1][1], 2 / 12 * seen[0][2][0] + 10 / 12 * seen[0][2][1])
    torch.testing.assert_close(vector(net), 2 / 12 * seen[1][2][0] + 10 / 12 * seen[1][2][1])
    one = client_update(copy.deepcopy(net), before, *clients[1], 3, 0.2, 4, seed=ethics._round_seed(7, 0, 1))
    assert torch.equal(one, seen[0][2][1])
    assert len({ethics._round_seed(s, t, k) for s in range(5) for t in range(20) for k in range(5)}) == 500


def test_a_client_leaves_what_it_was_sent_as_it_is():
    net, x, y = net_and_data()
    sent = vector(net).clone()
    kept = sent.clone()
    first, second = (client_update(copy.deepcopy(net), sent, x, y, 5, 0.5, 4, seed=s) for s in (1, 2))
    assert torch.equal(sent, kept) and not torch.equal(first, second)
    with pytest.raises(ValueError, match="at least one example"): client_update(net, sent, x[:0], y[:0], 1, 0.1)
    with pytest.raises(ValueError, match="at least one client"): federated_average(net, [], 1)


# Secure sums

def keys_of(secrets): return [pair_keys(k, a, [pow(3, b, PRIME) for b in secrets]) for k, a in enumerate(secrets)]


def test_two_clients_share_a_key_that_no_other_has():
    keys = keys_of([123456789, 987654321, 555])
    pairs = {frozenset((i, j)): keys[i][j] for i in range(3) for j in keys[i]}
    assert all(i not in keys[i] and set(keys[i]) == {0, 1, 2} - {i} for i in range(3))
    assert all(keys[i][j] == keys[j][i] for i in range(3) for j in keys[i]) and len(set(pairs.values())) == 3


@fast
@given(seeds, st.integers(2, 5), st.integers(1, 20), st.sampled_from([1e-3, 1.0, 1e5]))
def test_masks_cancel_exactly(seed, count, d, scale):
    rng = rng_of(seed)
    values = [torch.round(scale * torch.randn(d, generator=rng).double() * 2**20) / 2**20 for _ in range(count)]  # fit the units
    keys = keys_of(torch.randint(2, 10**9, (count,), generator=rng).tolist())
    for turn in (0, 3):
        total = secure_sum([mask_vector(v, k, keys[k], turn) for k, v in enumerate(values)])
        assert torch.equal(total, torch.stack(values).sum(0))


def test_a_message_looks_like_chance_and_changes_in_each_round():
    keys, value = keys_of([11, 22, 33]), torch.full((4000,), 1.25)
    messages = [mask_vector(value, 1, keys[1], turn) for turn in (0, 1)]
    for message in messages:
        assert message.dtype == np.uint64 and len(np.unique(message)) == 4000
        assert np.unpackbits(message.view(np.uint8)).mean() == pytest.approx(0.5, abs=0.005)
        counts = np.bincount((message >> np.uint64(60)).astype(int), minlength=16)  # uniform over the whole range
        assert counts.min() > 180 and counts.max() < 320
    assert not (messages[0] == messages[1]).any()
    plain = mask_vector(value[:1], 0, {})
    assert plain.tolist() == [1.25 * 2**32]
    assert not torch.allclose(secure_sum([mask_vector(value, k, keys[k]) for k in (0, 1)]), 2 * value.double())  # one is missing


def test_sums_refuse_what_does_not_fit():
    for bad in (float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match=r"below 2\*\*24"): mask_vector(torch.tensor([bad]), 0, {})
    with pytest.raises(ValueError, match="one length"): secure_sum([np.zeros(2, np.uint64), np.zeros(3, np.uint64)])
    with pytest.raises(ValueError, match="one length"): secure_sum([])
    assert secure_sum([mask_vector(torch.tensor([-2.5]), 0, {}), mask_vector(torch.tensor([1.0]), 0, {})]).tolist() == [-1.5]


# Over several processes

def test_processes_give_the_same_model_and_end():
    net, x, y = net_and_data()
    clients, seen = [(x[:3], y[:3]), (x[3:], y[3:])], []
    apart = federated_processes(copy.deepcopy(net), clients, 3, 4, 0.1, bs=2, seed=5, watch=lambda turn, messages: seen.append(messages))
    together = federated_average(copy.deepcopy(net), clients, 3, 4, 0.1, bs=2, seed=5)
    torch.testing.assert_close(vector(apart), vector(together), rtol=0, atol=1e-6)
    assert len(seen) == 3 and all(m.shape == (len(vector(net)) + 1,) for messages in seen for m in messages)
    assert np.unpackbits(np.stack([m for messages in seen for m in messages]).view(np.uint8)).mean() == pytest.approx(0.5, abs=0.02)
    assert secure_sum(seen[-1])[-1] == 12 and not multiprocessing.active_children()


def test_a_client_that_fails_is_reported_and_none_is_left():
    net, x, y = net_and_data()
    with pytest.raises(RuntimeError, match="a client ended before its time"):
        federated_processes(net, [(x[:3], y[:3]), (x[3:], y[3:] + 100)], 2)  # there are no such classes
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="at least two clients"): federated_processes(net, [(x, y)], 1)


def test_the_module_is_light_for_the_processes_that_import_it():
    code = "import sys, dlbook.ethics; print([m for m in ('fastai', 'sklearn', 'opacus', 'captum', 'IPython') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


# Adversarial examples

@fast
@given(seeds, st.floats(0, 0.5))
def test_fgsm_is_its_formula(seed, epsilon):
    net, x, y = net_and_data(seed)
    x = x.sigmoid()
    z = x.clone().requires_grad_()
    F.cross_entropy(net(z), y, reduction="sum").backward()
    torch.testing.assert_close(fgsm(net, x, y, epsilon), (x + epsilon * z.grad.sign()).clamp(0, 1))
    net.zero_grad()
    changed = fgsm(net, 4 * x - 2, y, 0.1, F.cross_entropy, -2, 2)
    assert not changed.requires_grad and changed.min() >= -2 and changed.max() <= 2 and changed.min() < 0
    assert all(p.grad is None for p in net.parameters()) and not x.requires_grad


@fast
@given(seeds, st.floats(0.01, 0.4), st.floats(0.01, 0.3), st.integers(0, 6), st.booleans())
def test_pgd_is_a_loop_of_steps_and_stays_in_the_box(seed, epsilon, size, steps, random_start):
    net, x, y = net_and_data(seed, dtype=torch.float64)
    x = x.sigmoid()
    expected = x.clone()
    if random_start: expected = (x + epsilon * (2 * torch.rand(x.shape, generator=rng_of(3)) - 1)).clamp(0, 1)
    for _ in range(steps):
        z = expected.clone().requires_grad_()
        slope, = torch.autograd.grad(F.cross_entropy(net(z), y), z)
        expected = (x + (expected + size * slope.sign() - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    ours = pgd(net, x, y, epsilon, size, steps, rng_of(3) if random_start else None)
    torch.testing.assert_close(ours, expected)
    assert (ours - x).abs().max() <= epsilon + 1e-9 and ours.min() >= 0 and ours.max() <= 1


@pytest.mark.filterwarnings("ignore")
def test_attacks_are_those_of_captum():
    robust = pytest.importorskip("captum.robust")
    net, x, y = net_and_data()
    x = x.sigmoid().requires_grad_()
    theirs = robust.FGSM(net, lambda out, target: F.cross_entropy(out, target, reduction="none"), 0, 1).perturb(x, 0.1, y)
    torch.testing.assert_close(fgsm(net, x, y, 0.1), theirs.detach())
    theirs = robust.PGD(net, lambda out, target: F.cross_entropy(out, target, reduction="none"), 0, 1).perturb(x, 0.2, 0.07, 6, y)
    torch.testing.assert_close(pgd(net, x, y, 0.2, 0.07, 6), theirs.detach())


def test_pgd_does_more_harm_than_fgsm_and_fgsm_more_than_chance():
    net, x, y = net_and_data(n=200)
    x = x.sigmoid()
    y = net(x).argmax(1)
    def loss(z): return F.cross_entropy(net(z), y).item()
    random = (x + 0.1 * torch.randn(x.shape, generator=rng_of(0)).sign()).clamp(0, 1)
    assert loss(random) < loss(fgsm(net, x, y, 0.1)) <= loss(pgd(net, x, y, 0.1, 0.03, 20)) + 1e-4
    for attack in (lambda e: fgsm(net, x, y, e), lambda e: pgd(net, x, y, e, 0.1)):
        for epsilon in (-0.1, float("nan")):
            with pytest.raises(ValueError, match="expected epsilon from 0 on"): attack(epsilon)
    torch.testing.assert_close(fgsm(net, x, y, 0.0), x), torch.testing.assert_close(pgd(net, x, y, 0.0, 0.1), x)


# Exercises

def wrong_probability(answers, p): return answers.double().mean() / p, math.log((1 + p) / (1 - p))
def right_response(answers, p): return answers.double().mean() / p - (1 - p) / (2 * p), math.log((1 + p) / (1 - p))


def search(epsilon, sample_rate, steps, delta):
    low, high = 0.1, 100.0
    for _ in range(19):
        middle = (low + high) / 2
        low, high = (low, middle) if rdp_epsilon(middle, sample_rate, steps, delta) <= epsilon else (middle, high)
    return high


def sign_step(x, start, slope, epsilon, step_size):
    change = x + step_size * slope.sign() - start
    return (start + change * (epsilon / change.norm(dim=1, keepdim=True)).clamp(max=1)).clamp(0, 1)


def right_step(x, start, slope, epsilon, step_size):
    change = x + step_size * F.normalize(slope) - start
    return (start + torch.renorm(change, 2, 0, epsilon)).clamp(0, 1)


@pytest.mark.parametrize("id, answer, state, words", [
    ("18.4", right_response, "right", ""), ("18.4", wrong_probability, "wrong", "the estimate should be"),
    ("18.4", lambda a, p: right_response(a, p)[0], "wrong", "2 values|two values|outputs|should"),
    ("18.6", search, "right", ""), ("18.6", lambda e, q, t, d: search(e, q, 1, d), "wrong", "only one step"),
    ("18.6", lambda e, q, t, d: search(e, 1.0, t, d), "wrong", "each example is in each batch"),
    ("18.7", right_step, "right", ""), ("18.7", sign_step, "wrong", "step by the sign"),
    ("18.7", lambda x, s, g, e, h: right_step(x, s, g, 1e9, h), "wrong", "the next images"),
])
def test_exercises(id, answer, state, words):
    from dlbook.kit.exercises import judge
    verdict = judge(id, answer)
    assert verdict.state == state and re.search(words, verdict.line), verdict.line
    assert judge(id, ...).state == "open"
