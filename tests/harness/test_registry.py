"""Names and plug-ins."""

from importlib.metadata import EntryPoint

import pytest
from rich.console import Console

from balbench.benchmarks.listing import components_table
from balbench.harness import registry
from balbench.harness.errors import StudyError
from balbench.harness.policies.policy import Policy


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
        (Stranger, "the plug-in 'new' is no subclass of balbench.harness.policies.policy.Policy; derive it from that"),
        (Stranger(), "is no subclass of"),
        (Undecided, "the plug-in 'new' lacks select; define it"),
    ],
)
def test_a_plug_in_that_is_no_policy_is_named(found, message, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"policies": {"new": found}})
    with pytest.raises(StudyError, match=message):
        registry.load("policies", "new")
