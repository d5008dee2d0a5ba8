"""How similar pictures are to the decoded heads that they were generated from: the choice of best-of-n."""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_groups import grouped
from brainhive_cli.data.media_files import Pixels
from brainhive_cli.reconstruction.stimulus_heads import StimulusHeads, compared


class Reranker:
    """Embeds generated pictures as the stimuli were, and makes heads from them; it never sees the stimulus.

    Args:
        heads: Makes heads from embeddings; its encoders are loaded here.
        launch: Where they run.
    """

    def __init__(self, heads: StimulusHeads, launch: Launch) -> None:
        self._heads = heads
        self._groups = grouped(heads.encoders, "fp32", launch)

    @torch.inference_mode()
    def similarity(self, pixels: Pixels, decoded: Decoded) -> Tensor:
        """Cosine of the heads of pictures [B, H, W, 3] with decoded ones; [B]."""
        pictures = [Image.fromarray(each) for each in pixels]
        embeddings: dict[str, Tensor] = {}
        for group in self._groups:
            views = torch.stack([group.encoder.preprocess(picture) for picture in pictures])
            embeddings |= {self._heads.keys[name]: values for name, values in group.encode(views).items()}
        generated = compared(self._heads.of_embeddings(embeddings))
        return F.cosine_similarity(generated, compared(decoded).to(generated.device))
