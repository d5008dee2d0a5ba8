"""Decoders of NEURONS, from image tokens to masks, latents, captions and concepts."""

from collections import OrderedDict
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.models import Dropout
from brainhive_cli.models.backbones._layers import make_maps_projector

EPSILON = 1e-6
"""Epsilon of the normalisations, as in diffusers' autoencoders."""
MASK = "mask"
LATENTS = "latents"
LAST_LAYER_WEIGHT = "decoder.lm_head.weight"
EMBEDDING_WEIGHT = "decoder.transformer.wte.weight"
"""Names of two weights of GPT-2 that are the same tensor."""
PADDING_ID = 0
"""Token id after the end of a caption."""


def make_motion_projection(width: int, n_frames: int) -> nn.ModuleDict:
    """Make the linear map from each image token [D] to the tokens [D · F] of frames."""
    return nn.ModuleDict({"motion_proj": nn.Linear(width, width * n_frames)})


def project_motion(projection: nn.ModuleDict, tokens: Tensor) -> Tensor:
    """Map image tokens [B, S, D] to tokens [B, F, S, D] of all frames."""
    projected = projection["motion_proj"](tokens)  # [B, S, D · F]
    return projected.unflatten(-1, (tokens.shape[-1], -1)).permute(0, 3, 1, 2)


def make_concept_head(width: int, hidden: int, n_concepts: int) -> nn.Sequential:
    """Make two linear maps from mean tokens [B, D] to logits of concepts [B, K]."""
    return nn.Sequential(
        OrderedDict(
            vision_proj_channel=nn.Linear(width, hidden),
            classifier=nn.Linear(hidden, n_concepts),
        )
    )


class TextDrivenDecoder(nn.Module):
    """Decoder of masks and latents from the tokens of frames and a text.

    In the mode `right`, the text of a clip is added to its own tokens, and attention
    over time is within a clip. In `published`, as in the reference, tokens weigh the
    texts of the whole batch, whose frames attend to each other.

    Args:
        config: Settings of `neurons`.
        width: Width D of a token.
        text_width: Width E of the text vector.
        n_latents: Channels of the head `latents`.

    Source: NEURONS (arXiv 2503.11167), with layers of diffusers' autoencoders.
    """

    def __init__(
        self, config: Any, width: int, text_width: int, n_latents: int
    ) -> None:
        super().__init__()
        maps = config.maps
        channels = config.channels
        self.mode = config.mode
        self.scale = width**-0.5

        # attention from image tokens to texts
        self.drop = Dropout(config.attention_dropout)
        self.q = nn.Linear(width, text_width, bias=False)
        self.k = nn.Linear(text_width, text_width, bias=False)
        self.v = nn.Linear(text_width, text_width, bias=False)
        self.out = nn.Linear(text_width, text_width, bias=False)

        # feature maps, and a decoder that enlarges them to masks and latents
        self.maps_projector = make_maps_projector(text_width, maps)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.GroupNorm(1, maps[-1])
        self.video_decoder: Any = make_video_decoder(maps[-1], channels, config.groups)
        self.seg_head = nn.Conv2d(channels[0], 1, 3, padding=1)
        self.recon_head = nn.Conv2d(channels[0], n_latents, 3, padding=1)

    def forward(self, motion: Tensor, text: Tensor | None) -> dict[str, Tensor]:
        """Decode masks and latents.

        Args:
            motion: Tokens [B, F, S, D] of frames, where S is a square.
            text: Text vectors [B, E], or None without a text.

        Returns:
            `mask` [B, F, 1, h, w], as logits, and `latents` [B, F, C, h, w].
        """
        n_clips, n_frames = motion.shape[:2]
        fused = self.fuse(motion.flatten(0, 1), text)  # [B·F, S, E]
        side = isqrt(fused.shape[1])
        maps = fused.transpose(1, 2).unflatten(2, (side, side))
        maps = self.norm(self.dropout(self.maps_projector(maps)))

        # number of frames that attend to each other
        span = n_frames if self.mode == "right" else n_clips * n_frames
        decoder = self.video_decoder
        x = decoder["mid_block"](decoder["conv_in"](maps), span)
        for block in decoder["up_blocks"]:
            x = block(x, span)
        x = F.silu(decoder["conv_norm_out"](x))  # [B·F, C, h, w]
        return {
            MASK: self.seg_head(x).unflatten(0, (n_clips, n_frames)),
            LATENTS: self.recon_head(x).unflatten(0, (n_clips, n_frames)),
        }

    def fuse(self, tokens: Tensor, text: Tensor | None) -> Tensor:
        """Fuse tokens with texts, or project them if there is no text.

        Args:
            tokens: Tokens [B·F, S, D] of frames.
            text: Text vectors [B, E], or None.

        Returns:
            Fused tokens [B·F, S, E].
        """
        query = self.q(tokens)
        if text is None:
            return self.drop(self.out(query))
        values = self.v(text)
        if self.mode == "right":
            n_frames = len(tokens) // len(text)
            values = values.repeat_interleave(n_frames, 0)  # [B·F, E]
            return self.drop(self.out(query + values[:, None]))

        # as in the reference, each token weighs the texts of all clips
        weights = (query @ self.k(text).T * self.scale).softmax(-1)  # [B·F, S, B]
        return self.drop(self.out(self.drop(weights) @ values))


def make_video_decoder(
    n_maps: int, channels: tuple[int, ...], groups: int
) -> nn.ModuleDict:
    """Make the layers from feature maps of frames to larger features.

    All blocks but the last double height and width. Modules have diffusers' names.

    Args:
        n_maps: Channels of the feature maps.
        channels: Channels of the blocks, from the output to the input.
        groups: Groups of the normalisations.
    """
    widths = channels[::-1]
    conv_in = nn.Conv2d(n_maps, widths[0], 3, padding=1)
    mid_block = Block(
        widths[0], widths[0], count=2, n_attended=1, groups=groups, upsamples=False
    )
    up_blocks = nn.ModuleList()
    width_in = widths[0]
    for number, width_out in enumerate(widths, 1):
        up_blocks.append(
            Block(
                width_in,
                width_out,
                count=2,
                n_attended=2,
                groups=groups,
                upsamples=number < len(widths),
            )
        )
        width_in = width_out
    layers = {"conv_in": conv_in, "mid_block": mid_block, "up_blocks": up_blocks}
    layers["conv_norm_out"] = nn.GroupNorm(groups, channels[0], EPSILON)
    return nn.ModuleDict(layers)


class Block(nn.Module):
    """ResNets, the first of which are followed by attention over space and over time.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        count: Number of ResNets.
        n_attended: Number of ResNets that attention follows.
        groups: Groups of the normalisations.
        upsamples: If True, double height and width at the end.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        count: int,
        n_attended: int,
        groups: int,
        upsamples: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList()
        for index in range(count):
            self.resnets.append(
                ResnetBlock2D(
                    in_channels=width_out if index else width_in,
                    out_channels=width_out,
                    temb_channels=None,
                    groups=groups,
                    eps=EPSILON,
                )
            )
        over_space = [_make_attention(width_out, groups) for _ in range(n_attended)]
        over_time = [_make_attention(width_out, groups) for _ in range(n_attended)]
        self.attentions = nn.ModuleList(over_space)
        self.temp_attentions = nn.ModuleList(over_time)
        # weight of the features without attention over time, which starts unused
        weights = [nn.Parameter(torch.ones(1)) for _ in range(n_attended)]
        self.weights = nn.ParameterList(weights)
        self.upsamplers = nn.ModuleList()
        if upsamples:
            self.upsamplers.append(Upsample2D(width_out, use_conv=True))

    def forward(self, x: Tensor, n_frames: int) -> Tensor:
        """Map features [N, C, h, w] of N frames to [N, C', h', w'].

        Args:
            x: Features.
            n_frames: Number of successive frames that attend to each other.
        """
        for index, resnet in enumerate(self.resnets):
            x = resnet(x, None)
            if index >= len(self.attentions):
                continue
            x = self.attentions[index](x)

            # attend over the frames of a clip, position by position
            clips = x.unflatten(0, (-1, n_frames)).permute(0, 3, 4, 2, 1)
            sequences = clips.flatten(0, 2)[..., None]  # [B·h·w, C, F, 1]
            attended = self.temp_attentions[index](sequences)[..., 0]
            attended = attended.unflatten(0, clips.shape[:3])  # [B, h, w, C, F]
            attended = attended.permute(0, 4, 3, 1, 2).flatten(0, 1)  # [N, C, h, w]
            weight = self.weights[index]
            x = weight * x + (1 - weight) * attended
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x


def _make_attention(width: int, groups: int) -> Attention:
    """Make the attention of diffusers' autoencoders, with a single head."""
    return Attention(
        width,
        heads=1,
        dim_head=width,
        eps=EPSILON,
        norm_num_groups=groups,
        residual_connection=True,
        bias=True,
        upcast_softmax=True,
        _from_deprecated_attn_block=True,
    )


class CaptionHead(nn.Module):
    """GPT-2 that writes captions for text vectors.

    It has CLIP's token ids.

    Args:
        config: Settings of `neurons`.
        dim: Width E of a text vector.
        length: Number of ids of a caption, with the first and the last.

    Source: ClipCap (arXiv 2111.09734), with NEURONS' names of parameters.
    """

    def __init__(self, config: Any, dim: int, length: int) -> None:
        super().__init__()
        self.length = length
        sizes = GPT2Config(
            vocab_size=config.vocabulary,
            # the prefix takes a position
            n_positions=max(config.caption_positions, length + 1),
            n_embd=config.caption_width,
            n_layer=config.caption_layers,
            n_head=config.caption_heads,
            bos_token_id=PADDING_ID,
            eos_token_id=PADDING_ID,
        )
        self.decoder = GPT2LMHeadModel(sizes)
        self.clip_project = nn.ModuleDict(
            {"model": nn.Sequential(nn.Linear(dim, config.caption_width))}
        )
        # save the shared weight once, and restore its second name when loaded
        self.register_state_dict_post_hook(_remove_last_layer)
        self.register_load_state_dict_pre_hook(_add_last_layer)

    def make_prefix(self, text: Tensor) -> Tensor:
        """Map normalised text vectors [B, E] to the first token [B, 1, D]."""
        return self.clip_project["model"](F.normalize(text, dim=-1))[:, None]

    def forward(self, text: Tensor, ids: Tensor) -> Tensor:
        """Predict each id of captions from the ids before it.

        Args:
            text: Text vectors [B, E].
            ids: Token ids [B, L].

        Returns:
            Logits [B, L, vocabulary].

        Raises:
            BrainhiveError: if an id is outside the vocabulary.
        """
        vocab_size = self.decoder.config.vocab_size
        largest_id = 0 if ids.is_meta else int(ids.max())
        if largest_id >= vocab_size:
            raise BrainhiveError(
                f"a caption has the id {largest_id}, and the caption head knows "
                f"{vocab_size}",
                "a larger backbone.vocabulary, or another tokenizer",
            )
        # the prefix predicts the first id, and the last prediction is not needed
        embeddings = self.decoder.transformer.wte(ids)
        inputs_embeds = torch.cat([self.make_prefix(text), embeddings], 1)
        return self.decoder(inputs_embeds=inputs_embeds).logits[:, :-1]

    def write(self, text: Tensor, end: int) -> Tensor:
        """Write captions from the likeliest token at each position.

        Args:
            text: Text vectors [B, E].
            end: Token id that ends a caption.

        Returns:
            Token ids [B, length], with zeros after the end.
        """
        # greedy, so that a caption does not depend on other signals
        prefix = self.make_prefix(text)
        ids: Tensor = self.decoder.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones_like(prefix[..., 0], dtype=torch.long),
            max_new_tokens=self.length,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=PADDING_ID,
            bos_token_id=PADDING_ID,
        )
        return F.pad(ids, (0, self.length - ids.shape[1]), value=PADDING_ID)


def _remove_last_layer(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, metadata: Any
) -> None:
    """Remove the weight that GPT-2's last layer shares with the embedding."""
    state_dict.pop(prefix + LAST_LAYER_WEIGHT, None)


def _add_last_layer(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Add the last layer's weight from the embedding, if it is absent."""
    if prefix + EMBEDDING_WEIGHT in state_dict:
        embedding = state_dict[prefix + EMBEDDING_WEIGHT]
        state_dict.setdefault(prefix + LAST_LAYER_WEIGHT, embedding)
