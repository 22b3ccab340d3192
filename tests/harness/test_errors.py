"""Errors: in one line, and with the name of their setting."""

import pickle

import pytest

from balbench.harness.errors import (
    BalbenchError,
    ClusterError,
    DataError,
    RunDirectoryError,
    StudyError,
    answer_of,
    fitted,
)


class Mine:
    """A plug-in."""

    def build(self, error):
        if error is not None:
            raise error
        return (1, 2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("archive\ngone"), r"^Mine.build: OSError: archive gone \(test_errors.py, line \d+\); fix it$"),
        (None, "^Mine.build: returned tuple; return dict$"),
        (DataError("no file; give one"), "^no file; give one$"),
    ],
)
def test_a_plug_in_fails_in_one_line(error, message):
    with pytest.raises(DataError, match=message):
        answer_of(Mine().build, dict, error)


def test_a_sound_answer_is_passed_on():
    assert answer_of(Mine().build, tuple, None) == (1, 2)


@pytest.mark.parametrize("error", [StudyError("wrong"), KeyboardInterrupt()])
def test_what_has_a_meaning_of_its_own_passes(error):
    with pytest.raises(type(error)):
        answer_of(Mine().build, dict, error)


@pytest.mark.parametrize("kind", [BalbenchError, StudyError, DataError, RunDirectoryError, ClusterError])
def test_an_error_keeps_the_name_of_its_setting_on_its_way_from_a_worker(kind):
    error = pickle.loads(pickle.dumps(kind("jobs 0: must be at least 1", setting="jobs")))
    assert (type(error), str(error), error.setting) == (kind, "jobs 0: must be at least 1", "jobs")


def test_a_long_message_keeps_its_place_and_its_remedy():
    message = fitted(f"policies.0: {'x' * 5_000}; give a name")
    assert len(message) < 1_010
    assert message.startswith("policies.0: x")
    assert message.endswith("x; give a name")
