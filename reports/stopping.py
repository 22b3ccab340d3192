"""When a study has enough seeds: every interval is narrow enough, at two looks in a row.

Seeds are added in blocks, and the intervals are looked at after each block. A rule that stops at the first narrow
interval selects the looks at which the standard error is small by luck, so that 95% intervals of a normal mean cover
only 92.4% with the worst width. Seeds of a further look are not selected in this way: with two narrow looks in
a row, intervals cover 94.2% at least (blocks of five, 5 to 40 seeds; tests/reports/test_stopping.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from balbench.harness.errors import StudyError, shortened

SPLIT = "test"  # the split of the headline
LOOKS = 2  # looks in a row at which the intervals are narrow
LEAST_BLOCK = 5  # smallest number of seeds in a block


class Widest(NamedTuple):
    """The widest interval of a look.

    Attributes:
        width: as a share of labels; infinite if an end is only a bound or there is no interval.
        policy, setting: the row of the savings table.
    """

    width: float
    policy: str
    setting: str


@dataclass(frozen=True)
class StoppingRule:
    """Adds seeds until the interval of each policy is narrow, or the largest number of seeds is reached.

    Attributes:
        until_width: largest width of a 95% interval over seeds, as a share of labels.
        max_seeds: largest number of seeds of a policy.
    """

    until_width: float
    max_seeds: int = 40

    def check(self, seeds: int) -> None:
        """Check the rule against the number of seeds at the first look.

        Raises:
            StudyError: the width is not positive, there are more seeds already, or one of both is no number.
        """
        for name, value, kind in (("until_width", self.until_width, (int, float)), ("max_seeds", self.max_seeds, int)):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise StudyError(
                    f"{name} {shortened(repr(value))}: must be a {'whole ' if kind is int else ''}number", setting=name
                )
        if not (self.until_width > 0 and math.isfinite(self.until_width)):
            raise StudyError(
                f"until_width {self.until_width:g}: must be finite and greater than 0; 0.2 is a fifth of the labels",
                setting="until_width",
            )
        if self.max_seeds < seeds:
            raise StudyError(
                f"max_seeds {self.max_seeds}: must be at least the number of seeds, {seeds}", setting="max_seeds"
            )

    def looks(self, seeds: int) -> Iterator[int]:
        """Yield the number of seeds at each look, from `seeds` on."""
        block = max(LEAST_BLOCK, seeds)
        yield from range(seeds, self.max_seeds, block)
        yield self.max_seeds

    def is_narrow(self, widths: Sequence[float]) -> bool:
        """Return whether the intervals are narrow enough, by the widest interval of each look so far."""
        return len(widths) >= LOOKS and max(widths[-LOOKS:]) <= self.until_width


def widest(table: pd.DataFrame) -> Widest:
    """Return the widest interval of all policies and settings on the split `test`.

    Args:
        table: from `balbench.reports.savings_table.savings_table`.

    Raises:
        StudyError: the table has no policy beside the reference.
    """
    rows = table[(table["split"] == SPLIT) & ~table["is_reference"]]
    if rows.empty:
        raise StudyError("until_width: no policy is compared with the reference; add a policy", setting="until_width")
    width_N = (rows["high"] - rows["low"]).to_numpy(dtype=float, na_value=math.inf)
    number = int(width_N.argmax())
    row = rows.iloc[number]
    return Widest(float(width_N[number]), str(row["policy"]), str(row["setting"]))
