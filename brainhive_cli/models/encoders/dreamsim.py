"""DreamSim: vision transformers tuned to human judgements of similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import documents
from brainhive_cli.core.runs import fill, read, reading
from brainhive_cli.models import NameTable, encoders, rename_weights
from brainhive_cli.models.encoders import Encoder
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    describe_weights,
    find_folder,
)
from brainhive_cli.models.encoders.timm import find_anatomy

if TYPE_CHECKING:
    from torch import Tensor, nn

DOWNLOAD_HINT = (
    "unzip DreamSim's release of this type there: "
    "https://github.com/ssundaram21/dreamsim/releases"
)


@dataclass(frozen=True)
class Vit:
    """A vision transformer of DreamSim.

    Attributes:
        network: Name in timm. Its GELU is OpenAI's quick one if DreamSim's is.
        file: Path of the checkpoint in DreamSim's folder.
        hub_file: Path to which DreamSim lets torch.hub download the weights that it
            runs with. Empty if there are none.
        is_clip: If True, the embedding is normed and projected as in CLIP. Otherwise it
            is the class token before the last norm.
    """

    network: str
    file: str
    hub_file: str = ""
    is_clip: bool = False

    def build(self, width: int | None = None, **architecture: Any) -> Any:
        """Build the untrained network.

        Args:
            width: Width of CLIP's projection, by default 512.
            architecture: Arguments of timm, for a network of another size.
        """
        import timm
        from torch import nn

        # CLIP's projection is the head in timm
        arguments = {
            "img_size": 224,
            "num_classes": (width or 512) if self.is_clip else 0,
            **architecture,
        }
        network = timm.create_model(self.network, **arguments)
        if not self.is_clip:
            network.norm = nn.Identity()
        return network

    def load(self, path: Path, **architecture: Any) -> nn.Module:
        """Build the network and load a checkpoint.

        Args:
            path: Checkpoint.
            architecture: Arguments of timm, for a network of another size.

        Raises:
            MissingData: if the checkpoint belongs to another network.
        """
        import torch

        hint = (
            f"take DreamSim's, or put the authors' own at {self.hub_file or self.file}"
        )
        problem = f"does not hold the weights of timm's {self.network}"
        with reading(path, hint, problem=problem):
            state = self._read_state(path, hint)

            # on the meta device, the network takes over the checkpoint's tensors
            with torch.device("meta"):
                network = self.build(len(state.get("head.weight", "")), **architecture)
            side = network.patch_embed.grid_size[0]
            state["pos_embed"] = _resize_positions(state["pos_embed"], side)

            # only CLIP's embedding has passed the last norm
            if not self.is_clip:
                for name in list(state):
                    if name.startswith("norm."):
                        del state[name]
            fill(network, state, f"{path} {problem}", hint, MissingData)
        return network

    def _read_state(self, path: Path, hint: str) -> dict[str, Tensor]:
        """Read a checkpoint, and rename its weights as in timm.

        DreamSim's checkpoints have DINO's names, which are also timm's.
        """
        import torch

        checkpoint = rename_weights(read(path, hint), {r"(visual|backbone)\.": ""})
        state = {}
        # Beginnings of names in timm, keyed by the beginnings in a checkpoint. Heads
        # and mask tokens (value None) serve only training, and are left out.
        timm_names: NameTable = {
            r"head\.": None,
            "mask_token$": None,
            r"pos_drop\.": "norm_pre.",
        }
        for name, value in rename_weights(checkpoint, timm_names).items():
            state[name] = value.float()
        if "proj" in state:
            state["head.weight"] = state.pop("proj").T
            state["head.bias"] = torch.zeros(len(state["head.weight"]))
            # timm's CLIP has no such bias, so it moves to the positions
            state["pos_embed"][:, 1:] += state.pop("patch_embed.proj.bias")
        return state


def _resize_positions(positions: Tensor, side: int) -> Tensor:
    """Resize position embeddings [1, 1 + S, D] to a grid of side × side patches.

    Source: `interpolate_pos_encoding` of dinov2, bicubic without antialiasing, with .1
    patch added.
    """
    import torch
    from torch import nn

    checkpoint_side = isqrt(positions.shape[1] - 1)
    if checkpoint_side == side:
        return positions
    scale = (side + 0.1) / checkpoint_side
    grid = positions[:, 1:].unflatten(1, (checkpoint_side, checkpoint_side))
    grid = nn.functional.interpolate(
        grid.permute(0, 3, 1, 2), scale_factor=(scale, scale), mode="bicubic"
    )  # [1, D, H, W]
    return torch.cat([positions[:, :1], grid.flatten(2).mT], 1)


VITS = documents.read(Path(__file__).with_name("dreamsim.yaml"), dict[str, Vit])
"""Vision transformers, keyed by their names in DreamSim."""


class Config(TokenConfig):
    """DreamSim's ensemble: the concatenated embeddings of its members, not normalised.

    Tokens of DINO, DINOv2 and SynCLR come from before the last norm, as the class token
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
        "models", description="DreamSim's folder (its `cache_dir`), or `random`"
    )
    adapter: Literal["apply", "skip"] = Field(
        "apply", description="skip: leave out the alignment, to measure its effect"
    )
    architecture: dict[str, Any] = Field(
        {}, description="arguments of timm, for networks of another size"
    )

    def build(self) -> Encoder:
        """Prepare preprocessing and networks.

        Raises:
            MissingData: if a checkpoint or the adapter is absent.
        """
        from torch import nn

        from brainhive_cli.models.encoders._outputs import Outputs, Tower

        # the networks are loaded later, but their files must exist
        vits = [VITS[member] for member in self.members]
        load_networks, weights = self._prepare_networks(vits)
        side_px = self.architecture.get("img_size", self.image_px)

        def preprocess(image: Any) -> Tensor:
            """Squash a picture to [3, H, W] in 0..1."""
            from torchvision.transforms import v2

            squash = v2.Resize(
                (side_px, side_px), interpolation=v2.InterpolationMode.BICUBIC
            )
            return v2.PILToTensor()(squash(image)).float().div(255)

        statistics = ["CLIP" if vit.is_clip else "ImageNet" for vit in vits]
        preprocessing = (
            f"squash to {side_px} × {side_px} bicubic, mean and std of "
            f"{', '.join(statistics)}, adapter: {self.adapter}"
        )

        def load_members() -> nn.Module:
            from timm import data
            from torchvision.transforms import v2

            # each member normalises the same pictures in its own way
            members = []
            for vit, network in zip(vits, load_networks(), strict=True):
                mean = data.IMAGENET_DEFAULT_MEAN
                std = data.IMAGENET_DEFAULT_STD
                if vit.is_clip:
                    mean = data.OPENAI_CLIP_MEAN
                    std = data.OPENAI_CLIP_STD
                member = Outputs(network, self.output, find_anatomy(network))
                members.append(nn.Sequential(v2.Normalize(mean, std), member))
            return Tower(nn.ModuleList(members), _join_outputs)

        return Encoder(load_members, preprocess, preprocessing, weights)

    def _prepare_networks(
        self, vits: Sequence[Vit]
    ) -> tuple[Callable[[], list[nn.Module]], dict[str, str]]:
        """Return a function that loads the members, and describe their weights."""
        if self.source == "random":
            draws = [partial(vit.build, **self.architecture) for vit in vits]
            return lambda: [build_untrained(draw) for draw in draws], {
                "source": "random"
            }

        # prefer the checkpoints of torch.hub
        checkpoints = []
        for vit in vits:
            has_hub_file = vit.hub_file and (Path(self.source) / vit.hub_file).is_file()
            checkpoints.append(vit.hub_file if has_hub_file else vit.file)
        adapter_folder = Path(self.weight_files[0]).parent
        files = list(checkpoints)
        if self.adapter == "apply":
            files.extend(self.weight_files)
            files.append(f"{adapter_folder}/adapter_config.json")
        folder = find_folder(self.source, files, DOWNLOAD_HINT)

        def load() -> list[nn.Module]:
            networks = []
            for vit, file in zip(vits, checkpoints, strict=True):
                networks.append(vit.load(folder / file, **self.architecture))
            if self.adapter == "apply":
                merge_adapter(folder / adapter_folder, networks)
            return networks

        return load, describe_weights(self.source, folder, files)


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["dreamsim"])


def merge_adapter(folder: Path, networks: Sequence[Any]) -> None:
    """Add a low-rank adapter to every `qkv` of networks: W += alpha / r · B A.

    Args:
        folder: Folder of peft with adapter_config.json and adapter_model.safetensors.
        networks: Vision transformers of timm, in the order of DreamSim's extractors.

    Raises:
        MissingData: if the adapter lacks weights, or has too many.
    """
    import torch

    config = documents.read(
        folder / "adapter_config.json", dict[str, Any], DOWNLOAD_HINT, MissingData
    )
    with (
        reading(folder, DOWNLOAD_HINT, problem="is no adapter of this network"),
        torch.no_grad(),
    ):
        scale = config["lora_alpha"] / config["r"]
        state = read(folder / "adapter_model.safetensors", DOWNLOAD_HINT)
        for extractor_index, network in enumerate(networks):
            prefix = f"base_model.model.extractor_list.{extractor_index}.model.blocks"
            for block_index, block in enumerate(network.blocks):
                name = f"{prefix}.{block_index}.attn.qkv.lora"
                up_weight = state.pop(f"{name}_B.weight")
                down_weight = state.pop(f"{name}_A.weight")
                block.attn.qkv.weight += scale * up_weight @ down_weight
        if state:
            raise ValueError(f"{len(state)} tensors too many, such as {min(state)}")


def _join_outputs(members: Any, images: Tensor) -> Tensor | list[Tensor]:
    """Encode pictures [B, 3, H, W] in 0..1 with every member of an ensemble.

    Args:
        members: Networks.
        images: Pictures.

    Returns:
        Concatenated outputs [B, D_1 + D_2 + …], or a list of these for several outputs.
    """
    import torch
    from torch import Tensor

    outputs = [member(images) for member in members]
    if isinstance(outputs[0], Tensor):
        return torch.cat(outputs, -1)
    return [torch.cat(group, -1) for group in zip(*outputs, strict=True)]
