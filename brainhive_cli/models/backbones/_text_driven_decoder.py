"""NEURONS' text-driven decoder: tokens of frames and a text vector to feature maps, masks and latents.

Source: the layers are those of diffusers' autoencoders, with an attention over time behind each over space.
"""

from math import isqrt
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from brainhive_cli.models.blocks import Dropout

Mode = Literal["right", "published"]
EPSILON = 1e-6
"""Of the normalisations; those of diffusers' autoencoders."""
MASK, LATENTS = "mask", "latents"


class TextDrivenDecoder(nn.Module):
    """Feature maps of each frame, driven by a text, through a decoder that attends over space and time.

    Args:
        width: D of a token.
        text: E of the text vector.
        maps: Channels of the maps, from the first projection to the last.
        channels: Channels of the decoder, from the output; all but one double the size.
        groups: Groups of the decoder's normalisations.
        dropout: Probability of dropping a value of the maps.
        latents: Channels of the head `latents`.
        mode: right: a clip's pictures are added to its own text, and time is within a clip. published: as the
            reference, in which pictures only weigh the texts of the whole batch, whose frames are one clip.
    """

    def __init__(
        self,
        width: int,
        text: int,
        maps: tuple[int, int, int],
        channels: tuple[int, ...],
        groups: int,
        dropout: float,
        latents: int,
        mode: Mode,
    ) -> None:
        super().__init__()
        self.mode, self.scale = mode, width**-0.5
        self.q = nn.Linear(width, text, bias=False)
        self.k, self.v, self.out = (nn.Linear(text, text, bias=False) for _ in range(3))
        first, second, third = maps
        self.maps_projector = nn.Sequential(
            nn.Conv2d(text, first, 1, bias=False),
            nn.GroupNorm(1, first),
            nn.ReLU(),
            nn.Conv2d(first, second, 1, bias=False),
            nn.GroupNorm(1, second),
            nn.ReLU(),
            nn.Conv2d(second, third, 1),
        )
        self.dropout, self.norm = Dropout(dropout), nn.GroupNorm(1, third)
        self.video_decoder = VideoDecoder(third, channels, groups)
        self.seg_head = nn.Conv2d(channels[0], 1, 3, padding=1)
        self.recon_head = nn.Conv2d(channels[0], latents, 3, padding=1)

    def forward(self, motion: Tensor, text: Tensor | None) -> dict[str, Tensor]:
        """Decode tokens [B, F, S, D] and texts [B, E] to the logits of masks and to latents.

        Returns:
            `mask` [B, F, 1, h, w] and `latents` [B, F, C, h, w].
        """
        clips, frames = motion.shape[:2]
        fused = self.fused(motion.flatten(0, 1), text)  # [B·F, S, E]
        side = isqrt(fused.shape[1])
        maps = self.maps_projector(fused.transpose(1, 2).unflatten(2, (side, side)))
        together = frames if self.mode == "right" else clips * frames
        decoded = self.video_decoder(self.norm(self.dropout(maps)), together)
        found = {MASK: self.seg_head(decoded), LATENTS: self.recon_head(decoded)}
        return {name: each.unflatten(0, (clips, frames)) for name, each in found.items()}

    def fused(self, tokens: Tensor, text: Tensor | None) -> Tensor:
        """Fuse tokens [B·F, S, D] with texts [B, E]: [B·F, S, E]; without texts they are only projected."""
        query = self.q(tokens)
        if text is None:
            return self.out(query)
        values = self.v(text)
        if self.mode == "right":
            own = values.repeat_interleave(len(tokens) // len(text), 0)
            return self.out(query + own[:, None])
        weights = (query @ self.k(text).T * self.scale).softmax(-1)  # [B·F, S, B]
        return self.out(weights @ values)


class VideoDecoder(nn.Module):
    """Maps of frames to features of a larger size."""

    def __init__(self, maps: int, channels: tuple[int, ...], groups: int) -> None:
        super().__init__()
        widths = channels[::-1]
        self.conv_in = nn.Conv2d(maps, widths[0], 3, padding=1)
        self.mid_block = Block(widths[0], widths[0], 2, 1, groups, upsamples=False)
        pairs = list(zip((widths[0], *widths), widths, strict=False))
        last = len(pairs) - 1
        self.up_blocks = nn.ModuleList(
            Block(before, after, 2, 2, groups, upsamples=place < last)
            for place, (before, after) in enumerate(pairs)
        )
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], EPSILON)

    def forward(self, maps: Tensor, frames: int) -> Tensor:
        """Decode maps [N, M, h, w], of which `frames` in a row are a clip, to features [N, C, H, W]."""
        x = self.mid_block(self.conv_in(maps), frames)
        for block in self.up_blocks:
            x = block(x, frames)
        return F.silu(self.conv_norm_out(x))


class Block(nn.Module):
    """ResNets, behind the first `attended` of which there is attention over space, and over time."""

    def __init__(
        self, before: int, after: int, count: int, attended: int, groups: int, upsamples: bool
    ) -> None:
        super().__init__()
        widths = [before] + [after] * (count - 1)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(
                in_channels=each, out_channels=after, temb_channels=None, groups=groups, eps=EPSILON
            )
            for each in widths
        )
        self.attentions = nn.ModuleList(_attention(after, groups) for _ in range(attended))
        self.temp_attentions = nn.ModuleList(_attention(after, groups) for _ in range(attended))
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(attended))
        self.upsamplers = nn.ModuleList([Upsample2D(after, use_conv=True)] if upsamples else [])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map [N, C, h, w] to [N, C', h', w']; `frames` in a row are a clip."""
        attentions = zip(self.attentions, self.temp_attentions, self.weights, strict=True)
        for resnet in self.resnets:
            x = resnet(x, None)
            if (attention := next(attentions, None)) is not None:
                over_space, over_time, weight = attention
                x = over_space(x)
                x = weight * x + (1 - weight) * _over_time(over_time, x, frames)
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


def _over_time(attention: nn.Module, x: Tensor, frames: int) -> Tensor:
    """Attend from each frame of a clip to its others, place by place: [N, C, h, w]."""
    clips = x.unflatten(0, (-1, frames))  # [B, F, C, h, w]
    places = clips.permute(0, 3, 4, 2, 1)  # [B, h, w, C, F]
    found: Tensor = attention(places.flatten(0, 2)[..., None])[..., 0]
    return found.unflatten(0, places.shape[:3]).permute(0, 4, 3, 1, 2).flatten(0, 1)
