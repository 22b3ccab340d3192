"""Claims are judged by the interval and by the paper's formula; whatever a run cannot decide has a reason."""

import math

import pytest

from balbench.reports.claims import Claim, ClaimedDataset, Claims, Paper, Verdict, compare, judged, judged_by_melo2024

AT_MOST = {"low_kind": "at_most", "high_kind": "at_most", "high_bound": 0.0}
HOLDS, FAILS, UNKNOWN = Verdict.HOLDS, Verdict.FAILS, Verdict.UNKNOWN


def claim(**changes):
    settings = {"id": "c", "paper": "p", "source": "figure 1", "says": "A sentence.", "policy": {"name": "bal_pm"}}
    return Claim(**settings | {"rule": "melo2024"} | changes)


def row(low, high, outcome, savings=0.3, melo2024=0.4, low_kind="exact", high_kind="exact", high_bound=math.nan):
    return {
        "outcome": outcome,
        "savings": savings,
        "low": low,
        "high": high,
        "melo2024": melo2024,
        "low_kind": low_kind,
        "low_bound": -0.2,
        "high_kind": high_kind,
        "high_bound": high_bound,
    }


@pytest.mark.parametrize(
    ("claimed", "measured", "verdict"),
    [
        ({"saves": 0.33}, row(0.2, 0.4, "saved"), HOLDS),
        ({"saves": 0.33}, row(0.5, 0.6, "saved"), HOLDS),  # more than claimed
        ({"saves": 0.33}, row(0.1, 0.3, "saved"), FAILS),
        ({"saves": 0.33}, row(-0.1, 0.5, "unclear"), UNKNOWN),
        ({"saves": 0.33}, row(-0.1, 0.3, "unclear"), FAILS),
        ({"saves": 0.33}, row(math.nan, -0.1, "lost", low_kind="at_most"), FAILS),
        (
            {"saves": 0.33},
            row(0.01, 0.4, "unclear"),
            UNKNOWN,
        ),  # the outcome follows a correction that the interval lacks
        ({}, row(0.1, 0.3, "saved"), HOLDS),
        ({}, row(-0.1, 0.3, "unclear"), UNKNOWN),
        ({}, row(-0.4, -0.1, "lost"), FAILS),
        (
            {},
            row(math.nan, math.nan, "unclear", low_kind="at_most", high_kind="at_most", high_bound=0.0),
            FAILS,
        ),
        ({}, row(0.1, 0.3, "saved", high_kind="at_least", high_bound=0.3), HOLDS),
        (
            {"saves": 0.5},
            row(0.1, 0.3, "saved", high_kind="at_least", high_bound=0.3),
            HOLDS,
        ),  # the interval ends at 30% or above
        ({"at_most": 0.1}, row(-0.2, 0.05, "unclear"), HOLDS),
        ({"at_most": 0.1}, row(0.2, 0.4, "saved"), FAILS),
        ({"at_most": 0.1}, row(0.05, 0.4, "saved"), UNKNOWN),
        ({"at_most": 0.1}, row(0.05, 0.08, "saved", high_kind="at_least", high_bound=0.3), UNKNOWN),
    ],
)
def test_the_interval_decides_or_is_too_wide(claimed, measured, verdict):
    assert judged(claim(**claimed), measured)[0] == verdict


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("no level", "the reference gives no level"),
        ("no results", "no results yet"),
        ("no interval", "too few seeds for an interval"),
    ],
)
def test_outcomes_without_an_interval_have_a_reason(outcome, reason):
    measured = row(math.nan, math.nan, outcome, melo2024=math.nan)
    assert judged(claim(), measured) == (UNKNOWN, reason)
    assert judged_by_melo2024(claim(), measured) == (UNKNOWN, reason)


@pytest.mark.parametrize(
    ("claimed", "melo2024", "verdict"),
    [
        ({"saves": 0.33}, 0.334, HOLDS),
        ({"saves": 0.33}, 0.3267, HOLDS),  # 33% as a whole number
        ({"saves": 0.33}, 0.32, FAILS),
        ({}, 0.01, HOLDS),
        ({}, -0.1, FAILS),
        ({"at_most": 0.1}, 0.05, HOLDS),
        ({"saves": 0.33}, 1.0, UNKNOWN),  # the formula's value where a policy never exceeds the level
        ({"saves": 0.33, "rule": "other"}, 0.4, UNKNOWN),
    ],
)
def test_the_paper_s_formula_gives_a_number_to_compare(claimed, melo2024, verdict):
    assert judged_by_melo2024(claim(**claimed), row(0.1, 0.2, "saved", melo2024=melo2024))[0] == verdict


def claims(*entries):
    tldr = ClaimedDataset(title="TL;DR", settings={"file": ["tldr"], "encoder": ["7b"]})
    paper = Paper(title="Somebody 2024, A title", arxiv="2406.10023")
    return Claims(papers={"p": paper}, datasets={"tldr": tldr}, claims=list(entries))


def only(run, **changes):
    (compared,) = compare(claims(claim(**changes)), run).to_dict("records")
    return compared


def test_a_claim_is_compared_with_each_policy_setting_and_split(run):
    run.policy_settings |= {"BALD": {"name": "bal_pm", "variant": "as_coded"}}
    table = compare(claims(claim(splits=["test", "ood"])), run)
    assert table[["split", "policy"]].values.tolist() == [
        ["test", "BAL-PM"],
        ["test", "BALD"],
        ["ood", "BAL-PM"],
        ["ood", "BALD"],
    ]
    assert only(run, policy={"name": "bal_pm", "variant": "as_coded"})["policy"] == "BALD"
    assert set(table["says"]) == {"A sentence."}


def test_numbers_are_those_of_the_savings_table(run):
    from balbench.reports.savings_table import savings_table

    table = savings_table(run).query("policy == 'BAL-PM' and split == 'test'").iloc[0]
    compared = only(run)
    for name in ("savings", "low", "high", "outcome", "melo2024"):
        assert compared[name] == table[name]
    assert compared["verdict"] == HOLDS
    assert compared["why"].startswith("95% interval ")


def test_another_data_set_decides_nothing_but_the_numbers_are_told(run):
    compared = only(run, dataset="tldr", saves=0.05)
    assert (compared["verdict"], compared["paper_verdict"]) == (UNKNOWN, UNKNOWN)
    assert compared["why"].startswith(
        "another data set; the claim is about TL;DR (on this data set: holds, 95% interval"
    )
    run.study = {"dataset": {"name": "jsonl", "path": "/data/TLDR_votes.jsonl", "encoder": "Some-7B"}}
    assert only(run, dataset="tldr", saves=0.05)["verdict"] == HOLDS
    run.study |= {"grid": {"dataset.path": ["a", "b"]}}
    assert only(run, dataset="tldr")["why"].startswith("the grid varies the data set; ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": {"name": "arm_fi"}}, "the policy arm_fi is not in the run"),
        ({"policy": {"name": "bal_pm", "k": 5}}, "the policy bal_pm (k 5) is not in the run"),
        ({"reference": {"name": "bald"}}, "the run measures against random; set `reference` to bald"),
        ({"metric": "win rate"}, "the claim is about win rate, which runs do not measure"),
        (
            {"dataset": "tldr", "metric": "win rate"},
            "another data set; the claim is about TL;DR; the claim",
        ),
    ],
)
def test_what_a_run_does_not_measure_has_a_reason(run, changes, reason):
    compared = only(run, **changes)
    assert (compared["verdict"], compared["policy"]) == (UNKNOWN, "")
    assert compared["why"].startswith(reason)


def test_a_run_without_results_decides_nothing(run):
    run.curves = run.curves[:0]
    assert only(run)["why"] == "the run has no results on test yet"
