"""Schemas of public preference data, recognised by their columns."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from balbench.harness.datasets.containers import Batch
from balbench.harness.datasets.fields import CHOSEN_FIELDS, PAIR_FIELDS, REQUIRED, FieldMap, has, listed, near, values
from balbench.harness.datasets.labels import LabelMap
from balbench.harness.datasets.messages import LAST_TURN

PROMPT = "prompt|instruction|question|input|query|context|history"
OWN = {
    "annotator": "annotator",
    "prompt_id": "prompt_id",
    "id": "id",
    "strength": "strength",
    "seconds": "seconds",
    "price": "price|price_usd",
    "tie": "tie",
}


class Schema(NamedTuple):
    """The columns of a kind of file.

    Attributes:
        name: its name, for `balbench check`.
        fields: columns by key of `FieldMap`; "a|b" is a or b. Optional keys of `FieldMap` may be absent in a file.
        also: further columns that a file of this kind has.
    """

    name: str
    fields: dict[str, Any]
    also: tuple[str, ...] = ()


def _index(column: str) -> LabelMap:
    """A label that is the number of the preferred response, from 0."""
    return LabelMap(column=column, first=0, second=1)


def _signed(column: str) -> LabelMap:
    """A label below 0 where the first response is preferred."""
    return LabelMap(column=column, middle=0, below="first")


RESPONSES_1_2 = {"response_a": "response_1|response1", "response_b": "response_2|response2"}
SCHEMAS = (
    Schema(
        "chatbot arena",
        {"response_a": "conversation_a", "response_b": "conversation_b", "label": "winner", "annotator": "judge"},
    ),
    Schema(
        "SHP",
        {
            "prompt": "history",
            "response_a": "human_ref_A",
            "response_b": "human_ref_B",
            "label": LabelMap(column="labels", first=1, second=0),
            "strength": "score_ratio",
        },
    ),
    Schema(
        "summarize_from_feedback",
        {
            "prompt": ["info.post", "info.article"],
            "response_a": "summaries.0.text",
            "response_b": "summaries.1.text",
            "label": _index("choice"),
            "annotator": "worker",
        },
    ),
    Schema(
        "WebGPT comparisons",
        {
            "prompt": "question.full_text",
            "response_a": "answer_0",
            "response_b": "answer_1",
            "label": LabelMap(higher=("score_0", "score_1")),
        },
    ),
    Schema(
        "AlpacaFarm or alpaca_eval",
        {
            "prompt": ["instruction", "input"],
            "response_a": "output_1",
            "response_b": "output_2",
            "label": LabelMap(column="preference", tie=[0], middle=1.5, below="first"),
            "annotator": "annotator",
        },
    ),
    Schema("HelpSteer2 preference", {"prompt": "prompt", **RESPONSES_1_2, "label": _signed("preference_strength")}),
    Schema("HelpSteer3 preference", {"prompt": "context", **RESPONSES_1_2, "label": _signed("overall_preference")}),
    Schema(
        "PKU-SafeRLHF",
        {
            "prompt": "prompt",
            "response_a": "response_0",
            "response_b": "response_1",
            "label": _index("better_response_id"),
        },
    ),
    Schema(
        "argilla",
        {
            "prompt": "prompt|instruction|input",
            "chosen": "chosen|chosen_response",
            "rejected": "rejected|rejected_response",
            "strength": (
                "chosen-rating|chosen_rating|chosen_avg_rating",
                "rejected-rating|rejected_rating|rejected_avg_rating",
            ),
        },
        ("chosen-rating|chosen_rating|chosen_avg_rating",),
    ),
    Schema(
        "UltraFeedback binarized",
        {**dict(zip(CHOSEN_FIELDS, CHOSEN_FIELDS, strict=True)), **OWN, "strength": ("score_chosen", "score_rejected")},
        ("score_chosen", "score_rejected"),
    ),
    Schema("label", {**dict(zip(PAIR_FIELDS, PAIR_FIELDS, strict=True)), **OWN, "label": "label|labels"}),
    Schema("TRL with prompt", {"prompt": PROMPT, "chosen": "chosen", "rejected": "rejected", **OWN}),
    Schema("TRL without prompt", {"chosen": "chosen", "rejected": "rejected", **OWN}),
)
ALIASES = {
    "prompt": ("prompt", "instruction", "question", "input", "query", "context", "history", "post"),
    "response_a": ("response_a", "response_1", "output_1", "answer_a", "answer_1", "completion_a", "text_a", "a"),
    "response_b": ("response_b", "response_2", "output_2", "answer_b", "answer_2", "completion_b", "text_b", "b"),
    "label": ("label", "preference", "preferred", "winner", "choice", "better", "vote"),
    "chosen": ("chosen", "preferred", "accepted", "winner", "better"),
    "rejected": ("rejected", "dispreferred", "loser", "worse"),
}


class Recognised(NamedTuple):
    """The schema of a file and its columns."""

    name: str
    fields: FieldMap


def recognise(batch: Batch, study: FieldMap | None = None) -> Recognised:
    """Return the columns of a file from its first rows, and from `dataset.fields` of the study.

    Raises:
        DataError: no schema or several schemas fit, or a column of the study does not exist.
    """
    place = batch.place(0)
    if study is not None and study.is_complete:
        return Recognised("fields of the study", _existing(study, batch))
    fitting = [(schema, fields) for schema in SCHEMAS if (fields := _resolved(schema, batch)) is not None]
    if not fitting:
        raise place.error(
            f"the columns ({listed(batch.names)}) fit no known schema; name them, for example dataset.fields:"
            f" {suggestion(batch.names)}"
        )
    kinds = {fields.has_label: fields for _, fields in reversed(fitting)}
    if len(kinds) == 2 and (study is None or not study.model_fields_set & {"label", "chosen", "rejected"}):
        maps = " or to ".join(str(fields.required()) for fields in kinds.values())
        raise place.error(f"columns of two layouts; set dataset.fields to {maps}")
    schema, fields = fitting[0]
    name = _refined(schema.name, fields, batch)
    return Recognised(name, _existing(study.over(fields), batch)) if study is not None else Recognised(name, fields)


def _refined(name: str, fields: FieldMap, batch: Batch) -> str:
    """Distinguish what files with the columns chosen and rejected hold."""
    if not name.startswith("TRL"):
        return name
    first = next((value for value in values(batch, fields.chosen) if value), None)
    if isinstance(first, list):
        return f"{name}, chats"
    is_transcript = isinstance(first, str) and LAST_TURN in first and fields.prompt is None
    return "HH transcripts" if is_transcript else f"{name}, texts"


def _resolved(schema: Schema, batch: Batch) -> FieldMap | None:
    """Return the columns of a schema as a file names them; None if the file lacks one."""
    folded = {name.lower(): name for name in reversed(batch.names)}
    if any(_column(spec, batch, folded) is None for spec in schema.also):
        return None
    columns: dict[str, Any] = {}
    for field, spec in schema.fields.items():
        column = _column(spec, batch, folded)
        if column is not None:
            columns[field] = column
        elif field in REQUIRED:
            return None
    return FieldMap(**columns)


def _column(spec: Any, batch: Batch, folded: dict[str, str]) -> Any:
    """Return what a spec names in a file; None if it is not there."""
    if isinstance(spec, LabelMap):
        needed = spec.higher or (spec.column,)
        return spec if all(has(batch, str(path)) for path in needed) else None
    if isinstance(spec, list):
        there = [path for path in spec if has(batch, path)]
        return (there[0] if len(there) == 1 else there) or None
    if isinstance(spec, tuple):
        both = tuple(_column(one, batch, folded) for one in spec)
        return None if None in both else both
    options = (folded.get(path.lower(), path) for path in spec.split("|"))
    return next((path for path in options if has(batch, path)), None)


def _existing(fields: FieldMap, batch: Batch) -> FieldMap:
    for path in fields.paths():
        if not has(batch, path):
            raise batch.place(0).error(f"missing; correct dataset.fields{near(path, batch.names)}", path)
    return fields


def suggestion(names: list[str]) -> str:
    """Return a field map for unknown columns: the nearest names, and COLUMN where none is near."""
    layouts = [{field: _nearest(field, names) for field in fields} for fields in (PAIR_FIELDS, CHOSEN_FIELDS)]
    layout = min(layouts, key=lambda layout: (sum(name is None for name in layout.values()), -len(layout)))
    return "{" + ", ".join(f"{field}: {name or 'COLUMN'}" for field, name in layout.items()) + "}"


def _nearest(field: str, names: list[str]) -> str | None:
    folded = {name.lower(): name for name in names}
    exact = next((folded[alias] for alias in ALIASES[field] if alias in folded), None)
    close = difflib.get_close_matches(field, folded, n=1, cutoff=0.7)
    return exact or (folded[close[0]] if close else None)
