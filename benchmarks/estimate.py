"""`balbench check`: the cells of a study, with estimated memory and time from a short probe of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from harness.datasets.dataset import Sizes
from harness.errors import StudyError
from harness.posteriors.posterior import AnsweredPairs, Posterior
from harness.progress import duration
from harness.scheduler import check_budgets
from harness.streams import stream
from harness.study import Cell, Study

PROBE_PAIRS = 256
WORKER_BYTES = 400 * 2**20  # a process with torch and its libraries


@dataclass(frozen=True)
class Probe:
    """Seconds that a posterior took here: to train on a pair once more, and to score a response."""

    a_label: float
    a_response: float


def plan(study: Study, jobs: int, device: str) -> Group:
    """Tables of all cells, grouped by setting and policy, and of what the study needs.

    Raises:
        BalbenchError: the data are missing or wrong, or too few for the protocol.
    """
    table = Table(
        "setting", "policy", "seeds", "rounds", "labels", title=f"{study.file.name}: {len(study.cells)} cells"
    )
    for group in _groups(study):
        first = group[0]
        labels = "all" if first.policy.acquires_all else f"{first.protocol.budget:,}"
        seeds = ", ".join(str(cell.seed) for cell in group)
        table.add_row(escape(first.setting), escape(first.label), seeds, str(first.rounds), labels)
    return Group(table, *_needs(study, jobs, device))


def _groups(study: Study) -> list[list[Cell]]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in study.cells:
        groups.setdefault((cell.setting, cell.label), []).append(cell)
    return list(groups.values())


def _needs(study: Study, jobs: int, device: str) -> list[str]:
    settings = {cell.setting: cell for cell in study.cells}
    sizes = {setting: cell.dataset.sizes() for setting, cell in settings.items()}
    lines, seconds, memory = [], 0.0, 0
    for setting in settings:
        known = sizes[setting]
        mine = [other for other in study.cells if other.setting == setting]
        check_budgets(mine, known.pairs)
        lines.append(f"data{f' ({setting})' if setting else ''}: {known}")
        posteriors = dict.fromkeys(other.posterior for other in mine)
        probes = {posterior: measure(posterior, known.dimension, device) for posterior in posteriors}
        seconds += sum(cell_seconds(other, known, probes[other.posterior]) for other in mine)
        memory = max(memory, known.bytes)
    workers = min(jobs, len(study.cells))
    # Workers map the same files, so features count once, whatever the number of workers.
    lines.append(f"memory: about {(memory + workers * WORKER_BYTES) / 2**30:.1f} GiB ({workers} workers on {device})")
    lines.append(f"time: about {duration(seconds / workers)} from a probe of this machine, data apart")
    return lines


def measure(posterior: Posterior, dimension: int, device: str) -> Probe:
    """Time one short training and one scoring on made-up features, on one thread as in a worker.

    Raises:
        StudyError: the posterior cannot be trained, or does not fit into memory.
    """
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    generator = stream(0, "probe").torch()
    features_RD = torch.randn(2 * PROBE_PAIRS, dimension, generator=generator).to(device)
    pairs = AnsweredPairs(
        features_RD,
        torch.arange(2 * PROBE_PAIRS, device=device).view(-1, 2),
        torch.ones(PROBE_PAIRS, device=device),
    )
    few = AnsweredPairs(features_RD[:2], pairs.responses_n2[:1], pairs.target_n[:1])
    try:
        posterior.fit(few, few, stream(0, "warm-up"))
        started = time.perf_counter()
        model = posterior.fit(pairs, few, stream(0, "probe"))
        trained = time.perf_counter()
        model.rewards_KR(features_RD).sum().item()
        scored = time.perf_counter()
    except (ArithmeticError, RuntimeError, MemoryError) as error:
        raise StudyError(f"posterior: a short probe failed ({str(error).splitlines()[0]})") from None
    finally:
        torch.set_num_threads(threads)
    return Probe((trained - started) / PROBE_PAIRS, (scored - trained) / len(features_RD))


def cell_seconds(cell: Cell, sizes: Sizes, probe: Probe) -> float:
    """Estimated seconds of a cell: its trainings, their evaluations on all splits, the scoring of the pool."""
    if cell.policy.acquires_all:
        labels = [sizes.pairs]
    else:
        labels = [cell.protocol.labels_at(number, sizes.pairs) for number in range(cell.rounds)]
    scored = sizes.held_out_responses + (sizes.responses if cell.policy.needs_rewards else 0)
    # In-training evaluations see the eval split about once an epoch; they count as one more scoring of all splits.
    return sum(n * probe.a_label + 2 * scored * probe.a_response for n in labels)
