"""A diffusion prior from brain tokens to image tokens, as MindEye2 and NEURONS have it.

Source: PriorNetwork and BrainDiffusionPrior of MindEye2 (arXiv 2403.11207, MIT); dalle2-pytorch (MIT).
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.conditioning import Conditioning
from brainhive_cli.core.decoded import Decoded

ATTENTION_SCALE = 16
BUCKETS, MAX_DISTANCE, ROTATED = 32, 128, 32


class Config(parts.Config):
    """Sizes of the network and the schedule."""

    dim: int = Field(1664, description="D of a token")
    tokens: int = Field(256, description="S, tokens of the brain and of the image")
    depth: int = Field(6, description="layers")
    heads: int = Field(32, description="attention heads, which share their key and value")
    dim_head: int = Field(52, description="width of a head")
    timesteps: int = Field(100, description="steps of the cosine schedule, all of them sampled")

    def build(self, dims: Mapping[str, int], generator: Any) -> "DiffusionPrior":
        """Make the prior; it needs no generator."""
        return DiffusionPrior(self)


TINY = Config(dim=8, tokens=2, depth=1, heads=1, dim_head=4, timesteps=3)


def load(reference: str) -> "DiffusionPrior":
    """Load the prior of a folder."""
    config = json.loads((Path(reference) / "config.json").read_text())
    prior = Config(**{name: value for name, value in config.items() if name != "kind"}).build({}, None)
    prior.load_state_dict(load_file(Path(reference) / "model.safetensors"))
    return prior.eval()


class DiffusionPrior(nn.Module):
    """Samples image tokens [B, S, D] from the decoded head `tokens`."""

    kind: ClassVar[str] = __name__
    fuser: ClassVar[None] = None
    dim: ClassVar[int] = 0

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dims: dict[str, int] = {}
        self.config, self.net = config, PriorNetwork(config)
        self.alphas_cumprod, self.betas = cosine_schedule(config.timesteps)
        self.scale = config.dim**0.5

    def attach(self, generator: Any) -> None:
        """Leave the generator as it is."""

    def detach(self, generator: Any) -> None:
        """Leave the generator as it is."""

    def save(self, folder: Path) -> None:
        """Write what `load` reads; its config names the kind."""
        (folder / "config.json").write_text(self.config.model_dump_json())
        save_file(self.state_dict(), folder / "model.safetensors")

    def draw(self, seed: int) -> Tensor:
        """Draw the start and the noise of each step of one row, [1 + steps, S, D]."""
        random = torch.Generator().manual_seed(seed)
        return torch.randn(1 + self.config.timesteps, self.config.tokens, self.config.dim, generator=random)

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        noise = torch.stack([self.draw(seed) for seed in seeds], 1)  # [1 + steps, B, S, D]
        return Conditioning(embeddings=self.sample(decoded.tensors["tokens"], noise) / self.scale)

    def null(self, n: int, seeds: Sequence[int]) -> Conditioning:
        """NEURONS' keyframe moves away from random normal tokens."""
        return Conditioning(embeddings=torch.stack([self.draw(seed)[0] for seed in seeds]))

    @torch.no_grad()
    def sample(self, brain: Tensor, noise: Tensor) -> Tensor:
        """Go all steps of DDPM from noise[0], with noise[1:] one a step."""
        image = noise[0]
        previous = torch.cat([torch.ones(1), self.alphas_cumprod[:-1]])
        for done, step in enumerate(reversed(range(self.config.timesteps)), 1):
            clean = self.net(image, torch.full((len(image),), step), brain)
            now, before, beta = self.alphas_cumprod[step], previous[step], self.betas[step]
            mean = (beta * before.sqrt() * clean + (1 - before) * (1 - beta).sqrt() * image) / (1 - now)
            spread = (beta * (1 - before) / (1 - now)).clamp(min=1e-20).sqrt()
            image = mean + (spread * noise[done] if step else 0)
        return image


def cosine_schedule(steps: int, offset: float = 0.008) -> tuple[Tensor, Tensor]:
    """Return the cumulative products of alpha, and the betas."""
    at = torch.linspace(0, steps, steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((at + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - kept[1:] / kept[:-1]).clip(0, 0.999)
    return (1 - betas).cumprod(0).float(), betas.float()


class PriorNetwork(nn.Module):
    """Predicts the clean image tokens of noisy ones, the time and the brain's tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        size = (config.tokens, config.dim)
        self.num_tokens = config.tokens
        self.to_time_embeds = nn.Sequential(nn.Sequential(Sinusoid(config.dim), TimeMLP(config.dim)))
        self.learned_query = nn.Parameter(torch.randn(size) * config.dim**-0.5)
        self.null_brain_embeds = nn.Parameter(torch.randn(size))
        self.null_image_embed = nn.Parameter(torch.randn(size))
        self.causal_transformer = Transformer(config)

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
            torch.as_tensor(keep).expand(len(image)).view(-1, 1, 1) for keep in (keep_brain, keep_image)
        )
        brain = torch.where(keep_brain, brain, self.null_brain_embeds)
        image = torch.where(keep_image, image, self.null_image_embed) + self.learned_query
        time = self.to_time_embeds(times.float())[:, None]
        return self.causal_transformer(torch.cat([brain, time, image], 1))[:, -self.num_tokens :]


class Sinusoid(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.half = dim // 2

    def forward(self, times: Tensor) -> Tensor:
        rates = torch.exp(torch.arange(self.half) * -(math.log(10000) / (self.half - 1)))
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
    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, inner = config.dim, 4 * config.dim
        self.rel_pos_bias = nn.Module()
        self.rel_pos_bias.relative_attention_bias = nn.Embedding(BUCKETS, config.heads)
        self.layers = nn.ModuleList()
        for _ in range(config.depth):
            feed_forward = nn.Sequential(
                Norm(dim),
                nn.Linear(dim, 2 * inner, bias=False),
                SwiGLU(),
                nn.Identity(),
                nn.Identity(),
                nn.Linear(inner, dim, bias=False),
            )
            self.layers.append(nn.ModuleList([Attention(config), feed_forward]))
        self.norm = Norm(dim, stable=True)
        self.project_out = nn.Linear(dim, dim, bias=False)

    def bias(self, count: int) -> Tensor:
        """T5's relative position bias [heads, S, 1 + S], the null key first."""
        back = (torch.arange(count)[:, None] - torch.arange(count + 1)).clamp(min=0)
        exact = BUCKETS // 2
        share = torch.log(back.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
        far = (exact + (share * (BUCKETS - exact)).long()).clamp(max=BUCKETS - 1)
        buckets = torch.where(back < exact, back, far)
        return self.rel_pos_bias.relative_attention_bias(buckets).permute(2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias(x.shape[1])
        for attention, feed_forward in self.layers:
            x = attention(x, bias) + x
            x = feed_forward(x) + x
        return self.project_out(self.norm(x))


class Attention(nn.Module):
    """Cosine attention with one shared key and value, a null one, and rotary positions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, width = config.dim, config.dim_head
        self.heads = config.heads
        self.norm = Norm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, width))
        self.to_q = nn.Linear(dim, width * config.heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * width, bias=False)
        self.rotary_emb = nn.Module()
        rotated = min(ROTATED, width)
        self.rotary_emb.freqs = nn.Parameter(10000 ** -(torch.arange(0, rotated, 2) / rotated))
        self.to_out = nn.Sequential(nn.Linear(width * config.heads, dim, bias=False), Norm(dim))

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
        angles = torch.arange(x.shape[-2])[:, None] * self.rotary_emb.freqs  # [S, rotated / 2]
        angles = angles.repeat_interleave(2, -1)
        turned, rest = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
        first, second = turned.unflatten(-1, (-1, 2)).unbind(-1)
        half = torch.stack([-second, first], -1).flatten(-2)
        return torch.cat([turned * angles.cos() + half * angles.sin(), rest], -1)
