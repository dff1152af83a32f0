"Data preparation against scikit-learn, imbalanced-learn, torchvision and pandas."
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import EditedNearestNeighbours, RandomUnderSampler, TomekLinks
from sklearn import preprocessing
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.class_weight import compute_class_weight

from dlbook import preparation
from dlbook.kit.exercises import find, judge
from dlbook.preparation import (MinMaxScaler, RobustScaler, StandardScaler, add_noise, class_weights, clean, edited_nearest_neighbours,
                                random_brightness, random_crop, random_flip, random_oversample, random_rotation, random_undersample, smote,
                                synonym_replacement, tomek_links, word_dropout, word_swap)

settings.register_profile("book", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("book")
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def rng_of(seed): return torch.Generator().manual_seed(seed)


def test_the_public_names():
    assert sorted(preparation.__all__) == sorted(
        "clean MinMaxScaler StandardScaler RobustScaler random_crop random_rotation random_flip random_brightness add_noise word_dropout word_swap "
        "synonym_replacement random_oversample random_undersample smote tomek_links edited_nearest_neighbours class_weights".split())


# ---- scalers

@st.composite
def tables(draw):
    "A table in which columns differ in size and place, one may be constant, and some cells may be missing."
    seed, n, d = draw(st.integers(0, 10 ** 6)), draw(st.integers(1, 30)), draw(st.integers(1, 5))
    rng = np.random.RandomState(seed)
    x = rng.randn(n, d) * 10.0 ** rng.randint(-3, 4, d) + rng.randint(-3, 4, d) * 10.0 ** rng.randint(-1, 2, d)
    if draw(st.booleans()): x[:, rng.randint(d)] = draw(st.sampled_from([0.0, 0.1, -7.3, 1e6]))
    if draw(st.booleans()): x = np.round(x)  # equal values
    if n > 1 and draw(st.booleans()):
        gaps = rng.rand(n, d) < 0.3
        gaps[rng.randint(n)] = False  # a known value in each column
        x[gaps] = np.nan
    return torch.from_numpy(x)


SCALERS = [(StandardScaler, preprocessing.StandardScaler, {}, ["mean_", "var_", "scale_"]),
           (MinMaxScaler, preprocessing.MinMaxScaler, {}, ["data_min_", "data_max_", "data_range_", "scale_", "min_"]),
           (MinMaxScaler, preprocessing.MinMaxScaler, {"feature_range": (-2, 3)}, ["data_min_", "data_max_", "data_range_", "scale_", "min_"]),
           (RobustScaler, preprocessing.RobustScaler, {}, ["center_", "scale_"]),
           (RobustScaler, preprocessing.RobustScaler, {"quantile_range": (5.0, 80.0)}, ["center_", "scale_"])]
each_scaler = pytest.mark.parametrize("ours, theirs, options, fitted", SCALERS, ids=lambda v: getattr(v, "__name__", ""))


@each_scaler
@given(x=tables(), seed=st.integers(0, 99))
def test_scalers_in_float64(ours, theirs, options, fitted, x, seed):
    mine, other = ours(**options).fit(x), theirs(**options).fit(x.numpy())
    new = x[torch.randint(len(x), (7,), generator=rng_of(seed))] * 1.5 + 1
    for name in fitted: np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=1e-9, atol=1e-12, err_msg=name)
    assert mine.n_features_in_ == other.n_features_in_
    for rows in (x, new):
        scaled = mine.transform(rows)
        assert scaled.dtype == torch.float64
        np.testing.assert_allclose(scaled, other.transform(rows.numpy()), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(mine.inverse_transform(scaled), rows, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(mine.inverse_transform(rows), other.inverse_transform(rows.numpy()), rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(ours(**options).fit_transform(x), mine.transform(x))


@each_scaler
@given(seed=st.integers(0, 10 ** 6), n=st.integers(3, 40), gaps=st.booleans())
def test_scalers_in_float32(ours, theirs, options, fitted, seed, n, gaps):
    x = torch.randn(n, 3, generator=rng_of(seed)) * torch.tensor([0.1, 1, 1000]) + torch.tensor([0.5, -3, 2000])
    x[:, 0] = torch.where(torch.tensor(seed % 3 == 0), torch.tensor(0.1), x[:, 0])  # constant, in one case of three
    if gaps: x[1, 2] = torch.nan
    mine, other = ours(**options), theirs(**options)
    scaled = mine.fit_transform(x)
    assert scaled.dtype == torch.float32 and mine.inverse_transform(scaled).dtype == torch.float32
    np.testing.assert_allclose(scaled, other.fit_transform(x.numpy()), rtol=1e-3, atol=2e-4)
    for name in fitted: np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=2e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(mine.inverse_transform(scaled), x, rtol=1e-4, atol=1e-3)


def test_a_tiny_deviation_is_not_constant():
    x = torch.tensor([[1e-9], [3e-9]], dtype=torch.float64)
    np.testing.assert_allclose(StandardScaler().fit_transform(x), preprocessing.StandardScaler().fit_transform(x.numpy()))
    assert StandardScaler().fit(torch.full((1000, 1), 0.1, dtype=torch.float64)).scale_.item() == 1


@pytest.mark.parametrize("make", [StandardScaler, MinMaxScaler, RobustScaler])
def test_scalers_say_what_is_wrong(make):
    with pytest.raises(ValueError, match="expected fit before this, given a new"): make().transform(torch.ones(2, 2))
    with pytest.raises(TypeError, match="expected a float tensor, given a tensor of torch.int64"): make().fit(torch.ones(2, 2).long())
    with pytest.raises(TypeError, match="given ndarray"): make().fit(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"expected x of shape \(n, features\), given \(3,\)"): make().fit(torch.ones(3))
    with pytest.raises(ValueError, match=r"given \(0, 2\)"): make().fit(torch.ones(0, 2))
    with pytest.raises(ValueError, match="infinite"): make().fit(torch.tensor([[1.0], [torch.inf]]))
    fitted = make().fit(torch.rand(5, 3))
    for method in (fitted.transform, fitted.inverse_transform):
        with pytest.raises(ValueError, match=r"expected x of shape \(n, 3\), given \(5, 2\)"): method(torch.rand(5, 2))
        with pytest.raises(TypeError, match="expected a float tensor"): method([[1.0, 2.0, 3.0]])
    assert make().fit(torch.full((3, 1), torch.nan)).transform(torch.ones(1, 1)).isnan().all()  # as scikit-learn


def test_scaler_arguments():
    with pytest.raises(ValueError, match="smaller to a larger"): MinMaxScaler((1, 1))
    for bad in ((75, 25), (-1, 50), (0, 101)):
        with pytest.raises(ValueError, match="growing percentages"): RobustScaler(bad)


# ---- imbalance

@st.composite
def problems(draw, sizes=st.integers(7, 40)):
    "Rows and classes: 2 to 4 classes of at least 7 rows, in a random order."
    seed, d = draw(st.integers(0, 10 ** 6)), draw(st.integers(1, 4))
    y = np.concatenate([np.full(draw(sizes), c) for c in range(draw(st.integers(2, 4)))])
    rng = np.random.RandomState(seed)
    y = y[rng.permutation(len(y))]
    return torch.from_numpy(rng.randn(len(y), d) + 0.8 * y[:, None]), torch.from_numpy(y), seed


def same(pair, other, **tolerances):
    np.testing.assert_allclose(pair[0], other[0], **tolerances)
    np.testing.assert_array_equal(pair[1], other[1])


@given(problems())
def test_samplers_draw_what_imbalanced_learn_draws(problem):
    x, y, seed = problem
    arrays = x.numpy(), y.numpy()
    same(random_oversample(x, y, seed), RandomOverSampler(random_state=seed).fit_resample(*arrays), rtol=0)
    same(random_undersample(x, y, seed), RandomUnderSampler(random_state=seed).fit_resample(*arrays), rtol=0)
    for k in (1, 5): same(smote(x, y, k, seed), SMOTE(k_neighbors=k, random_state=seed).fit_resample(*arrays), rtol=1e-9, atol=1e-12)


@given(problems())
def test_cleaning_methods_are_those_of_imbalanced_learn(problem):
    x, y, _ = problem
    links = tomek_links(x, y)
    theirs = TomekLinks(sampling_strategy="all").fit(x.numpy(), y.numpy())
    theirs.fit_resample(x.numpy(), y.numpy())
    np.testing.assert_array_equal(links, np.setdiff1d(np.arange(len(y)), theirs.sample_indices_))
    nearest = NearestNeighbors(n_neighbors=2).fit(x.numpy()).kneighbors(x.numpy(), return_distance=False)[:, 1]
    np.testing.assert_array_equal(links, np.flatnonzero(TomekLinks.is_tomek(y.numpy(), nearest, y.unique().tolist())))
    assert len(links) % 2 == 0
    for k in (1, 2, 3, 4, 6):  # even numbers of votes, and three or four classes, have ties
        other = EditedNearestNeighbours(sampling_strategy="all", kind_sel="mode", n_neighbors=k)
        other.fit_resample(x.numpy(), y.numpy())
        np.testing.assert_array_equal(edited_nearest_neighbours(x, y, k), np.sort(other.sample_indices_))


@given(problems())
def test_smote_makes_points_between_neighbors_of_a_class(problem):
    x, y, seed = problem
    new_x, new_y = smote(x, y, 3, seed)
    assert new_x[:len(x)].equal(x) and new_y[:len(y)].equal(y) and set(new_y.bincount().tolist()) == {y.bincount().max().item()}
    for point, c in zip(new_x[len(x):][:20], new_y[len(y):].tolist()):
        own = x[y == c]
        near = own[torch.cdist(own, own).fill_diagonal_(torch.inf).argsort(1)[:, :3]]  # (m, 3, d)
        line, offset = near - own[:, None], point - own[:, None]
        share = ((offset * line).sum(2) / line.square().sum(2)).clamp(0, 1)
        assert (offset - share[..., None] * line).norm(dim=2).min() < 1e-9


def test_smote_defaults_and_seeds():
    x, y = torch.randn(60, 3, generator=rng_of(0)), (torch.arange(60) < 12).long()
    assert smote(x, y)[0].equal(smote(x, y, k=5, seed=0)[0]) and not smote(x, y)[0].equal(smote(x, y, seed=1)[0])
    assert smote(x, y)[0].dtype == torch.float32 and smote(x.double(), y)[0].dtype == torch.float64
    balanced = smote(x[:24], y[:24])
    assert balanced[0].equal(x[:24]) and balanced[1].equal(y[:24])


def test_samplers_keep_rows_of_any_shape():
    x, y = torch.arange(24.0).reshape(6, 1, 2, 2), torch.tensor([0, 1, 0, 0, 2, 2])
    for sampler, count in ((random_oversample, 3), (random_undersample, 1)):
        new_x, new_y = sampler(x, y)
        assert new_y.bincount().tolist() == [count] * 3 and new_x.shape[1:] == x.shape[1:]
        for row, label in zip(new_x, new_y): assert y[(x == row).flatten(1).all(1)].tolist() == [label]
    assert len(random_undersample(x, y)[0].flatten(1).unique(dim=0)) == 3
    assert sorted(tuple(r) for r in random_oversample(x, y)[0].flatten(1).tolist())[0] == (0, 1, 2, 3)


def test_classes_may_have_gaps_in_their_numbers():
    x, y = torch.randn(20, 2, generator=rng_of(0)), torch.tensor([0] * 13 + [5] * 7)
    same(smote(x, y), SMOTE(random_state=0).fit_resample(x.numpy(), y.numpy()), rtol=1e-5)
    assert len(edited_nearest_neighbours(x, y)) <= 20


def test_equal_distances_and_twins():
    x = torch.zeros(5, 1)  # all at the same place: the earlier row comes first
    assert preparation._nearest(x, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert tomek_links(x, torch.tensor([0, 1, 0, 0, 0])).tolist() == [0, 1]
    assert tomek_links(x[:1], torch.tensor([0])).tolist() == []
    rows = torch.tensor([[0.0], [1], [2.5]])  # two of them see one of each class: the smaller number wins
    assert edited_nearest_neighbours(rows, torch.tensor([0, 1, 1]), 2).tolist() == [] and edited_nearest_neighbours(rows, torch.tensor([1, 0, 0]), 2).tolist() == [1, 2]


def test_neighbors_of_many_rows_are_found_in_parts():
    x = torch.randn(2300, 3, generator=rng_of(0)).double()
    theirs = NearestNeighbors(n_neighbors=5).fit(x.numpy()).kneighbors(x.numpy(), return_distance=False)
    np.testing.assert_array_equal(preparation._nearest(x, 4), theirs[:, 1:])
    far = x.float() + 1000  # where distances from squares would be wrong
    theirs = NearestNeighbors(n_neighbors=2, algorithm="kd_tree").fit(far.double().numpy()).kneighbors(far.double().numpy(), return_distance=False)
    assert (preparation._nearest(far, 1)[:, 0].numpy() == theirs[:, 1]).mean() > 0.99


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_class_weights(labels):
    y = torch.tensor(labels)
    if len(set(labels)) <= max(labels):
        lacking = min(set(range(max(labels))) - set(labels))
        with pytest.raises(ValueError, match=f"expected each class from 0 to {max(labels)}, given none of {lacking}$"): class_weights(y)
    else: np.testing.assert_allclose(class_weights(y), compute_class_weight("balanced", classes=np.unique(labels), y=labels), rtol=1e-5)


@pytest.mark.parametrize("function", [random_oversample, random_undersample, smote, tomek_links, edited_nearest_neighbours])
def test_bad_rows(function):
    x, y = torch.rand(6, 2), torch.tensor([0, 0, 0, 0, 1, 1])
    with pytest.raises(TypeError, match="expected two tensors, given ndarray"): function(x.numpy(), y)
    with pytest.raises(TypeError, match="class numbers of torch.int64, given torch.float32"): function(x, y.float())
    with pytest.raises(ValueError, match=r"given \(6, 2\) and \(5,\)"): function(x, y[:5])
    with pytest.raises(ValueError, match=r"given \(6, 2\) and \(6, 1\)"): function(x, y[:, None])
    with pytest.raises(ValueError, match="from 0 on, given -1"): function(x, y - 1)
    with pytest.raises(ValueError, match=r"given \(0, 2\) and \(0,\)"): function(x[:0], y[:0])


@pytest.mark.parametrize("function", [smote, tomek_links, edited_nearest_neighbours])
def test_bad_tables(function):
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"\(n, features\), given \(6, 1, 2\)"): function(torch.rand(6, 1, 2), y)
    with pytest.raises(ValueError, match="finite"): function(torch.tensor([[torch.nan]] * 6), y)
    with pytest.raises(ValueError, match="finite floats"): function(torch.ones(6, 1).long(), y)


def test_bad_numbers_of_neighbors():
    x, y = torch.rand(6, 2), torch.tensor([0, 0, 0, 0, 1, 1])
    for k in (0, 2, 5):
        with pytest.raises(ValueError, match=f"expected k from 1 to 1, the neighbors in class 1, given {k}"): smote(x, y, k)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"expected k from 1 to 5, the neighbors there are, given {k}"): edited_nearest_neighbours(x, y, k)


# ---- images

IMAGES = [random_crop, random_rotation, random_flip, random_brightness, add_noise]


@each_dtype
@pytest.mark.parametrize("change", IMAGES)
def test_a_change_keeps_shape_type_and_source(change, dtype):
    x = torch.rand(4, 3, 8, 6, dtype=dtype)
    before = x.clone()
    new = change(x, generator=rng_of(3))
    assert new.shape == x.shape and new.dtype == dtype and x.equal(before) and not new.equal(x)
    assert new.equal(change(x, generator=rng_of(3))) and not new.equal(change(x, generator=rng_of(4)))
    torch.manual_seed(3)
    assert change(x).equal(new)  # torch's own generator, in the same state
    state = torch.get_rng_state()
    change(x, generator=rng_of(0))
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("change", IMAGES)
def test_changes_say_what_is_wrong(change):
    with pytest.raises(ValueError, match=r"\(n, channels, h, w\), given \(3, 8, 8\)"): change(torch.rand(3, 8, 8))
    with pytest.raises(TypeError, match="expected a float tensor, given a tensor of torch.uint8"): change(torch.ones(1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(TypeError, match="given ndarray"): change(np.ones((1, 1, 2, 2)))


def test_flip():
    x = torch.rand(2000, 1, 2, 3)
    flipped = (random_flip(x, 0.3, rng_of(0)) == x.flip(3)).flatten(1).all(1)
    kept = (random_flip(x, 0.3, rng_of(0)) == x).flatten(1).all(1)
    assert (flipped ^ kept).all() and 0.26 < flipped.float().mean() < 0.34
    assert 0.45 < (random_flip(x, generator=rng_of(0)) == x.flip(3)).flatten(1).all(1).float().mean() < 0.55


@given(st.integers(1, 4), st.integers(0, 10 ** 6))
def test_crop_is_a_window_of_the_framed_image(padding, seed):
    x = torch.rand(5, 2, 6, 4)
    framed = torch.nn.functional.pad(x, (padding,) * 4)
    for new, source in zip(random_crop(x, padding, rng_of(seed)), framed):
        windows = [source[:, i:i + 6, j:j + 4] for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
        assert any(new.equal(w) for w in windows)


def test_crop_reaches_every_place_equally():
    x = torch.zeros(9000, 1, 3, 3)
    x[:, 0, 1, 1] = 1
    new = random_crop(x, 1, rng_of(0))
    assert (new.mean(0) - 1 / 9).abs().max() < 0.015 and random_crop(x[:3], 0, rng_of(0)).equal(x[:3])


@given(angle=st.floats(-180, 180), shape=st.sampled_from([(7, 7), (6, 10), (9, 4)]))
def test_rotation_is_torchvisions(angle, shape):
    import torchvision.transforms.v2.functional as tv
    x = torch.rand(2, 3, *shape, dtype=torch.float64, generator=rng_of(0))
    expected = tv.rotate(x, angle, interpolation=tv.InterpolationMode.BILINEAR)
    turned = preparation._rotate(x, torch.tensor([angle, -angle]).double().deg2rad())
    inside = preparation._rotate(torch.ones_like(x), torch.tensor([angle, -angle]).double().deg2rad())[0] > 0.999
    torch.testing.assert_close(turned[0][inside], expected[0][inside], rtol=1e-3, atol=1e-3)  # at the rim they weigh zeros alike but round apart


def test_angles_are_uniform_and_each_images_own():
    x = torch.zeros(4000, 1, 41, 41)
    x[:, 0, 20, 36:] = 1  # a hand that points to the right
    new = random_rotation(x, 40, rng_of(0))[:, 0]
    grid = torch.arange(41.0) - 20
    angle = torch.atan2(-(new.sum(2) * grid).sum(1), (new.sum(1) * grid).sum(1)).rad2deg()
    assert angle.abs().max() < 41 and angle.std() == pytest.approx(80 / 12 ** 0.5, rel=0.04) and angle.mean().abs() < 1.5
    assert len(angle.round(decimals=1).unique()) > 300
    torch.testing.assert_close(random_rotation(x[:2], 0), x[:2])


def test_brightness_and_noise():
    x = torch.full((5000, 2, 2, 2), 0.5)
    factor = random_brightness(x, 0.4, rng_of(0)) / 0.5
    assert (factor == factor[:, :1, :1, :1]).all() and 0.6 <= factor.min() < 0.62 and 1.38 < factor.max() <= 1.4
    assert factor.mean() == pytest.approx(1, abs=0.01)
    assert random_brightness(torch.ones(50, 1, 1, 1), 0.4, rng_of(0)).max() == 1
    noise = add_noise(x, 0.2, rng_of(0)) - x
    assert noise.mean().abs() < 0.005 and noise.std() == pytest.approx(0.2, rel=0.02) and add_noise(x, 0).equal(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_with_either_generator():
    x = torch.rand(4, 1, 8, 8)
    for change in IMAGES:
        torch.testing.assert_close(change(x.cuda(), generator=rng_of(0)).cpu(), change(x, generator=rng_of(0)), rtol=1e-4, atol=1e-5)
        assert change(x.cuda(), generator=torch.Generator("cuda").manual_seed(0)).is_cuda and change(x.cuda()).is_cuda
    x, y = torch.randn(60, 3), (torch.arange(60) < 12).long()
    for function in (random_oversample, random_undersample, smote):
        for here, there in zip(function(x, y), function(x.cuda(), y.cuda())): torch.testing.assert_close(here, there.cpu())
    for function in (tomek_links, edited_nearest_neighbours): assert function(x, y).equal(function(x.cuda(), y.cuda()).cpu())
    assert class_weights(y.cuda()).is_cuda
    for make in (StandardScaler, MinMaxScaler, RobustScaler): torch.testing.assert_close(make().fit_transform(x), make().fit_transform(x.cuda()).cpu())


def test_augmentation_goes_through_the_loaders():
    from dlbook.kit.data import digits
    rng = rng_of(0)
    dls = digits().dls(bs=50, device="cpu", augment=lambda batch: (add_noise(random_crop(batch[0], 1, rng), 0.1, rng), batch[1]))
    plain = digits().dls(bs=50, device="cpu")
    (x, y), (plain_x, plain_y) = dls.one_batch(), plain.one_batch()
    assert (y == plain_y).all() and not torch.Tensor(x).equal(torch.Tensor(plain_x))
    assert torch.Tensor(dls.valid.one_batch()[0]).equal(torch.Tensor(plain.valid.one_batch()[0]))


# ---- text

WORDS = st.lists(st.sampled_from("the quick brown fox jumps over a lazy dog".split()), max_size=20)


@given(WORDS, st.floats(0, 1), st.integers(0, 999))
def test_text_changes_keep_what_they_promise(words, p, seed):
    before = list(words)
    dropped = word_dropout(words, p, rng_of(seed))
    rest = iter(words)
    assert all(word in rest for word in dropped) and bool(dropped) == bool(words)  # in the old order
    assert sorted(word_swap(words, seed % 4, rng_of(seed))) == sorted(words)
    table = {"quick": ["fast", "swift"], "dog": ["hound"]}
    new = synonym_replacement(words, table, p, rng_of(seed))
    assert len(new) == len(words) and all(b == a or b in table.get(a, ()) for a, b in zip(words, new))
    assert words == before
    for change in (lambda: word_dropout(words, p, rng_of(seed)), lambda: word_swap(words, 2, rng_of(seed)),
                   lambda: synonym_replacement(words, table, p, rng_of(seed))): assert change() == change()


def test_text_shares():
    words = [f"w{i}" for i in range(10000)]
    assert 8900 < len(word_dropout(words, generator=rng_of(0))) < 9100 and len(word_dropout(words, 0.7, rng_of(0))) == pytest.approx(3000, abs=150)
    moved = word_swap(words, 1, rng_of(0))
    assert sum(a != b for a, b in zip(words, moved)) == 2
    assert sum(a != b for a, b in zip(words, word_swap(words, 50, rng_of(0)))) > 90
    table = {word: ["a", "b", "c"] for word in words}
    counts = {name: synonym_replacement(words, table, 0.6, rng_of(0)).count(name) for name in "abc"}
    assert all(1850 < n < 2150 for n in counts.values()), counts
    assert synonym_replacement(["Dog", "cat"], {"dog": ["hound"]}, 1) == ["hound", "cat"] and synonym_replacement(["x"], {"x": []}, 1) == ["x"]
    assert word_dropout(["one"], 1) == ["one"] and word_dropout([], 0.5) == [] == word_swap([]) and word_swap(["one"]) == ["one"]
    assert len({word_dropout(["a", "b"], 1, rng_of(s))[0] for s in range(20)}) == 2
    for change in (word_dropout, word_swap, lambda text: synonym_replacement(text, {})):
        with pytest.raises(TypeError, match="expected a list of words, given a str"): change("a text")


# ---- cleaning

def a_table(): return pd.DataFrame({"a": ["1,5", " 2.5 ", "x", None, "4", "4"], "b": [1.0, 2, 3, np.nan, 1e6, 1e6], "word": ["u", "v", "u", None, "w", "w"],
                                    "y": [0, 1, 0, 1, 1, 1]}, index=[10, 11, 12, 13, 14, 15])


def test_clean_step_by_step():
    table = a_table()
    result, report = clean(table, target="y", steps=("types",))
    assert result["a"].tolist()[:2] == [1.5, 2.5] and result["a"].isna().tolist() == [False, False, True, True, False, False]
    assert report.values.tolist() == [["types", "a", 4, "text to numbers"], ["types", "a", 1, "not numbers, now missing: x"]]
    result, report = clean(table, steps=("duplicates",))
    assert list(result.index) == [10, 11, 12, 13, 14] and report.values.tolist() == [["duplicates", "(rows)", 1, "equal to an earlier row, left out"]]
    train = [True, True, True, False, False, False]
    result, report = clean(table, train, steps=("outliers",))
    assert result["b"].tolist()[:3] == [1, 2, 3] and result["b"].iloc[4] == 2.5 + 3 and report["changed"].tolist() == [2]
    result, report = clean(table, train, fence=1, steps=("outliers",))
    assert result["b"].iloc[4] == 2.5 + 1
    result, report = clean(table, train, steps=("missing",))
    assert result["b"].iloc[3] == 2 and result["word"].iloc[3] == "missing" and result["a"].iloc[3] == "missing"
    assert report["step"].tolist() == ["missing"] * 3 and report["changed"].tolist() == [1, 1, 1]
    result, report = clean(table, drop=("b", "word"), steps=())
    assert list(result) == ["a", "y"] and report[["step", "column", "changed"]].values.tolist() == [["drop", "b", 6], ["drop", "word", 6]]
    pd.testing.assert_frame_equal(table, a_table())  # the table stays as it is


def test_training_rows_stay_training_rows_when_duplicates_go():
    table = pd.DataFrame({"a": [1.0, 1, 2, 3, 700, np.nan]})
    result, _ = clean(table, train=[True, True, True, True, False, False])
    assert result["a"].tolist() == [1, 2, 3, 2.5 + 3, 2] and list(result.index) == [0, 2, 3, 4, 5]


def test_clean_all_at_once():
    result, report = clean(a_table(), train=np.array([True, True, True, False, False, False]), target="y")
    assert list(result.index) == [10, 11, 12, 13, 14] and result["y"].tolist() == [0, 1, 0, 1, 1]
    assert result["a"].tolist() == [1.5, 2.5, 2.0, 2.0, 2.25 + 3 * 0.5]  # the quartiles of 1.5 and 2.5 are 1.75 and 2.25
    assert not result.isna().any().any() and list(dict.fromkeys(report["step"])) == ["types", "duplicates", "outliers", "missing"]


@given(st.integers(0, 10 ** 6), st.integers(5, 40))
def test_nothing_but_training_rows_sets_the_rules(seed, n):
    "What stands in other rows changes no training row, and every changed cell is counted."
    rng = np.random.RandomState(seed)
    table = pd.DataFrame(rng.randn(n, 3), columns=list("abc"))
    table = table.mask(rng.rand(n, 3) < 0.2)
    table.iloc[0] = 0.0
    train = np.arange(n) < max(2, n // 2)
    other = table.copy()
    other.loc[~train] = other.loc[~train] * 100 + 7
    (one, report), (two, _) = clean(table, train, steps=("outliers", "missing")), clean(other, train, steps=("outliers", "missing"))
    pd.testing.assert_frame_equal(one[train], two[train])
    changed = ((one != table) & ~(one.isna() & table.isna())).sum().sum()
    assert changed == report["changed"].sum() and not one.isna().any().any()
    for name in table: assert (one.loc[table[name].isna(), name] == table.loc[train, name].clip(one[name].min(), one[name].max()).median()).all()


def test_clean_leaves_the_target_and_words_alone():
    table = pd.DataFrame({"word": ["red", "8", "blue", "red"], "y": ["1", "2", None, "1000"], "rare": [0.0, 0, 0, 1], "flag": [True, False, True, True]})
    result, report = clean(table, target="y")
    pd.testing.assert_frame_equal(result, table)
    assert len(report) == 0
    seldom = pd.DataFrame({"seldom": [0.0] * 20 + [1.0]})  # its quartiles are equal: they set no scale
    assert clean(seldom, steps=("outliers",))[0]["seldom"].sum() == 1
    wild = pd.DataFrame({"a": [1.0, 2, 3, np.inf, -np.inf]})
    assert clean(wild)[0]["a"].tolist() == [1, 2, 3, 5.5, -1.5]


def test_clean_says_what_is_wrong():
    table = a_table()
    with pytest.raises(TypeError, match="expected a pandas DataFrame, given ndarray"): clean(table.to_numpy())
    with pytest.raises(TypeError, match="tuples of names for drop and steps"): clean(table, drop="a")
    with pytest.raises(TypeError, match="tuples of names for drop and steps"): clean(table, steps="types")
    with pytest.raises(ValueError, match="expected steps among .*, given 'scale'"): clean(table, steps=("scale",))
    for arguments in ({"drop": ("z",)}, {"target": "z"}):
        with pytest.raises(ValueError, match="expected a column of the table, given 'z'"): clean(table, **arguments)
    with pytest.raises(ValueError, match=r"6 booleans, given bool of shape \(3,\)"): clean(table, train=[True] * 3)
    with pytest.raises(ValueError, match="6 booleans, given int"): clean(table, train=[1] * 6)
    with pytest.raises(ValueError, match="at least one training row"): clean(table, train=[False] * 6)
    with pytest.raises(ValueError, match="expected values of 'b' in the training rows, given none: drop it"):
        clean(table, train=[False, False, False, True, False, False], drop=("a",))


# ---- exercises: wrong answers that differ from the registered mistakes, and a part of the message

WRONG = [
    ("07.1", lambda y, said: torch.zeros(3), "should be"), ("07.1", lambda y, said: (y == said).float().mean(), "should have shape"),
    ("07.2", lambda x, train: x, "should have shape"), ("07.2", lambda x, train: torch.cat([x, x], 1), "the table should be"),
    ("07.2", lambda x, train: find("07.2").reference(x.nan_to_num_(0.0), train), "changes its argument x in place"),
    ("07.4", lambda groups, k: torch.zeros_like(groups), "the fold should be"), ("07.4", lambda groups, k: groups.unique(), "should have shape"),
    ("07.5", lambda p, y: y.float().mean(), "the area should be"), ("07.5", lambda p, y: p, "should have shape"),
    ("07.6", lambda p, y, cost_fp, cost_fn: 0.5, "the threshold should be"), ("07.6", lambda p, y, cost_fp, cost_fn: p.max(), "the threshold should be"),
    ("07.3", lambda x, y, classes, other, lam: x, "2 values"), ("07.3", lambda x, y, classes, other, lam: (x, find("07.3").reference(x, y, classes, other, lam)[1]), "the mixed inputs should be"),
]


@pytest.mark.parametrize("id, answer, message", WRONG)
def test_wrong_answers_are_named(id, answer, message):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and message in verdict.line, verdict


@given(st.integers(0, 10 ** 6), st.integers(2, 30))
def test_the_references_are_scikit_learns(seed, n):
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support
    rng = rng_of(seed)
    y, said = (torch.randint(0, 2, (n,), generator=rng) for _ in range(2))
    expected = precision_recall_fscore_support(y, said, average="binary", zero_division=0)[:3]
    np.testing.assert_allclose(find("07.1").reference(y, said), expected, atol=1e-6)
    p, y[0] = torch.randperm(n, generator=rng) / n, 1
    assert find("07.5").reference(p, y).item() == pytest.approx(average_precision_score(y, p), abs=1e-6)


def test_import_needs_no_plotting():
    code = "import sys, dlbook.preparation; print([m for m in ('matplotlib', 'fastai', 'imblearn', 'sklearn', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
