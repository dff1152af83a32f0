"Transfer from scratch: equal to fastai, scikit-learn and plain references; files that run no code; errors at the door."
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dlbook.kit.loaders  # noqa: F401  keeps a warning of torch's away
from dlbook import transfer
from dlbook.cnn import ResNet
from dlbook.kit.exercises import find, judge
from dlbook.transfer import *

fast = settings(max_examples=25, deadline=None)


def deep(): return [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(4, 2)]


def flags(groups): return [[p.requires_grad for p in g.parameters()] for g in groups]


# Groups

def test_layer_groups_hold_every_weight_once_in_order():
    net = ResNet(2, 5, widths=(4, 8), blocks=2)
    groups = layer_groups(net)
    assert groups[0] is net.stem and groups[-1] is net.head and groups[1:-1] == list(net.stages) and len(groups) == 6
    assert [p for g in groups for p in g.parameters()] == list(net.parameters()) or \
        {id(p) for g in groups for p in g.parameters()} == {id(p) for p in net.parameters()}


def test_layer_groups_of_another_model():
    with pytest.raises(TypeError, match="expected a model with stem, stages and head, given one without stem, stages, head"): layer_groups(nn.Linear(1, 1))


def test_freeze_leaves_norms_unless_told():
    for norms in (False, True):
        for kind in (nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.InstanceNorm2d(3, affine=True)):
            net = nn.Sequential(nn.Linear(2, 3), kind, nn.Sequential(nn.Conv1d(3, 3, 1)))
            freeze(net, norms)
            assert [p.requires_grad for p in net.parameters()] == [False, False, not norms, not norms, False, False]
            unfreeze(net)
            assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("train_bn", [True, False])
def test_freeze_to_equals_fastai(train_bn):
    from fastai.learner import Learner
    from fastai.torch_core import params

    from dlbook.kit.loaders import device_dls
    data = torch.randn(8, 3), torch.randint(2, (8,))
    mine, theirs = nn.Sequential(*deep()), nn.Sequential(*deep())
    learn = Learner(device_dls(data, data, device="cpu"), theirs, loss_func=nn.CrossEntropyLoss(), splitter=lambda m: [params(g) for g in m], train_bn=train_bn)
    learn.create_opt()
    for n in (0, 1, 2, -1, -2, -3, 1, 0):
        learn.freeze_to(n)
        assert freeze_to(list(mine), n, norms=not train_bn) == n % 3
        assert flags(mine) == flags(theirs), n


def test_freeze_to_everything_and_out_of_range():
    groups = deep()
    assert freeze_to(groups, 3, norms=True) == 3 and not any(map(any, flags(groups)))
    assert freeze_to(groups, 0) == 0 and all(map(all, flags(groups)))
    for n in (4, -4):
        with pytest.raises(ValueError, match=f"expected n from -3 to 3 for 3 groups, given {n}"): freeze_to(groups, n)
    assert all(map(all, flags(groups)))


# Rates

@fast
@given(st.integers(1, 8), st.floats(1e-6, 1e-2), st.floats(1.0, 1e4), st.sampled_from(["one", "high", "both"]))
def test_rates_equal_fastais(n, low, factor, kind):
    from fastai.optimizer import SGD
    lr = {"one": low, "high": slice(low * factor), "both": slice(low, low * factor)}[kind]
    opt = SGD([[nn.Parameter(torch.zeros(1))] for _ in range(n)], lr=0.1)
    rates = discriminative_lrs(lr, n)
    assert len(rates) == n and all(isinstance(rate, float) for rate in rates)
    if not (kind == "both" and n == 1):  # fastai's even_mults gives the upper end then, too
        opt.set_hyper("lr", lr)
        np.testing.assert_allclose(rates, [h["lr"] for h in opt.hypers], rtol=1e-9)
    else: assert rates == [low * factor]


@pytest.mark.parametrize("lr", [0, -1e-3, slice(0.0, 0.1), slice(None, None), slice(1e-3, None), slice(1e-3, -1), "0.1", None])
def test_bad_rates(lr):
    with pytest.raises(ValueError, match=r"expected (rates above 0|slice\(high\))"): discriminative_lrs(lr, 3)


def test_bad_number_of_groups():
    with pytest.raises(ValueError, match="expected at least one group, given 0"): discriminative_lrs(0.1, 0)


def test_param_groups_train_as_torchs():
    groups, twins = deep(), deep()
    for a, b in zip(groups, twins): b.load_state_dict(a.state_dict())
    opt = torch.optim.SGD(param_groups(groups, slice(0.01, 1.0)))
    x = torch.randn(5, 3)
    nn.Sequential(*groups)(x).square().sum().backward()
    nn.Sequential(*twins)(x).square().sum().backward()
    opt.step()
    for a, b, rate in zip(groups, twins, (0.01, 0.1, 1.0)):
        for p, q in zip(a.parameters(), b.parameters()): torch.testing.assert_close(p, q - rate * q.grad)


def test_param_groups_refuse_common_weights():
    shared = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="expected groups without common weights"): param_groups([shared, nn.Sequential(shared)], 0.1)


@pytest.mark.parametrize("every", [1, 3])
def test_gradual_unfreezing(every):
    groups = deep()
    opened = [gradual_unfreeze(groups, step, every, norms=True) for step in range(4 * every)]
    assert opened == [n for n in (2, 1, 0, 0) for _ in range(every)]
    gradual_unfreeze(groups, every, every, norms=True)
    assert [any(f) for f in flags(groups)] == [False, True, True]
    gradual_unfreeze(groups, 0, every)
    assert flags(groups)[0] == [False, False, True, True]
    for step, k in ((-1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"expected step >= 0 and every >= 1, given {step} and {k}"): gradual_unfreeze(groups, step, k)


# Features and heads

@fast
@given(st.integers(1, 20), st.integers(1, 25))
def test_features_are_those_of_the_mode_for_use(n, bs):
    body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    body[1].running_mean += 1
    body.train()
    body[3].eval()
    state, x = {k: v.clone() for k, v in body.state_dict().items()}, torch.randn(n, 3)
    out = extract_features(body, x, bs)
    assert [part.training for part in body] == [True, True, True, False] and not out.requires_grad
    assert all(torch.equal(v, state[k]) for k, v in body.state_dict().items())  # no statistics were taken
    torch.testing.assert_close(out, body.eval()(x).detach())


def test_features_of_nothing_and_modes_after_an_error():
    body = nn.Linear(3, 4).train()
    with pytest.raises(ValueError, match="expected at least one input, given none"): extract_features(body, torch.zeros(0, 3))
    with pytest.raises(RuntimeError): extract_features(body, torch.zeros(2, 5))
    assert body.training


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 4), st.integers(1, 6), st.sampled_from([0.1, 1.0, 10.0]), st.integers(0, 10_000))
def test_linear_head_is_logistic_regression(classes, d, decay, seed):
    from sklearn.linear_model import LogisticRegression
    rng = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(25, d, generator=rng, dtype=torch.float64) + 5
    y = torch.cat([torch.arange(classes), torch.randint(classes, (25 - classes,), generator=rng)])
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    head = linear_head(x, y, decay=decay)
    assert head.weight.shape == (classes, d) and head.weight.dtype == torch.float64
    if classes == 2:  # scikit-learn has one weight vector there; ours has two, opposite ones, with half of the penalty each
        theirs = LogisticRegression(C=2 / decay, tol=1e-9, max_iter=2000).fit(z, y)
    else: theirs = LogisticRegression(C=1 / decay, tol=1e-9, max_iter=2000).fit(z, y)
    np.testing.assert_allclose(head(x).softmax(1).detach().numpy(), theirs.predict_proba(z), atol=2e-3)


def test_linear_head_with_constant_features_more_classes_and_other_shapes():
    x, y = torch.tensor([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]]), torch.tensor([0, 0, 1])
    head = linear_head(x, y, classes=4)
    assert head.weight.shape == (4, 2) and head.weight.isfinite().all() and head.weight.dtype == torch.float32
    assert head(x).argmax(1).tolist() == [0, 0, 1]
    for bad in ((x[0], y), (x, y[:2]), (x, y[:, None])):
        with pytest.raises(ValueError, match=r"expected features \(n, d\) and classes \(n,\), given"): linear_head(*bad)


# Likeness

@fast
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4), st.floats(0.3, 5.0), st.integers(0, 10_000))
def test_mmd_equals_the_double_sums(n, m, d, s, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 1
    def k(a, b): return np.exp(-((a - b) ** 2).sum() / (2 * s * s))
    expected = (np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
                + np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]) - 2 * np.mean([k(a, b) for a in x for b in y]))
    assert mmd2(torch.from_numpy(x), torch.from_numpy(y), s).item() == pytest.approx(expected, abs=1e-6)


def test_mmd_of_far_sets_and_bad_input():
    assert mmd2(torch.zeros(3, 2), torch.full((4, 2), 100.0), 1.0).item() == pytest.approx(2)
    good = torch.zeros(3, 2)
    for bad in ((good, torch.zeros(3, 1), 1.0), (good[:1], good, 1.0), (good, good, 0.0), (good[:, 0], good, 1.0)):
        with pytest.raises(ValueError, match=r"expected \(n, d\) and \(m, d\) with n, m >= 2 and a bandwidth above 0"): mmd2(*bad)


@fast
@given(st.integers(3, 20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_cka_is_the_cosine_of_the_tables(n, p, q, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, p)) + 3, rng.standard_normal((n, q))
    center = np.eye(n) - 1 / n
    K, L = center @ x @ x.T @ center, center @ y @ y.T @ center
    expected = (K * L).sum() / np.linalg.norm(K) / np.linalg.norm(L)
    got = linear_cka(torch.from_numpy(x), torch.from_numpy(y))
    assert got.item() == pytest.approx(expected, rel=1e-6) and 0 <= got <= 1 + 1e-9
    turn = torch.linalg.qr(torch.randn(p, p, dtype=torch.float64))[0]
    assert linear_cka(torch.from_numpy(x), -2 * torch.from_numpy(x) @ turn + 1).item() == pytest.approx(1)


def test_cka_bad_input():
    x = torch.randn(4, 2)
    for bad in ((x, x[:3]), (x[:, 0], x), (x[:1], x[:1])):
        with pytest.raises(ValueError, match=r"expected \(n, p\) and \(n, q\) with n >= 2"): linear_cka(*bad)
    with pytest.raises(ValueError, match="expected features that differ"): linear_cka(x, torch.ones(4, 2))


# Files

def test_weights_survive_the_file(tmp_path):
    from safetensors import safe_open
    net = ResNet(1, 3, widths=(4, 8)).to(memory_format=torch.channels_last)
    tied = nn.Linear(2, 2)
    both = nn.Sequential(tied, tied)
    for model in (net, both, net.half(), nn.Linear(2, 2).double()):
        save_weights(tmp_path / "w.safetensors", model, {"license": "MIT"})
        loaded = load_weights(tmp_path / "w.safetensors")
        state = model.state_dict()
        assert set(loaded) == set(state) and all(torch.equal(loaded[k], state[k]) and loaded[k].dtype == state[k].dtype for k in state)
    with safe_open(tmp_path / "w.safetensors", "pt") as file: assert file.metadata() == {"license": "MIT"}
    save_weights(tmp_path / "d", {"a": torch.arange(6).view(2, 3).T, "b": torch.zeros(0), "c": torch.tensor(2.5, requires_grad=True)})
    loaded = load_weights(str(tmp_path / "d"))
    assert loaded["a"].tolist() == [[0, 3], [1, 4], [2, 5]] and loaded["b"].shape == (0,) and loaded["c"].item() == 2.5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "w.safetensors"]  # nothing else is left behind


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "w"
    save_weights(path, {"a": torch.ones(2)})

    from pathlib import Path
    whole = Path.write_bytes

    def broken(self, content):
        whole(self, content[:9])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="no space"): save_weights(path, {"a": torch.zeros(2)})
    assert load_weights(path)["a"].tolist() == [1, 1] and [p.name for p in tmp_path.iterdir()] == ["w"]


def test_the_file_appears_in_one_step(tmp_path, monkeypatch):
    "It is whole under another name in the same folder, and then moved."
    path, moved = tmp_path / "w", []
    save_weights(path, {"a": torch.ones(2)})

    def stop(source, target):
        moved.append((load_weights(source)["a"].tolist(), source.parent.parent, target))
        raise OSError("no power")

    monkeypatch.setattr(transfer.os, "replace", stop)
    with pytest.raises(OSError, match="no power"): save_weights(path, {"a": torch.zeros(2)})
    monkeypatch.undo()
    assert moved == [([0.0, 0.0], tmp_path, path)] and load_weights(path)["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_a_saved_file_may_be_read_by_others_as_any_file(tmp_path):
    import os
    save_weights(tmp_path / "w", {"a": torch.ones(1)})
    (tmp_path / "plain").write_text("")
    assert os.stat(tmp_path / "w").st_mode == os.stat(tmp_path / "plain").st_mode


@pytest.mark.parametrize("weights, metadata, message", [
    ({"a": 3}, None, "a: int"), ({"a": np.zeros(2)}, None, "a: ndarray"), ({"a": torch.zeros(1)}, {"epoch": 3}, "metadata epoch: int")])
def test_only_tensors_and_texts_are_saved(tmp_path, weights, metadata, message):
    with pytest.raises(TypeError, match=f"expected tensors, and texts in metadata, given {message}"): save_weights(tmp_path / "w", weights, metadata)
    assert not list(tmp_path.iterdir())


class Bomb:
    def __reduce__(self): return pytest.fail, ("the pickle was opened",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused_unopened(tmp_path, protocol):
    (tmp_path / "w").write_bytes(pickle.dumps({"a": Bomb()}, protocol=protocol))
    with pytest.raises(ValueError, match="looks like a pickle of torch.save; a pickle can run any code"): load_weights(tmp_path / "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_refused(tmp_path, zipped):
    torch.save({"a": torch.ones(2)}, tmp_path / "w", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="looks like a pickle"): load_weights(tmp_path / "w")


@pytest.mark.parametrize("content", [b"", b"\x00", b"hello, world, this is text", b"\xff" * 40, b"\x02\x00\x00\x00\x00\x00\x00\x00{}x"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ValueError, match="expected a safetensors file, .* is damaged or none"): load_weights(tmp_path / "w")


def test_damaged_and_absent_files(tmp_path):
    save_weights(tmp_path / "w", {"a": torch.ones(200)})
    content = (tmp_path / "w").read_bytes()
    for cut in (5, 30, len(content) - 1):
        (tmp_path / "w").write_bytes(content[:cut])
        with pytest.raises(ValueError, match="is damaged or none"): load_weights(tmp_path / "w")
    with pytest.raises(FileNotFoundError): load_weights(tmp_path / "absent")


def test_a_report_says_what_matched():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = {"0.weight": torch.full((3, 2), 7.0, dtype=torch.float64), "0.bias": torch.zeros(4), "1.running_mean": torch.full((3,), 2.0),
             "9.weight": torch.zeros(1)}
    report = load_matching(model, state)
    assert report.matched == ("0.weight", "1.running_mean") and report.unexpected == ("9.weight",)
    assert report.other_shape == (("0.bias", (3,), (4,)),)
    assert report.missing == ("1.weight", "1.bias", "1.running_var", "1.num_batches_tracked", "2.weight", "2.bias")
    after = model.state_dict()
    assert (after["0.weight"] == 7).all() and after["0.weight"].dtype == torch.float32 and (after["1.running_mean"] == 2).all()
    assert all(torch.equal(after[k], before[k]) for k in before if k not in report.matched)
    lines = str(report).splitlines()
    assert lines[:3] == ["loaded 2 of 9 tensors", "  other shape: 0.bias is (3,) in the model and (4,) in the file", "  missing in the file: 1.weight"]
    assert lines[-1] == "  not in the model: 9.weight" and len(lines) == 9
    assert all(p.requires_grad for p in model.parameters())


def test_a_report_of_nothing_is_an_error():
    model = nn.Linear(2, 3)
    before = model.weight.detach().clone()
    for state in ({"module.weight": torch.zeros(3, 2)}, {"weight": torch.zeros(2, 3)}, {}):
        with pytest.raises(ValueError, match="expected tensors such as weight, bias, given .*: no name and shape in common"): load_matching(model, state)
    assert torch.equal(model.weight, before)


def test_a_resnet_with_another_head_keeps_its_body():
    a, b = ResNet(1, 26), ResNet(1, 10)
    report = load_matching(b, a.state_dict())
    assert {name for name, *_ in report.other_shape} == {"head.2.weight", "head.2.bias"} and not report.missing and not report.unexpected
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(b.eval().stages(b.stem(x)), a.eval().stages(a.stem(x)))


# Staying near

@fast
@given(st.integers(1, 5), st.integers(2, 4), st.integers(1, 6), st.integers(0, 1000))
def test_fisher_of_a_linear_layer(d, classes, n, seed):
    torch.manual_seed(seed)
    layer, x = nn.Linear(d, classes).double(), torch.randn(n, d, dtype=torch.float64)
    rng, weight, bias = torch.Generator().manual_seed(seed), 0, 0
    for sample in x:
        p = layer(sample).softmax(0).detach()
        g = -p.clone()
        g[torch.multinomial(p, 1, generator=rng)] += 1
        weight, bias = weight + torch.outer(g, sample) ** 2 / n, bias + g ** 2 / n
    found = fisher_diagonal(layer, x, seed)
    torch.testing.assert_close(found["weight"], weight)
    torch.testing.assert_close(found["bias"], bias)
    assert not found["weight"].requires_grad and layer.weight.grad is None


def test_fisher_of_trained_weights_only_and_of_unused_ones():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model.extra = nn.Parameter(torch.zeros(2))
    model.forward = lambda x: model[1](model[0](x))
    freeze(model[0])
    found = fisher_diagonal(model, torch.randn(4, 2))
    assert set(found) == {"1.weight", "1.bias", "extra"} and (found["extra"] == 0).all() and found["1.bias"].min() > 0
    freeze(model)
    for x in (torch.randn(4, 2), torch.zeros(0, 2)):
        with pytest.raises(ValueError, match="expected samples and trained weights"): fisher_diagonal(model, x)
    with pytest.raises(ValueError, match="expected samples and trained weights, given 0 and 2"): fisher_diagonal(nn.Linear(2, 2), torch.zeros(0, 2))


def test_fisher_is_near_the_curvature_where_the_model_is_right():
    "For samples whose labels come from the model itself, F is the mean second derivative of the loss."
    torch.manual_seed(0)
    layer, x = nn.Linear(2, 3, bias=False).double(), torch.randn(3000, 2, dtype=torch.float64)
    p = layer(x).softmax(1).detach()
    curvature = torch.einsum("nc,nd->cd", p * (1 - p), x.square()) / len(x)
    torch.testing.assert_close(fisher_diagonal(layer, x)["weight"], curvature, rtol=0.15, atol=0.01)


@fast
@given(st.booleans(), st.integers(0, 1000))
def test_penalty_and_its_gradient(weighted, seed):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2).double()
    anchor = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    importance = {name: torch.rand_like(p) for name, p in model.named_parameters()} if weighted else None
    value = anchor_penalty(model, anchor, importance)
    value.backward()
    expected = 0.0
    for name, p in model.named_parameters():
        f = importance[name] if weighted else torch.ones_like(p)
        expected += (f * (p.detach() - anchor[name]) ** 2).sum().item() / 2
        torch.testing.assert_close(p.grad, f * (p.detach() - anchor[name]))
    assert value.item() == pytest.approx(expected)


def test_penalty_of_some_weights_and_unknown_ones():
    model = nn.Linear(3, 2)
    assert anchor_penalty(model, {"bias": model.bias.detach() + 2}).item() == pytest.approx(4)
    for anchor, importance in (({"w": torch.zeros(1)}, None), ({"bias": torch.zeros(2)}, {"bias": torch.ones(2), "w": torch.zeros(1)}), ({}, None)):
        with pytest.raises(ValueError, match="expected names of the model's weights, such as weight, given"): anchor_penalty(model, anchor, importance)


# The module, the cell that needs a download, and the exercises

def test_public_names():
    assert set(transfer.__all__) == {"layer_groups", "freeze", "unfreeze", "freeze_to", "discriminative_lrs", "param_groups", "gradual_unfreeze", "extract_features",
                                     "linear_head", "mmd2", "linear_cka", "save_weights", "load_weights", "Report", "load_matching", "fisher_diagonal", "anchor_penalty"}


def test_import_is_light():
    code = "import sys, dlbook.transfer; assert not {'fastai', 'matplotlib', 'torchvision'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_cell_that_downloads_runs_on_a_small_folder(tmp_path):
    "Its functions, with drawn images and without weights; what they are called with is read from the cell."
    from PIL import Image
    cells = json.loads((ROOT / "nbs" / "14_transfer.ipynb").read_text(encoding="utf-8"))["cells"]
    source, = ["".join(c["source"]) for c in cells if c["cell_type"] == "code" and "#| online" in "".join(c["source"])]
    rng = np.random.default_rng(0)
    (tmp_path / "pets" / "images").mkdir(parents=True)
    for breed in ("Bengal", "great_pyrenees", "pug"):
        for i in range(6): Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "pets" / "images" / f"{breed}_{i}.jpg")
    saved = []
    calls = re.sub(r"k=10", "k=2, size=32, bs=4, pretrained=False", source).replace(", pretrained=False, pretrained=False", ", pretrained=False")
    calls = calls.replace("untar_data(URLs.PETS)", "folder").replace("fine_tune(5,", "fine_tune(1,").replace("fit_one_cycle(20,", "fit_one_cycle(1,")
    names = {"np": np, "folder": tmp_path / "pets", "save_weights": lambda path, model, metadata: saved.append((path, save_weights(tmp_path / path, model, metadata)))}
    exec(calls, names)
    learn = names["pets"]
    assert list(learn.dls.vocab) == ["Bengal", "great_pyrenees", "pug"]
    assert len(learn.dls.train_ds) == 6 and len(learn.dls.valid_ds) == 12
    assert not {f.name for f in learn.dls.train_ds.items} & {f.name for f in learn.dls.valid_ds.items}
    assert len(learn.opt.param_lists) == 3 and saved[0][0].endswith(".safetensors")
    assert load_matching(learn.model, load_weights(tmp_path / saved[0][0])).other_shape == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_on_a_gpu(tmp_path):
    net, x = ResNet(1, 4).cuda(), torch.randn(6, 1, 8, 8)
    body = nn.Sequential(*layer_groups(net)[:-1], net.head[:-1])
    features = extract_features(body, x)
    assert features.device.type == "cpu" and extract_features(body, x.cuda()).is_cuda
    assert linear_head(features.cuda(), torch.arange(6, device="cuda") % 4).weight.is_cuda
    assert mmd2(x.cuda().flatten(1), x.cuda().flatten(1) + 1, 8.0).is_cuda
    save_weights(tmp_path / "w", net)
    assert not load_matching(net, load_weights(tmp_path / "w")).missing
    fisher = fisher_diagonal(net.eval(), x[:2].cuda())
    assert anchor_penalty(net, {k: v.detach() for k, v in net.named_parameters()}, fisher).item() == 0


WRONG = [  # (exercise, an answer that is wrong in a way the book does not name, what the verdict says)
    ("14.1", 0.08, "too large"),
    ("14.1", 1e-5, "too small"),
    ("14.2", lambda t, T, max_lr, cut_frac=0.1, ratio=32: max_lr * (1 - t / T), "the rate should be"),
    ("14.2", lambda t, T, max_lr, cut_frac=0.1, ratio=32: find("14.2").reference(min(t, T // 2), T, max_lr), "the rate should be"),
    ("14.3", lambda source, target: (source.mean() - target.mean()).abs(), "the distance should be"),
    ("14.3", lambda source, target: 1 - find("14.3").reference(source, target) / 4, "the distance should be"),
    ("14.4", lambda a, fisher, b, curvature, strength: b, "the weights should be"),
    ("14.4", lambda a, fisher, b, curvature, strength: (a + b) / 2, "the weights should be"),
    ("14.5", lambda features, y: (find("14.5").reference(features, y)[0].T, find("14.5").reference(features, y)[1]), "should give a weight of shape"),
    ("14.5", lambda features, y: find("14.5").reference(features, y)[0], "should give two tensors"),
]


@pytest.mark.parametrize("id, answer, message", WRONG, ids=lambda v: v if isinstance(v, str) and v.startswith("14") else "")
def test_wrong_answers_are_told_what_is_wrong(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and re.search(message, verdict.line), verdict.line


def test_references_agree_with_the_chapter():
    assert find("14.1").reference == pytest.approx(discriminative_lrs(slice(1e-5, 8e-2), 4)[2])
    torch.manual_seed(0)
    features, y = torch.randn(20, 3), torch.arange(20) % 4
    weight, bias = find("14.5").reference(features, y)
    means = torch.stack([features[y == c].mean(0) for c in range(4)])
    assert torch.equal((features @ weight.T + bias).argmax(1), torch.cdist(features, means).argmin(1))
    model = nn.Linear(3, 1, bias=False)  # descend the loss of 14.4 with the chapter's penalty
    a, fisher, b, h = torch.randn(1, 3), torch.rand(1, 3), torch.randn(1, 3), torch.rand(1, 3) + 0.5
    opt = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(300):
        opt.zero_grad()
        ((h * (model.weight - b).square()).sum() / 2 + 2.0 * anchor_penalty(model, {"weight": a}, {"weight": fisher})).backward()
        opt.step()
    torch.testing.assert_close(model.weight.detach(), find("14.4").reference(a, fisher, b, h, 2.0), rtol=1e-3, atol=1e-4)
