"""Workers of a cluster are killed repeatedly: the study ends with the bytes of an undisturbed run."""

import os
import random
import subprocess
import threading
from contextlib import suppress

import pytest

from support.cluster import DaskCluster, kill
from support.command import start
from support.studies import bytes_of, write_study

KILLS = int(os.environ.get("BALBENCH_CHAOS_KILLS", "5"))
WORKERS = 4
SECONDS = (2.0, 4.0)  # between kills
STUDY = {
    "protocol": {"initial": 10, "batch": 10, "rounds": 25},
    "policies": ["random", "bald", "bal_pm"],
    "seeds": 4 * KILLS,  # enough rounds for most kills to fall into one run
}
RESULTS = ("study.json", "rounds.jsonl", "predictions.f16", "manifest.json")


class Killer(threading.Thread):
    """Kills a random worker every few seconds."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self._cluster, self._moments = cluster, random.Random(7)
        self.active, self.kills = threading.Event(), 0

    def run(self):
        while self.kills < KILLS:
            self.active.wait()
            threading.Event().wait(self._moments.uniform(*SECONDS))
            pids = sorted(self._cluster.pids().values())
            # With fewer workers left, the study would make no progress, because new workers start slowly.
            if len(pids) >= WORKERS - 1 and self.active.is_set():
                kill(self._moments.choice(pids))
                self.kills += 1


def run(study, out, *options):
    process = start("run", study, "--out", out, *options)
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    return bytes_of(out, *RESULTS)


def watched(process, out, killer):
    """Activate the killer between the first round and the report; return the exit code."""
    while process.poll() is None:
        if list(out.glob("report")):
            killer.active.clear()
        elif list(out.glob("cells/*/rounds.jsonl")):
            killer.active.set()
        with suppress(subprocess.TimeoutExpired):
            print(process.communicate(timeout=0.2)[1])
    killer.active.clear()
    return process.returncode


@pytest.mark.slow
def test_workers_killed_every_few_seconds(tmp_path, capsys):
    study = write_study(tmp_path, **STUDY)
    expected = run(study, tmp_path / "undisturbed")
    log, finishes = tmp_path / "rounds", 0
    counting = ("--preload", "support.count_rounds")
    with DaskCluster(tmp_path / "dask") as cluster:
        for _ in range(WORKERS):
            cluster.workers.append(cluster.add_worker(*counting, environment={"BALBENCH_TEST_ROUNDS": str(log)}))
        killer = Killer(cluster)
        killer.start()
        while finishes == 0 or killer.kills < KILLS:
            out = tmp_path / f"run{finishes}"
            assert watched(start("run", study, "--out", out, "--cluster", cluster.address), out, killer) == 0
            assert bytes_of(out, *RESULTS) == expected
            finishes += 1
        lost = cluster.lost_tasks()
    rounds = sum(file.count(b"\n") for name, file in expected.items() if name.endswith("rounds.jsonl"))
    ran = len(log.read_text().splitlines())
    with capsys.disabled():
        print(
            f"\n{killer.kills} kills in {finishes} runs of {rounds} rounds: {lost} tasks lost, "
            f"{ran - finishes * rounds} rounds run twice"
        )
    assert killer.kills >= KILLS
    assert lost > 0
    assert ran >= finishes * rounds
