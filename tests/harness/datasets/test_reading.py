import gzip
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.datasets.json_lines import json_rows
from balbench.harness.datasets.messages import LAST_TURN
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.text_pairs import TextPairs
from balbench.harness.datasets.votes import OodRule
from balbench.harness.errors import DataError
from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice
from support.preferences import pairs_of_rows

ORDER = stream(0, "order")
ROW = {"prompt": "Q", "response_a": "yes", "response_b": "no", "label": 1}


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path, **settings) -> TextPairs:
    return PreferenceFile(path=str(path), **settings).read()


def heard(pairs: TextPairs) -> dict:
    """All that the tables say, whatever the rows' order: {pair id: (prompt, preferred, other, annotator)}."""
    actual: dict = {}
    for pair, choice, annotator in zip(pairs.vote_pair_V, pairs.vote_choice_V, pairs.vote_annotator_V, strict=True):
        first, second = pairs.responses_of_pair_N2[pair]
        texts = pairs.response_R[first], pairs.response_R[second]
        prompt = pairs.prompt_P[pairs.prompt_of_response_R[first]]
        assert pairs.prompt_of_response_R[second] == pairs.prompt_of_response_R[first]
        vote = (prompt, *(texts if choice == Choice.FIRST else texts[::-1]), str(annotator))
        actual.setdefault(str(pairs.pair_id_N[pair]), []).append(vote)
    return {name: sorted(spoken) for name, spoken in actual.items()}


# What is read


def test_votes_on_a_pair_are_adjacent_for_both_orders_of_the_responses():
    pairs = pairs_of_rows(
        [
            ROW | {"annotator": "ann", "id": 7},
            ROW | {"response_a": "maybe", "label": 0, "id": 8},
            {"prompt": "Q", "response_a": "no", "response_b": "yes", "label": 1, "annotator": 5, "id": "9"},
            ROW | {"prompt": "another"},
        ]
    )
    assert pairs.prompt_P == ["Q", "another"]
    assert pairs.response_R == ["yes", "no", "maybe", "yes", "no"]
    assert pairs.prompt_of_response_R.tolist() == [0, 0, 0, 1, 1]
    assert pairs.responses_of_pair_N2.tolist() == [[0, 1], [2, 1], [3, 4]]
    assert pairs.vote_pair_V.tolist() == [0, 0, 1, 2]
    assert pairs.vote_choice_V.tolist() == [Choice.FIRST, Choice.SECOND, Choice.SECOND, Choice.FIRST]
    assert pairs.vote_annotator_V.tolist() == ["ann", "5", "", ""]
    assert len(set(pairs.pair_id_N)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in pairs.pair_id_N)


def test_pair_ids_stay_what_they_are():
    assert pairs_of_rows([ROW]).pair_id_N.tolist() == ["1de2c84103632cb7"]


rows_of_text = st.builds(
    lambda prompt, texts, label, annotator: {
        "prompt": f"p{prompt}",
        "response_a": texts[0],
        "response_b": texts[1],
        "label": label,
        "annotator": annotator,
        "prompt_id": prompt,
    },
    st.integers(0, 3),
    st.permutations(["a", "b", "c"]),
    st.integers(0, 1),
    st.sampled_from(["x", "y", None]),
)


def turned(row):
    return row | {"response_a": row["response_b"], "response_b": row["response_a"], "label": 1 - row["label"]}


@given(st.lists(rows_of_text, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_votes_do_not_depend_on_the_order_of_rows_or_responses(rows, random):
    other = [turned(row) if random.random() < 0.5 else row for row in rows]
    random.shuffle(other)
    assert heard(pairs_of_rows(rows)) == heard(pairs_of_rows(other))
    assert np.all(np.diff(pairs_of_rows(rows).vote_pair_V) >= 0)


def chosen_rows(count, turn=False):
    pair = ("worse", "better") if turn else ("better", "worse")
    return [{"prompt": f"q{n}", "chosen": pair[0], "rejected": pair[1]} for n in range(count)]


def test_chosen_and_rejected_are_shown_in_a_drawn_order_that_is_independent_of_the_choice():
    pairs = pairs_of_rows(chosen_rows(400))
    assert 0.4 < np.mean(pairs.vote_choice_V == Choice.FIRST) < 0.6
    assert all(vote[1] == "better" for spoken in heard(pairs).values() for vote in spoken)
    shown = [pairs.response_R[first] for first in pairs.responses_of_pair_N2[:, 0]]
    reverse = pairs_of_rows(chosen_rows(400, turn=True))
    assert [reverse.response_R[first] for first in reverse.responses_of_pair_N2[:, 0]] == shown
    other = pairs_of_rows(chosen_rows(400), order=stream(1, "order"))
    assert other.responses_of_pair_N2.tolist() != pairs.responses_of_pair_N2.tolist()


def test_transcripts_are_cut_at_the_last_answer():
    talk = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: a joke?\n\nAssistant:"
    pairs = pairs_of_rows([{"chosen": talk + " Knock!", "rejected": talk + " No."}])
    assert pairs.prompt_P == [talk.strip()]
    assert heard(pairs)[str(pairs.pair_id_N[0])] == [(talk.strip(), "Knock!", "No.", "")]


def test_a_prompt_is_out_of_distribution_when_any_of_its_rows_is():
    rule = OodRule("source", re.compile(r":lt-en:"))
    sources = ["D:de-en:1", "D:lt-en:online", None, "D:de-en:2"]
    rows = [ROW | {"prompt": prompt, "source": source} for prompt, source in zip("aabc", sources, strict=True)]
    assert pairs_of_rows(rows, ood=rule).ood_P.tolist() == [True, False, False]


def test_plain_and_gzipped_files_are_distinguished_by_their_bytes(tmp_path):
    text = b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n" + json.dumps(turned(ROW)).encode()
    (tmp_path / "plain.jsonl.gz").write_bytes(text)
    (tmp_path / "zipped.jsonl").write_bytes(gzip.compress(text))
    plain, zipped = (read(tmp_path / name) for name in ("plain.jsonl.gz", "zipped.jsonl"))
    assert heard(plain) == heard(zipped)
    assert plain.vote_choice_V.tolist() == [Choice.FIRST, Choice.FIRST]
    assert [line for line, _ in json_rows(tmp_path / "zipped.jsonl")] == [1, 3]


# What is wrong: (lines of the file, what the message must say)


def without(*keys, **other):
    return {key: value for key, value in (ROW | other).items() if key not in keys}


CHOSEN = {"prompt": "Q", "chosen": "yes", "rejected": "no"}
TALK = "\n\nHuman: hi" + LAST_TURN
BAD_ROWS = {
    "broken JSON": ([ROW, '{"prompt": "Q"'], ["line 2: not JSON", "column 15", "one JSON object a line"]),
    "huge number": ([ROW, '{"label": ' + "1" * 5000 + "}"], ["line 2: JSON that cannot be read"]),
    "deep nest": ([ROW, "[" * 100_000], ["line 2: JSON that cannot be read"]),
    "a list": ([ROW, "[1]"], ["line 2: a list, not an object; write one JSON object a line"]),
    "null": (["null"], ["line 1: a null, not an object"]),
    "missing key": (
        [ROW, without("response_a", respnse_a="x")],
        ["line 2, field 'response_a': missing; give the text or delete the row; dataset.unusable=skip leaves the row"],
    ),
    "misspelt key": (
        [without("response_a", respnse_a="x")],
        [
            "line 1: the columns ('prompt', 'response_b', 'label', 'respnse_a') fit no known schema; name them, for",
            "dataset.fields: {prompt: prompt, response_a: respnse_a, response_b: response_b, label: label}",
        ],
    ),
    "missing key, none near": (
        [without("label")],
        ["line 1: the columns ('prompt', 'response_a', 'response_b') fit no known schema; name them", "label: COLUMN}"],
    ),
    "labels 0, 1, 2": (
        [ROW, ROW | {"response_a": "x", "label": 2}, ROW | {"response_a": "y", "label": 0}],
        [
            ", field 'label': the meaning of its values (1, 2, 0) is not clear; set dataset.fields to",
            "{label: {column: label, first: 1, second: 2, tie: 0}}, with your meaning",
        ],
    ),
    "label as a word": (
        [ROW | {"label": "good"}, ROW | {"response_a": "x", "label": "bad"}],
        [", field 'label': the meaning of its values (good, bad) is not clear", "first: bad, second: good}}"],
    ),
    "label null": ([ROW | {"label": None}], ["line 1, field 'label': empty; give the label or delete the row"]),
    "empty response": (
        [ROW, ROW, ROW | {"response_b": " \n"}],
        ["line 3, field 'response_b': empty; give the text or delete the row"],
    ),
    "empty prompt": ([ROW | {"prompt": ""}], ["line 1, field 'prompt': empty; give the text or delete"]),
    "prompt not text": ([ROW | {"prompt": 5}], ["line 1, field 'prompt': a number (5); give text"]),
    "messages": (
        [CHOSEN | {"chosen": [{"role": "user"}]}],
        ["line 1, field 'chosen': a list with {'role': 'user'}; give text, or messages with role and content"],
    ),
    "same responses": ([ROW | {"response_b": "yes"}], ["line 1: the two responses are the same", "delete"]),
    "same chosen": ([CHOSEN | {"chosen": "no"}], ["line 1: the two responses are the same text; delete"]),
    "surrogate": (
        ['{"prompt": "\\ud800", "response_a": "x", "response_b": "y", "label": 1}'],
        ["line 1, field 'prompt': half a character", "UTF-8"],
    ),
    "same id": (
        [ROW | {"id": 3}, ROW | {"id": 4}, ROW | {"id": "3"}],
        ["line 3, field 'id': '3' is on line 1 too; make ids unique, or set dataset.fields to {id: false}"],
    ),
    "id not a name": (
        [ROW | {"id": [1]}],
        ["line 1, field 'id': a list ([1]); give text, an integer or null"],
    ),
    "annotator": ([ROW | {"annotator": 1.5}], ["line 1, field 'annotator': a number (1.5)"]),
    "prompt_id, two prompts": (
        [ROW | {"prompt_id": 1}, ROW | {"prompt": "R", "prompt_id": 1}],
        ["line 2, field 'prompt_id': '1' has another prompt on line 1", "or set dataset.fields to {prompt_id: false}"],
    ),
    "prompt, two prompt_ids": (
        [ROW | {"prompt_id": 1}, ROW | {"prompt_id": 2}],
        ["line 2, field 'prompt_id': '2', but the same prompt has '1' on line 1", "{prompt_id: false}"],
    ),
    "key twice": (
        [ROW, '{"prompt": "x", "response_a": "y", "response_b": "z", "label": 1, "label": 0}'],
        ["line 2, field 'label': the key occurs twice"],
    ),
    "inner key twice": ([ROW, '{"meta": {"a": 1, "a": 1}}'], ["line 2, field 'a': the key occurs twice"]),
    "no schema": ([{"text": "x"}], ["line 1: the columns ('text') fit no known schema; name them, for example"]),
    "two layouts": (
        [ROW | CHOSEN],
        ["line 1: columns of two layouts; set dataset.fields to {prompt: prompt, chosen: chosen, rejected: rejected}"],
    ),
    "rejected missing": ([{"prompt": "Q", "chosen": "x"}], ["line 1: the columns", "rejected: COLUMN}"]),
    "no prompt": (
        [{"chosen": "x", "rejected": "y", "promt": "Q"}],
        ["line 1, field 'prompt': missing, and chosen has no", "name its column: fields: {prompt: COLUMN}"],
    ),
    "other dialogue": (
        [{"chosen": TALK + " x", "rejected": "\n\nHuman: ho" + LAST_TURN + " y"}],
        ["line 1, field 'rejected': chosen and rejected differ before their last", "delete the row"],
    ),
    "longer dialogue": (
        [{"chosen": TALK + " x", "rejected": TALK + " y\n\nHuman: ok" + LAST_TURN + " z"}],
        ["line 1, field 'rejected': chosen and rejected differ before their last"],
    ),
    "no last turn": (
        [{"chosen": TALK + " x", "rejected": TALK + " "}],
        ["line 1, field 'rejected': nothing follows the last", "delete the row"],
    ),
    "empty file": ([], ["no rows; give a file with one comparison a row"]),
    "blank file": (["", "  "], ["no rows"]),
}


def one_line(error: pytest.ExceptionInfo, *parts: object) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert str(part) in message


@pytest.mark.parametrize(("rows", "parts"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_gives_one_line_with_place_and_remedy(tmp_path, rows, parts):
    path = write(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError) as error:
        read(path)
    one_line(error, path, *parts)


def test_an_ood_field_that_is_missing_is_named_with_the_nearest(tmp_path):
    path = write(tmp_path / "data.jsonl", [ROW | {"sourc": "x"}])
    with pytest.raises(DataError) as error:
        read(path, ood_field="source", ood_pattern="x")
    one_line(error, path, "line 1, field 'source': missing; correct dataset.ood_field (did you mean 'sourc'?)")
    one_line(error, "the columns are: 'prompt', 'response_a', 'response_b', 'label', 'sourc'")


GOOD_LINE = json.dumps(ROW).encode() + b"\n"
BAD_FILES = {
    "latin-1": (GOOD_LINE + "é\n".encode("latin-1"), ["line 2: not UTF-8; convert the file to UTF-8"]),
    "utf-16": (GOOD_LINE.decode().encode("utf-16"), ["line 1: not UTF-8"]),
    "cut gzip": (gzip.compress(GOOD_LINE * 9)[:-12], ["broken compressed data", "download or compress the file again"]),
    "wrong checksum": (gzip.compress(GOOD_LINE)[:-8] + b"12345678", ["broken compressed data"]),
    "garbage after the magic": (b"\x1f\x8b" + GOOD_LINE, ["broken compressed data"]),
    "nothing": (b"", ["no rows"]),
    "nothing zipped": (gzip.compress(b""), ["no rows"]),
}


@pytest.mark.parametrize(("data", "parts"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_gives_one_line_with_the_remedy(tmp_path, data, parts):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read(path)
    one_line(error, path, *parts)


def test_a_file_that_is_not_there_or_is_a_directory(tmp_path):
    for path, part in (
        (tmp_path / "no.jsonl", "not found; correct the path"),
        (tmp_path, "the directory has no data files (.csv, "),
    ):
        with pytest.raises(DataError) as error:
            read(path)
        one_line(error, path, part)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*ROW, "chosen", "rejected", "id", "prompt_id", "annotator"]), inner, max_size=6
        )
    ),
    max_leaves=8,
)
half_right = st.builds(lambda row, other: row | other, st.just(ROW), st.dictionaries(st.sampled_from([*ROW]), any_json))


@settings(max_examples=200)
@given(
    st.lists(any_json | half_right, max_size=4),
    st.binary(max_size=8),
)
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, rows, tail):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes("\n".join(json.dumps(row) for row in rows).encode() + b"\n" + tail)
    refused = ""
    try:
        read(path)
    except DataError as error:
        refused = str(error)
    assert "\n" not in refused
