"""The data sets of a run on the report's page: sizes, facts, and the warnings about the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from balbench.harness.errors import RunDirectoryError
from balbench.reports.wording import split_name

if TYPE_CHECKING:
    from balbench.harness.results import Run

MOST_SETTINGS = 3  # largest number of settings that a title lists


@dataclass(frozen=True)
class DataView:
    """A data set: the settings that use it (empty if all do), its sizes, facts and warnings."""

    settings: str
    sizes: str
    facts: list[tuple[str, str]]
    warnings: list[str]


def data_views(run: Run) -> list[DataView]:
    """Describe the data sets of a run; data sets that are not built yet are left out."""
    settings: dict[str, list[str]] = {}
    for setting, key in run.datasets.items():
        settings.setdefault(key, []).append(setting)
    views = [_view(run, names[0], _listed(names) if len(settings) > 1 else "") for names in settings.values()]
    return [view for view in views if view is not None]


def _view(run: Run, setting: str, listed: str) -> DataView | None:
    try:
        facts = run.data_facts(setting)
    except RunDirectoryError as error:  # the page says so, because results do not need these facts
        return DataView(listed, f"No facts about the data: {error}.", [], [])
    if facts is None:
        return None
    named = [(_words(name), _fact(value)) for name, value in facts["facts"].items()]
    return DataView(listed, _sizes(facts), named, list(facts["warnings"]))


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_SETTINGS
    return "; ".join(names[:MOST_SETTINGS]) + (f"; and {more} more settings" if more > 0 else "")


def _sizes(facts: Any) -> str:
    pairs = dict(facts["pairs"])
    pool = pairs.pop("pool")
    others = ", ".join(f"{split_name(name)} {number:,}" for name, number in pairs.items())
    return (
        f"Pool: {pool:,} pairs of {facts['responses']:,} responses to {facts['prompts']:,} prompts, with features of "
        f"{facts['dimension']:,} numbers. Pairs of the other splits: {others}."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_fact(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
