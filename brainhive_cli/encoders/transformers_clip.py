"""Any CLIP vision model of transformers, by its projected image embedding."""

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli import hub
from brainhive_cli.encoders import Encoder, EncoderConfig, weights_of
from brainhive_cli.errors import MissingData


class Config(EncoderConfig):
    """A CLIP vision tower with projection and its own image processor (transformers)."""

    files: ClassVar[tuple[str, ...]] = ("*.json", "model*.safetensors")  # not open_clip's copy of the weights
    source: str = Field(
        "", description="hub:owner/name, a folder, or `random` (untrained, for tests and timing)"
    )
    architecture: dict[str, Any] = Field({}, description="CLIPVisionConfig of `random` weights")

    def build(self) -> Encoder:
        """Load tower and processor; MissingData when the folder lacks either."""
        from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # stderr is the console's

        if self.source == "random":
            torch.manual_seed(0)
            tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**self.architecture))
            side = tower.config.image_size
            processor = CLIPImageProcessor(
                size={"shortest_edge": side}, crop_size={"height": side, "width": side}
            )
            weights = {"source": "random"}
        else:
            folder = hub.folder(self.source, allow=self.files)
            require(folder, "config.json", "preprocessor_config.json")
            config = CLIPVisionConfig.from_pretrained(folder, **_projection(folder))
            tower = CLIPVisionModelWithProjection.from_pretrained(folder, config=config, dtype=torch.float32)
            processor = CLIPImageProcessor.from_pretrained(folder)
            weights = weights_of(self.source, folder)

        def preprocess(image: Any) -> Tensor:
            pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
            return pixels

        words = f"CLIPImageProcessor size={dict(processor.size)} crop={dict(processor.crop_size)}"
        return Encoder(_ProjectedEmbedding(tower), preprocess, words, weights)


TINY = Config(
    source="random",
    architecture={
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "projection_dim": 8,
    },
)


class _ProjectedEmbedding(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.tower(pixel_values=images).image_embeds  # [B, D]
        return embedding


def _projection(folder: Path) -> dict[str, int]:
    """Read the width of the projection from the whole model's config: LAION's leave it out of the tower's."""
    config = json.loads((folder / "config.json").read_text())
    return {"projection_dim": config["projection_dim"]} if "projection_dim" in config else {}


def require(folder: Path, *names: str) -> None:
    """Raise MissingData unless the folder holds each of these files."""
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise MissingData(
            f"{folder} has no {', '.join(absent)}", "give a complete folder, or the hub reference"
        )
