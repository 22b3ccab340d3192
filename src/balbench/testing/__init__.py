"""Checks of the contracts, for authors of policies, posteriors, oracles and datasets.

    from balbench.testing import check_policy
    from my_package.margin import Margin

    def test_margin():
        check_policy(Margin())

The checks need no test framework. They raise `ContractError`, an AssertionError, whose message says which promise is
broken, with which input, and what to change. docs/plug-ins.md explains the contracts.

`assert_no_regression` and `assert_same_selection` compare a policy with a baseline (docs/gate.md).
"""

import os
import sys

from balbench.harness.machine import MKL_CBWR, mkl_mode

if "torch" not in sys.modules:  # workers do the same; torch reads the variable when it is imported
    os.environ[MKL_CBWR] = mkl_mode()

from balbench.testing.contract import ContractError
from balbench.testing.datasets import check_dataset
from balbench.testing.gates import assert_no_regression, assert_same_selection
from balbench.testing.oracles import check_oracle
from balbench.testing.policies import check_policy
from balbench.testing.posteriors import check_posterior

__all__ = [
    "ContractError",
    "assert_no_regression",
    "assert_same_selection",
    "check_dataset",
    "check_oracle",
    "check_policy",
    "check_posterior",
]
