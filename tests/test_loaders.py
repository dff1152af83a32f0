"""The kit's loaders: what a batch holds, reproducible order, and everything that a fastai Learner asks of them."""
import math
import warnings

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from dlbook.kit import data  # noqa: E402
from dlbook.kit.loaders import TensorSignal, device_dls  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    from fastai.vision.all import (ClassificationInterpretation, Learner, TensorImageBW, accuracy, aug_transforms,
                                   default_device, load_learner, mse)


def ramp(n, offset=0):
    "n samples that can be told apart: x is (n, 1), y is the same number as a class."
    return torch.arange(offset, offset + n).float()[:, None], torch.arange(offset, offset + n)


def epoch(loader): return [batch[0].flatten().tolist() for batch in loader]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')


@pytest.fixture(scope='module')
def learner():
    "A network trained well enough on digits to have something to show."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    learn = Learner(data.digits().dls(bs=64, device='cpu'), model, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(4, 1e-2)
    return learn


# Batches

@given(n=st.integers(1, 40), bs=st.integers(1, 45), drop_last=st.booleans(), seed=st.integers(0, 10))
@settings(max_examples=60, deadline=None)
def test_every_sample_once_with_its_label(n, bs, drop_last, seed):
    x, y = ramp(n)
    dls = device_dls((x, y), (x, y), bs=bs, seed=seed, drop_last=drop_last, device='cpu', vocab=range(n))
    batches = list(dls.train)
    assert len(batches) == len(dls.train) == (n // bs if drop_last else math.ceil(n / bs))
    assert all(len(b[0]) == bs for b in batches[:-1]) and all(torch.equal(bx[:, 0].long(), by) for bx, by in batches)
    seen = sorted(v for b in batches for v in b[1].tolist())
    assert len(set(seen)) == len(seen) == (n // bs * bs if drop_last else n)
    assert epoch(dls.valid) == [b[0].flatten().tolist() for b in zip(x.split(bs))]


def test_seed_fixes_all_epochs_and_each_epoch_differs():
    def run(seed):
        dls = device_dls(ramp(50), ramp(50), bs=8, seed=seed, device='cpu')
        return [epoch(dls.train) for _ in range(3)]
    a = run(1)
    assert a == run(1) and a[0] != a[1] != a[2] != a[0]
    b = run(2)
    assert not any(p == q for p in a for q in b)


def test_order_ignores_the_global_random_state_and_leaves_it():
    torch.manual_seed(1)
    dls = device_dls(ramp(20), ramp(20), device='cpu')
    state = torch.random.get_rng_state()
    first = epoch(dls.train)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert first == epoch(device_dls(ramp(20), ramp(20), device='cpu').train)


def test_looking_does_not_change_the_training():
    def run(look):
        d = data.digits()
        dls = d.dls(bs=100, device='cpu')
        if look:
            dls.show_batch()
            dls.train.one_batch()
            dls.show_batch(unique=True)
        return [b[1].tolist() for b in dls.train]
    assert run(False) == run(True)


def test_batches_are_plain_tensors_and_copies():
    d = data.digits()
    dls = d.dls(bs=2000, device='cpu')
    before = d.valid.x.clone()
    for x, y in dls.valid:
        assert type(x) is torch.Tensor and type(y) is torch.Tensor
        x.zero_()
    assert torch.equal(dls.valid.one_batch()[0], before)


def test_augment_is_for_training_only():
    d = data.glyphs(300)
    calls = []

    def negate(batch):
        calls.append(len(batch[0]))
        return -batch[0], batch[1]

    dls = d.dls(bs=100, augment=negate, device='cpu')
    rows = dls.train.get_idxs()
    assert torch.equal(torch.cat([b[0] for b in dls.train]), -d.train.x[rows]) and calls == [100, 100, 40]
    calls.clear()
    assert torch.equal(torch.cat([b[0] for b in dls.valid]), d.valid.x)
    assert torch.equal(torch.cat([b[0] for b in dls[2]]), d.test.x)
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(784, 36)))
    with learn.no_bar():
        inputs, *_ = learn.get_preds(ds_idx=0, with_input=True)
    assert torch.equal(inputs, d.train.x) and calls == []


def test_fastai_batch_transforms_work_too():
    dls = data.glyphs(100).dls(bs=10, device='cpu')
    dls.add_tfms(aug_transforms(do_flip=False, max_rotate=30., p_affine=1.), 'after_batch')
    rows = dls.train.get_idxs()[:10]
    x, _ = dls.train.one_batch()
    assert isinstance(x, TensorImageBW) and not torch.equal(torch.Tensor(x), dls.train.dataset.x[rows])
    torch.testing.assert_close(torch.Tensor(dls.valid.one_batch()[0]), dls.valid.dataset.x[:10])  # only for training


def test_test_split_is_the_third_loader():
    d = data.iris()
    dls = d.dls(device='cpu')
    assert len(dls.loaders) == 3 and torch.equal(dls[2].dataset.x, d.test.x)
    assert len(device_dls(d.train, d.valid, device='cpu').loaders) == 2


@pytest.mark.parametrize('device', [None, 'cpu', torch.device('cpu')])
def test_device(device):
    dls = data.iris().dls(device=device)
    expected = default_device() if device is None else torch.device('cpu')
    assert dls.device == expected and dls.train.one_batch()[0].device == dls.valid.dataset.x.device == expected


def test_moving_to_another_device():
    dls = data.iris().dls(device='cpu')
    dls.to(torch.device('meta'))  # a device that every machine has
    assert dls.device.type == dls[0].dataset.x.device.type == dls[2].dataset.y.device.type == 'meta'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_same_batches_on_the_gpu():
    a, b = (data.digits().dls(device=d) for d in ('cpu', 'cuda'))
    for (x, y), (x_gpu, y_gpu) in zip(a.train, b.train):
        assert x_gpu.is_cuda and torch.equal(x, x_gpu.cpu()) and torch.equal(y, y_gpu.cpu())


@pytest.mark.parametrize('change, message', [
    (dict(train=(torch.rand(0, 1), torch.zeros(0).long())), 'train'),
    (dict(valid=(torch.rand(0, 1), torch.zeros(0).long())), 'valid'),
    (dict(valid=(torch.rand(3, 1), torch.zeros(4).long())), '4 and 3'),
    (dict(valid=(torch.rand(3, 2), torch.zeros(3).long())), r'valid: .*\(1,\).*\(2,\)'),
    (dict(test=(torch.rand(3, 1).double(), torch.zeros(3).long())), 'test: .*float64'),
    (dict(vocab=['a', 'b']), 'class numbers from 0 to 1, got 0 to 4'),
    (dict(bs=0), 'bs'), (dict(bs=2.5), 'bs')])
def test_bad_input_is_refused_at_the_door(change, message):
    kwargs = dict(train=ramp(5), valid=ramp(5), device='cpu') | change
    with pytest.raises(ValueError, match=message): device_dls(**kwargs)


def test_augment_must_be_a_function():
    with pytest.raises(TypeError, match='augment'): device_dls(ramp(5), ramp(5), augment=3, device='cpu')


# As fastai's

def test_names_classes_and_loss():
    dls = data.iris().dls(device='cpu')
    assert dls.c == 3 and list(dls.vocab) == ['setosa', 'versicolor', 'virginica']
    out, y = torch.randn(7, 3), torch.randint(3, (7,))
    torch.testing.assert_close(float(dls.train_ds.loss_func(out, y)), float(nn.functional.cross_entropy(out, y)))
    dls = data.diabetes().dls(device='cpu')
    assert dls.c == 1 and dls.vocab is None and float(dls.train_ds.loss_func(torch.ones(4, 1), torch.zeros(4, 1))) == 1
    assert list(device_dls(ramp(5), ramp(5), device='cpu').vocab) == list('01234')


def test_learner_trains_and_finds_a_rate(learner):
    loss, acc = learner.validate()
    assert acc > 0.9 and learner.validate(ds_idx=2)[1] > 0.85
    fresh = Learner(data.digits().dls(device='cpu'), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with fresh.no_bar(): found = fresh.lr_find(num_it=30, show_plot=False)
    assert 1e-6 < found.valley < 10


def test_predictions_are_in_the_order_of_the_data(learner):
    d = data.digits()
    with learner.no_bar():
        for ds_idx, split in enumerate((d.train, d.valid, d.test)):
            probs, y = learner.get_preds(ds_idx=ds_idx)
            expected = learner.model.eval()(split.x).softmax(1)
            torch.testing.assert_close(probs, expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(y, split.y)
        shuffled = learner.dls.valid.new(shuffle=True)
        assert torch.equal(learner.get_preds(dl=shuffled)[1], d.valid.y)


def test_new_data(learner):
    d = data.digits()
    with learner.no_bar():
        expected = learner.get_preds(ds_idx=2)[0]
        for items in (d.test.x, list(d.test.x), (d.test.x, d.test.y), list(zip(*d.test)), d.test):
            dl = learner.dls.test_dl(items)
            torch.testing.assert_close(learner.get_preds(dl=dl)[0], expected)
        name, index, probs = learner.predict(d.test.x[0])
    assert str(name) == d.classes[int(index)] and int(probs.argmax()) == int(index)
    with pytest.raises(ValueError, match=r'\(1, 8, 8\).*\(8, 8\)'): learner.dls.test_dl(d.test.x[:, 0])
    with pytest.raises(ValueError, match='at least one'): learner.dls.test_dl([])


def test_interpretation(learner):
    d = data.digits()
    with learner.no_bar():
        interp = ClassificationInterpretation.from_learner(learner)
        matrix = interp.confusion_matrix()
        predicted = learner.model.eval()(d.valid.x).argmax(1)
        expected = torch.zeros(10, 10).long()
        for t, p in zip(d.valid.y, predicted): expected[t, p] += 1
        assert (matrix == expected.numpy()).all()
        interp.plot_confusion_matrix()
        assert [t.get_text() for t in plt.gca().get_xticklabels()] == list(d.classes)
        a, b, count = interp.most_confused()[0]
        off_diagonal = expected - expected.diag().diag()
        assert off_diagonal[int(a), int(b)] == count == off_diagonal.max()
        losses, rows = interp.top_losses(4)
        true = nn.functional.cross_entropy(learner.model(d.valid.x), d.valid.y, reduction='none')
        torch.testing.assert_close(losses, true.topk(4).values, rtol=1e-3, atol=1e-4)
        interp.plot_top_losses(4)
        titles = [ax.get_title() for ax in plt.gcf().axes]
        assert [t.split(' / ')[0] for t in titles[:4]] == [f'{predicted[i]}/{d.valid.y[i]}' for i in rows.tolist()]
        train = ClassificationInterpretation.from_learner(learner, ds_idx=0)
        assert train.confusion_matrix().sum() == len(d.train.x)
        train.plot_top_losses(2)
        interp.print_classification_report()


def test_images_show_with_their_class(learner):
    d = data.digits()
    learner.dls.valid.show_batch(max_n=4)
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes] == [d.classes[i] for i in d.valid.y[:4]]
    assert (axes[1].images[0].get_array() == d.valid.x[1, 0].numpy()).all()
    with learner.no_bar(): learner.show_results(max_n=4, shuffle=False)
    titles = [ax.get_title().split('\n') for ax in plt.gcf().axes]
    predicted = learner.model.eval()(d.valid.x[:4]).argmax(1)
    assert titles == [[d.classes[t], d.classes[p]] for t, p in zip(d.valid.y, predicted)]


def test_color_images_show():
    x, y = torch.rand(6, 3, 5, 5), torch.arange(6)
    device_dls((x, y), (x, y), device='cpu').show_batch()
    assert plt.gcf().axes[0].images[0].get_array().shape == (5, 5, 3)


def test_signals_show_as_curves():
    d = data.mnist1d()
    dls = d.dls(device='cpu')
    dls.valid.show_batch(max_n=3)
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes] == [d.classes[i] for i in d.valid.y[:3]]
    assert torch.equal(torch.tensor(axes[0].lines[0].get_ydata()), d.valid.x[0, 0])
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(40, 10)))
    with learn.no_bar():
        learn.show_results(max_n=3, shuffle=False)
        for ax, label in zip(plt.gcf().axes, d.valid.y): assert ax.get_title().split('\n')[0] == d.classes[label]
        interp = ClassificationInterpretation.from_learner(learn)
        interp.plot_top_losses(3)
        assert len(plt.gcf().axes[0].lines) == 1
    assert dls.train._types[tuple][0] is TensorSignal


def test_tables_show_their_columns(monkeypatch):
    import dlbook.kit.loaders as loaders
    shown = []
    monkeypatch.setattr(loaders, 'display_df', shown.append)
    d = data.iris()
    dls = d.dls(device='cpu')
    dls.valid.show_batch(max_n=2)
    assert list(shown[-1].columns) == [*d.features, 'target'] and len(shown[-1]) == 2
    assert shown[-1]['target'][0] == d.classes[d.valid.y[0]]
    learn = Learner(dls, nn.Linear(4, 3))
    with learn.no_bar():
        learn.show_results(max_n=5, shuffle=False)
        assert list(shown[-1].columns)[-2:] == ['target', 'predicted'] and len(shown[-1]) == 5
        ClassificationInterpretation.from_learner(learn).plot_top_losses(3)
    assert list(shown[-1].columns)[-1] == 'loss' and shown[-1]['loss'].is_monotonic_decreasing


def test_regression_trains_and_shows(monkeypatch):
    import dlbook.kit.loaders as loaders
    shown = []
    monkeypatch.setattr(loaders, 'display_df', shown.append)
    d = data.diabetes().standardized()
    dls = d.dls(bs=32, device='cpu')
    learn = Learner(dls, nn.Linear(10, 1), metrics=mse)
    with learn.no_bar(), learn.no_logging():
        learn.fit(10, 10.)
        assert learn.validate()[1] < 5000  # the variance is 5,900
        learn.show_results(max_n=3, shuffle=False)
    assert float(shown[-1]['target'][0]) == pytest.approx(float(d.valid.y[0]))


def test_text_batches_and_show(monkeypatch):
    import dlbook.kit.loaders as loaders
    shown = []
    monkeypatch.setattr(loaders, 'display_df', shown.append)
    t = data.pydocs()
    dls = t.dls(bs=8, length=16, device='cpu')
    x, y = dls.train.one_batch()
    assert x.shape == y.shape == (8, 16) and torch.equal(x[:, 1:], y[:, :-1]) and dls.c == len(t.classes)
    dls.valid.show_batch(max_n=2)
    assert shown[-1]['x'][0] == t.decode(t.valid.x[:16]) and shown[-1]['target'][0] == t.decode(t.valid.y[:16])
    model = nn.Embedding(dls.c, dls.c)
    learn = Learner(dls, model)
    learn.dls = t.dls(bs=128, length=128, device='cpu')
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-1)
    assert learn.validate()[0] < math.log(dls.c) - 1


@pytest.mark.filterwarnings('ignore')
def test_export_leaves_the_data_behind(learner, tmp_path):
    dls = learner.dls
    learner.path = tmp_path
    learner.export('model.pkl')
    assert (tmp_path / 'model.pkl').stat().st_size < 200_000  # the data alone has 460,000 bytes
    loaded = load_learner(tmp_path / 'model.pkl')
    d = data.digits()
    with loaded.no_bar(), learner.no_bar():
        probs, _ = loaded.get_preds(dl=loaded.dls.test_dl(d.test.x))
        torch.testing.assert_close(probs, learner.get_preds(ds_idx=2)[0])
    assert str(loaded.predict(d.test.x[0])[0]) in d.classes
    assert learner.dls is dls and len(dls.train.dataset) == len(d.train.x)
    assert [len(dl.dataset) for dl in dls.new_empty()] == [0, 0, 0]


def test_export_works_with_an_augmentation_that_cannot_be_pickled(tmp_path):
    learn = Learner(data.digits().dls(augment=lambda b: b, device='cpu'), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
                    path=tmp_path)
    learn.export('model.pkl')
    assert (tmp_path / 'model.pkl').exists()
