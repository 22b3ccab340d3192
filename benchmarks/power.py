"""The table of `balbench power`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from balbench.reports.power import MOST_SEEDS
from balbench.reports.wording import NOTHING, percent, split_name


def power_parts(table: pd.DataFrame, effect: float, width: float, power: float) -> Iterator[RenderableType]:
    """Yield a table for each setting and split of `power_table`, and a caption."""
    share, points = f"{percent(effect)}%", f"{percent(width)} points"
    columns = [
        "policy",
        "seeds",
        "width now",
        f"seeds for {points}",
        f"power for {share} now",
        f"seeds for {share}",
        f"seeds for {share}, all policies",
    ]
    for (setting, split), rows in table.groupby(["setting", "split"], sort=False):
        title = ", ".join(filter(None, [f"Seeds that a study needs, {split_name(str(split))}", str(setting)]))
        printed = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(columns):
            printed.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in rows.to_dict("records"):
            printed.add_row(*map(escape, _texts(row)))
        yield printed
    yield (
        "Seeds of each policy; the reference has twice as many, and at least 20. A width is that of the 95% interval. "
        f"Power is the chance ({percent(power)}% for the last two columns) of finding savings of {share}, for one "
        "policy or with the correction for all policies. Variances are those of this run; rough with few seeds."
    )


def _texts(row: dict[Any, Any]) -> list[str]:
    return [
        str(row["policy"]),
        f"{row['seeds']} and {row['reference_seeds']}",
        NOTHING if math.isnan(row["width_now"]) else f"{percent(row['width_now'])} points",
        _seeds(row["seeds_for_width"], math.isnan(row["width_now"])),
        f"{percent(row['power_now'])}%",
        _seeds(row["seeds_for_effect"]),
        _seeds(row["seeds_for_effect_holm"]),
    ]


def _seeds(seeds: float, is_unknown: bool = False) -> str:
    if math.isnan(seeds):
        return NOTHING if is_unknown else f"over {MOST_SEEDS:,}"
    return f"{seeds:,.0f}"
