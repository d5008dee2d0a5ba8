"""Model folders in the layout of the BrainHiVE repository: read, and written so that it can read them."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import one_token, spec_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.model import Aligner
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
SPEC = spec_of(("Oz", "POz", "Pz"), 80, (10, 3, 1))
OURS = one_token(SPEC, 8, {"vae": 6, "clip-b32": 4}, backbone={"kind": "atm", "dropout": 0.2})


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", aligners.WEIGHTS)
def test_what_was_read_is_written_back_bit_by_bit(
    reference: Reference, tmp_path: Path, kind: str, file: str
) -> None:
    state, given = state_of(reference), config_of(reference)
    folder = write(tmp_path / "upstream", given | {"brain_backbone": kind}, state, file)

    aligners.load(folder).save_upstream(tmp_path / "ours")

    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], value) for name, value in state.items())
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert {
        key: given[key] for key in config.keys() - {"brain_backbone", "brain_embedding_dim"}
    }.items() <= config.items()


def test_a_model_of_ours_goes_through_upstreams_layout_with_its_subjects_by_number(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Aligner(OURS).eval()
    made.losses = {"0.logit_scale": torch.tensor(1.5)}
    made.save_upstream(tmp_path)
    found = aligners.load(tmp_path)
    signal, vae, clip = torch.randn(3, 3, 80), torch.randn(3, 6), torch.randn(3, 4)
    numbers = torch.tensor([found.layout.spec.subjects.index(subject) for subject in SPEC.subjects])

    upstreams = {"vae": vae, "CLIP-ViT-B-32-laion2B-s34B-b79K": clip}
    assert torch.equal(found.encode_signal(signal, numbers), made.encode_signal(signal, torch.arange(3)))
    assert torch.equal(found.encode_image(upstreams), made.encode_image({"vae": vae, "clip-b32": clip}))
    torch.testing.assert_close(found.encode_signal(signal), made.encode_signal(signal))
    assert found.losses == made.losses


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"backbone": {"kind": "linear"}}, "no brain encoder .*linear"),
        ({"backbone": {"kind": "brain_mlp", "hidden": 5}}, "no brain encoder .*'hidden': 5"),
        ({"subject_layer": "linear"}, "no subject layer linear"),
        ({"similarity": "centred_cosine"}, "no similarity centred_cosine"),
        ({"spec": replace(SPEC, subjects=(1, 11), widths=(3, 3))}, "no subjects above 10"),
    ],
)
def test_what_upstream_does_not_have_is_not_written(tmp_path: Path, change: dict, what: str) -> None:
    with pytest.raises(BrainhiveError, match=f"upstream's model has {what}") as caught:
        Aligner(replace(OURS, **change)).save_upstream(tmp_path)
    assert caught.value.hint and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("drop", "what"),
    [
        ("brain_channels", "config.json has no brain_channels"),
        ("proj_meta", "config.json has no proj_meta"),
        ("brain_model.backbone.proj_in.bias", r"such weights; of \w+, (\d+) of (?!\1)\d+ weights match"),
        ("vision_model.block.layers.0.norm.bias", "norm.bias has shape none"),
    ],
)
def test_an_upstream_folder_that_lacks_something_says_what(tmp_path: Path, drop: str, what: str) -> None:
    layout = replace(OURS, backbone={"kind": "brain_mlp"})
    Aligner(layout).save_upstream(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    state = load_file(tmp_path / "model.safetensors")
    del config["brain_backbone"]
    config.pop(drop, None), state.pop(drop, None)
    write(tmp_path, config, state)

    with pytest.raises(BrainhiveError, match=what) as caught:
        aligners.load(tmp_path)
    assert "\n" not in caught.value.message and caught.value.hint


def test_upstreams_config_names_parts_as_upstream_does_however_they_are_shown(tmp_path: Path) -> None:
    shown = replace(OURS, backbone={"kind": "brain-mlp"}, fuser={**OURS.fuser, "kind": "fusion-encoder"})

    Aligner(shown).save_upstream(tmp_path)

    assert json.loads((tmp_path / "config.json").read_text())["brain_backbone"] == "brain_mlp"


def test_an_upstream_model_is_kept_in_our_layout_too(tmp_path: Path) -> None:
    Aligner(OURS).save_upstream(tmp_path / "upstream")
    model = aligners.load(tmp_path / "upstream")
    model.save(tmp_path / "ours")
    again = aligners.load(tmp_path / "ours")
    assert asdict(again.layout) == asdict(model.layout)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
