"""Model folders in the layout of the BrainHiVE repository."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.published_models import KINDS

DIMS = {"vae": 6, "CLIP-ViT-B-32-laion2B-s34B-b79K": 4}
KEPT = {
    "architectures": ["BrainCLIPModel"],
    "dropout": 0.1,
    "intermediate_size": 16,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "proj_meta": DIMS,
    "transformers_version": "4.57.3",
}
"""What a config holds apart from the sizes of the brain encoder."""
Reference = dict[str, Tensor]


@pytest.fixture
def reference(golden: Path, kind: str) -> Reference:
    """Signals, weights and output of one of the BrainHiVE repository's brain encoders."""
    return load_file(golden / "backbones" / f"{kind}.safetensors")


def config_of(reference: Reference) -> dict[str, Any]:
    """The config of a model with this brain encoder."""
    _, channels, samples = reference["signal"].shape
    sizes = {"brain_channels": channels, "brain_sequence_length": samples}
    return KEPT | sizes | {"hidden_size": reference["output"].shape[1]}


def state_of(reference: Reference) -> Reference:
    """Name the weights of a brain encoder as upstream's whole model does, together with a fusion encoder."""
    brain = {f"brain_model.backbone.{k[8:]}": v for k, v in reference.items() if k.startswith("weights.")}
    torch.manual_seed(0)
    fuser = FusionEncoder(DIMS, reference["output"].shape[1], 16)
    vision = {f"vision_model.{k}": v for k, v in fuser.state_dict().items()}
    return {**brain, **vision, "logit_scale": torch.tensor(3.5)}


def write(
    folder: Path, config: dict[str, object], state: dict[str, Tensor], file: str = "model.safetensors"
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_named", [True, False])
def test_an_upstream_folder_gives_the_references_output(
    reference: Reference, tmp_path: Path, kind: str, is_named: bool
) -> None:
    """Golden values: the BrainHiVE repository's encoders; without a name the kind is known by its weights."""
    config = config_of(reference) | ({"brain_backbone": kind} if is_named else {})
    model = aligners.load(write(tmp_path, config, state_of(reference)))

    with torch.no_grad():
        token = model.encode_signal(reference["signal"], reference["subject_index"])
        image = model.encode_image({key: torch.randn(2, width) for key, width in DIMS.items()})

    assert (token - reference["output"]).abs().max() < 1e-5
    assert image.shape == (2, config["hidden_size"]) and model.losses == {"0.logit_scale": torch.tensor(3.5)}
    assert model.layout.spec.names == tuple(map(str, range(config["brain_channels"])))
    assert list(model.layout.dims) == list(DIMS)
    assert model.layout.encoders == {key: key for key in DIMS}


@pytest.mark.parametrize(
    ("drop", "what"),
    [
        ("brain_channels", "config.json has no brain_channels"),
        ("proj_meta", "config.json has no proj_meta"),
        ("brain_model.backbone.proj_in.bias", r"such weights; of \w+, (\d+) of (?!\1)\d+ weights match"),
        ("vision_model.block.layers.0.norm.bias", "norm.bias has shape none"),
    ],
)
@pytest.mark.parametrize("kind", ["brain_mlp"])
def test_an_upstream_folder_that_lacks_something_says_what(
    reference: Reference, tmp_path: Path, drop: str, what: str
) -> None:
    config, state = config_of(reference), state_of(reference)
    config.pop(drop, None), state.pop(drop, None)
    write(tmp_path, config, state)

    with pytest.raises(BrainhiveError, match=what) as caught:
        aligners.load(tmp_path)
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize("kind", ["atm"])
@pytest.mark.parametrize("file", aligners.WEIGHTS)
def test_an_upstream_model_is_kept_in_our_layout_too(
    reference: Reference, tmp_path: Path, kind: str, file: str
) -> None:
    config = config_of(reference) | {"brain_backbone": kind}
    model = aligners.load(write(tmp_path / "upstream", config, state_of(reference), file))
    model.save(tmp_path / "ours")
    again = aligners.load(tmp_path / "ours")
    assert asdict(again.layout) == asdict(model.layout)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
