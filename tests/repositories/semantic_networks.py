"""Repositories of the networks of SEED at tiny widths."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers as tf

from brainhive_cli.measurement.metrics.semantics import PROMPT

DETECTOR = "openmmlab-community/mm_grounding_dino_large_all"
GIT, MINILM = "microsoft/git-large-coco", "sentence-transformers/all-MiniLM-L6-v2"
IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Ids of BERT's vocabulary that Grounding DINO's code contains."""
LAYER = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def list_tokens() -> list[str]:
    """List a vocabulary with BERT's ids and only the words of the prompt."""
    tokens = [f"[unused{index}]" for index in range(1030)]
    for token, index in IDS.items():
        tokens[index] = token
    return tokens + sorted(set(PROMPT.replace(".", "").split()))


def write_tokenizer(folder: Path) -> int:
    """Write a BERT tokenizer and return the size of its vocabulary."""
    tokens = list_tokens()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    return len(tokens)


def write(snapshot: Callable[[str], Path]) -> None:
    """Write the three networks into snapshots of their repositories."""
    write_detector(snapshot(DETECTOR))
    write_captioner(snapshot(GIT))
    folder = snapshot(MINILM)
    size = write_tokenizer(folder)
    bert = tf.BertModel(tf.BertConfig(vocab_size=size, hidden_size=16, **LAYER))
    bert.save_pretrained(folder)


def write_detector(folder: Path) -> None:
    """Write a detector of twelve boxes with scores that depend on the picture."""
    torch.manual_seed(0)
    size = write_tokenizer(folder)
    swin = {
        "embed_dim": 8,
        "depths": [1] * 4,
        "num_heads": [1] * 4,
        "window_size": 4,
        "patch_size": 16,
    }
    config = tf.MMGroundingDinoConfig(
        backbone_config=tf.SwinConfig(
            **swin, image_size=64, out_features=["stage2", "stage3", "stage4"]
        ),
        text_config=tf.BertConfig(vocab_size=size, hidden_size=16, **LAYER),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=12,
        max_text_len=256,
    )
    network = tf.MMGroundingDinoForObjectDetection(config)
    with torch.no_grad():  # scores between 0 and 1, not all at 0
        for head in network.class_embed:
            head.bias.zero_()
        # some boxes become too small to count
        network.bbox_embed[-1].layers[-1].bias[2:] = -0.6
    network.save_pretrained(folder)


def write_captioner(folder: Path) -> None:
    """Write a GIT whose captions depend on the picture."""
    torch.manual_seed(3)
    size = write_tokenizer(folder)
    ids = {"bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    tower = {**LAYER, "hidden_size": 12, "image_size": 224, "patch_size": 56}
    config = tf.GitConfig(
        vision_config=tower, vocab_size=size, hidden_size=16, **LAYER, **ids
    )
    network = tf.GitForCausalLM(config)
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=1.0)
    with torch.no_grad():  # captions consist of words and differ in length
        network.output.bias[:1030] = -50
        network.output.bias[102] = 6
    network.generation_config = tf.GenerationConfig(**ids)
    network.save_pretrained(folder)
