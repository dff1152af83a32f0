"Runs that are killed and go on end with the same bits; what is broken is told; a NaN stops the run and is traced to its origin."
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook.kit.checkpoints import (CheckpointError, Checkpoints, NotFiniteError, StopOnNaN, checkpoints, first_broken_layer,
                                    read_checkpoint, write_checkpoint)
from dlbook.kit.loaders import device_dls

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    from fastai.callback.core import Callback
    from fastai.callback.mixup import MixUp
    from fastai.callback.progress import ProgressCallback
    from fastai.callback.schedule import ParamScheduler  # noqa: F401  also teaches Learner to fit_one_cycle
    from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau
    from fastai.callback.training import GradientAccumulation, GradientClip
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy
    from fastai.optimizer import SGD, Adam, OptimWrapper, RMSProp, ranger
    from fastai.torch_core import params


# A small run that is hard to resume: dropout, batch normalization, random augmentation, a part that is seldom used

class Net(nn.Module):
    "Some weights get no gradient in the first batches of an epoch; one buffer is not in the state dict."
    def __init__(self, width=6):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3))
        self.seldom, self.head = nn.Linear(width, width), nn.Linear(width, 3)
        self.register_buffer('calls', torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training: self.calls += 1
        x = self.body(x)
        return self.head(self.seldom(x) if self.calls % 3 == 0 else x)


def noisy(batch): return batch[0] + 0.1 * torch.randn_like(batch[0]) + random.random() + np.random.rand(), batch[1]


def samples(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), torch.randint(3, (n,), generator=generator)


def kit_dls(n=40): return device_dls(samples(n), samples(20, 1), bs=8, device='cpu', augment=noisy, vocab=range(3))


def fastai_dls(n=40):
    train, valid = list(zip(*samples(n))), list(zip(*samples(20, 1)))
    return DataLoaders(DataLoader(train, bs=8, shuffle=True, after_batch=noisy), DataLoader(valid, bs=8), device='cpu')


def torch_dls(n=40, generator=True):
    train, valid = list(zip(*samples(n))), list(zip(*samples(20, 1)))
    own = torch.Generator().manual_seed(5) if generator else None
    return DataLoaders(torch.utils.data.DataLoader(train, batch_size=8, shuffle=True, generator=own),
                       torch.utils.data.DataLoader(valid, batch_size=8), device='cpu')


def make_learner(dls=kit_dls, opt_func=Adam, seed=0, width=6, n=40, **kwargs):
    for seeder in (torch.manual_seed, random.seed, np.random.seed): seeder(seed)
    loaders = dls(n)  # before the model: fastai's loader takes its seed from Python's generator
    learn = Learner(loaders, Net(width), loss_func=kwargs.pop('loss_func', nn.CrossEntropyLoss()), opt_func=opt_func,
                    metrics=accuracy, **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda row: None
    return learn


class Crash(Callback):
    "Breaks the run off after some steps, or in the validation that follows them."
    order = 300
    def __init__(self, after, valid=False): self.after, self.valid, self.seen = after, valid, 0
    def after_batch(self):
        self.seen += self.learn.training
        if self.seen >= self.after and self.learn.training != self.valid: raise RuntimeError('crash')


def outcome(learn):
    "All that must be equal, as plain values."
    recorder = learn.recorder
    return {'model': learn.model.state_dict(), 'calls': learn.model.calls, 'losses': recorder.losses, 'lrs': recorder.lrs,
            'values': [list(row) for row in recorder.values], 'iters': recorder.iters, 'hps': getattr(recorder, 'hps', None),
            'next': [torch.rand(3), random.random(), np.random.rand()], 'train_iter': learn.train_iter}


def assert_same(a, b, where=''):
    assert type(a) is type(b) or isinstance(a, (float, np.floating, torch.Tensor)), where
    if isinstance(a, torch.Tensor): assert a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes(), where
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a: assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b)): assert_same(*pair, f'{where}[{i}]')
    else: assert a == b, where


def torch_opt(opt, **kwargs): return partial(OptimWrapper, opt=opt, **kwargs)


def two_groups(model): return [params(model.body), params(model.seldom) + params(model.head)]


RUNS = {
    'fit': (dict(opt_func=partial(SGD, mom=0.9)), lambda learn, cbs: learn.fit(4, 0.05, wd=0.1, cbs=cbs)),
    'one cycle': ({}, lambda learn, cbs: learn.fit_one_cycle(4, 0.05, cbs=cbs)),
    'flat cos': (dict(opt_func=partial(RMSProp, mom=0.9)), lambda learn, cbs: learn.fit_flat_cos(4, 0.05, cbs=cbs)),
    'restarts': ({}, lambda learn, cbs: learn.fit_sgdr(2, 1, 0.05, cbs=cbs)),
    'lookahead': (dict(opt_func=ranger), lambda learn, cbs: learn.fit_one_cycle(4, 0.05, cbs=cbs)),
    'torch AdamW': (dict(opt_func=torch_opt(torch.optim.AdamW)), lambda learn, cbs: learn.fit_one_cycle(4, 0.05, cbs=cbs)),
    'torch SGD': (dict(opt_func=torch_opt(torch.optim.SGD, momentum=0.9)), lambda learn, cbs: learn.fit(4, 0.05, cbs=cbs)),
    'fine tune': (dict(splitter=two_groups), lambda learn, cbs: learn.fine_tune(2, 0.05, freeze_epochs=2, cbs=cbs)),
    'fastai loader': (dict(dls=fastai_dls), lambda learn, cbs: learn.fit_one_cycle(4, 0.05, cbs=cbs)),
    'torch loader': (dict(dls=torch_dls), lambda learn, cbs: learn.fit_one_cycle(4, 0.05, cbs=cbs)),
    'torch loader, global': (dict(dls=partial(torch_dls, generator=False)), lambda learn, cbs: learn.fit(4, 0.05, cbs=cbs)),
    'accumulation': ({}, lambda learn, cbs: learn.fit(4, 0.05, cbs=[GradientAccumulation(24), GradientClip(0.1)] + cbs)),
    'mixup': (dict(loss_func=CrossEntropyLossFlat()), lambda learn, cbs: learn.fit(4, 0.05, cbs=[MixUp()] + cbs)),
    'plateau': ({}, lambda learn, cbs: learn.fit(4, 0.5, cbs=[ReduceLROnPlateau(patience=1, min_delta=9, min_lr=0)] + cbs)),
    'early stop': ({}, lambda learn, cbs: learn.fit(9, 0.5, cbs=[EarlyStoppingCallback(patience=3, min_delta=9)] + cbs)),
}


@pytest.mark.parametrize('name', RUNS)
def test_a_run_that_breaks_off_anywhere_ends_with_the_same_bits(name, tmp_path, capsys):
    kwargs, fit = RUNS[name]
    whole = make_learner(**kwargs)
    fit(whole, [])
    expected = outcome(whole)
    moments = random.Random(f'moment {name}')
    # in the first epoch, in the second, near the end; then twice in one run
    for i, steps in enumerate([(1,), (moments.randint(6, 9),), (moments.randint(10, 19),), (8, moments.randint(1, 6))]):
        folder = tmp_path / str(i)
        for j, after in enumerate(steps):
            crash = Crash(after, valid=after % 5 == 0)
            with pytest.raises(RuntimeError, match='crash'):
                fit(make_learner(seed=0 if j == 0 else 70 + j, **kwargs), [Checkpoints(folder, resume=True), crash])
        resumed = make_learner(seed=99, **kwargs)
        fit(resumed, [Checkpoints(folder, resume=True)])
        if name != 'fine tune': expected['train_iter'] = whole.train_iter
        assert_same(expected, outcome(resumed), f'{name} {steps}')
        assert len(checkpoints(folder)) == 2 and len(os.listdir(folder)) == 2


def test_checkpoints_do_not_change_the_run(tmp_path):
    kwargs, fit = RUNS['one cycle']
    plain = make_learner(**kwargs)
    fit(plain, [])
    expected, saving = outcome(plain), make_learner(**kwargs)
    fit(saving, [Checkpoints(tmp_path)])
    assert_same(expected, outcome(saving))


def test_a_finished_run_does_not_train_again(tmp_path, capsys):
    kwargs, fit = RUNS['fine tune']
    first = make_learner(**kwargs)
    fit(first, [Checkpoints(tmp_path, resume=True)])
    before, expected, again = checkpoints(tmp_path), outcome(first), make_learner(seed=1, **kwargs)
    fit(again, [Checkpoints(tmp_path, resume=True)])
    assert_same(expected, outcome(again))
    assert checkpoints(tmp_path) == before and 'all 2 epochs are done' in capsys.readouterr().out


def test_the_same_learner_and_callback_go_on_after_an_interrupt(tmp_path, capsys):
    "As in a notebook: interrupt the cell, run it again."
    kwargs, fit = RUNS['one cycle']
    whole = make_learner(**kwargs)
    fit(whole, [])
    expected, learn = outcome(whole), make_learner(**kwargs)
    saver = Checkpoints(tmp_path, resume=True)
    learn.add_cb(saver)
    with pytest.raises(RuntimeError): fit(learn, [Crash(13)])
    learn.remove_cb(Crash)
    files = checkpoints(tmp_path)
    learn.validate()
    learn.get_preds()
    assert checkpoints(tmp_path) == files  # looking is not training
    fit(learn, [])
    assert_same(expected, outcome(learn))


def test_own_generators(tmp_path, capsys):
    class Shift(Callback):
        def __init__(self, generators): self.generators = generators
        def before_batch(self):
            if not self.training: return
            a, b, c = self.generators
            self.learn.xb = (self.xb[0] + torch.rand(1, generator=a) + b.random() + float(c.random()),)

    def run(seed, *cbs, resume):
        own = (torch.Generator().manual_seed(seed), random.Random(seed), np.random.default_rng(seed))
        learn = make_learner()
        learn.fit(3, 0.05, cbs=[Shift(own), *cbs] + ([Checkpoints(tmp_path, True, generators=own)] if resume else []))
        return outcome(learn)

    whole = run(0, resume=False)
    with pytest.raises(RuntimeError): run(0, Crash(12), resume=True)
    assert_same(whole, run(1, resume=True))
    with pytest.raises(TypeError, match='generators'): Checkpoints(tmp_path, generators=[3])


@given(step=st.integers(1, 20), valid=st.booleans())
@settings(max_examples=12, deadline=None)
def test_any_step(tmp_path_factory, step, valid):
    folder = tmp_path_factory.mktemp('any')
    whole = make_learner()
    whole.fit_one_cycle(4, 0.05)
    expected = outcome(whole)
    try: make_learner().fit_one_cycle(4, 0.05, cbs=[Checkpoints(folder, resume=True), Crash(step, valid)])
    except RuntimeError: pass
    resumed = make_learner(seed=3)
    resumed.fit_one_cycle(4, 0.05, cbs=Checkpoints(folder, resume=True))
    assert_same(expected, outcome(resumed))


# Killed processes. One process imports fastai and forks for each run, which then is a process of its own to kill.

SERVER = '''
import hashlib, json, os, random, shutil, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_checkpoints import Checkpoints, Net, checkpoints, make_learner
import dlbook.kit.checkpoints as module

def train(folder, die=None, seed=0):
    if die is not None: die_inside_saving(*die)
    learn = make_learner(seed=seed)
    learn.fit_one_cycle(16, 0.05, cbs=Checkpoints(folder, resume=True))
    state = b"".join(t.numpy().tobytes() for t in [*learn.model.state_dict().values(), *learn.recorder.losses])
    (folder / "done").write_text(hashlib.sha256(state).hexdigest())

def die_inside_saving(place, number):
    "SIGKILL to this process in its save of that number: as bytes are written, before and after the move, while pruning."
    owner, name = {"write": (module._Hashed, "write"), "sync": (os, "fsync"), "move": (os, "replace"),
                   "moved": (module, "_sync_folder"), "prune": (Path, "unlink")}[place]
    real, calls = getattr(owner, name), [0]
    def deadly(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number: os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, deadly)

def start(*args):
    sys.stdout.flush()
    child = os.fork()
    if child: return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try: train(*args)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def finish(child): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

scratch = Path(sys.argv[2])
assert finish(start(scratch / "first")) == 0  # the first is slower
begin = time.perf_counter()
assert finish(start(scratch / "whole")) == 0
seconds = time.perf_counter() - begin
expected = (scratch / "whole" / "done").read_text()
moments, report = random.Random(20), []
jobs = [("killed", i) for i in range(10)] + [tuple(job) for job in json.loads(sys.argv[3])]
for i, job in enumerate(jobs):
    folder, kills, left = scratch / str(i), 0, []
    if job[0] == "killed":
        # spread over the run, the first near its start; tried again where the process was faster than its moment
        wait = seconds * (moments.random() + job[1]) / 10
        for attempt in range(6):
            child = start(folder)
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
            kills += finish(child) == -signal.SIGKILL
            if kills or not (folder / "done").exists(): break
            shutil.rmtree(folder)
            wait *= 0.8
        child = start(folder, None, 1 if checkpoints(folder) else 0)  # and once more, a little later
        time.sleep(seconds / 10)
        os.kill(child, signal.SIGKILL)
        kills += finish(child) == -signal.SIGKILL
    else:
        kills += finish(start(folder, job)) == -signal.SIGKILL
    if folder.exists(): left = sorted(p.name.partition("-")[0] + p.suffix for p in folder.iterdir())
    code = finish(start(folder, None, 2 if folder.exists() and checkpoints(folder) else 0))
    same = code == 0 and (folder / "done").read_text() == expected
    files = sorted(p.suffix for p in folder.iterdir()) if folder.exists() else []
    report.append({"job": job, "kills": kills, "left": left, "code": code, "same": same, "files": files})
print(json.dumps({"seconds": seconds, "report": report}))
'''


@pytest.mark.skipif(os.name != 'posix', reason='needs fork and SIGKILL')
def test_killed_at_ten_moments_and_inside_saving(tmp_path):
    "Ten moments over the run, each followed by a second kill; then kills inside the save: bytes written, synced, moved, pruned."
    script = tmp_path / 'server.py'
    script.write_text(SERVER)
    inside = [('write', 1), ('write', 200), ('sync', 1), ('sync', 7), ('move', 1), ('move', 6), ('moved', 1), ('moved', 5),
              ('prune', 1), ('prune', 4)]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, str(script), str(Path(__file__).parent), str(tmp_path), json.dumps(inside)], env=env,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    print(result)
    for run in result['report']: assert run['code'] == 0 and run['same'], (run, done.stderr)
    assert all(run['files'] == ['', '.pt', '.pt'] for run in result['report'])  # nothing half written stays
    random_kills = [run['kills'] for run in result['report'][:10]]
    assert all(random_kills), random_kills
    assert all(run['kills'] == 1 for run in result['report'][10:])
    assert any('.tmp' in ' '.join(run['left']) for run in result['report'][10:])  # a kill while writing leaves its rest


# Files

def test_what_is_written_is_read(tmp_path):
    state = {'t': torch.randn(3), 'view': torch.randn(1000)[:2], 'half': torch.ones(2, dtype=torch.bfloat16), 'none': None,
             'nested': [(1, 2.5), {'a': True, 3: 'x'}], 'numpy': np.float64(0.1), 'nan': float('nan'), 'large': 2**100}
    path = write_checkpoint(tmp_path / 'new' / 'folder', 3, state)
    back = read_checkpoint(path)
    assert back['nested'] == [(1, 2.5), {'a': True, 3: 'x'}] and back['numpy'] == 0.1 and type(back['numpy']) is float
    assert torch.equal(back['t'], state['t']) and torch.equal(back['half'], state['half']) and back['large'] == 2**100
    assert back['view'].untyped_storage().nbytes() == 8
    assert torch.load(path, weights_only=True)['format'] == 'dlbook checkpoint'
    assert checkpoints(tmp_path / 'new' / 'folder') == [path] and checkpoints(tmp_path / 'nowhere') == []


@pytest.mark.parametrize('bad', [print, {1.5: 2}, {'a': [object()]}, Path('x'), {1, 2}])
def test_what_cannot_be_read_back_is_not_written(tmp_path, bad):
    with pytest.raises(CheckpointError, match='checkpoint'): write_checkpoint(tmp_path, 1, {'bad': bad})
    assert not any(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'): write_checkpoint(tmp_path, 1, {'a': 1})
    assert not any(tmp_path.iterdir())


def stamped(folder, number, content):
    "A file whose name has the right checksum."
    path = folder / f'checkpoint-{number:06d}-{hashlib.sha256(content).hexdigest()[:16]}.pt'
    path.write_bytes(content)
    return path


class Harmful:
    def __reduce__(self): return os.mkdir, ('harm-done',)


def foreign(kind, folder):
    content, path = io.BytesIO(), folder / 'x'
    if kind == 'pickle': pickle.dump({'format': Harmful()}, content)
    elif kind == 'object': torch.save({'format': 'dlbook checkpoint', 'version': 1, 'model': Harmful()}, content)
    elif kind == 'weights': torch.save(nn.Linear(2, 2).state_dict(), content)
    elif kind == 'list': torch.save([1, 2], content)
    elif kind == 'version': torch.save({'format': 'dlbook checkpoint', 'version': 99}, content)
    path.write_bytes(content.getvalue())
    return path.read_bytes()


@pytest.mark.parametrize('kind, message', [('pickle', 'no file of torch.save'), ('object', 'more than tensors'),
                                           ('weights', 'no checkpoint of this module'), ('list', 'no checkpoint of this module'),
                                           ('version', 'version 99'), ('empty', 'no file of torch.save')])
def test_foreign_files_are_told_and_do_nothing(tmp_path, monkeypatch, kind, message):
    monkeypatch.chdir(tmp_path)
    path = stamped(tmp_path, 1, foreign(kind, tmp_path))
    with pytest.raises(CheckpointError, match=message): read_checkpoint(path)
    assert not (tmp_path / 'harm-done').exists()


@given(cut=st.integers(0, 100_000), flip=st.booleans())
@settings(max_examples=40, deadline=None)
def test_damage_is_told(tmp_path_factory, cut, flip):
    folder = tmp_path_factory.mktemp('damage')
    path = write_checkpoint(folder, 1, {'t': torch.arange(2000)})
    content = bytearray(path.read_bytes())
    cut %= len(content)
    if flip: content[cut] ^= 1
    path.write_bytes(content if flip else content[:cut])
    with pytest.raises(CheckpointError, match='checksum'): read_checkpoint(path)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A folder with a run of four epochs, and its outcome."
    folder = tmp_path_factory.mktemp('trained')
    learn = make_learner()
    learn.fit_one_cycle(4, 0.05, cbs=Checkpoints(folder))
    return folder, outcome(learn)


@pytest.fixture
def run(trained, tmp_path):
    "A copy of that folder, and its outcome."
    shutil.copytree(trained[0], tmp_path / 'run')
    return tmp_path / 'run', trained[1]


def cut(path): path.write_bytes(path.read_bytes()[:-100])


def replace(path, kind):
    path.unlink()
    stamped(path.parent, 99, foreign(kind, path.parent.parent))


@pytest.mark.parametrize('harm, message', [(cut, 'cut short'), (lambda p: p.write_bytes(b''), 'is empty'),
                                           (lambda p: p.write_bytes(b'hello'), 'no file of torch.save'),
                                           (partial(replace, kind='weights'), 'no checkpoint of this module'),
                                           (partial(replace, kind='object'), 'more than tensors')])
def test_the_one_before_a_damaged_or_foreign_checkpoint_is_used(run, harm, message, monkeypatch, capsys):
    folder, expected = run
    monkeypatch.chdir(folder.parent)
    harm(checkpoints(folder)[-1])
    learn, saver = make_learner(seed=5), Checkpoints(folder, resume=True)
    with pytest.warns(UserWarning, match=rf'(?s){message}.*Going on from checkpoint-0000'):
        learn.fit_one_cycle(4, 0.05, cbs=saver)
    assert_same(expected, outcome(learn))
    assert not Path('harm-done').exists()
    # the next resume finds the new file first, and nothing to warn of
    again = make_learner(seed=6)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        again.fit_one_cycle(4, 0.05, cbs=Checkpoints(folder, resume=True))
    assert_same(expected, outcome(again))


def test_a_checkpoint_of_another_run_is_passed_over_too(run, tmp_path, capsys):
    folder, expected = run
    make_learner(width=9).fit(1, 0.05, cbs=Checkpoints(tmp_path / 'other'))
    stamped(folder, 50, checkpoints(tmp_path / 'other')[-1].read_bytes())
    learn = make_learner(seed=5)
    with pytest.warns(UserWarning, match='is of another run'): learn.fit_one_cycle(4, 0.05, cbs=Checkpoints(folder, resume=True))
    assert_same(expected, outcome(learn))


def test_none_usable(run):
    folder, _ = run
    for path in checkpoints(folder): cut(path)
    before = sorted(folder.iterdir())
    with pytest.raises(CheckpointError, match=r'(?s)no checkpoint in .*run can be used:\n.*cut short.*\n.*cut short'):
        make_learner().fit_one_cycle(4, 0.05, cbs=Checkpoints(folder, resume=True))
    assert sorted(folder.iterdir()) == before


def test_nothing_is_overwritten(run):
    folder, _ = run
    before = sorted(folder.iterdir())
    with pytest.raises(CheckpointError, match='resume=True'): make_learner().fit_one_cycle(4, 0.05, cbs=Checkpoints(folder))
    assert sorted(folder.iterdir()) == before


def other_loss(p, y): return nn.functional.cross_entropy(p, y)


def freeze_head(learn): learn.model.head.bias.requires_grad_(False)


def tanh(learn): learn.model.body[2] = nn.Tanh()


CHANGES = {
    'model': (dict(width=7), None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), r'weights body.0.weight: \(6, 5\)'),
    'activation': ({}, tanh, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), r'layer body.2: ReLU\(\) in'),
    'trained': ({}, freeze_head, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), 'trained head.bias: True in .* False here'),
    'optimizer': (dict(opt_func=RMSProp), None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), 'optimizer kind: .*adam_step'),
    'torch optimizer': (dict(opt_func=torch_opt(torch.optim.SGD)), None, lambda learn, cb: learn.fit(4, 0.05, cbs=cb), 'SGD here'),
    'schedule': ({}, None, lambda learn, cb: learn.fit_one_cycle(4, 0.06, cbs=cb), 'schedule lr: from 0.002 over 0.05'),
    'no schedule': ({}, None, lambda learn, cb: learn.fit(4, 0.05, cbs=cb), 'schedule lr: .*not here'),
    'weight decay': ({}, None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, wd=0.3, cbs=cb), 'wd: 0.01 in .* 0.3 here'),
    'epochs': ({}, None, lambda learn, cb: learn.fit_one_cycle(5, 0.05, cbs=cb), 'epochs: 4 in the checkpoint, 5 here'),
    'data': (dict(n=41), None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), 'samples: 40 in the checkpoint, 41 here'),
    'loader': (dict(dls=fastai_dls), None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), 'class: DeviceDL in .* DataLoader here'),
    'loss': (dict(loss_func=other_loss), None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), 'loss function: .*other_loss'),
    'groups': (dict(splitter=two_groups), None, lambda learn, cb: learn.fit_one_cycle(4, 0.05, cbs=cb), r'weights in each group: \[8\]'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_a_changed_run_is_refused_with_what_differs(run, name):
    folder, _ = run
    kwargs, change, fit, message = CHANGES[name]
    learn = make_learner(**kwargs)
    if change: change(learn)
    with pytest.raises(CheckpointError, match='is of another run') as error: fit(learn, Checkpoints(folder, resume=True))
    assert re.search(message, str(error.value)), str(error.value)
    assert 'with the same differences' in str(error.value) and 'Exception occured' not in str(error.value)


def test_what_a_killed_process_left_is_removed(run, capsys):
    folder, _ = run
    old = checkpoints(folder)[0]
    shutil.copy(old, folder / re.sub(r'-\d+-', '-000001-', old.name))  # killed after a save, before the older one was removed
    (folder / '.checkpoint-x.tmp').write_bytes(b'half')
    make_learner().fit_one_cycle(4, 0.05, cbs=Checkpoints(folder, resume=True))
    assert len(checkpoints(folder)) == 2 and len(list(folder.iterdir())) == 2


def test_keep_and_arguments(tmp_path):
    make_learner().fit(4, 0.05, cbs=Checkpoints(tmp_path, keep=3))
    assert [read_checkpoint(path)['epoch'] for path in checkpoints(tmp_path)] == [2, 3, 4]
    for keep in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match='keep'): Checkpoints(tmp_path, keep=keep)


def test_the_learning_rate_finder_does_not_count(tmp_path, capsys):
    def fit(learn, *cbs):
        learn.add_cbs([Checkpoints(tmp_path / 'run', resume=True), StopOnNaN()])
        learn.lr_find(num_it=6, show_plot=False)
        learn.fit(3, 0.05, cbs=cbs)
        return outcome(learn)

    kwargs = dict(path=tmp_path)
    with pytest.raises(RuntimeError): fit(make_learner(**kwargs), Crash(12))
    resumed = fit(make_learner(seed=4, **kwargs))
    shutil.rmtree(tmp_path / 'run')
    assert_same(fit(make_learner(**kwargs)), resumed)


# Numbers that break

def learner(*layers, data=None, **kwargs):
    torch.manual_seed(0)
    x, y = samples(64)
    if data: data(x)
    dls = device_dls((x, y), samples(20, 1), bs=8, device='cpu', vocab=range(3))
    dls.train.shuffle = False
    learn = Learner(dls, nn.Sequential(*layers), loss_func=kwargs.pop('loss_func', nn.CrossEntropyLoss()), **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda row: None
    return learn


def stopped(learn, *args, gradients=True, cbs=(), **kwargs):
    with pytest.raises(NotFiniteError) as error: learn.fit(*args, cbs=[StopOnNaN(gradients), *cbs], **kwargs)
    assert 'Exception occured' not in str(error.value) and str(error.value).startswith(('Training stopped', 'Validation stopped'))
    return error.value


class Overflow(nn.Module):
    "Infinite from the given step on."
    def __init__(self, step, value=1e38): super().__init__(); self.step, self.count, self.value = step, 0, value

    def forward(self, x):
        if torch.is_grad_enabled(): self.count += 1
        return x.abs() * self.value * 1e5 + 1 if self.count > self.step else x


@pytest.mark.parametrize('step', [0, 5, 11])
def test_the_third_layer_overflows(step):
    learn = learner(nn.Linear(5, 4), nn.ReLU(), Overflow(step), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 3))
    error = stopped(learn, 3, 0.01)
    assert (error.step, error.what, error.layer) == (step, 'layer', '2')
    assert f'step {step} (epoch {step // 8}, batch {step % 8}' in str(error) and "'2' (Overflow) broke first" in str(error)
    assert all(p.isfinite().all() for p in learn.model.parameters())  # stopped before the step


def test_a_learning_rate_that_is_too_high():
    def layers(): return nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    error = stopped(learner(*layers(), opt_func=SGD), 3, 1e8)
    assert error.what == 'layer' and 0 < error.step < 8
    assert 'grew from' in str(error) and 'learning rate ten times lower (it is 1e+08)' in str(error)
    error = stopped(learner(*layers(), opt_func=SGD, loss_func=lambda p, y: 1e3 * nn.functional.cross_entropy(p, y)), 3, 3e38)
    assert (error.what, error.step) == ('weights', 1) and 'the weights broke before this batch' in str(error)


def spoil(x): x[19, 2], x[22, 0], x[22, 1] = float('nan'), float('inf'), float('nan')


def test_the_data_has_it():
    error = stopped(learner(nn.Linear(5, 3), data=spoil), 2, 0.01)
    assert (error.what, error.step, error.layer) == ('input', 2, None)
    assert 'the input itself has 2 NaN and 1 infinite among 40 values, in 2 of 8 samples of the batch (3, 6)' in str(error)


def test_the_target_has_it():
    x, y = samples(32)[0], torch.randn(32, 1)
    y[9] = float('nan')
    dls = device_dls((x, y), (x, torch.randn(32, 1)), bs=8, device='cpu')
    dls.train.shuffle = False
    learn = Learner(dls, nn.Linear(5, 1), loss_func=nn.MSELoss())
    learn.remove_cb(ProgressCallback)
    error = stopped(learn, 1, 0.01)
    assert (error.what, error.step) == ('target', 1) and 'the target itself has 1 NaN among 8 values' in str(error)


class Root(nn.Module):
    def __init__(self): super().__init__(); self.weight = nn.Parameter(torch.zeros(4))
    def forward(self, x): return x * self.weight.sqrt()


def test_a_gradient_breaks_first():
    layers = lambda: (nn.Linear(5, 4), Root(), nn.Linear(4, 3))  # noqa: E731
    learn = learner(*layers())
    error = stopped(learn, 1, 0.01)
    assert (error.what, error.step, error.layer) == ('gradients', 0, '1') and 'the gradient of 1.weight' in str(error)
    assert all(p.isfinite().all() for p in learn.model.parameters())
    error = stopped(learner(*layers()), 1, 0.01, gradients=False)  # a step later the weights are lost
    assert (error.what, error.step, error.layer) == ('weights', 1, '1')


def log_loss(p, y): return -p.softmax(1).gather(1, y[:, None]).log().mean()


def test_the_loss_function_breaks():
    learn = learner(nn.Linear(5, 3), loss_func=log_loss)
    with torch.no_grad(): learn.model[0].weight.mul_(1e3)
    error = stopped(learn, 1, 0.01)
    assert error.what == 'loss' and 'while all layers are finite' in str(error) and 'takes logits' in str(error)


class Between(nn.Module):
    def __init__(self): super().__init__(); self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)
    def forward(self, x): return self.b(self.a(x) / 0)


class After(Between):
    def forward(self, x): return self.b(self.a(x)).log()


def test_operations_that_are_no_layers():
    x = torch.randn(4, 5)
    assert first_broken_layer(nn.Sequential(Between()), x)[:2] == ('0.b', 'before')
    assert first_broken_layer(nn.Sequential(After()), x)[:2] == ('0', 'layer')
    assert first_broken_layer(nn.Sequential(nn.Linear(5, 2)), x) is None
    error = stopped(learner(nn.Sequential(Between())), 1, 0.01)
    assert 'an operation before the layer' in str(error) and error.layer == '0.0.b'


def test_masks_of_minus_infinity_are_no_fault():
    class Masked(nn.Module):
        def __init__(self): super().__init__(); self.act, self.last = nn.Softmax(1), Overflow(-1)
        def forward(self, x): return self.last(self.act(x.masked_fill(x > 1, float('-inf'))))

    with torch.enable_grad(): model = Masked()
    model.last.count = 1
    assert first_broken_layer(model, torch.randn(50, 4))[0] == 'last'


def test_the_search_changes_nothing_and_meets_the_same_random_numbers():
    class Lottery(nn.Module):
        "Breaks for few random numbers only."
        def forward(self, x): return x / 0 if torch.rand(()) < 0.1 else x

    learn = learner(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), Lottery(), nn.Linear(4, 3))
    error = stopped(learn, 9, 0.01)
    assert error.layer == '3' and error.step > 0
    buffers = {k: v.clone() for k, v in learn.model.named_buffers()}
    state = torch.get_rng_state()
    first_broken_layer(learn.model.train(), torch.randn(8, 5))
    assert all(torch.equal(v, buffers[k]) for k, v in learn.model.named_buffers())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())
    assert not torch.equal(torch.get_rng_state(), state)  # alone it draws; StopOnNaN puts the state back


def test_the_callback_does_not_change_a_run():
    plain = make_learner()
    plain.fit_one_cycle(3, 0.05)
    expected, watched = outcome(plain), make_learner()
    watched.fit_one_cycle(3, 0.05, cbs=StopOnNaN())
    assert_same(expected, outcome(watched))


def test_validation_is_looked_at_too():
    learn = learner(nn.Linear(5, 3))
    learn.dls.valid.dataset.x[3] = float('nan')
    error = stopped(learn, 1, 0.01)
    assert error.what == 'input' and str(error).startswith('Validation stopped')


def test_after_a_nan_the_last_checkpoint_is_from_before(tmp_path, capsys):
    learn = learner(nn.Linear(5, 4), nn.ReLU(), Overflow(11), nn.Linear(4, 3))
    stopped(learn, 3, 0.01, cbs=[Checkpoints(tmp_path)])
    saved = read_checkpoint(checkpoints(tmp_path)[-1])
    assert saved['epoch'] == 1 and all(t.isfinite().all() for t in saved['model'].values())
