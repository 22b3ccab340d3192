"""Facts about a data set before and after it is built."""

import numpy as np

from balbench.harness.datasets.simulated import Simulated
from balbench.harness.pool.contents import Contents


def test_the_contents_of_a_built_data_set_count_the_pairs_of_a_prompt():
    data = Simulated.model_validate({"preset": "small", "pool_prompts": 20, "pool_pairs": 60}).build(lambda *_: None)
    pool = data.splits["pool"].pairs
    contents = Contents.of(data)
    assert contents.splits == tuple(data.splits)
    assert contents.response_tables == {
        name for name in ("response_log_perplexity_R", "response_token_entropy_R") if getattr(pool, name) is not None
    }
    assert contents.most_pairs_a_prompt == max(np.unique(pool.prompt_of_pair_N, return_counts=True)[1])
