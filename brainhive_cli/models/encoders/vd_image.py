"""Image tokens of Versatile Diffusion: projected tokens of CLIP ViT-L/14."""

from functools import partial
from typing import Any

from pydantic import Field

from brainhive_cli.models import clip_conditions as clip, encoders
from brainhive_cli.models.encoders import Encoder, EncoderConfig, source_field
from brainhive_cli.models.encoders._weights import build_untrained, fetch_weights
from brainhive_cli.models.encoders.transformers_vit import describe_processor


class Config(EncoderConfig):
    """257 tokens [257, 768] of a picture, divided by the length of the class token."""

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
        """Prepare image processor and tower.

        Raises:
            MissingData: if the folder lacks either.
        """
        import transformers

        from brainhive_cli.models.encoders._outputs import Tower

        # processor and tower, with random weights or from the folder
        if self.source == "random":
            side_px = self.architecture["image_size"]
            sides = {"height": side_px, "width": side_px}
            processor = transformers.CLIPImageProcessor(size=sides, crop_size=sides)
            config = transformers.CLIPVisionConfig(**self.architecture)
            tower_class = getattr(transformers, clip.IMAGE_TOWER)
            load = partial(build_untrained, partial(tower_class, config))
            weights = {"source": self.source}
        else:
            folder, weights = fetch_weights(self)
            processor = clip.read_preprocessor(
                folder / clip.PROCESSOR_FOLDER, "CLIPImageProcessor"
            )
            load = partial(clip.load_tower, folder, clip.IMAGE_FOLDER, clip.IMAGE_TOWER)

        # pictures [B, 3, H, W] to tokens [B, S, D]
        return Encoder(
            network=lambda: Tower(load(), clip.encode_pictures),
            preprocess=partial(clip.preprocess_picture, processor),
            preprocessing=describe_processor(processor),
            weights=weights,
        )


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["vd-image"])
