"""gLocal: an affine map after any encoder, fitted to human similarity judgements."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field, SerializeAsAny

from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.files import read_regular
from brainhive_cli.core.weights import reading
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
"""Any encoder: its name, reference or mapping."""


class Config(EncoderConfig):
    """((x − mean) / std) W + b of the base's embedding x.

    Source: Muttenthaler et al. 2023 (arXiv 2306.04507);
    https://github.com/LukasMut/gLocal.
    """

    cites = ("muttenthaler2023",)
    licence = "MIT (the transform)"
    is_alignment = True
    weight_files = (FILE,)
    sha256: ClassVar[str] = ""
    """Beginning of the right file's digest, where a wrong one was published."""

    base: Base = Field(
        default_factory=partial(resolve, "reference"),
        description="the encoder that the transform is for",
    )
    source: str = Field("", description=f"the folder of {FILE}, or `random`")

    @property
    def is_available(self) -> bool:
        """Whether transform and base are on this machine."""
        return super().is_available and self.base.is_available

    def inputs(self) -> list[Input]:
        """Look for the base's weights too."""
        return [*super().inputs(), *self._require_base().inputs()]

    def build(self) -> Encoder:
        """Prepare base and transform; MissingData if the transform is not there, or
        another encoder's.

        The module raises RecipeError, when it is loaded, if the base's embeddings have
        another width.
        """
        import torch
        from torch import nn

        from brainhive_cli.models.encoders._outputs import Tower

        # an absent or wrong transform is an error before any picture is encoded
        base = self._require_base().prepare()
        transform, weights = self._load_transform()

        def load() -> nn.Module:
            # a black picture tells the width of the base's embedding
            black = base.preprocess(Image.new("RGB", (64, 64)))[None]
            with torch.no_grad():
                width = base.module(black).shape[-1]

            # the transform must have been fitted to embeddings of this width
            if transform is None:
                weight = torch.randn(
                    width, width, generator=torch.Generator().manual_seed(0)
                )
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

            def align(parts: Any, images: Tensor) -> Tensor:
                normed = (parts["base"](images) - mean) / std  # [B, D]
                return normed @ parts["affine"]["weight"] + parts["affine"]["bias"]

            return Tower(nn.ModuleDict({"base": base.module, "affine": affine}), align)

        # a store records the weights of base and transform
        weights |= {f"base_{key}": value for key, value in base.weights.items()}
        return Encoder(load, base.preprocess, base.preprocessing, weights)

    def _require_base(self) -> EncoderConfig:
        # a transform is fitted to one encoder, which its file does not name
        if not self.base.weights_source:
            raise RecipeError(
                "a gLocal transform says nothing of its base", "name it: base=NAME"
            )
        if len(outputs := self.base.store_configs) > 1:
            raise RecipeError(
                "gLocal maps one output of its base, not "
                f"{', '.join(output.name for output in outputs)}",
                "name one for each: {kind: glocal, base: NAME:OUTPUT, …}",
            )
        return self.base.store_configs[0]

    def _load_transform(
        self,
    ) -> tuple[tuple[Tensor, Tensor, float, float] | None, dict[str, str]]:
        """Read W, b, mean and std (none of random ones), and describe them for a
        store.
        """
        import torch

        if self.source == "random":
            return None, {"source": "random"}

        # refuse the wrong file that was published
        folder = find_folder(self.source, [FILE], DOWNLOAD_HINT)
        digest = hashlib.sha256(read_regular(folder / FILE)).hexdigest()
        if not digest.startswith(self.sha256):
            raise MissingData(
                f"{folder / FILE} is not the one for {self.base.name}: "
                f"its sha256 begins {digest[:12]}, not {self.sha256}",
                "gLocal's newest commit holds a copy of DINO's: in its folder, "
                "git checkout d1860d3 -- transforms/dinov2-vit-base-p14",
            )

        # read the affine map
        with (
            reading(folder / FILE, DOWNLOAD_HINT, problem="is no gLocal transform"),
            np.load(folder / FILE) as arrays,
        ):
            weight = torch.from_numpy(arrays["weights"]).float()
            bias = (
                torch.from_numpy(arrays["bias"]) if "bias" in arrays else torch.zeros(1)
            )
            transform = (
                weight,
                bias.float(),
                float(arrays["mean"]),
                float(arrays["std"]),
            )
        return transform, describe_weights(self.source, folder, [FILE])


TINY = Config(
    base={"kind": "timm", "source": "random", "architecture": "test_vit"},
    source="random",
)
