"""MindEye1's diffusion prior, which samples image tokens given decoded ones."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import documents, hub, locate
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.results import SELECTED_ON_TEST
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    Conditioning,
    Decoded,
    StateDict,
    count_indices,
    rename_weights,
)
from brainhive_cli.models.priors import OWNER, Description, find_kind, identity

KIND = "mindeye1"
WEIGHTS = "model.safetensors"
DROP_PROBABILITY = 0.2
"""Share of the rows whose brain tokens, or image tokens, MindEye1 hides in training."""
POSITION_BUCKETS = 32
MAX_DISTANCE = 128
"""T5's buckets of relative positions, and the distance from which all share a bucket,
as in dalle2-pytorch.
"""


class Config(parts.Config):
    """Sizes and noise schedule. The defaults are MindEye1's (arXiv 2305.18274, MIT)."""

    cites = ("scotti2023",)
    scales_tokens: ClassVar[bool] = True
    """If True, the network works on tokens multiplied by √D."""

    dim: int = Field(768, gt=2, le=2**16, description="Width D of a token.")
    tokens: int = Field(
        257, gt=0, le=2**16, description="Number S of brain tokens and of image tokens."
    )
    depth: int = Field(6, gt=0, le=1000, description="Number of transformer layers.")
    heads: int = Field(
        12,
        gt=0,
        le=4096,
        description="Number of attention heads. They share one key and value.",
    )
    dim_head: int = Field(64, gt=1, le=4096, description="Width of an attention head.")
    timesteps: int = Field(
        100,
        gt=1,
        le=10_000,
        description="Number of steps of the cosine schedule, all of which are sampled.",
    )
    head: str = Field(
        "image", description="Head of the brain model that predicts the image tokens."
    )

    def build(self, dims: Mapping[str, int], generator: Any) -> "DiffusionPrior":
        """Make the prior. The arguments have no effect."""
        return DiffusionPrior(self)


TINY = Config(dim=16, tokens=2, depth=1, heads=1, dim_head=4, timesteps=3)
"""Small enough for tests."""


def load(reference: str) -> "DiffusionPrior":
    """Load a diffusion prior in float32.

    Args:
        reference: Folder or hub reference in the layout of `save`, or `mindeye1:FILE`
            or `mindeye2:FILE` for a published checkpoint, whose brain model is ignored.

    Raises:
        MissingData: if the weights are absent or damaged.
        BrainhiveError: if the checkpoint holds no diffusion prior.
    """
    path = _find_path(reference)
    if path.is_dir():
        config_file = path / "config.json"
        values = documents.read_download(config_file)
        config_class = parts.load("priors", values.pop("kind", KIND)).Config
        config = documents.check(
            values, str(config_file), config_class, documents.DOWNLOAD_HINT, MissingData
        )
        path = path / WEIGHTS
        state = weights.read(path)
    else:
        # Prefixes of the weights in checkpoints of MindEye1 and MindEye2.
        prefixes = r"(module\.)?(diffusion_prior\.)?"
        # the shapes of the weights tell the sizes
        checkpoint = rename_weights(weights.read(path), {prefixes: ""})
        kind = reference.partition(":")[0]
        with weights.reading(
            path,
            "give the checkpoint of its high-level training",
            BrainhiveError,
            problem=f"holds no diffusion prior of {kind}",
        ):
            tokens, dim = checkpoint["net.null_brain_embeds"].shape
            config = parts.load("priors", kind).Config(
                dim=dim, tokens=tokens, **read_sizes(checkpoint)
            )
        state = {
            name: value for name, value in checkpoint.items() if name.startswith("net.")
        }

    prior = config.build({}, None)
    weights.fill(prior, state, path)
    return prior.eval()


def describe(reference: str) -> Description:
    """Describe a diffusion prior without reading its weights.

    The authors of MindEye1 selected their checkpoints on the test pictures, which is a
    caveat.
    """
    path = _find_path(reference)
    kind = find_kind(reference)
    if path.is_dir():
        return Description(kind, reference, path)
    caveats = (SELECTED_ON_TEST,) if kind == KIND else ()
    return Description(kind, reference, path.parent, caveats=caveats)


def digest(reference: str) -> str:
    """Return the SHA-256 digest of the weights in hexadecimal."""
    path = _find_path(reference)
    if path.is_dir():
        return hub.digest(path, [WEIGHTS])
    return hub.digest(path.parent, [path.name])


def _find_path(reference: str) -> Path:
    """Return the folder of a prior, or the file of a checkpoint."""
    kind, _, file = reference.partition(":")
    # Kinds of `KIND:FILE`, a checkpoint that the code of the authors wrote.
    if kind not in (KIND, "mindeye2"):
        return hub.folder(
            reference, allow=["config.json", WEIGHTS, "learned*"], owner=OWNER
        )
    path = locate(file)
    if not path.is_file():
        raise MissingData(
            f"no checkpoint {path}",
            f"give {kind}:FILE, a checkpoint of its high-level training",
        )
    return path


def read_sizes(state: StateDict) -> dict[str, int]:
    """Read the sizes of a prior from the shapes of its weights `net.…`.

    Returns:
        `depth`, `heads` and `dim_head`, and `timesteps` if the state holds the noise
        schedule.
    """
    first = "net.causal_transformer.layers.0.0."
    _, dim_head = state[f"{first}null_kv"].shape
    sizes = {
        "depth": count_indices(state, r"net\.causal_transformer\.layers\.(\d+)\."),
        "heads": len(state[f"{first}to_q.weight"]) // dim_head,
        "dim_head": dim_head,
    }
    # Key of the noise schedule [timesteps] in a checkpoint of MindEye1.
    schedule_key = "noise_scheduler.alphas_cumprod"
    if schedule_key in state:
        sizes["timesteps"] = len(state[schedule_key])
    return sizes


class DiffusionPrior(identity.Identity):
    """Sampler of image tokens [B, S, D] given the brain tokens [B, S, D] of a head.

    The other heads become conditions as in the identity prior.

    Attributes:
        scale: Factor on the tokens that the network sees: √D in MindEye1, 1 in
            MindEye2.

    Source: BrainDiffusionPrior of MindEye1 (arXiv 2305.18274, MIT).
    """

    def __init__(self, config: Config) -> None:
        super().__init__(identity.Config(embeddings=(config.head,)))
        self.config = config
        self.kind = config.kind
        self.net = Denoiser(config)

        # cosine schedule: betas and cumulative products of 1 - beta, [timesteps]
        n_steps = config.timesteps
        times = torch.linspace(0, n_steps, n_steps + 1, dtype=torch.float64) / n_steps
        # Offset of the cosine schedule, which keeps the first betas above 0,
        # as in dalle2-pytorch.
        schedule_offset = 0.008
        angles = (times + schedule_offset) / (1 + schedule_offset) * math.pi / 2
        alphas_cumprod = torch.cos(angles) ** 2
        betas = (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clip(0, 0.999)
        self.register_buffer(
            "alphas_cumprod", (1 - betas).cumprod(0).float(), persistent=False
        )
        self.register_buffer("betas", betas.float(), persistent=False)
        self.alphas_cumprod: Tensor
        self.betas: Tensor
        self.scale = config.dim**0.5 if config.scales_tokens else 1.0

    def save(self, folder: Path) -> None:
        """Write config.json and the weights into a folder that `load` can read."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            self.config.model_dump_json(indent=2) + "\n"
        )
        weights.save(folder / WEIGHTS, self.state_dict())

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        """Sample image tokens, and turn them and the other heads into conditions.

        Args:
            decoded: Heads of B signals, the brain tokens [B, S, D] among them.
            seeds: Seed [B] of each signal.

        Raises:
            BrainhiveError: if the head is absent or has another shape.
        """
        head = self.config.head
        shape = [self.config.tokens, self.config.dim]
        brain_tokens = decoded.tensors.get(head)
        decoded_shape = None if brain_tokens is None else list(brain_tokens.shape[1:])
        if brain_tokens is None or decoded_shape != shape:
            raise BrainhiveError(
                f"the diffusion prior takes the head {head} {shape}, and the model "
                f"has {decoded_shape or 'none'}",
                "use an align run with that head, or the prior identity",
            )

        image_tokens = self.sample(brain_tokens.to(self.alphas_cumprod.device), seeds)
        tensors = decoded.tensors | {head: image_tokens}
        return super().condition(Decoded(tensors, decoded.texts), seeds)

    def noises(self, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Draw the noise of the start and of each sampling step.

        Each row has its own seed, so it does not depend on the batch.

        Yields:
            Noise [B, S, D] on the CPU.
        """
        shape = (self.config.tokens, self.config.dim)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        while True:
            rows = [torch.randn(shape, generator=generator) for generator in generators]
            yield torch.stack(rows)

    @torch.no_grad()
    def sample(self, brain_tokens: Tensor, seeds: Sequence[int]) -> Tensor:
        """Sample image tokens from noise, by all steps of DDPM.

        Args:
            brain_tokens: Condition [B, S, D].
            seeds: Seed [B] of the noise of each row.

        Returns:
            Image tokens [B, S, D].
        """
        noises = self.noises(seeds)
        image = next(noises).to(brain_tokens)  # [B, S, D]
        previous_alphas_cumprod = F.pad(self.alphas_cumprod[:-1], (1, 0), value=1.0)

        for step in reversed(range(self.config.timesteps)):
            timesteps = torch.full((len(image),), step, device=image.device)  # [B]
            clean = self.net(image, timesteps, brain_tokens)  # [B, S, D]

            # sample the posterior, whose mean lies between clean and noisy tokens
            alpha_prod = self.alphas_cumprod[step]
            previous_alpha_prod = previous_alphas_cumprod[step]
            beta = self.betas[step]
            mean = (
                beta * previous_alpha_prod.sqrt() * clean
                + (1 - previous_alpha_prod) * (1 - beta).sqrt() * image
            ) / (1 - alpha_prod)
            variance = beta * (1 - previous_alpha_prod) / (1 - alpha_prod)
            # Smallest variance of a sampling step, as in dalle2-pytorch.
            spread = variance.clamp(min=1e-20).sqrt()
            noise = next(noises).to(brain_tokens) if step else 0
            image = mean + spread * noise
        return image / self.scale

    def predict_from_brain(self, brain_tokens: Tensor) -> Tensor:
        """Predict image tokens in one pass, from brain tokens alone, both [B, S, D].

        The noisy image is hidden, as in a share of the training steps.
        """
        last_step = self.config.timesteps - 1
        timesteps = torch.full(
            (len(brain_tokens),), last_step, device=brain_tokens.device
        )
        hidden_image = torch.zeros_like(brain_tokens)
        image = self.net(hidden_image, timesteps, brain_tokens, keep_image=False)
        return image / self.scale

    def learn(
        self, brain_tokens: Tensor, image_tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict image tokens from noised ones, for the loss of a training step.

        Noise levels, noise and hidden rows come from torch's global generator.

        Args:
            brain_tokens: Condition [B, S, D].
            image_tokens: True tokens [B, S, D].

        Returns:
            Predicted and true tokens [B, S, D], multiplied by `scale`.
        """
        n_rows = len(image_tokens)
        device = image_tokens.device
        timesteps = torch.randint(self.config.timesteps, (n_rows,), device=device)
        keep = torch.rand(2, n_rows, device=device) >= DROP_PROBABILITY

        target = image_tokens * self.scale
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1)  # [B, 1, 1]
        noise = torch.randn_like(target)
        noisy = alphas.sqrt() * target + (1 - alphas).sqrt() * noise
        predicted = self.net(noisy, timesteps, brain_tokens, keep[0], keep[1])
        return predicted, target


class Denoiser(nn.Module):
    """Transformer that predicts clean image tokens.

    Its inputs are noisy image tokens, their timesteps and brain tokens.

    Source: VersatileDiffusionPriorNetwork of MindEye1 (MIT), which MindEye2 keeps;
    attention and feed-forward of dalle2-pytorch (MIT).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.dim
        shape = (config.tokens, dim)
        self.num_tokens = config.tokens

        # MLP of the timestep's sinusoids, nested as upstream, for the names of weights
        inner = 2 * dim
        mlp = nn.Sequential(
            nn.Sequential(nn.Linear(dim, inner), nn.SiLU()),
            nn.Sequential(nn.Linear(inner, inner), nn.SiLU()),
            nn.Linear(inner, dim),
        )
        time_mlp = nn.Sequential(OrderedDict(net=mlp))
        self.to_time_embeds = nn.Sequential(nn.Sequential(nn.Identity(), time_mlp))

        # learned tokens [S, D]
        self.learned_query = nn.Parameter(torch.randn(shape) * dim**-0.5)
        self.null_brain_embeds = nn.Parameter(torch.randn(shape))
        self.null_image_embed = nn.Parameter(torch.randn(shape))

        # transformer
        position_bias = nn.Embedding(POSITION_BUCKETS, config.heads)
        layers = nn.ModuleList()
        for _ in range(config.depth):
            proj_in = nn.Linear(dim, 8 * dim, bias=False)
            proj_out = nn.Linear(4 * dim, dim, bias=False)
            norm = _Norm(dim)
            # upstream's indices, with activation, norm and dropout at 2 to 4
            feed_forward = nn.ModuleDict({"0": norm, "1": proj_in, "5": proj_out})
            attention = _Attention(dim, config.heads, config.dim_head)
            layers.append(nn.ModuleList([attention, feed_forward]))
        self.causal_transformer: Any = nn.ModuleDict(
            {
                "rel_pos_bias": nn.ModuleDict(
                    {"relative_attention_bias": position_bias}
                ),
                "layers": layers,
                "norm": _Norm(dim, stable=True),
                "project_out": nn.Linear(dim, dim, bias=False),
            }
        )

    def forward(
        self,
        image: Tensor,
        timesteps: Tensor,
        brain: Tensor,
        keep_brain: Tensor | bool = True,
        keep_image: Tensor | bool = True,
    ) -> Tensor:
        """Predict clean image tokens [B, S, D].

        Args:
            image: Noisy image tokens [B, S, D].
            timesteps: Noise level [B] of each row.
            brain: Brain tokens [B, S, D].
            keep_brain: Mask [B] of the rows whose brain tokens are used, or a bool for
                all rows. The others get learned null tokens.
            keep_image: The same for image tokens.
        """
        keep_brain = self._expand_mask(keep_brain, image)
        keep_image = self._expand_mask(keep_image, image)
        brain = torch.where(keep_brain, brain, self.null_brain_embeds)
        image = torch.where(keep_image, image, self.null_image_embed)
        image = image + self.learned_query

        # one sequence of brain tokens, time token and image tokens
        features = sinusoids(timesteps.float(), image.shape[-1] // 2)  # [B, D]
        time_token = self.to_time_embeds(features)[:, None]  # [B, 1, D]
        x = torch.cat([brain, time_token, image], 1)
        transformer = self.causal_transformer
        bias = self.bias(x.shape[1])
        for attention, feed_forward in transformer["layers"]:
            x = attention(x, bias) + x
            # SwiGLU
            norm, proj_in, proj_out = feed_forward.values()
            values, gate = proj_in(norm(x)).chunk(2, -1)
            x = proj_out(values * F.silu(gate)) + x
        x = transformer["project_out"](transformer["norm"](x))
        return x[:, -self.num_tokens :]

    @staticmethod
    def _expand_mask(keep: Tensor | bool, image: Tensor) -> Tensor:
        """Turn a mask of rows, or a single value, into a mask [B, 1, 1]."""
        mask = torch.as_tensor(keep, device=image.device)
        return mask.expand(len(image)).view(-1, 1, 1)

    def bias(self, n_tokens: int) -> Tensor:
        """Return T5's relative position bias of N tokens.

        Returns:
            Bias [heads, N, 1 + N]. The null key comes first.
        """
        from transformers.models.t5.modeling_t5 import T5Attention

        embedding = self.causal_transformer["rel_pos_bias"]["relative_attention_bias"]
        position = torch.arange(n_tokens + 1, device=embedding.weight.device)
        distance = position - position[:n_tokens, None]  # [N, 1 + N]
        buckets = T5Attention._relative_position_bucket(
            distance,
            bidirectional=False,
            num_buckets=POSITION_BUCKETS,
            max_distance=MAX_DISTANCE,
        )
        return embedding(buckets).permute(2, 0, 1)


def sinusoids(times: Tensor, n_rates: int) -> Tensor:
    """Encode times [B] as sines and cosines [B, 2 · n_rates].

    The rates fall geometrically from 1 to 1 / 10000.
    """
    step = -math.log(10000) / (n_rates - 1)
    rates = torch.exp(torch.arange(n_rates, device=times.device) * step)
    angles = times[:, None] * rates  # [B, n_rates]
    return torch.cat([angles.sin(), angles.cos()], -1)


class _Norm(nn.Module):
    """LayerNorm with a gain and without a bias.

    Args:
        dim: Width of the last axis.
        stable: If True, divide by the largest value first. Squares of large values
            would overflow in half precision.
    """

    def __init__(self, dim: int, stable: bool = False) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))
        self.stable = stable

    def forward(self, x: Tensor) -> Tensor:
        if self.stable:
            x = x / x.amax(-1, keepdim=True).detach()
        eps = 1e-5 if x.dtype == torch.float32 else 1e-3  # as in dalle2-pytorch
        return F.layer_norm(x, x.shape[-1:], eps=eps) * self.g


class _Attention(nn.Module):
    """Cosine attention with rotary positions, whose heads share keys and values.

    A learned null key and value precede the keys and values of the tokens.
    """

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _Norm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, width))
        self.to_q = nn.Linear(dim, width * heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * width, bias=False)
        self.rotary_emb: Any = nn.Module()
        # Largest number of features that rotary embeddings rotate,
        # as in dalle2-pytorch.
        rotary_dim = min(32, width)
        # the frequencies are not trained, as in dalle2-pytorch
        self.rotary_emb.freqs = nn.Parameter(
            10000 ** -(torch.arange(0, rotary_dim, 2) / rotary_dim), requires_grad=False
        )
        self.to_out = nn.Sequential(
            nn.Linear(width * heads, dim, bias=False), _Norm(dim)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm(x)
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q = self.rotate(q)  # [B, heads, S, d]
        k, v = self.to_kv(x).chunk(2, -1)  # [B, S, d]
        null_k, null_v = self.null_kv[:, None, None].expand(-1, len(x), 1, -1)
        k = torch.cat([null_k, self.rotate(k)], 1)
        v = torch.cat([null_v, v], 1)

        # Factor of the cosines in attention, as in dalle2-pytorch.
        attention_scale = 16
        # attend by scaled cosines
        similarity = attention_scale * torch.einsum(
            "bhid,bjd->bhij", F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        )
        out = torch.einsum("bhij,bjd->bhid", (similarity + bias).softmax(-1), v)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def rotate(self, x: Tensor) -> Tensor:
        """Apply rotary position embeddings to the first features of x [..., S, d]."""
        positions = torch.arange(x.shape[-2], device=x.device)
        angles = positions[:, None] * self.rotary_emb.freqs  # one per pair of features
        angles = angles.repeat_interleave(2, -1)  # [S, rotary_dim]

        rotary_dim = angles.shape[-1]
        rotary = x[..., :rotary_dim]
        first, second = rotary.unflatten(-1, (-1, 2)).unbind(-1)
        swapped = torch.stack([-second, first], -1).flatten(-2)
        rotated = rotary * angles.cos() + swapped * angles.sin()
        return torch.cat([rotated, x[..., rotary_dim:]], -1)
