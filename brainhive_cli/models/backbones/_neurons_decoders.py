"""NEURONS' decoders of image tokens: of frames, masks and latents, captions and
concepts.

Source: the layers of the text-driven decoder are those of diffusers' autoencoders, with
an attention over time behind each over space.
"""

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

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.backbones._layers import make_maps_projector
from brainhive_cli.models.blocks import Dropout

EPSILON = 1e-6
"""Of the normalisations; those of diffusers' autoencoders."""
MASK = "mask"
LATENTS = "latents"
TIED, SOURCE = "decoder.lm_head.weight", "decoder.transformer.wte.weight"
"""GPT-2's last layer is its embedding: a file holds it once, NEURONS' twice."""
PADDING = 0
"""The id behind a caption's last token."""


def motion_projection(width: int, frames: int) -> nn.ModuleDict:
    """Make the linear map of each image token to those of all frames, under upstream's
    name.
    """
    return nn.ModuleDict({"motion_proj": nn.Linear(width, width * frames)})


def project_motion(projection: nn.ModuleDict, tokens: Tensor) -> Tensor:
    """Map tokens [B, S, D] to [B, F, S, D]."""
    # [B, S, D · F] to [B, S, D, F] to [B, F, S, D]
    return (
        projection["motion_proj"](tokens)
        .unflatten(-1, (tokens.shape[-1], -1))
        .permute(0, 3, 1, 2)
    )


def concept_head(width: int, hidden: int, concepts: int) -> nn.Sequential:
    """Make two linear maps from the mean of a clip's tokens [B, D] to the logits of
    concepts [B, K].
    """
    return nn.Sequential(
        OrderedDict(
            vision_proj_channel=nn.Linear(width, hidden),
            classifier=nn.Linear(hidden, concepts),
        )
    )


class TextDrivenDecoder(nn.Module):
    """Feature maps of each frame, driven by a text, through a decoder that attends over
    space and time.

    In the mode `right` a clip's pictures are added to its own text, and time is within
    a clip; `published` is as the reference, in which pictures only weigh the texts of
    the whole batch, whose frames are one clip.

    Args:
        config: Sizes and mode of `neurons`.
        width: D of a token.
        text: E of the text vector.
        latents: Channels of the head `latents`.
    """

    def __init__(self, config: Any, width: int, text: int, latents: int) -> None:
        super().__init__()
        maps = config.maps
        channels = config.channels
        self.mode = config.mode
        self.scale = width**-0.5
        # attention from image tokens to texts
        self.drop = Dropout(config.attention_dropout)
        self.q = nn.Linear(width, text, bias=False)
        self.k, self.v, self.out = (nn.Linear(text, text, bias=False) for _ in range(3))

        # tokens to feature maps, decoded at a larger size for masks and latents
        self.maps_projector = make_maps_projector(text, *maps)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.GroupNorm(1, maps[-1])
        self.video_decoder: Any = video_decoder(maps[-1], channels, config.groups)
        self.seg_head = nn.Conv2d(channels[0], 1, 3, padding=1)
        self.recon_head = nn.Conv2d(channels[0], latents, 3, padding=1)

    def forward(self, motion: Tensor, text: Tensor | None) -> dict[str, Tensor]:
        """Decode tokens [B, F, S, D] and texts [B, E] to the logits of masks and to
        latents.

        Returns:
            `mask` [B, F, 1, h, w] and `latents` [B, F, C, h, w].
        """
        clips, frames = motion.shape[:2]
        fused = self.fused(motion.flatten(0, 1), text)  # [B·F, S, E]

        # the S tokens of a frame are a square map
        side = isqrt(fused.shape[1])
        maps = self.maps_projector(fused.transpose(1, 2).unflatten(2, (side, side)))
        # frames that attend to each other: of one clip, or of the batch
        together = frames if self.mode == "right" else clips * frames
        decoder = self.video_decoder
        decoded = decoder["mid_block"](
            decoder["conv_in"](self.norm(self.dropout(maps))), together
        )
        for block in decoder["up_blocks"]:
            decoded = block(decoded, together)
        decoded = F.silu(decoder["conv_norm_out"](decoded))  # [B·F, C, h, w]
        return {
            MASK: self.seg_head(decoded).unflatten(0, (clips, frames)),
            LATENTS: self.recon_head(decoded).unflatten(0, (clips, frames)),
        }

    def fused(self, tokens: Tensor, text: Tensor | None) -> Tensor:
        """Fuse tokens [B·F, S, D] with texts [B, E]: [B·F, S, E]; without texts they
        are only projected.
        """
        query = self.q(tokens)
        if text is None:
            return self.drop(self.out(query))
        values = self.v(text)
        if self.mode == "right":
            # add the text of a clip to each of its frames
            # [B·F, E]
            frame_values = values.repeat_interleave(len(tokens) // len(text), 0)
            return self.drop(self.out(query + frame_values[:, None]))

        # as the reference: each token weighs the texts of all clips
        weights = (query @ self.k(text).T * self.scale).softmax(-1)  # [B·F, S, B]
        return self.drop(self.out(self.drop(weights) @ values))


def video_decoder(maps: int, channels: tuple[int, ...], groups: int) -> nn.ModuleDict:
    """Make the layers from maps of frames to features of a larger size, by diffusers'
    names.
    """
    # channels are listed from the output on; all blocks but the last double height and
    # width
    widths = channels[::-1]
    layers: dict[str, nn.Module] = {"conv_in": nn.Conv2d(maps, widths[0], 3, padding=1)}
    layers["mid_block"] = Block(widths[0], widths[0], 2, 1, groups, upsamples=False)
    layers["up_blocks"] = nn.ModuleList(
        Block(before, after, 2, 2, groups, upsamples=number < len(widths))
        for number, (before, after) in enumerate(
            zip((widths[0], *widths), widths, strict=False), 1
        )
    )
    layers["conv_norm_out"] = nn.GroupNorm(groups, channels[0], EPSILON)
    return nn.ModuleDict(layers)


class Block(nn.Module):
    """ResNets, behind the first `attended` of which there is attention over space, and
    over time.
    """

    def __init__(
        self,
        before: int,
        after: int,
        count: int,
        attended: int,
        groups: int,
        upsamples: bool,
    ) -> None:
        super().__init__()
        # the first ResNet changes the number of channels
        widths = [before] + [after] * (count - 1)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(
                in_channels=width,
                out_channels=after,
                temb_channels=None,
                groups=groups,
                eps=EPSILON,
            )
            for width in widths
        )
        self.attentions = nn.ModuleList(
            _attention(after, groups) for _ in range(attended)
        )
        self.temp_attentions = nn.ModuleList(
            _attention(after, groups) for _ in range(attended)
        )
        # attention over time starts with weight 0, that over space with 1
        self.weights = nn.ParameterList(
            nn.Parameter(torch.ones(1)) for _ in range(attended)
        )
        self.upsamplers = nn.ModuleList(
            [Upsample2D(after, use_conv=True)] if upsamples else []
        )

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map [N, C, h, w] to [N, C', h', w']; `frames` in a row are a clip."""
        attentions = zip(
            self.attentions, self.temp_attentions, self.weights, strict=True
        )
        for resnet in self.resnets:
            x = resnet(x, None)
            attention = next(attentions, None)
            if attention is not None:
                over_space, over_time, weight = attention
                x = over_space(x)

                # attend from each frame of a clip to its others, position by position
                # [B, h, w, C, F]
                clips = x.unflatten(0, (-1, frames)).permute(0, 3, 4, 2, 1)
                attended = over_time(clips.flatten(0, 2)[..., None])[..., 0].unflatten(
                    0, clips.shape[:3]
                )
                # [N, C, h, w]
                x = weight * x + (1 - weight) * attended.permute(0, 4, 3, 1, 2).flatten(
                    0, 1
                )
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x


def _attention(width: int, groups: int) -> Attention:
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
    """Writes captions of up to `length` token ids for text vectors [B, E].

    Args:
        config: Sizes of `neurons`; CLIP's ids are used in GPT-2's own vocabulary.
        dim: E.
        length: Ids of a caption, the first and the last included.

    Source: ClipCap (arXiv 2111.09734), GPT-2; names of NEURONS.
    """

    def __init__(self, config: Any, dim: int, length: int) -> None:
        super().__init__()
        self.length = length
        # GPT-2 of the recipe's sizes, whose padding begins and ends a caption
        sizes = GPT2Config(
            vocab_size=config.vocabulary,
            # a prefix comes first
            n_positions=max(config.caption_positions, length + 1),
            n_embd=config.caption_width,
            n_layer=config.caption_layers,
            n_head=config.caption_heads,
            bos_token_id=PADDING,
            eos_token_id=PADDING,
        )
        self.decoder = GPT2LMHeadModel(sizes)
        self.clip_project = nn.ModuleDict(
            {"model": nn.Sequential(nn.Linear(dim, config.caption_width))}
        )
        # the last layer is the embedding: saved once, filled in when loaded
        self.register_state_dict_post_hook(_without_tied)
        self.register_load_state_dict_pre_hook(_with_tied)

    def prefix(self, text: Tensor) -> Tensor:
        """Make the first token [B, 1, D] of text vectors [B, E], of which only the
        direction counts.
        """
        return self.clip_project["model"](F.normalize(text, dim=-1))[:, None]

    def forward(self, text: Tensor, ids: Tensor) -> Tensor:
        """Predict each id of captions [B, L] from those before it: logits [B, L,
        vocabulary].

        Raises:
            BrainhiveError: if it does not know an id.
        """
        known = self.decoder.config.vocab_size
        if not ids.is_meta and (largest := int(ids.max())) >= known:
            raise BrainhiveError(
                f"a caption has the id {largest}, and the caption head knows {known}",
                "a larger backbone.vocabulary, or another tokenizer",
            )
        # the prefix predicts the first id; what follows the last is of no use
        words = self.decoder.transformer.wte(ids)
        return self.decoder(
            inputs_embeds=torch.cat([self.prefix(text), words], 1)
        ).logits[:, :-1]

    def write(self, text: Tensor, end: int) -> Tensor:
        """Write captions, each time the likeliest token: ids [B, length], with zeros
        behind the last.
        """
        # generate greedily, so that a caption depends on its signal alone
        prefix = self.prefix(text)
        written: Tensor = self.decoder.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones_like(prefix[..., 0], dtype=torch.long),
            max_new_tokens=self.length,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=PADDING,
            bos_token_id=PADDING,
        )
        return F.pad(written, (0, self.length - written.shape[1]), value=PADDING)


def _without_tied(
    module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any
) -> None:
    state.pop(prefix + TIED, None)


def _with_tied(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    if prefix + SOURCE in state:
        state.setdefault(prefix + TIED, state[prefix + SOURCE])
