"""All built-in oracles keep the contract (balbench.testing.check_oracle), in all their variants."""

from typing import Any

import pytest

from balbench.harness import registry
from balbench.testing import check_oracle

VARIANTS: dict[str, list[dict[str, Any]]] = {"replay": [{"votes": votes} for votes in ("first", "sample", "majority")]}
ORACLES = [
    pytest.param(name, settings, id=f"{name}-{'-'.join(map(str, settings.values())) or 'default'}")
    for name in registry.BUILT_IN["oracles"]
    for settings in VARIANTS.get(name, [{}])
]


@pytest.mark.parametrize(("name", "settings"), ORACLES)
def test_contract(name, settings):
    check_oracle(registry.load("oracles", name)(**settings))
