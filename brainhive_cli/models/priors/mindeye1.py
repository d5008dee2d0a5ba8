"""MindEye1's diffusion prior: image tokens sampled from those that a brain model
decodes.

The kind `mindeye2` is the same network on tokens of another scale.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import documents, hub, parts, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.measurements import SELECTED_ON_TEST
from brainhive_cli.models.foreign_weights import State, count_numbers, rename
from brainhive_cli.models.heads import Conditioning, Decoded
from brainhive_cli.models.priors import OWNER, Description, identity, kind_of

KIND = "mindeye1"
KINDS = (KIND, "mindeye2")
"""Kinds that `load` reads. `KIND:FILE` is a checkpoint that its authors' code wrote."""
WEIGHTS = "model.safetensors"
PREFIXES = r"(module\.)?(diffusion_prior\.)?"
"""Beginning of the names of a checkpoint's weights: MindEye1's, and MindEye2's."""
ALPHAS = "noise_scheduler.alphas_cumprod"
"""Key of the schedule in MindEye1's checkpoint; its length is the number of steps."""
SMALLEST = 1e-20
"""Variance of the last step; dalle2-pytorch's."""
SCHEDULE_OFFSET = 0.008
"""Offset of the cosine schedule, which keeps the first betas above 0;
dalle2-pytorch's.
"""
ATTENTION_SCALE = 16
"""Factor of the cosines; dalle2-pytorch's."""
DROP = 0.2
"""Share of the rows whose brain, and whose image, is hidden in training; MindEye1's."""
BUCKETS, MAX_DISTANCE, ROTATED = 32, 128, 32
"""Relative positions that differ, the distance from which they do not, and the most
widths rotated; dalle2-pytorch's.
"""


class Config(parts.Config):
    """Sizes and schedule; the defaults are MindEye1's (arXiv 2305.18274, MIT)."""

    cites = ("scotti2023",)
    scales_tokens: ClassVar[bool] = True
    """Whether the network works on tokens times √D, not on tokens as they are."""

    dim: int = Field(768, gt=2, le=2**16, description="D of a token.")
    tokens: int = Field(
        257, gt=0, le=2**16, description="S, tokens of the brain and of the image."
    )
    depth: int = Field(6, gt=0, le=1000, description="Layers.")
    heads: int = Field(
        12,
        gt=0,
        le=4096,
        description="Attention heads, which share their key and value.",
    )
    dim_head: int = Field(64, gt=1, le=4096, description="Width of a head.")
    timesteps: int = Field(
        100,
        gt=1,
        le=10_000,
        description="Steps of the cosine schedule; all are sampled.",
    )
    head: str = Field(
        "image", description="Head of the brain's tokens, and of the image's."
    )

    def build(self, dims: Mapping[str, int], generator: Any) -> "DiffusionPrior":
        """Make the prior; it needs neither widths nor generator."""
        return DiffusionPrior(self)


TINY = Config(dim=16, tokens=2, depth=1, heads=1, dim_head=4, timesteps=3)
"""Small enough for tests."""


def load(reference: str) -> "DiffusionPrior":
    """Load a prior of this kind, in float32.

    Args:
        reference: A folder that `save` wrote; or `mindeye1:FILE` or `mindeye2:FILE`, a
            checkpoint of that training, whose `net.` is read (its brain model is not).

    Raises:
        MissingData: if it is not there, or damaged.
        BrainhiveError: if the weights are not of a diffusion prior.
    """
    path = _located(reference)
    if path.is_dir():
        # a folder has a config of its own
        file = path / "config.json"
        written = documents.read_download(file)
        config_class = parts.load("priors", written.pop("kind", KIND)).Config
        config = documents.check(
            written, str(file), config_class, documents.DOWNLOAD_HINT, MissingData
        )
        path = path / WEIGHTS
        state = weights.read(path)
    else:
        # a checkpoint holds the brain model too, and the sizes in the shapes of its
        # weights
        checkpoint = rename(weights.read(path), {PREFIXES: ""})
        kind = reference.partition(":")[0]
        with weights.reading(
            path,
            "give the checkpoint of its high-level training",
            BrainhiveError,
            problem=f"holds no diffusion prior of {kind}",
        ):
            tokens, dim = checkpoint["net.null_brain_embeds"].shape
            config = parts.load("priors", kind).Config(
                dim=dim, tokens=tokens, **sizes_of(checkpoint)
            )
        state = {
            name: value for name, value in checkpoint.items() if name.startswith("net.")
        }

    # fill a prior of these sizes
    prior = config.build({}, None)
    weights.fill(prior, state, path)
    return prior.eval()


def describe(reference: str) -> Description:
    """Describe it; MindEye1's own checkpoints were chosen on the test pictures."""
    path = _located(reference)
    kind = kind_of(reference)
    if path.is_dir():
        return Description(kind, reference, path)
    caveats = (SELECTED_ON_TEST,) if kind == KIND else ()
    return Description(kind, reference, path.parent, caveats=caveats)


def digest(reference: str) -> str:
    """Digest the weights (64 hexadecimal digits)."""
    path = _located(reference)
    if path.is_dir():
        return hub.digest(path, [WEIGHTS])
    return hub.digest(path.parent, [path.name])


def _located(reference: str) -> Path:
    """Find the folder, or the checkpoint's file."""
    kind, _, file = reference.partition(":")
    if kind not in KINDS:
        return hub.folder(
            reference, allow=["config.json", WEIGHTS, "learned*"], owner=OWNER
        )
    path = locate(file)
    if not path.is_file():
        raise MissingData(
            f"no checkpoint {path}",
            f"{kind}:FILE, a checkpoint of its high-level training",
        )
    return path


def sizes_of(state: State) -> dict[str, int]:
    """Read the settings of a prior from the shapes of its weights `net.…`, and of its
    schedule if there.
    """
    first = "net.causal_transformer.layers.0.0."
    # null_kv is [2, dim_head]
    _, dim_head = state[f"{first}null_kv"].shape
    sizes = {
        "depth": count_numbers(state, r"net\.causal_transformer\.layers\.(\d+)\."),
        "heads": len(state[f"{first}to_q.weight"]) // dim_head,
        "dim_head": dim_head,
    }
    if ALPHAS in state:
        sizes["timesteps"] = len(state[ALPHAS])
    return sizes


class DiffusionPrior(identity.Identity):
    """Samples image tokens [B, S, D]; all other heads become conditions as the identity
    prior's do.

    Source: BrainDiffusionPrior of MindEye1 (arXiv 2305.18274, MIT). It predicts the
    clean tokens, which MindEye1 multiplies by √D and MindEye2 leaves as they are.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(identity.Config(embeddings=(config.head,)))
        self.config = config
        self.kind = config.kind
        self.net = Denoiser(config)

        # cosine schedule: cumulative products of alpha, and the betas, [steps]
        at = (
            torch.linspace(
                0, config.timesteps, config.timesteps + 1, dtype=torch.float64
            )
            / config.timesteps
        )
        alphas = (
            torch.cos((at + SCHEDULE_OFFSET) / (1 + SCHEDULE_OFFSET) * math.pi / 2) ** 2
        )
        betas = (1 - alphas[1:] / alphas[:-1]).clip(0, 0.999)
        self.register_buffer(
            "alphas_cumprod", (1 - betas).cumprod(0).float(), persistent=False
        )
        self.register_buffer("betas", betas.float(), persistent=False)
        self.alphas_cumprod: Tensor
        self.betas: Tensor
        self.scale = config.dim**0.5 if config.scales_tokens else 1.0

    def save(self, folder: Path) -> None:
        """Write what `load` reads; its config names the kind."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            self.config.model_dump_json(indent=2) + "\n"
        )
        weights.save(folder / WEIGHTS, self.state_dict())

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        """Condition on tokens sampled from the decoded ones, by one seed a row, and on
        all other heads.

        Raises:
            BrainhiveError: if the brain model has no such head, or another shape of it.
        """
        # the brain's tokens [B, S, D]
        head = self.config.head
        shape = [self.config.tokens, self.config.dim]
        tokens = decoded.tensors.get(head)
        if tokens is None or [*tokens.shape[1:]] != shape:
            model_shape = "none" if tokens is None else [*tokens.shape[1:]]
            raise BrainhiveError(
                f"the diffusion prior takes the head {head} {shape}, the model's "
                f"is {model_shape}",
                "use an align run with that head, or the prior identity",
            )

        # replace them by sampled ones, and name the conditions as the identity prior
        # does
        sampled = self.sample(tokens.to(self.alphas_cumprod.device), seeds)
        return super().condition(
            Decoded({**decoded.tensors, head: sampled}, decoded.texts), seeds
        )

    def noises(self, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Draw the start, and then the noise of each step, [B, S, D] on the CPU, each
        row by its seed.
        """
        shape = (self.config.tokens, self.config.dim)
        rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        while True:
            yield torch.stack([torch.randn(shape, generator=row) for row in rows])

    @torch.no_grad()
    def sample(self, brain: Tensor, seeds: Sequence[int]) -> Tensor:
        """Go all steps of DDPM from noise to image tokens [B, S, D], those of each row
        by its seed.
        """
        # start from noise, and know at each step the level of the step before
        noises = self.noises(seeds)
        image = next(noises).to(brain)  # [B, S, D]
        previous = torch.cat(
            [self.alphas_cumprod.new_ones(1), self.alphas_cumprod[:-1]]
        )

        # draw from the posterior of each step, whose mean lies between the clean and
        # the noisy tokens
        for step in reversed(range(self.config.timesteps)):
            times = torch.full((len(image),), step, device=image.device)  # [B]
            clean = self.net(image, times, brain)  # [B, S, D]
            now = self.alphas_cumprod[step]
            before = previous[step]
            beta = self.betas[step]
            mean = (
                beta * before.sqrt() * clean + (1 - before) * (1 - beta).sqrt() * image
            ) / (1 - now)
            spread = (beta * (1 - before) / (1 - now)).clamp(min=SMALLEST).sqrt()
            image = mean + (spread * next(noises).to(brain) if step else 0)
        return image / self.scale

    def expected(self, brain: Tensor) -> Tensor:
        """Predict image tokens from the brain's alone, [B, S, D], in one pass: with the
        image hidden.
        """
        last = torch.full((len(brain),), self.config.timesteps - 1, device=brain.device)
        return (
            self.net(torch.zeros_like(brain), last, brain, keep_image=False)
            / self.scale
        )

    def learn(self, brain: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict image tokens from noised ones, for a training step; torch's random
        numbers are used.

        Args:
            brain: [B, S, D].
            image: True tokens [B, S, D].

        Returns:
            Predicted and true tokens, both times `scale`, whose mean squared error is
            the loss.
        """
        # draw the noise level of each row, and the rows whose brain or image is hidden
        count = len(image)
        device = image.device
        times = torch.randint(self.config.timesteps, (count,), device=device)
        keep = torch.rand(2, count, device=device) >= DROP

        # predict the clean tokens of noisy ones
        target = image * self.scale  # [B, S, D]
        alphas = self.alphas_cumprod[times].view(-1, 1, 1)  # [B, 1, 1]
        noisy = alphas.sqrt() * target + (1 - alphas).sqrt() * torch.randn_like(target)
        return self.net(noisy, times, brain, keep[0], keep[1]), target


class Denoiser(nn.Module):
    """Predicts the clean image tokens of noisy ones, the time and the brain's tokens.

    Source: VersatileDiffusionPriorNetwork of MindEye1 (MIT), which MindEye2 keeps;
    attention and feed-forward of dalle2-pytorch (MIT).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.dim
        shape = (config.tokens, config.dim)
        self.num_tokens = config.tokens

        # upstream's MLP of the time's sinusoids, in its nesting, which the names of
        # weights follow
        inner = 2 * dim
        steps = nn.Sequential(
            nn.Sequential(nn.Linear(dim, inner), nn.SiLU()),
            nn.Sequential(nn.Linear(inner, inner), nn.SiLU()),
            nn.Linear(inner, dim),
        )
        time_mlp = nn.Sequential(OrderedDict(net=steps))
        self.to_time_embeds = nn.Sequential(nn.Sequential(nn.Identity(), time_mlp))

        # learned tokens [S, D], and the transformer
        self.learned_query = nn.Parameter(torch.randn(shape) * dim**-0.5)
        self.null_brain_embeds = nn.Parameter(torch.randn(shape))
        self.null_image_embed = nn.Parameter(torch.randn(shape))
        buckets = {"relative_attention_bias": nn.Embedding(BUCKETS, config.heads)}
        layers = nn.ModuleList()
        for _ in range(config.depth):
            # an index is a layer's in upstream, where activation, norm and dropout lie
            # between
            maps = (
                nn.Linear(dim, 8 * dim, bias=False),
                nn.Linear(4 * dim, dim, bias=False),
            )
            feed_forward = nn.ModuleDict({"0": _Norm(dim), "1": maps[0], "5": maps[1]})
            layers.append(
                nn.ModuleList(
                    [_Attention(dim, config.heads, config.dim_head), feed_forward]
                )
            )
        last = {
            "norm": _Norm(dim, stable=True),
            "project_out": nn.Linear(dim, dim, bias=False),
        }
        self.causal_transformer: Any = nn.ModuleDict(
            {"rel_pos_bias": nn.ModuleDict(buckets), "layers": layers, **last}
        )

    def forward(
        self,
        image: Tensor,
        times: Tensor,
        brain: Tensor,
        keep_brain: Tensor | bool = True,
        keep_image: Tensor | bool = True,
    ) -> Tensor:
        """Predict [B, S, D]; what is not kept is replaced by the learned null
        tokens.
        """
        # hide brain or image of the rows that are not kept; masks are [B, 1, 1]
        keep_brain, keep_image = (
            torch.as_tensor(keep, device=image.device).expand(len(image)).view(-1, 1, 1)
            for keep in (keep_brain, keep_image)
        )
        brain = torch.where(keep_brain, brain, self.null_brain_embeds)
        image = (
            torch.where(keep_image, image, self.null_image_embed) + self.learned_query
        )

        # all tokens through the transformer; the image's come last
        # [B, 1, D]
        time = self.to_time_embeds(sinusoids(times.float(), image.shape[-1] // 2))[
            :, None
        ]
        x = torch.cat([brain, time, image], 1)
        parts = self.causal_transformer
        bias = self.bias(x.shape[1])
        for attention, feed_forward in parts["layers"]:
            x = attention(x, bias) + x
            # SwiGLU between the two maps
            norm, inner, outer = feed_forward.values()
            values, gate = inner(norm(x)).chunk(2, -1)
            x = outer(values * F.silu(gate)) + x
        return parts["project_out"](parts["norm"](x))[:, -self.num_tokens :]

    def bias(self, count: int) -> Tensor:
        """T5's relative position bias [heads, S, 1 + S], the null key first."""
        from transformers.models.t5.modeling_t5 import T5Attention

        embedding = self.causal_transformer["rel_pos_bias"]["relative_attention_bias"]
        position = torch.arange(count + 1, device=embedding.weight.device)
        distance = position - position[:count, None]  # [S, 1 + S]
        buckets = T5Attention._relative_position_bucket(
            distance,
            bidirectional=False,
            num_buckets=BUCKETS,
            max_distance=MAX_DISTANCE,
        )
        return embedding(buckets).permute(2, 0, 1)


def sinusoids(times: Tensor, count: int) -> Tensor:
    """Encode times [B] as sines and cosines of falling rates, [B, 2 · count]."""
    # rates fall geometrically from 1 to 1 / 10000
    step = -math.log(10000) / (count - 1)
    rates = torch.exp(torch.arange(count, device=times.device) * step)
    angles = times[:, None] * rates  # [B, D / 2]
    return torch.cat([angles.sin(), angles.cos()], -1)


class _Norm(nn.Module):
    """LayerNorm with a gain and no bias; `stable` divides by the largest value
    first.
    """

    def __init__(self, dim: int, stable: bool = False) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))
        self.stable = stable

    def forward(self, x: Tensor) -> Tensor:
        # divide first, as squares of large values would overflow in half precision
        if self.stable:
            x = x / x.amax(-1, keepdim=True).detach()
        eps = 1e-5 if x.dtype == torch.float32 else 1e-3  # dalle2-pytorch's
        return F.layer_norm(x, x.shape[-1:], eps=eps) * self.g


class _Attention(nn.Module):
    """Cosine attention with one shared key and value, a null one, and rotary
    positions.
    """

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _Norm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, width))
        self.to_q = nn.Linear(dim, width * heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * width, bias=False)
        self.rotary_emb: Any = nn.Module()
        rotated = min(ROTATED, width)
        # fixed, as in dalle2-pytorch
        self.rotary_emb.freqs = nn.Parameter(
            10000 ** -(torch.arange(0, rotated, 2) / rotated), requires_grad=False
        )
        self.to_out = nn.Sequential(
            nn.Linear(width * heads, dim, bias=False), _Norm(dim)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        # put a learned null key and value before those of the tokens, which all heads
        # share
        x = self.norm(x)
        # [B, heads, S, d]
        q = self.rotate(self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2))
        k, v = self.to_kv(x).chunk(2, -1)
        null_k, null_v = self.null_kv[:, None, None].expand(-1, len(x), 1, -1)
        k = torch.cat([null_k, self.rotate(k)], 1)
        v = torch.cat([null_v, v], 1)

        # weigh values by scaled cosines
        similarity = ATTENTION_SCALE * torch.einsum(
            "bhid,bjd->bhij", F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        )
        out = torch.einsum("bhij,bjd->bhid", (similarity + bias).softmax(-1), v)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def rotate(self, x: Tensor) -> Tensor:
        """Turn pairs of widths by angles that grow with the position."""
        # one angle for each pair of widths
        angles = (
            torch.arange(x.shape[-2], device=x.device)[:, None] * self.rotary_emb.freqs
        )
        angles = angles.repeat_interleave(2, -1)  # [S, rotated]

        # rotate the first widths, and leave the rest as they are
        turned = x[..., : angles.shape[-1]]
        rest = x[..., angles.shape[-1] :]
        first, second = turned.unflatten(-1, (-1, 2)).unbind(-1)
        half = torch.stack([-second, first], -1).flatten(-2)
        return torch.cat([turned * angles.cos() + half * angles.sin(), rest], -1)
