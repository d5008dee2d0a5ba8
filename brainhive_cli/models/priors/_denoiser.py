"""The network of MindEye's diffusion priors: noisy image tokens, time and brain tokens to clean tokens.

Source: VersatileDiffusionPriorNetwork of MindEye1 (arXiv 2305.18274, MIT), which MindEye2 keeps; attention
and feed-forward of dalle2-pytorch (MIT).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION_SCALE = 16
"""Factor of the cosines; dalle2-pytorch's."""
BUCKETS, MAX_DISTANCE, ROTATED = 32, 128, 32
"""Relative positions that differ, the distance from which they do not, and the most widths rotated."""


def cosine_schedule(steps: int, offset: float = 0.008) -> tuple[Tensor, Tensor]:
    """Return the cumulative products of alpha, and the betas."""
    at = torch.linspace(0, steps, steps + 1, dtype=torch.float64) / steps
    alphas = torch.cos((at + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - alphas[1:] / alphas[:-1]).clip(0, 0.999)
    return (1 - betas).cumprod(0).float(), betas.float()


class Denoiser(nn.Module):
    """Predicts the clean image tokens of noisy ones, the time and the brain's tokens.

    Args:
        dim: D, width of a token.
        tokens: S, tokens of the brain and of the image.
        depth: Layers.
        heads: Attention heads, which share their key and value.
        dim_head: Width of a head.
    """

    def __init__(self, dim: int, tokens: int, depth: int, heads: int, dim_head: int) -> None:
        super().__init__()
        shape = (tokens, dim)
        self.num_tokens = tokens
        self.to_time_embeds = nn.Sequential(nn.Sequential(Sinusoid(dim), TimeMLP(dim)))
        self.learned_query = nn.Parameter(torch.randn(shape) * dim**-0.5)
        self.null_brain_embeds = nn.Parameter(torch.randn(shape))
        self.null_image_embed = nn.Parameter(torch.randn(shape))
        self.causal_transformer = Transformer(dim, depth, heads, dim_head)

    def forward(
        self,
        image: Tensor,
        times: Tensor,
        brain: Tensor,
        keep_brain: Tensor | bool = True,
        keep_image: Tensor | bool = True,
    ) -> Tensor:
        """Predict [B, S, D]; what is not kept is replaced by the learned null tokens."""
        keep_brain, keep_image = (
            torch.as_tensor(keep, device=image.device).expand(len(image)).view(-1, 1, 1)
            for keep in (keep_brain, keep_image)
        )
        brain = torch.where(keep_brain, brain, self.null_brain_embeds)
        image = torch.where(keep_image, image, self.null_image_embed) + self.learned_query
        time = self.to_time_embeds(times.float())[:, None]
        return self.causal_transformer(torch.cat([brain, time, image], 1))[:, -self.num_tokens :]


class Sinusoid(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.count = dim // 2

    def forward(self, times: Tensor) -> Tensor:
        step = -math.log(10000) / (self.count - 1)
        rates = torch.exp(torch.arange(self.count, device=times.device) * step)
        angles = times[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], -1)


class TimeMLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = 2 * dim
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(dim, inner), nn.SiLU()),
            nn.Sequential(nn.Linear(inner, inner), nn.SiLU()),
            nn.Linear(inner, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Norm(nn.Module):
    """LayerNorm with a gain and no bias; `stable` divides by the largest value first."""

    def __init__(self, dim: int, stable: bool = False) -> None:
        super().__init__()
        self.g, self.stable = nn.Parameter(torch.ones(dim)), stable

    def forward(self, x: Tensor) -> Tensor:
        if self.stable:
            x = x / x.amax(-1, keepdim=True).detach()
        return F.layer_norm(x, x.shape[-1:]) * self.g


class SwiGLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, -1)
        return x * F.silu(gate)


class Transformer(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, dim_head: int) -> None:
        super().__init__()
        inner = 4 * dim
        self.rel_pos_bias = nn.Module()
        self.rel_pos_bias.relative_attention_bias = nn.Embedding(BUCKETS, heads)
        self.layers = nn.ModuleList()
        for _ in range(depth):
            feed_forward = nn.Sequential(
                Norm(dim),
                nn.Linear(dim, 2 * inner, bias=False),
                SwiGLU(),
                nn.Identity(),
                nn.Identity(),
                nn.Linear(inner, dim, bias=False),
            )
            self.layers.append(nn.ModuleList([Attention(dim, heads, dim_head), feed_forward]))
        self.norm = Norm(dim, stable=True)
        self.project_out = nn.Linear(dim, dim, bias=False)

    def bias(self, count: int) -> Tensor:
        """T5's relative position bias [heads, S, 1 + S], the null key first."""
        embedding = cast(nn.Embedding, self.rel_pos_bias.relative_attention_bias)
        place = torch.arange(count + 1, device=embedding.weight.device)
        back = (place[:count, None] - place).clamp(min=0)
        exact = BUCKETS // 2
        share = torch.log(back.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
        far = (exact + (share * (BUCKETS - exact)).long()).clamp(max=BUCKETS - 1)
        buckets = torch.where(back < exact, back, far)
        biases: Tensor = embedding(buckets)  # [S, 1 + S, heads]
        return biases.permute(2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias(x.shape[1])
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            x = attention(x, bias) + x
            x = feed_forward(x) + x
        return self.project_out(self.norm(x))


class Attention(nn.Module):
    """Cosine attention with one shared key and value, a null one, and rotary positions."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, width))
        self.to_q = nn.Linear(dim, width * heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * width, bias=False)
        self.rotary_emb = nn.Module()
        rotated = min(ROTATED, width)
        self.rotary_emb.freqs = nn.Parameter(10000 ** -(torch.arange(0, rotated, 2) / rotated))
        self.to_out = nn.Sequential(nn.Linear(width * heads, dim, bias=False), Norm(dim))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm(x)
        q = self.rotate(self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2))  # [B, heads, S, d]
        k, v = self.to_kv(x).chunk(2, -1)
        null_k, null_v = (each.expand(len(x), 1, -1) for each in self.null_kv)
        k, v = torch.cat([null_k, self.rotate(k)], 1), torch.cat([null_v, v], 1)
        similarity = ATTENTION_SCALE * torch.einsum(
            "bhid,bjd->bhij", F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        )
        out = torch.einsum("bhij,bjd->bhid", (similarity + bias).softmax(-1), v)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def rotate(self, x: Tensor) -> Tensor:
        """Turn pairs of widths by angles that grow with the position."""
        rates = cast(Tensor, self.rotary_emb.freqs)  # [rotated / 2]
        angles = torch.arange(x.shape[-2], device=x.device)[:, None] * rates
        angles = angles.repeat_interleave(2, -1)
        turned, rest = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
        first, second = turned.unflatten(-1, (-1, 2)).unbind(-1)
        half = torch.stack([-second, first], -1).flatten(-2)
        return torch.cat([turned * angles.cos() + half * angles.sin(), rest], -1)
