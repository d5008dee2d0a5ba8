"""Tests of the repositories of AnimateDiff."""

import shutil
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files.inputs import require_inputs
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators.animatediff import Config
from brainhive_cli.models.heads import Conditioning
from tests.repositories import animatediff_repositories
from tests.repositories.animatediff_repositories import (
    ADAPTER,
    MOTION,
    SPARSE,
    load_unet,
    write_motion,
)
from tests.repositories.sd15_repositories import SD15

PX = 16
FRAMES = {"frames": 3, "kept": (2,)}
SAMPLING = Sampling(steps=1, guidance=5.0, strength=1)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    return animatediff_repositories.write(tmp_path_factory.mktemp("animatediff"))


@pytest.fixture
def repositories_copy(repositories, tmp_path):
    return Path(shutil.copytree(repositories, tmp_path / "copied"))


def make_config(root, **keys):
    folders = {"source": SD15, "motion": MOTION, "sparse_control": SPARSE}
    folders["domain_adapter"] = "/".join(ADAPTER)
    return Config(
        **{
            **{name: str(root / path) for name, path in folders.items()},
            **FRAMES,
            **keys,
        }
    )


def generate_clip(generator, sampling=SAMPLING, **conditions):
    conditioning = Conditioning(
        **{"images": torch.full((1, 3, PX, PX), 0.5), **conditions}
    )
    return generator.generate(conditioning, [1], PX, sampling)


def test_the_domain_adapter_is_added_to_the_attentions(repositories):
    state = torch.load(repositories.joinpath(*ADAPTER))
    layer_path = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    unet = make_config(repositories).build().unet
    for name, layer in (("to_k", "to_k"), ("to_out", "to_out.0")):
        up_weight, down_weight = (
            state[f"{layer_path}.processor.{name}_lora.{direction}.weight"]
            for direction in ("up", "down")
        )
        expected = (
            load_unet(repositories)[f"{layer_path}.{layer}.weight"]
            + up_weight @ down_weight
        )
        assert torch.allclose(
            unet.get_submodule(f"{layer_path}.{layer}").weight, expected, atol=1e-6
        )
    generator = make_config(
        repositories, domain_adapter=None, sparse_control=None
    ).build()
    original_weight = load_unet(repositories)[f"{layer_path}.to_k.weight"]
    assert torch.equal(
        generator.unet.get_submodule(f"{layer_path}.to_k").weight, original_weight
    )
    assert generator.sparse_control is None


def test_captions_have_the_suffix_and_guidance_a_negative_prompt(
    repositories,
):
    plain_generator = make_config(
        repositories, prompt_suffix="", negative_prompt=""
    ).build()
    suffix = make_config(repositories, prompt_suffix=" b", negative_prompt="").build()
    negative_sampling = SAMPLING.model_copy(update={"negative_prompt": "b"})
    clip = generate_clip(plain_generator, texts=["a"])
    assert torch.equal(
        generate_clip(plain_generator, texts=["a b"]),
        suffix_clip := generate_clip(suffix, texts=["a"]),
    )
    assert not torch.allclose(clip, suffix_clip, atol=1e-4)
    assert not torch.allclose(
        clip, generate_clip(plain_generator, negative_sampling, texts=["a"]), atol=1e-4
    )
    with pytest.raises(RecipeError, match="prompt"):
        generate_clip(plain_generator, texts=["a"], sampling=Sampling(prompt="b"))


def test_networks_that_do_not_fit_are_refused_before_loading(
    repositories_copy,
):
    (repositories_copy / MOTION / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingData, match=MOTION):
        require_inputs(make_config(repositories_copy).inputs())
    write_motion(repositories_copy, use_motion_mid_block=True)
    with pytest.raises(BrainhiveError, match=MOTION) as caught:
        make_config(repositories_copy).check()
    assert MOTION in caught.value.hint
