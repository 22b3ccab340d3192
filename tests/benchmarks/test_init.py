"""`balbench init` writes a study file that runs."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from balbench.benchmarks.init import MOST_BATCH, protocol, write_study
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.errors import DataError, StudyError
from balbench.harness.study.study import load_study
from support.command import run_here
from support.tiny_models import save_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert"), positions=512))


def write(path, votes=1, prompts=60, **more):
    rows = [
        {"prompt": f"question {n}", "chosen": f"yes {n}", "rejected": f"no {n}", **more}
        for n in range(prompts)
        for _ in range(votes)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("votes", "answer"), [(1, "first"), (3, "majority")])
def test_the_study_file_is_valid_and_suits_the_data(tmp_path, bert, monkeypatch, votes, answer):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / 'my "votes", 2.jsonl', votes, topic="x")
    study, _ = write_study(data, encoder=bert)
    assert study.name == "my-votes-2.yaml"
    checked = load_study(study)
    assert checked.file.oracle == {"name": "replay", "votes": answer}
    protocol = checked.file.protocol
    assert protocol.budget <= PreferenceFile(path=str(data), encoder=bert).sizes().pairs / 2
    text = study.read_text()
    assert "'topic'" in text
    assert all(
        len(line) <= 120 for line in text.splitlines() if not line.strip().startswith(("path:", "encoder:", "#"))
    )


def test_a_study_file_is_never_overwritten(tmp_path, bert):
    data, out = write(tmp_path / "votes.jsonl"), tmp_path / "study.yaml"
    out.write_text("mine")
    with pytest.raises(StudyError, match=r"^out: .*study\.yaml exists; give another file"):
        write_study(data, out, bert)
    assert out.read_text() == "mine"


def test_a_file_that_is_no_preferences_is_refused_and_nothing_is_written(tmp_path, bert):
    data = tmp_path / "votes.jsonl"
    data.write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"votes\.jsonl, line 1: the columns \('text'\) fit no known schema"):
        write_study(data, tmp_path / "study.yaml", bert)
    assert not (tmp_path / "study.yaml").exists()


@given(st.integers(1, 10**7))
def test_the_protocol_fits_the_pool(pool):
    batch, rounds = protocol(pool)
    assert 1 <= batch <= MOST_BATCH
    assert 1 <= rounds <= 15
    assert batch * rounds <= max(1, pool / 2)
    if pool >= 30:
        assert rounds >= 10
    if pool >= 2 * 15 * MOST_BATCH:
        assert (batch, rounds) == (MOST_BATCH, 15)
    else:
        assert batch * rounds >= min(pool, 30) / 2 - batch


def test_the_command_writes_a_file_and_says_what_to_do_next(tmp_path, bert, monkeypatch, capsys):
    data, study = write(tmp_path / "votes.jsonl"), tmp_path / "study.yaml"
    arguments = ("init", data, "--out", study, "--encoder", bert)
    code, out, _ = run_here(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "60 rows are votes on 60 pairs" in out
    assert f"wrote {study}; next: balbench check {study}" in out
    assert yaml.safe_load(study.read_text())["dataset"]["path"] == str(data)
    code, _, err = run_here(monkeypatch, capsys, *arguments)
    assert code == 2
    assert f"--out: {study} exists" in err
