"""The keys of a study file, with their types and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from balbench.harness.errors import StudyError
from balbench.harness.study.cell import Protocol
from balbench.harness.study.settings import A_COMPONENT, shown

COMPONENTS = {"dataset": "datasets", "oracle": "oracles", "posterior": "posteriors"}
LEAST_REFERENCE_SEEDS = 20  # default; with six seeds, the error of the reference alone was worth 29% of the labels
MOST_CELLS = 1_000_000  # largest number of cells of a study, because all cells are made at once
# Requirements of values that are more helpful than the names of their types.
REQUIREMENTS = {
    "name": "must be 1 to 100 letters, digits and . _ -, and begin with a letter or a digit; quote a number",
    "description": "must be a text; quote it",
    "reference": "must be the label of a policy",
    "seeds": "must be a number of seeds, or a list of seeds",
    "reference_seeds": "must be a number of seeds, or a list of seeds",
    "protocol": "must be a mapping of initial, batch and rounds",
    "grid": "must be a mapping such as {posterior.members: [2, 5]}; leave it out if nothing varies",
    "grid.*": "must be a list of values, as in {posterior.members: [2, 5]}",
    "posteriors": "must be a mapping such as {ensemble: {name: ensemble}, linear: bayesian_linear}",
    "posteriors.*": A_COMPONENT,
    "policies": "must be a list of one or more policies",
    "policies.*": A_COMPONENT,
    **dict.fromkeys(COMPONENTS, A_COMPONENT),
}


def _as_mapping(component: Any) -> Any:
    """Convert a component that is only a name to a mapping."""
    return {"name": component} if isinstance(component, str) else component


def _as_list(seeds: Any) -> Any:
    """Convert a number of seeds to the list of seeds."""
    if not isinstance(seeds, int) or isinstance(seeds, bool):
        return seeds
    if not 1 <= seeds <= MOST_CELLS:
        raise ValueError(f"must be at least 1 and at most {MOST_CELLS:,}, not {shown(seeds)}")
    return list(range(seeds))


ComponentSettings = Annotated[dict[str, Any], BeforeValidator(_as_mapping)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class StudyFile(BaseModel):
    """The keys of a study file. A component is a name, or a mapping with `name` and settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the study: title of the report and name of the default run directory."""
    description: str = ""
    """The question that the study answers."""
    dataset: ComponentSettings
    """The data set."""
    oracle: ComponentSettings = {"name": "replay"}
    """The simulated annotator."""
    posterior: ComponentSettings | None = None
    """The reward model with its uncertainty. Required unless `posteriors` is given."""
    posteriors: dict[str, ComponentSettings] = {}
    """Several posteriors by label, instead of `posterior`. Each runs with all policies, the reference included, so that
    verdicts can be compared: they are settings of the study."""
    policies: list[ComponentSettings] = Field(min_length=1)
    """The policies. A policy may have a `label`, its name in plots, and its own `posterior`."""
    reference: str = "random"
    """The policy that label savings are measured against: its label, or its name if only one policy has that name."""
    seeds: Annotated[list[Seed], BeforeValidator(_as_list)] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    """A number of seeds (5 means 0 to 4), or a list of seeds."""
    reference_seeds: Annotated[int, Field(strict=True)] | list[Seed] | None = None
    """Seeds of the reference, in each setting: a number of seeds, or a list that contains `seeds`. The reference has
    the study's seeds first, then the smallest others. By default 20, or twice the number of seeds if that is more:
    the error of the reference is part of every number of savings."""
    protocol: Protocol
    """How many labels are bought and when."""
    full_data: bool = False
    """Whether to train once per seed on the whole pool, as a reference line in the report."""
    grid: dict[str, list[Any]] = {}
    """Values of dotted keys; the study runs all combinations."""


def reference_seeds(file: StudyFile, source: str) -> list[int]:
    """Return the seeds of the reference: the study's seeds, then further seeds.

    Args:
        file: the study.
        source: name of the file, for errors.

    Raises:
        StudyError: `reference_seeds` is out of range, lacks one of the study's seeds, or repeats a seed.
    """
    here, value, own = f"{source}: reference_seeds", file.reference_seeds, set(file.seeds)
    if isinstance(value, list):
        if len(set(value)) < len(value):
            raise StudyError(f"{here}: a seed occurs twice in {shown(value)}; remove one")
        if missing := own - set(value):
            raise StudyError(f"{here}: must contain the study's seeds; add {shown(sorted(missing))}")
        return [*file.seeds, *(seed for seed in value if seed not in own)]
    number = default_reference_seeds(len(own)) if value is None else value
    if number < len(own):
        raise StudyError(f"{here}: must be at least the number of seeds, {len(own)}, not {shown(value)}")
    if value is not None and value > MOST_CELLS:
        raise StudyError(f"{here}: must be at most {MOST_CELLS:,}, not {shown(value)}")
    return extended(file.seeds, count(), number)


def with_seeds(reference: Any, seeds: Any) -> Any:
    """Return `reference_seeds` of a study file, raised to the seeds that a caller gives instead of the file's.

    A value that is no number and no list of numbers is returned as it is; the check of the study refuses it.
    """
    listed = isinstance(seeds, list) and all(_is_integer(seed) for seed in seeds)
    if _is_integer(reference) and (listed or _is_integer(seeds)):
        return max(reference, len(set(seeds)) if listed else seeds)
    if isinstance(reference, list) and (listed or (_is_integer(seeds) and seeds <= MOST_CELLS)):
        return [*reference, *(seed for seed in (seeds if listed else range(seeds)) if seed not in reference)]
    return reference


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def default_reference_seeds(seeds: int) -> int:
    """Return the default number of seeds of the reference, for a number of seeds of the policies."""
    return max(LEAST_REFERENCE_SEEDS, 2 * seeds)


def extended(seeds: Sequence[int], others: Iterable[int], number: int) -> list[int]:
    """Return `number` seeds: all of `seeds`, then the first of `others` that are new."""
    chosen = dict.fromkeys(seeds)
    for seed in others:
        if len(chosen) >= number:
            break
        chosen[seed] = None
    return list(chosen)
