"""Repository of Salesforce/blip2-opt-2.7b at a tiny width."""

import json
from pathlib import Path

import torch
import transformers as tf

NAME = "Salesforce/blip2-opt-2.7b"
WORDS = ("<pad>", "<s>", "</s>", "<unk>", "a", "b", "c", "Ġ", "Ġa", "Ġb", "<image>")
SIDE_PX = 16


def write(root: Path) -> Path:
    """Write the repository. Captions start with 2, OPT's </s>, as published."""
    torch.manual_seed(3)
    folder = root / NAME
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids = {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 2}
    text = {
        "hidden_size": 16,
        "ffn_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        **ids,
    }
    config = tf.Blip2Config(
        vision_config={**sizes, "image_size": SIDE_PX, "patch_size": 8},
        qformer_config={**sizes, "encoder_hidden_size": 16, "vocab_size": len(WORDS)},
        text_config={
            "model_type": "opt",
            **text,
            "vocab_size": len(WORDS),
            "word_embed_proj_dim": 16,
        },
        num_query_tokens=2,
        image_token_index=WORDS.index("<image>"),
    )
    model = tf.Blip2ForConditionalGeneration(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=1.0)
    model.language_model.model.decoder.embed_positions.weight.data *= 0.1
    token_embeddings = model.language_model.get_input_embeddings().weight.data
    vocabulary = {token: index for index, token in enumerate(WORDS)}
    for token, index in vocabulary.items():
        if token not in ("a", "b", "Ġa", "Ġb"):
            token_embeddings[index] = 0
    model.generation_config = tf.GenerationConfig(**ids)
    model.save_pretrained(folder, max_shard_size="30KB")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ a\nĠ b\n")
    tokenizer = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "</s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    processor = {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "Blip2Processor",
        "size": {"height": SIDE_PX, "width": SIDE_PX},
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Blip2Processor", "num_query_tokens": 2})
    )
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"many gigabytes")
    return root
