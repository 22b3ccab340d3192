"""The pool: what is wrong is named; what is saved comes back, mapped where it is large."""

from dataclasses import fields, replace

import numpy as np
import pytest

from balbench.harness.errors import DataError
from balbench.harness.pool import blocks
from balbench.harness.pool import pairs as pairs_module
from balbench.harness.pool.pairs import PreferenceData, PreferencePool, Split
from balbench.oracles.annotations import PairRecords
from balbench.testing.examples import pool_of


def split_of(pool: PreferencePool, **more: np.ndarray) -> Split:
    N = len(pool)
    records = PairRecords(pool.pair_id_N, np.arange(N), np.ones(N, np.int8), np.full(N, "someone"), **more)
    return Split(pool, records)


def data_of(**changes: np.ndarray) -> PreferenceData:
    return PreferenceData({"pool": split_of(replace(pool_of(), **changes)), "eval": split_of(pool_of())})


def with_value(value: float, row: int) -> np.ndarray:
    features = pool_of().response_features_RD.copy()
    features[row, 1] = value
    return features


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response_features_RD": with_value(np.nan, 7)}, "pool: response_features_RD: row 7 holds NaN or infinity"),
        ({"response_features_RD": with_value(np.inf, 35)}, "pool: response_features_RD: row 35 holds NaN or infinity"),
        (
            {"response_log_perplexity_R": np.full(36, np.nan, np.float32)},
            "pool: response_log_perplexity_R: row 0 holds NaN",
        ),
        (
            {"response_token_entropy_R": np.ones(35, np.float32)},
            r"pool: response_token_entropy_R: has the shape \(35,\)",
        ),
        (
            {"response_features_RD": np.ones((36, 4))},
            "pool: response_features_RD: has the type float64; give float16 or float32",
        ),
        (
            {"response_features_RD": with_value(np.inf, 20).astype(np.float16)},
            "pool: response_features_RD: row 20 holds NaN",
        ),
        ({"pair_id_N": np.array(["a", "b", *["c"] * 34])}, "pool: pair id 'c' occurs 34 times; make ids unique"),
        ({"pair_id_N": np.array([]), "responses_of_pair_N2": np.empty((0, 2), int)}, "pool: no pairs"),
        ({"prompt_of_response_R": np.arange(36) // 2 % 12}, "answer different prompts"),
        ({"prompt_of_response_R": np.arange(36) // 2}, r"prompt_of_response_R: row 24 holds 12; .* from 0 to 11"),
        ({"prompt_of_response_R": [0] * 36}, "prompt_of_response_R: is of the type list; give a numpy array"),
        ({"prompt_of_response_R": np.zeros(36)}, "prompt_of_response_R: has the type float64; give integers"),
        (
            {"prompt_of_response_R": np.zeros(35, int)},
            r"prompt_of_response_R: has the shape \(35,\), but R is 36 by response_features_RD",
        ),
        ({"response_features_RD": np.zeros(36, np.float32)}, r"has the shape \(36,\); give it the axes R, D"),
        ({"prompt_features_PQ": np.ones((12, 4))}, "prompt_features_PQ: has the type float64; give float32"),
        ({"responses_of_pair_N2": np.full((36, 2), -1)}, r"responses_of_pair_N2: row 0 holds \[-1, -1\]; give values"),
        ({"responses_of_pair_N2": np.full((36, 3), 0)}, r"has the shape \(36, 3\); give it 2 columns"),
        ({"pair_id_N": np.array([object()] * 36)}, "pool: pair_id_N: has the type object; give strings"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(DataError, match=message):
        data_of(**changes).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_id_N": pool_of().pair_id_N[::-1]}, "eval: records: pair_id_N is not that of the pairs"),
        ({"vote_pair_V": np.arange(1, 37)}, "eval: records: vote_pair_V: row 35 holds 36; give values from 0 to 35"),
        ({"vote_choice_V": np.full(36, 7)}, "eval: records: vote_choice_V: row 0 holds 7; give values from 0 to 3"),
        ({"vote_choice_V": np.zeros(35, int)}, r"vote_choice_V: has the shape \(35,\), but V is 36 by vote_pair_V"),
        ({"probability_N": np.full(36, np.nan)}, "probability_N: row 0 holds nan; give values from 0 to 1"),
        ({"vote_annotator_V": np.zeros(36)}, "vote_annotator_V: has the type float64; give strings"),
        ({"vote_choice_V": np.full(36, 3)}, "eval: records: no pair has a vote; give votes to evaluate with"),
    ],
)
def test_what_is_wrong_of_the_votes_is_named(changes, message):
    splits = data_of().splits
    splits["eval"] = Split(pool_of(), replace(splits["eval"].records, **changes))
    with pytest.raises(DataError, match=message):
        PreferenceData(splits).check()


def test_features_of_another_length_are_named():
    splits = data_of().splits | {"eval": split_of(pool_of(dimension=5))}
    with pytest.raises(
        DataError, match="eval: response_features_RD: 5 features, but the pool has 4; give the same number"
    ):
        PreferenceData(splits).check()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_sound_pool_passes(dtype):
    data_of(response_features_RD=pool_of().response_features_RD.astype(dtype)).check()


@pytest.mark.parametrize("row", [0, 7, 8, 35])
def test_features_are_checked_in_blocks(row, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 4 * 8)
    with pytest.raises(DataError, match=f"row {row} holds NaN"):
        data_of(response_features_RD=with_value(np.nan, row)).check()


@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize("change", [np.asfortranarray, lambda array: np.repeat(array, 2, axis=1)[:, ::2]])
def test_features_are_saved_row_by_row_however_they_lie(tmp_path, monkeypatch, rows, change):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 2 * rows)
    features_RD = pool_of().response_features_RD.astype(np.float16)
    data_of(response_features_RD=change(features_RD)).save(tmp_path)
    (tmp_path / "rows").mkdir()
    data_of(response_features_RD=features_RD).save(tmp_path / "rows")
    name = "pool.response_features_RD.npy"
    assert (tmp_path / name).read_bytes() == (tmp_path / "rows" / name).read_bytes()


@pytest.mark.parametrize("missing", ["pool", "eval"])
def test_required_splits(missing):
    splits = dict(data_of().splits)
    del splits[missing]
    with pytest.raises(DataError, match=f"no split '{missing}'"):
        PreferenceData(splits).check()


def test_saved_data_come_back(tmp_path, monkeypatch):
    data = data_of(response_token_entropy_R=None)
    data.splits["test"] = split_of(pool_of(seed=3), probability_N=np.full(36, 0.25))
    data.save(tmp_path)
    for limit in (0, 2**30):
        monkeypatch.setattr(pairs_module, "MEMORY_MAP_BYTES", limit)
        loaded = PreferenceData.load(tmp_path, {"line": {}})
        assert isinstance(loaded.splits["pool"].pairs.response_features_RD, np.memmap) == (limit == 0)
        assert loaded.reference_lines == {"line": {}}
        assert list(loaded.splits) == ["eval", "pool", "test"]
        for name, split in data.splits.items():
            for part in ("pairs", "records"):
                expected, actual = getattr(split, part), getattr(loaded.splits[name], part)
                for field in fields(expected):
                    np.testing.assert_array_equal(getattr(actual, field.name), getattr(expected, field.name))


def test_the_prompt_of_a_pair():
    pool = pool_of()
    expected = [pool.prompt_of_response_R[first] for first, _ in pool.responses_of_pair_N2]
    assert pool.prompt_of_pair_N.tolist() == expected


def test_an_array_that_was_cut_is_named(tmp_path):
    data_of().save(tmp_path)
    path = tmp_path / "pool.pair_id_N.npy"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"pool.pair_id_N.npy: is damaged .*; delete .* and run again"):
        PreferenceData.load(tmp_path, {})
