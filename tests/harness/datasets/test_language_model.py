"""Log-perplexities and token entropies against their definitions, one prefix at a time."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertLMHeadModel

from balbench.harness.datasets.features import EncoderSettings
from balbench.harness.datasets.language_model import LanguageModel
from balbench.harness.datasets.model_files import locate_model
from balbench.harness.errors import DataError
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert, save_gpt

TEXTS = [
    ("what is it", "a cat"),
    ("what is it", "a dog, I think"),
    ("why", "b" * 30),
    ("x" * 30, "!"),
    ("", "no prompt"),
]


def silent(what, done, of):
    pass


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return save_gpt(tmp_path_factory.mktemp("gpt"), head=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "perplexity"


def settings(model, **other) -> EncoderSettings:
    return EncoderSettings(**{"perplexity": str(model), "max_length": POSITIONS, "batch_tokens": 128, **other})


def slow(model, text: str, response_tokens: int) -> tuple[float, float]:
    """Feed every prefix by itself: -log p of each of the last tokens, and the entropy after each token."""
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    ids = tokenizer(text)["input_ids"]
    surprise, entropy = [], 0.0
    for end in range(1, len(ids) + 1):
        with torch.inference_mode():
            p = network(input_ids=torch.tensor([ids[:end]])).logits[0, -1].double().softmax(dim=0).numpy()
        entropy -= float(np.sum(p * np.log(p)))
        if len(ids) - response_tokens <= end < len(ids):
            surprise.append(-np.log(p[ids[end]]))
    return float(np.mean(surprise)), entropy


def test_batches_give_what_single_prefixes_give(gpt):
    actual = settings(gpt).judge(TEXTS, silent)
    assert actual.dtype == np.float32
    for (prompt, response), row in zip(TEXTS, actual, strict=True):
        np.testing.assert_allclose(row, slow(gpt, f"{prompt}\n{response}", len(response)), rtol=1e-4)


def test_the_first_token_of_all_is_not_predicted(gpt):
    actual = settings(gpt, template="{response}").judge([("", "abc")], silent)
    np.testing.assert_allclose(actual[0], slow(gpt, "abc", 2), rtol=1e-4)


def test_a_long_prompt_is_cut_and_the_response_stays(gpt):
    actual = settings(gpt, max_length=20).judge([("p" * 40, "answer")], silent)
    np.testing.assert_allclose(actual[0], slow(gpt, "p" * 13 + "\nanswer", 6), rtol=1e-4)


def test_what_the_template_adds_after_the_response_is_not_its_own(gpt):
    actual = settings(gpt, template="{response}<end>").judge([("", "abc")], silent)
    kept = slow(gpt, "abc<end>", 6)[1]
    np.testing.assert_allclose(actual[0], (slow(gpt, "abc", 2)[0], kept), rtol=1e-4)


def test_what_is_known_is_not_judged_again(gpt, cache, monkeypatch):
    first = settings(gpt).judge(TEXTS, silent)
    assert list(cache.glob("*/*.safetensors"))
    monkeypatch.setattr(LanguageModel, "load", None)
    np.testing.assert_array_equal(settings(gpt).judge(TEXTS[::-1], silent), first[::-1])
    np.testing.assert_array_equal(settings(gpt, pooling="last_token").judge(TEXTS, silent), first)
    with pytest.raises(TypeError):
        settings(gpt, cut="start").judge(TEXTS, silent)


def test_a_response_without_a_predicted_token(gpt):
    made = settings(gpt, template="{response}")
    one_line(lambda: made.judge([("", "abc"), ("", "a")], silent), "cannot predict a token of the response 'a'")


def test_a_model_that_sees_what_it_should_predict_is_refused(tmp_path):
    bert = save_bert(tmp_path / "bert", model_class=BertLMHeadModel)
    one_line(lambda: settings(bert).judge(TEXTS, silent), "dataset.perplexity: ", "sees the tokens")


def test_errors_name_the_setting(tmp_path):
    for name in (tmp_path / "none", save_bert(tmp_path / "bert")):
        with pytest.raises(DataError, match=r"^dataset\.perplexity: .*set dataset\.perplexity="):
            settings(name).judge(TEXTS, silent)


def test_a_key_only_where_a_model_is_named(gpt):
    assert EncoderSettings().perplexity_files() is None
    assert settings(gpt).perplexity_files().key == locate_model(str(gpt)).key
