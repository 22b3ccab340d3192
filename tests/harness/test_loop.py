"""A cell's rounds: resumed exactly, and blind to labels that were not bought."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import registry
from harness.loop import CellRun, World, run_cell
from harness.pairs import PreferenceData, Split
from harness.policies.policy import Policy, Selection
from harness.results import CellLog
from harness.study import check_study
from support.studies import TINY

STUDY = check_study(copy.deepcopy(TINY), "tiny")
DATA = STUDY.cells[0].dataset.build(lambda *_: None)


def cell_of(label, seed=0):
    return next(cell for cell in STUDY.cells if cell.label == label and cell.seed == seed)


def world_of(data: PreferenceData = DATA) -> World:
    return World(data, torch.device("cpu"))


def run(cell, path, data=DATA, rounds=99):
    log, left = CellLog(path), iter(range(rounds))
    finished = run_cell(cell, world_of(data), log, {}, go_on=lambda: next(left, None) is not None)
    return finished, log.rounds()


@pytest.mark.parametrize("label", ["random", "bald", "bal_pm", "bal_pm as coded", "full data"])
def test_an_interrupted_cell_goes_on_exactly(tmp_path, label):
    cell = cell_of(label)
    finished, whole = run(cell, tmp_path / "whole")
    assert finished
    assert len(whole) == cell.rounds
    for stop in range(1, cell.rounds):
        assert run(cell, tmp_path / f"{stop}", rounds=stop) == (False, whole[:stop])
        assert run(cell, tmp_path / f"{stop}") == (True, whole)
        names = [tmp_path / part / "rounds.jsonl" for part in ("whole", f"{stop}")]
        assert names[0].read_bytes() == names[1].read_bytes()


def with_other_labels(data: PreferenceData, bought: np.ndarray) -> PreferenceData:
    """The same data with every vote on a pair that was not bought turned round."""
    pool = data.splits["pool"]
    flipped = np.where(
        np.isin(pool.records.vote_pair_V, bought), pool.records.vote_choice_V, 1 - pool.records.vote_choice_V
    )
    records = replace(pool.records, vote_choice_V=flipped)
    return PreferenceData(data.splits | {"pool": Split(pool.pairs, records)})


@pytest.mark.parametrize("name", [name for name in registry.names("policies") if name != "full_data"])
def test_a_policy_learns_nothing_that_it_has_not_bought(tmp_path, name):
    raw = copy.deepcopy(TINY) | {"policies": [{"name": name}], "reference": name}
    cell = check_study(raw, "tiny").cells[0]
    _, records = run(cell, tmp_path / "a")
    last = CellRun(cell, world_of())
    last.replay(records)
    other = with_other_labels(DATA, last.acquired_n)
    assert (other.splits["pool"].records.vote_choice_V != DATA.splits["pool"].records.vote_choice_V).any()
    assert run(cell, tmp_path / "b", other)[1] == records


def test_policies_of_a_seed_face_the_same_world(tmp_path):
    records = {label: run(cell_of(label), tmp_path / label)[1] for label in ("random", "bald", "bal_pm")}
    first = [rounds[0]["metrics"]["test"] for rounds in records.values()]
    assert first[0] == first[1] == first[2]
    assert (
        records["random"][0]["metrics"]["test"]
        != run(cell_of("random", seed=1), tmp_path / "x")[1][0]["metrics"]["test"]
    )


def test_a_round_says_what_it_bought_and_how_well_it_did(tmp_path):
    _, records = run(cell_of("bald"), tmp_path / "a")
    assert [record["labels"] for record in records] == [10, 20, 30, 40]
    assert [len(record["acquired"]) for record in records] == [10, 10, 10, 0]
    bought = [pair for record in records for pair in record["acquired"]]
    assert len(set(bought)) == 30
    for split in ("eval", "test", "ood", "buffer"):
        assert set(records[0]["metrics"][split]) >= {"log_likelihood", "accuracy", "brier", "ece", "epistemic"}
    pairs = DATA.splits["pool"].pairs
    unique = len(np.unique(pairs.prompt_of_pair_N[records[0]["acquired"]]))
    assert records[0]["metrics"]["batch"]["unique_prompts"] == unique


def test_the_last_batch_may_be_smaller(tmp_path):
    raw = copy.deepcopy(TINY) | {"protocol": {"initial": 100, "batch": 150, "rounds": 3}}
    cell = check_study(raw, "tiny").cells[0]
    _, records = run(cell, tmp_path / "a")
    assert [record["labels"] for record in records] == [100, 250, 300]


def test_the_full_data_are_all_labels_at_once(tmp_path):
    _, records = run(cell_of("full data"), tmp_path / "a")
    assert [record["labels"] for record in records] == [300]


class Greedy(Policy):
    """Breaks its contract: the same pair twice."""

    def select(self, view, batch_size, stream):
        return Selection(np.repeat(view.unlabelled_U[:1], batch_size), np.zeros(batch_size))


def test_a_policy_that_breaks_its_contract_is_stopped(tmp_path):
    cell = replace(cell_of("random"), policy=Greedy())
    with pytest.raises(ValueError, match="distinct unlabelled pairs"):
        run(cell, tmp_path / "a")


def test_ties_and_abstentions(tmp_path):
    """A tie trains towards one half, an abstention is bought but not trained on."""
    records = DATA.splits["pool"].records
    for choice, extra in ((2, 0), (3, None)):
        votes = np.full_like(records.vote_choice_V, choice)
        votes[:150] = records.vote_choice_V[:150]
        data = PreferenceData(
            DATA.splits | {"pool": Split(DATA.splits["pool"].pairs, replace(records, vote_choice_V=votes))}
        )
        cell_run = CellRun(cell_of("random"), world_of(data))
        train = cell_run.world.answered("pool", cell_run.target_n, cell_run.acquired_n)
        if extra is None:
            assert len(train.target_n) == np.sum(cell_run.acquired_n < 150) < 10
        else:
            assert len(train.target_n) == 10
            assert (train.target_n == 0.5).sum() == np.sum(cell_run.acquired_n >= 150) > 0
        assert cell_run.round(0)[0]["labels"] == 10
