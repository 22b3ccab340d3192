"""What a fault must look like."""

from collections.abc import Callable

import pytest

from balbench.harness.errors import DataError


def one_line(action: Callable[[], object], *parts: object) -> None:
    """The action raises a DataError of one line that holds all parts."""
    with pytest.raises(DataError) as error:
        action()
    assert "\n" not in str(error.value)
    for part in parts:
        assert str(part) in str(error.value)
