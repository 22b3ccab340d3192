"""Public schemas are recognised by their columns; any other file is read by a field map."""

import numpy as np
import pytest

from balbench.harness.datasets.fields import FieldMap
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.oracles.annotations import Choice
from support.faults import one_line
from support.preferences import pairs_of_rows

A, B, TIE = Choice.FIRST, Choice.SECOND, Choice.TIE


def chat(*contents, roles=("user", "assistant")):
    return [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]


# name: (schema, row with the prompt "Q" and the responses "yes" and "no", the choice for "yes", strength, annotator)
SCHEMAS = {
    "label": ("label", {"prompt": "Q", "response_a": "yes", "response_b": "no", "label": 1}, A, None, ""),
    "labels": ("label", {"prompt": "Q", "response_a": "yes", "response_b": "no", "labels": 0}, B, None, ""),
    "TRL": ("TRL with prompt, texts", {"prompt": "Q", "chosen": "yes", "rejected": "no"}, A, None, ""),
    "TRL in capitals": ("TRL with prompt, texts", {"Prompt": "Q", "Chosen": "no", "Rejected": "yes"}, B, None, ""),
    "TRL with another prompt": (
        "TRL with prompt, texts",
        {"question": "Q", "chosen": "yes", "rejected": "no"},
        A,
        None,
        "",
    ),
    "TRL chats": (
        "TRL with prompt, chats",
        {"prompt": chat("Q"), "chosen": chat("yes", roles=["assistant"] * 2), "rejected": [chat("", "no")[1]]},
        A,
        None,
        "",
    ),
    "TRL chats without prompt": (
        "TRL without prompt, chats",
        {"chosen": chat("Q", "yes"), "rejected": chat("Q", "no")},
        A,
        None,
        "",
    ),
    "ShareGPT chats": (
        "TRL without prompt, chats",
        {
            "chosen": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "yes"}],
            "rejected": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "no"}],
        },
        A,
        None,
        "",
    ),
    "TRL texts without prompt": ("TRL without prompt, texts", {"chosen": "Q yes", "rejected": "Q no"}, A, None, ""),
    "HH": (
        "HH transcripts",
        {"chosen": "\n\nHuman: Q\n\nAssistant: yes", "rejected": "\n\nHuman: Q\n\nAssistant: no"},
        A,
        None,
        "",
    ),
    "UltraFeedback": (
        "UltraFeedback binarized",
        {
            "prompt": "Q",
            "prompt_id": "0",
            "chosen": chat("Q", "yes"),
            "rejected": chat("Q", "no"),
            "messages": chat("Q", "yes"),
            "score_chosen": 8.5,
            "score_rejected": 6,
        },
        A,
        2.5,
        "",
    ),
    "argilla": (
        "argilla",
        {
            "prompt": "Q",
            "chosen": chat("Q", "yes"),
            "rejected": chat("Q", "no"),
            "chosen-rating": 5,
            "rejected-rating": 4.5,
        },
        A,
        0.5,
        "",
    ),
    "argilla, other names": (
        "argilla",
        {
            "instruction": "Q",
            "chosen_response": "yes",
            "rejected_response": "no",
            "chosen_avg_rating": 5,
            "rejected_avg_rating": 1,
        },
        A,
        4,
        "",
    ),
    "arena": (
        "chatbot arena",
        {
            "question_id": "7",
            "model_a": "m",
            "winner": "tie (bothbad)",
            "judge": "arena_user_1",
            "conversation_a": chat("Q", "yes"),
            "conversation_b": chat("Q", "no"),
            "turn": 1,
        },
        TIE,
        None,
        "arena_user_1",
    ),
    "SHP": (
        "SHP",
        {"post_id": "p", "history": "Q", "human_ref_A": "yes", "human_ref_B": "no", "labels": 0, "score_ratio": 2.5},
        B,
        2.5,
        "",
    ),
    "TL;DR": (
        "summarize_from_feedback",
        {
            "info": {"id": "t3", "post": "Q", "title": "t", "article": None},
            "summaries": [{"text": "yes", "policy": "ref"}, {"text": "no", "policy": "sup"}],
            "choice": 0,
            "worker": "w1",
        },
        A,
        None,
        "w1",
    ),
    "CNN/DM": (
        "summarize_from_feedback",
        {
            "info": {"id": "c", "post": None, "article": "Q"},
            "summaries": [{"text": "yes"}, {"text": "no"}],
            "choice": 1,
            "worker": "w1",
        },
        B,
        None,
        "w1",
    ),
    "WebGPT": (
        "WebGPT comparisons",
        {"question": {"full_text": "Q"}, "answer_0": "yes", "answer_1": "no", "score_0": -0.5, "score_1": 0.5},
        B,
        1.0,
        "",
    ),
    "AlpacaFarm": (
        "AlpacaFarm or alpaca_eval",
        {"instruction": "Q", "input": "", "output_1": "yes", "output_2": "no", "preference": 2},
        B,
        None,
        "",
    ),
    "alpaca_eval": (
        "AlpacaFarm or alpaca_eval",
        {"instruction": "Q", "output_1": "yes", "output_2": "no", "preference": 1.0000048889, "annotator": "gpt"},
        A,
        None,
        "gpt",
    ),
    "HelpSteer2": (
        "HelpSteer2 preference",
        {"prompt": "Q", "response_1": "yes", "response_2": "no", "preference_strength": -2, "split": "train"},
        A,
        2.0,
        "",
    ),
    "HelpSteer3": (
        "HelpSteer3 preference",
        {"context": chat("Q"), "response1": "yes", "response2": "no", "overall_preference": 3, "domain": "code"},
        B,
        3.0,
        "",
    ),
    "PKU": (
        "PKU-SafeRLHF",
        {"prompt": "Q", "response_0": "yes", "response_1": "no", "better_response_id": 0, "safer_response_id": 1},
        A,
        None,
        "",
    ),
}
VARIED = {  # rows with another strength, where a strength that is always the same would be none
    "WebGPT": {"score_0": 1, "score_1": 0.25},
    "HelpSteer2": {"preference_strength": 1},
    "HelpSteer3": {"overall_preference": -1},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_recognised(name):
    schema, row, choice, strength, annotator = SCHEMAS[name]
    pairs = pairs_of_rows([row, *([row | VARIED[name]] if name in VARIED else [])])
    assert pairs.facts.schema == schema
    assert [text.removeprefix("Human: ").removesuffix("\n\nAssistant:") for text in pairs.prompt_P] == ["Q"]
    assert sorted(pairs.response_R) == ["no", "yes"]
    shown = [pairs.response_R[row] for row in pairs.responses_of_pair_N2[0]]
    of_yes = choice if choice == TIE or shown[0] == "yes" else Choice(1 - choice)
    assert pairs.vote_choice_V[0] == of_yes
    assert pairs.vote_annotator_V[0] == annotator
    if strength is None:
        assert pairs.vote_strength_V is None
    else:
        assert pairs.vote_strength_V[0] == strength


def test_later_turns_of_a_chat_begin_with_the_earlier_ones():
    first = {"chosen": chat("Hi.", "Hello!"), "rejected": chat("Hi.", "No.")}
    second = {"chosen": chat("Hi.", "Hello!", "Why?", "So."), "rejected": chat("Hi.", "Hello!", "Why?", "Don't.")}
    pairs = pairs_of_rows([first, second])
    assert list(pairs.prompt_P) == ["Hi.", "Hi.\n\nassistant: Hello!\n\nuser: Why?"]
    system = {"role": "system", "content": "Be kind."}
    row = {side: [system, *first[side]] for side in first}
    assert list(pairs_of_rows([row]).prompt_P) == ["system: Be kind.\n\nuser: Hi."]


def test_a_chat_after_an_explicit_prompt_repeats_or_continues_it():
    responses = [chat("Q", "yes", "More?", "Y"), chat("Q", "yes", "More?", "N")]
    repeated = {"prompt": "Q", "chosen": responses[0], "rejected": responses[1]}
    continued = {"prompt": chat("Q"), "chosen": responses[0][1:], "rejected": responses[1][1:]}
    assert list(pairs_of_rows([repeated, continued]).prompt_P) == ["Q\n\nassistant: yes\n\nuser: More?"]


def test_messages_may_have_parts():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    row = {"chosen": chat("Q", parts), "rejected": chat("Q", "no")}
    assert "one\ntwo" in list(pairs_of_rows([row]).response_R)
    row["chosen"][1]["content"] = [{"type": "image", "url": "x"}]
    one_line(lambda: pairs_of_rows([row]), "line 1, field 'chosen': a message with", "only texts can be read")


def test_a_list_of_rejected_texts_gives_several_pairs():
    pairs = pairs_of_rows([{"prompt": "Q", "chosen": "yes", "rejected": ["no", "never"], "id": 1}])
    assert sorted(pairs.response_R) == ["never", "no", "yes"]
    assert len(pairs.pair_id_N) == 2


def test_prompts_of_several_columns_are_joined():
    row = {"instruction": "Sum up.", "output_1": "yes", "output_2": "no", "preference": 1}
    pairs = pairs_of_rows([row | {"input": "A text."}, row | {"input": ""}])
    assert list(pairs.prompt_P) == ["Sum up.\n\nA text.", "Sum up."]


OTHER = {"q": "Q", "out": [{"t": "yes"}, {"t": "no"}], "vote": {"which": "left", "by": 7}, "sec": "3.5", "cost": None}
MAP = {
    "prompt": "q",
    "response_a": "out.0.t",
    "response_b": "out.1.t",
    "label": {"column": "vote.which", "first": "left", "second": "right", "tie": ["same", 0]},
    "annotator": "vote.by",
    "seconds": "sec",
    "price": "cost",
}


def test_any_other_file_is_read_by_a_field_map():
    rows = [OTHER | {"vote": {"which": which, "by": 7}} for which in ("left", "right", "SAME", "0")]
    pairs = pairs_of_rows(rows, fields=FieldMap(**MAP))
    assert pairs.facts.schema == "fields of the study"
    assert pairs.vote_choice_V.tolist() == [A, B, TIE, TIE]
    assert pairs.vote_annotator_V.tolist() == ["7"] * 4
    assert pairs.vote_seconds_V.tolist() == [3.5] * 4
    assert np.isnan(pairs.vote_price_V).all()
    assert pairs.vote_strength_V is None


def test_a_field_map_replaces_keys_of_the_schema():
    rows = [{"prompt": "Q", "response_a": "yes", "response_b": "no", "label": "good", "annotator": [1, 2]}]
    label = {"column": "label", "first": "good", "second": "bad"}
    pairs = pairs_of_rows(rows, fields=FieldMap(label=label, annotator=False))
    assert (pairs.vote_choice_V.tolist(), pairs.vote_annotator_V.tolist()) == ([A], [""])
    both = [{"prompt": "Q", "response_a": "a", "response_b": "b", "label": 1, "chosen": "x", "rejected": "y"}]
    assert list(pairs_of_rows(both, fields=FieldMap(label="label")).response_R) == ["a", "b"]


def test_a_map_of_columns_that_do_not_exist_is_one_line():
    one_line(
        lambda: pairs_of_rows([OTHER], fields=FieldMap(**MAP | {"response_b": "out.1.text"})),
        "line 1, field 'out.1.text': missing; correct dataset.fields; the columns are: 'q', 'out', 'vote'",
    )


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([{"a": 1, "B": 2}], ["fit no known schema", "dataset.fields: {prompt: COLUMN, response_a: a, response_b: B"]),
        (
            [{"instruction": "Q", "answer_a": "x", "answer_b": "y", "preferred": 1}],
            ["{prompt: instruction, response_a: answer_a, response_b: answer_b, label: preferred}"],
        ),
    ],
)
def test_unknown_columns_are_refused_with_a_map(rows, parts):
    one_line(lambda: pairs_of_rows(rows), "rows, line 1: the columns", *parts)


def test_the_map_of_a_message_reads_the_file(tmp_path):
    """What a message recommends is a valid setting."""
    rows = [{"instruction": "Q", "answer_a": "x", "answer_b": "y", "preferred": 1}]
    fields = FieldMap(prompt="instruction", response_a="answer_a", response_b="answer_b", label="preferred")
    assert pairs_of_rows(rows, fields=fields).vote_choice_V.tolist() == [A]
    data = PreferenceFile(path="x", fields={"label": {"column": "label", "first": 1, "second": 2, "tie": 0}})
    rows = [{"prompt": "Q", "response_a": "x", "response_b": "y", "label": label} for label in (0, 1, 2)]
    assert pairs_of_rows(rows, fields=data.fields).vote_choice_V.tolist() == [TIE, A, B]


# Votes


def test_ids_as_pandas_writes_them():
    row = {"prompt": "Q", "response_a": "yes", "response_b": "no", "label": 1.0}
    annotators = [7, 7.0, "7", float("nan"), None, ""]
    pairs = pairs_of_rows([row | {"annotator": name, "prompt_id": 3.0} for name in annotators])
    assert pairs.vote_annotator_V.tolist() == ["7", "7", "7", "", "", ""]


@pytest.mark.parametrize(
    ("name", "kind"), [([1, 2], "list"), (True, "truth value"), ({"id": 1}, "object"), (1.5, "number")]
)
def test_a_value_that_is_no_name_is_one_line(name, kind):
    row = {"prompt": "Q", "response_a": "yes", "response_b": "no", "label": 1, "annotator": name}
    one_line(
        lambda: pairs_of_rows([row]),
        f"line 1, field 'annotator': a {kind} ({name}); give text, an integer or null, or set dataset.fields to",
        "{annotator: false}",
    )


def test_ties_seconds_prices_and_strengths_stay_with_their_votes():
    row = {"prompt": "Q", "response_a": "yes", "response_b": "no"}
    turned = {"prompt": "Q", "response_a": "no", "response_b": "yes"}
    rows = [
        row | {"label": 1, "tie": False, "seconds": 4, "price_usd": 0.1, "strength": 2},
        row | {"prompt": "R", "label": None, "tie": True, "seconds": 5},
        turned | {"label": None, "tie": True, "seconds": 6, "price_usd": "0.3"},
        turned | {"label": 0, "tie": False, "strength": 1},
    ]
    pairs = pairs_of_rows(rows)
    assert pairs.vote_pair_V.tolist() == [0, 0, 0, 1]
    assert pairs.vote_choice_V.tolist() == [A, TIE, A, TIE]
    np.testing.assert_array_equal(pairs.vote_seconds_V, [4, 6, np.nan, 5])
    np.testing.assert_array_equal(pairs.vote_price_V, [0.1, 0.3, np.nan, np.nan])
    np.testing.assert_array_equal(pairs.vote_strength_V, [2, np.nan, 1, np.nan])


# Rows that cannot be used (as in the files of HH)

TALK = "\n\nHuman: Q\n\nAssistant:"
GOOD = [{"chosen": f"{TALK} yes {n}", "rejected": f"{TALK} no {n}"} for n in range(4)]
UNUSABLE = [
    {"chosen": f"{TALK} same", "rejected": f"{TALK} same"},
    {"chosen": f"{TALK} same", "rejected": f"{TALK} same"},
    {"chosen": f"{TALK} ", "rejected": f"{TALK} no"},
    {"chosen": f"{TALK} yes", "rejected": "\n\nHuman: P\n\nAssistant: no"},
    {"chosen": f"{TALK} yes", "rejected": None},
]
LINE = (
    "5 of 9 rows cannot be used (2 with equal responses, 1 with a missing text, 1 with prompts that differ, 1 without"
    " an answer)"
)


def test_unusable_rows_are_counted_in_one_pass_and_refused():
    rows = [GOOD[0], *UNUSABLE, *GOOD[1:]]
    one_line(
        lambda: pairs_of_rows(rows),
        "rows, line 2: the two responses are the same text; delete the row; " + LINE,
        "dataset.unusable=skip leaves them out",
    )


def test_unusable_rows_are_skipped_if_the_study_says_so():
    pairs = pairs_of_rows([*UNUSABLE, *GOOD], unusable="skip")
    assert len(pairs.pair_id_N) == 4
    assert pairs.facts.unusable_line().startswith(LINE)
    one_line(lambda: pairs_of_rows(UNUSABLE, unusable="skip"), "line 1: the two responses are the same", "5 of 5 rows")


def test_labels_outside_the_map_are_unusable():
    row = {"prompt": "Q", "response_a": "yes", "response_b": "no"}
    fields = FieldMap(label={"column": "label", "first": "a", "second": "b"})
    rows = [row | {"label": label} for label in ("a", "unsure", "b", "", None)]
    pairs = pairs_of_rows(rows, fields=fields, unusable="skip")
    assert pairs.vote_choice_V.tolist() == [A, B]
    assert pairs.facts.unusable == {"with a label outside the map": 1, "without a label": 2}
    one_line(lambda: pairs_of_rows(rows, fields=fields), "line 2, field 'label': 'unsure' is no value of the label map")
