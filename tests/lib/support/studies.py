"""A study that runs in seconds."""

import copy
from pathlib import Path
from typing import Any

import yaml

TINY: dict[str, Any] = yaml.safe_load("""
name: tiny
dataset:
  {name: simulated, pool_pairs: 300, pool_prompts: 60, eval_pairs: 60, test_pairs: 120, ood_pairs: 120, dimension: 8,
   latent_dimension: 4, topics: 6}
posterior:
  {name: ensemble, members: 3, hidden: [16, 8], learning_rate: 0.01, weight_std: 0.2, evaluate_every: 20}
policies: [random, bald, bal_pm, {name: bal_pm, variant: as_coded, label: bal_pm as coded}]
seeds: 2
reference_seeds: 2
full_data: true
protocol: {initial: 10, batch: 10, rounds: 4}
""")


def tiny(**changes: Any) -> dict[str, Any]:
    """Return the tiny study with other values for some keys; the reference has the seeds of the policies."""
    reference_seeds = changes.get("seeds", TINY["seeds"])
    return copy.deepcopy(TINY | {"reference_seeds": reference_seeds} | changes)


def write_study(directory: Path, **changes: Any) -> Path:
    """Write the tiny study with other values for some keys; the reference has the seeds of the policies."""
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(**changes)), encoding="utf-8")
    return path


def bytes_of(run: Path, *names: str) -> dict[str, bytes]:
    """The bytes of all files of a run with these names (all of a run's deterministic results by default)."""
    selected = names or ("study.json", "rounds.jsonl", "predictions.f16", "manifest.json", "savings.csv")
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and (path.name in selected or (path.suffix == ".csv" and "seconds" not in path.name))
    }
