"""Cells are tuned on their initial sets, so all policies of a seed have the same settings."""

import json

import torch

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.fleet import advance
from balbench.harness.rounds.loop import CellRun
from balbench.harness.study.study import check_study
from support.studies import TINY, tiny

AUTOMATIC = TINY["posterior"] | {"learning_rate": "auto", "epochs": 3}
CELLS = check_study(tiny(policies=["random", "bald", "bal_pm"], posterior=AUTOMATIC, seeds=3), "tiny").cells
DATA = DeviceData(CELLS[0].dataset.build(lambda *_: None), torch.device("cpu"))


def advanced(cells):
    """The rounds of each cell as they would be written, and the report."""
    report = advance(cells, [None] * len(cells), DATA, lambda: True)
    lines = {cell.directory: [] for cell in cells}
    for key, done in report.rounds:
        lines[key].append(json.dumps(done.record))
    return lines, report


def test_a_cell_has_the_same_rate_in_all_rounds_policies_and_fleets():
    together = advanced(CELLS)[0]
    alone = {key: lines for cell in CELLS for key, lines in advanced([cell])[0].items()}
    assert together == alone
    rates = {
        seed: {
            json.loads(line)["metrics"]["fit"]["learning_rate"]
            for cell in CELLS
            if cell.seed == seed
            for line in alone[cell.directory]
        }
        for seed in range(3)
    }
    assert all(len(of_seed) == 1 for of_seed in rates.values())


def test_the_initial_set_alone_decides(monkeypatch):
    seen = []

    def tuned(self, initial, validation):
        seen.append((initial.responses_n2.tolist(), initial.label_n.tolist()))
        return self.model_copy(update={"learning_rate": 1e-3})

    monkeypatch.setattr(Ensemble, "tuned", tuned)
    of_seed_0 = [cell for cell in CELLS if cell.seed == 0]
    advanced(of_seed_0)
    assert len(seen) == len(of_seed_0)
    assert all(sets == seen[0] for sets in seen)
    assert len(seen[0][0]) == of_seed_0[0].protocol.initial


def test_an_error_of_tuning_fails_its_cell_alone(monkeypatch):
    def tuned(self, initial, validation):
        if initial.responses_n2.tolist() == first.responses_n2.tolist():
            raise ValueError("cannot tune")
        return self.model_copy(update={"learning_rate": 1e-3})

    pairs = CELLS[0].protocol.initial
    run = CellRun(CELLS[0], DATA)
    first = DATA.labelled_pairs("pool", run.label_n[:pairs], run.acquired_n[:pairs])
    monkeypatch.setattr(Ensemble, "tuned", tuned)
    other = next(cell for cell in CELLS if cell.seed == 1)
    lines, report = advanced([CELLS[0], other])
    assert list(report.failed) == [CELLS[0].directory]
    assert len(lines[other.directory]) == other.rounds
