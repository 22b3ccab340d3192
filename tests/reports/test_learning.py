"""No claim without learning: coin flips, undertrained heads, members that keep their initial weights."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from balbench.reports.analysis import analyse
from balbench.reports.curves import Curve, Curves
from balbench.reports.figures.learning_curves import make_panel
from balbench.reports.learning import NOT_ABOVE_CHANCE, NOT_ABOVE_FIRST, ONE_ROUND, learning
from balbench.reports.page import write_report
from balbench.reports.savings import Outcome, label_savings
from balbench.reports.savings_table import NO_PAIR_ERRORS, savings_table
from balbench.reports.statement import statement
from balbench.reports.training import Fault, training_faults

CHANCE = -math.log(2)


def _learnt(values, errors=0.001, metric="log_likelihood"):
    values_ST = np.array(values, dtype=float)
    return learning(Curve(np.arange(1, values_ST.shape[1] + 1), values_ST, pair_errors=values_ST * 0 + errors), metric)


def test_a_curve_above_chance_and_above_its_first_round_learnt():
    learnt = _learnt([[-0.69, -0.60], [-0.68, -0.61], [-0.69, -0.60]])
    assert learnt.missing == ""
    assert learnt.gain == pytest.approx(math.log(2) - 0.60333, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "errors", "missing"),
    [
        ([[-0.75, -0.70], [-0.76, -0.70], [-0.75, -0.71]], 0.001, NOT_ABOVE_CHANCE),
        # the errors over held-out pairs are too large
        ([[-0.72, -0.68], [-0.72, -0.68], [-0.73, -0.68]], 0.01, NOT_ABOVE_CHANCE),
        ([[-0.60, -0.60], [-0.61, -0.60], [-0.60, -0.61]], 0.001, NOT_ABOVE_FIRST),
        ([[-0.60], [-0.61], [-0.60]], 0.001, ONE_ROUND),
        ([[-0.72, -0.68]], 0.001, ""),
        ([[-0.72, -0.68]], 0.01, NOT_ABOVE_CHANCE),
    ],
)
def test_each_condition_is_needed(values, errors, missing):
    assert _learnt(values, errors).missing == missing


def test_the_growth_test_is_the_paired_t_test():
    generator = np.random.default_rng(0)
    missing = Counter()
    for _ in range(200):
        values_ST = np.stack([generator.normal(-0.61, 0.01, 5), generator.normal(-0.60, 0.01, 5)], axis=1)
        p = stats.ttest_rel(values_ST[:, 1], values_ST[:, 0], alternative="greater").pvalue
        assert (_learnt(values_ST, 0.0).missing == "") == (p < 0.025)
        missing[p < 0.025] += 1
    assert min(missing.values()) > 20


def test_the_error_of_the_gain_holds_seeds_and_shared_pairs():
    values_ST = np.array([[-0.7, -0.60], [-0.7, -0.62], [-0.7, -0.61], [-0.7, -0.59]])
    seeds = values_ST[:, -1].std(ddof=1) / 2
    assert _learnt(values_ST, 0.03).gain_error == pytest.approx(math.hypot(seeds, 0.03))


def test_the_error_of_the_gain_is_not_too_small_where_seeds_share_their_pairs():
    """Scores v_si = a_s + b_i + e_si: the estimate of the variance of their mean covers the variance over worlds."""
    generator, means, variances = np.random.default_rng(1), [], []
    for _ in range(2000):
        score_SN = generator.normal(0, 0.02, (4, 1)) + generator.normal(0, 0.5, 200)
        score_SN = score_SN + generator.normal(0, 0.3, (4, 200))
        error_S1 = score_SN.std(axis=1, ddof=1, keepdims=True) / math.sqrt(200)
        curve = Curve([1], score_SN.mean(axis=1, keepdims=True), pair_errors=error_S1)
        means.append(score_SN.mean())
        variances.append(learning(curve, "accuracy").gain_error ** 2)
    assert np.var(means) < np.mean(variances) < 1.6 * np.var(means)


def _coin_flips(settings: int, seeds: int = 5, rounds: int = 6, pairs: int = 150, seed: int = 0) -> pd.DataFrame:
    """Curves of two policies on labels that are coin flips: logits grow with the labels and mean nothing."""
    generator, rows = np.random.default_rng(seed), []
    for setting in range(settings):
        label_N = generator.integers(2, size=pairs)
        shared_N = generator.normal(size=pairs)  # the part that the models of all seeds share; it grows each round
        for policy in ("random", "bald"):
            for s in range(seeds):
                own_TN = np.cumsum(generator.normal(size=(rounds, pairs)), axis=0)
                size = generator.choice([0.003, 0.3])
                for t in range(rounds):
                    rows += [
                        (str(setting), policy, s, t, 16 * (t + 1), "test", metric, value)
                        for metric, value in _scores(size * (t * shared_N + own_TN[t]), label_N).items()
                    ]
    return pd.DataFrame(rows, columns=["setting", "policy", "seed", "round", "labels", "split", "metric", "value"])


def _scores(logit_N, label_N):
    p_N = 1 / (1 + np.exp(-logit_N))
    likelihood_N = np.log(np.where(label_N == 1, p_N, 1 - p_N))
    scores = {"log_likelihood": likelihood_N, "accuracy": (p_N > 0.5) == label_N, "brier": (p_N - label_N) ** 2}
    means = {metric: float(np.mean(score_N)) for metric, score_N in scores.items()}
    return means | {f"{metric}_se": float(np.std(v, ddof=1) / len(v) ** 0.5) for metric, v in scores.items()}


def test_coin_flips_give_at_most_one_claim_in_twenty(run_of):
    """1,050 comparisons of a policy with the reference, in three metrics."""
    run = run_of(["random", "bald"], seeds=1, rounds=1)
    run.curves, run.policies = _coin_flips(350), ["random", "bald"]
    outcomes: Counter[str] = Counter()
    for metric in ("log_likelihood", "accuracy", "brier"):
        table = savings_table(run, metric).query("not is_reference")
        outcomes.update(table["outcome"])
        without = table[table["outcome"] == Outcome.NO_LEVEL]
        assert without[["savings", "low", "p_value", "melo2024", "final_difference"]].isna().all(axis=None)
    assert outcomes.total() == 1050
    assert outcomes.total() - outcomes[Outcome.NO_LEVEL] <= 0.05 * outcomes.total()


def _add(run, split, values, policies=None):
    """Add metrics with the same value in every round, for all policies or some."""
    cells = run.curves[["setting", "policy", "seed", "round", "labels"]].drop_duplicates()
    cells = cells[cells["policy"].isin(policies or run.policies)]
    added = [cells.assign(split=split, metric=metric, value=value) for metric, value in values.items()]
    run.curves = pd.concat([run.curves, *added], ignore_index=True)


def test_an_undertrained_model_is_named_with_the_settings_to_change(run):
    _add(run, "test", {"temperature": 0.2, "temperature_gain": 0.02}, ["random", "BALD"])
    _add(run, "fit", {"best_is_initial": 0.0})
    (fault,) = analyse([run])[0].faults
    assert fault.startswith("Undertrained on test: random and BALD. ")
    assert "would gain up to 0.020 nats from a temperature of 0.2; raise posterior.learning_rate or" in fault


@pytest.mark.parametrize(
    "values", [{"temperature": 3.0, "temperature_gain": 0.2}, {"temperature": 0.9, "temperature_gain": 0.004}]
)
def test_overconfident_and_slightly_underconfident_models_are_not_called_undertrained(run, values):
    _add(run, "test", values)
    assert analyse([run])[0].faults == []


def test_small_logits_without_any_signal_are_not_called_undertrained(run_of):
    run = run_of(["random", "bald"], seeds=1, rounds=1)
    run.curves, run.policies = _coin_flips(1), ["random", "bald"]
    _add(run, "test", {"temperature": 0.1, "temperature_gain": 0.02})
    assert training_faults(Curves(run.curves), "0", run.policies, ["test"]) == []


def test_where_a_temperature_gains_more_than_training_did_log_likelihood_gives_no_level(run):
    _add(run, "test", {"temperature": 0.01, "temperature_gain": 0.6})
    by_metric = {metric: savings_table(run, metric) for metric in ("log_likelihood", "accuracy", "brier")}
    no_level = {metric: set(table.query("split == 'test'")["no_level"]) for metric, table in by_metric.items()}
    assert no_level == {"log_likelihood": {Fault.UNDERTRAINED}, "accuracy": {""}, "brier": {Fault.UNDERTRAINED}}
    assert set(by_metric["log_likelihood"].query("split == 'ood'")["no_level"]) == {""}


@pytest.mark.parametrize(
    ("start", "end", "remedy"),
    [(0.69, 0.70, "lower posterior.learning_rate"), (0.69, 0.69, "raise posterior.learning_rate or posterior.epochs")],
)
def test_members_that_keep_their_initial_weights_are_named_with_the_setting_to_change(run, start, end, remedy):
    values = {"best_is_initial": 0.4, "evaluation_loss_start": start, "evaluation_loss_end": end}
    _add(run, "fit", values, ["BALD"])
    (fault,) = analyse([run])[0].faults
    assert fault.startswith("Training did not help: BALD (40% of the members). ")
    assert remedy in fault


def test_training_that_changed_nothing_gives_no_level(run):
    _add(run, "fit", {"best_is_initial": 1.0}, ["random"])
    table = savings_table(run, "accuracy")
    assert set(table["no_level"]) == {Fault.INITIAL_WEIGHTS}


def test_results_of_an_older_version_are_named(run):
    run.curves = run.curves[~run.curves["metric"].str.endswith("_se")]
    rows = savings_table(run).query("split == 'test'")
    assert set(rows["no_level"]) == {NO_PAIR_ERRORS}
    assert "made by an older version of balbench" in statement(rows)
    assert "run the study again" in statement(rows)


def test_page_json_csv_figure_and_table_say_the_same_where_there_is_no_level(run_of, tmp_path):
    run = run_of(["random", "bald"], seeds=1, rounds=1)
    run.curves, run.policies, run.study = _coin_flips(1), ["random", "bald"], {}
    run.curves["setting"] = ""
    run.lines, run.full_data, run.timings = (frame.iloc[:0] for frame in (run.lines, run.full_data, run.timings))
    analysis = analyse([run])[0]
    page = write_report([analysis], tmp_path).read_text()
    results = json.loads((tmp_path / "report.json").read_text())["results"]
    assert len(results) == 3
    for record in results:
        assert "no label savings are stated, because random did not learn beyond chance" in record["statement"]
        assert [row["savings"] for row in record["policies"]] == [None, None]
        rows = pd.read_csv(tmp_path / "1-demo" / f"savings-{record['metric']}.csv")
        assert list(rows["outcome"]) == ["reference", "no level"]
        assert rows["savings"].isna().all()
        panel = make_panel(run, analysis.curves, analysis.tables[record["metric"]], "", "test", record["metric"])
        assert panel.note == "no label savings are stated: random did not learn beyond chance"
    assert results[0]["statement"] in page
    assert "fewer labels than random: " not in page


def test_plain_arrays_get_the_same_judgement():
    random = Curve([10, 20, 30], [[0.50, 0.51, 0.49], [0.52, 0.49, 0.50], [0.48, 0.51, 0.51]])
    bald = Curve([10, 20, 30], [[0.50, 0.60, 0.70], [0.52, 0.61, 0.70], [0.48, 0.62, 0.71]])
    assert label_savings(bald, random, "accuracy").outcome == Outcome.NO_LEVEL
    assert label_savings(random, bald, "accuracy").outcome == Outcome.LOST


def test_seeds_with_too_large_logits_do_not_make_a_model_undertrained(run):
    _add(run, "test", {"temperature": 0.9, "temperature_gain": 0.001})
    rows = run.curves.query("split == 'test' and metric in ['temperature', 'temperature_gain'] and seed == 0").index
    run.curves.loc[rows, "value"] = run.curves.loc[rows, "metric"].map({"temperature": 3.0, "temperature_gain": 0.5})
    assert analyse([run])[0].faults == []
