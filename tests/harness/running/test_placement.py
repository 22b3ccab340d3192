"""Where cells run: what was asked for, devices, and the sizes of fleets."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from balbench.harness.errors import StudyError
from balbench.harness.running.placement import (
    CPU_FLEET,
    CPU_FLEET_BYTES,
    Placement,
    cells_together,
    make_fleets,
    placed,
    usable_devices,
)
from balbench.harness.study.study import check_study
from support.studies import tiny


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cuda:99", "cpu:0"])
def test_devices_that_do_not_exist(name):
    with pytest.raises(StudyError, match=f"^device {name}: .*cpu"):
        usable_devices(name)


def test_processes_of_this_machine(monkeypatch):
    assert Placement(7, "cpu").devices() == ["cpu"] * 7
    assert set(Placement(None, "cpu").devices()) == {"cpu"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert Placement(None, "cuda").devices() == ["cuda:0", "cuda:1", "cuda:2"]
    assert Placement(None, "auto", fleets_per_device=2).devices() == ["cuda:0", "cuda:1", "cuda:2"] * 2
    assert Placement(None, "cuda:1").devices() == ["cuda:1"]
    with pytest.raises(StudyError, match=r"jobs 4: .*fleets_per_device"):
        Placement(4, "cuda").devices()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert set(Placement(None, "auto").devices()) == {"cpu"}


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({"fleet": 0}, "fleet 0: must be at least 1"),
        ({"jobs": 1.5}, "jobs 1.5: must be a whole number"),
        ({"fleet": "8"}, "fleet '8': must be a whole number"),
        ({"grace": "10"}, "grace '10': must be a number of seconds"),
        ({"fleets_per_device": 0}, "fleets_per_device 0: must be at least 1"),
        ({"grace": -1.0}, "grace -1: must be"),
        ({"grace": float("nan")}, "grace nan: must be"),
        ({"features": "disk"}, "features disk: must be one of auto, resident, streamed"),
        ({"cluster": "local:0"}, "cluster local:0: must be tcp://host:port, tls://host:port or local:N"),
        ({"cluster": "local:x"}, "cluster local:x: must be tcp://host:port, tls://host:port or local:N"),
        ({"cluster": "somewhere"}, "cluster somewhere: must be tcp://host:port"),
        ({"cluster": "local:2", "jobs": 2}, "jobs: is for this machine"),
        ({"cluster": "local:2", "device": "cuda:1"}, "device cuda:1: must be auto, cpu or cuda"),
    ],
)
def test_what_cannot_be_asked_for(asked, part):
    with pytest.raises(StudyError, match=part) as error:
        Placement(**asked).check()
    assert str(error.value).startswith(error.value.setting)


@pytest.mark.parametrize("asked", [{}, {"cluster": "local:4"}, {"cluster": "tcp://node1:8786", "device": "cuda"}])
def test_what_can(asked):
    Placement(**asked).check()


def study_of(**changes):
    return check_study(tiny(**changes), "tiny")


def sizes(fleets):
    return [len(cells) for cells in fleets]


def test_a_fleet_shares_data_posterior_and_kind():
    posteriors = [{"name": "ensemble", "members": members} for members in (2, 3)]
    cells = study_of(seeds=3, policies=["random", "bald"], grid={"posterior": posteriors}).cells
    fleets = make_fleets(cells, 1, 100, None, lambda cell: 1)
    assert sizes(fleets) == [6, 3, 6, 3]  # both policies, then full data, for each posterior
    for fleet in fleets:
        assert len({(cell.dataset_key, cell.posterior, cell.policy.acquires_all) for cell in fleet}) == 1
    order = {cell.directory: number for number, cell in enumerate(cells)}
    numbers = [order[cell.directory] for fleet in fleets for cell in fleet]
    assert numbers == list(range(len(cells)))


@pytest.mark.parametrize(
    ("slots", "fleet", "together", "expected"),
    [
        (2, 4, 1, [3, 3, 4]),  # as asked, in about equal parts
        (1, None, 100, [10]),
        (1, None, 4, [3, 3, 4]),
        (4, None, 100, [2, 3, 2, 3]),  # no slot stays empty
        (99, None, 100, [1] * 10),
        (0, None, 100, [10]),  # a cluster without workers yet
    ],
)
def test_sizes_of_fleets_on_gpus(slots, fleet, together, expected):
    cells = study_of(seeds=10, policies=["random"], full_data=False).cells
    assert sizes(make_fleets(cells, slots, fleet, 1000, lambda cell: together)) == expected


@pytest.mark.parametrize(
    ("slots", "fleet", "together", "expected"),
    [
        (1, None, 1, [1] * 10),
        (1, None, 8, [3, 3, 4]),  # some turns each, or one process ends long after another
        (2, None, 8, [2] * 5),
        (2, 5, 1, [5, 5]),
        (0, None, 8, [3, 3, 4]),
    ],
)
def test_sizes_of_fleets_on_cpus(slots, fleet, together, expected):
    cells = study_of(seeds=10, policies=["random"], full_data=False).cells
    assert sizes(make_fleets(cells, slots, fleet, None, lambda cell: together)) == expected


def taking(number):
    """A cell whose training takes ten times so many bytes."""
    return SimpleNamespace(posterior=SimpleNamespace(training_bytes=lambda dimension: number * dimension))


@pytest.mark.parametrize(
    ("free", "features", "expected"),
    [(1000, 0, 9), (1000, 400, 5), (1000, 850, 1), (1000, 901, 9), (50, 0, 1)],
    ids=["all", "less the features", "hardly any", "streamed features take none", "too small for one"],
)
def test_how_many_cells_fit_on_a_gpu(free, features, expected):
    assert cells_together(taking(10), free, features, dimension=10) == expected


@pytest.mark.parametrize(("share", "expected"), [(100, CPU_FLEET), (CPU_FLEET, CPU_FLEET), (3, 3), (1.5, 1), (0.5, 1)])
def test_cells_train_together_on_a_cpu_while_they_are_small(share, expected):
    assert cells_together(taking(CPU_FLEET_BYTES // share / 10), None, 10**12, dimension=10) == expected


def test_a_line_of_where_cells_run():
    assert placed(25, [1] * 25, 2, "cpu") == "25 cells as 25 fleets of 1 on 2 processes (cpu)"
    assert placed(9, [4, 5], 4, "cuda:0, cuda:1") == "9 cells as 2 fleets of 4 to 5 on 2 processes (cuda:0, cuda:1)"
    assert placed(1, [1], 4, "cpu") == "1 cell as 1 fleet of 1 on 1 process (cpu)"


def test_the_scheduler_does_not_import_joblib_for_the_number_of_cores():
    code = "import sys, balbench.harness.running.scheduler; assert 'joblib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
