"""SEED's parts: which objects a picture shows, and what its caption says."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from brainhive_cli.measurement.metrics import MetricPart
from brainhive_cli.measurement.metrics.image import correlation

SEED = "seed_score"
SEED_PARTS = ("object_f1", "effnet", "cap_sim")
"""Metrics whose mean SEED is; of EffNet 1 less the distance."""
PROMPT = (
    "person. man. woman. bicycle. car. motorcycle. airplane. bus. train. truck. boat. "
    "traffic light. fire hydrant. stop sign. parking meter. bench. bird. cat. dog. "
    "horse. sheep. cow. elephant. bear. zebra. giraffe. backpack. umbrella. handbag. "
    "tie. suitcase. frisbee. skis. snowboard. sports ball. kite. baseball bat. "
    "baseball glove. skateboard. surfboard. tennis racket. bottle. wine glass. cup. "
    "fork. knife. spoon. bowl. banana. apple. sandwich. orange. broccoli. carrot. "
    "hot dog. pizza. donut. cake. chair. couch. potted plant. bed. dining table. "
    "toilet. tv. laptop. mouse. remote. keyboard. cell phone. microwave. oven. "
    "toaster. sink. refrigerator. book. clock. vase. scissors. teddy bear. "
    "hair drier. toothbrush."
)
"""SEED's categories: COCO's 80, and man and woman."""
CATEGORY_COUNT = PROMPT.count(".")
LEVELS = torch.arange(1, 19, dtype=torch.float64)[:, None] / 20
"""Scores from which a category counts as shown, .05 to .9 (SEED)."""
MIN_AREA = 50 / 256**2
"""Least share of the picture that a box covers: 50 px (SEED) of MindEye2's 256 px."""
DETECTED_AT_ONCE = 4
"""Pictures that the detector takes at once, each of 900 boxes."""
MAX_WORDS = 50
"""Tokens of a caption, at most (SEED)."""


class CategoryScores(nn.Module):
    """Scores [B, K] of categories in pictures [B, 3, H, W], those of their best boxes.

    A box's score is the mean over the category's tokens.

    Args:
        network: A Grounding DINO of transformers.
        tokenizer: Its BERT tokenizer.
    """

    tokens: Tensor
    weights: Tensor

    def __init__(self, network: Any, tokenizer: Any) -> None:
        super().__init__()
        # stops separate the categories; [CLS] and [SEP] are of none
        self.network = network
        tokens = tokenizer(PROMPT, return_tensors="pt").input_ids  # [1, S]
        stops = tokens[0] == tokenizer.convert_tokens_to_ids(".")
        members = functional.one_hot(stops.cumsum(0), CATEGORY_COUNT + 1)[:, :-1]
        members = members * ~stops[:, None]
        members[0] = 0
        self.register_buffer("tokens", tokens)
        self.register_buffer("weights", members / members.sum(0))  # [S, K]

    def forward(self, pictures: Tensor) -> Tensor:
        """Find the best box of each category."""
        scores = []
        for batch in pictures.split(DETECTED_AT_ONCE):
            tokens = self.tokens.expand(len(batch), -1)
            detected = self.network(pixel_values=batch, input_ids=tokens)
            likely = detected.logits[..., : len(self.weights)].sigmoid() @ self.weights
            is_large = detected.pred_boxes[..., 2:].prod(-1) >= MIN_AREA  # [B, Q]
            scores.append((likely * is_large[..., None]).amax(1))
        return torch.cat(scores)


class CaptionEmbeddings(nn.Module):
    """Sentence embeddings [B, D] of the captions of pictures [B, 3, H, W].

    Args:
        captioner: A GIT of transformers.
        reader: A BERT that encodes sentences by the mean of their tokens.
        tokenizer: The captioner's.
        reader_tokenizer: The reader's.
    """

    def __init__(
        self, captioner: Any, reader: Any, tokenizer: Any, reader_tokenizer: Any
    ) -> None:
        super().__init__()
        self.captioner = captioner
        self.reader = reader
        self.tokenizer = tokenizer
        self.reader_tokenizer = reader_tokenizer

    def forward(self, pictures: Tensor) -> Tensor:
        """Caption pictures greedily, and encode the captions."""
        ids = self.captioner.generate(
            pixel_values=pictures, max_new_tokens=MAX_WORDS, do_sample=False
        )
        captions = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        words = self.reader_tokenizer(captions, padding=True, return_tensors="pt")
        words = words.to(pictures.device)
        states = self.reader(**words).last_hidden_state  # [B, S, D]
        mask = words.attention_mask[..., None]
        return (states * mask).sum(1) / mask.sum(1)


def object_f1(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compare the categories that pictures show.

    Args:
        true: Scores of categories in the N true pictures, [N, K].
        generated: Those in reconstructions, [B, K].
        rows: The row of each one's picture in `true`, [B].

    Returns:
        [B], float64: the F1 of recall and precision, each a mean over score levels at
        which it is defined, 1 where it is at none.

    Source: SEED (arXiv 2503.06437), seed/metrics.py.
    """
    levels = LEVELS.to(true.device)
    seen, drawn = (scores[:, None] >= levels for scores in (true[rows], generated))
    shared = (seen & drawn).sum(2).double()  # [B, levels]
    recall, precision = (
        (shared / shown.sum(2)).nanmean(1).nan_to_num(1) for shown in (seen, drawn)
    )
    return (2 * recall * precision / (recall + precision)).nan_to_num(0)


def seed_score(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Average object F1, EffNet's correlation and the cosine of captions, [B].

    Arguments are features of the three side by side, in the order of `SEED_PARTS`.
    """
    # features of EffNet and captions have unit length: one product sums up both
    (seen, true_rest), (drawn, rest) = (
        features.tensor_split([CATEGORY_COUNT], 1) for features in (true, generated)
    )
    return (object_f1(seen, drawn, rows) + correlation(true_rest, rest, rows)) / 3


PARTS = {SEED: MetricPart(torch.cat, seed_score)}
"""SEED; it is bound to the features of its parts when these are loaded."""
