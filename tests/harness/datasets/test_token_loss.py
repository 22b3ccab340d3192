"""What gets lost between texts and tokens is counted and warned of."""

import json

import numpy as np
import pytest

from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.token_loss import TokenLoss
from balbench.harness.datasets.tokens import Tokens
from support.tiny_models import POSITIONS, save_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))


def tokens(ids, uncut=None):
    ids_T = np.array(ids, dtype=np.int64)
    return Tokens(ids_T, np.zeros(len(ids_T), dtype=np.int8), uncut or len(ids_T))


def test_losses_are_counted_by_kind():
    texts = [tokens([1, 2]), tokens([1, 2], 9), tokens([1, 2]), tokens([3]), tokens([4, 5], 3)]
    pairs = np.array([[0, 1], [0, 2], [0, 3], [3, 4]])
    assert TokenLoss.of(texts, pairs) == TokenLoss(texts=5, cut_texts=2, pairs=4, pairs_same_by_cut=1, pairs_same=1)


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        (TokenLoss(1000, 50, 100, 0, 0), []),
        (TokenLoss(1000, 51, 100, 0, 0), ["51 of 1,000 texts are longer than 64 tokens"]),
        (TokenLoss(1000, 2, 100, 1, 0), ["1 of 100 pairs have two responses that are the same after the cut to 64"]),
        (TokenLoss(1000, 0, 100, 0, 3), ["3 of 100 pairs have two responses that are the same to the encoder's tok"]),
        (TokenLoss(10, 9, 8, 7, 1), ["7 of 8 pairs", "1 of 8 pairs", "9 of 10 texts"]),
    ],
)
def test_each_kind_of_loss_has_one_line_with_a_remedy(loss, parts):
    lines = list(loss.warnings(64))
    assert len(lines) == len(parts)
    for line, part in zip(lines, parts, strict=True):
        assert part in line
        assert "\n" not in line
        assert "encoder" in line


def votes_file(path, ends):
    """Pairs whose responses share a long beginning and differ in their ends."""
    rows = [
        {"prompt": f"question {n}", "chosen": "a" * ends + f"{n}x", "rejected": "a" * ends + f"{n}y"} for n in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("ends", "lost"), [(10, 0), (80, 20)])
def test_a_data_set_keeps_the_counts_and_the_check_warns(tmp_path, bert, ends, lost):
    dataset = PreferenceFile(path=votes_file(tmp_path / "votes.jsonl", ends), encoder=bert, max_length=POSITIONS)
    data = dataset.build(lambda *_: None)
    same = sum(
        int((features_ND[:, 0] == features_ND[:, 1]).all(axis=1).sum())
        for features_ND in (s.pairs.response_features_RD[s.pairs.responses_of_pair_N2] for s in data.splits.values())
    )
    assert data.facts["tokens"]["pairs_same_by_cut"] == same == lost
    assert bool(data.warnings) == bool(lost)
    _, lines = dataset.examine()
    assert [line for line in lines if line.startswith("warning:")] == [f"warning: {line}" for line in data.warnings]


def test_the_cached_texts_are_counted_too(tmp_path, bert):
    dataset = PreferenceFile(path=votes_file(tmp_path / "votes.jsonl", 80), encoder=bert, max_length=POSITIONS)
    first = dataset.build(lambda *_: None)
    assert dataset.build(lambda *_: None).facts == first.facts
