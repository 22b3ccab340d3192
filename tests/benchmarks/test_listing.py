"""Every setting that a study can have is documented, and `list` shows the documentation."""

import pytest
from rich.console import Console

from balbench.benchmarks.listing import component_details, components_table, studies_table
from balbench.harness import registry
from balbench.harness.policies.random import Random
from balbench.harness.study.cell import Protocol
from balbench.harness.study.study_file import StudyFile


def printed(renderable) -> str:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry.BUILT_IN[kind]]
)
def test_every_setting_of_every_component_is_documented(kind, name):
    component = registry.load(kind, name)
    undocumented = [setting for setting, field in component.model_fields.items() if not field.description]
    assert not undocumented
    assert "Attributes:" not in (component.__doc__ or "")
    details = printed(component_details(kind, name))
    assert all(setting in details for setting in component.model_fields)


@pytest.mark.parametrize("model", [StudyFile, Protocol])
def test_every_key_of_a_study_is_documented(model):
    assert all(field.description for field in model.model_fields.values())


def test_a_component_without_settings_says_so():
    assert "There are no settings." in printed(component_details("policies", "full_data"))


def test_settings_of_base_classes_and_presets_are_shown():
    details = printed(component_details("posteriors", "ensemble"))
    assert "preset melo2024: members 5, hidden [2048, 256]" in details
    assert "data_seed" in printed(component_details("datasets", "simulated"))


def test_registered_components_and_studies_are_listed(monkeypatch):
    class Mine(Random):
        """A policy of a test."""

        family, source, cost = "mine", "this test", "1"

    monkeypatch.setitem(registry._registered["policies"], "mine", Mine)
    table = printed(components_table("policies"))
    assert all(text in table for text in ("bal_pm", "Houlsby", "mine", "this test", "A policy of a test."))
    assert "quickstart" in printed(studies_table())
