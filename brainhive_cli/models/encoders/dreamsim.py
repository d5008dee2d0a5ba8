"""DreamSim: vision transformers tuned to what people find similar; this one is its
ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core import documents
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.weights import fill, read, reading
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import Encoder
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    describe_weights,
    find_folder,
)
from brainhive_cli.models.encoders.timm import find_anatomy
from brainhive_cli.models.foreign_weights import NameTable, rename_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

DOWNLOAD_HINT = (
    "unzip DreamSim's release of this type there: "
    "https://github.com/ssundaram21/dreamsim/releases"
)


@dataclass(frozen=True)
class Vit:
    """Recipe of one vision transformer.

    Attributes:
        network: timm's name. GELU is OpenAI's quick one where DreamSim's is.
        file: Where DreamSim keeps the checkpoint.
        hub_file: Where DreamSim has torch.hub put the network that it really runs.
        is_clip: Whether the embedding is CLIP's: normed, then projected; the others' is
            the bare class token.
    """

    network: str
    file: str
    hub_file: str = ""
    is_clip: bool = False

    def build(self, width: int | None = None, **architecture: Any) -> Any:
        """Make the untrained network.

        Args:
            width: Values that CLIP projects to.
            architecture: timm's arguments, for a network of another size.
        """
        import timm
        from torch import nn

        # timm's head is CLIP's projection; other embeddings are the class token
        size = {
            "img_size": 224,
            "num_classes": (width or 512) if self.is_clip else 0,
            **architecture,
        }
        network = timm.create_model(self.network, **size)
        if not self.is_clip:
            network.norm = nn.Identity()
        return network

    def load(self, path: Path, **architecture: Any) -> nn.Module:
        """Make the network with the weights of a checkpoint; MissingData if they are
        another's.
        """
        import torch
        from torch import nn

        way = (
            f"take DreamSim's, or put the authors' own at {self.hub_file or self.file}"
        )
        with reading(
            path, way, problem=f"does not hold the weights of timm's {self.network}"
        ):
            # bring a checkpoint to timm's names: DINO's are timm's, DreamSim brings
            # CLIP's into DINO's
            bare = rename_weights(read(path, way), {r"(visual|backbone)\.": ""})
            state = {
                name: value.float()
                for name, value in rename_weights(bare, TIMM_NAMES).items()
            }
            if "proj" in state:
                state["head.weight"] = state.pop("proj").T
                state["head.bias"] = torch.zeros(len(state["head.weight"]))
                state["pos_embed"][:, 1:] += state.pop(
                    "patch_embed.proj.bias"
                )  # timm's CLIP has no such bias

            # make a network of its sizes
            with torch.device("meta"):  # the checkpoint's tensors become the network's
                network = self.build(len(state.get("head.weight", "")), **architecture)

            # fit the positions, and leave out the norm that only CLIP's embedding has
            # [1, 1 + S, D]
            positions = state["pos_embed"]
            side = network.patch_embed.grid_size[0]
            checkpoint_side = isqrt(positions.shape[1] - 1)
            if checkpoint_side != side:
                # bicubic without antialiasing, .1 patch added: dinov2's
                # `interpolate_pos_encoding`
                grid = positions[:, 1:].unflatten(1, (checkpoint_side, checkpoint_side))
                scale = (side + 0.1) / checkpoint_side
                grid = nn.functional.interpolate(
                    grid.permute(0, 3, 1, 2),
                    scale_factor=(scale, scale),
                    mode="bicubic",
                )  # [1, D, H, W]
                state["pos_embed"] = torch.cat(
                    [positions[:, :1], grid.flatten(2).mT], 1
                )
            if not self.is_clip:
                state = {
                    name: value
                    for name, value in state.items()
                    if not name.startswith("norm.")
                }
            where = f"{path} does not hold the weights of timm's {self.network}"
            fill(network, state, where, way, MissingData)
        return network


TIMM_NAMES: NameTable = {
    r"head\.": None,
    "mask_token$": None,
    r"pos_drop\.": "norm_pre.",
}
"""timm's names by a checkpoint's; head and mask token are for training."""
VITS = documents.read(Path(__file__).with_name("dreamsim.yaml"), dict[str, Vit])
"""Vision transformers by DreamSim's names."""


class Config(TokenConfig):
    """DreamSim's embedding, not normalised: its members' side by side, as all their
    outputs are.

    Tokens of DINO, DINOv2 and SynCLR stand before the last norm, as the class token
    that DreamSim compares.

    Source: Fu et al. 2023 (arXiv 2306.09344); the dreamsim package, 0.2.1.
    """

    cites = ("fu2023",)
    dim = 1792
    image_px = 224
    licence = "MIT, Apache-2.0"
    members: ClassVar[tuple[str, ...]] = (
        "dino_vitb16",
        "clip_vitb16",
        "open_clip_vitb16",
    )
    is_alignment = True
    weight_files = ("ensemble_lora/adapter_model.safetensors",)

    source: str = Field(
        "models", description="DreamSim's own folder (its `cache_dir`), or `random`"
    )
    adapter: Literal["apply", "skip"] = Field(
        "apply", description="skip: the base alone, to measure what the alignment gains"
    )
    architecture: dict[str, Any] = Field(
        {}, description="timm's arguments, for networks of another size"
    )

    def build(self) -> Encoder:
        """Prepare preprocessing and networks; MissingData if these or the adapter are
        not there.
        """
        from torch import nn

        from brainhive_cli.models.encoders._outputs import Outputs, Tower

        # networks are loaded later; here it is check_outputs that their files exist
        vits = [VITS[member] for member in self.members]
        networks, weights = self._prepare_networks(vits)
        side = self.architecture.get("img_size", self.image_px)

        def preprocess(image: Any) -> Tensor:
            from torchvision.transforms import v2

            squash = v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC)
            return v2.PILToTensor()(squash(image)).float().div(255)  # [3, H, W] in 0..1

        scales = ", ".join("CLIP" if vit.is_clip else "ImageNet" for vit in vits)
        words = (
            f"squash to {side} × {side} bicubic, mean and std of {scales}, adapter: "
            f"{self.adapter}"
        )

        def outputs() -> nn.Module:
            from timm import data
            from torchvision.transforms import v2

            # each member has its own normalisation of the same pictures
            members = []
            for vit, network in zip(vits, networks(), strict=True):
                mean = (
                    data.OPENAI_CLIP_MEAN if vit.is_clip else data.IMAGENET_DEFAULT_MEAN
                )
                std = data.OPENAI_CLIP_STD if vit.is_clip else data.IMAGENET_DEFAULT_STD
                member = Outputs(network, self.output, find_anatomy(network))
                members.append(nn.Sequential(v2.Normalize(mean, std), member))
            return Tower(nn.ModuleList(members), _join_outputs)

        return Encoder(outputs, preprocess, words, weights)

    def _prepare_networks(
        self, vits: Sequence[Vit]
    ) -> tuple[Callable[[], list[nn.Module]], dict[str, str]]:
        # random weights have no files and no adapter
        if self.source == "random":
            draws = [partial(vit.build, **self.architecture) for vit in vits]
            return lambda: [build_untrained(draw) for draw in draws], {
                "source": "random"
            }

        # name the checkpoints, torch.hub's where it has one, and the adapter unless it
        # is skipped
        bases = []
        for vit in vits:
            has_hub_file = vit.hub_file and (Path(self.source) / vit.hub_file).is_file()
            bases.append(vit.hub_file if has_hub_file else vit.file)
        lora = Path(self.weight_files[0]).parent
        files = [*bases, *self.weight_files, f"{lora}/adapter_config.json"]
        if self.adapter == "skip":
            files = bases
        folder = find_folder(self.source, files, DOWNLOAD_HINT)

        def load() -> list[nn.Module]:
            pairs = zip(vits, bases, strict=True)
            networks = [
                vit.load(folder / file, **self.architecture) for vit, file in pairs
            ]
            if self.adapter == "apply":
                merge_adapter(folder / lora, networks)
            return networks

        return load, describe_weights(self.source, folder, files)


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["dreamsim"])


def merge_adapter(folder: Path, networks: Sequence[Any]) -> None:
    """Add a low-rank adapter to the weights of networks: W += alpha / r · B A, in every
    `qkv`.

    Args:
        folder: `adapter_config.json` and `adapter_model.safetensors`, as peft writes
            them.
        networks: timm's vision transformers, in the order of DreamSim's extractors.

    Raises:
        MissingData: if the adapter lacks a part of these networks, or holds more.
    """
    import torch

    config = documents.read(
        folder / "adapter_config.json", dict[str, Any], DOWNLOAD_HINT, MissingData
    )
    with (
        reading(folder, DOWNLOAD_HINT, problem="is no adapter of this network"),
        torch.no_grad(),
    ):
        # add the update of each block, and count what the file holds beyond them
        scale = config["lora_alpha"] / config["r"]
        parts = read(folder / "adapter_model.safetensors", DOWNLOAD_HINT)
        for e, network in enumerate(networks):
            for i, block in enumerate(network.blocks):
                extractor = f"base_model.model.extractor_list.{e}.model"
                name = f"{extractor}.blocks.{i}.attn.qkv.lora"
                block.attn.qkv.weight += (
                    scale
                    * parts.pop(f"{name}_B.weight")
                    @ parts.pop(f"{name}_A.weight")
                )
        if parts:
            raise ValueError(f"{len(parts)} tensors too many, such as {min(parts)}")


def _join_outputs(members: Any, images: Tensor) -> Tensor | list[Tensor]:
    """Encode pictures [B, 3, H, W] in 0..1 by every member, and join their outputs: [B,
    D_1 + D_2 + …].
    """
    import torch
    from torch import Tensor

    outputs = [member(images) for member in members]
    if isinstance(outputs[0], Tensor):
        return torch.cat(outputs, -1)
    return [torch.cat(same, -1) for same in zip(*outputs, strict=True)]
