"""Which columns of a file hold the parts of a preference."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from balbench.harness.datasets.containers import Batch
from balbench.harness.datasets.labels import LabelMap
from balbench.harness.datasets.messages import prompt_text, show

Column = str | None
Optional = str | Literal[False] | None
REQUIRED = ("prompt", "response_a", "response_b", "label", "chosen", "rejected")
PAIR_FIELDS, CHOSEN_FIELDS = ("prompt", "response_a", "response_b", "label"), ("prompt", "chosen", "rejected")


class FieldMap(BaseModel):
    """Columns by their part in a preference. A path such as `info.post` or `summaries.0.text` goes into objects.

    Give prompt, response_a, response_b and label, or prompt, chosen and rejected. Fewer keys replace those of the
    recognised schema; false leaves an optional column out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: str | list[str] | None = None
    """The prompt, a text or a chat; the texts of several columns are joined with a blank line."""
    response_a: Column = None
    """The first response."""
    response_b: Column = None
    """The second response."""
    label: str | LabelMap | None = None
    """The preference: a column whose values are clear, or a map of its values."""
    chosen: Column = None
    """The preferred response, or the chat that ends with it."""
    rejected: Column = None
    """The other response or chat; a list of texts gives several pairs."""
    annotator: Optional = None
    """The person who voted."""
    prompt_id: Optional = None
    """The file's name for the prompt."""
    id: Optional = None
    """The file's name for the row."""
    strength: str | tuple[str, str] | Literal[False] | None = None
    """How strong the preference is, from 0 on; of two columns the absolute difference."""
    seconds: Optional = None
    """Seconds that the vote took."""
    price: Optional = None
    """Price of the vote."""
    tie: Optional = None
    """Whether the row is a tie, for files whose label is empty then."""

    @property
    def given(self) -> dict[str, Any]:
        """The columns that are used, by field."""
        return {name: value for name, value in self if value not in (None, False)}

    @property
    def is_complete(self) -> bool:
        """Whether the map needs no schema."""
        pair = self.prompt is not None and None not in (self.response_a, self.response_b, self.label)
        return pair or None not in (self.chosen, self.rejected)

    @property
    def has_label(self) -> bool:
        """Whether a label says which response is preferred; otherwise the columns chosen and rejected do."""
        return self.chosen is None

    def over(self, schema: FieldMap) -> FieldMap:
        """Return a schema's map with the keys of this map in place of its own."""
        return schema.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})

    def required(self) -> FieldMap:
        """Return the map without its optional keys."""
        return FieldMap(**{name: value for name, value in self.given.items() if name in REQUIRED})

    def paths(self) -> list[str]:
        """Return the paths of all columns that are used."""
        return [path for value in self.given.values() for path in _paths(value)]

    def __str__(self) -> str:
        return _flow(self.given)


def _paths(value: Any) -> list[str]:
    if isinstance(value, LabelMap):
        return [value.column] if value.column is not None else list(value.higher or ())
    return [value] if isinstance(value, str) else list(value)


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value)


def values(batch: Batch, path: str | Sequence[str] | None) -> list[Any]:
    """Return the values of a column, of a path into it, or of several columns joined as a prompt.

    Rows without the column have None.
    """
    if path is None:
        return [None] * len(batch)
    if not isinstance(path, str):
        return [prompt_text(list(parts)) for parts in zip(*(values(batch, one) for one in path), strict=True)]
    if path in batch.names:
        return batch.column(path)
    head, *steps = path.split(".")
    return [_walk(value, steps) for value in batch.column(head)] if head in batch.names else [None] * len(batch)


def _walk(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def has(batch: Batch, path: str) -> bool:
    """Return whether a batch has a column, or objects with the path."""
    if path in batch.names:
        return True
    head, *steps = path.split(".")
    if head not in batch.names or not steps:
        return False
    parents = (_walk(value, steps[:-1]) for value in batch.column(head))
    return any(
        steps[-1] in parent if isinstance(parent, dict) else isinstance(parent, list) and steps[-1].isdigit()
        for parent in parents
        if parent
    )


def near(path: str, names: Sequence[str]) -> str:
    """Return advice for a column that does not exist: the nearest name, and the names that exist."""
    close = difflib.get_close_matches(path, names, n=1, cutoff=0.6)
    meant = f" (did you mean {show(close[0])}?)" if close else ""
    return f"{meant}; the columns are: {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """Return at most ten names for a message."""
    shown = [show(name) for name in names[:10]]
    return ", ".join([*shown, "..."] if len(names) > 10 else shown) or "none"
