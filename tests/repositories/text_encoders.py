"""SDXL's text encoders and tokenizers at tiny width, in the files that the hub has of
them.
"""

import json
from pathlib import Path

import torch
import transformers as tf

WIDTH = 8
"""Of each text encoder; SDXL's U-Net takes both beside each other, and the pooled text
of the second.
"""
IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
"""As published: no ids of the vocabulary, which transformers knows by the 2."""
WORDS = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "!": 5}
WORDS |= {"<|startoftext|>": 6, "<|endoftext|>": 7}
LETTERS = [*"abcdefghijklmnopqrstuvwxyz123"]
SPELLED = [
    *LETTERS,
    *(letter + "</w>" for letter in LETTERS),
    "ab</w>",
    "<|startoftext|>",
    "<|endoftext|>",
]
"""Ids of a vocabulary that spells what it reads; as published, the last is the token
that ends a text.
"""
PADS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


def write(folder: Path) -> None:
    """Write text_encoder, text_encoder_2, tokenizer and tokenizer_2 into a generator's
    folder.
    """
    torch.manual_seed(0)
    tiny = {"intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 2}
    config = tf.CLIPTextConfig(
        **tiny,
        **IDS,
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        vocab_size=len(WORDS),
        hidden_act="quick_gelu",
    )
    tf.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    tf.CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder_2")
    for name, pad in PADS.items():
        write_tokenizer(folder / name, pad)


def write_tokenizer(folder: Path, pad: str, words: dict[str, int] = WORDS) -> None:
    """Write the files of a CLIP tokenizer of a few words."""
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    told = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (folder / "special_tokens_map.json").write_text(
        json.dumps({**special, "pad_token": pad})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, **told, "pad_token": pad})
    )
