"""A study file is checked wholly before anything runs; every fault is one line with the place and the remedy."""

import pytest

from balbench.harness.datasets.dataset import Dataset
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.errors import DataError, StudyError
from balbench.harness.study.cell import Protocol
from balbench.harness.study.study import check_study, load_study
from balbench.harness.study.yaml_file import set_path
from support.studies import TINY, tiny, write_study


def broken(path: str, value: object) -> dict:
    raw = tiny()
    set_path(raw, path, value, "test")
    return raw


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ("polices", ["random"], ["polices", "unknown key", "'policies'"]),
        ("policies.1", "bal", ["policies.1", "no 'bal'", "did you mean 'bald'"]),
        ("policies.1", {"name": "power_bald", "betta": 2}, ["policies.1", "betta", "did you mean 'beta'"]),
        ("policies.1", {"name": "power_bald", "beta": "much"}, ["policies.1", "beta", "number", "'much'"]),
        ("policies.1", {"name": "power_bald", "beta": -1}, ["policies.1", "beta", "greater than 0", "-1"]),
        ("policies.1", {"label": "x"}, ["policies.1", "no name", "random"]),
        ("policies.1", "random", ["policies.1", "two policies are called 'random'"]),
        ("policies.1", {"name": "random", "label": "chance"}, ["'chance' and 'random' have the same settings"]),
        ("policies", [], ["policies: must be a list of one or more policies, not []"]),
        # What pydantic and YAML say in words of their own.
        ("name", 3, ["name: must be 1 to 100 letters", ", not 3; quote a number"]),
        ("description", ["a"], ["description: must be a text, not ['a']"]),
        ("dataset", 3, ["dataset: must be a name, or a mapping with `name` and settings, not 3"]),
        ("dataset", None, ["dataset: must be a name, or a mapping", "not null"]),
        ("dataset", {"name": 7}, ["dataset.name: must be a text, not 7"]),
        ("dataset.topics", "three", ["dataset.topics: must be an integer, not 'three'"]),
        ("dataset.topics", 3.5, ["dataset.topics: must be an integer, not 3.5"]),
        ("dataset.topics", True, ["dataset.topics: must be a number, not true"]),
        ("dataset.topics", None, ["dataset.topics: must be an integer, not null"]),
        ("dataset.temperature", 0, ["dataset.temperature: must be greater than 0, not 0"]),
        ("dataset.dimension", 10**18, ["dataset.dimension: must be at most 1000000"]),
        ("dataset", {"name": "file", "path": 3}, ["dataset.path: must be a text, not 3"]),
        ("dataset", {"name": "file", "normalise": "maybe"}, ["dataset.normalise: must be true or false, not 'maybe'"]),
        (
            "oracle",
            {"name": "replay", "votes": "x"},
            ["oracle.votes: must be 'first', 'sample' or 'majority', not 'x'"],
        ),
        ("oracle", {"name": "replay", "vote": "first"}, ["oracle.vote: unknown key; did you mean 'votes'?"]),
        ("oracle", "repaly", ["oracle: no 'repaly'; did you mean 'replay'?"]),
        ("posterior.hidden", 16, ["posterior.hidden: must be a list, not 16"]),
        ("posterior.betas", [0.9], ["posterior.betas.1: is missing; give it"]),
        ("posterior.betas", [0.9] * 3, ["posterior.betas: must have at most 2 entries, not [0.9, 0.9, 0.9]"]),
        (
            "posterior",
            {"name": "laplace", "prior_precision": -1},
            ["prior_precision: must be greater than 0 or 'eva"],
        ),
        (
            "posterior",
            {"name": "laplace", "prior_precision": "x"},
            ["prior_precision: must be a number or 'eval'"],
        ),
        ("posterior.hidden", "long " * 99, ["posterior.hidden: must be a list, not 'long long", "..."]),
        ("policies", "random", ["policies: must be a list of one or more policies, not 'random'"]),
        ("policies", ["random", 3], ["policies.1: must be a name, or a mapping with `name` and settings, not 3"]),
        ("policies.1", {"bald": {}}, ["policies.1: no name; write it as {name: bald, ...}"]),
        ("policies.1", {"name": "bald", "lable": "x"}, ["policies.1.lable: unknown key; did you mean 'label'?"]),
        ("policies.1", {"name": "epig", "target": "x"}, ["policies.1.target: must be 'eval', 'test', 'ood' or 'pool'"]),
        ("reference", ["random"], ["reference: must be the label of a policy, not ['random']"]),
        ("seeds", None, ["seeds: must be a number of seeds, or a list of seeds, not null"]),
        ("seeds", [], ["seeds: must be a number of seeds, or a list of seeds, not []"]),
        ("seeds", 10**12, ["seeds: must be at least 1 and at most 1,000,000"]),
        ("reference_seeds", 10**6, ["has 1,000,006 cells, more than 1,000,000; take fewer seeds or grid values"]),
        ("reference_seeds", 1, ["reference_seeds: must be at least the number of seeds, 2, not 1"]),
        ("reference_seeds", -1, ["reference_seeds: must be at least the number of seeds, 2, not -1"]),
        ("reference_seeds", 10**7, ["reference_seeds: must be at most 1,000,000, not 10000000"]),
        ("reference_seeds", True, ["reference_seeds: must be a number of seeds, or a list of seeds, not true"]),
        ("reference_seeds", "all", ["reference_seeds: must be a number of seeds, or a list of seeds, not 'all'"]),
        ("reference_seeds", [-1], ["reference_seeds: must be a number of seeds, or a list of seeds, not [-1]"]),
        ("reference_seeds", [0, 7], ["reference_seeds: must contain the study's seeds; add [1]"]),
        ("reference_seeds", [0, 1, 1], ["reference_seeds: a seed occurs twice in [0, 1, 1]; remove one"]),
        ("protocol", None, ["protocol: must be a mapping of initial, batch and rounds, not null"]),
        ("protocol", {"initial": 3, "batch": 3}, ["protocol.rounds: is missing; give it"]),
        ("protocol", {"initial": 3, "batch": 3, "roundes": 3}, ["protocol.roundes", "did you mean 'rounds'?"]),
        ("protocol.rounds", 10**18, ["protocol.rounds: must be at most 1000000"]),
        ("full_data", "perhaps", ["full_data: must be true or false, not 'perhaps'"]),
        ("grid", [], ["grid: must be a mapping such as {posterior.members: [2, 5]}, not []; leave it out"]),
        ("grid", {"posterior.members": 3}, ["grid.posterior.members: must be a list of values, as in"]),
        ("grid", {"posterior": {"members": [2]}}, ["grid.posterior: must be a list of values, as in"]),
        ("grid", {"posterior.members": [3, 0]}, ["grid: posterior.members=0: posterior.members: must be at least 1"]),
        ("grid", {"posterior..members": [3]}, ["grid: posterior..members", "has an empty part"]),
        (
            "grid",
            {"policies.9.beta": [3]},
            ["grid: policies.9.beta: there is nothing at 'policies' called '9'"],
        ),
        ("grid", {"posterior.members.x": [3]}, ["nothing at 'posterior.members' to set 'x' of; it is 3"]),
        ("grid", {"posterior": ["ensemble", "nope"]}, ["grid: posterior=nope: posterior: no 'nope'; known: ensemble"]),
        (
            "grid",
            {"posterior.members": [2, 3], "posterior": ["ensemble"]},
            ["grid: posterior: replaces 'posterior.members', which comes before it; put 'posterior' first"],
        ),
        ("reference", "randm", ["reference", "'randm'", "did you mean 'random'"]),
        ("policies.0", {"name": "full_data", "label": "random"}, ["reference", "'random' buys all labels at once"]),
        ("dataset.pool_pair", 5, ["dataset", "pool_pair", "did you mean 'pool_pairs'"]),
        ("dataset.name", "simulate", ["dataset", "did you mean 'simulated'"]),
        ("dataset.preset", "tiny", ["dataset", "unknown preset 'tiny'", "small"]),
        ("posterior.members", 0, ["posterior.members: must be at least 1, not 0"]),
        ("posterior.hidden", [16, "x"], ["posterior", "hidden.1", "'x'"]),
        ("posterior", "ensembel", ["posterior", "did you mean 'ensemble'"]),
        ("protocol.rounds", 1.5, ["protocol.rounds", "integer", "1.5"]),
        ("protocol.batches", 3, ["protocol.batches", "unknown key"]),
        ("protocol.bach", 3, ["protocol.bach", "did you mean 'batch'"]),
        ("policies.0", {"name": "full_data", "beta": 3}, ["policies.0", "beta", "there are no settings"]),
        ("policies.1", {"name": "bald", "label": ""}, ["policies.1.label: must be a text"]),
        ("policies.1", {"name": "bald", "label": [1]}, ["policies.1.label: must be a text, not [1]"]),
        ("policies.1", {"name": "bald", "label": "full data"}, ["the label 'full data' is taken"]),
        ("policies.2", {"name": "bal_pm", "digamma_divisor": 0}, ["policies.2", "digamma_divisor", "greater than 0"]),
        ("policies.2", {"name": "bal_pm", "beta": 1e308}, ["policies.2.beta: must be at most 1e+100, not 1e+308"]),
        ("policies.2", {"name": "bal_pm", "beta": "1e400"}, ["policies.2", "beta", "finite"]),
        ("posterior.preset", ["melo2024"], ["posterior", "unknown preset"]),
        ("description", "\ud800", ["contains an unsupported value"]),
        ("seeds", 0, ["seeds", "at least 1"]),
        ("seeds", [1, 1], ["seeds", "twice"]),
        ("seeds", "many", ["seeds", "'many'"]),
        ("name", "a/b", ["name"]),
        ("grid", {"posterior.members": []}, ["grid: posterior.members: the list of values is empty; give some"]),
        ("grid", {"posterior.members": [3, 3]}, ["grid", "posterior.members", "twice"]),
        ("grid", {"posterior.members": [3, "3"]}, ["grid", "posterior.members=3", "are the same"]),
        ("grid", {"posterior.members": [1, 1.0]}, ["grid", "'posterior.members=1.0' are the same; remove one"]),
        ("grid", {"posterior": ["laplace", {"name": "laplace"}]}, ["grid", "are the same; remove one"]),
        ("seeds", [2**63], ["seeds.0: must be less than"]),
        ("seeds", [-1], ["seeds.0: must be at least 0, not -1"]),
        ("seeds", [True, 2], ["seeds.0: must be an integer, not true"]),
        ("protocol.rounds", True, ["protocol.rounds: must be an integer, not true"]),
        ("posterior.learning_rate", float("nan"), ["posterior.learning_rate: must be finite"]),
        ("policies", ["random", {"name": "bal_pm", "beta": float("inf")}], ["policies.1.beta: must be finite"]),
        ("grid", {"reference": ["random", "bald"]}, ["grid: 'reference'", "only parts of dataset"]),
        ("grid", {"posterior.mebers": [1]}, ["posterior", "mebers", "did you mean 'members'"]),
    ],
)
def test_faults_are_one_line_with_place_and_remedy(path, value, parts):
    with pytest.raises(StudyError) as fault:
        check_study(broken(path, value), "study.yaml")
    message = str(fault.value)
    assert message.startswith("study.yaml")
    assert "\n" not in message
    assert "nput should" not in message  # pydantic's words
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"name: [", ["line 1"]),
        (b"- a\n- b\n", ["must be a mapping"]),
        (b"name: \xff\xfe", ["not UTF-8"]),
        (b"a: b: c", ["line 1, column 5"]),
        (b"name: x\nseeds: 1\nname: y\n", ["line 3, column 1", "the key 'name' occurs twice"]),
        (b"name: x\n2020-01-01: 3\n", ["2020-01-01: unknown key"]),
        (b"name: !!int x\n", ["line 1, column 7: 'x' cannot be parsed as int; quote it if it is text"]),
        (b"seeds: " + b"9" * 5000 + b"\n", ["line 1, column 8", "cannot be parsed as int"]),
        (b"name: !!bool x\n", ["line 1, column 7: 'x' cannot be parsed as bool"]),
        (b"name: !!set [1]\n", ["line 1, column 7: expected a mapping node"]),
        (b"name: \x00\n", ["not valid YAML (unacceptable character"]),
        (b"", ["must be a mapping"]),
        (b"[" * 3000, ["nested too deeply"]),
        (b"name: x\nposterior: ensemble\n", ["dataset", "is missing"]),
    ],
)
def test_files_that_are_no_study(tmp_path, content, parts):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as fault:
        load_study(path)
    assert all(part in str(fault.value) for part in [str(path), *parts]), str(fault.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        load_study(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("policies.².beta=3", "nothing at"),
        ("description=[&a [*a]]", "contains an unsupported value"),
        ("members", "key=value"),
        ("=3", "key=value"),
        ("a=[", "not valid YAML"),
        ("posterior.members=2020-13-45", "posterior.members: must be an integer, not '2020-13-45'"),
        ("posterior.members=" + "[" * 3000, "override posterior.members=.*: is nested too deeply"),
        ("posterior.members={a: 1, a: 2}", "the key 'a' occurs twice"),
        ("posterior.=3", "'posterior.' has an empty part"),
        ("policies.9=bald", "nothing at 'policies' called '9'; its entries are 0 to 3"),
        ("name.x=3", "'name' is a text"),
        ("seeds.0.x=3", "nothing at"),
    ],
)
def test_bad_overrides(tmp_path, override, part):
    with pytest.raises(StudyError, match=part):
        load_study(write_study(tmp_path), (override,))


def test_overrides_reach_every_key(tmp_path):
    study = load_study(
        write_study(tmp_path),
        (
            "posterior.members=4",
            "policies.1.name=random",
            "policies.1.label=b",
            "policies.0=bald",
            "reference=b",
            "dataset.topics=3",
        ),
        seeds=3,
        reference_seeds=4,
    )
    assert {cell.posterior.members for cell in study.cells} == {4}
    assert study.cells[0].dataset.topics == 3
    assert [cell.seed for cell in study.cells if cell.label == "bald"] == [0, 1, 2]
    assert [cell.seed for cell in study.cells if cell.label == "b"] == [0, 1, 2, 3]


def test_cells_and_keys():
    study = check_study(tiny(), "t")
    assert len(study.cells) == 5 * 2  # four policies and the full data, two seeds
    assert len({cell.key for cell in study.cells}) == 10
    assert len({cell.directory for cell in study.cells}) == 10
    assert [cell.key for cell in study.cells] == [cell.key for cell in check_study(tiny(), "t").cells]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dataset.topics", 7), ("dataset.data_seed", 1), ("posterior.members", 4), ("posterior.init", "shared"),
        ("protocol.batch", 11), ("protocol.initial", 3), ("oracle", {"name": "replay", "votes": "majority"}),
    ],
)  # fmt: skip
def test_all_that_determines_a_result_is_in_its_key(path, value):
    before = {cell.key for cell in check_study(tiny(), "t").cells if cell.label != "full data"}
    after = {cell.key for cell in check_study(broken(path, value), "t").cells if cell.label != "full data"}
    assert not before & after


def test_a_new_version_of_a_policy_is_another_cell(monkeypatch):
    from balbench.harness.policies.uncertainty import Bald

    before = {cell.label: cell.key for cell in check_study(tiny(), "t").cells}
    monkeypatch.setattr(Bald, "version", 99)
    after = {cell.label: cell.key for cell in check_study(tiny(), "t").cells}
    assert [label for label in before if before[label] != after[label]] == ["bald"]


def test_a_policy_may_have_its_own_posterior():
    own = {"name": "bald", "label": "small bald", "posterior": {"name": "ensemble", "members": 2, "hidden": [4]}}
    cells = check_study(broken("policies", ["random", "bald", own]), "t").cells
    members = {cell.label: cell.posterior.members for cell in cells}
    assert members == {"random": 3, "bald": 3, "small bald": 2, "full data": 3}
    assert {cell.label for cell in cells if cell.own_posterior} == {"small bald"}
    assert [cell.header["settings"].get("posterior") for cell in cells[::2]] == [None, None, "ensemble", None]
    assert len({cell.key for cell in cells}) == len(cells)
    wider = check_study(broken("policies", ["random", "bald", own]) | {"posterior": {"name": "ensemble"}}, "t").cells
    kept = {cell.label for cell in wider} - {cell.label for cell in wider if cell.key not in {c.key for c in cells}}
    assert kept == {"small bald"}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("ensembel", "policies.1.posterior: no 'ensembel'; did you mean 'ensemble'?"),
        (7, "policies.1.posterior: must be a name, or a mapping"),
        ({"name": "ensemble", "members": 0}, "policies.1.posterior.members: must be at least 1, not 0"),
    ],
)
def test_a_policys_posterior_is_checked(own, message):
    with pytest.raises(StudyError, match=message):
        check_study(broken("policies.1", {"name": "bald", "posterior": own}), "t")


def test_names_and_labels_are_not_in_the_key():
    before = [cell.key for cell in check_study(tiny(), "t").cells]
    renamed = broken("policies.1", {"name": "bald", "label": "BALD"}) | {"name": "other", "description": "x"}
    assert [cell.key for cell in check_study(renamed, "t").cells] == before


def test_directories_of_cells_are_short_for_any_label():
    study = check_study(broken("policies.1", {"name": "bald", "label": "../long " * 99}), "t")
    assert max(len(cell.directory) for cell in study.cells) < 80
    assert not any(set(cell.directory) & set("./ ") for cell in study.cells)


def test_full_data_does_not_depend_on_the_protocol():
    def key(raw):
        return [cell.key for cell in check_study(raw, "t").cells if cell.label == "full data"]

    assert key(tiny()) == key(broken("protocol.batch", 3))
    assert not key(broken("full_data", False))
    assert not key({name: value for name, value in TINY.items() if name != "full_data"})


@pytest.mark.parametrize("policy", ["epig", {"name": "epig", "target": "ood"}, "llm_perplexity_low"])
def test_what_simulated_data_hold_may_be_asked(policy):
    assert check_study(broken("policies.1", policy), "t").cells


def test_what_policies_need_of_the_data_is_known_at_once(monkeypatch):
    raw = broken("policies.1", {"name": "llm_perplexity_low", "score": "token_entropy"})
    with pytest.raises(DataError, match=r"t: policies\.1: the data set has no token entropy of its responses"):
        check_study(raw, "t")
    monkeypatch.setattr(Simulated, "contents", Dataset.contents)  # data that say nothing of themselves
    assert check_study(raw, "t").cells


def test_presets_give_way_to_keys():
    study = check_study(broken("posterior", {"name": "ensemble", "preset": "melo2024", "hidden": [9]}), "t")
    assert study.cells[0].posterior.hidden == (9,)
    assert study.cells[0].posterior.learning_rate == 3e-5


def test_labels_of_a_round():
    protocol = Protocol(initial=10, batch=7, rounds=3)
    assert protocol.budget == 24
    assert [protocol.labels_at(number, 20) for number in range(3)] == [10, 17, 20]


LONG = "very long " * 500


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", LONG),
        (LONG.replace(" ", "-"), 1),
        ("reference", LONG),
        ("dataset", LONG),
        ("dataset.name", LONG),
        ("dataset.preset", LONG),
        ("dataset." + LONG, 1),
        ("policies.1", LONG),
        ("policies.1", {"name": "bald", "label": [LONG]}),
        ("policies.1", {"name": "bald", "posterior": LONG}),
        ("policies.1", {LONG: "bald"}),
        ("grid", {LONG: [1]}),
        ("grid", {"posterior." + LONG: [1]}),
        ("grid", {"posterior": [LONG]}),
        ("seeds", [LONG]),
        ("seeds", 10**4000),
        ("protocol.rounds", 10**4000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_messages_do_not_repeat_long_inputs(path, value):
    with pytest.raises(StudyError) as fault:
        check_study(broken(path, value), "study.yaml")
    assert len(str(fault.value)) < 800, str(fault.value)


def test_labels_that_are_long_are_shortened_in_messages():
    twins = [{"name": "random"}, {"name": "bald", "label": LONG}, {"name": "variance", "label": LONG}]
    with pytest.raises(StudyError, match=r"two policies are called 'very long .*\.\.\.; give one a label"):
        check_study(broken("policies", twins), "study.yaml")


@pytest.mark.parametrize("argument", ["seeds", "reference_seeds"])
@pytest.mark.parametrize("value", [2.5, "two"])
def test_seeds_of_another_type_are_refused(argument, value):
    with pytest.raises(StudyError, match=f"^study: {argument}: must be a number of seeds, or a list of seeds, not "):
        load_study(tiny(), **{argument: value})
