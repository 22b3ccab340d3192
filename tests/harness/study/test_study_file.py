"""The seeds of the reference: those of the policies, and further seeds."""

import pytest

from balbench.harness.errors import StudyError
from balbench.harness.study.study import check_study, load_study, with_more_seeds
from support.studies import tiny


def seeds_of(label, cells):
    return [cell.seed for cell in cells if cell.label == label]


@pytest.mark.parametrize(
    ("seeds", "reference_seeds", "expected"),
    [
        (2, None, range(20)),
        (15, None, range(30)),
        ([3, 50], None, [3, 50, 0, 1, 2, *range(4, 19)]),
        ([3, 1], 4, [3, 1, 0, 2]),
        ([3, 1], 2, [3, 1]),
        ([3, 1], [9, 1, 3, 5], [3, 1, 9, 5]),
    ],
)
def test_the_reference_has_the_seeds_of_the_policies_and_further_seeds(seeds, reference_seeds, expected):
    study = check_study(tiny(seeds=seeds, reference_seeds=reference_seeds, policies=["bald", "random"]), "t")
    assert study.file.reference_seeds == list(expected)
    assert seeds_of("random", study.cells) == list(expected)
    assert seeds_of("bald", study.cells) == seeds_of("full data", study.cells) == study.file.seeds
    assert check_study(study.file.model_dump(), "t") == study


def test_the_further_seeds_of_the_reference_run_last_in_each_setting_of_a_grid():
    grid = {"posterior.members": [2, 3]}
    study = check_study(tiny(policies=["random", "bald"], reference_seeds=3, full_data=False, grid=grid), "t")
    order = [(cell.setting[-1], cell.label, cell.seed) for cell in study.running_order]
    assert order[:8] == [(members, label, seed) for members in "23" for label in ("random", "bald") for seed in (0, 1)]
    assert order[8:] == [("2", "random", 2), ("3", "random", 2)]
    assert {cell.key for cell in study.running_order} == {cell.key for cell in study.cells}


@pytest.mark.parametrize(
    ("reference_seeds", "expected"),
    [
        (None, range(24)),  # twice the number of seeds, as by default
        (20, range(24)),
        (3, range(12)),
        ([0, 1, 50], [0, 1, 50, *range(2, 11)]),
    ],
)
def test_more_seeds_are_added_to_those_of_a_study(reference_seeds, expected):
    study = check_study(tiny(policies=["random", "bald"], reference_seeds=reference_seeds), "t")
    more = with_more_seeds(study, 12)
    assert more.file.reference_seeds == list(expected)
    assert more.file.seeds == list(expected)[:12]  # seeds of the reference, so that cells are paired
    assert {cell.key for cell in study.cells} < {cell.key for cell in more.cells}
    assert with_more_seeds(study, 2) == study


@pytest.mark.parametrize(
    ("written", "changes", "expected"),
    [
        (3, {"seeds": 5}, [0, 1, 2, 3, 4]),
        (3, {"seeds": [7, 8, 9, 6]}, [7, 8, 9, 6]),
        (6, {"seeds": 5}, [0, 1, 2, 3, 4, 5]),
        ([0, 1, 9], {"seeds": 3}, [0, 1, 2, 9]),
        (3, {"overrides": ["seeds=4"]}, [0, 1, 2, 3]),
        (3, {"overrides": {"seeds": [1, 2, 3, 4]}}, [1, 2, 3, 4]),
    ],
)
def test_more_seeds_than_the_files_reference_has_raise_the_references_seeds(written, changes, expected):
    study = load_study(tiny(seeds=2, reference_seeds=written, policies=["random", "bald"]), **changes)
    assert study.file.reference_seeds == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 5, "reference_seeds": 4},
        {"seeds": 5, "overrides": ["reference_seeds=4"]},
        {"seeds": [0, 1, 5], "reference_seeds": [0, 1]},
        {"seeds": 5, "overrides": ["reference_seeds=many"]},
    ],
)
def test_too_few_seeds_of_the_reference_are_refused_where_the_caller_gives_them(changes):
    with pytest.raises(StudyError, match="reference_seeds: must"):
        load_study(tiny(seeds=2, reference_seeds=3, policies=["random", "bald"]), **changes)
