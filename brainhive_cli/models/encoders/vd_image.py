"""Image tokens as Versatile Diffusion takes them: CLIP ViT-L/14's, projected, by the
class token's length.
"""

from functools import partial
from typing import Any

from pydantic import Field

from brainhive_cli.models import clip_conditions as clip, encoders
from brainhive_cli.models.encoders import Encoder, EncoderConfig, source_field
from brainhive_cli.models.encoders._weights import build_untrained, fetch_weights
from brainhive_cli.models.encoders.transformers_vit import describe_processor


class Config(EncoderConfig):
    """A picture as 257 tokens of width 768, the class token first."""

    cites = ("xu2023", "radford2021")
    image_px = 224
    licence = "MIT"
    shape = (257, 768)
    config_files = (
        f"{clip.IMAGE_FOLDER}/config.json",
        f"{clip.PROCESSOR_FOLDER}/preprocessor_config.json",
    )
    weight_files = (
        f"{clip.IMAGE_FOLDER}/*.safetensors",
        f"{clip.IMAGE_FOLDER}/pytorch_model.bin",
    )
    also_fetched = (f"{clip.IMAGE_FOLDER}/pytorch_model.bin",)

    source: str = source_field(clip.SOURCE)
    architecture: dict[str, Any] = Field(
        {}, description="transformers' config of `random` weights"
    )

    def build(self) -> Encoder:
        """Prepare processor and tower; MissingData when the folder lacks either."""
        import transformers

        from brainhive_cli.models.encoders._outputs import Tower

        # processor and tower: of random weights by the architecture, otherwise by the
        # folder
        if self.source == "random":
            # the processor makes pictures of the tower's size
            side = self.architecture["image_size"]
            crop = {"height": side, "width": side}
            processor = transformers.CLIPImageProcessor(size=crop, crop_size=crop)
            config = transformers.CLIPVisionConfig(**self.architecture)
            load = partial(
                build_untrained,
                partial(getattr(transformers, clip.IMAGE_TOWER), config),
            )
            weights = {"source": self.source}
        else:
            folder, weights = fetch_weights(self)
            processor = clip.read_preprocessor(
                folder / clip.PROCESSOR_FOLDER, "CLIPImageProcessor"
            )
            load = partial(clip.load_tower, folder, clip.IMAGE_FOLDER, clip.IMAGE_TOWER)

        # pictures [B, 3, H, W] become tokens [B, S, D]
        pixels = partial(clip.preprocess_picture, processor)
        return Encoder(
            lambda: Tower(load(), clip.encode_pictures),
            pixels,
            describe_processor(processor),
            weights,
        )


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["vd-image"])
