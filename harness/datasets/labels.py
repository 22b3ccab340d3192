"""Read labels as tools write them: 1, "1", 1.0, true, "A", "model_a", 1 and 2, -1 and 1, scores, ties."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from balbench.harness.datasets.messages import show
from balbench.harness.errors import DataError
from balbench.oracles.annotations import Choice

Value = bool | int | float | str
FIRST, SECOND, TIE = Choice.FIRST, Choice.SECOND, Choice.TIE
WORDS = {
    **dict.fromkeys(("a", "first", "model_a", "response_a", "[[a]]", "true"), FIRST),
    **dict.fromkeys(("b", "second", "model_b", "response_b", "[[b]]", "false"), SECOND),
    **dict.fromkeys(("tie", "tie (bothbad)", "both_bad", "bothbad", "both", "draw", "equal", "[[c]]"), TIE),
}
# The first encoding that has all numbers of a file is the one meant.
NUMBERS = (
    {1.0: FIRST, 0.0: SECOND, 0.5: TIE},
    {1.0: FIRST, 2.0: SECOND, 1.5: TIE},
    {1.0: FIRST, -1.0: SECOND, 0.0: TIE},
)
MOST_VALUES = 100  # more distinct labels are scores, not choices
NEAR = 1e-3  # alpaca_eval writes 1.0000048889 for 1


class LabelMap(BaseModel):
    """What the values of a label mean. Give `column` with values or with a middle, or two columns of scores."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    column: str | None = None
    """The column of the label."""
    first: Value | list[Value] = []
    """Values for which the first response is preferred."""
    second: Value | list[Value] = []
    """Values for which the second response is preferred."""
    tie: Value | list[Value] = []
    """Values for a tie."""
    middle: float | None = None
    """Values below and above this number prefer different responses; this number is a tie."""
    below: Literal["first", "second"] = "first"
    """The response that values below the middle prefer."""
    higher: tuple[str, str] | None = None
    """Columns of the scores of the first and of the second response; the higher score is preferred, equal scores are a
    tie."""

    @model_validator(mode="after")
    def _complete(self) -> LabelMap:
        values = self.first != [] or self.second != []
        if (self.column is None) == (self.higher is None):
            raise ValueError("give column, or higher with two columns")
        if self.column is not None and not values and self.middle is None:
            raise ValueError("give the values for first and second, or a middle")
        return self

    @property
    def values(self) -> dict[str, Choice]:
        """The named values with their meaning."""
        named = ((self.first, FIRST), (self.second, SECOND), (self.tie, TIE))
        return {
            canonical(value) or "": choice
            for values, choice in named
            for value in (values if isinstance(values, list) else [values])
        }

    def margin(self, value: float) -> tuple[Choice, float]:
        """Return the choice of a score, and its distance from the middle."""
        difference = value - (self.middle or 0.0)
        if difference == 0:
            return TIE, 0.0
        return (FIRST if (difference < 0) == (self.below == "first") else SECOND), abs(difference)


def canonical(value: Any) -> str | None:
    """Return a label as text, the same for 1, 1.0, "1" and "1.0"; None for null, NaN and empty texts."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return None
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text.lower() or None
    if math.isnan(number):
        return None
    return f"{number:.0f}" if number.is_integer() else repr(number)


def number(value: Any) -> float | None:
    """Return a number that is written as a number or as text; None if it is neither, or not finite."""
    try:
        read = float(value)
    except (TypeError, ValueError):
        return None
    return read if math.isfinite(read) else None


def meanings(values: Iterable[str], column: str, labels: LabelMap | None = None) -> dict[str, Choice | None]:
    """Return what each distinct label of a file means; None: a value that the map leaves out.

    Args:
        values: distinct labels as `canonical` writes them.
        column: the column of the labels, for errors.
        labels: the meaning that the study gives; by default the meaning follows from all values together.

    Raises:
        DataError: the meaning is ambiguous; the message has no place, but the map that would read the labels.
    """
    values = list(values)
    if labels is not None:
        return {value: _mapped(value, labels) for value in values}
    numbers = {value: _near(float(value)) for value in values if number(value) is not None}
    encoding = next((known for known in NUMBERS if set(numbers.values()) <= set(known)), None)
    meaning = {value: WORDS.get(value) for value in values if value not in numbers}
    if encoding is None or None in meaning.values():
        raise _ambiguous(values, column)
    return {**meaning, **{value: encoding[read] for value, read in numbers.items()}}


def _mapped(value: str, labels: LabelMap) -> Choice | None:
    if value in labels.values:
        return labels.values[value]
    read = number(value)
    return None if labels.middle is None or read is None else labels.margin(read)[0]


def _near(value: float) -> float:
    return float(round(value)) if abs(value - round(value)) < NEAR else value


def _ambiguous(values: list[str], column: str) -> DataError:
    numeric = all(number(value) is not None for value in values)
    if numeric and len(values) > 3:
        low = min(float(value) for value in values)
        middle = 0 if low < 0 else (low + max(float(value) for value in values)) / 2
        remedy = f"{{column: {column}, middle: {middle:g}, below: first}}"
    else:
        ordered = sorted(values, key=lambda value: (value == "0", value))[:3]
        names = zip(("first", "second", "tie"), ordered, strict=False)
        remedy = "{" + ", ".join([f"column: {column}", *(f"{name}: {_yaml(value)}" for name, value in names)]) + "}"
    listed = ", ".join(show(value, 20).strip("'") for value in values[:6]) + (", ..." if len(values) > 6 else "")
    problem = f"the meaning of its values ({listed}) is not clear"
    return DataError(f"{problem}; set dataset.fields to {{label: {remedy}}}, with your meaning")


def _yaml(value: str) -> str:
    return value if value.isalnum() or number(value) is not None else f'"{value}"'
