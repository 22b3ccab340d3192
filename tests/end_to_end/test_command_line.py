"""The command line as users type it: output, exit codes, files."""

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balbench.api import load_study, shipped_studies
from balbench.benchmarks.estimate import Probe
from balbench.harness.errors import BalbenchError
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.results import RunDirectory
from support.command import run_here, start
from support.studies import bytes_of, write_study
from support.tiny_models import save_bert

ROWS = [
    {"prompt": f"question {n % 9}", "response_a": f"answer {n}", "response_b": f"other answer {n}", "label": n % 2}
    for n in range(60)
]


@pytest.fixture
def balbench(monkeypatch, capsys):
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


@pytest.fixture
def without_report(monkeypatch, balbench):
    """The command line, but `run` writes no report: most tests do not look at it."""
    monkeypatch.setattr("balbench.benchmarks.running.write_and_print", lambda *_, **__: None)
    return balbench


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny study."""
    directory = tmp_path_factory.mktemp("tiny")
    write_study(directory)
    process = start("run", directory / "tiny.yaml", "--out", directory / "run")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return directory, out


def test_a_run_ends_with_the_savings_and_the_report(finished):
    directory, out = finished
    assert "Label savings against random, test" in out
    assert "bal_pm as coded" in out
    assert f"report: {directory / 'run' / 'report' / 'report.html'}" in out
    assert (directory / "run" / "report" / "report.html").stat().st_size > 10_000


def test_a_finished_run_starts_no_worker(finished, balbench, monkeypatch):
    directory, _ = finished
    before = bytes_of(directory / "run")
    assert len(before) > 20
    monkeypatch.setattr("balbench.harness.running.local_engine.ProcessPoolExecutor", None)
    code, out, _ = balbench("run", directory / "tiny.yaml", "--out", directory / "run")
    assert code == 0
    assert "Label savings" in out
    assert bytes_of(directory / "run") == before


def test_the_same_study_gives_the_same_bytes_elsewhere(finished, balbench, tmp_path):
    directory, _ = finished
    assert balbench("run", directory / "tiny.yaml", "--out", tmp_path / "again", "--jobs", 1)[0] == 0
    assert bytes_of(tmp_path / "again") == bytes_of(directory / "run")


def test_seeds_can_be_added(finished, without_report, tmp_path):
    directory, _ = finished
    shutil.copytree(directory / "run", tmp_path / "run")
    before = bytes_of(tmp_path / "run", "rounds.jsonl")
    arguments = ["run", directory / "tiny.yaml", "--out", tmp_path / "run", "--seeds", 3, "--reference-seeds", 3]
    assert without_report(*arguments)[0] == 0
    after = bytes_of(tmp_path / "run", "rounds.jsonl")
    assert {name: after[name] for name in before if name.startswith("cells")} == {
        name: content for name, content in before.items() if name.startswith("cells")
    }
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 15


def test_status_and_report(finished, balbench, tmp_path):
    directory, _ = finished
    assert "10 of 10 cells, 34 of 34 rounds" in balbench("status", directory / "run")[1]
    assert balbench("report", directory / "run", "--out", tmp_path / "page")[0] == 0
    assert (tmp_path / "page" / "report.html").is_file()


def test_partial_results_are_reported_as_such(finished, balbench, tmp_path):
    directory, _ = finished
    shutil.copytree(directory / "run", tmp_path / "run")
    cells = sorted((tmp_path / "run" / "cells").glob("bald*"))
    (cells[0] / "manifest.json").unlink()
    lines = (cells[0] / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (cells[0] / "rounds.jsonl").write_bytes(b"".join(lines[:2]))
    assert balbench("report", tmp_path / "run")[0] == 0
    assert "1 of 10 cells are not finished" in (tmp_path / "run" / "report" / "report.html").read_text()
    assert "32 of 34" in balbench("status", tmp_path / "run")[1]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("policies", ["bal_pm", "power_bald", "U = H[mean_k"]),
        ("posteriors", ["ensemble", "epinet"]),
        ("oracles", ["replay"]),
        ("datasets", ["simulated", "file"]),
        ("studies", ["quickstart", "ukp"]),
    ],
)
def test_list(balbench, kind, texts):
    code, out, _ = balbench("list", kind)
    assert code == 0
    assert all(text in out for text in texts)


def test_list_one_component_with_its_settings(balbench):
    code, out, _ = balbench("list", "policies", "bal_pm")
    assert code == 0
    for text in ("digamma_divisor", "number > 0 or dimension", "published | as_coded", "integer >= 1", "The radius"):
        assert text in out
    assert "preset melo2024: members 5, hidden [2048, 256]" in balbench("list", "posteriors", "ensemble")[1]
    assert "topic frequencies" in balbench("list", "datasets", "simulated")[1].lower()
    assert "policies:" in balbench("list", "studies", "quickstart")[1]
    code, _, error = balbench("list", "policies", "bal_mp")
    assert (code, error.strip()) == (2, "balbench: policies: no 'bal_mp'; did you mean 'bal_pm'?")


def test_check_prints_cells_memory_and_time_and_runs_nothing(balbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = balbench("check", write_study(tmp_path), "--device", "cpu", "--jobs", 2, "--fleet", 4)
    assert code == 0
    assert "tiny: 10 cells" in out
    assert "placement: 10 cells as 3 fleets of 2 to 4 on 2 processes (cpu)" in out
    assert "GiB" in out
    assert "time: about" in out
    assert "eval holds 60 labels that training uses to choose weights; the budget is 10 to 40" in " ".join(out.split())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_check_says_what_fits_on_gpus(balbench, tmp_path, monkeypatch):
    """The GPUs are simulated, and so is the probe."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("balbench.benchmarks.estimate.free_bytes", lambda device: 8 * 2**30)
    monkeypatch.setattr("balbench.benchmarks.estimate.measure", lambda *_: Probe(1e-3 / 3, 1e-6))
    monkeypatch.setattr(Ensemble, "training_bytes", lambda self, dimension: 2**30, raising=False)
    code, out, _ = balbench("check", write_study(tmp_path), "--device", "cuda", "--fleets-per-device", 2)
    assert code == 0
    assert "placement: 10 cells as 4 fleets of 2 to 3 on 4 processes (cuda:0, cuda:1)" in out
    assert "GPU memory: about 3.0 GiB a worker, 4.0 GiB free for each" in out


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_valid(name, monkeypatch):
    monkeypatch.delenv("BALBENCH_DATA", raising=False)
    if "BALBENCH_DATA" in shipped_studies()[name].read_text(encoding="utf-8"):
        with pytest.raises(BalbenchError, match=r"set BALBENCH_DATA to its directory, or dataset\.path to the file"):
            load_study(name)
    else:
        assert load_study(name).cells


def file_study(tmp_path, rows: bytes, name: str = "votes.jsonl", **changes: object):
    (tmp_path / name).write_bytes(rows)
    dataset = {"name": "file", "path": str(tmp_path / name), "encoder": str(tmp_path)}
    return write_study(tmp_path, dataset=dataset, **changes)


def lines(rows: list) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("rows", "name", "parts"),
    [
        (lines(ROWS)[:-9], "votes.jsonl", ["line 60", "JSON"]),
        (gzip.compress(lines(ROWS))[:-20], "votes.jsonl.gz", ["votes.jsonl.gz"]),
        (b"not gz at all", "votes.jsonl.gz", ["votes.jsonl.gz"]),
        (lines([*ROWS[:6], ROWS[6] | {"label": 2}]), "votes.jsonl", ["'label'", "first: 1, second: 2, tie: 0"]),
        (lines([*ROWS[:3], ROWS[3] | {"response_a": " "}]), "votes.jsonl", ["line 4", "response_a", "empty"]),
        (b"", "votes.jsonl", ["no rows"]),
        (lines([row | {"id": 1} for row in ROWS]), "votes.jsonl", ["id", "line 2"]),
    ],
)
def test_bad_data_files_are_one_line(balbench, tmp_path, rows, name, parts):
    (tmp_path / "config.json").write_text("{}")
    code, _, err = balbench("run", file_study(tmp_path, rows, name), "--out", tmp_path / "run")
    assert code == 2
    message = err.splitlines()[-1]
    assert message.startswith("balbench: ")
    for part in [str(tmp_path / name), *parts]:
        assert part in message, err
    assert "Traceback" not in err


@pytest.fixture
def votes(tmp_path, monkeypatch):
    """A study of local votes with a tiny encoder."""
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "votes.jsonl").write_bytes(lines(ROWS))
    dataset = {
        "name": "file",
        "path": str(tmp_path / "votes.jsonl"),
        "encoder": str(save_bert(tmp_path / "model")),
    } | {"max_length": 64}
    protocol = {"initial": 5, "batch": 5, "rounds": 3}
    return write_study(tmp_path, dataset=dataset, protocol=protocol, policies=["random", "bal_pm"])


def test_local_votes_from_texts_to_report(balbench, votes, tmp_path):
    code, out, err = balbench("run", votes, "--out", tmp_path / "run")
    assert code == 0, err
    assert "Label savings against random, test" in out
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "length only" in json.dumps(RunDirectory(tmp_path / "run").header["lines"])
    assert "bal_pm" in page


def test_a_pool_that_is_too_small_is_refused_before_anything_is_encoded(balbench, votes, tmp_path):
    code, _, err = balbench("run", votes, "--out", tmp_path / "run", "--set", "protocol.rounds=50")
    assert code == 2
    assert "protocol.rounds: 50 rounds" in err
    assert not (tmp_path / "cache").exists()


def test_texts_without_a_language_model_are_refused_if_a_policy_needs_one(balbench, votes, tmp_path):
    code, _, err = balbench("run", votes, "--out", tmp_path / "run", "--set", "policies=[random, llm_perplexity_high]")
    assert code == 2
    assert err.startswith(f"balbench: {votes}: policies.1: the data set has no log perplexity of its responses; if")
    assert "set dataset.perplexity to a causal language model" in err
    assert not (tmp_path / "cache").exists()
    assert balbench("check", votes, "--set", "policies=[random, llm_perplexity_high]")[::2] == (2, err)


def test_texts_without_an_ood_split_are_refused_if_a_policy_targets_it(balbench, votes, tmp_path):
    policies = "policies=[random, {name: epig, target: ood}]"
    for arguments in (["check", votes], ["run", votes, "--out", tmp_path / "run"]):
        code, _, err = balbench(*arguments, "--set", policies)
        assert code == 2
        assert f"balbench: {votes}: policies.1: the data set has no split 'ood'; set target to one of" in err
    assert not (tmp_path / "cache").exists()


def test_a_misspelt_ood_field_is_named_with_the_nearest_field(balbench, votes):
    code, _, err = balbench("check", votes, "--set", "dataset.ood_field=promt", "--set", "dataset.ood_pattern=x")
    assert code == 2
    assert "line 1, field 'promt': missing; correct dataset.ood_field (did you mean 'prompt'?)" in err
    assert "the columns are: 'prompt', 'response_a', 'response_b', 'label'" in err


def test_a_cache_that_cannot_be_written_is_refused_before_anything_is_encoded(balbench, votes, tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(votes))  # a file
    monkeypatch.setattr("balbench.harness.datasets.features.EncoderSettings._load", None)
    code, _, err = balbench("run", votes, "--out", tmp_path / "run")
    assert code == 2
    assert "cannot be written" in err
    assert "set BALBENCH_CACHE to another directory" in err


@pytest.mark.parametrize(("number", "expected_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_report_is_written(balbench, tmp_path, monkeypatch, number, expected_code):
    monkeypatch.setattr("balbench.reports.page.write_report", lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, err = balbench("run", write_study(tmp_path, seeds=1), "--out", tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == expected_code
    assert err.splitlines()[-1].startswith("stopped: all rounds are kept; `balbench report ")


def test_cells_that_fail_are_listed_once_at_the_end(balbench, tmp_path, monkeypatch):
    policies = ["random", {"name": "bal_pm", "digamma_divisor": 1e-308}]
    study = write_study(tmp_path, policies=policies, seeds=1)
    code, _, err = balbench("run", study, "--out", tmp_path / "run")
    assert code == 1
    assert err.count("failed: bal_pm, seed 0: ValueError: scores are not finite") == 1
    assert err.splitlines()[-1].startswith("1 cell failed (details: failed.json")

    def stopped(scheduler):
        raise KeyboardInterrupt

    monkeypatch.setattr("balbench.harness.running.scheduler.Scheduler.run", stopped)
    code, _, err = balbench("run", study, "--out", tmp_path / "run")
    assert code == 130
    assert err.count("failed: bal_pm, seed 0: ValueError: scores are not finite") == 1
    assert err.splitlines()[-1].startswith("stopped: ")


@pytest.mark.slow
def test_a_moved_data_file_is_the_same_data(without_report, votes, tmp_path, monkeypatch):
    without_report("run", votes, "--out", tmp_path / "run")
    keys = {cell["key"] for cell in RunDirectory(tmp_path / "run").header["cells"]}
    shutil.move(tmp_path / "votes.jsonl", tmp_path / "moved.jsonl")
    path = f"dataset.path={tmp_path / 'moved.jsonl'}"
    assert without_report("run", votes, "--out", tmp_path / "other", "--set", path)[0] == 0
    assert {cell["key"] for cell in RunDirectory(tmp_path / "other").header["cells"]} == keys
    (tmp_path / "moved.jsonl").write_bytes(lines(ROWS[:-1]))
    assert without_report("run", votes, "--out", tmp_path / "changed", "--set", path)[0] == 0
    assert not {cell["key"] for cell in RunDirectory(tmp_path / "changed").header["cells"]} & keys


def test_another_study_in_the_directory(finished, balbench):
    directory, _ = finished
    before = bytes_of(directory / "run")
    code, _, err = balbench("run", directory / "tiny.yaml", "--out", directory / "run", "--set", "protocol.batch=9")
    assert code == 2
    assert "has a study with another protocol.batch; give another directory" in err
    assert bytes_of(directory / "run") == before


def test_a_refused_study_can_be_corrected(without_report, tmp_path):
    study = write_study(tmp_path, policies=["random"], seeds=1)
    assert without_report("run", study, "--out", tmp_path / "run", "--set", "protocol.rounds=99")[0] == 2
    assert without_report("run", study, "--out", tmp_path / "run")[0] == 0


def test_lost_rounds_of_a_finished_cell_are_run_again(finished, balbench, tmp_path):
    directory, _ = finished
    shutil.copytree(directory / "run", tmp_path / "run")
    next((tmp_path / "run" / "cells").glob("bald-seed0-*/rounds.jsonl")).unlink()
    for path in Path(os.environ["BALBENCH_CACHE"]).glob("data/*/pool.prompt_features_PQ.npy"):
        path.unlink()
    assert balbench("run", directory / "tiny.yaml", "--out", tmp_path / "run")[0] == 0
    assert bytes_of(tmp_path / "run") == bytes_of(directory / "run")


def test_labels_are_not_read_as_markup(balbench, tmp_path):
    label = "a [/x] [b]"
    study = write_study(tmp_path, policies=["random", {"name": "bald", "label": label}], seeds=1)
    assert label in balbench("check", study)[1]
    code, out, err = balbench("run", study, "--out", tmp_path / "run")
    assert code == 0, err
    assert label in out
    assert label in balbench("status", tmp_path / "run")[1]


def test_the_order_of_settings_does_not_depend_on_hashing(tmp_path):
    study = write_study(tmp_path, policies=["random", "bald"], grid={"posterior.members": [4, 2, 3]})
    program = f"import balbench; print([(c.setting, c.key) for c in balbench.load_study({str(study)!r}).cells])"
    outputs = [
        subprocess.check_output([sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


def test_a_cluster_needs_its_extra(balbench, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "balbench.harness.running.dask_engine", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if the library were not installed
    code, _, err = balbench("run", write_study(tmp_path), "--out", tmp_path / "run", "--cluster", "local:2")
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("balbench: --cluster")
    assert "pip install 'balbench[cluster]'" in err


def test_a_directory_in_use(finished, balbench):
    run = finished[0] / "run"
    with RunDirectory(run).lock():
        code, _, err = balbench("run", run.parent / "tiny.yaml", "--out", run)
    assert code == 2
    assert "another run uses this directory" in err


@pytest.mark.slow
def test_a_full_disk_keeps_all_complete_rounds(finished, tmp_path):
    """No file may exceed 6 kB; after some rounds, the logs of cells are larger."""
    directory, _ = finished
    shutil.copytree(directory / "run" / "data", tmp_path / "run" / "data")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))

    process = start("run", directory / "tiny.yaml", "--out", tmp_path / "run", preexec_fn=small_files)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert "all finished rounds are kept" in err
    process = start("run", directory / "tiny.yaml", "--out", tmp_path / "run")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert bytes_of(tmp_path / "run") == bytes_of(directory / "run")


def test_help_imports_nothing_heavy():
    heavy = ("torch", "pandas", "matplotlib", "transformers", "datasets", "pyarrow")
    code = f"import sys; import balbench.benchmarks.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
