"""The built-in datasets keep the contract (balbench.testing.check_dataset)."""

import json

import numpy as np
import pytest

from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.datasets.simulated import Simulated
from balbench.testing import check_dataset
from support.tiny_models import save_bert

SMALL = {"pool_pairs": 300, "pool_prompts": 60, "eval_pairs": 60, "test_pairs": 80, "ood_pairs": 80, "topics": 6}


@pytest.mark.parametrize(
    "settings",
    [{}, {"data_seed": 7, "dimension": 5, "prompt_dimension": 3}, {"max_pairs_per_prompt": 1, "pool_prompts": 300}],
    ids=["default", "few features", "one pair a prompt"],
)
def test_simulated(settings):
    check_dataset(Simulated(**(SMALL | {"dimension": 8, "latent_dimension": 4} | settings)))


def test_preference_file(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "votes.jsonl"
    words = ["".join(letters) for letters in rng.choice(list("abcdefgh"), size=(300, 6))]
    rows = [
        {"prompt": words[n % 60], "response_a": words[n], "response_b": words[-n - 1], "label": int(rng.integers(2))}
        for n in range(150)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    encoder = str(save_bert(tmp_path / "model"))
    check_dataset(PreferenceFile(path=str(path), encoder=encoder, max_length=64, eval_share=0.2, test_share=0.2))
