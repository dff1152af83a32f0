"Reinforcement learning: environments equal to gymnasium's, values to the linear equations, searches to a plain tree, errors at the door."
import inspect
import math
import random

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook import rl
from dlbook.kit.exercises import find, judge
from dlbook.rl import *

fast = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def quiet(): torch.set_num_threads(1), torch.manual_seed(0)


# Bandits

@fast
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 1000))
def test_greedy_and_ucb_equal_plain_loops(n, k, seed):
    rng = torch.Generator().manual_seed(seed)
    pulls = torch.randint(0, 5, (n, k), generator=rng).float()
    wins = (pulls * torch.rand(n, k, generator=rng)).floor()
    def pick(scores): return max(range(k), key=lambda a: (scores[a], -a))
    greedy = [pick([w / p if p else math.inf for p, w in zip(ps, ws)]) for ps, ws in zip(pulls.tolist(), wins.tolist())]
    bold = [pick([w / p + math.sqrt(2 * math.log(max(sum(ps), 1)) / p) if p else math.inf for p, w in zip(ps, ws)]) for ps, ws in zip(pulls.tolist(), wins.tolist())]
    assert epsilon_greedy(pulls, wins, rng, 0.0).tolist() == greedy
    for row, mine, theirs in zip(range(n), ucb(pulls, wins).tolist(), bold):
        if mine != theirs: assert abs(_ucb_score(pulls[row], wins[row], mine) - _ucb_score(pulls[row], wins[row], theirs)) < 1e-5


def _ucb_score(p, w, a): return (w[a] / p[a]).item() + math.sqrt(2 * math.log(p.sum().item()) / p[a].item())


def test_epsilon_is_the_share_of_random_arms():
    pulls, wins = torch.ones(40_000, 4), torch.tensor([0.0, 0, 1, 0]).expand(40_000, 4)
    share = epsilon_greedy(pulls, wins, torch.Generator().manual_seed(0), 0.4).bincount(minlength=4) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.1, 0.1, 0.7, 0.1]), atol=0.01, rtol=0)


def test_thompson_draws_from_the_beta_posterior():
    pulls, wins = torch.tensor([[8.0, 3.0]]).expand(40_000, 2), torch.tensor([[5.0, 1.0]]).expand(40_000, 2)
    share = thompson(pulls, wins, torch.Generator().manual_seed(1)).float().mean()
    beta = np.random.default_rng(0).beta([6, 2], [4, 3], size=(200_000, 2))
    assert abs(share - (beta[:, 1] > beta[:, 0]).mean()) < 0.01


def test_regret_is_counted_and_reproducible():
    probs = torch.tensor([0.2, 0.9])
    assert play_bandit(lambda p, w, r: torch.ones(3, dtype=torch.long), probs, 5, n=3).abs().max() == 0
    a, b, c = (play_bandit(thompson, probs, 60, n=4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == (4, 60) and (a.diff(dim=1) >= 0).all()
    seen = []
    play_bandit(lambda p, w, r: (seen.append((p.sum().item(), w.sum().item())), torch.ones(2, dtype=torch.long))[1], torch.tensor([0.0, 1.0]), 3, n=2)
    assert seen == [(0, 0), (2, 2), (4, 4)]
    with pytest.raises(ValueError, match="expected probabilities .* between 0 and 1"): play_bandit(ucb, torch.tensor([0.5, 1.5]), 3)


# Grid worlds

maps = st.lists(st.text("..#C", min_size=4, max_size=4), min_size=2, max_size=4).map(lambda rows: ["S" + rows[0][1:], *rows[1:-1], rows[-1][:-1] + "G"])


@fast
@given(maps, st.floats(0, 1), st.floats(-1, 1), st.floats(0.3, 0.97))
def test_dynamic_programming_agrees_with_the_linear_equations(rows, slip, step, gamma):
    world = GridWorld(rows, {"G": 2.0, "C": 0.5}, step=step, slip=slip)
    sums = world.P.sum(-1)
    torch.testing.assert_close(sums, (~world.final)[:, None].double().expand_as(sums))
    assert (world.R[world.final] == 0).all()
    V, policy, changes = value_iteration(world, gamma)
    V2, policy2, rounds = policy_iteration(world, gamma)
    torch.testing.assert_close(V, V2, atol=1e-7, rtol=0)
    torch.testing.assert_close(V, policy_values(world, policy, gamma), atol=1e-7, rtol=0)
    assert all(b <= gamma * a + 1e-12 for a, b in zip(changes, changes[1:]))  # a contraction
    coin = torch.rand(len(world.cells), 4).softmax(1)
    W = policy_values(world, coin, gamma)
    torch.testing.assert_close(W, (coin.double() * action_values(world, W, gamma)).sum(1))
    assert (V >= W - 1e-5).all()


def test_moves_walls_slips_and_throwing_back():
    world = GridWorld(["S#", ".X"], {"X": -5.0}, step=-1.0, ends="", back="X", slip=0.2)
    assert world.cells == ((0, 0), (1, 0), (1, 1)) and world.start == 0
    torch.testing.assert_close(world.P[0, 2], torch.tensor([0.2, 0.8, 0.0]).double())  # down; slips run into wall and edge
    torch.testing.assert_close(world.P[1, 1], torch.tensor([0.9, 0.1, 0.0]).double())  # right: over X back to the start, up, or the edge
    torch.testing.assert_close(world.R[1, 1], torch.tensor(-1.0 - 0.8 * 5).double())


def test_bad_worlds_and_policies():
    for rows in (["S.", "..."], ["..", ".."], ["SS"]):
        with pytest.raises(ValueError, match="expected rows of one length with one S"): GridWorld(rows)
    with pytest.raises(ValueError, match="expected slip from 0 to 1, given 2"): GridWorld(["SG"], slip=2)
    world = GridWorld(["S.G"])
    with pytest.raises(ValueError, match=r"expected a policy \(3,\) or \(3, 4\), given \(3, 3\)"): policy_values(world, torch.ones(3, 3))
    with pytest.raises(ValueError, match="expected gamma from 0 to below 1, given 1"): value_iteration(world, 1)
    for rate in (0, 1.5):
        with pytest.raises(ValueError, match="expected a rate above 0 and up to 1"): q_learning(world, rate=rate)


def test_q_learning_arrives_at_the_solution_and_sarsa_at_its_own():
    world = GridWorld(["..G", "S#.", "..."], step=-0.1)
    alive = ~world.final
    Q, returns = q_learning(world, 2000, gamma=0.9, rate=1.0, eps=0.6)
    torch.testing.assert_close(Q[alive], action_values(world, value_iteration(world, 0.9)[0], 0.9)[alive], atol=1e-6, rtol=0)
    assert len(returns) == 2000
    S, _ = q_learning(world, 4000, gamma=0.9, rate=0.02, eps=1.0, sarsa=True)
    exact = action_values(world, policy_values(world, torch.full((len(world.cells), 4), 0.25), 0.9), 0.9)
    assert (S - exact)[alive].abs().max() < 0.12 < (S - Q)[alive].abs().max()
    assert torch.equal(q_learning(world, 20, seed=3)[0], q_learning(world, 20, seed=3)[0])
    assert not torch.equal(q_learning(world, 20, seed=3)[0], q_learning(world, 20, seed=4)[0])


def test_drawing():
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots()
    world = GridWorld(["S.G"])
    world.draw(ax, policy=torch.tensor([1, 1, 0]))
    assert [t.get_text() for t in ax.texts] == ["→", "→", "G"]
    plt.close(fig)


# CartPole

def states_of(envs): return torch.tensor(np.array([env.unwrapped.state for env in envs.envs]))


@pytest.mark.parametrize("kind", ["random", "balanced"])
def test_cartpole_equals_gymnasium_step_for_step(kind):
    carts, theirs, rng = CartPole(6), gymnasium.make_vec("CartPole-v1", 6, vectorization_mode="sync"), np.random.default_rng(0)
    seen, _ = theirs.reset(seed=1)
    carts.reset(0)
    carts.state = states_of(theirs)
    cuts = ends = 0
    for _ in range(4000):
        action = rng.integers(2, size=6) if kind == "random" else (seen[:, 2] + 0.5 * seen[:, 3] + 0.05 * seen[:, 0] + 0.1 * seen[:, 1] > 0).astype(int)
        new = carts.over.clone()
        seen, reward, ended, cut, _ = theirs.step(action)
        mine = carts.step(torch.from_numpy(action))
        if new.any():
            assert carts.state[new].abs().max() <= 0.05
            carts.state = torch.where(new[:, None], states_of(theirs), carts.state)
        torch.testing.assert_close(carts.state, states_of(theirs), rtol=0, atol=1e-9)
        if not new.any(): np.testing.assert_allclose(mine[0].numpy(), seen, atol=1e-6)
        for a, b in zip(mine[1:4], (reward, ended, cut)): np.testing.assert_array_equal(a.numpy(), b)
        if kind == "balanced": carts.state = states_of(theirs)  # an open loop would double rounding errors without end
        cuts, ends = cuts + cut.sum(), ends + ended.sum()
    assert (ends > 500) if kind == "random" else (cuts >= 40)


@fast
@given(st.tuples(*[st.floats(-b, b) for b in (3, 4, 0.3, 4)]), st.integers(0, 1))
def test_one_step_from_anywhere(state, action):
    env, carts = gymnasium.make("CartPole-v1").unwrapped, CartPole(1)
    env.reset(), carts.reset(0)
    env.state, carts.state = np.array(state), torch.tensor([state])
    carts.state = torch.tensor([state], dtype=torch.float64)
    _, reward, ended, *_ = env.step(action)
    seen, mine, over, cut, info = carts.step(torch.tensor([action]))
    np.testing.assert_allclose(carts.state[0].numpy(), env.state, atol=1e-12)
    assert mine.item() == reward and over.item() == ended and not cut.item() and info == {}
    assert seen.dtype == mine.dtype == torch.float32 and carts.state.dtype == torch.float64


def test_episodes_are_cut_at_500_and_start_anew():
    carts, theirs = CartPole(3), gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    carts.reset(0), theirs.reset(seed=0)
    for t in range(1, 1100):
        carts.state = torch.zeros(3, 4)
        theirs.unwrapped.state = np.zeros((4, 3))
        mine, other = carts.step(torch.zeros(3, dtype=torch.long)), theirs.step(np.zeros(3, dtype=np.int64))
        for a, b in zip(mine[1:4], other[1:4]): np.testing.assert_array_equal(a.numpy(), b)
        assert mine[3].all() == (t % 501 == 500) and (mine[1] == 0).all() == (t % 501 == 0)


def test_carts_that_started_at_different_times_are_each_cut_after_500_steps():
    "Only when the oldest cart may be 500 steps old are the ages looked at; none may be missed for it."
    carts, age = CartPole(3), [0, 0, 0]
    carts.reset(0)
    cuts = 0
    for t in range(1, 1700):
        state = torch.zeros(3, 4, dtype=torch.float64)  # upright, so that nobody falls by itself
        if t in (100, 333): state[1 if t == 100 else 2, 0] = 3.0  # beyond the edge
        carts.state, new = state, carts.over.tolist()
        cut = carts.step(torch.zeros(3, dtype=torch.long))[3]
        age = [0 if over else a + 1 for a, over in zip(age, new)]
        assert cut.tolist() == [a == 500 for a in age], t
        cuts += int(cut.sum())
    assert cuts == 8


def test_cartpole_seeds_and_errors():
    a, b = CartPole(5), CartPole(5)
    assert torch.equal(a.reset(7)[0], b.reset(7)[0]) and not torch.equal(a.reset()[0], b.reset(8)[0])
    start = CartPole(20_000)
    start.reset(0)
    assert start.state.abs().max() <= 0.05 and abs(start.state.mean()) < 1e-3 and abs(start.state.std() - 0.1 / 12**0.5) < 1e-3
    with pytest.raises(ValueError, match="expected at least one cart, given 0"): CartPole(0)
    with pytest.raises(ValueError, match=r"expected reset\(\) before the first step"): CartPole(1).step(torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"expected actions \(5,\), given \(4,\)"): a.step(torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"expected a state \(5, 4\), given \(4, 5\)"): a.state = torch.zeros(4, 5)


def test_what_step_gives_can_be_trained_on():
    carts, w = CartPole(2), torch.ones(4, requires_grad=True)
    carts.reset(0)
    seen, reward, ended, cut, _ = carts.step(torch.tensor([0, 1]))
    torch.where(ended, (seen @ w).square(), reward * (seen @ w)).sum().backward()
    assert w.grad.abs().sum() > 0
    (carts.state.float() @ w).square().sum().backward()


# Deep Q-learning

def test_replay_keeps_the_newest():
    memory = Replay(5)
    for i in range(4): assert memory.add(torch.full((2, 4), float(i)), torch.tensor([i, i]), torch.ones(2) * i, torch.full((2, 4), i + 0.5), torch.zeros(2, dtype=torch.bool)).tolist() == [2 * i % 5, (2 * i + 1) % 5]
    assert len(memory) == 5 and sorted(memory.action.tolist()) == [1, 2, 2, 3, 3]
    state, action, reward, next, ended = memory.at(torch.tensor([0, 2]))
    assert (state[:, 0] == action).all() and (next[:, 0] == action + 0.5).all() and (reward == action).all() and ended.dtype == torch.float32


@fast
@given(st.integers(1, 6), st.booleans(), st.floats(0, 1), st.integers(0, 999))
def test_q_targets_equal_a_plain_loop(n, double, gamma, seed):
    rng = torch.Generator().manual_seed(seed)
    mine, old, reward = torch.randn(n, 2, generator=rng), torch.randn(n, 2, generator=rng), torch.randn(n, generator=rng)
    ended = torch.randint(2, (n,), generator=rng).float()
    expected = [r if e else r + gamma * (o[m.index(max(m))] if double else max(o)) for r, e, m, o in zip(reward.tolist(), ended.tolist(), mine.tolist(), old.tolist())]
    torch.testing.assert_close(q_targets(reward, torch.zeros(n, 4), ended, lambda s: mine, lambda s: old, gamma, double), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_dqn_parts():
    agent = DQN(n=8, tau=0.25, seed=0, explore=(1.0, 0.0, 5))
    for i in range(3):
        before = [p.clone() for p in agent.old.parameters()]
        agent.update()
        for old, was, new in zip(agent.old.parameters(), before, agent.net.parameters()): torch.testing.assert_close(old, 0.75 * was + 0.25 * new)
    agent.net = nn.Linear(4, 2)
    with torch.no_grad(): agent.net.weight.zero_(), agent.net.bias.copy_(torch.tensor([0.0, 1.0]))
    agent.updates = 5
    assert all((agent.memory.action[agent.walk()] == 1).all() for _ in range(10))  # ε is 0 by now
    agent.updates = 0
    assert {int(a) for _ in range(10) for a in agent.memory.action[agent.walk()]} == {0, 1}
    assert (agent.memory.reward[:len(agent.memory)] == 1).all()  # no step in which a cart was put back


def test_dqn_without_replay_learns_from_the_newest(monkeypatch):
    agent, seen = DQN(n=6, replay=False, seed=0), []
    at = agent.memory.at
    agent.memory.at = lambda places: (seen.append(places), at(places))[1]
    for _ in range(3): agent.update()
    assert [len(p) for p in seen] == [6, 6, 6] and seen[1].tolist() == list(range(6, 12))


# Policy gradients

@fast
@given(st.integers(1, 7), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1), st.integers(0, 999))
def test_advantages_equal_their_definition(T, n, gamma, lam, seed):
    rng = torch.Generator().manual_seed(seed)
    r, v = torch.randn(T, n, generator=rng).double(), torch.randn(T + 1, n, generator=rng).double()
    ended, cut = torch.rand(T, n, generator=rng) < 0.2, torch.rand(T, n, generator=rng) < 0.2
    expected = torch.zeros(T, n).double()
    for i in range(n):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                expected[t, i] += weight * (r[k, i] + (0 if ended[k, i] else gamma * v[k + 1, i]) - v[k, i])
                if ended[k, i] or cut[k, i]: break
                weight *= gamma * lam
    torch.testing.assert_close(gae(r, v, ended, cut, gamma, lam), expected)
    torch.testing.assert_close(returns_to_go(r, gamma), torch.stack([sum(gamma ** (k - t) * r[k] for k in range(t, T)) for t in range(T)]))


def test_gae_shape():
    with pytest.raises(ValueError, match=r"expected values \(4, 2\), given \(3, 2\)"): gae(torch.ones(3, 2), torch.ones(3, 2), *[torch.zeros(3, 2, dtype=torch.bool)] * 2)


@fast
@given(st.integers(1, 6), st.integers(2, 4), st.floats(0.05, 0.5), st.integers(0, 999))
def test_ppo_loss_and_log_prob(n, k, clip, seed):
    rng = torch.Generator().manual_seed(seed)
    logits, action = torch.randn(n, k, generator=rng, dtype=torch.float64).requires_grad_(), torch.randint(k, (n,), generator=rng)
    old, A = torch.randn(n, generator=rng).double() - 1, torch.randn(n, generator=rng).double()
    dist = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(log_prob(logits, action), dist.log_prob(action))
    total = 0
    for i in range(n):
        ratio = (dist.log_prob(action)[i] - old[i]).exp()
        total = total + min(ratio * A[i], min(max(ratio, torch.tensor(1 - clip)), torch.tensor(1 + clip)) * A[i])
    mine = ppo_loss(logits, action, old, A, clip)
    torch.testing.assert_close(mine, -total / n)
    torch.testing.assert_close(*[torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (mine, -total / n + 0 * logits.sum())])


def test_sampling_has_the_probabilities_of_softmax():
    logits = torch.tensor([2.0, 0.0, -1.0])
    torch.testing.assert_close(sample(logits.expand(60_000, 3)).bincount() / 60_000, logits.softmax(0), atol=0.01, rtol=0)


def test_policy_gradient_update_is_the_formula():
    for baseline in (True, False):
        agent = PolicyGradient(n=3, baseline=baseline, seed=1)
        state, action, reward, alive = data = agent.episodes()
        for t in range(len(reward) - 1): assert (alive[t + 1] <= alive[t]).all()
        assert torch.equal(reward, alive.float())
        agent.episodes = lambda: data
        grads = []
        for i in range(3):
            for t in range(int(alive[:, i].sum())):
                G = sum(agent.gamma ** (k - t) for k in range(t, int(alive[:, i].sum())))
                weight = (G - agent.net.v(state[t, i]).item()) / 20 if baseline else G
                loss = -agent.net.pi(state[t, i]).log_softmax(0)[action[t, i]] * weight / 3
                grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(agent.net.pi.parameters()))]))
        agent.update()
        mine = torch.cat([p.grad.flatten() for p in agent.net.pi.parameters()])
        theirs = sum(grads)
        torch.testing.assert_close(mine, theirs * min(1, 0.5 / theirs.norm().item()), atol=1e-4, rtol=1e-3)


def test_ppo_collects_what_its_definition_says():
    agent = PPO(n=5, steps=60, seed=0)
    state, action, old, advantage, target = agent.collect()
    assert 5 * 40 < len(state) < 5 * 60
    torch.testing.assert_close(old, agent.net.pi(state).log_softmax(1).gather(1, action[:, None])[:, 0])
    torch.testing.assert_close(target - advantage, agent.net.v(state)[:, 0], atol=1e-5, rtol=1e-4)
    twins = []
    for _ in range(2):
        twins.append(PPO(n=4, seed=3))
        twins[-1].update()
    assert all(torch.equal(p, q) for p, q in zip(*(twin.net.parameters() for twin in twins)))


def test_fit_keeps_the_best_lowers_the_rate_and_stops():
    class Fake:
        rate, carts = 2.0, CartPole(1)
        def __init__(self): self.net, self.rates = nn.Linear(4, 2), []; self.opt = torch.optim.SGD(self.net.parameters(), 1.0)
        def policy(self, state): return self.net(state)
        def update(self):
            self.rates.append(self.opt.param_groups[0]["lr"])
            with torch.no_grad():  # good (a rule that balances) after two updates, bad before and after
                self.net.weight.zero_(), self.net.bias.zero_()
                if len(self.rates) == 2: self.net.weight[1] = torch.tensor([0.05, 0.1, 1.0, 0.5])
            return len(self.rates)
    agent = Fake()
    history = fit(agent, 4, every=1, goal=math.inf)
    assert [h[0] for h in history] == [h[2] for h in history] == [1, 2, 3, 4] and agent.rates == [2.0, 1.5, 1.0, 0.5]
    assert history[1][1] > 480 > 20 > history[0][1] and evaluate(agent.policy).mean() == history[1][1]
    assert len(fit(Fake(), 4, every=1, goal=450)) == 2


def test_evaluate_counts_the_first_episode_and_gymnasium_agrees():
    right = lambda seen: torch.tensor([0.0, 1.0]).expand(len(seen), 2)
    mine, theirs = evaluate(right, 300), judge_in_gymnasium(right, range(300))
    assert set(mine.tolist()) <= {8.0, 9.0, 10.0, 11.0} and abs(mine.mean().item() - theirs.mean()) < 0.2
    rule = lambda seen: torch.stack([torch.zeros(len(seen)), seen @ torch.tensor([0.05, 0.1, 1.0, 0.5])], 1)
    assert evaluate(rule, 20).min() == 500 == judge_in_gymnasium(rule, range(5)).min()


def test_ppo_learns():
    agent = PPO(seed=11)
    assert fit(agent, 150, every=4, goal=480)[-1][1] >= 480


# Games

def plain_lost(board, rows, cols, length):
    "Has the other player (-1) a line?"
    b = np.array(board).reshape(rows, cols)
    for i in range(rows):
        for j in range(cols):
            for di, dj in ((0, 1), (1, 0), (1, 1), (1, -1)):
                cells = [(i + k * di, j + k * dj) for k in range(length)]
                if all(0 <= y < rows and 0 <= x < cols and b[y, x] == -1 for y, x in cells): return True
    return False


@pytest.mark.parametrize("game", [TicTacToe(), ConnectFour()], ids=["tic-tac-toe", "four"])
def test_random_games_follow_the_rules(game):
    rng = random.Random(0)
    for _ in range(40):
        board, column = game.start(), [0] * game.cols
        while not game.over(board).item():
            legal = game.legal(board)[0].nonzero()[:, 0].tolist()
            if game.moves == 7: assert legal == [c for c in range(7) if column[c] < 6]
            m = rng.choice(legal)
            cell = m if game.moves == 9 else (5 - column[m]) * 7 + m
            column[m % game.cols] += 1
            new = game.play(board, torch.tensor([m]))
            expected = -board.clone()
            expected[0, cell] = -1
            assert torch.equal(new, expected) and board[0, cell] == 0
            board = new
            assert game.lost(board).item() == plain_lost(board[0].int().tolist(), game.rows, game.cols, game.length)
        assert game.lost(board).item() or (board != 0).all()
        for turn, moves in zip(game.turns, game.move_turns):
            assert torch.equal(game.lost(board[:, turn]), game.lost(board)) and torch.equal(game.legal(board[:, turn]), game.legal(board)[:, moves])


def test_illegal_moves_are_refused():
    with pytest.raises(ValueError, match=r"expected legal moves, given \[4\]"): TicTacToe().play(torch.eye(9)[4:5], torch.tensor([4]))
    full = torch.cat([torch.ones(1, 7), torch.ones(1, 35)], 1)
    with pytest.raises(ValueError, match="expected legal moves"): ConnectFour().play(full, torch.tensor([0]))
    with pytest.raises(ValueError, match="expected at least one simulation, given 0"): MCTS(TicTacToe(), None, 0)
    with pytest.raises(ValueError, match="expected boards on which the game is not over"): MCTS(TicTacToe(), None).search(torch.tensor([[-1.0, -1, -1, 1, 1, 0, 0, 0, 0]]))


def plain_search(game, evaluate, board, simulations, c):
    "One tree with dictionaries, by the book."
    def make(board):
        logits, value = evaluate(board)
        legal = game.legal(board)[0]
        P = logits[0].masked_fill(~legal, -math.inf).softmax(0)
        over = game.over(board).item()
        return dict(board=board, over=over, value=(-1.0 if game.lost(board).item() else 0.0) if over else value.item(),
                    edges={m: [0, 0.0, P[m].item(), None] for m in legal.nonzero()[:, 0].tolist()})
    root = make(board)
    for _ in range(simulations):
        node, path = root, []
        while not node["over"]:
            total = sum(e[0] for e in node["edges"].values())
            m = max(node["edges"], key=lambda m: (lambda N, W, P, _: W / max(N, 1) + c * P * math.sqrt(1 + total) / (1 + N))(*node["edges"][m]))
            path.append(node["edges"][m])
            if path[-1][3] is None:
                path[-1][3] = make(game.play(node["board"], torch.tensor([m])))
                node = path[-1][3]
                break
            node = path[-1][3]
        value = node["value"]
        for edge in reversed(path):
            value = -value
            edge[0] += 1
            edge[1] += value
    return [root["edges"][m][0] if m in root["edges"] else 0 for m in range(game.moves)]


@pytest.mark.parametrize("game", [TicTacToe(), ConnectFour()], ids=["tic-tac-toe", "four"])
def test_batched_search_equals_a_plain_tree(game):
    net = PolicyValue(game, 16).double()
    with torch.no_grad():
        for p in net.parameters(): p *= 2
    def evaluate(boards):
        with torch.no_grad():
            logits, value = net.policy(h := net.body(torch.cat([boards > 0, boards < 0], 1).double())), net.value(net.body(torch.cat([boards > 0, boards < 0], 1).double()))
        return logits.float(), value[:, 0].tanh().float()
    boards = game.start(6)
    for t in range(4): boards = torch.cat([boards[:t], game.play(boards[t:], torch.randint(game.moves, (1,)).expand(6 - t))]) if game.legal(boards[t:]).all() else boards
    boards = boards[~game.over(boards)]
    visits = MCTS(game, evaluate, 40, 1.3).search(boards)
    for board, row in zip(boards, visits.int().tolist()): assert row == plain_search(game, evaluate, board[None], 40, 1.3)


def test_the_search_does_not_go_on_behind_the_end_of_a_game():
    game = TicTacToe()
    tree = MCTS(game, lambda boards: (torch.zeros(len(boards), 9), torch.full((len(boards),), 0.3)), 60)
    win, last = torch.tensor([[1.0, 1, 0, -1, -1, 0, 0, 0, 0], [1, -1, 1, -1, 1, -1, -1, 0, 0]])
    visits = tree.search(torch.stack([win, last]))
    assert visits[0, 2] > 30 and tree.W[0, 0, 2] == visits[0, 2]  # the winning move: worth 1 each time that it is looked at
    assert visits[1].sum() == 60 and tree.W[1, 0, 8] == visits[1, 8]  # 8 wins too, and behind 7 the other one fills the board
    behind = tree.child[0, 0, 2]
    assert (tree.N[0, behind % 61] == 0).all()  # nothing hangs below an ended game


def test_search_noise_only_moves_the_root_and_keeps_moves_legal():
    game = TicTacToe()
    tree = MCTS(game, lambda b: (torch.zeros(len(b), 9), torch.zeros(len(b))), 9)
    board = game.play(game.start(50), torch.full((50,), 4))
    quiet = tree.search(board)
    assert (quiet == quiet[0]).all() and (tree.P[:, 1].amax(1) == tree.P[0, 1].max()).all()
    loud = tree.search(board, noise=0.3)
    assert not (loud == loud[0]).all() and (loud[:, 4] == 0).all()
    torch.testing.assert_close(tree.P[:, 0].sum(1), torch.ones(50))
    assert (tree.P[:, 0, [0, 1, 2, 3, 5, 6, 7, 8]] >= 0.75 / 8 - 1e-6).all()


def test_rollouts_have_the_exact_mean():
    game = TicTacToe()
    def exact(board):
        if game.over(board).item(): return -float(game.lost(board).item())
        return -np.mean([exact(game.play(board, m[None])) for m in game.legal(board)[0].nonzero()[:, 0]])
    for board in ([0.0, 1, 0, -1, -1, 0, 1, 0, 0], [-1.0, -1, 0, 1, 1, 0, 0, 0, 0]):
        board = torch.tensor([board])
        logits, value = random_rollouts(game)(board.repeat(8000, 1))
        assert abs(value.mean().item() - exact(board)) < 0.04 and (logits == 0).all() and logits.shape == (8000, 9)


def test_perfect_play():
    game = TicTacToe()
    values = solve(game)
    assert len(values) == 5478 and values[(0,) * 9] == 0 and values[(1, 1, 0, -1, -1, 0, 0, 0, 0)] == 1 and values[(-1, -1, 0, 1, 0, 0, 1, 0, -1)] in (0, -1)
    perfect = perfect_player(game, values, torch.Generator().manual_seed(0))
    anything = lambda boards: torch.multinomial(game.legal(boards).float(), 1)[:, 0]
    won, drawn, lost = contest(game, perfect, anything, 100)
    assert lost == 0 and won > 70 and won + drawn == 100 and contest(game, anything, perfect, 60)[0] == 0
    assert len(set(perfect(game.start(60)).tolist())) == 9  # all first moves draw


def test_contest_lets_each_begin_half_of_the_games():
    game = TicTacToe()
    lowest = lambda boards: game.legal(boards).float().argmax(1)
    assert contest(game, lowest, lowest, 10) == (5, 0, 5)  # who begins gets 0, 2, 4, 6: a diagonal
    starts = []
    def spy(boards): starts.append((boards.abs().sum(1).min().item(), len(boards))); return lowest(boards)
    contest(game, spy, lowest, 10, opening=2)
    assert starts[0][0] == 2 and max(n for _, n in starts) == 5


def test_self_play_results():
    game = TicTacToe()
    boards, share, result = self_play(MCTS(game, random_rollouts(game), 12), 20)
    stones = boards.abs().sum(1)
    assert (stones == 0).sum() == 20 and torch.allclose(share.sum(1), torch.ones(len(boards))) and not game.over(boards).any()
    assert not (share[boards != 0] > 0).any() and set(result.tolist()) <= {-1.0, 0.0, 1.0}
    lone = MCTS(game, lambda b: (torch.zeros(len(b), 9).index_fill_(1, torch.tensor([0]), 0), torch.zeros(len(b))), 200)
    b, s, r = self_play(lone, 1, noise=0.0, loose=0)
    n = len(b)
    last_move = s[-1].argmax()
    final_lost = game.lost(game.play(b[-1:], last_move[None])).item()
    if final_lost: assert r[-1] == 1 and all(r[i] == (-1) ** (n - 1 - i) for i in range(n))
    else: assert n == 9 and (r == 0).all()


def test_self_play_gives_the_winner_plus_one():
    game = TicTacToe()
    class Script:  # the first player takes 0, 1, 2; the second 3, 4
        def __init__(self): self.game = game
        def search(self, boards, noise=0.0):
            order = [0, 3, 1, 4, 2]
            return torch.eye(9)[[order[int(b.abs().sum())] for b in boards]]
    boards, share, result = self_play(Script(), 2)
    assert len(boards) == 10 and result.view(5, 2)[:, 0].tolist() == [1, -1, 1, -1, 1] and share.argmax(1).view(5, 2)[:, 1].tolist() == [0, 3, 1, 4, 2]


def test_alphazero_learns_and_is_reproducible():
    game = TicTacToe()
    a, b = (AlphaZero(game, width=32, games=16, simulations=8, steps=10, seed=5) for _ in range(2))
    rounds = []
    torch.manual_seed(1), a.fit(3, rounds.append)
    torch.manual_seed(1), b.fit(3)
    assert rounds == [1, 2, 3] and all(torch.equal(p, q) for p, q in zip(a.net.parameters(), b.net.parameters()))
    boards, share, result = a.store[-1]
    logits, value = a.net(boards)
    expected = -(share * logits.log_softmax(1)).sum(1).mean() + (value - result).square().mean()
    torch.testing.assert_close(a.loss(boards, share, result), expected)
    some = boards[boards.abs().sum(1) == 3]
    assert game.legal(some).gather(1, a.reflex(some)[:, None]).all() and game.legal(some).gather(1, a.move(some)[:, None]).all()
    assert a.store[-1][0].shape[1] == 9 and len(a.store) == 3
    short = AlphaZero(game, width=8, games=2, simulations=2, steps=1, keep=2)
    short.fit(4)
    assert len(short.store) == 2


def test_a_few_rounds_make_a_player():
    game = TicTacToe()
    zero = AlphaZero(game, seed=2, games=64)
    anything = lambda boards: torch.multinomial(game.legal(boards).float(), 1)[:, 0]
    zero.fit(8)
    won, drawn, lost = contest(game, zero.move, anything, 200)
    assert won > 150 and lost <= 4


# Exercises

WRONG = {
    "15.1": [10.0, 1.0, 4.5],
    "15.3": [lambda r, q, e, g, eps: r + g * e * (eps * q.mean(1) + (1 - eps) * q.max(1)[0]),
             lambda r, q, e, g, eps: r + (1 - e) * (eps * q.mean(1) + (1 - eps) * q.max(1)[0]),
             lambda r, q, e, g, eps: r + g * (1 - e) * ((1 - eps) * q.mean(1) + eps * q.max(1)[0])],
    "15.4": [lambda r, v, g, n: r + g * v[1:], lambda r, v, g, n: torch.stack([sum(g ** k * r[t + k] for k in range(min(n, len(r) - t))) for t in range(len(r))])],
    "15.2": [lambda r, p, q, e, g: r + g * (1 - e) * q, lambda r, p, q, e, g: g * (1 - e) * q - p],
    "15.5": [lambda n, o, r: (n - o).sum(1) @ r, lambda n, o, r: ((n - o)[:, -1].softmax(0) * r).sum()]}


@pytest.mark.parametrize("id", WRONG)
def test_exercises(id):
    assert judge(id, find(id).reference).state == "right"
    for answer in WRONG[id]: assert judge(id, answer).state == "wrong"
    for answer, fault in find(id).mistakes: assert fault in judge(id, answer).line
    assert len(find(id).hints) >= 2


def test_everything_public_is_named():
    assert {"GridWorld", "value_iteration", "policy_iteration", "q_learning", "CartPole", "DQN", "PPO", "TicTacToe", "ConnectFour", "MCTS", "AlphaZero"} <= set(rl.__all__)
    assert list(inspect.signature(CartPole).parameters) == ["n", "device"]
