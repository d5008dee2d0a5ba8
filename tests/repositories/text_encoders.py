"""Files of SDXL's text encoders and tokenizers at a tiny width."""

import json
from pathlib import Path

import torch
import transformers as tf

WIDTH = 8
"""Width of each text encoder. SDXL's U-Net concatenates both, and also takes the pooled
text of the second.
"""
IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
"""Published ids. They are not ids of the vocabulary, and transformers detects this by
eos_token_id 2.
"""
WORDS = {
    "a": 0,
    "b": 1,
    "a</w>": 2,
    "b</w>": 3,
    "ab</w>": 4,
    "!": 5,
    "<|startoftext|>": 6,
    "<|endoftext|>": 7,
}
LETTERS = list("abcdefghijklmnopqrstuvwxyz123")
SPELLING_VOCABULARY = LETTERS + [letter + "</w>" for letter in LETTERS]
SPELLING_VOCABULARY += ["ab</w>", "<|startoftext|>", "<|endoftext|>"]
"""Tokens that spell any text by letters. The last token ends a text, as published."""
PADS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


def write(folder: Path) -> None:
    """Write both text encoders and tokenizers into a generator's folder."""
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


def write_tokenizer(folder: Path, pad: str, token_ids: dict[str, int] = WORDS) -> None:
    """Write the files of a CLIP tokenizer with a small vocabulary."""
    special_tokens = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    config = {
        **special_tokens,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "pad_token": pad,
    }
    special_tokens["pad_token"] = pad
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(token_ids))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
