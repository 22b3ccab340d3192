"""Names and plug-ins."""

import types
from importlib.metadata import EntryPoint

import pytest
from rich.console import Console

from balbench.benchmarks.listing import components_table
from balbench.harness import registry
from balbench.harness.errors import StudyError
from balbench.harness.policies.policy import Policy
from balbench.harness.policies.random import Random
from balbench.harness.source_hash import source_hash


@pytest.fixture
def gone(monkeypatch):
    """A plug-in whose module is not there."""
    point = EntryPoint("gone", "nowhere_at_all.policies:Gone", "balbench.policies")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])


def test_a_plug_in_that_cannot_be_loaded_is_named(gone):
    with pytest.raises(StudyError, match=r"the plug-in 'gone' \(nowhere_at_all.policies:Gone\) cannot be loaded: No"):
        registry.load("policies", "gone")


def test_a_plug_in_that_cannot_be_loaded_leaves_the_list(gone):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(components_table("policies"))
    assert "the plug-in 'gone'" in captured.get()
    assert "bal_pm" in captured.get()


class Stranger:
    """No policy."""


class Undecided(Policy):
    """A policy that does not select."""


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            Stranger,
            "the plug-in 'new' is not a subclass of balbench.harness.policies.policy.Policy; derive it from that",
        ),
        (Stranger(), "is not a subclass of"),
        (Undecided, "the plug-in 'new' lacks select; define it"),
    ],
)
def test_a_plug_in_that_is_no_policy_is_named(found, message, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"policies": {"new": found}})
    with pytest.raises(StudyError, match=message):
        registry.load("policies", "new")


def test_registration_checks_the_class_at_once():
    with pytest.raises(StudyError, match="'new' is not a subclass of"):
        registry.register("policies", "new", Stranger)
    with pytest.raises(StudyError, match="kind 'policy': did you mean 'policies'") as error:
        registry.register("policy", "new", Stranger)
    assert error.value.setting == "kind"


class Chosen(Random):
    """A policy of a test."""

    def select(self, view, batch_size, stream):
        return super().select(view, batch_size, stream)


def test_the_origin_of_a_component_names_no_module(monkeypatch):
    point = EntryPoint("own", "somewhere:Chosen", "balbench.policies")._for(types.SimpleNamespace(name="My_Plug.in"))
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: Chosen)
    assert registry.origin("policies", "bald") == ("balbench", "")
    plugged_in = registry.origin("policies", "own")
    assert plugged_in == ("my-plug-in", source_hash(Chosen))
    monkeypatch.setattr(registry, "_registered", {"policies": {"own": Chosen}})
    assert registry.origin("policies", "own") == ("", source_hash(Chosen))


def test_a_class_without_a_source_keeps_its_key_within_a_process_only(monkeypatch):
    classes = []
    for _ in range(2):
        module = {"Random": Random, "__name__": "__main__"}
        exec("class Mine(Random):\n    def select(self, *a):\n        return super().select(*a)", module)
        classes.append(module["Mine"])
    origins = []
    for cls in classes:
        monkeypatch.setattr(registry, "_registered", {"policies": {"own": cls}})
        with pytest.warns(UserWarning, match="the source of 'own' cannot be read, so its cells run again"):
            origins.append(registry.origin("policies", "own"))
        assert registry.origin("policies", "own") == origins[-1]
    assert origins[0] != origins[1]
