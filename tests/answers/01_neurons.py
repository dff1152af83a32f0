"Answers to the exercises of chapter 01, worked out from their statements; each wrong one with words that its verdict must say."
import numpy as np
import torch
import torch.nn.functional as F

RIGHT, WRONG = {}, {}

RIGHT["01.1"] = [
    lambda: [-2, -2, 3],
    lambda: torch.tensor([-0.5, -0.5, 0.75]),
    lambda: np.array([-1, -1, 1.5]),
    lambda: (torch.tensor(-3.0), -2.0, 4.0),
    lambda: (torch.tensor([-1.0]), torch.tensor([-1.0]), torch.tensor([1.5]))]
WRONG["01.1"] = [
    (lambda: (-1, -1, 1), "These are weights for NOR"),
    (lambda: (-1, 0, 0.5), "This neuron looks at the first input alone"),
    (lambda: (1.5, -1, -1), "the neuron's answer should be"),
    (lambda: (1, 1, 1.5), "This neuron answers 1 to everything"),
    (lambda: (-1, -1), "your answer should give three numbers w1"),
    (lambda: ((-1, -1), 1.5), "your answer should give three numbers w1"),
    (lambda: "-1 -1 1.5", "your answer should give three numbers w1")]

RIGHT["01.2"] = [
    lambda x, w, b: (x * w).sum(1) / w.square().sum().sqrt() + b / w.square().sum().sqrt(),
    lambda x, w, b: torch.stack([(row @ w + b) / torch.linalg.norm(w) for row in x]),
    lambda x, w, b: (x.numpy() @ w.numpy() + b) / np.linalg.norm(w.numpy()),
    lambda x, w, b: [float((row @ w + b) / w.norm()) for row in x]]
WRONG["01.2"] = [
    (lambda x, w, b: (x @ w + b) / x.norm(), "the distance should be"),
    (lambda x, w, b: (x @ w + b) / w.abs().sum(), "the distance should be"),
    (lambda x, w, b: -(x @ w + b) / w.norm(), "the distance should be"),
    (lambda x, w, b: (x @ w[:, None] + b) / w.norm(), "should have shape (1,), yours has (1, 1)"),
    (lambda x, w, b: (x @ w + b) / (w @ w + b * b) ** 0.5, "the distance should be")]


def _update_if_wrong(w, b, x, y):
    said = 1 if float(w @ x) + b > 0 else 0
    if said == y: return (w, b)
    return (w + x, b + 1) if y == 1 else (w - x, b - 1)


def _update_in_place(w, b, x, y):
    error = y - int(x @ w + b > 0)
    w += error * x
    return (w, b + error)


def _halves(w, b, x, y):
    error = (y - int(x @ w + b > 0)) / 2
    return (w + error * x, b + error)


def _order(w, b, x, y): return _update_if_wrong(w, b, x, y)[::-1]


def _without_x(w, b, x, y):
    error = y - int(x @ w + b > 0)
    return (w + error, b + error)


def _sigmoid_rule(w, b, x, y):
    error = y - torch.sigmoid(x @ w + b)
    return (w + error * x, b + error)


def _signed(w, b, x, y):
    said = 1 if x @ w + b > 0 else -1
    return (w, b) if said == y else (w + y * x, b + y)


def _only_missed(w, b, x, y):
    said = int(x @ w + b > 0)
    return (w + x, b + 1) if said == 0 and y == 1 else (w, b)


RIGHT["01.3"] = [
    _update_if_wrong,
    lambda w, b, x, y: [w + (y - (w @ x + b > 0).float()) * x, torch.as_tensor(b) + y - (w @ x + b > 0).float()]]
WRONG["01.3"] = [
    (_update_in_place, "changes its argument w in place"),
    (_halves, "the new weights should be"),
    (_order, "should have shape (1,), yours has ()"),
    (_without_x, "The weights move along x"),
    (_sigmoid_rule, "the new weights should be"),
    (_signed, "Nothing changes where a 0 is answered with 1"),
    (_only_missed, "Nothing changes where a 0 is answered with 1")]

RIGHT["01.4"] = [
    lambda x, W1, b1, W2, b2: F.linear(F.linear(x, W1, b1).clamp(min=0), W2, b2),
    lambda x, W1, b1, W2, b2: torch.stack([W2 @ torch.maximum(W1 @ row + b1, torch.zeros(len(b1))) + b2 for row in x]),
    lambda x, W1, b1, W2, b2: np.maximum(x.numpy() @ W1.numpy().T + b1.numpy(), 0) @ W2.numpy().T + b2.numpy()]
WRONG["01.4"] = [
    (lambda x, W1, b1, W2, b2: torch.relu(x @ W1 + b1) @ W2 + b2, "W1 is not transposed"),
    (lambda x, W1, b1, W2, b2: torch.tanh(x @ W1.T + b1) @ W2.T + b2, "The exercise asks for ReLU in the hidden layer"),
    (lambda x, W1, b1, W2, b2: torch.relu(x @ W1.T + b1) @ W2.T, "The bias of the output layer is missing"),
    (lambda x, W1, b1, W2, b2: torch.relu(x @ W1.T) @ W2.T + b2, "The bias of the hidden layer is missing"),
    (lambda x, W1, b1, W2, b2: (torch.relu(x @ W1.T + b1) @ W2.T + b2).sum(1), "should have shape (1, 1), yours has (1,)"),
    (lambda x, W1, b1, W2, b2: (W2 @ torch.relu(W1 @ x.T + b1[:, None]) + b2[:, None]), "should have shape (2, 1), yours has (1, 2)"),
    (lambda x, W1, b1, W2, b2: (torch.relu(x @ W1.T + b1) @ W2.T + b2 > 0).float(), "the score should be"),
    (lambda x, W1, b1, W2, b2: (x @ W1.T + b1).abs() @ W2.T + b2, "the score should be")]

RIGHT["01.5"] = [
    104,
    104.0,
    torch.tensor(104),
    np.int64(104)]
WRONG["01.5"] = [
    (102, "is too small"),
    (8, "is too small"),
    (128, "is too large")]


def _zigzag_shifted(n):
    w2 = torch.tensor([2.0 * (-1) ** k * (1 if k == 0 else 2) for k in range(n)])
    return (torch.ones(n, n), -torch.arange(n) - 0.25, w2, 0.0)


def _sawtooth(n): return (np.ones((n, n)), [-k for k in range(n)], [1 if k == 0 else 2 * (-1) ** k for k in range(n)], 0)
def _growing(n): return (torch.ones(n, n), -torch.arange(n).float(), torch.tensor([1.0] + [2.0 * k * (-1) ** k for k in range(1, n)]), 0.0)
def _ladder(n): return (torch.ones(n, n), -torch.arange(n).float(), torch.tensor([(-1.0) ** k for k in range(n)]), 0.0)
def _one_too_late(n): return (torch.ones(n, n), -torch.arange(1, n + 1).float(), torch.tensor([1.0] + [2.0 * (-1) ** k for k in range(1, n)]), 0.0)
def _always_two(n): return (torch.ones(n, n), -torch.arange(n).float(), torch.tensor([1.0, -2.0, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0][:n]) * 2 - 1, 0.0)
def _all_minus_two(n): return (torch.ones(n, n), -torch.arange(n).float(), torch.tensor([1.0] + [-2.0] * (n - 1)), 0.0)
def _w2_twos(n): return (torch.ones(n, n), -torch.arange(n).float(), torch.tensor([2.0 * (-1) ** k for k in range(n)]), 0.0)
def _column(n): return (torch.ones(n, n), -torch.arange(n).float(), torch.tensor([[1.0] + [2.0 * (-1) ** k for k in range(1, n)]]), 0.0)
def _identity(n): return (torch.eye(n), -torch.arange(n).float(), torch.tensor([1.0] + [2.0 * (-1) ** k for k in range(1, n)]), 0.0)
def _even(n): return (torch.ones(n, n), -torch.arange(n).float(), -torch.tensor([1.0] + [2.0 * (-1) ** k for k in range(1, n)]), 1.0)
def _xor_only(n): return (torch.ones(2, 2), torch.tensor([0.0, -1.0]), torch.tensor([1.0, -2.0]), 0.0)


RIGHT["01.6"] = [
    _zigzag_shifted,
    _sawtooth,
    _growing,
    lambda n: (torch.ones(n, n), -torch.arange(n).float(), torch.cat([torch.ones(1), 2.0 * (-1.0) ** torch.arange(1, n)]), torch.tensor([0.0])),
    lambda n: (2 * torch.ones(n, n), -2 * torch.arange(n).float(), torch.tensor([1.0] + [2.0 * (-1) ** k for k in range(1, n)]) / 2, torch.tensor(0.0))]
WRONG["01.6"] = [
    (_ladder, "Behind the first bend your line is level"),
    (_one_too_late, "All bends come one input too late"),
    (_always_two, "From three inputs on your output stays below 0"),
    (_all_minus_two, "From three inputs on your output stays below 0"),
    (_w2_twos, "Behind the first bend your line is level"),
    (_column, "your answer should give w2 of shape (2"),
    (_identity, "the network's answer to the inputs in counting order (00…0 first) should be"),
    (_even, "the network's answer to the inputs in counting order (00…0 first) should be"),
    (_xor_only, "your answer should give W1 of shape (1")]
