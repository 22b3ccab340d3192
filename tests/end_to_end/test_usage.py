"""Wrong arguments give one line with the place and the remedy, exit code 2, and no traceback."""

import pytest

from support.command import run_here
from support.studies import write_study


@pytest.fixture
def balbench(monkeypatch, capsys):
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "quickstrat"], ["no study 'quickstrat'", "did you mean 'quickstart'"]),
        (
            ["run", "STUDY", "--set", "posterior.membres=3"],
            ["posterior.membres: unknown key", "did you mean 'members'"],
        ),
        (["run", "STUDY", "--set", "policies.1=bald2"], ["policies.1", "did you mean 'bald'"]),
        (
            ["run", "STUDY", "--set", "protocol.rounds=99"],
            ["protocol.rounds: 99 rounds", "300 pairs", "lower rounds to 30"],
        ),
        (["run", "STUDY", "--set", "protocol.initial=999"], ["protocol.initial: 999", "300 pairs"]),
        (["check", "STUDY", "--set", "protocol.initial=999"], ["protocol.initial: 999", "300 pairs"]),
        (["run", "STUDY", "--device", "cuda:7"], ["--device cuda:7: this machine has", "try cpu"]),
        (["run", "STUDY", "--jobs", "0"], ["--jobs 0: must be at least 1"]),
        (["run", "STUDY", "--seeds", "-3"], ["--seeds -3: must be at least 1"]),
        (["check", "STUDY", "--reference-seeds", "1"], ["reference_seeds: must be at least the number of seeds, 2"]),
        (["run", "STUDY", "--jobs", "many"], ["--jobs", "valid integer", "(see balbench run --help)"]),
        (["run", "STUDY", "--grace", "x"], ["--grace", "(see balbench run --help)"]),
        (["run", "STUDY", "--job", "3"], ["no such option: --job", "--jobs", "(see balbench run --help)"]),
        (["run", "STUDY", "--jobs"], ["'--jobs' requires an argument"]),
        (["run"], ["missing argument 'STUDY' (see balbench run --help)"]),
        (["run", "STUDY", "more"], ["unexpected extra argument", "more", "(see balbench run --help)"]),
        (["rnu"], ["no such command 'rnu'", "(see balbench --help)"]),
        (["list", "things"], ["'things' is not one of", "policies", "(see balbench list --help)"]),
        (
            ["run", "STUDY", "--out", "tiny.yaml"],
            ["--out tiny.yaml: is a file, not a directory; give"],
        ),
        (["run", "STUDY", "--out", "tiny.yaml/x"], ["tiny.yaml/x: tiny.yaml is a file, not a directory"]),
        (
            ["report", "somewhere", "--out", "tiny.yaml"],
            ["--out tiny.yaml: is a file, not a directory; give"],
        ),
        (["status", "tiny.yaml"], ["tiny.yaml: is a file and holds no run; give the directory"]),
        (
            [
                "check",
                "STUDY",
                "--set",
                "dataset.max_pairs_per_prompt=1000",
                "--set",
                "dataset.pool_prompts=100000000",
                "--set",
                "dataset.pool_pairs=500000000",
            ],
            ["dataset: drawing the pairs would take 1,", "GiB of memory, of"],
        ),
        (
            ["check", "STUDY", "--set", "posterior.hidden=[1000000000, 1000000000]"],
            ["posterior: training takes", "lower"],
        ),
        (["run", "STUDY", "--fleet", "0"], ["--fleet 0: must be at least 1"]),
        (["check", "STUDY", "--fleets-per-device", "0"], ["--fleets-per-device 0: must be at least 1"]),
        (["run", "STUDY", "--features", "disk"], ["--features disk: must be one of auto, resident, streamed"]),
        (["run", "STUDY", "--grace", "-1"], ["--grace -1: must be 0 seconds or more"]),
        (
            ["run", "STUDY", "--cluster", "local:0"],
            ["--cluster local:0: must be tcp://host:port"],
        ),
        (["check", "STUDY", "--cluster", "nowhere"], ["--cluster nowhere: must be tcp://host:port"]),
        (["status", "nowhere"], ["nowhere: holds no run"]),
        (["report", "nowhere"], ["nowhere: holds no run"]),
        (["report", "a", "b"], ["holds no run"]),
    ],
)
def test_faults_are_one_line_and_exit_code_2(balbench, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    code, _, err = balbench(*["tiny.yaml" if a == "STUDY" else a for a in arguments])
    assert code == 2
    assert err.startswith("balbench: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err, err


def test_no_command_prints_the_help(balbench):
    code, out, err = balbench()
    assert code == 2
    assert "check" in out + err
    assert err.endswith("balbench: no command; give one of the commands above\n")
