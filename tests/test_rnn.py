"Chapter 9: recurrent layers are torch's, the fast LSTM is the plain one, sampling and the n-gram model do what they say."
import inspect
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from dlbook import rnn
from dlbook.kit.exercises import find, judge
from dlbook.rnn import (GRU, LSTM, RNN, LanguageModel, NGram, bptt, generate, gru_step, lstm_step, quantile_loss, rnn_step, sample, scan)

settings.register_profile("book", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("book")

seeds = st.integers(0, 2**31)
KINDS = {"RNN": (RNN, nn.RNN), "GRU": (GRU, nn.GRU), "LSTM": (LSTM, nn.LSTM)}
kinds = st.sampled_from(sorted(KINDS))


def generator(seed): return torch.Generator().manual_seed(seed)


def results(model, input, hx):
    "Outputs, states, and all gradients, with every kind of output used."
    leaf = input.data.clone().requires_grad_() if isinstance(input, PackedSequence) else input.clone().requires_grad_()
    start = None if hx is None else tuple(s.clone().requires_grad_() for s in hx)
    model.zero_grad()
    out, state = model(input._replace(data=leaf) if isinstance(input, PackedSequence) else leaf, start if start is None or len(start) > 1 else start[0])
    data = out.data if isinstance(out, PackedSequence) else out
    states = state if isinstance(state, tuple) else (state,)
    (data.square().sum() + sum((k + 1) * s.sin().sum() for k, s in enumerate(states))).backward()
    return [data, *states, leaf.grad, *(() if start is None else [s.grad for s in start]), *(p.grad for p in model.parameters())], out


# Layers against torch

@given(seeds, kinds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(),
       st.sampled_from(["batch", "single", "packed", "unsorted"]), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_layers_are_torchs(seed, kind, n, m, layers, bias, batch_first, both_ways, form, T, B, with_state):
    rng = generator(seed)
    ours, theirs = (make(n, m, num_layers=layers, bias=bias, batch_first=batch_first, bidirectional=both_ways, dtype=torch.float64) for make in KINDS[kind])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for p in theirs.parameters(): p.data = torch.randn(p.shape, generator=rng, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    if form == "single": input = torch.randn(T, n, generator=rng, dtype=torch.float64)
    elif form == "batch": input = torch.randn(*((B, T) if batch_first else (T, B)), n, generator=rng, dtype=torch.float64)
    else:
        lengths = torch.randint(1, T + 1, (B,), generator=rng)
        if form == "packed": lengths = lengths.sort(descending=True).values
        input = pack_sequence([torch.randn(k, n, generator=rng, dtype=torch.float64) for k in lengths.tolist()], enforce_sorted=form == "packed")
    shape = (layers * (1 + both_ways), *(() if form == "single" else (B,)), m)
    hx = tuple(torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(1 + (kind == "LSTM"))) if with_state else None
    (found, out), (expected, wanted) = results(ours, input, hx), results(theirs, input, hx)
    for a, b in zip(found, expected, strict=True): torch.testing.assert_close(a, b)
    if isinstance(wanted, PackedSequence):
        assert isinstance(out, PackedSequence)
        for a, b in zip(pad_packed_sequence(out), pad_packed_sequence(wanted)): torch.testing.assert_close(a, b)


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from(["tanh", "relu"]))
def test_rnn_nonlinearity(seed, T, B, act):
    ours, theirs = RNN(3, 4, 2, act), nn.RNN(3, 4, 2, act)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, 3, generator=generator(seed))
    for a, b in zip(results(ours, x, None)[0], results(theirs, x, None)[0], strict=True): torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_arguments_start_and_exchange(kind):
    ours, theirs = KINDS[kind]
    expected = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "device", "dtype"]
    if kind == "RNN": expected.insert(3, "nonlinearity")
    assert list(inspect.signature(ours).parameters) == expected
    torch.manual_seed(0)
    a = ours(3, 5, 2, bidirectional=True)
    torch.manual_seed(0)
    b = theirs(3, 5, 2, bidirectional=True)
    for (name, p), (other, q) in zip(a.named_parameters(), b.named_parameters(), strict=True): assert name == other and torch.equal(p, q)
    c = theirs(3, 5, 2, bidirectional=True)
    c.load_state_dict(a.state_dict())
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(a(x)[0], c(x)[0])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_dropout_between_layers_in_training_only(kind):
    layer = KINDS[kind][0](3, 50, num_layers=2, dropout=0.5)
    x = torch.randn(6, 4, 3)
    torch.manual_seed(0)
    first = layer(x)[0]
    torch.manual_seed(1)
    assert not torch.equal(first, layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    one = KINDS[kind][0](3, 5, dropout=0.9)
    assert torch.equal(one(x)[0], one(x)[0])  # nothing between layers, nothing to drop
    all_gone = KINDS[kind][0](3, 5, num_layers=2, dropout=1.0, bias=False)
    assert (all_gone(x)[0] == 0).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_packed_equals_each_sequence_alone(kind):
    layer = KINDS[kind][0](2, 3, num_layers=2)
    xs = [torch.randn(k, 2) for k in (4, 1, 6, 2)]
    out, state = layer(pack_sequence(xs, enforce_sorted=False))
    padded, lengths = pad_packed_sequence(out)
    state = state if isinstance(state, tuple) else (state,)
    for b, x in enumerate(xs):
        alone, last = layer(x)
        torch.testing.assert_close(padded[:lengths[b], b], alone)
        for s, t in zip(state, last if isinstance(last, tuple) else (last,)): torch.testing.assert_close(s[:, b], t)
    assert lengths.tolist() == [4, 1, 6, 2] and (padded[1:, 1] == 0).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_state_can_be_carried_and_nothing_leaks(kind):
    layer = KINDS[kind][0](2, 3)
    x = torch.randn(7, 4, 2)
    whole, last = layer(x)
    first, state = layer(x[:3])
    second, end = layer(x[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    changed = x.clone()
    changed[5:] = 9
    torch.testing.assert_close(layer(changed)[0][:5], whole[:5])  # the future does not reach the past


def test_inputs_and_states_stay_as_they_were_and_backward_can_run_twice():
    layer, x, h, c = LSTM(2, 3), torch.randn(5, 2, 2), torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    before = [t.clone() for t in (x, h, c)]
    out, _ = layer(x, (h, c))
    loss = out.sum()
    loss.backward(retain_graph=True)
    once = layer.weight_hh_l0.grad.clone()
    loss.backward()
    torch.testing.assert_close(layer.weight_hh_l0.grad, 2 * once)
    for a, b in zip((x, h, c), before): assert torch.equal(a, b)


def test_last_states_share_no_memory_with_the_outputs():
    with torch.no_grad():
        out, (h, c) = LSTM(2, 3)(torch.randn(4, 2, 2))
        kept = h.clone()
        out.zero_()
    assert torch.equal(h, kept)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_states_of_unsorted_sequences_keep_their_order(kind):
    layer, theirs = (make(2, 3) for make in KINDS[kind])
    layer.load_state_dict(theirs.state_dict())
    packed = pack_sequence([torch.randn(k, 2) for k in (1, 4, 2)], enforce_sorted=False)
    hx = torch.randn(1, 3, 3)
    hx = (hx, hx.flip(1)) if kind == "LSTM" else hx
    a, b = layer(packed, hx), theirs(packed, hx)
    for x, y in ((a[0].data, b[0].data), (a[1][0], b[1][0]), (a[1][-1], b[1][-1])): torch.testing.assert_close(x, y)


def test_only_part_of_the_outputs_may_be_used():
    for pick in (lambda out, h, c: out[2].sum(), lambda out, h, c: h.sum(), lambda out, h, c: c.sum(), lambda out, h, c: out[-1].sum() * c.sum()):
        grads = []
        for layer in (LSTM(2, 3), nn.LSTM(2, 3)):
            if not grads: state = layer.state_dict()
            layer.load_state_dict(state)
            out, (h, c) = layer(torch.ones(4, 2, 2))
            pick(out, h, c).backward()
            grads.append([p.grad for p in layer.parameters()])
        for a, b in zip(*grads): torch.testing.assert_close(a, b)


def test_no_second_derivative():
    layer, x = LSTM(2, 3), torch.randn(4, 2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"): torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)


def test_half_and_double_and_no_grad():
    for dtype in (torch.float64, torch.bfloat16):
        layer = LSTM(2, 3, dtype=dtype)
        assert layer(torch.randn(4, 2, 2, dtype=dtype))[0].dtype == dtype
    with torch.no_grad(): assert not LSTM(2, 3)(torch.randn(4, 2, 2))[0].requires_grad


@pytest.mark.parametrize("call, error, message", [
    (lambda: LSTM(0, 3), ValueError, "expected input_size, a whole number from 1, given 0"),
    (lambda: GRU(2, 1.5), ValueError, "expected hidden_size, a whole number from 1, given 1.5"),
    (lambda: RNN(2, 3, 0), ValueError, "expected num_layers, a whole number from 1, given 0"),
    (lambda: RNN(2, 3, dropout=1.5), ValueError, "expected a probability dropout from 0 to 1, given 1.5"),
    (lambda: RNN(2, 3, nonlinearity="sigmoid"), ValueError, "expected nonlinearity 'tanh' or 'relu', given 'sigmoid'"),
    (lambda: LSTM(2, 3, proj_size=2), TypeError, "proj_size"),
    (lambda: LSTM(2, 3)(torch.zeros(4, 2, 5)), ValueError, r"expected elements of size 2, given shape \(4, 2, 5\)"),
    (lambda: LSTM(2, 3)(torch.zeros(2)), ValueError, r"expected 2 or 3 dimensions, given shape \(2,\)"),
    (lambda: LSTM(2, 3)(torch.zeros(0, 1, 2)), ValueError, "expected at least one step"),
    (lambda: LSTM(2, 3)(torch.zeros(4, 2, 2).double()), TypeError, "expected torch.float32, given torch.float64"),
    (lambda: LSTM(2, 3)([1.0]), TypeError, "expected a tensor or a PackedSequence, given list"),
    (lambda: LSTM(2, 3)(torch.zeros(4, 2, 2), torch.zeros(1, 2, 3)), ValueError, "expected a state of 2 tensors"),
    (lambda: GRU(2, 3)(torch.zeros(4, 2, 2), torch.zeros(1, 5, 3)), ValueError, r"expected a state of shape \(1, 2, 3\), given \(1, 5, 3\)"),
    (lambda: bptt(torch.zeros(3, 1, 1), torch.zeros(3, 1, 1), torch.zeros(1, 1), torch.zeros(3, 1, 1)), ValueError, "expected 4 states and 3 gradients"),
    (lambda: NGram(0, 3), ValueError, "expected order and vocab_size from 1, given 0 and 3"),
    (lambda: sample(torch.zeros(3), temperature=-1), ValueError, "expected a temperature from 0, given -1"),
    (lambda: sample(torch.zeros(3), temperature=math.nan), ValueError, "given nan"),
    (lambda: sample(torch.zeros(3), top_k=0), ValueError, "expected top_k from 1, given 0"),
    (lambda: sample(torch.zeros(3), top_p=0.0), ValueError, "expected top_p above 0, at most 1, given 0.0"),
    (lambda: next(generate(LanguageModel(3, 2, 2), torch.zeros(0).long(), 1)), ValueError, "at least one token"),
    (lambda: quantile_loss(torch.zeros(2, 3), torch.zeros(2), torch.tensor([0.5])), ValueError, r"expected predictions of shape \(2, 1\), given \(2, 3\)")])
def test_bad_input_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message): call()


# Steps, scan, backpropagation through time

@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_bptt_is_autograd(seed, T, B, n, m):
    rng = generator(seed)
    x, W_ih, W_hh, b, g = (torch.randn(*s, generator=rng, dtype=torch.float64) for s in ((T, B, n), (m, n), (m, m), (m,), (T, B, m)))
    weights = [w.requires_grad_() for w in (W_ih, W_hh, b)]
    h = [torch.zeros(B, m).double()]
    for x_t in x: h.append(torch.tanh(x_t @ W_ih.T + h[-1] @ W_hh.T + b))
    h = torch.stack(h)
    expected = torch.autograd.grad((h[1:] * g).sum(), weights)
    for a, e in zip(bptt(x, h.detach(), W_hh.detach(), g), expected): torch.testing.assert_close(a, e)


@given(seeds, st.integers(1, 3), st.integers(1, 5))
def test_steps_are_torchs_cells(seed, B, m):
    rng = generator(seed)
    for step, cell in ((rnn_step, nn.RNNCell(2, m)), (gru_step, nn.GRUCell(2, m)), (lstm_step, nn.LSTMCell(2, m))):
        x, h, c = (torch.randn(B, k, generator=rng) for k in (2, m, m))
        state = (h, c) if step is lstm_step else (h,)
        ours = step(nn.functional.linear(x, cell.weight_ih, cell.bias_ih), state, cell.weight_hh, cell.bias_hh)
        theirs = cell(x, state if step is lstm_step else h)
        for a, b in zip(ours, theirs if step is lstm_step else (theirs,), strict=True): torch.testing.assert_close(a, b)
        step(nn.functional.linear(x, cell.weight_ih), state, cell.weight_hh)  # the bias may be left out


def test_scan_freezes_what_has_ended():
    x = torch.tensor([1.0, 10, 100, 2, 20, 3])[:, None]
    add = lambda x_t, s: (s[0] + x_t,)
    out, (last,) = scan(add, x, [3, 2, 1], (torch.zeros(3, 1),))
    assert out[:, 0].tolist() == [1, 10, 100, 3, 30, 6] and last[:, 0].tolist() == [6, 30, 100]
    out, (last,) = scan(add, x, [3, 2, 1], (torch.tensor([[1000.0]] * 3),), reverse=True)
    assert out[:, 0].tolist() == [1006, 1030, 1100, 1005, 1020, 1003] and last[:, 0].tolist() == [1006, 1030, 1100]


# Language models

@given(seeds, st.integers(1, 4), st.integers(2, 4), st.lists(st.integers(0, 1), max_size=40))
def test_ngram_is_a_distribution(seed, order, V, text):
    model = NGram(order, V)
    model.bits(text, learn=True, predict=False)
    before = tuple(torch.randint(V, (3,), generator=generator(seed)).tolist())
    for context in (before, before[:1], ()): assert sum(model.probability(context, c) for c in range(V)) == pytest.approx(1)


def test_ngram_by_hand():
    model = NGram(2, 4)
    model.bits([0, 1, 0, 2, 0, 1], learn=True, predict=False)
    p0 = {c: (n + 3 / 4) / (6 + 3) for c, n in ((0, 3), (1, 2), (2, 1), (3, 0))}  # three different characters in six
    assert model.probability((), 1) == pytest.approx(p0[1])
    assert model.probability((0,), 1) == pytest.approx((2 + 2 * p0[1]) / (3 + 2))  # after 0: twice 1, once 2
    assert model.probability((3,), 1) == pytest.approx(p0[1])  # 3 was never seen
    assert model.probability((2, 0), 1) == model.probability((0,), 1)  # only the last one counts
    assert NGram(3, 4).bits([0, 1, 2]) == pytest.approx(2)  # nothing known: two bits
    assert model.bits([1], learn=False) == pytest.approx(-math.log2(p0[1]))
    adaptive = NGram(1, 2)
    assert adaptive.bits([0, 0], learn=True) == pytest.approx((1 + -math.log2((1 + 1 / 2) / 2)) / 2)


def test_language_model_carries_its_state():
    model = LanguageModel(7, 3, 5, dropout=0.3).eval()
    ids = torch.randint(7, (2, 9))
    whole, _ = model(ids)
    first, state = model(ids[:, :4])
    torch.testing.assert_close(torch.cat([first, model(ids[:, 4:], state)[0]], 1), whole)
    assert whole.shape == (2, 9, 7)
    other = LanguageModel(7, 3, 5, cell=nn.LSTM).eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(ids)[0], whole)
    model.train()
    assert not torch.equal(model(ids)[0], model(ids)[0])


def shares(n=20_000, **how):
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    drawn = sample(p.log().expand(n, 4), generator=generator(0), **how)
    return [round((drawn == i).double().mean().item(), 3) for i in range(4)]


def test_sampling_follows_the_probabilities():
    assert shares() == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.015)
    squares = torch.tensor([0.1, 0.4, 0.2, 0.3]) ** 2
    assert shares(temperature=0.5) == pytest.approx((squares / squares.sum()).tolist(), abs=0.015)
    assert shares(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.015)
    assert shares(top_k=1) == [0, 1, 0, 0] == shares(temperature=0) == shares(top_p=1e-6)
    assert shares(top_p=0.69) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.015)  # 0.4 does not reach 0.69, 0.7 does
    assert shares(top_p=0.72) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], abs=0.015)
    assert shares(top_k=99, top_p=1.0) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.015)
    flat = shares(temperature=1e6)
    assert flat == pytest.approx([0.25] * 4, abs=0.015)


def test_sampling_shapes_and_extremes():
    logits = torch.tensor([[0.0, -math.inf, 0.0]]).expand(500, 3)
    assert set(sample(logits, generator=generator(0)).tolist()) == {0, 2}
    assert sample(torch.randn(5)).shape == () and sample(torch.randn(2, 3, 5)).shape == (2, 3)
    assert sample(torch.tensor([1000.0, 0.0]), temperature=0.01).item() == 0
    a, b = (sample(torch.randn(50, 9, generator=generator(1)), generator=generator(2)) for _ in range(2))
    assert torch.equal(a, b)
    assert sample(torch.zeros(2000, 4), top_k=2, generator=generator(0)).max() <= 1  # ties: the first ones


def test_generate_streams_and_keeps_the_state():
    torch.manual_seed(0)
    model = LanguageModel(6, 4, 16).train()
    with torch.no_grad():
        for p in model.parameters(): p *= 4  # so that what was read matters
    start = torch.tensor([1, 2, 3])
    stream = generate(model, start, 12, temperature=0)
    got = [next(stream)] + list(stream)
    assert len(got) == 12 and model.training
    assert len(set(got)) > 2
    ids, model = start.clone(), model.eval()
    for token in got:  # the same by reading everything anew for each token
        assert int(model(ids[None])[0][0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([token])])
    one, two = (list(generate(model, start, 20, generator=generator(3))) for _ in range(2))
    assert one == two and one != list(generate(model, start, 20, generator=generator(4)))
    assert list(generate(model, start, 0)) == [] and not model.training


# Quantiles

@given(seeds, st.integers(1, 6), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4))
def test_quantile_loss_by_hand(seed, n, levels):
    rng = generator(seed)
    y, p, q = torch.randn(n, generator=rng).double(), torch.randn(n, len(levels), generator=rng).double(), torch.tensor(levels).double()
    total = sum(level * (t - g) if t > g else (1 - level) * (g - t) for t, row in zip(y.tolist(), p.tolist()) for level, g in zip(levels, row))
    assert quantile_loss(p, y, q).item() == pytest.approx(total / n / len(levels))


# Exercises: answers that are wrong in other ways than those registered

def wrong_last_loop(out, lengths): return torch.stack([out[min(k, len(out) - 1), b] for b, k in enumerate(lengths.tolist())])
def no_first_state(a, x): return linear(a, x)[0], linear(a, x[1:])[1]


def linear(a, x):
    h, s = x[0] * 0, x[0] * 0
    for x_t in x: h, s = a * h + x_t, h + a * s
    return h, s


@pytest.mark.parametrize("id, answer, line", [
    ("09.1", 99_328, "right"), ("09.1", 4 * (64 + 128), "too small"), ("09.1", 2 * 99_328, "too large"),
    ("09.2", lambda out, lengths: torch.stack([out[k - 1, b] for b, k in enumerate(lengths.tolist())]), "right"),
    ("09.2", wrong_last_loop, "should be"), ("09.2", lambda out, lengths: out[lengths - 1], "should have shape"),
    ("09.5", linear, "right"), ("09.5", lambda a, x: (linear(a, x)[0], 0 * x[0]), "the derivative should be"),
    ("09.5", lambda a, x: (x.sum(), linear(a, x)[1]), "the last state should be"),
    ("09.4", lambda x, h, c, W, p: (h, c), "the new h should be"), ("09.4", lambda x, h, c, W, p: rnn.lstm_step(x, (h, c), W), "no effect"),
    ("09.4", lambda x, h, c, W, p: find("09.4").reference(x, h, c, W, p.flip(0)), "should be"),
    ("09.3", lambda z, y, k: sum(-z[b, :n].log_softmax(-1).gather(1, y[b, :n, None]).sum() for b, n in enumerate(k.tolist())) / math.log(2) / k.sum(), "right"),
    ("09.3", lambda z, y, k: z.mean(), "should be"), ("09.3", lambda z, y, k: find("09.3").reference(z, y, k - 1) if k.min() > 1 else z.sum(), "should be")])
def test_exercises(id, answer, line):
    verdict = judge(id, answer)
    assert line in str(verdict), str(verdict)
    assert (verdict.state == "right") == (line == "right")


@pytest.mark.parametrize("id", ["09.1", "09.2", "09.5", "09.4", "09.3"])
def test_each_mistake_is_named(id):
    for wrong, fault in find(id).mistakes:
        verdict = judge(id, wrong)
        assert verdict.state == "wrong" and fault in str(verdict), (fault, str(verdict))
    assert judge(id, ...).state == "open" and judge(id, find(id).reference).state == "right"
