"""What `check` says about a file of votes."""

import json

import pytest

from balbench.harness.datasets import encoding_probe
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.text_facts import RowCounts
from support.preferences import pairs_of_rows
from support.tiny_models import POSITIONS, save_bert


def vote(prompt, a, b, label, annotator=""):
    return {"prompt": prompt, "response_a": a, "response_b": b, "label": label, "annotator": annotator}


def test_rows_are_counted_as_votes_on_pairs():
    rows = [
        vote("p", "a", "b", 1, "x"),
        vote("p", "b", "a", 0, "x"),  # the same vote, shown in the other order
        vote("p", "a", "b", 0, "y"),
        vote("p", "a", "c", 1, "x"),
        vote("p", "a", "c", 0, "y"),  # an even split
        vote("q", "a", "b", 1),
    ]
    counts = RowCounts.of(pairs_of_rows(rows))
    assert counts == RowCounts(
        rows=6, repeated=1, pairs=3, responses=5, prompts=2, ties=1, most_votes=3, single_votes=1
    )
    assert str(counts) == (
        "6 rows are votes on 3 pairs (2 with 2 to 3 votes) of 5 responses to 2 prompts; ties or even votes on 1 of 3"
        " pairs; 1 of 6 rows repeat an earlier row and count as further votes"
    )


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "votes.jsonl"
    rows = [vote(f"question {n}", f"yes {n}{m}", f"no {n}{m}", 1) for n in range(20) for m in range(1 + n % 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PreferenceFile(path=str(path), encoder=str(save_bert(tmp_path / "bert")), max_length=POSITIONS)


def test_the_check_says_splits_groups_and_the_time_of_encoding(dataset, monkeypatch):
    monkeypatch.setattr(encoding_probe, "PROBE_SECONDS", 0.05)
    sizes, lines = dataset.examine()
    assert sizes == dataset.sizes()
    assert 1 <= sizes.most_pairs_a_prompt <= 3
    data = dataset.build(lambda *_: None)
    parts = [
        f"{name} {len(split.pairs)} pairs of {len(split.pairs.prompt_features_PQ)} prompts"
        for name, split in data.splits.items()
    ]
    assert f"splits: {', '.join(parts)}" in lines
    assert any(line.startswith("rows: 39 rows are votes on 39 pairs (one vote each)") for line in lines)
    assert any(line.startswith("groups: 20 prompts, no two of which belong together") for line in lines)
    assert any(line.startswith("encoding: about ") and "for 98 of 98 texts" in line for line in lines)
    assert dataset.examine()[1][-1] == "encoding: all 98 texts are in the cache"


def test_a_model_that_is_large_for_the_memory_is_not_loaded_by_the_check(dataset, monkeypatch):
    monkeypatch.setattr("balbench.harness.datasets.preference_file.usable_memory", lambda: 1000)
    monkeypatch.setattr(PreferenceFile, "load_encoder", None)
    assert dataset.examine()[1][-1].startswith("encoding: time unknown, as a probe would load a model of 0.0 GiB")
