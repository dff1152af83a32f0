"""How fast `dlbook.kit.loaders` cuts batches, and what a `Learner` through it costs beside a bare PyTorch loop."""
from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import compare, main

N, VALID, BATCH, SEED = 16_384, 256, 256, 0


def images() -> tuple:
    "Images of 28×28 pixels in ten classes, for training and for validation; the numbers do not matter to the clock."
    rng = torch.Generator().manual_seed(SEED)
    x, y = torch.rand(N + VALID, 1, 28, 28, generator=rng), torch.randint(10, (N + VALID,), generator=rng)
    return (x[:N], y[:N]), (x[N:], y[N:])


def cnn() -> nn.Module:
    "A small convolutional network of 20,490 parameters; the same weights every time."
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 10))


def batches(loader) -> None:
    "One epoch of nothing but batches."
    for _ in loader: pass


def cutting(rounds: int, num_workers: int, device: str = 'cpu', target: float = 8) -> dict:
    "Batches a second, against `DataLoaders.from_dsets` over a list of pairs."
    from fastai.data.core import DataLoaders

    from dlbook.kit.loaders import device_dls
    train, valid = images()
    pairs = [list(zip(*split)) for split in (train, valid)]
    ours = device_dls(train, valid, bs=BATCH, device=device)
    theirs = DataLoaders.from_dsets(*pairs, bs=BATCH, device=torch.device(device), num_workers=num_workers)
    return compare(f'batches, against from_dsets with {num_workers} workers' + ', on a GPU' * (device == 'cuda'), lambda: batches(ours.train),
                   lambda: batches(theirs.train), target=target, units=N, rounds=rounds,
                   images=N, shape=[1, 28, 28], batch=BATCH, seed=SEED, num_workers=num_workers, device=device)


def cutting_beside_torch(rounds: int) -> dict:
    "Batches a second, against torch's own `DataLoader` over a `TensorDataset`, shuffled, in one process."
    from torch.utils.data import DataLoader, TensorDataset

    from dlbook.kit.loaders import device_dls
    train, valid = images()
    ours = device_dls(train, valid, bs=BATCH, device='cpu')
    theirs = DataLoader(TensorDataset(*train), batch_size=BATCH, shuffle=True, drop_last=True)
    return compare("batches, against torch's DataLoader", lambda: batches(ours.train), lambda: batches(theirs), target=4, units=N, rounds=rounds,
                   images=N, shape=[1, 28, 28], batch=BATCH, seed=SEED, num_workers=0, device='cpu')


def training(rounds: int) -> dict:
    "One epoch of training and validation by a `Learner`, against a loop that does the same by hand."
    import fastai.callback.progress  # gives Learner its no_bar
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.optimizer import OptimWrapper

    from dlbook.kit.loaders import device_dls
    train, valid = images()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    dls = device_dls(train, valid, bs=BATCH, device=device)

    def adam(params, lr, **_): return OptimWrapper(params, torch.optim.Adam, lr=lr)

    learn = Learner(dls, cnn(), loss_func=CrossEntropyLossFlat(), opt_func=adam, lr=1e-3)

    def by_learner():
        with learn.no_bar(), learn.no_logging(): learn.fit(1)

    (x, y), (x_valid, y_valid) = ([t.to(device) for t in split] for split in (train, valid))
    model = cnn().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(SEED)

    def by_hand():
        model.train()
        for rows in torch.randperm(N, generator=rng).to(device).split(BATCH):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad(): F.cross_entropy(model(x_valid), y_valid).item()

    return compare('training a small CNN, against a bare loop', by_learner, by_hand, target=0.9, units=N, rounds=rounds,
                   images=N, validation_images=VALID, shape=[1, 28, 28], batch=BATCH, seed=SEED, device=device,
                   parameters=sum(p.numel() for p in model.parameters()), optimizer='torch.optim.Adam')


def rows(rounds: int = 7) -> list[dict]:
    "All measurements of this module. fastai's item loader is measured with and without worker processes, and on a GPU where there is one."
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*torch.jit.script', category=FutureWarning)
        on_gpu = [cutting(rounds, 0, 'cuda', 50)] if torch.cuda.is_available() else []
        return [cutting(rounds, 0), cutting(rounds, 2), cutting_beside_torch(rounds), *on_gpu, training(rounds)]


if __name__ == '__main__': main(rows)
