"""SEED: a score of reconstructions by objects, features and captions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from brainhive_cli.measurement.metrics import MetricPart
from brainhive_cli.measurement.metrics.image import correlation

SEED = "seed_score"
SEED_PARTS = ("object_f1", "effnet", "cap_sim")
"""Metrics whose mean is SEED, with 1 - distance for `effnet`."""
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
"""Categories of SEED, separated by full stops: the 80 of COCO, man and woman."""
CATEGORY_COUNT = PROMPT.count(".")
LEVELS = torch.arange(1, 19, dtype=torch.float64)[:, None] / 20
"""Thresholds [18, 1] of a category's score, 0.05 to 0.9 (SEED)."""


class CategoryScores(nn.Module):
    """Detector that scores K categories in each picture.

    The score of a box for a category is the mean over the tokens of the category's
    name. A picture has the score of its best box.

    Args:
        network: Grounding DINO of transformers, which scores each box for each token.
        tokenizer: BERT tokenizer of the network.
    """

    tokens: Tensor
    weights: Tensor

    def __init__(self, network: Any, tokenizer: Any) -> None:
        super().__init__()
        self.network = network
        tokens = tokenizer(PROMPT, return_tensors="pt").input_ids  # [1, S]

        # The category of a token is the number of stops before it. Stops, the first
        # token [CLS] and the last token [SEP] have no category.
        is_stop = tokens[0] == tokenizer.convert_tokens_to_ids(".")
        category = is_stop.cumsum(0)
        membership = functional.one_hot(category, CATEGORY_COUNT + 1)[:, :-1]
        membership = membership * ~is_stop[:, None]
        membership[0] = 0
        self.register_buffer("tokens", tokens)
        self.register_buffer("weights", membership / membership.sum(0))  # [S, K]

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the scores [B, K] of the categories in pictures [B, 3, H, W]."""
        scores = []
        # Smallest share of a box in the picture: 50 px (SEED) of 256² (MindEye2).
        min_area = 50 / 256**2
        # Number of pictures that the detector takes at once. Each has 900 boxes.
        for batch in pictures.split(4):
            tokens = self.tokens.expand(len(batch), -1)
            detected = self.network(pixel_values=batch, input_ids=tokens)
            token_scores = detected.logits[..., : len(self.weights)].sigmoid()
            box_scores = token_scores @ self.weights  # [B, boxes, K]
            is_large = detected.pred_boxes[..., 2:].prod(-1) >= min_area  # [B, boxes]

            # score of the best box for each category, where small boxes score 0
            scores.append((box_scores * is_large[..., None]).amax(1))
        return torch.cat(scores)


class CaptionEmbeddings(nn.Module):
    """Network that writes captions of pictures and embeds the captions.

    Args:
        captioner: GIT of transformers.
        reader: BERT of transformers. The mean of its tokens embeds a caption.
        tokenizer: Tokenizer of the captioner.
        reader_tokenizer: Tokenizer of the reader.
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
        """Compute the caption embeddings [B, D] of pictures [B, 3, H, W]."""
        # Largest number of tokens of a caption (SEED).
        max_caption_tokens = 50
        ids = self.captioner.generate(
            pixel_values=pictures, max_new_tokens=max_caption_tokens, do_sample=False
        )
        captions = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        inputs = self.reader_tokenizer(captions, padding=True, return_tensors="pt")
        inputs = inputs.to(pictures.device)

        # mean of the token states, without padding
        states = self.reader(**inputs).last_hidden_state  # [B, S, D]
        mask = inputs.attention_mask[..., None]
        return (states * mask).sum(1) / mask.sum(1)


def object_f1(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compute the F1 of the objects in reconstructions, compared with the stimuli.

    - A picture contains a category if the category's score is at least a threshold.
    - Recall is the share of the stimulus's categories in the reconstruction, and
      precision the share of the reconstruction's categories in the stimulus.
    - Both are averaged over `LEVELS` without 0 / 0. The mean is 1 if all shares are 0 /
      0.

    Args:
        stimuli: Scores [N, K] of the categories in the stimuli.
        generated: Scores [B, K] of the categories in the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's stimulus.

    Returns:
        F1 [B], the harmonic mean of both. 0 if both are 0.

    Source: SEED (arXiv 2503.06437), seed/metrics.py.
    """
    # categories in the pictures and in the reconstructions at each threshold
    levels = LEVELS.to(stimuli.device)
    is_in_picture = stimuli[rows][:, None] >= levels  # [B, levels, K]
    is_in_reconstruction = generated[:, None] >= levels

    # a picture without categories at a threshold gives 0 / 0 = NaN, which is left out
    n_common = (is_in_picture & is_in_reconstruction).sum(2).double()
    recall_at_level = n_common / is_in_picture.sum(2)  # [B, levels]
    precision_at_level = n_common / is_in_reconstruction.sum(2)
    recall = recall_at_level.nanmean(1).nan_to_num(1)
    precision = precision_at_level.nanmean(1).nan_to_num(1)
    return (2 * recall * precision / (recall + precision)).nan_to_num(0)


def seed_score(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compute SEED, the mean of three similarities of reconstructions to stimuli.

    Args:
        stimuli: Scores of object categories, features of EfficientNet and embedding of
            the caption [N, D] of the stimuli. The latter two have unit length.
        generated: Features [B, D] of the reconstructions, with the columns of
            `stimuli`.
        rows: Row [B] in `stimuli` of each reconstruction's stimulus.

    Returns:
        Mean [B] of the F1 of objects, the correlation of EfficientNet's features, and
        the cosine of the captions.
    """
    seen_categories = stimuli[:, :CATEGORY_COUNT]
    seen_features = stimuli[:, CATEGORY_COUNT:]
    categories = generated[:, :CATEGORY_COUNT]
    features = generated[:, CATEGORY_COUNT:]

    # a dot product over both kinds of features is the sum of two similarities
    sum_of_similarities = correlation(seen_features, features, rows)
    f1 = object_f1(seen_categories, categories, rows)
    return (f1 + sum_of_similarities) / 3


PARTS = {SEED: MetricPart(torch.cat, seed_score)}
"""SEED, keyed by its name. `features` is replaced when the networks are loaded."""
