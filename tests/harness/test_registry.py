"""Names and plug-ins."""

from importlib.metadata import EntryPoint

import pytest
from rich.console import Console

from benchmarks.listing import components_table
from harness import registry
from harness.errors import StudyError


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
