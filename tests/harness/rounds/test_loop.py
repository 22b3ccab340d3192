"""A cell's rounds: resumed exactly, and blind to labels that were not bought."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from balbench.harness import registry
from balbench.harness.metrics import held_out_metrics
from balbench.harness.policies.policy import Policy, Selection
from balbench.harness.pool.pairs import PreferenceData, Split
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.fleet import advance
from balbench.harness.rounds.loop import CellRun, _score_facts
from balbench.harness.rounds.task import Past
from balbench.harness.streams import stream
from balbench.harness.study.study import check_study
from balbench.oracles.replay import Replay
from support.studies import tiny

STUDY = check_study(tiny(), "tiny")
DATA = STUDY.cells[0].dataset.build(lambda *_: None)


def cell_of(label, seed=0):
    return next(cell for cell in STUDY.cells if cell.label == label and cell.seed == seed)


def device_data(data: PreferenceData = DATA) -> DeviceData:
    return DeviceData(data, torch.device("cpu"))


def run(cell, past=(), data=DATA, rounds=99):
    """The records of a cell after at most so many more rounds."""
    left = iter(range(rounds))
    report = advance([cell], [Past.of(past)], device_data(data), lambda: next(left, None) is not None)
    assert not report.failed, report.failed
    assert {key for key, _ in report.rounds} <= {cell.directory}
    return [*past, *(done.record for _, done in report.rounds)]


@pytest.mark.parametrize("label", ["random", "bald", "bal_pm", "bal_pm as coded", "full data"])
def test_an_interrupted_cell_continues_exactly(label):
    cell = cell_of(label)
    whole = run(cell)
    assert len(whole) == cell.rounds
    for stop in range(1, cell.rounds):
        part = run(cell, rounds=stop)
        assert part == whole[:stop]
        assert json.dumps(run(cell, json.loads(json.dumps(part)))) == json.dumps(whole)


def with_other_labels(data: PreferenceData, bought: np.ndarray) -> PreferenceData:
    """The same data with every vote on a pair that was not bought turned round."""
    pool = data.splits["pool"]
    flipped = np.where(
        np.isin(pool.records.vote_pair_V, bought), pool.records.vote_choice_V, 1 - pool.records.vote_choice_V
    )
    records = replace(pool.records, vote_choice_V=flipped)
    return PreferenceData(data.splits | {"pool": Split(pool.pairs, records)})


@pytest.mark.parametrize("name", [name for name in registry.names("policies") if name != "full_data"])
def test_a_policy_learns_nothing_that_it_has_not_bought(name):
    raw = tiny(policies=[{"name": name}], reference=name)
    cell = check_study(raw, "tiny").cells[0]
    records = run(cell)
    last = CellRun(cell, device_data(), Past.of(records))
    other = with_other_labels(DATA, last.acquired_n)
    assert (other.splits["pool"].records.vote_choice_V != DATA.splits["pool"].records.vote_choice_V).any()
    assert run(cell, data=other) == records


def test_policies_of_a_seed_face_the_same_world():
    first = [run(cell_of(label), rounds=1)[0]["metrics"]["test"] for label in ("random", "bald", "bal_pm")]
    assert first[0] == first[1] == first[2]
    assert first[0] != run(cell_of("random", seed=1), rounds=1)[0]["metrics"]["test"]


def test_a_round_says_what_it_bought_and_how_well_it_did():
    records = run(cell_of("bald"))
    assert [record["labels"] for record in records] == [10, 20, 30, 40]
    assert [len(record["acquired"]) for record in records] == [10, 10, 10, 0]
    bought = [pair for record in records for pair in record["acquired"]]
    assert len(set(bought)) == 30
    for split in ("eval", "test", "ood", "buffer"):
        assert set(records[0]["metrics"][split]) >= {"log_likelihood", "accuracy", "brier", "ece", "epistemic"}
    pairs = DATA.splits["pool"].pairs
    unique = len(np.unique(pairs.prompt_of_pair_N[records[0]["acquired"]]))
    assert records[0]["metrics"]["batch"]["unique_prompts"] == unique
    batch = records[0]["metrics"]["batch"]
    assert 0 <= batch["score_min"] <= batch["score_mean"] <= batch["score_max"] <= np.log(2)


@pytest.mark.parametrize("label", ["bald", "full data"])
def test_a_round_keeps_the_predictions_of_its_held_out_pairs(label):
    cell = cell_of(label)
    result = advance([cell], [Past.of([])], device_data(), lambda: True)
    for _, done in result.rounds:
        assert {split: logit_N.shape for split, logit_N in done.logits.items()} == {"ood": (120,), "test": (120,)}
        for split, logit_N in done.logits.items():
            assert logit_N.dtype == np.float16
            records, pairs = DATA.splits[split].records, DATA.splits[split].pairs
            probability_N = 1 / (1 + np.exp(-logit_N.astype(np.float64)))
            again = held_out_metrics(probability_N, records.first_share_N, pairs.prompt_of_pair_N)
            for name in ("log_likelihood", "log_likelihood_se", "brier", "ece"):
                assert again[name] == pytest.approx(done.record["metrics"][split][name], abs=1e-4)


def test_a_round_compares_the_distances_of_its_batch_with_the_pool():
    pool = DATA.splits["pool"].pairs
    first_ND, second_ND = (pool.response_features_RD[pool.responses_of_pair_N2[:, side]] for side in (0, 1))
    distance_N = np.linalg.norm(first_ND.astype(np.float64) - second_ND, axis=1)
    for record in run(cell_of("bald"))[:-1]:
        batch, distance_B = record["metrics"]["batch"], distance_N[record["acquired"]]
        assert batch["distance_mean"] == pytest.approx(distance_B.mean() / distance_N.mean())
        assert batch["farthest_share"] == np.mean(distance_B > np.quantile(distance_N, 0.95))


@pytest.mark.parametrize(
    ("scores", "summary"),
    [
        ([1.0, np.inf, 3.0], {"score_mean": 2.0, "score_min": 1.0, "score_max": 3.0}),
        ([np.nan, -np.inf], {}),
        ([], {}),
    ],
)
def test_only_finite_scores_enter_the_record(scores, summary):
    assert _score_facts(np.array(scores)) == summary


class Priced(Replay):
    """An oracle with a price and a time for each pair."""

    def annotate(self, pairs, stream):
        answers = super().annotate(pairs, stream)
        draws = np.array([stream.uniform("price", pair_id) for pair_id in pairs.pair_id_N])
        names = np.array([f"annotator {int(10 * draw)}" for draw in draws])
        return replace(answers, annotator_B=names, cost_B=draws, seconds_B=10 * draws)


def test_a_round_records_what_its_labels_cost_in_money_and_time():
    cell = replace(cell_of("random"), oracle=Priced())
    records = run(cell)
    acquired_n = CellRun(cell, device_data()).acquired_n
    for record in records:
        answers = cell.oracle.annotate(DATA.splits["pool"].records.take(acquired_n), stream(cell.seed, "oracle"))
        buffer = record["metrics"]["buffer"]
        assert buffer["cost"] == pytest.approx(answers.cost_B.sum())
        assert buffer["annotator_seconds"] == pytest.approx(answers.seconds_B.sum())
        assert buffer["annotators"] == len(set(answers.annotator_B))
        acquired_n = np.concatenate([acquired_n, np.array(record["acquired"], dtype=np.int64)])


def test_the_cost_of_a_resumed_cell_has_the_same_bytes():
    cell = replace(cell_of("random"), oracle=Priced())
    records = run(cell)
    for done in range(1, len(records)):
        assert run(cell, records[:done]) == records


def test_a_round_records_the_diagnostics_of_its_fit():
    names = {"steps", "best_is_initial", "still_improving", "learning_rate"}
    names |= {f"evaluation_loss_{when}" for when in ("start", "best", "end")}
    for record in run(cell_of("random")):
        assert set(record["metrics"]["fit"]) == names
        assert all(math.isfinite(value) for value in record["metrics"]["fit"].values())
    raw = tiny(posterior={"name": "bayesian_linear"})
    assert "fit" not in run(check_study(raw, "tiny").cells[0], rounds=1)[0]["metrics"]


@pytest.mark.parametrize(
    ("diagnostics", "reason"),
    [
        ([1.0], "TypeError: the posterior's diagnostics are a list; give a mapping of numbers"),
        ({"steps": "many"}, "TypeError: the posterior's diagnostics contain 'steps': 'many'; give names and numbers"),
        ({"loss": math.nan}, "ValueError: the posterior's diagnostics contain 'loss': nan; give finite numbers"),
    ],
)
def test_diagnostics_that_break_their_contract_stop_the_cell(diagnostics, reason):
    fitted = SimpleNamespace(rewards_KR=lambda features_RD: torch.ones(2, len(features_RD)), diagnostics=diagnostics)
    assert failure_of(posterior=Gives(fitted=fitted)).startswith(reason)


def test_the_last_batch_may_be_smaller():
    raw = tiny(protocol={"initial": 100, "batch": 150, "rounds": 3})
    cell = check_study(raw, "tiny").cells[0]
    records = run(cell)
    assert [record["labels"] for record in records] == [100, 250, 300]


def test_the_full_data_are_all_labels_at_once():
    records = run(cell_of("full data"))
    assert [record["labels"] for record in records] == [300]


class Greedy(Policy):
    """Breaks its contract: the same pair twice."""

    def select(self, view, batch_size, stream):
        return Selection(np.repeat(view.unlabelled_U[:1], batch_size), np.zeros(batch_size))


class Notes(Policy):
    """Breaks its contract: text in its diagnostics."""

    def select(self, view, batch_size, stream):
        return Selection(view.unlabelled_U[:batch_size], np.zeros(batch_size), {"kind": "easy"})


class Returns(Policy):
    """Breaks its contract: something else than a selection."""

    what: Any

    def select(self, view, batch_size, stream):
        return self.what


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Greedy(), "ValueError: the policy must return 10 distinct unlabelled pairs"),
        (Notes(), "TypeError: the policy's diagnostics contain 'kind': 'easy'; give names and numbers"),
        (Returns(what=None), "TypeError: the policy must return a Selection; got NoneType"),
        (
            Returns(what=Selection([1, 2], [0, 0])),
            "TypeError: the policy must return its pairs as an array of integers",
        ),
        (Returns(what=Selection(np.ones(10), np.zeros(10))), "TypeError: the policy must return its pairs as an array"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_stopped(policy, reason):
    assert failure_of(policy=policy).startswith(reason)


class Gives(Ensemble):
    """Breaks its contract by what it fits."""

    fitted: Any = None

    def fit_fleet(self, trains, validation, streams):
        return [self.fitted for _ in trains]


def rewarding(rewards_KR):
    return SimpleNamespace(rewards_KR=rewards_KR)


@pytest.mark.parametrize(
    ("fitted", "reason"),
    [
        (None, "TypeError: the posterior's fit returned NoneType, which has no rewards_KR"),
        (rewarding(lambda _: [0.0]), "TypeError: the posterior's rewards_KR returned list; return a torch.Tensor"),
        (rewarding(lambda _: torch.zeros(3)), "ValueError: the posterior must return rewards (K, "),
        (
            rewarding(lambda features_RD: torch.full((3, len(features_RD)), torch.nan)),
            "ValueError: the posterior's rewards are not all finite",
        ),
    ],
)
def test_a_posterior_that_breaks_its_contract_is_stopped(fitted, reason):
    assert failure_of(posterior=Gives(fitted=fitted)).startswith(reason)


def failure_of(**parts):
    cell = replace(cell_of("random"), **parts)
    report = advance([cell], [Past.of([])], device_data(), lambda: True)
    assert not report.rounds
    return report.failed[cell.directory].reason


def test_ties_and_abstentions():
    """A tie trains towards one half, an abstention is bought but not trained on."""
    records = DATA.splits["pool"].records
    for choice, extra in ((2, 0), (3, None)):
        votes = np.full_like(records.vote_choice_V, choice)
        votes[:150] = records.vote_choice_V[:150]
        data = PreferenceData(
            DATA.splits | {"pool": Split(DATA.splits["pool"].pairs, replace(records, vote_choice_V=votes))}
        )
        cell_run = CellRun(cell_of("random"), device_data(data))
        train = cell_run.labelled()
        if extra is None:
            assert len(train.label_n) == np.sum(cell_run.acquired_n < 150) < 10
        else:
            assert len(train.label_n) == 10
            assert (train.label_n == 0.5).sum() == np.sum(cell_run.acquired_n >= 150) > 0
        assert run(cell_of("random"), data=data, rounds=1)[0]["labels"] == 10
