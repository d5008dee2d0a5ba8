"""AnimateDiff's repositories: what is fetched, put together and refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.command import require_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators.animatediff import Config
from brainhive_cli.models.heads import Conditioning
from tests.repositories import animatediff_repositories
from tests.repositories.animatediff_repositories import (
    ADAPTER,
    MOTION,
    SPARSE,
    unet_of,
    write_motion,
)
from tests.repositories.sd15_repositories import SD15

PX, FRAMES = 16, {"frames": 3, "kept": (2,)}
SAMPLING = Sampling(steps=1, guidance=5.0, strength=1)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return animatediff_repositories.write(tmp_path_factory.mktemp("animatediff"))


@pytest.fixture
def copied(repositories: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repositories, tmp_path / "copied"))


def config(root: Path, **knobs: Any) -> Config:
    folders = {"source": SD15, "motion": MOTION, "sparse_control": SPARSE}
    folders["domain_adapter"] = "/".join(ADAPTER)
    return Config(
        **{
            **{name: str(root / each) for name, each in folders.items()},
            **FRAMES,
            **knobs,
        }
    )


def make(generator: Any, sampling: Sampling = SAMPLING, **conditions: Any) -> Tensor:
    given = Conditioning(**{"images": torch.full((1, 3, PX, PX), 0.5), **conditions})
    return generator.generate(given, [1], PX, sampling)


def test_the_domain_adapter_is_added_to_the_attentions(repositories):
    state = torch.load(repositories.joinpath(*ADAPTER))
    place = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    unet = config(repositories).build().unet
    for name, layer in (("to_k", "to_k"), ("to_out", "to_out.0")):
        up, down = (
            state[f"{place}.processor.{name}_lora.{half}.weight"]
            for half in ("up", "down")
        )
        wanted = unet_of(repositories)[f"{place}.{layer}.weight"] + up @ down
        assert torch.allclose(
            unet.get_submodule(f"{place}.{layer}").weight, wanted, atol=1e-6
        )
    without = config(repositories, domain_adapter=None, sparse_control=None).build()
    own = unet_of(repositories)[f"{place}.to_k.weight"]
    assert torch.equal(without.unet.get_submodule(f"{place}.to_k").weight, own)
    assert without.sparse_control is None


def test_captions_have_the_suffix_and_guidance_moves_away_from_the_negative_prompt(
    repositories,
):
    plain = config(repositories, prompt_suffix="", negative_prompt="").build()
    suffix = config(repositories, prompt_suffix=" b", negative_prompt="").build()
    asked = SAMPLING.model_copy(update={"negative_prompt": "b"})
    one = make(plain, texts=["a"])
    assert torch.equal(make(plain, texts=["a b"]), made := make(suffix, texts=["a"]))
    assert not torch.allclose(one, made, atol=1e-4)
    assert not torch.allclose(one, make(plain, asked, texts=["a"]), atol=1e-4)
    with pytest.raises(
        RecipeError, match="prompt has no effect where the conditioning has texts"
    ):
        make(plain, texts=["a"], sampling=Sampling(prompt="b"))


def test_networks_that_do_not_fit_each_other_are_refused_before_they_are_loaded(copied):
    (copied / MOTION / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingData, match=MOTION):
        require_inputs(config(copied).inputs())
    write_motion(copied, use_motion_mid_block=True)
    with pytest.raises(BrainhiveError, match="is not AnimateDiff v3's") as caught:
        config(copied).check()
    assert MOTION in caught.value.hint
