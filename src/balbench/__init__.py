"""How many human preference labels does active learning save? Simulate, measure, report.

The names of this module are the public API. A name is imported when it is first used, so that `import balbench` is
fast and imports no large library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balbench.api import load_study, run_study, transfer
    from balbench.benchmarks.claims import claims
    from balbench.gating import baseline, compare, gate
    from balbench.harness.datasets.dataset import Dataset
    from balbench.harness.errors import BalbenchError
    from balbench.harness.policies.policy import Policy
    from balbench.harness.posteriors.posterior import Posterior
    from balbench.harness.registry import register
    from balbench.oracles.oracle import Oracle
    from balbench.reports.curves import Curve
    from balbench.reports.savings import label_savings
    from balbench.run import Run, read_run

    __version__: str

__all__ = [
    "BalbenchError",
    "Curve",
    "Dataset",
    "Oracle",
    "Policy",
    "Posterior",
    "Run",
    "__version__",
    "baseline",
    "claims",
    "compare",
    "gate",
    "label_savings",
    "load_study",
    "read_run",
    "register",
    "run_study",
    "transfer",
]

_MODULES = {
    "BalbenchError": "balbench.harness.errors",
    "Curve": "balbench.reports.curves",
    "Dataset": "balbench.harness.datasets.dataset",
    "Oracle": "balbench.oracles.oracle",
    "Policy": "balbench.harness.policies.policy",
    "Posterior": "balbench.harness.posteriors.posterior",
    "Run": "balbench.run",
    "baseline": "balbench.gating",
    "claims": "balbench.benchmarks.claims",
    "compare": "balbench.gating",
    "gate": "balbench.gating",
    "label_savings": "balbench.reports.savings",
    "load_study": "balbench.api",
    "read_run": "balbench.run",
    "register": "balbench.harness.registry",
    "run_study": "balbench.api",
    "transfer": "balbench.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("balbench")
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'balbench' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
