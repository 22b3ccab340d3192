"""The file of claims: the shipped one is complete, and errors in others are one line."""

import copy

import pytest
import yaml

import balbench
from balbench.benchmarks.claims import SHIPPED_CLAIMS, read_claims
from balbench.harness import registry
from balbench.harness.errors import StudyError
from balbench.harness.study.settings import make_component
from support.command import run_here
from support.studies import TINY

SMALL = copy.deepcopy(TINY) | {"policies": ["random", "bal_pm"], "full_data": False, "reference_seeds": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return balbench.run_study(SMALL, tmp_path_factory.mktemp("claims") / "run", seeds=3, progress=False)


def test_the_shipped_claims_are_those_of_the_paper():
    """Values of figures 1 and 3, of the larger models and of the ablation of the estimator."""
    claims = [claim for claim in read_claims(SHIPPED_CLAIMS).claims if claim.paper == "melo2024"]
    shares = {(claim.dataset, split, claim.saves) for claim in claims for split in claim.splits if claim.saves}
    assert shares == {
        ("tldr_7b", "test", 0.33),
        ("tldr_7b", "ood", 0.68),
        ("tldr_70b", "test", 0.32),
        ("tldr_70b", "ood", 0.32),
        ("tldr_140b", "test", 0.31),
        ("tldr_140b", "ood", 0.32),
        ("tldr_7b", "test", 0.20),
    }
    beaten = {claim.reference["name"] for claim in claims if claim.saves is None}
    assert beaten == {"softmax_bald", "soft_rank_bald", "power_bald"}


def test_policies_of_claims_exist_with_their_settings():
    absent = {"apl"}  # a policy for online training
    for claim in read_claims(SHIPPED_CLAIMS).claims:
        for policy in (claim.policy, claim.reference):
            if policy["name"] not in absent:
                assert policy["name"] in registry.names("policies")
                make_component("policies", policy, "claims.yaml", claim.id)


@pytest.fixture
def write(tmp_path):
    """Writes the shipped claims with one change."""

    def write(change):
        content = yaml.safe_load(SHIPPED_CLAIMS.read_text(encoding="utf-8"))
        change(content)
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("papers"), "papers: is missing; give it"),
        (lambda file: file.update(claims=[]), "claims: must be a list of one or more claims"),
        (lambda file: file.update(clams=[]), "clams: unknown key; did you mean 'claims'?"),
        (lambda file: file["claims"][2].update(savs=0.3), "claims.2.savs: unknown key; did you mean 'saves'?"),
        (lambda file: file["claims"][2].update(saves=33), "claims.2.saves: must be less than 1, not 33"),
        (lambda file: file["claims"][2].update(splits=["train"]), "claims.2.splits.0: must be 'test' or 'ood'"),
        (lambda file: file["claims"][2].pop("says"), "claims.2.says: is missing; give it"),
        (lambda file: file["claims"][2].update(policy={"beta": 1}), "claims.2.policy: has no name; write it as"),
        (
            lambda file: file["claims"][2].update(paper="melo"),
            "claims.2.paper: no 'melo' in papers; did you mean",
        ),
        (
            lambda file: file["claims"][2].update(dataset="tldr"),
            "claims.2.dataset: no 'tldr' in datasets; did you",
        ),
        (lambda file: file["claims"][2].update(id="arm_fi"), "id: 'arm_fi' occurs twice; give another id"),
        (lambda file: file["claims"][2].update(at_most=0.1), "claims.2: has saves and at_most; remove one"),
        (
            lambda file: file["papers"]["melo2024"].update(arxiv="nips"),
            "papers.melo2024.arxiv: must be a number of arXiv in",
        ),
        (
            lambda file: file["papers"]["melo2024"].update(arxiv=2406.10023),
            "arxiv: must be a number of arXiv in quotes, such as '2406.10023', not 2406.10023; quote it",
        ),
        (lambda file: file["claims"][2].update(says=33), "claims.2.says: must be a text, not 33; quote it"),
    ],
)
def test_an_error_names_file_key_and_remedy(write, change, message):
    path = write(change)
    with pytest.raises(StudyError) as error:
        read_claims(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_misspelt_policy_is_named_with_the_most_similar(run, write):
    path = write(lambda file: file["claims"][0]["policy"].update(name="bal_pn"))
    whys = balbench.claims(run, path)["why"]
    assert whys[0].endswith("the policy bal_pn (estimator ksg) is not in the run (did you mean 'bal_pm'?)")
    assert whys.str.contains("did you mean").sum() == 1  # policies that are known but did not run get no suggestion


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"none\.yaml: cannot be read .*; give a file of claims"):
        read_claims(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[]")
    with pytest.raises(StudyError, match="must be a mapping of keys such as papers, datasets, claims"):
        read_claims(tmp_path / "list.yaml")


def test_claims_from_python_are_a_frame(run):
    table = balbench.claims(run)
    assert table.equals(balbench.claims(run.path, SHIPPED_CLAIMS))
    ids = [claim.id for claim in read_claims(SHIPPED_CLAIMS).claims]
    assert list(dict.fromkeys(table["claim"])) == ids
    assert set(table["verdict"]) <= {"holds", "does not hold", "cannot say"}
    assert table["why"].ne("").all()


def test_the_command_prints_papers_claims_and_verdicts(run, write, monkeypatch, capsys):
    code, out, err = run_here(monkeypatch, capsys, "claims", run.path)
    assert (code, err) == (0, "")
    for text in ("arXiv 2406.10023", "BAL-PM needs 33% fewer labels", "bal_pm, test:", "cannot say: another data set"):
        assert text in out
    path = write(lambda file: file["claims"][0].update(saves=2))
    code, out, err = run_here(monkeypatch, capsys, "claims", run.path, "--claims", path)
    assert (code, out) == (2, "")
    assert err == f"balbench: {path}: claims.0.saves: must be less than 1, not 2\n"
