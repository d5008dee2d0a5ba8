"""Tests of captions of decoded tokens by GIT."""

import pytest
import torch
import transformers as tf

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.models.generators import _captioner
from brainhive_cli.models.generators._captioner import HeadCaption
from brainhive_cli.models.heads import Decoded
from tests.repositories import git_captioner_repository
from tests.repositories.git_captioner_repository import (
    CONVERTER,
    NAME,
    SIDE_PX,
    TOKENS,
    WIDTH,
)

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    """Repositories of GIT and of a converter from tokens [3, 7]."""
    return git_captioner_repository.write(tmp_path / "served", 3, 7)


def make_head_caption(root):
    return HeadCaption(model=str(root / NAME), converter=str(root / CONVERTER))


def pictures(count):
    rng = torch.Generator().manual_seed(0)
    shape = (count, 3, SIDE_PX, SIDE_PX)
    return torch.randn(shape, generator=rng) * torch.linspace(0.3, 3, count).view(
        -1, 1, 1, 1
    )


def test_features_of_the_tower_are_captioned_as_the_picture_is(root):
    """With a converter that changes nothing, both captions are the same."""
    git = tf.GitForCausalLM.from_pretrained(root / NAME).eval()
    state = {"linear1.weight": torch.eye(TOKENS), "linear2.weight": torch.eye(WIDTH)}
    state |= {"linear1.bias": torch.zeros(TOKENS), "linear2.bias": torch.zeros(WIDTH)}
    git_captioner_repository.save_converter(root / CONVERTER, state)
    with torch.no_grad():
        ids = git.generate(pixel_values=pictures(8), do_sample=False, max_length=20)
        features = git.git.image_encoder(pictures(8)).last_hidden_state
    tokenizer = tf.BertTokenizer.from_pretrained(root / NAME)

    captions = _captioner.load_captioner(
        make_head_caption(root), CPU, torch.float32
    ).caption(None, Decoded({"image": features}))

    assert captions == tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert len(set(captions)) > 2
    assert all(set(caption.split()) <= {"a", "b", "ab"} for caption in captions)


def test_tokens_are_mapped_over_tokens_and_then_over_features(
    root,
):
    """Source: MindEye2's CLIPConverter."""
    tokens = torch.randn(6, 3, 7, generator=torch.Generator().manual_seed(1))
    state = torch.load(root / CONVERTER)["model_state_dict"]
    over_tokens = torch.einsum("ts,bsd->btd", state["linear1.weight"], tokens)
    over_tokens = over_tokens + state["linear1.bias"][:, None]
    features = over_tokens @ state["linear2.weight"].T + state["linear2.bias"]

    captioner = _captioner.load_captioner(make_head_caption(root), CPU, torch.float32)

    mapped = captioner.model.git.image_encoder(tokens[:, None]).last_hidden_state
    assert torch.allclose(mapped, features, atol=1e-5)
    assert mapped.shape == (
        6,
        TOKENS,
        WIDTH,
    )
    captions = captioner.caption(None, Decoded({"image": tokens}))
    assert captioner.caption(None, Decoded({"image": tokens[2:3]})) == captions[2:3]
    assert len(captioner.preprocessor(captions[0])["input_ids"]) <= 21  # 20, and an end


def test_other_tokens_and_models_are_refused_in_one_line(root, tmp_path):
    caption = make_head_caption(root)
    captioner = _captioner.load_captioner(caption, CPU, torch.float32)
    with pytest.raises(
        BrainhiveError,
        match=r"image .*\[3, 7\].*\[4, 7\]",
    ):
        captioner.caption(None, Decoded({"image": torch.randn(2, 4, 7)}))
    (tmp_path / "config.json").write_text('{"model_type": "blip-2"}')
    with pytest.raises(MissingData, match="blip-2"):
        _captioner.find_folder(caption.model_copy(update={"model": str(tmp_path)}))
