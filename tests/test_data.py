"""The kit's datasets: shapes, splits, origin, reproducibility, and downloads that go wrong."""
import functools
import gzip
import hashlib
import http.server
import io
import math
import os
import random
import subprocess
import sys
import tarfile
import threading
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbook.kit import data

ROOT = Path(__file__).parents[1]
CLASSIFICATION = [data.digits, data.breast_cancer, data.wine, data.iris, data.mnist1d,
                  functools.partial(data.glyphs, 720)]
EVERY = [*CLASSIFICATION, data.diabetes, data.photos, data.pydocs]
SIZES = {'digits': 1797, 'breast_cancer': 569, 'wine': 178, 'iris': 150, 'diabetes': 442, 'mnist1d': 5000}


def name_of(make): return getattr(make, '__name__', 'glyphs')


# The datasets

@pytest.mark.parametrize('make', EVERY, ids=name_of)
def test_same_every_time_and_independent(make):
    first = make()
    before = [t.clone() for split in (first.train, first.valid, first.test) for t in split]
    second = make()
    after = [t for split in (second.train, second.valid, second.test) for t in split]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    first.train.x.zero_()
    assert torch.equal(make().train.x, before[0])


@pytest.mark.parametrize('make', EVERY, ids=name_of)
def test_names_and_origin(make):
    d = make()
    assert d.source and d.license and d.name in repr(d)
    assert len(d.train.x) == len(d.train.y) and len(d.test.x) == len(d.test.y) and len(d.valid.x) == len(d.valid.y)
    if d.features: assert len(d.features) == d.train.x.shape[1]
    if d.classes: assert d.train.y.dtype == torch.int64 and 0 <= d.train.y.min() and d.train.y.max() < len(d.classes)
    with pytest.raises(FrozenInstanceError): d.train = d.test


@pytest.mark.parametrize('make', CLASSIFICATION, ids=name_of)
def test_splits_are_stratified(make):
    d = make()
    splits = (d.train, d.valid) if d.name == 'mnist1d' else (d.train, d.valid, d.test)  # its test split is as published
    every = torch.cat([s.y for s in splits]).bincount(minlength=len(d.classes))
    for split in splits:
        expected = every * len(split.y) / every.sum()
        assert (split.y.bincount(minlength=len(d.classes)) - expected).abs().max() < 2
    assert d.train.x.dtype == torch.float32


@pytest.mark.parametrize('name', SIZES)
def test_every_row_of_the_source_is_in_exactly_one_split(name):
    d = getattr(data, name)()
    x = torch.cat([d.train.x, d.valid.x, d.test.x]).flatten(1)
    assert len(x) == SIZES[name]
    if name == 'mnist1d':
        raw = data._mnist1d_arrays()
        source = torch.tensor(np.concatenate([raw['x'], raw['x_test']]), dtype=torch.float32)
    else:
        import sklearn.datasets
        kw = {'scaled': False} if name == 'diabetes' else {}
        source = torch.tensor(getattr(sklearn.datasets, f'load_{name}')(**kw).data, dtype=torch.float32)
        if name == 'digits': source /= 16
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, source.tolist()))


def test_labels_stay_with_their_rows():
    from sklearn.datasets import load_iris
    raw = load_iris()
    pairs = {(*np.float32(row).tolist(), int(label)) for row, label in zip(raw.data, raw.target)}
    d = data.iris()
    for split in (d.train, d.valid, d.test):
        assert all((*row, label) in pairs for row, label in zip(split.x.tolist(), split.y.tolist()))


def test_regression_targets_are_spread_over_the_splits():
    d = data.diabetes()
    assert d.classes == () and d.train.y.shape == (len(d.train.x), 1) and d.train.y.dtype == torch.float32
    means = torch.stack([s.y.mean() for s in (d.train, d.valid, d.test)])
    assert means.max() - means.min() < 5  # the standard deviation is 77


def test_mnist1d_is_the_published_set_and_leaves_the_random_state():
    np.random.seed(7)
    random.seed(7)
    expected = np.random.rand(), random.random()
    np.random.seed(7)
    random.seed(7)
    data._mnist1d_arrays.cache_clear()
    d = data.mnist1d()
    assert (np.random.rand(), random.random()) == expected
    assert len(d.train.x) == 3600 and len(d.valid.x) == 400 and d.test.x.shape == (1000, 1, 40)


def test_mnist1d_prints_nothing(capfd):
    data._mnist1d_arrays.cache_clear()
    data.mnist1d()
    assert capfd.readouterr().out == ''


def test_photos_are_the_pictures():
    from sklearn.datasets import load_sample_images
    x = data.photos().train.x
    for i, image in enumerate(load_sample_images().images):
        assert torch.equal((x[i] * 255).round().byte(), torch.tensor(image).permute(2, 0, 1))
    with pytest.raises(ValueError, match='valid'): data.photos().dls()


def test_standardized_uses_the_training_split_only():
    for d in (data.breast_cancer(), data.mnist1d(), data.digits()):
        dims = [i for i in range(d.train.x.dim()) if i != 1]
        mean, std = d.train.x.double().mean(dims, keepdim=True), d.train.x.double().std(dims, correction=0, keepdim=True)
        scaled = d.standardized()
        for before, after in zip((d.train, d.valid, d.test), (scaled.train, scaled.valid, scaled.test)):
            torch.testing.assert_close(after.x.double(), (before.x - mean) / std, rtol=1e-3, atol=1e-3)
            assert torch.equal(before.y, after.y)
    with pytest.raises(TypeError): data.pydocs().standardized()


def test_standardized_leaves_a_constant_feature_finite():
    x = torch.rand(10, 2)
    x[:, 1] = 1234.567
    split = data.Split(x, torch.zeros(10).long())
    out = data.Dataset('toy', split, split, split).standardized()
    assert out.train.x.isfinite().all() and out.train.x[:, 1].abs().max() < 0.01


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.sampled_from([(0.6, 0.2, 0.2), (0.9, 0.1), (1.0,)]),
       st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_stratified_split_is_a_partition_and_fair(y, fractions, seed):
    parts = data.stratified_split(y, fractions, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(y)))
    for part, fraction in zip(parts, fractions):
        assert abs(len(part) - fraction * len(y)) < 1 + 1e-6
        for label in set(y):
            assert abs(sum(y[i] == label for i in part) - fraction * y.count(label)) < 2 + 1e-6


def test_stratified_split_refuses_bad_fractions():
    for fractions in ((0.5, 0.6), (1.2, -0.2)):
        with pytest.raises(ValueError, match='fractions'): data.stratified_split([0, 1], fractions)


# Glyphs

@pytest.mark.parametrize('n', [10, 37, 1000, 1001])
def test_glyphs_are_balanced(n):
    d = data.glyphs(n)
    ys = [d.train.y, d.valid.y, d.test.y]
    assert sum(map(len, ys)) == n and len(ys[1]) == len(ys[2]) == n // 10
    for y in (*ys, torch.cat(ys)):
        count = y.bincount(minlength=36)
        assert count.max() - count.min() <= 1


def test_glyphs_depend_on_the_seed_alone():
    torch.manual_seed(1)
    a, state = data.glyphs(200, seed=5), torch.random.get_rng_state()
    torch.manual_seed(2)
    b = data.glyphs(200, seed=5)
    assert all(torch.equal(s, t) for s, t in zip(a.train + a.valid + a.test, b.train + b.valid + b.test))
    assert not torch.equal(a.train.x, data.glyphs(200, seed=6).train.x)
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_glyphs_are_readable_and_not_cut_off():
    d = data.glyphs(3000, seed=3)
    x = d.train.x
    assert x.shape[1:] == (1, 28, 28) and x.min() >= 0 and x.max() <= 1
    edge = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], -1)
    assert edge.max() < 0.55  # noise reaches that; ink is brighter
    assert (x > 0.55).flatten(1).sum(1).min() >= 8  # every picture has ink
    # One nearest neighbor beats chance (1 in 36) by far only if the pictures show what their label says.
    nearest = torch.cdist(d.test.x.flatten(1), x.flatten(1)).argmin(1)
    assert (d.train.y[nearest] == d.test.y).float().mean() > 0.5


def test_glyphs_vary():
    d = data.glyphs(500, chars='O')
    assert len(torch.unique(d.train.x.flatten(1), dim=0)) == len(d.train.x)
    position = torch.arange(28.) - 13.5
    ink = d.train.x[:, 0] * (d.train.x[:, 0] > 0.4)
    center = (ink.sum(1) * position).sum(1) / ink.sum((1, 2))
    assert 0.5 < center.std() < 3 and center.mean().abs() < 0.5


def test_glyphs_of_other_characters():
    d = data.glyphs(60, chars='abcxyz')
    assert d.classes == tuple('abcxyz') and d.train.y.max() == 5


@pytest.mark.parametrize('args, message', [
    ((9,), 'at least 10'), ((10.0,), 'whole number'), ((20, 0, ''), 'letters'), ((20, 0, 'AA'), 'different'),
    ((20, 0, 'Aä'), 'letters'), ((20, 0, 'A-'), 'letters')])
def test_glyphs_refuse_bad_input(args, message):
    with pytest.raises(ValueError, match=message): data.glyphs(*args)


# Text

def test_text_is_shifted_by_one_and_decodes():
    t = data.pydocs()
    for split in (t.train, t.valid, t.test):
        assert torch.equal(split.x[1:], split.y[:-1]) and split.x.dtype == torch.int64
    text = t.decode(t.valid.x[:500])
    assert torch.equal(t.encode(text), t.valid.x[:500]) and 'the' in t.decode(t.train.x)
    assert t.encode('').shape == (0,) and t.decode([]) == ''
    with pytest.raises(ValueError, match="'\\\\u2603'|☃"): t.encode('☃')
    with pytest.raises(ValueError, match='got -1'): t.decode([-1])
    with pytest.raises(ValueError): t.decode([len(t.classes)])


def test_pydocs_covers_the_topics_in_fair_shares_without_leaks():
    from pydoc_data.topics import topics
    t = data.pydocs()
    parts = [t.decode(torch.cat([s.x, s.y[-1:]])) for s in (t.train, t.valid, t.test)]
    size = sum(map(len, topics.values()))
    for part, share in zip(parts, (0.8, 0.1, 0.1)): assert abs(len(part) / size - share) < 0.03
    for topic in topics.values(): assert sum(topic.strip('\n') in part for part in parts) >= 1
    paragraphs = [{' '.join(p.split()) for p in part.split('\n\n')} for part in parts]
    long = [{p for p in ps if len(p) >= 60} for ps in paragraphs]
    assert not long[0] & long[1] and not long[0] & long[2] and not long[1] & long[2]
    assert f'{sys.version_info.major}.{sys.version_info.minor}' in t.source


def test_windows_do_not_overlap():
    t = data.pydocs()
    x, y = t.windows('valid', 50)
    assert torch.equal(x.flatten(), t.valid.x[:x.numel()]) and torch.equal(y.flatten(), t.valid.y[:y.numel()])
    assert len(x) == len(t.valid.x) // 50
    with pytest.raises(ValueError, match='train, valid or test'): t.windows('dev')
    for length in (0, 10**9):
        with pytest.raises(ValueError, match='length'): t.windows('valid', length)


# What importing costs

def test_import_is_light():
    code = ('import sys, dlbook.kit.data as d\n'
            'heavy = {"fastai", "sklearn", "mnist1d", "matplotlib", "PIL", "pooch", "filelock"} & set(sys.modules)\n'
            'assert not heavy, heavy')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


# Larger sets, without the internet

class Server(http.server.ThreadingHTTPServer):
    "Serves `files`; a name in `broken` is cut off half way that many times first, one in `wrong` has other bytes."

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.broken, self.wrong, self.requests = {}, {}, set(), []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, name): return f'http://127.0.0.1:{self.server_address[1]}/{name}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip('/')
        self.server.requests.append(name)
        if name not in self.server.files: return self.send_error(404)
        content = self.server.files[name]
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if self.server.broken.get(name, 0):
            self.server.broken[name] -= 1
            content = content[:len(content) // 2]
        if name in self.server.wrong: content = content[:-9] + bytes(255 - b for b in content[-9:])
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, *args): pass


@pytest.fixture
def server():
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty fastai home, and no DLBOOK_DATA."
    from fastai.data.external import fastai_cfg
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path / 'fastai'))
    monkeypatch.delenv('DLBOOK_DATA', raising=False)
    fastai_cfg.cache_clear()
    yield tmp_path / 'fastai'
    fastai_cfg.cache_clear()


def archive(*members, mode='w:gz'):
    "A tar file; a member is (name, bytes) or a TarInfo."
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def publish(server, monkeypatch, content, file='toy.tgz', **known):
    "Put `content` on the server, and into the list of sets as 'toy'."
    server.files[file] = content
    known = known or {'head': hashlib.md5(content[:2**20]).hexdigest()}
    remote = data.Remote(server.url(file), len(content), **known)
    monkeypatch.setitem(data.REMOTES, 'toy', (remote,))
    return remote


def left_in(folder):
    "Everything below `folder` but fastai's configuration and the empty lock."
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*')
                  if p.name != 'config.ini' and not p.name.endswith('.lock') and not p.is_dir())


def folders_in(folder): return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


GOOD = archive(('toy/train/a.txt', b'a' * 3_000_000), ('toy/train/b.txt', os.urandom(2_000_000)))


def test_fetch_downloads_once_and_untar_data_finds_it(server, home, monkeypatch):
    from fastai.data.external import untar_data
    remote = publish(server, monkeypatch, GOOD)
    path = data.fetch('toy')
    assert (path / 'train' / 'a.txt').read_bytes() == b'a' * 3_000_000
    assert data.fetch('toy') == path and Path(untar_data(remote.url)) == path
    assert server.requests == ['toy.tgz'] and path == home / 'data' / 'toy'


def test_a_set_that_fastai_downloaded_is_used(server, home, monkeypatch):
    from fastai.data.external import untar_data
    remote = publish(server, monkeypatch, GOOD)
    path = Path(untar_data(remote.url))
    count = len(server.requests)
    assert data.fetch('toy') == path and len(server.requests) == count


def test_a_cut_download_leaves_nothing_and_the_second_try_works(server, home, monkeypatch):
    publish(server, monkeypatch, GOOD)
    server.broken['toy.tgz'] = 1
    with pytest.raises(data.DownloadError) as error: data.fetch('toy')
    assert 'toy.tgz' in str(error.value) and 'try again' in str(error.value) and 'DLBOOK_DATA' in str(error.value)
    assert left_in(home) == [] and folders_in(home / 'data') == []
    assert (data.fetch('toy') / 'train' / 'a.txt').exists()


@pytest.mark.parametrize('known', ['digest', 'head', 'crc'])
def test_wrong_bytes_are_found_before_anything_is_unpacked(server, home, monkeypatch, known):
    "By a hash of the whole file, or only by the checksum inside the archive, or by the first megabyte."
    content = GOOD
    if known == 'digest': publish(server, monkeypatch, content, digest='sha256:' + hashlib.sha256(content).hexdigest())
    if known == 'crc': publish(server, monkeypatch, content, head=hashlib.md5(content[:2**20]).hexdigest())
    if known == 'head': publish(server, monkeypatch, content, head=hashlib.md5(b'other').hexdigest())
    else: server.wrong.add('toy.tgz')
    unpacked = []
    monkeypatch.setattr(data, 'unpack', lambda *args: unpacked.append(args))
    with pytest.raises(data.DownloadError, match='toy.tgz'): data.fetch('toy')
    assert not unpacked and left_in(home) == [] and folders_in(home / 'data') == []


def test_too_short_and_not_found_are_download_errors(server, home, monkeypatch):
    publish(server, monkeypatch, GOOD)
    server.files['toy.tgz'] = GOOD[:-1]
    with pytest.raises(data.DownloadError, match=f'{len(GOOD):,} bytes and has {len(GOOD) - 1:,}'): data.fetch('toy')
    del server.files['toy.tgz']
    with pytest.raises(data.DownloadError, match='404.*toy.tgz|toy.tgz.*404'): data.fetch('toy')
    server.shutdown()
    server.server_close()
    with pytest.raises(data.DownloadError, match='toy.tgz'): data.fetch('toy')
    assert left_in(home) == []


def test_a_broken_archive_of_an_earlier_program_is_replaced(server, home, monkeypatch):
    publish(server, monkeypatch, GOOD)
    (home / 'archive').mkdir(parents=True)
    (home / 'archive' / 'toy.tgz').write_bytes(GOOD[:1000])
    assert data.fetch('toy').is_dir() and server.requests == ['toy.tgz']


def test_leftovers_of_a_killed_process_are_removed(server, home, monkeypatch):
    publish(server, monkeypatch, GOOD)
    (home / 'data' / '.toy-killed').mkdir(parents=True)
    data.fetch('toy')
    assert folders_in(home / 'data') == ['toy']


def evil(name, kind=tarfile.REGTYPE, link=''):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize('member', [
    evil('../evil'), evil('toy/../../evil'), evil('/tmp/dlbook-evil'), evil('..\\evil'), evil('C:\\evil'), evil('C:evil'),
    evil('\\evil'), evil('toy/link', tarfile.SYMTYPE, '../..'), evil('toy/link', tarfile.SYMTYPE, '/etc'),
    evil('toy/link', tarfile.LNKTYPE, '/etc/passwd'), evil('toy/pipe', tarfile.FIFOTYPE),
    evil('toy/device', tarfile.CHRTYPE)], ids=lambda m: f'{m.name}-{m.linkname}')
def test_an_archive_that_leaves_its_folder_is_refused_whole(server, home, monkeypatch, member):
    publish(server, monkeypatch, archive(('toy/good', b'1'), member, ('toy/late', b'2')))
    with pytest.raises(data.DownloadError, match='toy.tgz was not unpacked'): data.fetch('toy')
    assert left_in(home) == ['archive/toy.tgz'] and folders_in(home / 'data') == []
    assert not any(p.name == 'evil' for p in home.parent.rglob('*'))


def test_unpack_refuses_the_same_name_twice_and_garbage(tmp_path):
    for name, content in (('twice.tgz', archive(('a', b'1'), ('a', b'2'))), ('cut.tgz', GOOD[:len(GOOD) // 2]),
                          ('noise.tgz', b'no archive at all'),
                          ('under.tgz', archive(('a', b'1'), ('a/b', b'2')))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(data.DownloadError, match=name): data.unpack(tmp_path / name, tmp_path / 'out' / 'x')
        assert folders_in(tmp_path / 'out') == []


def test_unpack_keeps_several_roots_and_ignores_modes(tmp_path):
    info = tarfile.TarInfo('b/run.sh')
    info.mode = 0o6777
    (tmp_path / 'x.tar').write_bytes(archive(('a.txt', b'1'), info, mode='w'))
    target = data.unpack(tmp_path / 'x.tar', tmp_path / 'out')
    assert (target / 'a.txt').read_bytes() == b'1'
    if os.name == 'posix': assert (target / 'b' / 'run.sh').stat().st_mode & 0o6111 == 0


def test_two_at_once_download_once(server, home, monkeypatch):
    publish(server, monkeypatch, GOOD)
    found, errors = [], []

    def get():
        try: found.append(data.fetch('toy'))
        except Exception as error: errors.append(error)

    threads = [threading.Thread(target=get) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not errors and len(set(found)) == 1 and server.requests == ['toy.tgz']


def test_the_readers_folder_comes_first(server, home, monkeypatch, tmp_path):
    publish(server, monkeypatch, GOOD)
    folder = tmp_path / 'mine'
    folder.mkdir()
    monkeypatch.setenv('DLBOOK_DATA', str(folder))
    (folder / 'toy.tgz').write_bytes(GOOD[:-5])
    with pytest.raises(data.DownloadError, match='mine.*toy.tgz'): data.fetch('toy')
    (folder / 'toy.tgz').write_bytes(GOOD)
    assert data.fetch('toy') == home / 'data' / 'toy'
    (folder / 'toy').mkdir()
    assert data.fetch('toy') == folder / 'toy'
    assert server.requests == []
    monkeypatch.setenv('DLBOOK_DATA', str(folder / 'absent'))
    with pytest.raises(data.DownloadError, match='DLBOOK_DATA'): data.fetch('toy')


def test_several_files_come_together_or_not_at_all(server, home, monkeypatch):
    parts = {n: gzip.compress(n.encode() * 1000) for n in ('one.gz', 'two.gz')}
    server.files.update(parts)
    monkeypatch.setitem(data.REMOTES, 'pair', tuple(
        data.Remote(server.url(n), len(c), 'md5:' + hashlib.md5(c).hexdigest()) for n, c in parts.items()))
    server.broken['two.gz'] = 1
    with pytest.raises(data.DownloadError, match='two.gz'): data.fetch('pair')
    assert left_in(home) == [] and folders_in(home / 'data') == []
    mine = home.parent / 'mine'
    mine.mkdir()
    (mine / 'one.gz').write_bytes(parts['one.gz'])
    monkeypatch.setenv('DLBOOK_DATA', str(mine))
    server.requests.clear()
    assert folders_in(data.fetch('pair')) == ['one.gz', 'two.gz'] and server.requests == ['two.gz']


def test_unknown_set():
    with pytest.raises(ValueError, match='mnist.*imdb'): data.fetch('minst')


def test_every_published_file_has_something_to_check_it_by():
    from fastai.data.download_checks import __doc__  # noqa: F401  the file is a plain dictionary
    import fastai.data
    checks = eval((Path(fastai.data.__file__).parent / 'download_checks.py').read_text())
    for remotes in data.REMOTES.values():
        for r in remotes:
            assert r.size > 0 and (r.digest or r.head)
            if r.head: assert checks[r.url] == (r.size, r.head)
            elif r.url in checks: assert checks[r.url][0] == r.size


def images(folder, per_class, mode, size):
    from PIL import Image
    rng = np.random.RandomState(0)
    for label in '0123456789':
        (folder / label).mkdir(parents=True)
        for i in range(per_class):
            shape = (size, size, 3) if mode == 'RGB' else (size, size)
            Image.fromarray(rng.randint(0, 256, shape, dtype=np.uint8), mode).save(folder / label / f'{i}.png')


@pytest.mark.parametrize('make, folder, train, test, mode, size, shape', [
    (data.mnist, 'mnist_png', 'training', 'testing', 'L', 28, (1, 28, 28)),
    (data.cifar10, 'cifar10', 'train', 'test', 'RGB', 32, (3, 32, 32))])
@pytest.mark.filterwarnings('ignore')
def test_image_folders_become_datasets(tmp_path, monkeypatch, make, folder, train, test, mode, size, shape):
    images(tmp_path / folder / train, 4, mode, size)
    images(tmp_path / folder / test, 2, mode, size)
    monkeypatch.setenv('DLBOOK_DATA', str(tmp_path))
    d = make()
    assert d.test.x.shape == (20, *shape) and len(d.train.x) + len(d.valid.x) == 40 and 0 <= d.test.x.min() <= 1
    from PIL import Image
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / folder / test / '0' / '0.png')))
    expected = pixels[None] if mode == 'L' else pixels.permute(2, 0, 1)
    assert torch.equal((d.test.x[0] * 255).round().byte(), expected)


def test_fashion_mnist_reads_idx_files(tmp_path, monkeypatch):
    folder = tmp_path / 'fashion_mnist'
    folder.mkdir()
    rng = np.random.RandomState(0)
    for part, n in (('train', 40), ('t10k', 20)):
        for kind, dims in (('images-idx3', (n, 28, 28)), ('labels-idx1', (n,))):
            header = bytes([0, 0, 8, len(dims)]) + b''.join(d.to_bytes(4, 'big') for d in dims)
            values = rng.randint(0, 10, dims).astype(np.uint8).tobytes()
            (folder / f'{part}-{kind}-ubyte.gz').write_bytes(gzip.compress(header + values))
    monkeypatch.setenv('DLBOOK_DATA', str(tmp_path))
    d = data.fashion_mnist()
    assert d.test.x.shape == (20, 1, 28, 28) and len(d.train.x) == 20 and d.test.y.max() < 10
    (folder / 't10k-labels-idx1-ubyte.gz').write_bytes(gzip.compress(header + values[:-1]))
    with pytest.raises(data.DownloadError, match='idx'): data.fashion_mnist()


def test_tinyshakespeare(monkeypatch):
    folder = Path(os.environ.get('DLBOOK_DATA') or ROOT.parent / 'shared' / 'data')
    if not (folder / 'tinyshakespeare.txt').exists(): pytest.skip(f'no tinyshakespeare.txt in {folder}')
    monkeypatch.setenv('DLBOOK_DATA', str(folder))
    t = data.tinyshakespeare()
    assert len(t.classes) == 65 and len(t.train.x) == math.floor(0.9 * 1_115_394) - 1
    assert t.decode(t.train.x[:14]) == 'First Citizen:'
    whole = ''.join(t.decode(torch.cat([s.x, s.y[-1:]])) for s in (t.train, t.valid, t.test))
    assert hashlib.sha256(whole.encode()).hexdigest() == data.REMOTES['tinyshakespeare'][0].digest.split(':')[1]
