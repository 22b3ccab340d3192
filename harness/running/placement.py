"""The placement of cells: devices, processes, and sizes of fleets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import get_args

from loky import cpu_count

from balbench.harness.errors import StudyError, shortened
from balbench.harness.machine import count
from balbench.harness.rounds.task import Features
from balbench.harness.study.cell import Cell

# On a CPU, fleets are faster as long as the data of a training step fit into the CPU's caches.
CPU_FLEET = 8
CPU_FLEET_BYTES = 16 * 2**20
CPU_TURNS = 3  # smallest number of fleets of each process, so that all processes end at about the same time
FORMS = "tcp://host:port, tls://host:port or local:N"  # forms of a cluster's address
FREE_SHARE = 0.9  # share of a GPU's free memory that a fleet can use


@dataclass(frozen=True)
class Placement:
    """The settings of devices, processes and fleets.

    Attributes:
        jobs: worker processes on CPUs; None for one per core.
        device: auto, cpu, cuda (all GPUs) or cuda:i. On a cluster of other machines, auto is cpu.
        fleet: cells of a fleet; None for an automatic choice.
        fleets_per_device: worker processes of each GPU.
        cluster: address of a Dask scheduler, or local:N; None for this machine alone.
        features: whether features are kept on the device or streamed to the device.
        grace: seconds for running tasks to finish after SIGTERM.
    """

    jobs: int | None = None
    device: str = "auto"
    fleet: int | None = None
    fleets_per_device: int = 1
    cluster: str | None = None
    features: Features = "auto"
    grace: float = 10.0

    def check(self) -> None:
        """Check the values.

        Raises:
            StudyError: a value is invalid; the message names the setting and its valid values.
        """
        for setting in ("jobs", "fleet", "fleets_per_device"):
            value = getattr(self, setting)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
                raise StudyError(f"{setting} {shortened(repr(value))}: must be a whole number", setting=setting)
            if value is not None and value < 1:
                raise StudyError(f"{setting} {value}: must be at least 1", setting=setting)
        if not isinstance(self.grace, Real):
            raise StudyError(f"grace {shortened(repr(self.grace))}: must be a number of seconds", setting="grace")
        if not self.grace >= 0:
            raise StudyError(f"grace {self.grace:g}: must be 0 seconds or more", setting="grace")
        if self.features not in get_args(Features):
            known = ", ".join(get_args(Features))
            raise StudyError(f"features {self.features}: must be one of {known}", setting="features")
        if self.cluster is not None:
            local_workers(self.cluster)
            if self.jobs is not None:
                raise StudyError("jobs: is for this machine; a cluster uses all its workers", setting="jobs")
            if self.device not in {"auto", "cpu", "cuda"}:
                raise StudyError(f"device {self.device}: must be auto, cpu or cuda on a cluster", setting="device")

    def devices(self) -> list[str]:
        """Return the device of each worker process on this machine.

        Raises:
            StudyError: there is no such device.
        """
        devices = usable_devices(self.device)
        if devices == ["cpu"]:
            return devices * (self.jobs or cpu_count())
        if self.jobs is not None and self.jobs != len(devices) * self.fleets_per_device:
            raise StudyError(
                f"jobs {self.jobs}: is for CPUs; on GPUs, `fleets_per_device` processes share each GPU", setting="jobs"
            )
        return devices * self.fleets_per_device

    def cluster_device(self) -> str:
        """Return the kind of device of the cluster's workers: cpu or cuda.

        Raises:
            StudyError: there is no such device.
        """
        if (self.cluster or "").startswith("local:"):
            return usable_devices(self.device)[0].partition(":")[0]
        return "cpu" if self.device == "auto" else self.device.partition(":")[0]


def usable_devices(name: str) -> list[str]:
    """Return the devices that auto, cpu, cuda or cuda:i means.

    Raises:
        StudyError: there is no such device.
    """
    if name == "cpu":
        return [name]
    kind, colon, number = name.partition(":")
    if name != "auto" and (kind != "cuda" or bool(colon) != number.isdecimal()):
        raise StudyError(f"device {name}: must be auto, cpu, cuda or cuda:i", setting="device")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not count:
        return ["cpu"]
    numbers = [int(number)] if number else list(range(count))
    if not numbers or numbers[-1] >= count:
        raise StudyError(f"device {name}: this machine has {count} CUDA devices; try cpu", setting="device")
    return [f"cuda:{i}" for i in numbers]


def make_fleets(
    cells: Sequence[Cell], slots: int, fleet: int | None, free: int | None, together: Callable[[Cell], int]
) -> list[list[Cell]]:
    """Group cells that can run together, and cut the groups into fleets of about equal size.

    Args:
        cells: in the order in which they should run.
        slots: number of fleets that can run at once.
        fleet: the largest size of a fleet; None for an automatic choice.
        free: bytes of free memory on each GPU; None on CPUs.
        together: returns the largest useful size of a fleet of cells like the given cell (see `cells_together`).
    """
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset_key, cell.posterior, cell.policy.acquires_all), []).append(cell)
    turns = CPU_TURNS if free is None else 1
    spread = -(-len(cells) // (max(slots, 1) * turns))  # leaves no slot empty; a cluster can have no slots yet
    fleets = []
    for group in groups.values():
        size = fleet or min(together(group[0]), spread)
        pieces = -(-len(group) // size)
        ends = [len(group) * number // pieces for number in range(pieces + 1)]
        fleets += [group[start:end] for start, end in pairwise(ends)]
    position = {cell.directory: number for number, cell in enumerate(cells)}
    return sorted(fleets, key=lambda cells: position[cells[0].directory])


def cells_together(cell: Cell, free: int | None, features: int, dimension: int) -> int:
    """Return how many cells should train together: on a GPU as many as fit, on a CPU a few if heads are small.

    Args:
        cell: one of the cells.
        free: bytes of the GPU's free memory; None on a CPU.
        features: bytes of the data set's response features as float32; features that do not fit are streamed.
        dimension: length of a response's features.
    """
    each = cell.posterior.training_bytes(dimension)
    if free is None:
        return max(1, min(CPU_FLEET, CPU_FLEET_BYTES // each))
    usable = int(FREE_SHARE * free)
    if features < usable:
        usable -= features
    return max(1, usable // each)


def placed(cells: int, sizes: Sequence[int], slots: int, location: str) -> str:
    """Describe a placement in one line: 25 cells as 25 fleets of 1 on 2 processes (cpu)."""
    size = f"{min(sizes)} to {max(sizes)}" if len(set(sizes)) > 1 else f"{sizes[0]}"
    processes = max(1, min(slots, len(sizes)))
    return f"{count(cells, 'cell')} as {count(len(sizes), 'fleet')} of {size} on {_processes(processes)} ({location})"


def _processes(number: int) -> str:
    return f"{number:,} process{'es' if number != 1 else ''}"


def local_workers(address: str) -> int:
    """Return N of local:N, and 0 for any other address.

    Raises:
        StudyError: the address has none of the known forms.
    """
    if local := re.fullmatch(r"local:([1-9]\d{0,3})", address):
        return int(local[1])
    remote = re.fullmatch(r"(?:tcp|tls)://(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", address)
    if remote is None or not 0 < int(remote[1]) < 65536:
        raise StudyError(f"cluster {address}: must be {FORMS}", setting="cluster")
    return 0
