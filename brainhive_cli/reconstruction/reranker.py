"""How like pictures are to the tokens that they were drawn from: the choice of best-of-n."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_groups import encode
from brainhive_cli.data.encoder_keys import match_keys
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.priors.fusion_prior import FusionPrior


class Reranker:
    """Encodes pictures as the prior's images were, and fuses them; it never sees the stimulus.

    Args:
        encoders: Those whose embeddings the prior fuses; loaded here.
        prior: Fuses them.
        launch: Where they run.

    Raises:
        BrainhiveError: if the prior fuses other embeddings; it names both.
    """

    def __init__(self, encoders: Sequence[EncoderConfig], prior: FusionPrior, launch: Launch) -> None:
        keys = match_keys(encoders, prior.dims, "the prior")
        self._encoders = {keys[config.name]: config.build() for config in encoders}
        for encoder in self._encoders.values():
            encoder.module.to(launch.device)
        self._prior, self._launch = prior, launch

    @torch.inference_mode()
    def similarity(self, pictures: Sequence[Image.Image], tokens: Tensor) -> Tensor:
        """Cosine of the pictures' tokens with `tokens` [B, D]; [B]."""
        embeddings = {}
        for key, encoder in self._encoders.items():
            views = torch.stack([encoder.preprocess(picture) for picture in pictures])
            embeddings[key] = encode(encoder, views, "fp32", self._launch)[0].flatten(1)
        return F.cosine_similarity(self._prior.fuse(embeddings), tokens)
