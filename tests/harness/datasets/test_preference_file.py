import gzip
import json
import shutil

import numpy as np
import pytest

from balbench.harness.datasets import feature_cache
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.registry import load
from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert, save_gpt

ROWS = [
    {
        "prompt": f"question {prompt}",
        "response_a": "yes" + "!" * (prompt + answer + 1),
        "response_b": "no" + "." * answer,
        "label": int(answer != prompt % 4),
        "annotator": f"a{answer}",
        "source": f"set:{prompt % 5}",
    }
    for prompt in range(20)
    for answer in range(4)
]


def silent(what, done, of):
    pass


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return str(save_gpt(tmp_path_factory.mktemp("gpt"), head=True))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    return path


def dataset(data, bert, **other) -> PreferenceFile:
    return PreferenceFile(path=str(data), encoder=bert, max_length=POSITIONS, **other)


def same(one: PreferenceData, other: PreferenceData) -> bool:
    return one.splits.keys() == other.splits.keys() and all(
        np.array_equal(getattr(one.splits[name].pairs, field), getattr(other.splits[name].pairs, field))
        for name in one.splits
        for field in ("response_features_RD", "prompt_features_PQ", "responses_of_pair_N2", "pair_id_N")
    )


def test_a_file_becomes_splits_with_features(data, bert):
    actual = dataset(data, bert, ood_field="source", ood_pattern=":4$").build(silent)
    assert {name: split.pairs.prompt_features_PQ.shape for name, split in actual.splits.items()} == {
        "pool": (11, 16),
        "eval": (2, 16),
        "test": (3, 16),
        "ood": (4, 16),
    }
    ids = [name for split in actual.splits.values() for name in split.pairs.pair_id_N]
    assert len(ids) == len(set(ids)) == len(ROWS)
    assert set(actual.reference_lines["length only"]) == {"eval", "test", "ood"}
    assert set(actual.reference_lines["length only"]["test"]) >= {"log_likelihood", "accuracy", "brier"}
    for split in actual.splits.values():
        assert len(split.records) == len(split.pairs)
        assert split.pairs.response_features_RD.dtype == np.float32
        assert split.records.response_length_N2.min() >= 2


def test_features_are_in_the_order_of_their_texts(data, bert):
    settings = dataset(data, bert)
    actual = settings.build(silent)
    pairs = settings.read()
    rows = {name: row for row, name in enumerate(pairs.pair_id_N)}
    for split in actual.splits.values():
        for n in (0, len(split.pairs) - 1):
            responses = pairs.responses_of_pair_N2[rows[split.pairs.pair_id_N[n]]]
            prompt = pairs.prompt_P[pairs.prompt_of_response_R[responses[0]]]
            texts = [(prompt, pairs.response_R[row]) for row in responses]
            first, second, alone = settings.encode([*texts, (prompt, None)], silent)
            table_RD, prompts_PQ = split.pairs.response_features_RD, split.pairs.prompt_features_PQ
            shown = split.pairs.responses_of_pair_N2[n]
            assert np.array_equal(table_RD[shown], [first, second])
            assert np.array_equal(prompts_PQ[split.pairs.prompt_of_pair_N[n]], alone)


def test_the_same_settings_give_the_same_data_and_another_seed_another_split(data, bert, tmp_path):
    first = dataset(data, bert).build(silent)
    assert same(first, dataset(data, bert).build(silent))
    other = dataset(data, bert, data_seed=1).build(silent)
    assert not same(first, other)
    (tmp_path / "saved").mkdir()
    first.save(tmp_path / "saved")
    assert same(first, PreferenceData.load(tmp_path / "saved", {}))


def test_a_changed_file_or_encoder_gives_another_key(data, bert, tmp_path):
    key = dataset(data, bert).source_key()
    assert key == dataset(data, bert, data_seed=5).source_key()
    other = save_bert(tmp_path / "other", positions=POSITIONS + 1)
    assert key != dataset(data, str(other)).source_key()
    data.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    assert key != dataset(data, bert).source_key()


def test_perplexities_are_in_the_order_of_their_responses(data, bert, gpt):
    settings = dataset(data, bert, perplexity=gpt)
    actual, pairs = settings.build(silent), settings.read()
    assert actual.splits["pool"].pairs.response_log_perplexity_R.dtype == np.float32
    for name, prompts in settings.split_prompts(pairs, stream(0, "split"), "data").items():
        texts = [
            (pairs.prompt_P[prompt], text)
            for prompt, text in zip(pairs.prompt_of_response_R, pairs.response_R, strict=True)
            if prompt in prompts
        ]
        expected = settings.judge(texts, silent)
        split = actual.splits[name].pairs
        np.testing.assert_array_equal(split.response_log_perplexity_R, expected[:, 0])
        np.testing.assert_array_equal(split.response_token_entropy_R, expected[:, 1])


def test_without_a_language_model_there_are_no_perplexities(data, bert):
    pool = dataset(data, bert).build(silent).splits["pool"].pairs
    assert pool.response_log_perplexity_R is None
    assert pool.response_token_entropy_R is None


def test_another_language_model_gives_another_key(data, bert, gpt, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(gpt, copy)
    plain, first, same_files = (dataset(data, bert, perplexity=name) for name in (None, gpt, str(copy)))
    assert plain.source_key() != first.source_key() == same_files.source_key()
    (copy / "generation_config.json").write_text("{}")
    assert same_files.source_key() != first.source_key()


def test_chosen_and_rejected_are_read_with_the_order_of_the_data_seed(tmp_path, bert):
    path = tmp_path / "chosen.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"p{n}", "chosen": "a", "rejected": "b"}) for n in range(40)))
    actual = [dataset(path, bert, data_seed=seed).build(silent) for seed in (0, 0, 1)]
    choices = [
        {
            str(name): int(choice)
            for split in data.splits.values()
            for name, choice in zip(split.pairs.pair_id_N, split.records.vote_choice_V, strict=True)
        }
        for data in actual
    ]
    assert set(choices[0].values()) == {Choice.FIRST, Choice.SECOND}
    assert choices[0] == choices[1]
    assert choices[0] != choices[2]


def test_a_file_is_found_by_path_or_in_the_data_directory(data, monkeypatch, tmp_path):
    monkeypatch.setenv("BALBENCH_DATA", str(tmp_path))
    assert PreferenceFile(file=data.name).find() == data
    monkeypatch.setenv("BALBENCH_DATA", str(tmp_path / "elsewhere"))
    assert PreferenceFile(file=data.name, path=str(data)).find() == data
    one_line(
        PreferenceFile(file=data.name).find,
        f"dataset.path: {data.name} in {tmp_path / 'elsewhere'} not found; set BALBENCH_DATA to its directory"
        ", or dataset.path to the file",
    )
    monkeypatch.delenv("BALBENCH_DATA")
    one_line(
        PreferenceFile(file=data.name).source_key,
        f"dataset.path: {data.name} not found; set BALBENCH_DATA to its directory, or dataset.path to the file",
    )
    one_line(PreferenceFile(path="no.jsonl").find, "dataset.path: no.jsonl not found; correct the path")
    one_line(PreferenceFile().find, "dataset.path: no file is named; set dataset.path to a file of preferences")


def test_errors_of_rows_and_splits_come_through(tmp_path, bert):
    path = tmp_path / "few.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    one_line(lambda: dataset(path, bert).build(silent), path, "1 distinct prompts are too few")
    path.write_text(json.dumps(ROWS[0]) + "\n{}")
    one_line(lambda: dataset(path, bert).build(silent), path, "line 2, field 'prompt': missing")


@pytest.mark.parametrize("ood", [{}, {"ood_field": "source", "ood_pattern": ":4$"}])
def test_contents_are_those_of_the_data_that_are_built(data, bert, ood):
    settings = dataset(data, bert, **ood)
    known, actual = settings.contents(), Contents.of(settings.build(silent))
    assert set(known.splits) == set(actual.splits)
    assert known.response_tables == actual.response_tables == frozenset()


def test_sizes_are_those_of_the_data_that_are_built(data, bert):
    settings = dataset(data, bert, ood_field="source", ood_pattern=":4$")
    sizes, actual = settings.sizes(), settings.build(silent)
    assert sizes.eval_pairs == len(actual.splits["eval"].pairs)
    pool = actual.splits.pop("pool").pairs
    assert (sizes.pairs, sizes.prompts) == (len(pool), len(pool.prompt_features_PQ))
    assert (sizes.responses, sizes.dimension) == pool.response_features_RD.shape
    assert sizes.held_out_responses == sum(len(s.pairs.response_features_RD) for s in actual.splits.values())


def test_it_is_registered():
    assert load("datasets", "file") is PreferenceFile


REAL = {  # rows, pairs, prompts, responses, annotators, as the data's README counts them
    "ukpconvarg1": (65_335, 16_354, 32, 1_038, 3_801),
    "ukpconvarg1_majority": (14_855, 14_855, 32, 1_038, 1),
    "cragc25_rag": (6_920, 975, 65, 390, 420),
    "creativity_rank": (1_809, 612, 200, 607, 13),
    "qa_feedback_dev": (2_616, 2_616, 488, 1_943, 1),
    "wmt19_darr_en": (51_700, 49_472, 2_954, 25_074, 1),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_counts_of_their_readme(name, real_data):
    pairs = PreferenceFile(path=str(real_data / f"{name}.jsonl.gz")).read()
    counts = (
        len(pairs.vote_pair_V),
        len(pairs.pair_id_N),
        len(pairs.prompt_P),
        len(pairs.response_R),
        len(set(pairs.vote_annotator_V)),
    )
    assert counts == REAL[name]
    assert len(set(pairs.pair_id_N)) == len(pairs.pair_id_N)
    agree_N = np.bincount(pairs.vote_pair_V, weights=pairs.vote_choice_V == Choice.FIRST)
    assert 0.4 < agree_N.sum() / len(pairs.vote_pair_V) < 0.6


def test_a_real_language_pair_is_out_of_distribution(real_data):
    settings = PreferenceFile(path=str(real_data / "wmt19_darr_en.jsonl.gz"), ood_field="source", ood_pattern=":lt-en:")
    pairs = settings.read()
    error = settings.split_prompts(pairs, stream(0, "split"), "wmt19")
    assert 0 < len(error["ood"]) < len(pairs.prompt_P) / 2
    assert sum(len(rows) for rows in error.values()) == len(pairs.prompt_P)


def test_features_kept_as_float16_are_the_rounded_ones_in_little_memory(data, bert, monkeypatch):
    whole = dataset(data, bert).build(silent)
    monkeypatch.setattr(feature_cache, "MEMORY_MAP_BYTES", 0)
    half = dataset(data, bert, storage="float16").build(silent)
    for name, split in whole.splits.items():
        actual, expected = half.splits[name].pairs, split.pairs
        assert isinstance(actual.response_features_RD, np.memmap)
        assert actual.response_features_RD.dtype == np.float16
        np.testing.assert_array_equal(actual.response_features_RD, expected.response_features_RD.astype(np.float16))
        np.testing.assert_array_equal(actual.prompt_features_PQ, expected.prompt_features_PQ)


def test_skipped_rows_are_in_the_facts_and_warnings(tmp_path, bert):
    path = tmp_path / "votes.jsonl"
    rows = [*ROWS, ROWS[0] | {"response_b": ROWS[0]["response_a"]}, ROWS[0] | {"prompt": ""}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one_line(dataset(path, bert).sizes, "line 81: the two responses are the same text", "2 of 82 rows cannot be used")
    data = dataset(path, bert, unusable="skip").build(silent)
    assert data.facts["reading"]["schema"] == "label"
    assert data.facts["reading"]["unusable"] == {"with equal responses": 1, "with an empty text": 1}
    assert data.warnings[0].startswith("2 of 82 rows cannot be used (1 with an empty text, 1 with equal responses)")
    lines = dataset(path, bert, unusable="skip").examine()[1]
    assert lines[0].startswith("schema: label {prompt: prompt, response_a: response_a, response_b: response_b, label:")
    assert lines[1].startswith("warning: 2 of 82 rows cannot be used")


def test_a_split_of_a_directory_forms_the_split_test(tmp_path):
    for name, rows in (("train.jsonl", ROWS[:60]), ("test.jsonl", ROWS[56:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = PreferenceFile(path=str(tmp_path), split="train", test_split="test")
    pairs, _, splits = data.read_splits()
    assert {pairs.prompt_P[row] for row in splits["test"]} == {f"question {n}" for n in range(14, 20)}
    assert sum(len(rows) for rows in splits.values()) == 20
    assert data.sources()[0].digest != PreferenceFile(path=str(tmp_path), split="train").sources()[0].digest
    rule = {"ood_field": "source", "ood_pattern": ":4$"}
    with_ood = PreferenceFile(path=str(tmp_path), split="train", test_split="test", **rule).read_splits()[2]
    assert len(with_ood["ood"]) == 4
    assert len(with_ood["test"]) == 4


# Rows, ties, pairs, prompts, responses to prompts, annotators, and what is recorded; counted without balbench.
WITH_TIES = {
    "ukpconvarg1_timed": ((84_370, 19_035, 16_466, 32, 1_038, 3_815), {"seconds"}),
    "pandalm_votes": ((2_835, 320, 839, 164, 695, 3), set()),
    "poem_votes": ((1_410, 14, 1_310, 2, 1_073, 141), {"seconds", "price"}),
}


@pytest.mark.parametrize("name", WITH_TIES)
def test_real_files_keep_ties_seconds_and_prices(name, real_data):
    pairs = PreferenceFile(path=str(real_data / f"{name}.jsonl.gz")).read()
    counts = (
        len(pairs.vote_pair_V),
        int((pairs.vote_choice_V == Choice.TIE).sum()),
        len(pairs.pair_id_N),
        len(pairs.prompt_P),
        len(pairs.response_R),
        len(set(pairs.vote_annotator_V)),
    )
    assert (counts, recorded(pairs)) == WITH_TIES[name]


def recorded(pairs) -> set[str]:
    """What at least one vote has."""
    numbers = {"seconds": pairs.vote_seconds_V, "price": pairs.vote_price_V}
    return {name for name, number_V in numbers.items() if number_V is not None and np.isfinite(number_V).any()}
