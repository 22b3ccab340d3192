"""Tiny encoders with random weights, saved as the hub saves them."""

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedTokenizerFast

POSITIONS = 64


def save_bert(directory: Path, positions: int = POSITIONS, model_class: type = BertModel) -> Path:
    """An encoder whose tokens are single letters: [CLS] ... [SEP]."""
    vocabulary = save_letters(directory, positions)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        initializer_range=0.5,
    )
    return save_model(model_class, config, directory)


def save_letters(directory: Path, most: int = 10**6) -> int:
    """Save a tokenizer whose tokens are single letters ([CLS] ... [SEP]); return the size of its vocabulary."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {name: row for row, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=most,
    ).save_pretrained(directory)
    return len(names)


def save_gpt(directory: Path, padding_side: str = "right", head: bool = False) -> Path:
    """A decoder whose tokens are single bytes, without special tokens and without a token for padding.

    With `head` it is a language model.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: row for row, name in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=padding_side).save_pretrained(directory)
    config = GPT2Config(
        vocab_size=len(alphabet), n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5
    )
    return save_model(GPT2LMHeadModel if head else GPT2Model, config, directory)


def save_model(model_class: type, config: object, directory: Path) -> Path:
    """Save a model with random weights, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model_class(config).save_pretrained(directory)
    return directory
