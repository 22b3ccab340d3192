import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from balbench.harness.datasets.splitting import SplitSettings, build_split
from balbench.harness.datasets.text_pairs import TextPairs
from balbench.harness.errors import DataError
from balbench.harness.streams import stream
from support.preferences import pairs_of_rows

SPLIT = stream(0, "split")


def pairs_of(prompts, sources=None, ood=None) -> TextPairs:
    rows = [
        {"prompt": prompt, "response_a": f"{prompt}{n}", "response_b": f"{prompt}{n + 1}", "label": n % 2}
        | {"source": source}
        for prompt, source in zip(prompts, sources or [""] * len(prompts), strict=True)
        for n in range(2)
    ]
    return pairs_of_rows(rows, ood=ood)


def split_texts(pairs, settings, stream=SPLIT) -> dict[str, set[str]]:
    actual = settings.split_prompts(pairs, stream, "rows")
    return {name: {pairs.prompt_P[row] for row in rows} for name, rows in actual.items()}


names = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=4, max_size=40, unique=True)


@given(names, st.randoms(use_true_random=False), st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0.01, 0.4)]))
def test_each_prompt_falls_into_one_split_whatever_the_order_of_the_file(prompts, random, shares):
    settings = SplitSettings(eval_share=shares[0], test_share=shares[1])
    error = split_texts(pairs_of(prompts), settings)
    assert sorted(name for split in error.values() for name in split) == sorted(prompts)
    assert all(error.values())
    assert len(error["eval"]) == max(1, round(shares[0] * len(prompts)))
    assert len(error["test"]) == max(1, round(shares[1] * len(prompts)))
    random.shuffle(prompts)
    assert split_texts(pairs_of(prompts), settings) == error


def test_another_seed_gives_another_split():
    pairs = pairs_of([f"p{n}" for n in range(50)])
    first, again, other = (split_texts(pairs, SplitSettings(), stream(seed, "split")) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_prompts_out_of_distribution_are_in_a_separate_split():
    settings = SplitSettings(ood_field="source", ood_pattern=":(lt|gu)-en:")
    sources = ["D:lt-en:1", "D:gu-en:2", "D:de-en:1", "D:de-en:2", "D:fi-en:1", "D:ru-en:9"]
    pairs = pairs_of(list("abcdef"), sources, settings.ood_rule())
    actual = split_texts(pairs, settings)
    assert actual["ood"] == {"a", "b"}
    assert actual["pool"] | actual["eval"] | actual["test"] == set("cdef")


def test_a_split_has_tables_of_its_own():
    pairs = pairs_of([f"p{n}" for n in range(20)])
    response_RD = np.arange(len(pairs.response_R), dtype=np.float32)[:, None]
    prompt_PQ = np.arange(len(pairs.prompt_P), dtype=np.float32)[:, None]
    error = SplitSettings().split_prompts(pairs, SPLIT, "rows")
    seen = []
    for rows in error.values():
        split = build_split(pairs, response_RD, prompt_PQ, rows)
        split.pairs.check("split")
        assert len(split.records) == len(split.pairs) == 2 * len(rows)
        for n, (first, second) in enumerate(split.pairs.responses_of_pair_N2):
            prompt = pairs.prompt_P[int(split.pairs.prompt_features_PQ[split.pairs.prompt_of_pair_N[n], 0])]
            a, b = (pairs.response_R[int(split.pairs.response_features_RD[row, 0])] for row in (first, second))
            assert (a[:-1], b[:-1]) == (prompt, prompt)
            assert split.records.response_length_N2[n].tolist() == [len(a), len(b)]
            assert split.records.first_share_N[n] == int(a[-1]) % 2
        assert split.records.pair_id_N.tolist() == split.pairs.pair_id_N.tolist()
        seen += split.pairs.pair_id_N.tolist()
    assert sorted(seen) == sorted(pairs.pair_id_N)


def test_a_feature_too_large_for_float16_is_reported():
    pairs = pairs_of([f"p{n}" for n in range(20)])
    response_RD = np.full((len(pairs.response_R), 1), 7e4, dtype=np.float32)
    rows = SplitSettings().split_prompts(pairs, SPLIT, "rows")["pool"]
    split = build_split(pairs, response_RD, response_RD[: len(pairs.prompt_P)], rows, storage="float16")
    with pytest.raises(DataError, match="row 0 holds NaN or infinity"):
        split.pairs.check("pool")


@pytest.mark.parametrize(
    ("settings", "prompts", "parts"),
    [
        (
            {},
            "ab",
            ["rows: 2 distinct prompts are too few for eval (1), test (1) and a pool", "give more prompts"],
        ),
        (
            {"ood_field": "source", "ood_pattern": "zz"},
            "abcd",
            ["rows: no row has 'zz' in the field 'source'; change dataset.ood_pattern"],
        ),
        ({"ood_field": "source", "ood_pattern": ""}, "abcd", ["0 distinct prompts are too few"]),
    ],
)
def test_data_that_cannot_be_split_are_an_error_of_one_line(settings, prompts, parts):
    made = SplitSettings(**settings)
    with pytest.raises(DataError) as error:
        made.split_prompts(pairs_of(list(prompts), ood=made.ood_rule()), SPLIT, "rows")
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"eval_share": 0.5, "test_share": 0.5}, "leave the pool no prompts"),
        ({"eval_share": 0}, "greater than 0"),
        ({"ood_field": "source"}, "ood_field and ood_pattern go together"),
        ({"ood_pattern": "x"}, "ood_field and ood_pattern go together"),
        ({"ood_field": "source", "ood_pattern": "("}, "not a regular expression"),
    ],
)
def test_wrong_settings_are_refused(settings, part):
    with pytest.raises(ValidationError, match=part):
        SplitSettings(**settings)
