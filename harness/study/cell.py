"""Cells, the units of result, and the keys that identify their results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from balbench.harness import registry
from balbench.harness.component import Component
from balbench.harness.datasets.dataset import Dataset
from balbench.harness.errors import answer_of
from balbench.harness.policies.policy import Policy
from balbench.harness.posteriors.posterior import Posterior
from balbench.harness.results.records import CellFacts, CellHeader
from balbench.harness.source_hash import development_digest
from balbench.oracles.oracle import Oracle

LOOP_VERSION = 11  # raise it when the loop gives other bytes for the same cell
LONGEST_NAME = 40  # largest number of characters of a policy's name in the name of a directory


class Protocol(BaseModel):
    """How many labels are bought and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    initial: int = Field(ge=1, le=10**9, strict=True)
    """Labels bought at random before the first round."""
    batch: int = Field(ge=1, le=10**9, strict=True)
    """Labels bought after each round except the last."""
    rounds: int = Field(ge=1, le=10**6, strict=True)
    """Number of times the posterior is fitted and evaluated: initial + (rounds - 1) x batch labels in total."""

    @property
    def budget(self) -> int:
        """Total number of labels."""
        return self.initial + (self.rounds - 1) * self.batch

    def labels_at(self, round_: int, pool_size: int) -> int:
        """Return the number of labels on which round `round_` trains; the last batch can be smaller."""
        return min(self.initial + round_ * self.batch, pool_size)


class Keys(NamedTuple):
    """Hashes of everything that determines the result of a cell.

    No key depends on labels, module paths or the number of rounds, so that more rounds of a cell continue its earlier
    rounds.

    Attributes:
        dataset: the data set, including the contents of its files.
        setting: everything that policies of a setting share: data set, oracle, posterior and protocol.
        policy: the policy, and its own posterior if it has one.
        cell: all of these, and the seed.
    """

    dataset: str
    setting: str
    policy: str
    cell: str


@dataclass(frozen=True)
class Cell:
    """One (dataset, oracle, posterior, policy, seed) with its protocol: the unit of result.

    Attributes:
        setting: the grid's values, "" without a grid.
        policy_name: the policy's name in study files.
        label: the policy's name in plots.
        keys: hashes of everything that determines the result.
        sources: hash of the source of each component that comes from a plug-in, by kind and name.
        posterior_name: the name of the setting's posterior in study files.
        own_posterior: name of the policy's own posterior, "" if the policy uses the study's posterior.
    """

    setting: str
    policy_name: str
    label: str
    seed: int
    dataset: Dataset
    oracle: Oracle
    posterior: Posterior
    policy: Policy
    protocol: Protocol
    keys: Keys
    sources: Mapping[str, str]
    posterior_name: str
    own_posterior: str = ""

    @property
    def key(self) -> str:
        """Hash of everything that determines the result."""
        return self.keys.cell

    @property
    def dataset_key(self) -> str:
        """Hash of everything that determines the data set."""
        return self.keys.dataset

    @property
    def directory(self) -> str:
        """The name of the cell's directory; cells with the same key have the same directory."""
        slug = re.sub("[^a-z0-9]+", "-", self.policy_name.lower()).strip("-")[:LONGEST_NAME].strip("-")
        return f"{slug or 'policy'}-seed{self.seed}-{self.key[:12]}"

    @property
    def title(self) -> str:
        """Name of the cell in messages."""
        return f"{self.label}, seed {self.seed}" + (f" ({self.setting})" if self.setting else "")

    @property
    def rounds(self) -> int:
        """Number of rounds to run; one for a policy that acquires the whole pool at once."""
        return 1 if self.policy.acquires_all else self.protocol.rounds

    @property
    def facts(self) -> CellFacts:
        """The contents of cell.json."""
        return {"key": self.key, "sources": dict(self.sources), "code": development_digest()}

    @property
    def header(self) -> CellHeader:
        """The cell's entry in study.json."""
        own = {"posterior": self.own_posterior} if self.own_posterior else {}
        return {
            "setting": self.setting,
            "policy": self.label,
            "seed": self.seed,
            "key": self.key,
            "keys": {"dataset": self.keys.dataset, "setting": self.keys.setting, "policy": self.keys.policy},
            "directory": self.directory,
            "rounds": self.rounds,
            "full_data": self.policy.acquires_all,
            "settings": {"name": self.policy_name, **self.policy.model_dump(mode="json"), **own},
        }


class Part(NamedTuple):
    """A component with its name in study files.

    Attributes:
        kind: datasets, oracles, posteriors or policies.
        name: the name in the registry.
        component: the object with its settings.
    """

    kind: str
    name: str
    component: Any

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines a component (origin, version and settings) as plain values."""
        origin = registry.origin(self.kind, self.name)
        source = {} if origin.distribution else {"source": origin.source}
        return {
            "name": self.name,
            "distribution": origin.distribution,
            "version": type(self.component).version,
            "settings": plain_settings(self.component),
        } | source


def plain_settings(component: Component | Oracle) -> dict[str, Any]:
    """Return the settings of a component that determine results, as plain values."""
    return component.model_dump(mode="json", exclude=set(getattr(type(component), "outside_key", ())))


class SettingKeys:
    """Computes the keys of all cells of one setting."""

    def __init__(self, dataset: Part, oracle: Part, posterior: Part, protocol: Protocol) -> None:
        """Hash the parts that all cells share.

        Raises:
            DataError: the data set's source cannot be read.
        """
        self._parts = (dataset, oracle, posterior)
        self._oracle, self._posterior = oracle.identity, posterior.identity
        self._protocol = protocol.model_dump(exclude={"rounds"})
        self._dataset_key = digest([dataset.identity, answer_of(dataset.component.source_key, str)])
        self._key = digest([self._dataset_key, self._oracle, self._posterior, LOOP_VERSION, self._protocol])

    def keys(self, policy: Part, own_posterior: Part | None, seeds: list[int]) -> list[Keys]:
        """Return the keys of a policy's cells, one for each seed."""
        own = own_posterior.identity if own_posterior else None
        protocol = None if policy.component.acquires_all else self._protocol
        policy_identity = policy.identity
        shared = [self._dataset_key, self._oracle, own or self._posterior, LOOP_VERSION, protocol, policy_identity]
        policy_key = digest([policy_identity, own])
        return [Keys(self._dataset_key, self._key, policy_key, digest([*shared, seed])) for seed in seeds]

    def sources(self, policy: Part, own_posterior: Part | None) -> dict[str, str]:
        """Return the hashes of the sources of plug-ins among the components of a policy's cells, by kind and name."""
        dataset, oracle, posterior = self._parts
        return plug_in_sources([dataset, oracle, own_posterior or posterior, policy])


def plug_in_sources(parts: Sequence[Part]) -> dict[str, str]:
    """Return the hashes of the sources of plug-ins among components, by kind and name."""
    origins = {f"{part.kind} {part.name}": registry.origin(part.kind, part.name) for part in parts}
    return {name: origin.source for name, origin in origins.items() if origin.distribution and origin.source}


def digest(value: Any) -> str:
    """Return the hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
