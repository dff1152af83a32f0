"Chapter 8, the networks: they are torchvision's where it has them, have the parts they promise, and say what is wrong with an input."
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import box_iou as torchvision_box_iou

from dlbook import cnn
from dlbook.cnn import LeNet, ResBlock, ResNet, UNet, box_iou
from dlbook.kit.exercises import find, judge

settings.register_profile("nets", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("nets")

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])


def generator(seed): return torch.Generator().manual_seed(seed)


def close(ours, theirs, dtype):
    torch.testing.assert_close(ours, theirs, **({"rtol": 1e-8, "atol": 1e-8} if dtype == torch.float64 else {"rtol": 2e-3, "atol": 2e-3}))


def values_and_gradients(model, x):
    "The output, and the gradients of the input and of all weights in their order."
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return [y.detach(), x.grad] + [p.grad.clone() for p in model.parameters()]


def scramble(model, seed):
    "Random weights and buffers everywhere, so that no default hides a fault."
    rng = generator(seed)
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if not t.is_floating_point(): continue
            noise = torch.rand(t.shape, generator=rng, dtype=t.dtype)
            t.copy_(0.5 + noise if "running_var" in name or "bn" in name and "weight" in name else 0.6 * (noise - 0.5))
    return model


# LeNet

def torchs_lenet(n_in, n_out):
    return nn.Sequential(nn.Conv2d(n_in, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
                         nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, n_out))


@given(seeds, st.integers(1, 3), st.integers(1, 12), st.integers(1, 3), dtypes)
def test_lenet_is_torchs(seed, n_in, n_out, n, dtype):
    ours, theirs = scramble(LeNet(n_in, n_out).to(dtype), seed), torchs_lenet(n_in, n_out).to(dtype)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values())))
    x = torch.randn(n, n_in, 28, 28, generator=generator(seed), dtype=dtype)
    for a, b in zip(values_and_gradients(ours, x), values_and_gradients(theirs, x), strict=True): close(a, b, dtype)


def test_lenet_has_the_size_of_the_paper_and_uses_the_books_convolution():
    assert sum(p.numel() for p in LeNet().parameters()) == 61_706
    assert isinstance(LeNet().conv1, cnn.Conv2d) and isinstance(LeNet().conv2, cnn.Conv2d)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 1, 28, 27), (1, 28, 28)])
def test_lenet_refuses_other_sizes(shape):
    with pytest.raises(ValueError, match=r"28, 28.*given \(1, "): LeNet()(torch.zeros(shape))


# Residual blocks

def torchvisions_block(n_in, n_out, stride):
    down = None
    if stride != 1 or n_in != n_out: down = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
    return BasicBlock(n_in, n_out, stride, down)


@given(seeds, st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.booleans(), dtypes)
def test_resblock_is_torchvisions(seed, n_in, n_out, stride, h, w, training, dtype):
    ours, theirs = scramble(ResBlock(n_in, n_out, stride).to(dtype), seed), torchvisions_block(n_in, n_out, stride).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.train(training), theirs.train(training)
    x = torch.randn(4, n_in, h, w, generator=generator(seed), dtype=dtype)
    tolerance = torch.float64 if dtype == torch.float64 else torch.float32
    for a, b in zip(values_and_gradients(ours, x), values_and_gradients(theirs, x), strict=True): close(a, b, tolerance)
    for name, buffer in theirs.named_buffers(): close(dict(ours.named_buffers())[name], buffer, dtype)
    back = ResBlock(n_in, n_out, stride).to(dtype)
    back.load_state_dict(theirs.state_dict())  # and the other way


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.integers(2, 9))
def test_a_block_for_signals_is_one_for_images_of_one_row(seed, n_in, n_out, stride, steps):
    signals, images = ResBlock(n_in, n_out, stride, dims=1).double().eval(), ResBlock(n_in, n_out, stride).double().eval()
    scramble(signals, seed)
    state = {}
    for name, t in signals.state_dict().items():
        if t.ndim == 3: t = F.pad(t[:, :, None], (0, 0, 1, 1)) if t.shape[2] == 3 else t[:, :, None]
        state[name] = t
    images.load_state_dict(state)
    x = torch.randn(2, n_in, steps, generator=generator(seed), dtype=torch.float64)
    torch.testing.assert_close(signals(x), images(x[:, :, None])[:, :, 0])


def test_a_block_without_change_passes_its_input_on():
    block, x = ResBlock(3, 3), torch.randn(2, 3, 5, 5)
    nn.init.zeros_(block.bn2.weight)
    assert torch.equal(block(x), x.relu()) and isinstance(block.downsample, nn.Identity)


@pytest.mark.parametrize("make", [lambda: ResBlock(2, 2, dims=3), lambda: ResNet(1, 2, dims=0), lambda: ResNet(1, 2, dims="2")])
def test_other_dimensions_are_refused(make):
    with pytest.raises(ValueError, match="expected dims = 1 for signals or 2 for images, given"): make()


# Residual networks

class Torchvisions(nn.Module):
    "A network of torchvision's blocks in the order of ours."
    def __init__(self, n_in, n_out, widths, blocks):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(n_in, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        stages, width = [], widths[0]
        for i, new in enumerate(widths):
            for j in range(blocks):
                stages.append(torchvisions_block(width, new, 2 if i > 0 and j == 0 else 1))
                width = new
        self.stages = nn.Sequential(*stages)
        self.head = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Linear(width, n_out)])

    def forward(self, x): return self.head[2](self.stages(self.stem(x)).mean((2, 3)))


@given(seeds, st.integers(1, 3), st.integers(1, 5), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 3), st.integers(4, 13),
       st.booleans())
def test_resnet_is_torchvisions_blocks(seed, n_in, n_out, widths, blocks, side, training):
    ours, theirs = ResNet(n_in, n_out, widths, blocks).double(), Torchvisions(n_in, n_out, widths, blocks).double()
    scramble(ours, seed)
    theirs.load_state_dict(ours.state_dict())
    ours.train(training), theirs.train(training)
    x = torch.randn(3, n_in, side, side + 1, generator=generator(seed), dtype=torch.float64)
    for a, b in zip(values_and_gradients(ours, x), values_and_gradients(theirs, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 3), st.sampled_from([1, 2]))
def test_resnet_has_the_parts_that_others_rely_on(widths, blocks, dims):
    net = ResNet(2, 7, tuple(widths), blocks, dims).eval()
    assert [name for name, _ in net.named_children()] == ["stem", "stages", "head"]
    assert len(net.stages) == blocks * len(widths) and all(isinstance(block, ResBlock) for block in net.stages)
    x = torch.randn(3, 2, *(16,) * dims)
    maps = net.stages(net.stem(x))
    assert net.stem(x).shape == (3, widths[0], *(16,) * dims)
    assert maps.shape == (3, widths[-1], *(16 // 2 ** (len(widths) - 1),) * dims)
    torch.testing.assert_close(net(x), net.head(maps))
    pooled, flat, linear = net.head
    assert pooled(maps).shape == (3, widths[-1], *(1,) * dims) and isinstance(flat, nn.Flatten) and isinstance(linear, nn.Linear)
    torch.testing.assert_close(net(x), linear(maps.flatten(2).mean(2)))
    assert net(x).shape == (3, 7)


@given(st.integers(1, 30), st.integers(1, 30))
def test_resnet_takes_any_size(h, w): assert ResNet(1, 2, (2, 3, 4)).eval()(torch.zeros(1, 1, h, w)).shape == (1, 2)


def test_resnet_defaults():
    net = ResNet(1, 10)
    assert [block.conv1.out_channels for block in net.stages] == [16, 32, 64] and sum(p.numel() for p in net.parameters()) == 77_754
    assert [block.conv1.stride for block in net.stages] == [(1, 1), (2, 2), (2, 2)]
    assert not any("bias" in name and "bn" not in name and t.ndim and "conv" in name for name, t in net.state_dict().items())


@pytest.mark.parametrize("arguments", [dict(widths=()), dict(blocks=0), dict(blocks=-1)])
def test_resnet_needs_a_width_and_a_block(arguments):
    with pytest.raises(ValueError, match="expected at least one width and one block, given"): ResNet(1, 2, **arguments)


def test_every_weight_of_each_network_is_trained():
    for net, x in ((LeNet(), torch.randn(4, 1, 28, 28)), (ResNet(1, 3, (4, 5), 2), torch.randn(4, 1, 9, 9)), (UNet(1, 2, (2, 3, 4)), torch.randn(4, 1, 8, 8)),
                   (ResNet(1, 3, (4, 5), 2, dims=1), torch.randn(4, 1, 9))):
        net(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


# U-Net

def by_hand(net, x):
    "A U-Net in evaluation mode, written out."
    def double(block, x):
        for conv, bn in ((block[0], block[1]), (block[3], block[4])):
            x = F.conv2d(x, conv.weight, padding=1)
            x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias).relu()
        return x
    def level(i, x):
        x = double(net.down[i], x)
        if i + 1 == len(net.down): return x
        n, c, h, w = x.shape
        below = level(i + 1, x.reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5)))
        return double(net.up[i], torch.cat([x, below.repeat_interleave(2, 2).repeat_interleave(2, 3)], 1))
    return F.conv2d(level(0, x), net.out.weight, net.out.bias)


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(1, 3), st.integers(1, 3))
def test_unet_is_what_is_drawn(seed, n_in, n_out, widths, h, w):
    net = scramble(UNet(n_in, n_out, widths).double().eval(), seed)
    step = 2 ** (len(widths) - 1)
    x = torch.randn(2, n_in, step * h, step * w, generator=generator(seed), dtype=torch.float64)
    assert net(x).shape == (2, n_out, step * h, step * w)
    torch.testing.assert_close(net(x), by_hand(net, x))


@pytest.mark.parametrize("shape", [(1, 1, 6, 8), (1, 1, 8, 6), (1, 8, 8), (1, 1, 9, 9)])
def test_unet_refuses_sizes_that_cannot_be_halved(shape):
    with pytest.raises(ValueError, match=r"multiples of 4, given \(1, "): UNet(1, 1, (2, 3, 4))(torch.zeros(shape))


@pytest.mark.parametrize("widths", [(), (4,)])
def test_unet_needs_two_levels(widths):
    with pytest.raises(ValueError, match="expected at least two widths, given"): UNet(1, 1, widths)


# Boxes

@given(seeds, st.integers(0, 20), dtypes)
def test_box_iou_is_torchvisions(seed, n, dtype):
    corners = torch.rand(2, n, 2, 2, generator=generator(seed), dtype=dtype)
    a, b = torch.cat([corners[:, :, 0], corners[:, :, 0] + corners[:, :, 1]], 2).requires_grad_()
    ours, theirs = box_iou(a, b), torchvision_box_iou(a, b).diagonal()
    torch.testing.assert_close(ours, theirs)
    if n: torch.testing.assert_close(*(torch.autograd.grad(v.sum(), a, retain_graph=True)[0] for v in (ours, theirs)))


def test_box_iou_at_the_edges():
    box = torch.tensor([[0.0, 0, 2, 2]])
    cases = [([0, 0, 2, 2], 1), ([2, 0, 4, 2], 0), ([5, 5, 6, 6], 0), ([0, 0, 1, 1], 1 / 4), ([1, 1, 1, 1], 0), ([1, 0, 3, 2], 1 / 3),
             ([3, 3, 1, 1], 0)]  # the last one is turned inside out
    for other, expected in cases: assert box_iou(box, torch.tensor([other]).float()).item() == pytest.approx(expected)
    assert box_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@pytest.mark.parametrize("shapes", [((2, 4), (3, 4)), ((2, 3), (2, 3)), ((4,), (4,))])
def test_box_iou_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"expected two tensors of boxes \(n, 4\), given"): box_iou(*map(torch.zeros, shapes))


# Exercises

def from_the_network(n_in, n_out, widths, blocks): return sum(p.numel() for p in ResNet(n_in, n_out, widths, blocks).parameters())


@pytest.mark.parametrize("id, answer", [
    ("08.4", from_the_network),
    ("08.2", lambda maps, weight, target: (maps * weight[target][:, :, None, None]).sum(1))])
def test_right_answers_of_another_kind(id, answer): assert judge(id, answer).state == "right"


def test_the_activation_map_explains_the_logit():
    net, x, target = ResNet(1, 5, (3, 4)).eval(), torch.randn(6, 1, 8, 8), torch.arange(6) % 5
    found = find("08.2").reference(net.stages(net.stem(x)), net.head[2].weight, target)
    torch.testing.assert_close(found.mean((1, 2)) + net.head[2].bias[target], net(x)[range(6), target])


@pytest.mark.parametrize("id, answer, fault", [
    ("08.4", lambda *a: sum(t.numel() for n, t in ResNet(*a).state_dict().items() if "tracked" not in n), "running mean"),
    ("08.4", lambda *a: sum(p.numel() for n, p in ResNet(*a).named_parameters() if "downsample" not in n), "left out"),
    ("08.4", lambda *a: sum(p.numel() for n, p in ResNet(*a).named_parameters() if p.ndim != 1 or "head" in n), "batch normalizations"),
    ("08.4", lambda n_in, n_out, widths, blocks: from_the_network(n_in, n_out, widths, 1), "should be"),
    ("08.2", lambda maps, weight, target: torch.einsum("nchw,nc->nhw", maps, weight[target]).clamp(min=0), "negative"),
    ("08.2", lambda maps, weight, target: (maps * weight[target][:, :, None, None]).mean(1), "sum"),
    ("08.2", lambda maps, weight, target: maps.sum(1), "should be")])
def test_wrong_answers_are_told_what_is_wrong(id, answer, fault):
    verdict = judge(id, answer)
    assert verdict.state == "wrong" and fault in verdict.line


@pytest.mark.parametrize("id", ["08.4", "08.2"])
def test_each_mistake_gets_its_sentence(id):
    ex = find(id)
    assert judge(id, ex.reference).state == "right"
    for wrong, sentence in ex.mistakes: assert sentence in judge(id, wrong).line
