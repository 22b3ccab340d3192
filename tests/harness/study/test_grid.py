"""A grid and several posteriors multiply the cells of a study; their settings have names."""

import pytest

from balbench.harness.errors import StudyError
from balbench.harness.study.study import check_study, load_study
from support.studies import TINY, tiny, write_study


def test_an_error_without_the_grid_does_not_name_the_grid():
    raw = tiny(policies=["random", {"name": "bald", "beta": 3}], grid={"posterior.members": [2, 3]})
    with pytest.raises(StudyError) as fault:
        check_study(raw, "t")
    assert str(fault.value) == "t: policies.1.beta: unknown key; there are no settings, remove it"


def test_a_grid_may_set_keys_of_parts_that_it_names():
    study = check_study(tiny(grid={"posterior": ["ensemble", "mc_dropout"], "posterior.members": [1, 2]}), "t")
    settings = dict.fromkeys((type(cell.posterior).__name__, cell.posterior.members) for cell in study.cells)
    assert list(settings) == [("Ensemble", 1), ("Ensemble", 2), ("McDropout", 1), ("McDropout", 2)]


def test_a_grid_multiplies_cells():
    study = check_study(tiny(grid={"posterior.members": [2, 3], "dataset.topics": [4, 5, 6]}), "t")
    assert len(study.cells) == 6 * 10
    assert len({cell.key for cell in study.cells}) == 60
    assert study.cells[0].setting == "posterior.members=2, dataset.topics=4"
    assert len({cell.dataset_key for cell in study.cells}) == 3


def test_a_grid_over_whole_parts_names_them():
    small, wide = ({"name": "ensemble", "members": members, "hidden": [4]} for members in (2, 3))
    study = check_study(tiny(grid={"posterior": ["ensemble", small]}), "t")
    settings = list(dict.fromkeys(cell.setting for cell in study.cells))
    assert settings == ["posterior=ensemble", "posterior=ensemble (members 2, hidden [4])"]
    assert {cell.posterior.members for cell in study.cells} == {5, 2}
    study = check_study(tiny(grid={"posterior": [small, wide]}), "t")
    assert study.cells[-1].setting == "posterior=ensemble (members 3, hidden [4])"


def two_posteriors(**changes):
    posteriors = {"heads": TINY["posterior"], "linear": "bayesian_linear"}
    return tiny(**{"posterior": None, "posteriors": posteriors, "policies": ["random", "bald"]} | changes)


def test_posteriors_are_settings_with_all_policies_and_seeds():
    study = check_study(two_posteriors(reference_seeds=3), "t")
    for label, name in [("heads", "Ensemble"), ("linear", "BayesianLinear")]:
        cells = [cell for cell in study.cells if cell.setting == f"posterior={label}"]
        assert [type(cell.posterior).__name__ for cell in cells] == [name] * 7
        assert [cell.seed for cell in cells if cell.label == "random"] == [0, 1, 2]
    assert study.header["study"]["posteriors"] == {"heads": TINY["posterior"], "linear": {"name": "bayesian_linear"}}
    assert check_study(study.file.model_dump(), "t") == study


def test_cells_of_a_posterior_are_those_of_a_study_with_this_posterior_alone():
    keys = {cell.key for cell in check_study(two_posteriors(), "t").cells if cell.setting == "posterior=heads"}
    assert keys == {cell.key for cell in check_study(tiny(policies=["random", "bald"]), "t").cells}


def test_a_grid_multiplies_posteriors_and_may_set_their_keys():
    changes = {"posteriors": {"few": {"name": "ensemble", "members": 2}, "laplace": "laplace"}}
    grid = {"dataset.topics": [4, 5], "posterior.hidden": [[8]]}
    study = check_study(two_posteriors(**changes, grid=grid), "t")
    settings = list(dict.fromkeys(cell.setting for cell in study.cells))
    assert settings[0] == "posterior=few, dataset.topics=4, posterior.hidden=[8]"
    assert len(settings) == 4
    assert {cell.posterior.hidden for cell in study.cells} == {(8,)}


def test_a_key_of_one_posterior_can_be_overridden(tmp_path):
    path = write_study(tmp_path, **two_posteriors())
    study = load_study(path, ["posteriors.heads.members=7", "posteriors.linear.samples=9"])
    assert (study.cells[0].posterior.members, study.cells[-1].posterior.samples) == (7, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"posteriors": {}}, "t: posterior: is missing; give one, such as `posterior: ensemble`, or several as"),
        ({"posterior": "ensemble"}, "t: posterior: `posteriors` is given too; remove one of the two"),
        ({"posteriors": ["ensemble"]}, "t: posteriors: must be a mapping such as {ensemble: {name: ensemble}"),
        ({"posteriors": {"a": "laplace", "": "ensemble"}}, "t: posteriors: a label is empty; name each posterior"),
        ({"posteriors": {"a": 3}}, "t: posteriors.a: must be a name, or a mapping with `name` and settings, not 3"),
        ({"posteriors": {"a": "ensembel"}}, "t: posteriors.a: no 'ensembel'; did you mean 'ensemble'?"),
        ({"posteriors": {"a": {"name": "ensemble", "members": 0}}}, "t: posteriors.a.members: must be at least 1"),
        (
            {"posteriors": {"a": "laplace", "b": {"name": "laplace"}}},
            "t: posteriors: 'posterior=a' and 'posterior=b' are the same; remove one",
        ),
        ({"grid": {"posterior": ["laplace"]}}, "t: grid: posterior: `posteriors` gives the posteriors already; remove"),
        (
            {"grid": {"posterior.members": [3]}},
            "t: grid: posterior=linear, posterior.members=3: posterior.members: unk",
        ),
        ({"policies": ["random", "bal"]}, "t: policies.1: no 'bal'; did you mean 'bald'"),
        ({"seeds": 10**6, "reference_seeds": None}, "t: has 6,000,000 cells"),
    ],
)
def test_faults_of_posteriors_are_one_line(changes, message):
    with pytest.raises(StudyError) as fault:
        check_study(two_posteriors(**changes), "t")
    assert str(fault.value).startswith(message), str(fault.value)
