"""A tiny simulated world."""

from balbench.harness.datasets.simulated import Simulated

TINY_WORLD = {
    "pool_pairs": 900,
    "pool_prompts": 220,
    "eval_pairs": 60,
    "test_pairs": 150,
    "ood_pairs": 150,
    "dimension": 16,
}


def build(**settings):
    return Simulated(**(TINY_WORLD | settings)).build(lambda work, done, total: None)
