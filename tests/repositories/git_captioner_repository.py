"""Repositories of microsoft/git-large-coco and MindEye2's token converter at tiny
widths.
"""

import json
from pathlib import Path

import torch
import transformers as tf
from torch import nn

NAME = "microsoft/git-large-coco"
CONVERTER = "pscotti/mindeyev2/bigG_to_L_epoch8.pth"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "ab", "##b")
SIDE_PX = 16
TOKENS = 5
"""Tokens of the vision tower: four patches and a class."""
WIDTH = 12
"""Width of a token of the vision tower."""


def write(root: Path, tokens: int, width: int) -> Path:
    """Write both repositories below `root`.

    Args:
        root: Folder of all repositories.
        tokens: Number of input tokens of the converter.
        width: Width of an input token.
    """
    torch.manual_seed(3)
    folder = root / NAME
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    tower = {**layers, "hidden_size": WIDTH, "image_size": SIDE_PX, "patch_size": 8}
    config = tf.GitConfig(
        vision_config=tower,
        vocab_size=len(WORDS),
        hidden_size=16,
        **layers,
        **ids,
        max_position_embeddings=32,
    )
    model = tf.GitForCausalLM(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=1.0)
    with torch.no_grad():  # captions consist of a, b and ab
        for index, token in enumerate(WORDS):
            if token not in ("a", "b", "ab"):
                model.output.bias[index] = -50
    model.generation_config = tf.GenerationConfig(**ids)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"})
    )
    (folder / "pytorch_model.bin").write_bytes(b"the same again")
    state = {
        "linear1.weight": torch.randn(TOKENS, tokens),
        "linear1.bias": torch.randn(TOKENS),
        "linear2.weight": torch.randn(WIDTH, width),
        "linear2.bias": torch.randn(WIDTH),
    }
    save_converter(root / CONVERTER, state)
    return root


def save_converter(file: Path, state: dict[str, torch.Tensor]) -> None:
    """Write a converter's checkpoint. MindEye2's notebook reads its
    `model_state_dict`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"epoch": 8, "model_state_dict": state, "optimizer_state_dict": {}}, file
    )
