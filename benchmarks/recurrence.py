"""The LSTM of chapter 9 beside torch's, and beside the two usual ways of writing one from scratch, forward and backward."""
from __future__ import annotations

import torch
from torch import nn

from benchmarks.common import compare, main
from dlbook import rnn


class TwelveTensors(nn.Module):
    "The way of textbooks that follow the formulas: matrices and a bias for each gate, a list of outputs."

    def __init__(self, n, m):
        super().__init__()
        for gate in "ifgo":
            for name, shape in (("x", (n, m)), ("h", (m, m)), ("b", (m,))):
                self.register_parameter(f"{gate}_{name}", nn.Parameter(torch.empty(shape)))

    def load(self, layer):
        "Take the weights of a torch LSTM."
        with torch.no_grad():
            both = layer.bias_ih_l0 + layer.bias_hh_l0
            for name, tensor in (("x", layer.weight_ih_l0), ("h", layer.weight_hh_l0), ("b", both)):
                for gate, part in zip("ifgo", tensor.chunk(4)): getattr(self, f"{gate}_{name}").copy_(part.T if part.dim() == 2 else part)
        return self

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], self.i_b.shape[0])
        outs = []
        for x_t in x:
            def total(gate): return x_t @ getattr(self, f"{gate}_x") + h @ getattr(self, f"{gate}_h") + getattr(self, f"{gate}_b")
            i, f, o = (torch.sigmoid(total(gate)) for gate in "ifo")
            c = f * c + i * torch.tanh(total("g"))
            h = o * torch.tanh(c)
            outs.append(h)
        return torch.stack(outs), (h, c)


class OneMatrix(nn.Module):
    "The way of compact notebooks: a linear layer on [x, h], cut into four, and a list of outputs."

    def __init__(self, n, m):
        super().__init__()
        self.m, self.gates = m, nn.Linear(n + m, 4 * m)

    def load(self, layer):
        "Take the weights of a torch LSTM."
        with torch.no_grad():
            self.gates.weight.copy_(torch.cat([layer.weight_ih_l0, layer.weight_hh_l0], 1))
            self.gates.bias.copy_(layer.bias_ih_l0 + layer.bias_hh_l0)
        return self

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], self.m)
        outs = []
        for x_t in x:
            i, f, g, o = self.gates(torch.cat([x_t, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outs.append(h)
        return torch.stack(outs), (h, c)


def pass_through(layer, x, times):
    "A function that reads `x` forward and backward `times` times."
    def run():
        for _ in range(times):
            layer.zero_grad()
            x.grad = None
            layer(x)[0].sum().backward()
    return run


def rows() -> list[dict]:
    "Ratios of passes a second, where 0.5 is twice the time of torch."
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    batch, steps, n, m, times, found = 64, 64, 64, 128, 5, []
    theirs = nn.LSTM(n, m)
    ours = rnn.LSTM(n, m)
    ours.load_state_dict(theirs.state_dict())
    rivals = [("torch.nn.LSTM", theirs, 1 / 2), ("a matrix for each gate", TwelveTensors(n, m).load(theirs), 1.0),
              ("one matrix for [x, h]", OneMatrix(n, m).load(theirs), 1.0)]
    x = torch.randn(steps, batch, n).to(device)
    for name, rival, target in rivals:
        ours.to(device), rival.to(device)
        torch.testing.assert_close(ours(x)[0], rival(x)[0], rtol=1e-4, atol=1e-5)  # the same work, or no comparison
        for inputs, what in ((x, "from data"), (x.clone().requires_grad_(), "with the gradient of the input")):
            found.append(compare(f"LSTM beside {name}, {what}", pass_through(ours, inputs, times), pass_through(rival, inputs, times), target,
                                 units=times, unit="passes", rounds=9, seed=0, batch=batch, steps=steps, sizes=[n, m], device=device))
    if device == "cuda": found.append(compiled(theirs, x, times))
    return found


def compiled(theirs, x, times) -> dict:
    "On a GPU: the plain step of chapter 9, all of them compiled into one program by `torch.compile`, beside cuDNN's."
    weights = [w.detach().clone().requires_grad_() for w in (theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0, theirs.bias_hh_l0)]
    sizes, m = [x.shape[1]] * x.shape[0], theirs.hidden_size

    @torch.compile(mode="reduce-overhead")
    def read(x, W_ih, W_hh, b_ih, b_hh):
        begin = x.new_zeros(x.shape[1], m)
        z = torch.nn.functional.linear(x.flatten(0, 1), W_ih, b_ih)
        return rnn.scan(lambda z_t, state: rnn.lstm_step(z_t, state, W_hh, b_hh), z, sizes, (begin, begin))[0]

    torch.testing.assert_close(read(x, *weights), theirs(x)[0].flatten(0, 1), rtol=1e-3, atol=1e-4)

    def ours():
        for _ in range(times):
            for w in weights: w.grad = None
            read(x, *weights).sum().backward()
    return compare("LSTM's plain steps through torch.compile beside torch.nn.LSTM, from data", ours, pass_through(theirs, x, times), 0.8, units=times,
                   unit="passes", rounds=9, warmup=5, seed=0, batch=x.shape[1], steps=x.shape[0], sizes=[x.shape[2], m], device=x.device.type)


if __name__ == "__main__": main(rows)
