"Answers to the exercises of chapter 02, worked out from their statements; each wrong one with words that its verdict must say."
import math

import torch

RIGHT, WRONG = {}, {}

RIGHT["02.1"] = [
    lambda z: torch.sigmoid(z) * torch.sigmoid(-z),
    lambda z: 0.25 * (1 - torch.tanh(z / 2) ** 2),
    lambda z: torch.sigmoid(z) - torch.sigmoid(z).square(),
    lambda z: torch.sigmoid(z.double()) * (1 - torch.sigmoid(z.double())),
    lambda z: torch.exp(-z.abs()) / (1 + torch.exp(-z.abs())) ** 2]
WRONG["02.1"] = [
    (lambda z: torch.sigmoid(z) * (1 + torch.sigmoid(z)), "the slope should be"),
    (lambda z: torch.sigmoid(z) * (torch.sigmoid(z) - 1), "The sign is turned around"),
    (lambda z: (torch.sigmoid(z) * (1 - torch.sigmoid(z))).sum(), "should have shape (1,), yours has ()"),
    (lambda z: z.exp() / (1 + z.exp()) ** 2, "The exponential of a large number is infinite"),
    (lambda z: 1 - torch.tanh(z) ** 2, "That is the slope of tanh"),
    (lambda z: torch.sigmoid(z) * torch.sigmoid(1 - z), "the slope should be"),
    (lambda z: 1 - torch.sigmoid(z), "That is the second factor alone"),
    (lambda z: math.exp(-z) / (1 + math.exp(-z)) ** 2, "should have shape (1,), yours has ()")]

RIGHT["02.2"] = [
    4**10,
    1 / 0.25**10,
    1.0486e6,
    torch.tensor(4.0) ** 10]
WRONG["02.2"] = [
    (0.25**10, "That is the slope itself"),
    (40, "Slopes of layers in a row are multiplied"),
    (4**9, "Ten layers have ten activations"),
    (4**11, "is too large"),
    (2.5, "is too small"),
    (2**10, "1/2 is the value of the sigmoid at 0"),
    (4, "That is the factor of one layer"),
    ("4**10", "should be a number, yours is of type str")]

RIGHT["02.3"] = [
    lambda z: (z <= 0).all(0).sum(),
    lambda z: int((z.max(0).values <= 0).sum()),
    lambda z: (torch.relu(z).sum(0) == 0).sum().item(),
    lambda z: sum(1 for unit in z.T if not (unit > 0).any()),
    lambda z: float((z.clamp(min=0).amax(0) == 0).sum())]
WRONG["02.3"] = [
    (lambda z: (z <= 0).all(1).sum(), "You count images that turn no unit on"),
    (lambda z: (z <= 0).any(0).sum(), "A unit that is off for some image is not dead"),
    (lambda z: (z < 0).all(0).sum(), "The ReLU outputs 0 for a pre-activation of 0 as well"),
    (lambda z: (z <= 0).all(0).float().mean(), "Give the number of dead units"),
    (lambda z: (z <= 0).sum(), "You count single outputs of 0"),
    (lambda z: (z <= 0).all(0), "should have shape (), yours has (1,)"),
    (lambda z: (z == 0).all(0).sum(), "the number of dead units should be"),
    (lambda z: (z <= 0).all(0).nonzero(), "should have shape (), yours has (0, 1)")]

RIGHT["02.4"] = [
    torch.logsumexp,
    lambda z, dim: z.amax(dim) + (z - z.amax(dim, keepdim=True)).exp().sum(dim).log(),
    lambda z, dim: (z - torch.log_softmax(z, dim)).mean(dim),
    lambda z, dim: z.select(dim, 0) - torch.log_softmax(z, dim).select(dim, 0),
    lambda z, dim: z.double().exp().sum(dim).log() if z.abs().max() < 700 else torch.logsumexp(z, dim),
    lambda z, dim: z.max(dim).values + torch.log(torch.exp(z - z.max(dim, keepdim=True).values).sum(dim))]
WRONG["02.4"] = [
    (lambda z, dim: z.exp().sum(dim).log(), "exp of a large score is infinite"),
    (lambda z, dim: torch.logsumexp(z, dim, keepdim=True), "The result should no longer have the dimension dim"),
    (lambda z, dim: z.max() + (z - z.max()).exp().sum(dim).log(), "Subtract the maximum along dim"),
    (lambda z, dim: (z - z.amax(dim, keepdim=True)).exp().sum(dim).log(), "The maximum that was subtracted has to be added again after "),
    (lambda z, dim: torch.logsumexp(z, -1), "dim is not used"),
    (lambda z, dim: torch.logsumexp(z, 0), "the result should be"),
    (lambda z, dim: z.amax(dim) * (z - z.amax(dim, keepdim=True)).exp().sum(dim), "the result should be"),
    (lambda z, dim: torch.log_softmax(z, dim), "should have shape (), yours has (2,)"),
    (lambda z, dim: z.amax(dim, keepdim=True) + (z - z.amax(dim, keepdim=True)).exp().sum(dim).log(), "should have shape (), yours has (1,)")]

RIGHT["02.5"] = [
    lambda p, g: p * g - p * (p * g).sum(1, keepdim=True),
    lambda p, g: torch.stack([(torch.diag(a) - torch.outer(a, a)) @ b for a, b in zip(p, g)]),
    lambda p, g: p * (g - torch.einsum("rc,rc->r", p, g)[:, None])]
WRONG["02.5"] = [
    (lambda p, g: p * (1 - p) * g, "That is only the diagonal"),
    (lambda p, g: p * (g - (p * g).sum(0, keepdim=True)), "The sum runs over the classes of one row"),
    (lambda p, g: p * (g - (p * g).sum()), "The sum runs over the classes of one row"),
    (lambda p, g: p * (g - g.sum(1, keepdim=True)), "In the sum each g has to be weighted with its p"),
    (lambda p, g: p * (g - (p * g).mean(1, keepdim=True)), "you take the mean over the classes"),
    (lambda p, g: p * g - (p * g).sum(1, keepdim=True), "the slope should be"),
    (lambda p, g: (p * (1 - p) * g).sum(1, keepdim=True), "should have shape (1, 2), yours has (1, 1)"),
    (lambda p, g: p * (g + (p * g).sum(1, keepdim=True)), "the slope should be")]
