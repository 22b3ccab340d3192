"""Cells that run together: each gives what it gives alone, and fails alone."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from balbench.harness.errors import DataError
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.fleet import NOT_EXACT, advance
from balbench.harness.rounds.task import Past
from balbench.harness.study.study import check_study
from balbench.oracles.annotations import Choice
from balbench.oracles.replay import Replay
from support.policies import Broken
from support.posteriors import Crowded, Touchy
from support.studies import TINY, tiny

POLICIES = ["random", "bald", "bal_pm", {"name": "power_bald"}]
STUDY = check_study(tiny(policies=POLICIES), "tiny")
CELLS = [cell for cell in check_study(tiny(policies=POLICIES), "tiny").cells if cell.label != "full data"]
DATA = DeviceData(CELLS[0].dataset.build(lambda *_: None), torch.device("cpu"))
SETTINGS = {key: value for key, value in TINY["posterior"].items() if key != "name"}


def advanced(cells, pasts=None, rounds=99):
    """Rounds of each cell, as they would be written, and the report."""
    pasts, left = pasts or [[] for _ in cells], iter(range(rounds))
    report = advance(cells, [Past.of(past) for past in pasts], DATA, lambda: next(left, None) is not None)
    lines = {cell.directory: [json.dumps(record) for record in past] for cell, past in zip(cells, pasts, strict=True)}
    for key, done in report.rounds:
        lines[key].append(json.dumps(done.record))
    return lines, report


@pytest.fixture(scope="module")
def alone():
    return {key: lines for cell in CELLS for key, lines in advanced([cell])[0].items()}


@pytest.mark.parametrize("size", [3, 8])
def test_a_cell_does_not_depend_on_its_fleet(alone, size):
    actual = {}
    for start in range(0, len(CELLS), size):
        actual |= advanced(CELLS[start : start + size])[0]
    assert actual == alone


def test_a_cell_does_not_depend_on_how_far_its_fleet_is(alone):
    pasts = [[json.loads(line) for line in alone[cell.directory][: number % 5]] for number, cell in enumerate(CELLS)]
    assert {len(past) for past in pasts} == {0, 1, 2, 3, 4}
    lines, report = advanced(CELLS, pasts)
    assert lines == alone
    rounds = [done.record["round"] for _, done in report.rounds]
    assert rounds == sorted(rounds)  # those behind catch up first


def test_each_round_is_asked_for(alone):
    lines, _ = advanced(CELLS, rounds=2)
    assert lines == {key: rounds[:2] for key, rounds in alone.items()}
    assert not advanced(CELLS, rounds=0)[1].rounds


def test_a_cell_whose_policy_raises_leaves_the_fleet(alone):
    broken = replace(CELLS[2], policy=Broken())
    lines, report = advanced([*CELLS[:2], broken, *CELLS[3:]])
    assert list(report.failed) == [broken.directory]
    assert report.failed[broken.directory].reason == "RuntimeError: this policy is broken"
    assert 'raise RuntimeError("this policy is broken")' in report.failed[broken.directory].details
    assert lines == alone | {broken.directory: []}


def with_posterior(cls):
    return [replace(cell, posterior=cls(**SETTINGS)) for cell in CELLS]


def test_a_cell_that_diverges_leaves_the_fleet():
    cells = with_posterior(Touchy)
    actual = [advanced([cell]) for cell in cells]
    failed = [key for _, report in actual for key in report.failed]
    assert 0 < len(failed) < len(cells)
    lines, report = advanced(cells)
    assert list(report.failed) == failed
    assert {failure.reason for failure in report.failed.values()} == {"DivergedError: no number"}
    assert lines == {key: rounds for one, _ in actual for key, rounds in one.items()}


def test_what_was_done_before_the_memory_was_too_small_is_kept(alone):
    cells = with_posterior(Crowded)[:3]
    lines = [[json.loads(line) for line in alone[cell.directory]] for cell in cells]
    actual, report = advanced(cells, [lines[0][:2], [], []])
    assert report.out_of_memory
    assert not report.failed
    assert [(key, done.record["round"]) for key, done in report.rounds] == list(
        itertools.chain.from_iterable([(cells[1].directory, n), (cells[2].directory, n)] for n in range(2))
    )
    assert actual == {cell.directory: alone[cell.directory][:2] for cell in cells}


class Unreadable(Broken):
    def select(self, view, batch_size, stream):
        raise DataError("votes.jsonl: is gone")


def test_faults_of_the_machine_stop_all():
    with pytest.raises(DataError, match="is gone"):
        advanced([CELLS[0], replace(CELLS[1], policy=Unreadable())])


class Silent(Replay):
    """Abstains always."""

    def annotate(self, pairs, stream):
        actual = super().annotate(pairs, stream)
        return replace(actual, choice_B=np.full(len(pairs), Choice.ABSTAIN, dtype=np.int8))


def test_a_cell_without_an_answer_fails_alone_and_says_why(alone):
    silent = replace(CELLS[1], oracle=Silent())
    lines, report = advanced([CELLS[0], silent, CELLS[2]])
    assert (
        report.failed[silent.directory].reason == "the oracle abstained from all of its labels; raise protocol.initial"
    )
    assert lines == {cell.directory: alone[cell.directory] for cell in (CELLS[0], CELLS[2])} | {silent.directory: []}
    assert list(advanced([silent])[1].failed) == [silent.directory]


def test_a_processor_on_which_fleets_are_not_exact_gives_the_same_rounds_and_says_so(alone, monkeypatch):
    monkeypatch.setattr(Ensemble, "fleet_is_exact", lambda self, dimension: False)
    sizes = []
    fit_fleet = Ensemble.fit_fleet

    def counted(self, trains, validation, streams):
        sizes.append(len(trains))
        return fit_fleet(self, trains, validation, streams)

    monkeypatch.setattr(Ensemble, "fit_fleet", counted)
    lines, result = advanced(CELLS[:3])
    assert lines == {cell.directory: alone[cell.directory] for cell in CELLS[:3]}
    assert set(sizes) == {1}
    assert result.notices == [NOT_EXACT]
    assert advanced(CELLS[:1])[1].notices == []
