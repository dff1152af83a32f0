"Fairness: criteria against fairlearn and scikit-learn, intervals against scipy, repairs, the audit, decisions, papers, energy."
import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from fairlearn import metrics as fairlearn
from fairlearn.postprocessing import ThresholdOptimizer
from scipy.stats import binomtest
from sklearn.base import BaseEstimator
from sklearn.calibration import calibration_curve
from torch import nn

from dlbook import ethics
from dlbook.ethics import (CRITERIA, Audit, Cohort, DataSheet, ModelCard, adversary_penalty, audit, bootstrap_interval, by_lot, calibration_by_group,
                           calibration_error, counterfactual, data_sheet, decide, demographic_parity_difference, demographic_parity_ratio,
                           equal_opportunity_difference, equalized_odds_difference, group_codes, group_rates, group_thresholds, loans, parity_penalty,
                           probabilities, review_curve, reverse_gradient, reweigh, route, training_energy, wilson_interval)
from dlbook.kit.data import diabetes, digits


def people(seed, n=300, groups=3):
    "Truth, decisions, scores and groups in which each group has both truths, and some are selected."
    rng = np.random.default_rng(seed)
    y, g = rng.integers(2, size=n), rng.integers(groups, size=n)
    y[:2 * groups], g[:2 * groups] = np.arange(2 * groups) % 2, np.arange(2 * groups) // 2
    prob = np.clip(0.5 * y + 0.1 * g + 0.4 * rng.random(n), 0, 1)
    decided = (prob > 0.55).astype(int)
    decided[:2 * groups] = 1
    return y, decided, prob, g


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("name", [f.__name__ for f in CRITERIA.values()])
def test_criteria_are_those_of_fairlearn(name, groups, seed):
    y, d, _, g = people(seed, groups=groups)
    theirs = getattr(fairlearn, name)(y, d, sensitive_features=g)
    assert getattr(ethics, name)(y, d, g) == pytest.approx(theirs, abs=1e-12)
    assert getattr(ethics, name)(torch.tensor(y), torch.tensor(d), torch.tensor(g)) == pytest.approx(theirs, abs=1e-12)
    assert getattr(ethics, name)(y.tolist(), d.tolist(), [f"group {i}" for i in g]) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("name", [f.__name__ for f in CRITERIA.values()])
def test_criteria_over_intersections_are_those_of_fairlearn(name):
    y, d, _, g = people(0, n=600, groups=4)
    both = pd.DataFrame({"a": np.where(g % 2, "x", "z"), "b": np.where(g // 2, "u", "v")})
    assert getattr(ethics, name)(y, d, both.to_numpy()) == pytest.approx(getattr(fairlearn, name)(y, d, sensitive_features=both), abs=1e-12)


def test_rates_are_those_of_fairlearns_metric_frame():
    y, d, _, g = people(1, groups=4)
    theirs = fairlearn.MetricFrame(metrics={"selected": fairlearn.selection_rate, "TPR": fairlearn.true_positive_rate, "FPR": fairlearn.false_positive_rate},
                                   y_true=y, y_pred=d, sensitive_features=g).by_group
    ours = group_rates(y, d, g)
    assert np.allclose(ours[["selected", "TPR", "FPR"]], theirs[["selected", "TPR", "FPR"]].astype(float))
    assert ours.people.tolist() == np.bincount(g).tolist()
    assert np.allclose(ours.accuracy, [(y == d)[g == i].mean() for i in range(4)]) and np.allclose(ours["base rate"], [y[g == i].mean() for i in range(4)])
    assert np.allclose(ours.PPV, [y[(g == i) & (d == 1)].mean() for i in range(4)])


def test_an_undefined_rate_is_named_not_guessed():
    y, d, g = np.array([0, 0, 1, 0, 1]), np.array([1, 0, 1, 0, 0]), np.array(list("aabbb"))
    assert math.isnan(group_rates(y, d, g).TPR["a"])
    for metric in (equal_opportunity_difference, equalized_odds_difference):
        with pytest.raises(ValueError, match="TPR is not defined for group a"): metric(y, d, g)
    assert demographic_parity_difference(y, d, g) == pytest.approx(1 / 2 - 1 / 3)
    assert math.isnan(demographic_parity_ratio(y, d * 0, g)) and demographic_parity_difference(y, d * 0, g) == 0


@pytest.mark.parametrize("call, message", [
    (lambda: group_rates([1, 0], [1, 0, 1], [0, 1]), r"one length, given \(2,\), \(3,\) and \(2,\)"),
    (lambda: group_rates([1, 2], [1, 0], [0, 1]), "y_true to be 0 or 1"),
    (lambda: group_rates([1, 0], [0.5, 0.2], [0, 1]), "y_pred to be 0 or 1"),
    (lambda: group_codes(np.zeros((2, 2, 2))), r"given \(2, 2, 2\)"),
    (lambda: group_codes(["a", None]), "missing"),
    (lambda: demographic_parity_difference([1, 0], [1, 0], ["a", "a"]), "two groups"),
    (lambda: calibration_by_group([1, 0], [1.5, 0], [0, 1]), "probabilities, given 0 to 1.5"),
    (lambda: calibration_by_group([1, 0], [0.5], [0, 1]), "one length"),
    (lambda: wilson_interval(3, 2), "successes"),
    (lambda: reweigh([1, 1, 0, 1], [0, 0, 1, 1]), "group 0 has only one label"),
    (lambda: parity_penalty(torch.zeros(3), [0, 1]), "one length"),
    (lambda: parity_penalty(torch.zeros(2), [0, 1], [1, 0]), "group 1 has nobody"),
    (lambda: adversary_penalty(torch.zeros(3), [0, 1, 2], nn.Linear(1, 1)), "two groups"),
    (lambda: group_thresholds([1], [0.5], [0], 0.5, "accuracy"), "given 'accuracy'"),
    (lambda: group_thresholds([1], [0.5], [0], 1.5), "between 0 and 1"),
    (lambda: group_thresholds([1, 0], [0.5, 0.5], [0, 1], 0.5), "group 1 has nobody"),
    (lambda: decide([0.5], ["b"], {"a": 0.1}), r"none given for .*b"),
    (lambda: probabilities(nn.Linear(2, 3), torch.zeros(4, 2)), r"given \(4, 3\)"),
    (lambda: probabilities(lambda x: x[:, 0] / 0, torch.zeros(4, 2)), "finite"),
    (lambda: audit(lambda x: x[:, 0], Cohort(torch.zeros(2, 1), [0, 1], {})), "at least one attribute"),
    (lambda: route([0.5], 1, -1, 0), "at least 0"), (lambda: review_curve([1], [0.5], -1, 1, 0), "at least 0"),
    (lambda: counterfactual(nn.Linear(2, 1), torch.zeros(2), torch.zeros(2)), "may change"),
    (lambda: counterfactual(nn.Linear(2, 1), torch.zeros(2), torch.ones(3)), "one shape"),
    (lambda: loans(0), "at least one applicant"),
    (lambda: ModelCard("m").fill({"chapters": {}}, "18_ethics", ["x"]), "no result of 18_ethics begins with 'x'"),
    (lambda: training_energy([1], watts=(3, 2)), "0 < low <= high for watts"), (lambda: training_energy([-1]), "at least 0 s"),
])
def test_bad_input_is_refused_at_the_door(call, message):
    with pytest.raises(ValueError, match=message): call()


@pytest.mark.parametrize("bins", [3, 5, 10])
def test_calibration_is_that_of_scikit_learn(bins):
    y, _, prob, g = people(2, n=800)
    table = calibration_by_group(y, prob, g, bins)
    for i in range(3):
        observed, predicted = calibration_curve(y[g == i], prob[g == i], n_bins=bins)
        mine = table[table.group == i]
        assert np.allclose(mine.observed, observed) and np.allclose(mine.predicted, predicted) and mine.people.sum() == (g == i).sum()
    errors = calibration_error(table)
    mine = table[table.group == 1]
    assert errors[1] == pytest.approx(np.average(abs(mine.predicted - mine.observed), weights=mine.people))
    assert calibration_by_group([1, 0], [1.0, 0.0], [0, 0]).bin.tolist() == [0, 4]


def test_wilson_is_scipys():
    for k, n in ((0, 5), (5, 5), (2, 7), (300, 1000)):
        theirs = binomtest(k, n).proportion_ci(method="wilson")
        assert np.allclose(wilson_interval(k, n), (theirs.low, theirs.high), atol=1e-4)
    assert np.isnan(wilson_interval(0, 0)).all()


def test_bootstrap_keeps_groups_and_follows_its_seed():
    y, d, _, g = people(3)
    sizes = []
    def metric(y, d, g):
        sizes.append(tuple(np.bincount(g)))
        return d.mean()
    first = bootstrap_interval(metric, y, d, g, resamples=200)
    assert set(sizes) == {tuple(np.bincount(g))}
    assert first == bootstrap_interval(metric, y, d, g, resamples=200) != bootstrap_interval(metric, y, d, g, resamples=200, seed=1)
    assert first[1] - first[0] == pytest.approx(2 * 1.96 * d.std() / len(d)**0.5, rel=0.25)
    narrow = bootstrap_interval(metric, y, d, g, resamples=200, level=0.5)
    assert first[0] < narrow[0] < narrow[1] < first[1]
    with pytest.raises(ValueError, match="not defined in any"): bootstrap_interval(equal_opportunity_difference, y * 0, d, g, resamples=5)


def test_bootstrap_draws_people_with_replacement():
    g, drawn = np.arange(60) % 3, []
    bootstrap_interval(lambda rows, d, g: drawn.append((rows, d)) or 0.0, np.arange(60), np.arange(60) % 3, g, resamples=40)
    assert {row for rows, _ in drawn for row in rows} == set(range(60))
    assert all(len(set(rows)) < 55 and np.array_equal(rows % 3, d) for rows, d in drawn)


def test_by_lot_is_passed_by_a_real_gap_only():
    rng = np.random.default_rng(0)
    g = rng.integers(2, size=2000)
    even, odd = (rng.random(2000) < 0.5).astype(int), (rng.random(2000) < 0.4 + 0.2 * g).astype(int)
    lot = by_lot(demographic_parity_difference, odd, odd, g)
    assert demographic_parity_difference(odd, odd, g) > 2 * lot
    assert lot == pytest.approx(1.96 * 2 * 0.5 / 2000**0.5, rel=0.25)
    lot_of_even = by_lot(demographic_parity_difference, even, even, g, 1000)
    passed = sum(demographic_parity_difference(even, even, rng.permutation(g)) > lot_of_even for _ in range(100))
    assert 1 <= passed <= 12


def test_loans_hold_the_planted_bias_and_nothing_else():
    cohort, paid = loans(60_000, seed=5)
    south, younger = cohort.groups["origin"] == "south", cohort.groups["age"] == "younger"
    shares = [[(paid[(south == s) & (younger == q)].mean(), cohort.y[(south == s) & (younger == q)].mean()) for q in (0, 1)] for s in (0, 1)]
    assert all(abs(p - 0.5) < 0.02 for row in shares for p, _ in row)
    assert abs(shares[0][0][1] - 0.5) < 0.02 and shares[1][0][1] < 0.38 and shares[1][1][1] < 0.16
    fair, _ = loans(60_000, seed=5, bias=0.0)
    assert abs(fair.y[south].mean() - fair.y[~south].mean()) < 0.02 and torch.equal(fair.x, cohort.x)
    _, poor = loans(60_000, seed=5, gap=0.8)
    assert poor[south].mean() < 0.3 and abs(poor[~south].mean() - 0.5) < 0.02
    again, _ = loans(60_000, seed=5)
    assert torch.equal(again.x, cohort.x) and not torch.equal(loans(60_000, seed=6)[0].x, cohort.x) and len(cohort) == 60_000


def test_weights_make_label_and_group_independent():
    y, _, _, g = people(4, groups=4)
    w = reweigh(y, g)
    assert w.mean() == pytest.approx(1)
    for i in range(4):
        assert np.average(y[g == i], weights=w[g == i]) == pytest.approx(y.mean())
        assert w[g == i].sum() == pytest.approx((g == i).sum())


def test_penalties_and_their_gradients():
    scores = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    g = np.arange(20) % 3
    y = torch.tensor([1, 0, 1, 1] * 5)
    means = torch.stack([scores.sigmoid()[torch.tensor(g == i)].mean() for i in range(3)])
    assert torch.isclose(parity_penalty(scores, g), means.var(correction=0))
    means = torch.stack([scores.sigmoid()[torch.tensor(g == i) & (y == 1)].mean() for i in range(3)])
    assert torch.isclose(parity_penalty(scores, g, y), means.var(correction=0))
    assert torch.autograd.gradcheck(lambda s: parity_penalty(s, g, y), scores)
    twin = scores.detach().clone().requires_grad_()
    spy = nn.Linear(1, 1).double()
    adversary_penalty(scores, g % 2, spy, strength=2.0).backward()
    turned, own = scores.grad.clone(), spy.weight.grad.clone()
    spy.zero_grad()
    F.binary_cross_entropy_with_logits(spy(twin[:, None])[:, 0], torch.tensor(g % 2, dtype=torch.float64)).backward()
    assert torch.allclose(turned, -2 * twin.grad) and torch.allclose(own, spy.weight.grad)
    x = torch.randn(4, requires_grad=True)
    assert torch.allclose(reverse_gradient(x, 3.0), x, atol=1e-6) and torch.autograd.grad(reverse_gradient(x, 3.0).sum(), x)[0].tolist() == [-3.0] * 4


@pytest.mark.parametrize("rate", ["TPR", "FPR", "selected"])
@pytest.mark.parametrize("target", [0.0, 0.3, 0.9, 1.0])
def test_thresholds_give_each_group_the_rate(rate, target):
    rng = np.random.default_rng(0)
    y, prob, g = rng.integers(2, size=4000), rng.random(4000), rng.integers(3, size=4000)
    prob = prob ** (1 + g)
    d = decide(prob, g, group_thresholds(y, prob, g, target, rate))
    assert np.allclose(group_rates(y, d, g)[rate], target, atol=2e-3)


@pytest.mark.filterwarnings("ignore:The value of `prefit`")
def test_thresholds_cost_what_fairlearns_optimizer_pays():
    rng = np.random.default_rng(1)
    g = rng.integers(2, size=6000)
    y = (rng.random(6000) < 0.5 - 0.25 * g).astype(int)
    prob = 1 / (1 + np.exp(-(rng.normal(size=6000) + 2 * y - 1 - g)))

    class Scores(BaseEstimator):
        def fit(self, x, y): return self
        def predict(self, x): return np.asarray(x)[:, 0]

    theirs = ThresholdOptimizer(estimator=Scores(), constraints="true_positive_rate_parity", objective="accuracy_score", prefit=False, predict_method="predict",
                                grid_size=200).fit(prob[:, None], y, sensitive_features=g).predict(prob[:, None], sensitive_features=g, random_state=0)
    best = max((decide(prob, g, group_thresholds(y, prob, g, t)) for t in np.linspace(0.3, 0.99, 70)), key=lambda d: (d == y).mean())
    assert equal_opportunity_difference(y, best, g) < 0.01
    assert abs((best == y).mean() - (theirs == y).mean()) < 0.01


def test_probabilities_leave_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    x = torch.randn(50, 3)
    assert np.allclose(probabilities(model, x), model[0](x).softmax(1)[:, 1].detach(), atol=1e-6) and model.training
    assert probabilities(lambda x: x[:, :1], x).shape == probabilities(lambda x: x[:, 0], x).shape == (50,)


@pytest.fixture(scope="module")
def report():
    cohort, paid = loans(3000, seed=9)
    return cohort, paid, audit(lambda x: 2 * x[:, 0] - x[:, 2], replace(cohort, y=paid), resamples=60)


def test_audit_holds_what_its_parts_give(report):
    cohort, paid, found = report
    d = (probabilities(lambda x: 2 * x[:, 0] - x[:, 2], cohort.x) > 0.5).astype(int)
    both = np.stack([cohort.groups["origin"], cohort.groups["age"]], 1)
    assert list(dict.fromkeys(found.gaps.by)) == ["origin", "age", "origin × age"] and len(found.gaps) == 12 and len(found.rates) == 8
    for by, group in (("origin", cohort.groups["origin"]), ("origin × age", both)):
        rows = found.gaps[found.gaps.by == by].set_index("criterion")
        for name, metric in CRITERIA.items():
            assert rows.value[name] == pytest.approx(metric(paid, d, group))
            assert (rows.low[name], rows.high[name]) == pytest.approx(bootstrap_interval(metric, paid, d, group, 60))
        assert rows["by lot"]["equalized odds"] == pytest.approx(by_lot(equalized_odds_difference, paid, d, group, 60))
        assert rows["by lot"]["selected: ratio"] == pytest.approx(by_lot(demographic_parity_ratio, paid, d, group, 60, level=0.05))
        ours = found.rates[found.rates.by == by].set_index("group")
        theirs = group_rates(paid, d, group)
        assert np.allclose(ours[["TPR", "FPR", "PPV", "selected"]], theirs[["TPR", "FPR", "PPV", "selected"]])
        low, high = wilson_interval((theirs.TPR * theirs["base rate"] * theirs.people).round(), (theirs["base rate"] * theirs.people).round())
        assert np.allclose(ours["TPR low"], low) and np.allclose(ours["TPR high"], high)
    assert set(found.calibration.by) == {"origin", "age", "origin × age"}


def test_audit_reads_well_and_is_saved(report, tmp_path):
    found = report[2]
    text = found._repr_markdown_()
    assert "| origin × age | south, younger |" in text
    assert text.count("| --- |") >= 2 and "Fewer than 50" not in text
    figure = found.plot()
    assert [ax.get_title(loc=plt.rcParams["axes.titlelocation"]) for ax in figure.axes] == ["selected", "TPR", "FPR", "calibration"]
    plt.close("all")
    found.save(tmp_path / "new" / "place")
    assert (tmp_path / "new" / "place" / "audit.png").stat().st_size > 5000
    assert "south, younger" in (tmp_path / "new" / "place" / "audit.md").read_text(encoding="utf-8")


def test_audit_of_a_group_without_positives():
    x = torch.linspace(-2, 2, 40)[:, None]
    y = np.array([0] * 20 + [1, 0] * 10)
    found = audit(lambda x: x[:, 0], Cohort(x, y, {"side": np.array(["left"] * 20 + ["right"] * 20)}), resamples=20)
    rows = found.gaps.set_index("criterion")
    assert math.isnan(rows.value["equal opportunity"]) and not math.isnan(rows.value["selected: difference"])
    text = found._repr_markdown_()
    assert "n/a" in text and "left (20)" in text
    found.plot()
    plt.close("all")


def test_route_is_the_cheapest_way():
    rng = np.random.default_rng(0)
    p = rng.random(200)
    for loss, missed, review in ((3, 1, 0.4), (1, 1, 0.6), (0.5, 2, 0.1)):
        costs = np.stack([p * missed, (1 - p) * loss, np.full(200, review)])
        ways = route(p, loss, missed, review)
        assert np.allclose(costs[ways, np.arange(200)], costs.min(0))
    assert 2 not in route(p, 1, 1, 0.6)


def test_review_curve_counts_real_costs():
    rng = np.random.default_rng(0)
    p = rng.random(400)
    y = (rng.random(400) < p).astype(int)
    curve = review_curve(y, p, 3, 1, 0.2, points=5)
    d = 3 * (1 - p) < p
    alone = np.where(d, 3 * (1 - y), y)
    assert curve.cost[0] == pytest.approx(alone.mean()) and curve.cost[4] == pytest.approx(0.2)
    order = np.argsort(-np.minimum(3 * (1 - p), p), kind="stable")
    assert curve.cost[1] == pytest.approx((alone[order[100:]].sum() + 20) / 400)
    stamped = review_curve(y, p, 3, 1, 0.2, stamped=1.0, points=5)
    assert np.allclose(stamped.cost, alone.mean() + 0.2 * stamped.share)


def test_counterfactual_on_a_plane_is_the_shortest_way():
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    with torch.no_grad(): model.bias.fill_(-2.0)
    free = torch.tensor([1.0, 0.0, 1.0, 1.0])
    x = 0.1 * torch.randn(4)
    found = counterfactual(model, x, free, step=0.002, max_steps=20_000)
    w = model.weight.detach()[0] * free
    shortest = -model(x).item() * w / w.square().sum()
    assert torch.allclose(found - x, shortest, atol=5e-3) and model(found) > 0 and found[1] == x[1]
    assert torch.equal(counterfactual(lambda x: x[:, 0] * 0 + 1 + x[:, 0], torch.ones(1), torch.ones(1)), torch.ones(1))
    with pytest.raises(ValueError, match="no change"): counterfactual(lambda x: -x[:, 0].square() - 1, torch.ones(1), torch.ones(1), max_steps=50)


def test_papers_show_what_is_missing_and_what_the_ledger_holds():
    ledger = {"chapters": {"18_ethics": {"entries": [{"name": "a gap", "value": 0.25, "low": 0.1, "high": None}, {"name": "other", "value": 1.0, "low": 0, "high": 2}]}}}
    card = ModelCard("lender", intended_use="To learn.").fill(ledger, "18_ethics", ["a gap"])
    text = card._repr_markdown_()
    assert "| a gap | 0.250 | at least 0.1 |" in text and "other" not in text
    assert "**Intended use.** To learn." in text and text.count("*not stated*") == 7
    sheet = data_sheet(digits(), uses="Teaching.")
    assert isinstance(sheet, DataSheet) and "1,078 for training" in sheet.composition and "classes 0, 1" in sheet.composition and sheet.license == "CC BY 4.0"
    assert "a number to predict" in data_sheet(diabetes()).composition and sheet._repr_markdown_().count("*not stated*") == 5
    with pytest.raises(TypeError): data_sheet(digits(), color="blue")


def test_energy_is_power_times_time():
    made = training_energy({"a": 1800, "b": 1800}, watts=(10, 40), grams=(100, 900))
    assert np.allclose(made.loc["Wh"], (10, 20, 40)) and np.allclose(made.loc["g CO2"], (1, 6, 36))
    assert np.allclose(training_energy([3600], watts=(10, 40), runs=(2, 10)).loc["Wh"], (20, math.sqrt(20 * 400), 400))


def test_the_cell_that_downloads_runs_on_a_small_table():
    "What it does with the census, with made-up people; the functions are read from the notebook."
    cells = json.loads((ROOT / "nbs" / "18_ethics.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    source, = [s for s in sources if s.startswith("#| online")]
    fit, = [re.search(r"def fit\(.*?return net\n", s, re.DOTALL)[0] for s in sources if "def fit(" in s]
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame({"age": rng.integers(17, 90, n), "workclass": rng.choice(["Private", None], n), "fnlwgt": rng.integers(1, 1000, n),
                          "education": rng.choice(["HS-grad", "Masters"], n), "race": pd.Categorical(rng.choice(["White", "Black"], n)),
                          "sex": pd.Categorical(rng.choice(["Male", "Female"], n)), "hours-per-week": 40})
    frame["class"] = pd.Categorical(np.where(frame.age + rng.normal(0, 10, n) > 50, ">50K", "<=50K"))
    asked = []
    def fetch(**options):
        asked.append(options)
        return type("Bunch", (), {"frame": frame})
    from dlbook.neurons import MLP
    names = {"np": np, "pd": pd, "torch": torch, "F": F, "MLP": MLP, "Cohort": Cohort, "audit": audit, "fetch_openml": fetch}
    exec(fit, names)
    exec(source.replace("from sklearn.datasets import fetch_openml\n", ""), names)
    assert asked == [{"data_id": 1590, "as_frame": True, "parser": "auto"}]
    census, adult = names["census"], names["adult"]
    assert isinstance(census, Audit) and set(census.rates.group) >= {"Male", "Female", "white", "other", "Male, other"}
    assert not any(re.match("sex|race|fnlwgt|class", name) for name in adult.features if not name.startswith("workclass"))
    assert torch.isfinite(adult.x).all() and adult.y.mean() == pytest.approx((frame["class"] == ">50K").mean())
    assert census.rates.people[:2].sum() == n // 2


def test_import_is_light():
    code = "import sys, dlbook.ethics; print([m for m in ('matplotlib', 'fastai', 'fairlearn', 'opacus', 'sklearn', 'IPython') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]" and not done.stderr, done
