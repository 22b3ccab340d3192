"""The scheduler's state of a fleet: its unfinished cells, and the deaths of its workers."""

from __future__ import annotations

from dataclasses import dataclass

from balbench.harness.machine import count
from balbench.harness.study.cell import Cell


@dataclass(eq=False)
class PendingFleet:
    """Cells whose rounds run together.

    Attributes:
        cells: the cells that are neither finished nor failed.
        deaths: number of workers that died on the fleet since its last finished round.
        careful: whether a worker has ever died on the fleet, so that each task runs one round only.
    """

    cells: list[Cell]
    deaths: int = 0
    careful: bool = False

    def halves(self) -> list[PendingFleet]:
        """Return two fleets with the cells of this fleet."""
        middle = -(-len(self.cells) // 2)
        return [PendingFleet(part, careful=self.careful) for part in (self.cells[:middle], self.cells[middle:])]

    @property
    def title(self) -> str:
        """Name of the fleet in a message."""
        others = f" and {count(len(self.cells) - 1, 'other cell')}" if len(self.cells) > 1 else ""
        return f"{self.cells[0].title}{others}"
