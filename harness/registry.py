"""Classes by their names in study files. Plug-ins are added by entry point (group `balbench.<kind>`) or `register`."""

from __future__ import annotations

import difflib
import importlib
import re
import uuid
import warnings
import weakref
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from balbench.harness.errors import StudyError, shortened
from balbench.harness.source_hash import source_hash

KINDS = ("datasets", "oracles", "posteriors", "policies")

# Classes are given as "module:name", so that names can be listed without imports.
BUILT_IN: dict[str, dict[str, str]] = {
    "datasets": {
        "simulated": "balbench.harness.datasets.simulated:Simulated",
        "file": "balbench.harness.datasets.preference_file:PreferenceFile",
        "hub": "balbench.harness.datasets.hub:HubData",
    },
    "oracles": {"replay": "balbench.oracles.replay:Replay"},
    "posteriors": {
        "ensemble": "balbench.harness.posteriors.ensemble:Ensemble",
        "mc_dropout": "balbench.harness.posteriors.mc_dropout:McDropout",
        "epinet": "balbench.harness.posteriors.epinet:Epinet",
        "laplace": "balbench.harness.posteriors.laplace:Laplace",
        "bayesian_linear": "balbench.harness.posteriors.bayesian_linear:BayesianLinear",
        "latent_reward": "balbench.harness.posteriors.latent_reward:LatentReward",
        "feature_density": "balbench.harness.posteriors.feature_density:FeatureDensity",
    },
    "policies": {
        "random": "balbench.harness.policies.random:Random",
        "bald": "balbench.harness.policies.uncertainty:Bald",
        "predictive_entropy": "balbench.harness.policies.uncertainty:PredictiveEntropy",
        "variance": "balbench.harness.policies.uncertainty:Variance",
        "power_bald": "balbench.harness.policies.stochastic:PowerBald",
        "softmax_bald": "balbench.harness.policies.stochastic:SoftmaxBald",
        "soft_rank_bald": "balbench.harness.policies.stochastic:SoftRankBald",
        "sample_then_rank": "balbench.harness.policies.ranking:SampleThenRank",
        "one_per_prompt": "balbench.harness.policies.ranking:OnePerPrompt",
        "entropy_only": "balbench.harness.policies.bal_pm:EntropyOnly",
        "bal_pm": "balbench.harness.policies.bal_pm:BalPm",
        "double_thompson": "balbench.harness.policies.dueling:DoubleThompson",
        "infomax": "balbench.harness.policies.dueling:Infomax",
        "drts": "balbench.harness.policies.dueling:Drts",
        "delta_ucb": "balbench.harness.policies.dueling:DeltaUcb",
        "max_min_lcb": "balbench.harness.policies.dueling:MaxMinLcb",
        "arm_fi": "balbench.harness.policies.fisher:ArmFi",
        "adpo": "balbench.harness.policies.fisher:Adpo",
        "gradient_norm": "balbench.harness.policies.gradient:GradientNorm",
        "badge": "balbench.harness.policies.gradient:Badge",
        "sharpe": "balbench.harness.policies.gradient:Sharpe",
        "parbals": "balbench.harness.policies.parbals:ParBaLS",
        "batch_bald": "balbench.harness.policies.batch_bald:BatchBald",
        "epig": "balbench.harness.policies.epig:Epig",
        "llm_perplexity_high": "balbench.harness.policies.perplexity:LlmPerplexityHigh",
        "llm_perplexity_low": "balbench.harness.policies.perplexity:LlmPerplexityLow",
        "k_center": "balbench.harness.policies.coverage:KCenter",
        "k_means": "balbench.harness.policies.coverage:KMeans",
        "typiclust": "balbench.harness.policies.coverage:TypiClust",
        "max_herding": "balbench.harness.policies.herding:MaxHerding",
        "u_herding": "balbench.harness.policies.herding:UHerding",
        "full_data": "balbench.harness.policies.random:FullData",
    },
}
BASES = {
    "datasets": "balbench.harness.datasets.dataset:Dataset",
    "oracles": "balbench.oracles.oracle:Oracle",
    "posteriors": "balbench.harness.posteriors.posterior:Posterior",
    "policies": "balbench.harness.policies.policy:Policy",
}
_registered: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}
_run_only: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


class Origin(NamedTuple):
    """The origin of a component, which enters the keys of its cells.

    Attributes:
        distribution: "balbench", the distribution of a plug-in, or "" for a class given to `register`.
        source: hash of the source; "" for components of balbench.
    """

    distribution: str
    source: str


def register(kind: str, name: str, component: type) -> None:
    """Add a component under a name, for this process and its workers on this machine.

    The source of the class is part of the keys of its cells, so the cells of an edited class run again. An installed
    plug-in has an entry point instead, and increases its `version` when its results change.

    Raises:
        StudyError: the kind is unknown, or the class is not a component of that kind.
    """
    if kind not in KINDS:
        raise StudyError(f"kind {shortened(repr(kind))}: {nearest(str(kind), list(KINDS))}", setting="kind")
    if not isinstance(name, str):
        raise StudyError(f"name {shortened(repr(name))}: must be a text", setting="name")
    _registered[kind][name] = _checked(kind, name, component)


def names(kind: str) -> list[str]:
    """List the names of a kind; built-in names come first."""
    plugged_in = [point.name for point in entry_points(group=f"balbench.{kind}")]
    return list(dict.fromkeys([*BUILT_IN[kind], *plugged_in, *_registered[kind]]))


def load(kind: str, name: str) -> Any:
    """Return the class with a name.

    Raises:
        StudyError: no component has that name (the message has the most similar name), or a plug-in cannot be loaded.
    """
    if name in _registered[kind]:
        return _checked(kind, name, _registered[kind][name])
    if name in BUILT_IN[kind]:
        return _imported(BUILT_IN[kind][name])
    point = _entry_point(kind, name)
    if point is None:
        raise StudyError(f"{kind}: no {shortened(repr(name))}; {nearest(name, names(kind))}")
    try:
        component = point.load()
    except Exception as error:  # the import of a plug-in can raise any error
        summary = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(
            f"{kind}: the plug-in {name!r} ({point.value}) cannot be loaded: {summary}; fix or uninstall it"
        ) from None
    return _checked(kind, name, component)


def origin(kind: str, name: str) -> Origin:
    """Return the origin of the component with a name (errors as in `load`)."""
    component = load(kind, name)
    if name in _registered[kind]:
        return Origin("", source_hash(component) or _run_only_source(kind, name, component))
    if name in BUILT_IN[kind]:
        return Origin("balbench", "")
    point = _entry_point(kind, name)
    distribution = point.dist.name if point is not None and point.dist is not None else "unknown"
    return Origin(re.sub("[-_.]+", "-", distribution).lower(), source_hash(component) or "")


def _run_only_source(kind: str, name: str, component: type) -> str:
    """Return a random hash for a class whose source cannot be read, the same for the whole process."""
    if component not in _run_only:
        _run_only[component] = uuid.uuid4().hex
        warnings.warn(
            f"{kind}: the source of {name!r} cannot be read, so its cells run again in each new process; define the "
            "class in a file or in a cell of a notebook",
            stacklevel=2,
        )
    return _run_only[component]


def _entry_point(kind: str, name: str) -> EntryPoint | None:
    return next((point for point in entry_points(group=f"balbench.{kind}") if point.name == name), None)


def _imported(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _checked(kind: str, name: str, component: Any) -> type:
    base = _imported(BASES[kind])
    if not (isinstance(component, type) and issubclass(component, base)):
        expected = f"{base.__module__}.{base.__name__}"
        raise StudyError(f"{kind}: the plug-in {name!r} is not a subclass of {expected}; derive it from that class")
    if lacking := ", ".join(sorted(getattr(component, "__abstractmethods__", ()))):
        raise StudyError(f"{kind}: the plug-in {name!r} lacks {lacking}; define it")
    return component


def nearest(word: str, known: list[str]) -> str:
    """Return advice for an unknown word: the most similar known word, or all known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
