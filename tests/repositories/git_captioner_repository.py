"""microsoft/git-large-coco at a tiny width, and MindEye2's converter of tokens to its
vision tower's.
"""

import json
from pathlib import Path

import torch
import transformers as tf
from torch import nn

NAME = "microsoft/git-large-coco"
CONVERTER = "pscotti/mindeyev2/bigG_to_L_epoch8.pth"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "ab", "##b")
SIDE_PX, TOKENS, WIDTH = 16, 5, 12
"""Of the vision tower: pictures, and its tokens of four patches and a class."""


def write(root: Path, tokens: int, width: int) -> Path:
    """Write both files below a folder of repositories.

    Args:
        root: Where repositories are served from.
        tokens: Tokens that the converter takes.
        width: Width of each.
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
    with torch.no_grad():  # captions of words alone
        model.output.bias[
            [WORDS.index(word) for word in WORDS if word not in ("a", "b", "ab")]
        ] = -50
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
    """Write a converter as its training did: MindEye2's notebook reads the key
    `model_state_dict`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"epoch": 8, "model_state_dict": state, "optimizer_state_dict": {}}, file
    )
