"""A second device that every machine has, to find out without a GPU whether code keeps to the device of its inputs.

A tensor there holds real numbers, says that its device is "meta", and refuses to meet a tensor of the CPU's, as a GPU's does.
Run as a program, `python tests/elsewhere.py CHAPTER`, it works through the chapter's code on that device, and through the cells
that are meant for a GPU, in small. It prints a line of JSON for each piece: its name, and what went wrong, or null.

What this cannot show: speed, memory, half precision, kernels that a GPU lacks. It changes torch for the whole process.
"""
import ast
import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

PLACE = torch.device("meta")
NBS = Path(__file__).parent.parent / "nbs"
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
CROSSING = {aten.copy_.default, aten._to_copy.default, aten._pack_padded_sequence.default}  # lengths of sequences stay on the CPU
RealGenerator, distant = torch.Generator, {}  # generators of the second device by their id, so that they stay alive


class Elsewhere(torch.Tensor):
    "A tensor of the second device, around one of the CPU's."

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
                                                   dtype=inner.dtype, layout=inner.layout, device=PLACE, requires_grad=inner.requires_grad)

    made = 0  # so many since the program began

    def __init__(self, inner):
        self.inner = inner
        Elsewhere.made += 1

    def __repr__(self, **more): return f"Elsewhere({self.inner})"
    def __format__(self, spec): return self.inner.__format__(spec)
    def tolist(self): return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return computed(func, args, kwargs or {})


def is_there(x): return isinstance(x, Elsewhere)
def to_there(wanted): return wanted is not None and torch.device(wanted) == PLACE


def computed(func, args, kwargs):
    "What an operation gives, on the device on which it runs; `RuntimeError` if that is not clear."
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there, wanted = [t for t in tensors if is_there(t)], kwargs.get("device")
    if func in INDEXING:  # indices of the CPU's are welcome on a GPU, and not the other way round
        fixed = [args[0], *([] if func is aten.index.Tensor else [args[2]])]
        mixed = any(map(is_there, fixed)) and any(t.dim() and not is_there(t) for t in fixed)
        mixed = mixed or not is_there(args[0]) and any(map(is_there, args[1]))
    else: mixed = func not in CROSSING and there and any(t.dim() and not is_there(t) for t in tensors)
    if mixed: raise RuntimeError(f"two devices in {func}: {[(type(t).__name__, tuple(t.shape)) for t in tensors]}")
    plain_args, plain = (tree_map_only(Elsewhere, lambda t: t.inner, part) for part in (args, kwargs))
    if wanted is not None: plain["device"] = torch.device("cpu")
    out = func(*plain_args, **plain)
    if not (to_there(wanted) if wanted is not None else there): return out
    if func is aten._pack_padded_sequence.default: return Elsewhere(out[0]), out[1]
    out = tree_map_only(torch.Tensor, lambda t: t if is_there(t) else Elsewhere(t), out)
    return return_and_correct_aliasing(func, args, kwargs, out)


class SecondDevice(TorchDispatchMode):
    "While it is on, tensors can be made on the second device."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None): return computed(func, args, kwargs or {})


class Watched(TorchFunctionMode):
    "Refuses a generator of the other device, and lets `torch.tensor` make one there."
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        wanted, generator = kwargs.get("device"), kwargs.get("generator")
        if func in (torch.tensor, torch.as_tensor) and to_there(wanted): return func(*args, **kwargs | {"device": "cpu"}).to(PLACE)
        if generator is not None:
            goes = to_there(wanted) if wanted is not None else any(map(is_there, tree_leaves((args, kwargs))))
            if (id(generator) in distant) != goes: raise RuntimeError(f"a generator of another device in {func}")
        return func(*args, **kwargs)


class Generators(type):
    "Generators of the second device draw on the CPU, and say that they are elsewhere."
    def __instancecheck__(cls, x): return isinstance(x, (RealGenerator, Distant))

    def __call__(cls, device="cpu"):
        made = Distant() if to_there(device) else RealGenerator(device)
        if to_there(device): distant[id(made)] = made
        return made


class Distant(RealGenerator):
    device = PLACE


class Generator(metaclass=Generators): pass


def change_torch():
    "What the second device has not: its own generators, fused optimizers, half precision, compiled networks, a queue, inference mode."
    torch.Generator, torch.inference_mode = Generator, torch.no_grad
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *args: self.to(PLACE)
    torch.compile, torch.cuda.synchronize = lambda model, **how: model, lambda *args: None
    torch.autocast = lambda *args, **how: contextlib.nullcontext()
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        def init(self, *args, real=kind.__init__, fused=None, foreach=None, **how): real(self, *args, **how, foreach=False)
        kind.__init__ = init


# The chapters' code

def there(*shape): return torch.randn(*shape, device=PLACE)
def classes(n, *shape): return torch.randint(n, shape, device=PLACE)


def trained(model, *inputs):
    "Forward and backward; the outputs and the gradients must be on the second device."
    out = model.to(PLACE)(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    out.sum().backward()
    kept(out, *(p.grad for p in model.parameters() if p.grad is not None))


def kept(*tensors):
    "All of them must be on the second device."
    flat = [t for t in tree_leaves(tensors) if isinstance(t, torch.Tensor)]
    assert flat and all(map(is_there, flat)), [type(t).__name__ for t in flat]


def activations():
    from dlbook import activations as a
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "silu", "gelu"): yield name, lambda f=getattr(a, name): kept(f(there(5)))
    for name in ("softmax", "log_softmax"): yield name, lambda f=getattr(a, name): kept(f(there(2, 5), 1))


def losses():
    from dlbook import losses as l
    for name in ("mse_loss", "l1_loss", "huber_loss"): yield name, lambda f=getattr(l, name): kept(f(there(5), there(5)))
    yield "binary", lambda: kept(l.binary_cross_entropy_with_logits(there(5), there(5).sigmoid(), there(5).abs(), pos_weight=there(5).abs()))
    yield "cross_entropy", lambda: kept(l.cross_entropy(there(4, 3), classes(3, 4), there(3).abs(), label_smoothing=0.1))
    yield "soft targets", lambda: kept(l.cross_entropy(there(4, 3), there(4, 3).softmax(1)))
    yield "focal_loss", lambda: kept(l.focal_loss(there(4, 3), classes(3, 4), weight=there(3).abs()))


def backprop():
    from dlbook import backprop as b
    def both():
        a, w = b.Tensor(there(4, 3), True), b.Tensor(there(3, 2), True)
        b.cross_entropy((a @ w).relu(), classes(2, 4)).backward()
        kept(a.grad, w.grad)
    yield "Tensor", both


def optimizers():
    from dlbook import optimizers as o
    def steps(name, **how):
        p = nn.Parameter(there(5))
        opt = getattr(o, name)([p], **how)
        for _ in range(3):
            opt.zero_grad()
            p.square().sum().backward()
            opt.step()
        kept(p.data, p.grad)
    for name, how in {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}, "Adam": {"weight_decay": 0.1}, "AdamW": {}}.items():
        yield name, lambda name=name, how=how: steps(name, **how)


def training():
    from dlbook import training as t
    def model(): return nn.Sequential(nn.Linear(4, 8), t.BatchNorm(8), nn.ReLU(), t.Dropout(0.2), t.LayerNorm(8), nn.Linear(8, 3))
    yield "layers", lambda: trained(t.Ensemble([model()]), there(6, 4))
    def started():
        for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
            kept(getattr(t, name)(there(3, 4), generator=torch.Generator(PLACE)))
    yield "initialization", started
    def clipped():
        net = model().to(PLACE)
        (net(there(6, 4)).sum() + t.l1_penalty(net.parameters()) + t.l2_penalty(net.parameters())).backward()
        kept(t.clip_grad_norm_(net.parameters(), 1.0))
    yield "penalties and clipping", clipped


def preparation():
    from dlbook import preparation as p
    for name in ("random_flip", "random_brightness", "random_crop", "add_noise", "random_rotation"):
        for source in (None, "cpu", PLACE):
            yield f"{name}, {source}", lambda f=getattr(p, name), source=source: kept(
                f(there(4, 1, 8, 8), generator=source and torch.Generator(source)))
    def y(): return (torch.arange(60, device=PLACE) < 12).long()
    for name in ("random_oversample", "random_undersample", "smote", "tomek_links", "edited_nearest_neighbours"):
        yield name, lambda f=getattr(p, name): kept(f(there(60, 3), y()))
    yield "class_weights", lambda: kept(p.class_weights(y()))
    for name in ("StandardScaler", "MinMaxScaler", "RobustScaler"):
        def scaled(kind=getattr(p, name)):
            scaler = kind()
            kept(scaler.inverse_transform(scaler.fit_transform(there(9, 3))))
        yield name, scaled


def convolution():
    from dlbook import cnn as c
    yield "Conv2d", lambda: trained(c.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), there(2, 3, 8, 8))
    yield "Conv1d", lambda: trained(c.Conv1d(4, 4, 3, stride=2, groups=2), there(2, 4, 8))
    yield "loops", lambda: kept(c.conv2d_loops(there(1, 1, 4, 4), there(1, 1, 3, 3)))
    yield "backward", lambda: kept(c.conv2d_backward(there(1, 4, 6, 6), there(1, 2, 8, 8), there(4, 2, 3, 3)))
    yield "fold", lambda: kept(c.fold(c.unfold(there(1, 2, 6, 6), 3), (6, 6), 3))
    for name in ("max_pool2d", "avg_pool2d"):
        yield name, lambda f=getattr(c, name): kept(f(there(1, 2, 5, 5), 2, padding=1, ceil_mode=True))
    yield "LeNet", lambda: trained(c.LeNet(), there(2, 1, 28, 28))
    for dims in (1, 2): yield f"ResNet, {dims}", lambda dims=dims: trained(c.ResNet(1, 4, dims=dims), there(2, 1, *[16] * dims))
    yield "UNet", lambda: trained(c.UNet(1, 2), there(2, 1, 16, 16))
    yield "box_iou", lambda: kept(c.box_iou(*(there(3, 4).abs().cumsum(1) for _ in range(2))))
    yield "cell for a GPU", lambda: cell("08_convolution", "def a_million", ("50_000", "100"), ("parts=25", "parts=2"), ("size=1024, steps=100", "size=8, steps=2"))


def recurrence():
    from torch.nn.utils.rnn import pack_sequence

    from dlbook import rnn as r
    def packed(kind):
        out, _ = kind(3, 4).to(PLACE)(pack_sequence([there(3, 3), there(5, 3)], enforce_sorted=False))
        kept(out.data)
    for name in ("RNN", "LSTM", "GRU"):
        kind = getattr(r, name)
        yield name, lambda kind=kind: trained(kind(3, 4, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1), there(2, 5, 3))
        yield f"{name}, packed", lambda kind=kind: packed(kind)
    yield "bptt", lambda: kept(r.bptt(there(4, 3), there(5, 3), there(3, 3), there(4, 3)))
    yield "quantile_loss", lambda: kept(r.quantile_loss(there(3, 5), there(3), torch.linspace(0.1, 0.9, 5, device=PLACE)))
    yield "generate", lambda: list(r.generate(r.LanguageModel(9).to(PLACE), classes(9, 3), 5, top_p=0.8, generator=torch.Generator(PLACE)))


def attention():
    from dlbook import attention as a
    def written(positions, norm_first):
        model, text = a.GPT(9, 16, 2, 2, 8, positions=positions, norm_first=norm_first), classes(9, 2, 2)
        trained(model, classes(9, 2, 8))
        for how in ({"temperature": 0}, {"top_k": 3, "generator": torch.Generator(PLACE)}): kept(model.generate(text, 12, **how))
        assert model.generate(text, 12, temperature=0).equal(model.generate(text, 12, temperature=0, use_cache=False))
    for positions in a.POSITIONS:
        for first in (True, False): yield f"GPT, {positions}, {first}", lambda positions=positions, first=first: written(positions, first)
        def translated(positions=positions):
            model, x = a.EncoderDecoder(9, 9, 16, 2, positions=positions), classes(8, 2, 5) + 1
            trained(model, x, x)
            kept(model.generate(x, 1, 2, 6))
        yield f"EncoderDecoder, {positions}", translated
    def masked():
        x = there(2, 3, 8)
        kept(a.MultiHeadAttention(8, 2, batch_first=True).to(PLACE)(x, x, x, is_causal=True, key_padding_mask=there(2, 3) > 0))
    yield "MultiHeadAttention", masked
    def looked():
        q, k, v = (there(2, 3, 4, 6) for _ in range(3))
        kept(a.scaled_dot_product_attention(q, k, v, is_causal=True), a.attention_weights(q, k, there(4, 4) > 0), a.rotary(q))
    yield "functions", looked
    yield "cell for a GPU", lambda: cell("10_attention", "def on_gpu", ("seconds=55, size=64, length=256", "seconds=1, size=2, length=16"),
                                         ("384, 6, 6", "12, 6, 2"), ("import tinyshakespeare", "import pydocs as tinyshakespeare"))


def autoencoders():
    from dlbook import autoencoders as a
    for source in (None, "cpu", PLACE):
        def vae(source=source):
            model, x, rng = a.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2).to(PLACE), there(5, 6).sigmoid(), source and torch.Generator(source)
            kept(a.VAELoss()(model(x), x), model.sample(2, rng), a.iwae_bound(model, x, 5, rng), a.active_units(model, x))
            kept(a.DenoisingAutoencoder(nn.Identity(), nn.Identity()).corrupt(x, rng))
        yield f"VAE, {source}", vae
    yield "pca", lambda: kept(a.pca(there(9, 4), 2), a.subspace_cosines(there(5, 2), there(5, 2)))
    yield "TopK", lambda: kept(a.TopK(2)(there(3, 5)))
    yield "conv_transpose2d", lambda: kept(a.conv_transpose2d(there(1, 2, 3, 3), there(2, 1, 4, 4), None, 2, 1))
    yield "convolutions", lambda: trained(nn.Sequential(a.conv_encoder([1, 4], 8, 3), a.conv_decoder([1, 4], 8, 3)), there(2, 1, 8, 8))
    yield "auroc", lambda: kept(a.auroc(there(5), torch.arange(5, device=PLACE) < 2))
    yield "logistic_bits", lambda: kept(a.logistic_bits(classes(5, 3), there(3), there(3).exp()), a.psnr(there(3, 4), there(3, 4)))
    yield "cell for a GPU", lambda: cell(
        "11_autoencoders", "glyphs(100_000)", ("100_000", "300"), ("[1, 64, 128]", "[1, 4, 8]"), (", MixedPrecision()", ""), ("30, 2e-3, bs=512", "1, 2e-3, bs=64"),
        ("    test_ink =", "    large.to('meta')\n    test_ink ="),  # fastai trains on the CPU here, so only what comes after it is tried
        setup="from functools import partial\nfrom fastai.optimizer import OptimWrapper\nadam = partial(OptimWrapper, opt=torch.optim.AdamW)")


def gans():
    from dlbook import gans as g
    for source in (None, "cpu", PLACE):
        yield f"gradient_penalty, {source}", lambda source=source: kept(
            g.gradient_penalty(nn.Linear(3, 1).to(PLACE), there(4, 3), there(4, 3), source and torch.Generator(source)))
    yield "frechet_distance", lambda: g.frechet_distance(there(9, 3), there(9, 3))
    yield "nearest_examples", lambda: kept(g.nearest_examples(there(3, 4), there(5, 4)))
    yield "mode_coverage", lambda: g.mode_coverage(there(9, 2), there(3, 2), 0.1)
    yield "MLPs", lambda: trained(g.MLPs(2, (2, 4, 1), waves=2, spectral=True), there(2, 3, 2))
    def against(*, classes_=0, **how):
        G, D = g.Generator(8, classes=classes_).to(PLACE), g.Discriminator(8, classes=classes_, spectral=True).to(PLACE)
        label = lambda: (classes(classes_, 4),) if classes_ else ()
        g.train_gan(G, D, lambda: (there(4, 1, 8, 8), *label()), lambda: (there(4, 8), *label()), 3, **how)
        kept(*(p.data for p in G.parameters()))
    yield "train_gan", against
    yield "train_gan with classes", lambda: against(classes_=3)
    yield "cell for a GPU", lambda: cell("12_gans", "big_G = ", ("40_000", "300"), ("10_000", "3"), ("width=64", "width=4"), ("n=128", "n=8"))


def transfer():
    from dlbook import cnn
    from dlbook import transfer as t
    def all_of_it():
        net, x = cnn.ResNet(1, 4).to(PLACE), torch.randn(6, 1, 8, 8)
        body = nn.Sequential(*t.layer_groups(net)[:-1], net.head[:-1])
        features = t.extract_features(body, x.to(PLACE))
        assert not is_there(t.extract_features(body, x))  # many inputs stay where there is room for them
        kept(features, *t.linear_head(features, torch.arange(6, device=PLACE) % 4).parameters())
        kept(t.mmd2(features, features + 1, 8.0), t.linear_cka(features, features))
        fisher = t.fisher_diagonal(net.eval(), x[:2].to(PLACE))
        kept(fisher, t.anchor_penalty(net, {name: p.detach() for name, p in net.named_parameters()}, fisher))
        assert not t.load_matching(net, cnn.ResNet(1, 4).state_dict()).missing
    yield "all", all_of_it


def reinforcement():
    from dlbook import rl
    def ridden():
        carts = rl.CartPole(5, PLACE)
        kept(carts.reset(0)[0])
        for _ in range(30): kept(carts.step(classes(2, 5)))
    yield "CartPole", ridden
    for kind in (rl.DQN, rl.PolicyGradient, rl.PPO): yield kind.__name__, lambda kind=kind: rl.fit(kind(n=4, device=PLACE), 3, every=1, goal=500)
    yield "evaluate", lambda: kept(rl.evaluate(nn.Linear(4, 2).to(PLACE), n=3, device=PLACE))
    for kind in (rl.TicTacToe, rl.ConnectFour):
        yield kind.__name__, lambda kind=kind: rl.AlphaZero(kind(PLACE), width=16, games=4, simulations=4, steps=2, bs=8).fit(1)
    yield "cell for a GPU", lambda: cell(
        "15_reinforcement", "far = ConnectFour", ("width=512, games=1024, simulations=64, steps=400, bs=2048", "width=16, games=4, simulations=2, steps=3, bs=32"),
        ('"meta" if torch.cuda.is_available() else "cpu"', '"meta"'), ("fit(60", "fit(1"), ("64, c=1.0", "2, c=1.0"), ("1000, opening", "4, opening"))


def interpretability():
    from dlbook import interpret as i
    def net(): return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).to(PLACE)
    for name in ("saliency", "smoothgrad", "integrated_gradients", "occlusion", "guided_backprop"):
        for target in (1, [0, 2]): yield f"{name}, {target}", lambda f=getattr(i, name), target=target: kept(f(net(), there(2, 1, 8, 8), target))
    def cam():
        model = net()
        kept(i.grad_cam(model, model[0], there(2, 1, 8, 8), torch.tensor([0, 1], device=PLACE)))
    yield "grad_cam", cam
    for name in ("shapley_values", "shapley_sample", "lime"): yield name, lambda f=getattr(i, name): kept(f(nn.Linear(5, 3).to(PLACE), there(1, 5), 1))
    for where in ("cpu", PLACE):
        yield f"feature_visualization, {where}", lambda where=where: kept(
            i.feature_visualization(net(), torch.tensor([1, 2], device=where), (1, 8, 8), steps=3))
    yield "attention_rollout", lambda: kept(i.attention_rollout([there(2, 2, 4, 4).softmax(-1)] * 2), i.rank_correlation(there(2, 5), there(2, 5)))
    yield "perturbation_curve", lambda: kept(i.perturbation_curve(net(), there(2, 1, 8, 8), [0, 1], there(2, 1, 8, 8)))
    yield "permutation_importance", lambda: i.permutation_importance(lambda x, y: (x[:, 0] - y).abs().mean().item(), there(9, 3), there(9))


def definitions(chapter, before):
    "The chapter's functions, classes and imports above the cell with the text `before`; and that cell."
    found = {"__name__": chapter, "display": lambda *args: None, "torch": torch}
    for made in json.loads((NBS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(made["source"])
        if made["cell_type"] != "code": continue
        if before in source: return found, source
        if "#| cuda" in source or "#| online" in source: continue
        for node in ast.parse(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
                with contextlib.suppress(NameError): exec(compile(ast.Module([node], []), chapter, "exec"), found)
    raise LookupError(f"no cell of {chapter} has {before!r}")


def cell(chapter, text, *small, setup=""):
    "Run the cell for a GPU that has `text`, with `small` numbers in place of large ones, on the second device."
    found, source = definitions(chapter, text)
    exec(f"from dlbook.{ {'08': 'cnn', '10': 'attention', '11': 'autoencoders', '12': 'gans', '15': 'rl'}[chapter[:2]]} import *", found)
    source = source.replace('"cuda"', '"meta"').replace("if torch.cuda.is_available():", "if True:")
    for large, instead in small:
        if large not in source: raise LookupError(f"the cell has no {large!r} any more")
        source = source.replace(large, instead)
    before = Elsewhere.made
    with contextlib.redirect_stdout(None):
        exec(setup, found)
        exec(compile(source, f"{chapter}, cell for a GPU", "exec"), found)
    assert Elsewhere.made > before, "the cell did not run on the second device"


def mixing():
    "The second device does refuse what a GPU refuses."
    def refused(work):
        try: work()
        except RuntimeError: return
        raise AssertionError("two devices met")
    yield "sum", lambda: refused(lambda: there(3) + torch.ones(3))
    yield "product", lambda: refused(lambda: there(3, 4) @ torch.ones(4, 2))
    yield "indices", lambda: refused(lambda: torch.ones(3)[classes(3, 2)])
    yield "generator", lambda: refused(lambda: torch.rand(3, device=PLACE, generator=torch.Generator()))
    yield "other generator", lambda: refused(lambda: torch.rand(3, generator=torch.Generator(PLACE)))
    yield "layer", lambda: refused(lambda: nn.Linear(3, 2)(there(1, 3)))
    yield "allowed", lambda: kept(there(3) + torch.tensor(1.0), there(5)[torch.tensor([0, 1])], torch.ones(3).to(PLACE))
    def counted(): assert F.mse_loss(torch.tensor([1.0, 3.0], device=PLACE), torch.tensor([1.0, 1.0], device=PLACE)).item() == 2
    yield "numbers", counted


CHAPTERS = (mixing, activations, losses, backprop, optimizers, training, preparation, convolution, recurrence, attention, autoencoders, gans, transfer,
            reinforcement, interpretability)


def main(name):
    os.chdir(NBS)
    torch.set_num_threads(1)
    change_torch()
    for piece, work in {chapter.__name__: chapter for chapter in CHAPTERS}[name]():
        torch.manual_seed(0)
        try:
            with Watched(), SecondDevice(): work()
            fault = None
        except Exception: fault = traceback.format_exc(limit=-4)
        print(json.dumps([piece, fault]), flush=True)


if __name__ == "__main__": main(sys.argv[1])
