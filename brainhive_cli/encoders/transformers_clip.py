"""Any CLIP vision model of transformers, by its projected image embedding."""

from brainhive_cli.encoders import transformers_vit


class Config(transformers_vit.Config):
    """A CLIP vision tower with projection and its own image processor (transformers)."""

    model_type = "clip_vision_model"


TINY = Config(
    source="random",
    architecture={
        **transformers_vit.SMALL,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "projection_dim": 8,
    },
)
