"""Errors of strangers' code, told in one line."""

import pytest

from balbench.harness.errors import DataError, StudyError, answer_of


class Mine:
    """A plug-in."""

    def build(self, error):
        if error is not None:
            raise error
        return (1, 2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("archive\ngone"), r"^Mine.build: OSError: archive gone \(test_errors.py, line \d+\); mend it$"),
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
