"""`balbench check`: the cells of a study, with estimated memory and time from a short probe of this machine."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import torch
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from balbench.harness.errors import StudyError, answer_of
from balbench.harness.machine import count, duration, gib, ranges, usable_memory
from balbench.harness.pool.contents import Sizes
from balbench.harness.posteriors.posterior import LabelledPairs, Posterior
from balbench.harness.rounds.worker import free_bytes
from balbench.harness.running.data_directory import budget_lines, check_sizes
from balbench.harness.running.placement import Placement, cells_together, make_fleets, placed, usable_devices
from balbench.harness.streams import stream
from balbench.harness.study.cell import Cell
from balbench.harness.study.study import Study

PROBE_PAIRS = 256
SMALLER = "lower posterior.hidden, posterior.members or the features' dimension"
WORKER_BYTES = 400 * 2**20  # a process with torch and its libraries


@dataclass(frozen=True)
class Probe:
    """Measured times of a posterior on this machine.

    Attributes:
        label_seconds: seconds to train on one more labelled pair.
        response_seconds: seconds to score one response.
    """

    label_seconds: float
    response_seconds: float


def plan(study: Study, placement: Placement) -> Group:
    """Return a table of all cells, grouped by setting and policy, and lines about the data, memory and time.

    Raises:
        BalbenchError: the data are missing or wrong, or too few for the protocol.
    """
    table = Table(
        "setting", "policy", "seeds", "rounds", "labels", title=f"{study.file.name}: {len(study.cells)} cells"
    )
    for group in _groups(study):
        first = group[0]
        labels = "all" if first.policy.acquires_all else f"{first.protocol.budget:,}"
        seeds = ranges(cell.seed for cell in group)
        table.add_row(escape(first.setting), escape(first.label), seeds, str(first.rounds), labels)
    return Group(table, *_needs(study, placement))


def _groups(study: Study) -> list[list[Cell]]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in study.cells:
        groups.setdefault((cell.setting, cell.label), []).append(cell)
    return list(groups.values())


@dataclass(frozen=True)
class _Machines:
    """The devices that a study would run on.

    Attributes:
        name: devices of this machine, or the address of a cluster.
        slots: number of fleets that run at once; 0 for a cluster without workers.
        free: bytes of free GPU memory for a fleet, None on CPUs.
        probed: a device of this machine of the same kind; None if there is none.
    """

    name: str
    slots: int
    free: int | None
    probed: str | None


def _machines(placement: Placement) -> _Machines:
    if placement.cluster is not None:
        return _cluster(placement.cluster, placement.cluster_device())
    devices = placement.devices()
    free = free_bytes(devices[0])
    share = None if free is None else free // devices.count(devices[0])
    return _Machines(", ".join(dict.fromkeys(devices)), len(devices), share, devices[0])


def _cluster(address: str, device: str) -> _Machines:
    from balbench.harness.running.dask_engine import connected

    with closing(connected(address, device, Path())) as engine:
        slots = engine.slots
        free = engine.free_bytes() if slots else None
    try:
        probed = usable_devices(device)[0]
    except StudyError:
        probed = None
    return _Machines(address, slots, free, probed)


def _data(study: Study) -> tuple[dict[str, Sizes], list[str]]:
    """Return the sizes of each setting's data set, and lines about the data sets."""
    sizes: dict[str, Sizes] = {}
    lines: list[str] = []
    known: dict[str, tuple[Sizes, list[str]]] = {}
    budgets: dict[str, None] = {}
    for setting, group in groupby(study.cells, key=lambda cell: cell.setting):
        cells = list(group)
        if (key := cells[0].dataset_key) not in known:
            known[key] = answer_of(cells[0].dataset.examine, tuple)
            data_sizes, data_lines = known[key]
            lines += [f"data{f' ({setting})' if setting else ''}: {data_sizes}", *data_lines]
        sizes[setting] = known[key][0]
        check_sizes(cells, sizes[setting])
        if (eval_pairs := sizes[setting].eval_pairs) is not None:
            budgets |= dict.fromkeys(budget_lines(cells, sizes[setting].pairs, eval_pairs))
    return sizes, [*lines, *budgets]


def _needs(study: Study, placement: Placement) -> list[str]:
    machines = _machines(placement)
    sizes, lines = _data(study)

    def largest_fleet(cell: Cell) -> int:
        data = sizes[cell.setting]
        return cells_together(cell, machines.free, data.response_bytes, data.dimension)

    fleets = make_fleets(study.running_order, machines.slots, placement.fleet, machines.free, largest_fleet)
    placement_line = placed(len(study.cells), [len(cells) for cells in fleets], machines.slots, machines.name)
    workers = max(1, min(machines.slots, len(fleets)))
    lines.append(f"placement: {placement_line}{'' if machines.slots else '; it has no worker yet'}")
    lines.append(f"memory: {_memory(max(data.bytes for data in sizes.values()), workers, placement.cluster)}")
    if machines.free is not None:
        most = max(_device_bytes(cells, sizes[cells[0].setting]) for cells in fleets)
        lines.append(f"GPU memory: about {gib(most)} a worker, {gib(machines.free)} free for each")
    if machines.probed is None:
        return [*lines, "time: unknown, as this machine has no GPU to probe"]
    seconds = sum(_fleet_seconds(cells, sizes, machines.probed) for cells in fleets)
    estimate = f"about {duration(seconds / workers)} to train and score, by a probe of this machine"
    return [*lines, f"time: {estimate}; building the data, selection by the policies and the report add to this"]


def _memory(features: int, workers: int, cluster: str | None) -> str:
    """Describe the memory; workers of one machine map the same files, so features count once."""
    each = f"{gib(WORKER_BYTES)} each beside the features, which they share"
    if cluster is not None and not cluster.startswith("local:"):
        return f"about {gib(features)} of features on each machine, and {gib(WORKER_BYTES)} a worker"
    return f"about {gib(features + workers * WORKER_BYTES)} ({count(workers, 'worker')}, {each})"


def _device_bytes(cells: list[Cell], sizes: Sizes) -> int:
    return sizes.response_bytes + len(cells) * cells[0].posterior.training_bytes(sizes.dimension)


def _fleet_seconds(cells: list[Cell], sizes: dict[str, Sizes], device: str) -> float:
    dimension = sizes[cells[0].setting].dimension
    probe = _probe(cells[0].posterior, dimension, device, len(cells))
    return sum(cell_seconds(cell, sizes[cell.setting], probe) for cell in cells)


@cache
def _probe(posterior: Posterior, dimension: int, device: str, cells: int) -> Probe:
    return measure(posterior, dimension, device, cells)


def measure(posterior: Posterior, dimension: int, device: str, cells: int = 1) -> Probe:
    """Time one short training of a fleet and one scoring on random features, on one thread as in a worker.

    Raises:
        StudyError: the posterior cannot be trained, or does not fit into memory.
    """
    needed = cells * posterior.training_bytes(dimension) if device == "cpu" else 0
    if needed > (available := usable_memory()):
        raise StudyError(f"posterior: training takes {gib(needed)} of memory, of {gib(available)}; {SMALLER}")
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    generator = stream(0, "probe").torch()
    try:
        features_RD = torch.randn(2 * PROBE_PAIRS, dimension, generator=generator).to(device)
        pairs = LabelledPairs(
            features_RD,
            torch.arange(2 * PROBE_PAIRS, device=device).view(-1, 2),
            torch.ones(PROBE_PAIRS, device=device),
        )
        first_pair = LabelledPairs(features_RD[:2], pairs.responses_n2[:1], pairs.label_n[:1])
        posterior = posterior.tuned(first_pair, first_pair)
        posterior.fit(first_pair, first_pair, stream(0, "warm-up"))
        started = time.perf_counter()
        models = posterior.fit_fleet([pairs] * cells, first_pair, [stream(n, "probe") for n in range(cells)])
        if device != "cpu":
            torch.cuda.synchronize(device)
        after_training = time.perf_counter()
        if isinstance(model := models[0], Exception):
            raise model
        model.rewards_KR(features_RD).sum().item()
        after_scoring = time.perf_counter()
    except (ArithmeticError, RuntimeError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"posterior: a short probe failed ({reason}); change its settings, or {SMALLER}") from None
    finally:
        torch.set_num_threads(threads)
    return Probe((after_training - started) / PROBE_PAIRS / cells, (after_scoring - after_training) / len(features_RD))


def cell_seconds(cell: Cell, sizes: Sizes, probe: Probe) -> float:
    """Estimate the seconds of a cell: training, evaluation on all splits, and scoring of the pool."""
    if cell.policy.acquires_all:
        labels = [sizes.pairs]
    else:
        labels = [cell.protocol.labels_at(number, sizes.pairs) for number in range(cell.rounds)]
    scored = sizes.held_out_responses + (sizes.responses if cell.policy.needs_rewards else 0)
    contents = cell.dataset.contents()
    held_out = 3 if contents is None else len(contents.splits) - 1
    eval_responses = sizes.held_out_responses / held_out  # the size of a single split is not known
    return sum(
        n * probe.label_seconds + (scored + cell.posterior.evaluations(n) * eval_responses) * probe.response_seconds
        for n in labels
    )
