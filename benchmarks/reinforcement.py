"""Chapter 15: CartPole's steps a second beside gymnasium's, and the time until PPO has learned it beside stable-baselines3's."""
from __future__ import annotations

import importlib.util
import math
import time

import gymnasium
import torch

from benchmarks.common import compare, main
from dlbook.rl import PPO, CartPole, evaluate, fit

CARTS, GOAL, SEEDS = 1024, 475.0, 5


def speed(mode: str, steps: int, target: float, name: str) -> dict:
    "Random pushes of 1,024 carts."
    rng = torch.Generator().manual_seed(0)
    actions = [torch.randint(2, (CARTS,), generator=rng) for _ in range(50)]
    theirs_actions = [a.numpy() for a in actions]
    ours, theirs = CartPole(CARTS), gymnasium.make_vec("CartPole-v1", CARTS, vectorization_mode=mode)
    ours.reset(0), theirs.reset(seed=0)
    many = 2000  # ours is timed over more steps, so that both sides take long enough to be measured

    def our_steps():
        for i in range(many): ours.step(actions[i % 50])

    def their_steps():
        for i in range(steps): theirs.step(theirs_actions[i % 50])

    return compare(name, our_steps, their_steps, target, units=many * CARTS, other_units=steps * CARTS, unit="steps",
                   carts=CARTS, rival=f"gymnasium {gymnasium.__version__}, make_vec, vectorization_mode={mode!r}")


def ours_to_goal(seed: int):
    "Train the book's PPO until the mean return of 100 carts with starts of their own is at least 475."
    history = fit(PPO(lam=0.9, epochs=6, seed=seed), 400, every=4, goal=GOAL)
    if history[-1][1] < GOAL: raise RuntimeError(f"seed {seed} did not reach {GOAL:g}")


def theirs_to_goal(seed: int):
    "The same with stable-baselines3's PPO and the settings that rl-zoo tuned for CartPole-v1, judged the same way every 4,096 steps, as ours."
    from stable_baselines3 import PPO as Other
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Judge(BaseCallback):
        looked, score = 0, 0.0

        def _on_step(self):
            if self.num_timesteps - self.looked < 4096: return True
            self.looked = self.num_timesteps
            policy = lambda seen: self.model.policy.get_distribution(seen).distribution.logits
            self.score = evaluate(policy).mean().item()
            return self.score < GOAL

    model = Other("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=seed), n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20,
                  ent_coef=0.0, learning_rate=lambda left: 0.001 * left, clip_range=lambda left: 0.2 * left, seed=seed, device="cpu")
    judge = Judge()
    model.learn(100_000, callback=judge)
    if judge.score < GOAL: raise RuntimeError(f"stable-baselines3, seed {seed}, did not reach {GOAL:g}: {judge.score:.0f}")


def learning() -> dict:
    "Seconds until 475; a round is a seed, so the median ratio of the rounds, and that of the medians, are both over five seeds."
    def counting(train):
        seeds = iter(range(100))
        def work():
            start = time.perf_counter()
            train(next(seeds))
            taken.append(time.perf_counter() - start)
        taken: list[float] = []
        return work, taken

    (ours, mine), (theirs, others) = counting(ours_to_goal), counting(theirs_to_goal)
    row = compare("PPO: learning CartPole to 475", ours, theirs, target=3, unit="trainings", rounds=SEEDS, warmup=0,
                  rival="stable-baselines3 PPO, settings of rl-zoo for CartPole-v1", goal=GOAL)
    middle = [sorted(s)[SEEDS // 2] for s in (mine, others)]
    row["ratio"] = middle[1] / middle[0] if all(math.isfinite(m) and m > 0 for m in middle) else math.nan
    row["holds"] = row["ratio"] >= row["target"]
    row["details"] |= dict(seconds_ours=mine, seconds_other=others, median_ours=middle[0], median_other=middle[1])
    return row


def rows() -> list[dict]:
    "Ratios of steps a second, and of the times until the pole stands."
    torch.set_num_threads(1)  # more threads make neither side faster on tensors this small
    found = [speed("sync", 30, 50, "CartPole beside SyncVectorEnv"), speed("vector_entry_point", 2000, 1, "CartPole beside CartPoleVectorEnv")]
    if importlib.util.find_spec("stable_baselines3"): found.append(learning())
    else: print("stable-baselines3 is not installed; its row is left out (pip install 'dlbook[bench]')")
    return found


if __name__ == "__main__": main(rows, packages=("gymnasium", "stable-baselines3"))
