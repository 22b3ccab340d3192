"""What is known of prepared data sets without loading them."""

import io
import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from rich.console import Console

from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.errors import DataError
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.results import RunDirectory
from balbench.harness.results.held_out import HELD_OUT, read_held_out
from balbench.harness.running.data_cache import data_path
from balbench.harness.running.data_directory import feature_bytes, prepare, restore_facts
from balbench.harness.running.progress import Display
from balbench.harness.study.study import check_study
from support.studies import TINY, tiny
from support.tiny_models import save_bert


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_take_the_room_of_float32_whatever_lies_on_disk(tmp_path, dtype):
    for split in ("pool", "eval"):
        np.save(tmp_path / f"{split}.response_features_RD.npy", np.zeros((10, 3), dtype))
    np.save(tmp_path / "pool.prompt_features_PQ.npy", np.zeros((10, 3), dtype))
    assert feature_bytes(tmp_path) == 2 * 10 * 3 * 4


class Odd(Simulated):
    """A data set whose author made a mistake."""

    fault: str

    def sizes(self):
        return super().sizes() if self.fault != "sizes" else (400, 800)

    def build(self, progress):
        data = super().build(progress)
        if self.fault == "raises":
            raise OSError("the archive is gone")
        if self.fault == "nothing":
            return None
        pool = data.splits["pool"]
        if self.fault == "silent":
            votes = {
                item.name: votes_V[:-1]
                for item in fields(pool.records)
                if item.name.endswith("_V") and (votes_V := getattr(pool.records, item.name)) is not None
            }
            pool = replace(pool, records=replace(pool.records, **votes))
        return replace(data, splits=data.splits | {"pool": pool})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", r"Odd.build: OSError: the archive is gone \(test_data_directory.py, line \d+\); fix it"),
        ("nothing", "Odd.build: returned NoneType; return PreferenceData"),
        ("sizes", "Odd.sizes: returned tuple; return Sizes"),
        ("silent", "oracle: pool: pair 'pool-000299' has no recorded vote to replay; leave such pairs out"),
    ],
)
def test_a_faulty_data_set_is_reported_in_one_line(fault, message, tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    cell = check_study(tiny(), "tiny").cells[0]
    settings = {key: value for key, value in TINY["dataset"].items() if key != "name"}
    cell = replace(cell, dataset=Odd.model_validate(settings | {"fault": fault}))
    with Display(Console(file=io.StringIO())) as display, pytest.raises(DataError, match=message):
        prepare([cell], RunDirectory(tmp_path / "run"), display)


def text_study(path, encoder, policy="bald"):
    return {
        "name": "texts",
        "dataset": {"name": "file", "path": str(path), "encoder": str(encoder), "max_length": 16},
        "posterior": {"name": "ensemble", "members": 2, "hidden": [4]},
        "policies": ["random", policy],
        "seeds": 1,
        "reference_seeds": 1,
        "protocol": {"initial": 2, "batch": 2, "rounds": 2},
    }


def write_votes(path, prompts=20, same=""):
    rows = [{"prompt": f"p{n}", "chosen": f"{same}yes{n}", "rejected": f"{same}no{n}"} for n in range(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def printed_by(study, path) -> str:
    screen = io.StringIO()
    with Display(Console(file=screen)) as display:
        prepare(list(check_study(study, "texts").cells), RunDirectory(path), display)
    return screen.getvalue()


@pytest.fixture
def bert(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    return save_bert(tmp_path / "bert")


def test_warnings_of_the_data_are_printed_by_each_run_and_kept(tmp_path, bert):
    study = text_study(write_votes(tmp_path / "votes.jsonl", same="x" * 40), bert)
    for _ in range(2):
        line = "warning: data: 20 of 20 pairs have two responses that are the"
        assert printed_by(study, tmp_path / "run").count(line) == 1
    (facts,) = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("data/*/data.json")]
    assert facts["facts"]["tokens"]["pairs_same_by_cut"] == 20
    assert facts["warnings"][0].startswith("20 of 20 pairs")


def test_a_run_says_once_how_many_labels_eval_holds_beside_the_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    grid = {"dataset.data_seed": [0, 1], "protocol.rounds": [4, 30]}
    lines = [line for line in printed_by(tiny(grid=grid), tmp_path / "run").splitlines() if line.startswith("eval")]
    assert lines == [
        f"eval holds 60 labels that training uses to choose weights; the budget is 10 to {last}" for last in (40, 300)
    ]


def test_a_data_file_that_changed_since_the_last_run_is_named(tmp_path, bert):
    votes = write_votes(tmp_path / "votes.jsonl")
    assert "changed" not in printed_by(text_study(votes, bert), tmp_path / "run")
    assert "changed" not in printed_by(text_study(votes, bert), tmp_path / "run")
    write_votes(votes, prompts=25)
    line = f"note: dataset.path: {votes} changed since the last run in {tmp_path / 'run'}; its cells run again"
    assert printed_by(text_study(votes, bert), tmp_path / "run").count(line) == 1
    assert "changed" not in printed_by(text_study(votes, bert), tmp_path / "run")
    other = write_votes(tmp_path / "other.jsonl", prompts=30)
    assert "changed" not in printed_by(text_study(other, bert), tmp_path / "run")


def test_a_dueling_policy_needs_several_pairs_of_a_prompt_before_texts_are_encoded(tmp_path, bert, monkeypatch):
    study = text_study(write_votes(tmp_path / "votes.jsonl"), bert, policy="infomax")
    monkeypatch.setattr(PreferenceFile, "build", None)
    with pytest.raises(DataError, match="policy infomax: every prompt of the pool has one pair") as error:
        printed_by(study, tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_run_keeps_the_votes_prompts_and_distances_of_its_held_out_pairs(tmp_path, bert):
    study = text_study(write_votes(tmp_path / "votes.jsonl"), bert)
    printed_by(study, tmp_path / "run")
    (facts,) = (tmp_path / "run").glob("data/*/data.json")
    data = PreferenceData.load(data_path(json.loads(facts.read_text())["cache"]), {})
    held_out = read_held_out(facts.parent)
    assert list(held_out) == sorted(set(data.splits) - {"pool", "eval"})
    for name, kept in held_out.items():
        split = data.splits[name]
        assert np.array_equal(kept.share_N, split.records.first_share_N, equal_nan=True)
        assert np.array_equal(kept.prompt_N, split.pairs.prompt_of_pair_N)
        features_RD, responses_N2 = split.pairs.response_features_RD, split.pairs.responses_of_pair_N2
        difference_ND = features_RD[responses_N2[:, 0]] - features_RD[responses_N2[:, 1]]
        assert kept.distance_N == pytest.approx(np.linalg.norm(difference_ND, axis=1))


def test_facts_are_restored_for_finished_cells_unless_the_data_are_gone(tmp_path, bert):
    votes = write_votes(tmp_path / "votes.jsonl")
    study = check_study(text_study(votes, bert), "texts")
    directory, screen = RunDirectory(tmp_path / "run"), io.StringIO()
    printed_by(text_study(votes, bert), tmp_path / "run")
    (path,) = (tmp_path / "run").glob(f"data/*/{HELD_OUT}")
    before = path.read_bytes()
    with Display(Console(file=screen, width=400)) as display:
        restore_facts(list(study.cells), directory, display)
        assert screen.getvalue() == ""
        path.unlink()
        restore_facts(list(study.cells), directory, display)
        assert path.read_bytes() == before
        path.unlink()
        shutil.rmtree(tmp_path / "cache")
        votes.unlink()
        restore_facts(list(study.cells), directory, display)
    assert not path.exists()
    assert "note: the facts about held-out pairs cannot be written again: dataset.path:" in screen.getvalue()


def test_the_held_out_pairs_are_added_to_a_directory_of_an_older_version(tmp_path, bert):
    study = text_study(write_votes(tmp_path / "votes.jsonl"), bert)
    printed_by(study, tmp_path / "run")
    (path,) = (tmp_path / "run").glob(f"data/*/{HELD_OUT}")
    before = path.read_bytes()
    path.unlink()
    printed_by(study, tmp_path / "run")
    assert path.read_bytes() == before
