"""Trains the demo's text encoder: a tiny CLIP text model whose tokens say to a U-Net
what image tokens say.

It learns from the U-Net's cross-attentions alone: for queries as they come up there,
attending to a caption's tokens shall give what attending to the picture's gives. So
text attention can begin as the image's.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from brainhive_cli.demo.joined_generators import DUAL as FOLDER, SHARED
from brainhive_cli.demo.pictures import Scene, captions
from brainhive_cli.models.clip_conditions import of_texts
from tools.demo_world import plain_unet, tokens

START, END = "<|startoftext|>", "<|endoftext|>"  # CLIP's
LENGTH = 12  # the longest caption has nine words and a comma, or none
STEPS, BATCH, LEARNING_RATE = 600, 96, 3e-3
QUERIED = 64  # pictures whose queries are kept
QUERIES = 16  # of each picture, site and step


def main() -> None:
    """Make the tokenizer, train the text model, and save both."""
    torch.manual_seed(7)
    data = tokens.data()
    tokenizer = make_tokenizer([captions(scene) for scene in data.scenes])
    model = _model(len(tokenizer))
    _train(model, tokenized(tokenizer, data.scenes), data)
    tokenizer.save_pretrained(FOLDER / "tokenizer")
    model.half().save_pretrained(FOLDER / "text_encoder")


def make_tokenizer(
    texts: Sequence[Sequence[str]], special: Sequence[str] = (START, END)
) -> CLIPTokenizer:
    """Make CLIP's kind of tokenizer, with a token for each word of the texts; the
    special ones come first.
    """
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    learned.normalizer = normalizers.Lowercase()
    learned.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        end_of_word_suffix="</w>",
        special_tokens=[*special],
        min_frequency=1,
        show_progress=False,
    )
    learned.train_from_iterator((text for some in texts for text in some), trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    return CLIPTokenizer(
        vocab=learned.get_vocab(), merges=merges, model_max_length=LENGTH
    )


def tokenized(tokenizer: CLIPTokenizer, scenes: Sequence[Scene]) -> Tensor:
    """Tokenise the captions of scenes: [N, K, S]."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return torch.stack(
        [tokenizer(captions(scene), **options).input_ids for scene in scenes]
    )


def _model(words: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=128,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModelWithProjection(config)


def _train(
    model: CLIPTextModelWithProjection, texts: Tensor, data: tokens.Data
) -> None:
    sites = _sites(data)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS
    )
    model.train()
    for step in range(STEPS):
        rows = torch.randint(len(texts), (BATCH,))
        made = of_texts(model, texts[rows, torch.randint(texts.shape[1], (BATCH,))])
        loss = torch.stack(
            [_unlikeness(*site, made, data.images[rows]) for site in sites]
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(f"text {step + 1}/{STEPS} loss {loss:.3f}", flush=True)
    model.eval()


@torch.no_grad()
def _sites(data: tokens.Data) -> list[tuple[Any, Tensor]]:
    """List the U-Net's cross-attentions, each with queries [N, Q, D] that come up in
    it.
    """
    unet, schedule = (
        plain_unet.load(),
        DDPMScheduler.from_pretrained(SHARED / "scheduler"),
    )
    found: dict[str, Tensor] = {}
    sites = {
        name: module for name, module in unet.named_modules() if name.endswith("attn2")
    }
    for name, module in sites.items():
        module.to_q.register_forward_hook(
            lambda _, __, queries, name=name: found.update({name: queries})
        )
    latents = data.latents[:QUERIED]
    timesteps = torch.randint(1000, (len(latents),))
    noisy = schedule.add_noise(latents, torch.randn_like(latents), timesteps)
    unet(noisy, timesteps, data.images[:QUERIED])
    return [(module, found[name]) for name, module in sites.items()]


def _unlikeness(
    attention: Any, queries: Tensor, made: Tensor, wanted: Tensor
) -> Tensor:
    """Mean squared difference of what queries find in text and in image tokens, over
    its variance.
    """
    rows, places = (
        torch.randint(len(queries), (len(made), 1)),
        torch.randint(queries.shape[1], (len(made), QUERIES)),
    )
    asked = queries[rows, places]  # [B, Q, D]
    found, right = (_attended(attention, asked, each) for each in (made, wanted))
    return (found - right).square().mean() / right.var(0).mean()


def _attended(attention: Any, queries: Tensor, tokens: Tensor) -> Tensor:
    split = (
        each.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for each in (queries, attention.to_k(tokens), attention.to_v(tokens))
    )
    return (
        torch.nn.functional.scaled_dot_product_attention(*split)
        .transpose(1, 2)
        .flatten(2)
    )
