"""Tests of the heads from which media are generated."""

import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.evaluation.reconstruction.generation import (
    DecodedSet,
    derive_noise_seed,
)
from brainhive_cli.models.heads import Decoded
from brainhive_cli.training.alignment.cells import Cell
from tests.worlds.reconstructions import (
    generate_pictures,
    measure_max_difference,
    read_embedding,
)


@pytest.mark.nightly
def test_media_of_stimuli_are_generated_once_for_all_cells(
    world, reconstruct_result, generator, prior
):
    result = reconstruct_result
    files = sorted((result.folder / "samples/images").rglob("*.png"))
    assert len(files) == 6
    image_id = files[0].parent.relative_to(result.folder / "samples/images").as_posix()
    (expected,) = generate_pictures(
        generator,
        prior,
        read_embedding(world, image_id),
        [derive_noise_seed(0, image_id, 0)],
    )
    assert measure_max_difference(expected, Image.open(files[0])) <= 1
    assert result.metrics.facts.sources[:2] == ["brain", "images"]
    assert result.metrics.overall == result.metrics.scopes["brain"]
    assert result.tables[0].columns[:2] == ["from", "PixCorr"]
    assert [row[0] for row in result.tables[0].rows][:2] == ["brain", "images, ceiling"]


def decoded_set(count):
    """Make heads of several shapes, whose rows hold their own numbers."""
    numbers = torch.arange(float(count))
    tensors = {
        "token": numbers[:, None],
        "latent": numbers.view(-1, 1, 1, 1).expand(-1, 4, 2, 2),
    }
    ids = [f"item {n}" for n in range(count)]
    decoded = Decoded(tensors, {"caption": [f"caption {n}" for n in range(count)]})
    return DecodedSet("brain", Cell("intra", (1,), (1,), 5), 1, ids, decoded)


def test_every_shuffled_item_has_another_items_heads_each_once():
    original = decoded_set(9)
    ids = original.image_ids

    shuffled = original.shuffle_signals()

    tensors = shuffled.decoded.tensors
    origin_ids = [ids[int(n)] for n in tensors["token"][:, 0]]
    assert sorted(origin_ids) == shuffled.image_ids == ids
    assert all(
        one != other_origin_id
        for one, other_origin_id in zip(ids, origin_ids, strict=True)
    )
    assert torch.equal(tensors["latent"][:, 3, 1, 1], tensors["token"][:, 0])
    assert [
        f"item {text.split()[1]}" for text in shuffled.decoded.texts["caption"]
    ] == origin_ids
    second_token = decoded_set(9).shuffle_signals().decoded.tensors["token"]
    assert torch.equal(second_token, tensors["token"])
    with pytest.raises(RecipeError, match="shuffle"):
        original.take_first(1).shuffle_signals()
