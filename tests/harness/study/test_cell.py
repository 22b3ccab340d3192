"""Keys: what determines a result and nothing else."""

import dataclasses
import re

import pytest

from balbench.harness import registry
from balbench.harness.errors import StudyError
from balbench.harness.policies.uncertainty import Bald
from balbench.harness.study.study import check_study
from support.studies import TINY, tiny


def cells_of(**changes):
    return check_study(tiny(**changes), "t").cells


def keys_of(**changes):
    return {(cell.label, cell.seed): cell.keys for cell in cells_of(**changes)}


@pytest.fixture
def register(monkeypatch):
    """Register a policy for the time of a test."""

    def register_(name, cls):
        monkeypatch.setitem(registry._registered["policies"], name, cls)

    return register_


def test_a_label_changes_neither_keys_nor_directories():
    before = cells_of()
    renamed = cells_of(policies=[{"name": "random", "label": "Uniform"}, *TINY["policies"][1:]])
    assert [cell.keys for cell in renamed] == [cell.keys for cell in before]
    assert [cell.directory for cell in renamed] == [cell.directory for cell in before]
    assert renamed[0].label == "Uniform"


def test_moved_code_keeps_its_results(monkeypatch):
    before = cells_of()
    moved = type("Renamed", (Bald,), {"__module__": "balbench.harness.policies.elsewhere"})
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: moved if name == "bald" else load(kind, name))
    assert [cell.keys for cell in cells_of()] == [cell.keys for cell in before]


def test_more_rounds_continue_the_same_cell():
    fewer, more = (cells_of(protocol=TINY["protocol"] | {"rounds": rounds}) for rounds in (3, 6))
    assert [cell.keys for cell in fewer] == [cell.keys for cell in more]
    assert (fewer[0].rounds, more[0].rounds) == (3, 6)


def test_a_grid_over_rounds_has_cells_of_the_same_key():
    cells = cells_of(grid={"protocol.rounds": [2, 4]}, policies=["random"], seeds=1, full_data=False)
    assert [cell.rounds for cell in cells] == [2, 4]
    assert len({cell.directory for cell in cells}) == 1


def test_cells_of_one_setting_share_its_key_and_cells_of_one_policy_its_key():
    keys = keys_of(policies=["random", "bald", {"name": "bald", "label": "own", "posterior": "laplace"}])
    assert len({key.setting for key in keys.values()}) == 1
    assert len({key.policy for key in keys.values()}) == 4
    assert keys["bald", 0].policy == keys["bald", 1].policy != keys["own", 0].policy


@pytest.mark.parametrize("name", ["-rf", "--", "Ünïcode", "a/../b", "x" * 300, "𝔘"])
def test_directories_of_cells_are_plain_names(register, name):
    class Mine(Bald):
        """A policy."""

        def select(self, view, batch_size, stream):
            return super().select(view, batch_size, stream)

    register(name, Mine)
    for cell in cells_of(policies=["random", {"name": name}]):
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-seed\d+-[0-9a-f]{12}", cell.directory)
        assert len(cell.directory) < 80


def test_an_edited_class_is_another_policy(register):
    def made(power):
        class Mine(Bald):
            """A policy."""

            def select(self, view, batch_size, stream):
                assert power
                return super().select(view, batch_size, stream)

        return Mine

    keys = []
    for power in (1, 2, 1):
        register("own_policy", made(power))
        keys.append(keys_of(policies=["random", "own_policy"]))
    assert keys[0] == keys[2]
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == [("own_policy", 0), ("own_policy", 1)]


def test_a_plug_in_is_known_by_its_distribution_and_version(monkeypatch):
    def keys(distribution, source):
        origin = registry.Origin(distribution, source)
        known = registry.origin
        monkeypatch.setattr(registry, "origin", lambda kind, name: origin if name == "bald" else known(kind, name))
        cell = next(cell for cell in cells_of() if cell.label == "bald")
        return cell.key, dict(cell.sources)

    first, edited, other = keys("plug-in", "a"), keys("plug-in", "b"), keys("another", "a")
    assert first[0] == edited[0] != other[0]
    assert (first[1], edited[1]) == ({"policies bald": "a"}, {"policies bald": "b"})


@pytest.mark.parametrize(
    ("policies", "reference", "label"),
    [
        (["random", "bald"], "random", "random"),
        ([{"name": "random", "label": "Uniform"}, "bald"], "random", "Uniform"),
        ([{"name": "random", "label": "Uniform"}, "bald"], "Uniform", "Uniform"),
        ([{"name": "random", "label": "Uniform"}, {"name": "bald", "label": "random"}], "random", "random"),
    ],
)
def test_the_reference_is_known_by_label_or_name(policies, reference, label):
    study = check_study(tiny(policies=policies, reference=reference), "t")
    assert study.file.reference == label


def test_a_name_of_several_policies_is_no_reference():
    twice = [{"name": "bald", "label": "a"}, {"name": "bald", "label": "b", "posterior": "laplace"}]
    with pytest.raises(StudyError, match="reference: 2 policies have the name 'bald'; give the label of one: a, b"):
        check_study(tiny(policies=twice, reference="bald"), "t")


def test_cells_are_values():
    assert cells_of() == cells_of()
    assert dataclasses.replace(cells_of()[0], label="x").directory == cells_of()[0].directory
