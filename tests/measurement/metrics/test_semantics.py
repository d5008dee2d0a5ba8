"""Objects and captions of pictures, compared as SEED does."""

import numpy as np
import pytest
import torch
import transformers as tf

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.measurement.metrics.image import resize
from brainhive_cli.measurement.metrics.networks import (
    CLIP_COLOURS,
    IMAGENET_COLOURS,
    NETWORKS,
    normalise,
)
from brainhive_cli.measurement.metrics.semantics import (
    CATEGORY_COUNT,
    PROMPT,
    object_f1,
    seed_score,
)
from tests.repositories import semantic_networks

CPU = torch.device("cpu")
CATEGORIES = PROMPT.removesuffix(".").split(". ")


def scores(count, seed):
    return torch.rand(
        count, CATEGORY_COUNT, generator=torch.Generator().manual_seed(seed)
    )


def pictures(count):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return resize(coarse, 64).clamp(0, 1)


def published_f1(true_scores, generated):
    """Compute the F1 of a pair as SEED's seed/metrics.py defines it, set by set."""
    recalls, precisions = [], []
    for level in np.arange(0.05, 0.95, 0.05):
        seen_objects, drawn_objects = (
            {k for k, score in enumerate(object_scores.tolist()) if score >= level}
            for object_scores in (true_scores, generated)
        )
        recalls += (
            [len(seen_objects & drawn_objects) / len(seen_objects)]
            if seen_objects
            else []
        )
        precisions += (
            [len(seen_objects & drawn_objects) / len(drawn_objects)]
            if drawn_objects
            else []
        )
    recall, precision = (sum(x) / len(x) if x else 1 for x in (recalls, precisions))
    return 2 * recall * precision / (recall + precision) if recall + precision else 0


def test_object_f1_is_that_of_the_published_rule():
    true_scores, generated = scores(6, 1) ** 4, scores(6, 2) ** 4
    true_scores[0] = generated[0] = 0  # no object in both: 1
    true_scores[1], generated[2] = 0, 0  # no object in one
    true_scores[3], generated[3] = (
        torch.eye(CATEGORY_COUNT)[:2] * 0.9
    )  # none in common: 0
    rows = torch.tensor([0, 1, 2, 3, 5, 4])

    values = object_f1(true_scores, generated, rows)

    expected = [
        published_f1(true_scores[row], generated[n]) for n, row in enumerate(rows)
    ]
    assert values.tolist() == pytest.approx(expected)
    assert values[:4:3].tolist() == [1, 0]
    assert 0 < values[4] < 1


def test_reconstructions_score_one_if_perfect_else_chance():
    true_scores = scores(300, 0)
    same_rows, shuffled = torch.arange(300), torch.arange(300).roll(1)

    assert object_f1(true_scores, true_scores, same_rows).eq(1).all()
    # uniform scores: a category is shown at a level with the probability 1 - level
    chance = 1 - np.arange(0.05, 0.95, 0.05).mean()
    assert object_f1(true_scores, true_scores, shuffled).mean() == pytest.approx(
        chance, abs=0.02
    )


def test_seed_is_the_mean_of_objects_features_and_captions():
    true_scores, generated = scores(5, 1), scores(5, 2)
    true_features, generated_features = (
        torch.randn(2, 5, 2, 30, generator=torch.Generator().manual_seed(0))
        .double()
        .unbind()
    )
    true_features, generated_features = (
        x / x.norm(dim=2, keepdim=True) for x in (true_features, generated_features)
    )
    rows = torch.tensor([4, 3, 2, 1, 0])

    value = seed_score(
        torch.cat([true_scores, true_features.flatten(1)], 1),
        torch.cat([generated, generated_features.flatten(1)], 1),
        rows,
    )

    f1, cosines = (
        object_f1(true_scores, generated, rows),
        (true_features[rows] * generated_features).sum(2),
    )
    assert torch.allclose(value, (f1 + cosines[:, 0] + cosines[:, 1]) / 3, atol=1e-6)


def test_a_category_has_the_score_of_its_best_box(hub_cache):
    semantic_networks.write(hub_cache)
    network = NETWORKS["detector"]
    folder = network.fetch()

    computed = network.build(CPU)(pictures(2))["scores"]

    # the published way: words of each category, as the tokenizer splits the text
    tokenizer = tf.BertTokenizer.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    detector = tf.MMGroundingDinoForObjectDetection.from_pretrained(folder).eval()
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in IMAGENET_COLOURS)
    with torch.no_grad():
        detected = detector(
            pixel_values=(resize(pictures(2), 800) - mean) / std,
            input_ids=ids.expand(2, -1),
        )
    is_large = detected.pred_boxes[..., 2] * detected.pred_boxes[..., 3] >= 50 / 256**2
    start, expected = 1, []
    for name in CATEGORIES:
        count = len(tokenizer.tokenize(name))
        box = detected.logits[..., start : start + count].sigmoid().mean(2)
        expected.append(box.where(is_large, 0).amax(1))
        start += count + 1
    assert torch.allclose(computed, torch.stack(expected, 1), atol=1e-5)
    assert is_large.any()
    assert not is_large.all()
    assert computed.shape == (2, 82)
    assert computed[0].std() > 0.01
    assert not torch.allclose(computed[0], computed[1])


def test_captions_are_encoded_by_the_mean_of_their_tokens(hub_cache):
    semantic_networks.write(hub_cache)
    network = NETWORKS["git"]

    computed = network.build(CPU)(pictures(3))["caption"]

    folder, reader_folder = network.fetch(), NETWORKS["minilm"].fetch()
    git = tf.GitForCausalLM.from_pretrained(folder).eval()
    bert = tf.BertModel.from_pretrained(reader_folder).eval()
    tokenizer = tf.BertTokenizer.from_pretrained(folder)
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in CLIP_COLOURS)
    with torch.no_grad():
        ids = git.generate(
            pixel_values=(resize(pictures(3), 224) - mean) / std,
            max_new_tokens=50,
            do_sample=False,
        )
        captions = tokenizer.batch_decode(ids, skip_special_tokens=True)
        expected = [
            bert(**tokenizer(caption, return_tensors="pt")).last_hidden_state[0].mean(0)
            for caption in captions
        ]
    lengths = {len(caption.split()) for caption in captions}
    assert len(set(captions)) == 3
    assert len(lengths) > 1
    assert torch.allclose(normalise(computed), normalise(torch.stack(expected)), 1e-4)


@pytest.mark.parametrize("name", ["detector", "git", "minilm"])
def test_missing_weights_are_reported_with_the_line_to_fetch(name, hub_cache):
    network = NETWORKS[name]
    with pytest.raises(MissingData) as caught:
        network.build(CPU)
    line = f"hf download {network.source.removeprefix('hub:')} config.json vocab.txt"
    assert line in caught.value.hint
    assert line in str(network.find_input().error.hint)
