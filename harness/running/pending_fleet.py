"""A fleet as the scheduler sees it: the cells that are not finished, and the deaths of its workers."""

from __future__ import annotations

from dataclasses import dataclass

from balbench.harness.running.placement import count
from balbench.harness.study.cell import Cell


@dataclass(eq=False)
class PendingFleet:
    """Cells whose rounds run together.

    Attributes:
        cells: the cells that are neither finished nor failed.
        deaths: how many workers died on the fleet since its last finished round.
        careful: whether a worker ever died on the fleet; then each task runs one round only.
    """

    cells: list[Cell]
    deaths: int = 0
    careful: bool = False

    def halves(self) -> list[PendingFleet]:
        """Two fleets in place of this one."""
        middle = -(-len(self.cells) // 2)
        return [PendingFleet(part, careful=self.careful) for part in (self.cells[:middle], self.cells[middle:])]

    @property
    def title(self) -> str:
        """The fleet in a message."""
        others = f" and {count(len(self.cells) - 1, 'other cell')}" if len(self.cells) > 1 else ""
        return f"{self.cells[0].title}{others}"
