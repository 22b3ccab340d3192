"""The self-test of fleets: it finds products that depend on their batch, and training then goes one by one."""

import json
import os
import subprocess
import sys

import pytest
import torch

from balbench.harness.posteriors import fleet_check
from balbench.harness.posteriors.bayesian_linear import BayesianLinear
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.epinet import Epinet
from balbench.harness.posteriors.fleet_check import fleets_are_exact
from balbench.harness.posteriors.laplace import Laplace
from balbench.harness.posteriors.matmul import MatMul
from support import fleet_bits

MODES = [None, "AUTO", "COMPATIBLE", "AVX2", "AUTO,STRICT"]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_cells_have_the_same_bits_under_each_mode_of_mkl(mode):
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    environment |= {"MKL_CBWR": mode} if mode else {}
    script = [sys.executable, fleet_bits.__file__]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    assert set(answers) == set(fleet_bits.POSTERIORS)
    assert all(answer["same"] for answer in answers.values()), answers
    if mode == "AUTO,STRICT":  # MKL promises that this mode does not depend on the batch
        assert all(answer["exact"] for answer in answers.values())


def disturbed(method, wrong):
    """A product that adds 1e-6 where `wrong` says so."""

    def product(self, *arguments, **options):
        result = method(self, *arguments, **options)
        return result.add_(1e-6) if wrong(result) else result

    return product


@pytest.fixture
def untested():
    """Without answers that other tests have left."""
    fleets_are_exact.cache_clear()
    yield
    fleets_are_exact.cache_clear()


@pytest.mark.parametrize("product", ["baddbmm", "bmm"])
@pytest.mark.parametrize("members", fleet_check.MEMBERS)
def test_a_product_that_depends_on_its_batch_is_found(monkeypatch, untested, product, members):
    together = fleet_check.CELLS * members
    monkeypatch.setattr(MatMul, product, disturbed(getattr(MatMul, product), lambda out: len(out) == together))
    assert not fleets_are_exact()


def test_the_layer_widths_of_the_posterior_are_tested(monkeypatch, untested):
    product = disturbed(MatMul.baddbmm, lambda out: len(out) == 2 * fleet_check.CELLS and out.shape[2] == 11)
    assert 11 not in {width for sizes in fleet_check.NETWORKS for width in sizes}
    monkeypatch.setattr(MatMul, "baddbmm", product)
    assert not Ensemble(members=2, hidden=[11]).fleet_is_exact(6)
    assert BayesianLinear().fleet_is_exact(6)


@pytest.mark.parametrize(
    "posterior", [Laplace(hidden=[11, 4]), Epinet(hidden=[8], epinet_hidden=[11])], ids=["laplace", "epinet"]
)
def test_each_network_of_a_posterior_is_tested(monkeypatch, untested, posterior):
    wrong = disturbed(MatMul.baddbmm, lambda out: len(out) == fleet_check.CELLS and out.shape[2] == 11)
    monkeypatch.setattr(MatMul, "baddbmm", wrong)
    assert not posterior.fleet_is_exact(6)


def test_cells_fall_back_to_training_one_by_one(monkeypatch, untested):
    posterior = fleet_bits.POSTERIORS["even widths"]
    monkeypatch.setattr(MatMul, "baddbmm", disturbed(MatMul.baddbmm, lambda out: len(out) > posterior.members))
    assert fleet_bits.answers(posterior) == {"exact": False, "same": True}
    alone = fleet_bits.rewards(posterior, range(2), together=False)
    assert not torch.equal(fleet_bits.rewards(posterior, range(2), together=True)[0], alone[0])
