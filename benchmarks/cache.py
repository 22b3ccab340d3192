"""`balbench cache`: the data sets that this machine keeps."""

from __future__ import annotations

from datetime import datetime

from rich.table import Table

from balbench.benchmarks.console import say, standard_output
from balbench.harness.errors import StudyError
from balbench.harness.files import cache_directory
from balbench.harness.machine import count
from balbench.harness.running.data_cache import CachedData, cached_data, older_than, remove


def cache_table() -> Table:
    """Return a table of the data sets in the cache, with contents, size and last use."""
    entries = cached_data()
    table = Table(caption=f"{cache_directory()}: {size(sum(entry.size for entry in entries))}", caption_justify="left")
    for column in ("key", "data set", "pairs of the pool", "length of features", "size", "last used"):
        table.add_column(column, justify="left" if column in {"key", "data set"} else "right", no_wrap=column == "key")
    for entry in entries:
        facts = entry.facts
        contents = [facts["kind"], f"{facts['pairs']['pool']:,}", str(facts["dimension"])] if facts else ["?", "", ""]
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.key, *contents, size(entry.size), used)
    return table


def remove_data(keys: list[str], days: float | None) -> None:
    """Remove data sets by the beginnings of their keys, and data sets that were not used for a number of days.

    Raises:
        StudyError: a key names no data set or several, or `days` is negative.
        RunDirectoryError: a data set cannot be removed.
    """
    if days is not None and not days >= 0:
        raise StudyError(f"older_than {days:g}: must be 0 days or more", setting="older_than")
    entries = cached_data()
    chosen = [_named(key, entries) for key in keys] + (older_than(days) if days is not None else [])
    chosen = list({entry.key: entry for entry in chosen}.values())
    removed = remove(chosen)
    console = standard_output()
    say(console, f"removed {count(len(removed), 'data set')}, {size(sum(entry.size for entry in removed))}")
    if kept := len(chosen) - len(removed):
        say(console, f"kept {count(kept, 'data set')} in use by running studies")


def _named(key: str, entries: list[CachedData]) -> CachedData:
    matches = [entry for entry in entries if key and entry.key.startswith(key)]
    if len(matches) != 1:
        fault = "several keys begin with these letters; give more" if matches else "no data set has this key"
        raise StudyError(f"remove {key}: {fault}; `balbench cache` lists the keys", setting="remove")
    return matches[0]


def size(number: int) -> str:
    """Format a number of bytes: 12 kB, 3.4 MB, 2.0 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number / 1e3:,.0f} kB"
