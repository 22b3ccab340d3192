"""Prompts that belong together stay on one side of the split."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balbench.harness.datasets.grouping import OPENING_CHARACTERS, group_prompts, normalise
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.splitting import SplitSettings
from balbench.harness.datasets.text_pairs import TextPairs
from balbench.harness.errors import DataError
from balbench.harness.streams import stream
from support.preferences import pairs_of_rows

LONG = "What would a careful guide say about bread and cheese"
assert len(LONG) >= OPENING_CHARACTERS


def pairs_of(prompts, responses=("yes", "no"), groups=None) -> TextPairs:
    rows = [
        {"prompt": prompt, "chosen": responses[0], "rejected": responses[1], "topic": group}
        for prompt, group in zip(prompts, groups or [None] * len(prompts), strict=True)
    ]
    return pairs_of_rows(rows, group="topic" if groups else None)


def same_group(first, second, **other) -> bool:
    group_P = group_prompts(pairs_of([first, second], **other)).group_P
    return bool(group_P[0] == group_P[1])


def transcript(*turns) -> str:
    """A prompt as Anthropic's HH writes it."""
    roles = ["Human", "Assistant"]
    return "".join(f"\n\n{roles[n % 2]}: {turn}" for n, turn in enumerate(turns)) + "\n\nAssistant:"


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("a  b\n", "a b", True),  # white space
        ("a\u00a0b", "a b", True),
        ("\ufb01sh", "fish", True),  # the ligature fi
        ("e\u0301te", "\u00e9te", True),  # a combining accent
        ("Bread", "bread", False),  # case matters
        (LONG, LONG + "\nAnd about rivers?", True),
        (LONG, LONG + ", in one word?", True),
        (LONG, LONG + "burgers?", False),  # ends within a word
        (f"{LONG} 1", f"{LONG} 12", False),
        ("Write", "Write a poem about bread", False),  # a short opening joins nothing
        ("Human: hi", "Human: hi there, how do I bake bread?", False),
        ("Hi.", "Hi.\nyes\nAnd now?", True),  # unless the longer text goes on with a recorded response
        ("Hi.", "Hi.\nyesterday", False),
        (transcript("hi"), transcript("hi", "no", "why?"), True),
        (transcript("hi"), transcript("hi", "hello!", "How do I bake bread?"), False),
        (transcript(LONG), transcript(LONG, "Like this.", "And then?"), True),
    ],
)
def test_which_prompts_belong_together(first, second, together):
    assert same_group(first, second) == same_group(second, first) == together


def begins(opening, text, responses) -> bool:
    """The rule, by its definition."""
    opening, text, rest = normalise(opening), normalise(text), normalise(text)[len(normalise(opening)) :]
    if not opening or opening == text or not text.startswith(opening):
        return False
    if opening[-1].isalnum() and rest[0].isalnum():
        return False
    rest = rest.lstrip()
    goes_on = any(
        rest.startswith(response) and not (response[-1].isalnum() and rest[len(response) : len(response) + 1].isalnum())
        for response in map(normalise, responses)
    )
    return len(opening) >= OPENING_CHARACTERS or goes_on


@given(st.lists(st.text("ab .", min_size=1, max_size=8).filter(str.strip), min_size=2, max_size=12, unique=True))
def test_groups_are_the_connected_parts_of_the_rule(prompts):
    responses = ("a", "b.")
    group_P = group_prompts(pairs_of(prompts, responses)).group_P
    near = np.array(
        [
            [normalise(a) == normalise(b) or begins(a, b, responses) or begins(b, a, responses) for b in prompts]
            for a in prompts
        ]
    )
    reached = np.linalg.matrix_power(near.astype(np.int64), len(prompts)) > 0
    np.testing.assert_array_equal(group_P[:, None] == group_P[None], reached)


def test_a_group_key_decides_in_place_of_openings():
    prompts = ["a", "b", LONG, LONG + " again", " a "]
    group_P = group_prompts(pairs_of(prompts, groups=["x", "x", "y", "z", "w"])).group_P
    assert group_P[0] == group_P[1] == group_P[4]  # equal texts stay together
    assert len(set(group_P[[0, 2, 3]])) == 3


def test_groups_are_counted():
    groups = group_prompts(pairs_of([LONG, LONG + "\nmore", LONG + "\nmore\nmore", LONG + " ", "other"]))
    assert (groups.equal, groups.continued) == (1, 2)
    assert str(groups).startswith("4 of 5 prompts belong together, in 1 group that")
    assert "no two of which" in str(group_prompts(pairs_of(["a", "b"])))


def test_many_dialogues_are_grouped_quickly():
    prompts = [
        transcript(f"Question {n}: {LONG}", *["Yes."] * (2 * turns)) for n in range(10_000) for turns in range(3)
    ]
    pairs = pairs_of(prompts)
    started = time.perf_counter()
    groups = group_prompts(pairs)
    assert time.perf_counter() - started < 10
    assert len(groups.size_G) == 10_000


# Splits


dialogues = st.lists(st.integers(1, 4), min_size=12, max_size=40)


@given(dialogues, st.randoms(use_true_random=False))
def test_a_dialogue_is_in_one_split_whatever_the_order_of_the_file(sizes, random):
    prompts = [
        transcript(f"Question {n}: {LONG}", *["Yes."] * (2 * turn))
        for n, turns in enumerate(sizes)
        for turn in range(turns)
    ]

    def split(prompts):
        pairs = pairs_of(prompts)
        actual = SplitSettings().split_prompts(pairs, stream(0, "split"), "rows")
        return {name: {pairs.prompt_P[row] for row in rows} for name, rows in actual.items()}

    splits = split(prompts)
    assert sorted(prompt for names in splits.values() for prompt in names) == sorted(prompts)
    assert all(splits.values())
    assert len(splits["test"]) <= max(4, round(0.2 * len(prompts)))
    for names in splits.values():
        for prompt in names:
            number = prompt.split(":")[1]
            assert {other for other in prompts if other.split(":")[1] == number} <= names
    random.shuffle(prompts)
    assert split(prompts) == splits


def test_a_group_with_a_prompt_out_of_distribution_is_out_of_distribution():
    settings = SplitSettings(ood_field="topic", ood_pattern="far")
    rows = [
        {"prompt": prompt, "chosen": "yes", "rejected": "no", "topic": topic}
        for prompt, topic in [*((f"p{n}", "near") for n in range(10)), (LONG, "near"), (LONG + "\nmore", "far")]
    ]
    pairs = pairs_of_rows(rows, ood=settings.ood_rule())
    actual = settings.split_prompts(pairs, stream(0, "split"), "rows")
    assert {pairs.prompt_P[row] for row in actual["ood"]} == {LONG, LONG + "\nmore"}


def test_too_few_groups_are_refused_in_one_line():
    pairs = pairs_of([f"p{n}" for n in range(20)], groups=["one"] * 10 + ["two"] * 10)
    with pytest.raises(DataError, match=r"rows: 20 prompts are 2 groups .*dataset\.group") as error:
        SplitSettings().split_prompts(pairs, stream(0, "split"), "rows")
    assert "\n" not in str(error.value)


def test_a_group_field_is_read_from_the_rows(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": "yes", "rejected": "no", "topic": n // 3} for n in range(30)]
    data = tmp_path / "votes.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = PreferenceFile(path=str(data), group="topic").read()
    assert len(group_prompts(pairs).size_G) == 10
    with pytest.raises(
        DataError, match=r"line 1, field 'topc': missing; correct dataset\.group \(did you mean 'topic'"
    ):
        PreferenceFile(path=str(data), group="topc").read()
    data.write_text(
        data.read_text() + json.dumps({"prompt": "p", "chosen": "y", "rejected": "n", "topic": None}) + "\n"
    )
    with pytest.raises(DataError, match="line 31, field 'topic': null; give the row a group key"):
        PreferenceFile(path=str(data), group="topic").read()
