"""Fixtures of the tests of `balbench.testing`."""

from collections.abc import Iterator

import cloudpickle
import pytest


@pytest.fixture(autouse=True)
def _classes_travel_by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Another process cannot import a module of tests by its name, so its classes are sent with their code."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)
