"""Model directories as people have them: configurations, declared pooling, code that must not run."""

import builtins
import json
import shutil
import time

import numpy as np
import pytest
import transformers as tr

from balbench.harness.datasets.features import EncoderSettings
from balbench.harness.datasets.model_files import locate_model
from balbench.harness.errors import DataError
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert, save_gpt, save_letters, save_model

TEXTS = [("abc", "de"), ("abc", "d" * 30), ("abc", None), ("y", "!?")]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))


def encode(directory, **other):
    settings = EncoderSettings(encoder=str(directory), **{"max_length": POSITIONS, "batch_tokens": 128} | other)
    features = settings.encode(TEXTS, lambda *_: None)
    assert features.shape == (len(TEXTS), settings.width())
    assert np.isfinite(features).all()
    return features


# Code of a model directory

PWNED = "import pathlib; pathlib.Path({!r}).touch()\nraise SystemExit\n"


def needs_code(tmp_path, monkeypatch, file):
    """A model directory with a file that names code of its own."""
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("transformers asks on the terminal"))
    model = save_bert(tmp_path / "model")
    names = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    own = {"model_type": "own", "tokenizer_class": "Own", "auto_map": names}
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | own))
    (model / "own.py").write_text(PWNED.format(str(tmp_path / "pwned")))
    return model


def test_code_of_a_model_directory_never_runs(tmp_path, monkeypatch):
    model = needs_code(tmp_path, monkeypatch, "config.json")
    started = time.monotonic()
    for action in (EncoderSettings(encoder=str(model)).width, lambda: encode(model)):
        one_line(action, f"dataset.encoder: {model} cannot be loaded", "its own code", "never runs")
    assert time.monotonic() - started < 10
    assert not (tmp_path / "pwned").exists()


def test_code_of_a_tokenizer_never_runs(tmp_path, monkeypatch):
    """A tokenizer.json says everything; the code that another file names is left alone."""
    model = needs_code(tmp_path, monkeypatch, "tokenizer_config.json")
    assert np.array_equal(encode(model), encode(save_bert(tmp_path / "plain")))
    assert not (tmp_path / "pwned").exists()


def test_a_known_architecture_loads_without_the_code_beside_it(tmp_path):
    model = save_bert(tmp_path / "model")
    plain = encode(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Own"}}))
    (model / "own.py").write_text(PWNED.format(str(tmp_path / "pwned")))
    assert np.array_equal(encode(model), plain)
    assert not (tmp_path / "pwned").exists()


# Pooling that the files declare


def declare(model, pooling, *more, folder="1_Pooling"):
    """Write the files of sentence-transformers."""
    (model / folder).mkdir()
    (model / folder / "config.json").write_text(json.dumps(pooling))
    kinds = [("Transformer", ""), ("Pooling", folder), *((kind, f"2_{kind}") for kind in more)]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (model / "modules.json").write_text(json.dumps(modules))
    return model


@pytest.mark.parametrize(
    ("declared", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
@pytest.mark.parametrize("normalised", [False, True])
def test_the_declared_pooling_is_used(tmp_path, declared, pooling, normalised):
    model = declare(save_bert(tmp_path / "model"), declared, *(["Normalize"] if normalised else []))
    expected = encode(save_bert(tmp_path / "plain"), pooling=pooling, normalise=normalised)
    assert np.array_equal(encode(model), expected)
    other = encode(model, pooling="mean", normalise=False)
    assert np.array_equal(other, encode(tmp_path / "plain"))


def test_a_change_of_the_declared_pooling_changes_the_key(tmp_path):
    model = declare(save_bert(tmp_path / "model"), {"pooling_mode_cls_token": True})
    before = locate_model(str(model)).key
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert locate_model(str(model)).key != before


@pytest.mark.parametrize("pooling_folder", ["1_Pooling", "0_Transformer/1_Pooling"])
def test_the_old_layout_gives_the_same_features(tmp_path, pooling_folder):
    model = declare(save_bert(tmp_path / "model"), {"pooling_mode_cls_token": True}, "Normalize")
    old = tmp_path / "old"
    shutil.copytree(model, old / "0_Transformer", ignore=shutil.ignore_patterns("modules.json", "1_Pooling"))
    shutil.copytree(model / "1_Pooling", old / pooling_folder)
    shutil.copy(model / "modules.json", old)
    assert np.array_equal(encode(old), encode(model))


@pytest.mark.parametrize(
    ("pooling", "more", "part"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, (), "the pooling cls_token + max_tokens"),
        ({"pooling_mode_weightedmean_tokens": True}, (), "the pooling weightedmean_tokens"),
        ({}, (), "the pooling of no known name"),
        ({"pooling_mode_mean_tokens": True}, ("Dense",), "a module of the type Dense"),
    ],
)
def test_what_cannot_be_honoured_is_refused_unless_a_setting_replaces_it(tmp_path, pooling, more, part):
    model = declare(save_bert(tmp_path / "model"), pooling, *more)
    settings = EncoderSettings(encoder=str(model))
    for action in (settings.width, lambda: encode(model)):
        one_line(action, f"dataset.pooling: {model} declares {part}", "mean, cls, max or last_token")
    assert np.array_equal(encode(model, pooling="cls"), encode(save_bert(tmp_path / "plain"), pooling="cls"))


def test_a_prompt_that_the_model_expects_belongs_to_the_templates(tmp_path):
    model = declare(save_bert(tmp_path / "model"), {"pooling_mode_cls_token": True})
    config = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    (model / "config_sentence_transformers.json").write_text(json.dumps(config))
    one_line(EncoderSettings(encoder=str(model)).width, f"dataset.template: {model} expects 'query: ' before every")
    templates = {"template": "query: {prompt}\n{response}", "prompt_template": "query: {prompt}"}
    assert EncoderSettings(encoder=str(model), **templates).width() == 16
    (model / "config_sentence_transformers.json").write_text(json.dumps(config | {"default_prompt_name": None}))
    assert EncoderSettings(encoder=str(model)).width() == 16


def test_the_pooling_of_a_hub_model_is_read_at_its_commit(tmp_path, monkeypatch):
    snapshot = declare(save_bert(tmp_path / "snapshots" / "c0ffee"), {"pooling_mode_cls_token": True})
    asked = []

    def stored(name, file, revision=None, local_files_only=False):
        asked.append((file, revision))
        return str(snapshot / file)

    monkeypatch.setattr("transformers.utils.cached_file", stored)
    files = locate_model("someone/model")
    assert files.declared_pooling() == "cls"
    assert not files.declares_normalisation()
    assert {revision for file, revision in asked if file != "config.json"} == {"c0ffee"}


# Configurations


def gemma3(directory):
    text = {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16, "max_position_embeddings": 128}
    vision = {**SMALL, "image_size": 28, "patch_size": 14}
    config = tr.Gemma3Config(
        text_config={**text, "vocab_size": save_letters(directory)}, vision_config=vision, mm_tokens_per_image=4
    )
    return save_model(tr.Gemma3ForConditionalGeneration, config, directory)


def bart(directory):
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = tr.BartConfig(
        vocab_size=save_letters(directory), d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes
    )
    return save_model(tr.BartModel, config, directory)


def t5(directory):
    config = tr.T5Config(vocab_size=save_letters(directory), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return save_model(tr.T5Model, config, directory)


def mamba(directory):
    config = tr.MambaConfig(vocab_size=save_letters(directory), hidden_size=16, state_size=4, num_hidden_layers=1)
    return save_model(tr.MambaModel, config, directory)


def xlnet(directory):
    config = tr.XLNetConfig(vocab_size=save_letters(directory), d_model=16, n_layer=1, n_head=2, d_inner=16)
    return save_model(tr.XLNetModel, config, directory)


@pytest.mark.parametrize("save", [gemma3, bart, t5, mamba, xlnet])
def test_families_of_text_models_are_encoded(tmp_path, save):
    model = save(tmp_path / "model")
    batched = encode(model)
    for text, features_D in zip(TEXTS, batched, strict=True):
        alone = EncoderSettings(encoder=str(model), batch_tokens=1, prompt_template="{prompt}", max_length=100)
        np.testing.assert_allclose(alone.encode([text], lambda *_: None)[0], features_D, atol=1e-4)


@pytest.mark.parametrize("family", ["Roberta", "MPNet"])
def test_positions_before_the_padding_index_cannot_be_used(tmp_path, family):
    model = tmp_path / "model"
    sizes = {**SMALL, "vocab_size": save_letters(model), "max_position_embeddings": 66, "pad_token_id": 1}
    save_model(getattr(tr, f"{family}Model"), getattr(tr, f"{family}Config")(**sizes), model)
    one_line(lambda: encode(model, max_length=65), "dataset.max_length", "takes 64 tokens; set dataset.max_length=64")
    settings = EncoderSettings(encoder=str(model), max_length=64)
    assert np.isfinite(settings.encode([("x" * 200, None)], lambda *_: None)).all()


def fnet(directory):
    config = tr.FNetConfig(**SMALL, vocab_size=save_letters(directory), max_position_embeddings=POSITIONS)
    return save_model(tr.FNetModel, config, directory)


def clip(directory):
    text = {**SMALL, "vocab_size": save_letters(directory), "max_position_embeddings": POSITIONS}
    config = tr.CLIPConfig(text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16})
    return save_model(tr.CLIPModel, config, directory)


def vit(directory):
    save_letters(directory)
    return save_model(tr.ViTModel, tr.ViTConfig(**SMALL, image_size=32, patch_size=16), directory)


@pytest.mark.parametrize(
    ("save", "parts"),
    [(fnet, ["mixes padding"]), (clip, ["cannot run on"]), (vit, ["cannot run on"])],
)
def test_what_is_no_text_encoder_is_refused_before_texts_are_encoded(tmp_path, save, parts):
    model = save(tmp_path / "model")
    one_line(lambda: encode(model), f"dataset.encoder: {model}", *parts, "another model")


def test_a_configuration_without_a_width_is_refused(tmp_path):
    model = save_gpt(tmp_path / "model")
    (model / "config.json").write_text(json.dumps({"model_type": "timm_wrapper", "architecture": "x"}))
    with pytest.raises(DataError, match=r"dataset\.encoder: .*") as error:
        EncoderSettings(encoder=str(model)).width()
    assert "\n" not in str(error.value)
