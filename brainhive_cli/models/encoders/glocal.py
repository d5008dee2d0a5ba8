"""gLocal: affine map of any embedding, fitted to human similarity judgements."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field, SerializeAsAny

from brainhive_cli.core.base import MissingData, RecipeError
from brainhive_cli.core.files import Input, read_regular
from brainhive_cli.core.runs import reading
from brainhive_cli.models.encoders import Encoder, EncoderConfig, resolve
from brainhive_cli.models.encoders._weights import describe_weights, find_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = "transform.npz"
DOWNLOAD_HINT = (
    "git clone https://github.com/LukasMut/gLocal models/gLocal, or name the folder as "
    "its `source`"
)

Base = Annotated[SerializeAsAny[EncoderConfig], BeforeValidator(resolve)]
"""Name, reference or mapping of any encoder."""


class Config(EncoderConfig):
    """Affine map ((x − mean) / std) W + b of the embedding x of a base encoder.

    Source: Muttenthaler et al. 2023 (arXiv 2306.04507);
    https://github.com/LukasMut/gLocal.
    """

    cites = ("muttenthaler2023",)
    licence = "MIT (the transform)"
    is_alignment = True
    weight_files = (FILE,)
    sha256: ClassVar[str] = ""
    """Beginning of the digest of the right file, if a wrong one was published."""

    base: Base = Field(
        default_factory=partial(resolve, "reference"),
        description="encoder for which the transform was fitted",
    )
    source: str = Field("", description=f"folder of {FILE}, or `random`")

    @property
    def is_available(self) -> bool:
        """True if the transform and the weights of the base are on this machine."""
        return super().is_available and self.base.is_available

    def inputs(self) -> list[Input]:
        """List the transform and the weights of the base."""
        return super().inputs() + self._require_base().inputs()

    def build(self) -> Encoder:
        """Prepare base and transform.

        Raises:
            MissingData: if the transform is absent, or belongs to another encoder.
            RecipeError: without a base, and later, when the module is loaded, if the
                embeddings of the base have another width.
        """
        import torch
        from torch import nn

        from brainhive_cli.models.encoders._outputs import Tower

        base = self._require_base().prepare()
        transform, weights = self._load_transform()

        def load() -> nn.Module:
            # the embedding of a black picture tells the width
            black = base.preprocess(Image.new("RGB", (64, 64)))[None]
            with torch.no_grad():
                width = base.module(black).shape[-1]

            if transform is None:
                generator = torch.Generator().manual_seed(0)
                weight = torch.randn(width, width, generator=generator)
                bias = torch.zeros(width)
                mean = 0.0
                std = 1.0
            else:
                weight, bias, mean, std = transform
            if len(weight) != width:
                raise RecipeError(
                    f"{self.base.name} gives {width} values, {self.source} takes "
                    f"{len(weight)}",
                    "name as `base` the encoder that the transform was fitted to",
                )
            affine = nn.ParameterDict({"weight": weight, "bias": bias})

            def align(networks: Any, images: Tensor) -> Tensor:
                normed = (networks["base"](images) - mean) / std  # [B, D]
                affine = networks["affine"]
                return normed @ affine["weight"] + affine["bias"]

            return Tower(nn.ModuleDict({"base": base.module, "affine": affine}), align)

        for key, value in base.weights.items():
            weights[f"base_{key}"] = value
        return Encoder(load, base.preprocess, base.preprocessing, weights)

    def _require_base(self) -> EncoderConfig:
        """Return the base, with one output.

        Raises:
            RecipeError: without a base, or if it has several outputs.
        """
        # the file of the transform does not name its encoder
        if not self.base.weights_source:
            raise RecipeError(
                "a gLocal transform does not name its base", "name it: base=NAME"
            )
        configs = self.base.store_configs
        if len(configs) > 1:
            names = ", ".join(config.name for config in configs)
            raise RecipeError(
                f"gLocal maps one output of its base, not {names}",
                "name one for each: {kind: glocal, base: NAME:OUTPUT, …}",
            )
        return configs[0]

    def _load_transform(
        self,
    ) -> tuple[tuple[Tensor, Tensor, float, float] | None, dict[str, str]]:
        """Read the transform, and describe it for a store.

        Returns:
            W [D, D'], b [D'], mean and std, or None for a random transform, and the
            description.
        """
        import torch

        if self.source == "random":
            return None, {"source": "random"}

        # gLocal has published a wrong file
        folder = find_folder(self.source, [FILE], DOWNLOAD_HINT)
        digest = hashlib.sha256(read_regular(folder / FILE)).hexdigest()
        if not digest.startswith(self.sha256):
            raise MissingData(
                f"{folder / FILE} is not the one for {self.base.name}: "
                f"its sha256 begins {digest[:12]}, not {self.sha256}",
                "gLocal's newest commit holds a copy of DINO's: in its folder, "
                "git checkout d1860d3 -- transforms/dinov2-vit-base-p14",
            )

        with (
            reading(folder / FILE, DOWNLOAD_HINT, problem="is no gLocal transform"),
            np.load(folder / FILE) as arrays,
        ):
            weight = torch.from_numpy(arrays["weights"]).float()
            bias = torch.zeros(1)
            if "bias" in arrays:
                bias = torch.from_numpy(arrays["bias"]).float()
            mean = float(arrays["mean"])
            std = float(arrays["std"])
        transform = (weight, bias, mean, std)
        return transform, describe_weights(self.source, folder, [FILE])


TINY = Config(
    base={"kind": "timm", "source": "random", "architecture": "test_vit"},
    source="random",
)
