"""MixCo: the contrastive loss on signals mixed in pairs, each of which should find both its targets."""

from pydantic import Field, PositiveFloat

from brainhive_cli.models.losses import clip


class Config(clip.Config):
    """CLIP's loss with mixed signals (arXiv 2010.06300, for brain signals in MindEye, arXiv 2305.18274)."""

    cites = ("kim2020", "scotti2023")

    mix_alpha: PositiveFloat = Field(
        0.15,
        description="Signals are mixed in pairs, with shares from Beta(alpha, alpha); MindEye's, "
        "which leaves half of them unmixed.",
    )


TINY = Config()
