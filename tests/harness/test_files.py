"""Files are written whole or not at all."""

import errno
import os
import time

import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import disk_errors, read_json, remove_abandoned, replacing, write_json


def test_json_is_written_at_once(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            OSError(errno.ENOSPC, "No space left"),
            "(No space left); free some space and run the same command again, all",
        ),
        (OSError("1000 requested and 512 written"), "(1000 requested and 512 written); free some space"),
        (OSError(errno.EFBIG, "File too large"), "(File too large); free some space"),
        (OSError(errno.EACCES, "Permission denied"), "(Permission denied); check its path and permissions"),
    ],
)
def test_disk_errors_say_what_to_do(tmp_path, error, advice):
    with pytest.raises(RunDirectoryError) as caught:
        raised_within(tmp_path, error)
    assert str(caught.value).startswith(f"{tmp_path}: cannot be written {advice}")


def test_a_directory_that_is_gone_keeps_nothing(tmp_path):
    with pytest.raises(RunDirectoryError) as error:
        raised_within(tmp_path, FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert "kept" not in str(error.value)
    assert "check that no program moves or deletes it" in str(error.value)


def raised_within(path, error):
    with disk_errors(path):
        raise error


def test_disk_errors_pass_other_errors(tmp_path):
    with pytest.raises(KeyError), disk_errors(tmp_path):
        raise KeyError


def test_a_file_or_a_directory_takes_the_place_of_the_old_one(tmp_path):
    for old in ("nothing", "file"):
        path = tmp_path / old
        if old == "file":
            path.write_text("old")
        with replacing(path) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"
    for old in ("no directory", "directory"):
        path = tmp_path / old
        if old == "directory":
            path.mkdir()
            (path / "old").write_text("")
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "new").write_text("")
        assert [inner.name for inner in path.iterdir()] == ["new"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, kind, error):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error):
        interrupted(path, kind, error)
    assert path.read_text() == "old"
    assert [inner.name for inner in tmp_path.iterdir()] == ["a"]


def interrupted(path, kind, error):
    with replacing(path) as temporary:
        temporary.mkdir() if kind == "directory" else temporary.write_text("half")
        raise error


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path):
    for name, days in ((".a.1.tmp", 2), (".b.2.tmp", 0), ("c.tmp", 2)):
        path = tmp_path / name
        path.mkdir() if name == ".a.1.tmp" else path.write_text("")
        os.utime(path, (time.time() - days * 86400,) * 2)
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.2.tmp", "c.tmp"]
