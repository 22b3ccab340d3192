"""Values of study files and overrides are read as users expect: YAML 1.2, and no comments in overrides."""

import numpy as np
import pytest

from balbench.harness.errors import StudyError
from balbench.harness.study.yaml_file import override, plain, read_yaml, set_path

SCALARS = [
    ("10", 10),
    ("010", 10),
    ("-007", -7),
    ("0o17", 15),
    ("0x1F", 31),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("12:30:45", "12:30:45"),
    ("1e-3", 0.001),
    ("3.0e-3", 0.003),
    (".5", 0.5),
    ("1.", 1.0),
    ("-.inf", float("-inf")),
    ("true", True),
    ("False", False),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("off", "off"),
    ("null", None),
    ("~", None),
    ("", None),
    ("2020-01-01", "2020-01-01"),
    ("2020-13-45", "2020-13-45"),
    ("a#b", "a#b"),
    ("plain text", "plain text"),
    ("'quoted # text'", "quoted # text"),
    ('"10"', "10"),
    ("[1, 010, no]", [1, 10, "no"]),
    ("{name: bal_pm, beta: 1e3}", {"name": "bal_pm", "beta": 1000.0}),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_file_and_an_override_give_the_same_value(tmp_path, text, value):
    (tmp_path / "study.yaml").write_text(f"key: {text}\n", encoding="utf-8")
    raw: dict = {}
    override(raw, [f"key={text}"])
    for read in (read_yaml(tmp_path / "study.yaml")["key"], raw["key"]):
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["x # y", "# x", "a: b", "- a", "*.jsonl", "&x", "!tag x", "> 50%", "data #1.jsonl", "@a"]
)
def test_an_override_without_brackets_or_quotes_is_text_as_it_is_typed(text):
    raw: dict = {}
    override(raw, [f"description={text}"])
    assert raw == {"description": text}


@pytest.mark.parametrize("text", ["[a] # note", '"a" b', "{a: 1} x", "'x' # y"])
def test_text_after_a_value_is_refused(text):
    with pytest.raises(StudyError, match=r"override name=.*follows the value|override name=.*not valid YAML"):
        override({}, [f"name={text}"])


def test_a_setting_of_a_component_that_is_only_a_name():
    raw = {"posterior": "ensemble", "policies": ["random", {"name": "bald", "posterior": "laplace"}]}
    override(raw, ["posterior.members=3", "policies.0.variant=as_coded", "policies.1.posterior.samples=4"])
    assert raw == {
        "posterior": {"name": "ensemble", "members": 3},
        "policies": [
            {"name": "random", "variant": "as_coded"},
            {"name": "bald", "posterior": {"name": "laplace", "samples": 4}},
        ],
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["x" * 5000],
        ["name.x=" + "y" * 5000],
        ["posterior." + "z" * 5000 + ".=3"],
        ["name=[" + "a " * 2500],
        ["policies." + "9" * 5000 + "=bald"],
        {"policies." + "9" * 5000: "bald"},
    ],
)
def test_messages_do_not_repeat_long_inputs(overrides):
    with pytest.raises(StudyError) as error:
        override({"name": "x", "policies": []}, overrides)
    assert len(str(error.value)) < 400


def test_plain_values_are_those_of_json(tmp_path):
    raw = {"a": (1, 2), 3: np.float64(0.5), "path": tmp_path, "seeds": [np.int64(4)]}
    assert plain(raw, "study") == {"a": [1, 2], "3": 0.5, "path": str(tmp_path), "seeds": [4]}
    with pytest.raises(StudyError, match=r"study: a\.b: must be finite"):
        plain({"a": {"b": float("nan")}}, "study")


def test_an_override_does_not_change_other_parts():
    raw = {"a": {"b": 1, "c": 2}}
    set_path(raw, "a.b", 3, "test")
    assert raw == {"a": {"b": 3, "c": 2}}
