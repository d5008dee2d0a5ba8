"""Checkpoints of MindEye2's and NEURONS' trainings: by the manifest's names, whole and in parts."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor, nn

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SELECTED_ON_TEST
from brainhive_cli.data.targets.encoder_keys import encoders_by_key
from brainhive_cli.models.backbones.mindeye2 import mixer_constant
from brainhive_cli.models.heads import Decoded, Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.initialisation import load_start, take_over
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.published_models import read_checkpoint

State = dict[str, Tensor]
VOXELS, SUBJECT, TOKENS, WIDTH = 7, 1, 4, 16
BRAIN = {"kind": "mindeye2", "hidden": 8, "mixer": "blocks", "blocks": 2}
PRIOR = {"kind": "mindeye1", "depth": 1, "heads": 2, "dim_head": 4, "timesteps": 3}
DECODERS = {"frames": 2, "maps": (8, 8, 8), "channels": (32, 64, 64), "concept_width": 8, "vocabulary": 64}
CAPTIONS = {"caption_width": 64, "caption_layers": 1, "caption_heads": 1, "caption_positions": 64}
NEURONS = {"kind": "neurons", "brain": BRAIN, "prior": PRIOR, **DECODERS, **CAPTIONS, "mode": "published"}
HEADS = {
    "image": Head((TOKENS, WIDTH)),
    "text": Head((6,)),
    "motion": Head((2, TOKENS, WIDTH)),
    "mask": Head((2, 1, 8, 8)),
    "latents": Head((2, 4, 3, 3)),
    "concepts": Head((5,)),
    "caption": Head((60,)),
}
SPEC = SignalSpec((), 1, (SUBJECT,), (VOXELS,))


@pytest.fixture(scope="module")
def made() -> Aligner:
    torch.manual_seed(0)
    return Aligner(Layout(SPEC, HEADS, NEURONS, retrieval_heads=("image",))).eval()


def as_published(made: Aligner) -> State:
    """Give the weights the names that NEURONS' training gave them."""
    found = {}
    for name, value in made.backbone.state_dict().items():
        name = name.removeprefix("brain.").replace(f"linears.{SUBJECT}.", "linears.0.")
        found[re.sub(r"^prior\.", "diffusion_prior.", name)] = value
    found["text_dec.decoder.lm_head.weight"] = found["text_dec.decoder.transformer.wte.weight"]
    for name in ("betas", "alphas_cumprod"):
        found[f"diffusion_prior.noise_scheduler.{name}"] = torch.zeros(3)
    return found


def save(state: State, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 49, "model_state_dict": state, "train_losses": [0.5], "lrs": [5e-5]}, path)
    return path


def blurry_branch() -> nn.ModuleDict:
    """MindEye2's layers of blurry pictures, as its BrainNetwork has them, by their published names."""
    torch.manual_seed(1)
    kinds = ("UpDecoderBlock2D",) * 3
    projector = [nn.Conv2d(64, 512, 1, bias=False), nn.GroupNorm(1, 512), nn.ReLU()]
    projector += [nn.Conv2d(512, 512, 1, bias=False), nn.GroupNorm(1, 512), nn.ReLU()]
    return nn.ModuleDict(
        {
            "blin1": nn.Linear(8, 4 * 28 * 28),
            "bdropout": nn.Dropout(0.3),
            "bnorm": nn.GroupNorm(1, 64),
            "bupsampler": Decoder(64, 4, kinds, (32, 64, 128), layers_per_block=1),
            "b_maps_projector": nn.Sequential(*projector, nn.Conv2d(512, 512, 1)),
        }
    ).eval()


@pytest.fixture(scope="module")
def neurons(made: Aligner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("neurons") / "exp_1/subj_01/checkpoints/brain_model_prior_last.pth"
    return save(as_published(made), path)


@pytest.fixture(scope="module")
def mindeye2(made: Aligner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MindEye2's: no projection to text, no decoders, and a branch of blurry pictures."""
    state = {n: v for n, v in as_published(made).items() if n.startswith(("ridge", "backbone", "diffusion"))}
    state |= {f"backbone.{name}": each for name, each in blurry_branch().state_dict().items()}
    return save(state, tmp_path_factory.mktemp("hub") / "final_subj01_pretrained_40sess_24bs/last.pth")


def test_the_names_are_those_of_the_manifest(made: Aligner, golden: Path) -> None:
    manifest = json.loads((golden / "neurons/state_dict_manifest.json").read_text())["state_dicts"]

    def general(names) -> set[str]:
        return {re.sub(r"\.\d+(?=\.)", ".N", name) for name in names if "noise_scheduler" not in name}

    assert general(as_published(made)) == general(manifest["brain_model_prior.pth"])


def test_neurons_checkpoint_is_the_model_that_wrote_it(made: Aligner, neurons: Path) -> None:
    found, signal, subject = (
        aligner.load(neurons),
        torch.randn(3, VOXELS, 1),
        torch.zeros(3, dtype=torch.long),
    )

    one, other = (each.decode(signal, subject, range(3)) for each in (found, made))

    assert isinstance(one, Decoded) and one.tensors.keys() == other.tensors.keys() == HEADS.keys() - {
        "motion"
    }
    assert all(torch.equal(each, other.tensors[name]) for name, each in one.tensors.items())
    assert found.layout.backbone["mode"] == "published"
    assert (found.learned.dataset, found.learned.subjects) == ("cc2017", (SUBJECT,))
    names = {key: config.name for key, config in encoders_by_key(found.layout.encoders).items()}
    assert names == {each: each for each in ("clip-bigg-tokens-view-2", "clip-bigg-text")}
    assert SELECTED_ON_TEST in found.learned.caveats


def test_mindeye2s_prior_is_given_the_tokens_before_their_projection(
    made: Aligner, mindeye2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, signal, subject = (
        aligner.load(mindeye2),
        torch.randn(3, VOXELS, 1),
        torch.zeros(3, dtype=torch.long),
    )
    brain, prior = made.backbone.brain, made.backbone.prior

    sampled = found.decode(signal, subject, range(3)).tensors["image"]

    with torch.no_grad():
        expected = prior.sample(brain.with_voxel_tokens(signal, subject)[0], range(3))
    assert torch.equal(sampled, expected)
    assert (found.learned.dataset, found.learned.selection) == ("nsd", "last epoch")
    said = " ".join(capsys.readouterr().err.split())
    assert "mixer blocks have no effect but a constant" in said


def test_the_published_blurry_branch_decodes_its_latent_from_the_mixers_output(
    made: Aligner, mindeye2: Path
) -> None:
    found, signal = aligner.load(mindeye2), torch.randn(3, VOXELS, 1)
    subject, branch = torch.zeros(3, dtype=torch.long), blurry_branch()

    decoded = found.decode(signal, subject, range(3)).tensors

    with torch.no_grad():
        mixed = made.backbone.brain.backbone.mix(made.backbone.brain.ridge["linears"](signal, subject))
        maps = branch["bnorm"](branch["blin1"](mixed).reshape(3, 64, 7, 7))
        expected = branch["b_maps_projector"](maps).flatten(2).permute(0, 2, 1)
        assert torch.allclose(decoded["blurry"], branch["bupsampler"](maps), atol=1e-5)
    assert decoded["blurry"].shape == (3, 4, 28, 28) and torch.allclose(decoded["maps"], expected, atol=1e-5)


def test_a_model_without_the_blurry_branch_starts_from_one_with_it(made: Aligner, mindeye2: Path) -> None:
    layout, _ = read_checkpoint(mindeye2)
    new = Aligner(replace(layout, heads={"image": layout.heads["image"]}))

    take_over(new, mindeye2)

    state = new.backbone.state_dict()
    assert not [name for name in state if ".b" in name and "blin1" in name]
    name = "brain.backbone.backbone_linear.weight"
    assert torch.equal(state[name], made.backbone.state_dict()[name])


def test_a_model_starts_in_parts_from_several_checkpoints(
    made: Aligner, neurons: Path, mindeye2: Path, tmp_path: Path
) -> None:
    """NEURONS' way: the backbone and the prior are MindEye2's, the ridge is new; and mixer blocks may go."""
    plain = {**NEURONS, "brain": {**BRAIN, "mixer": "none"}, "mode": "right"}
    new = Aligner(Layout(replace(SPEC, widths=(5,)), HEADS, plain, retrieval_heads=("image",)))
    before, own = new.backbone.state_dict(), made.backbone.state_dict()
    before = {name: each.clone() for name, each in before.items()}
    torch.save({"proj": torch.ones(WIDTH, 6)}, tmp_path / "coca.pth")

    parts = {"brain.backbone": mindeye2, "prior": mindeye2, "brain.clipproj": tmp_path / "coca.pth"}
    for part, path in parts.items():
        load_start(new, path, f"backbone.{part}")

    for name, each in new.backbone.state_dict().items():
        if name == "brain.clipproj.proj":
            assert (each == 1).all()
        elif name == "brain.backbone.backbone_linear.bias":
            constant = mixer_constant({n.removeprefix("brain."): v for n, v in own.items() if "mixer" in n})
            assert constant.abs() > 1e-3
            assert torch.allclose(each, own[name] + constant * own[name.replace("bias", "weight")].sum(1))
        else:
            is_taken = name.startswith(("brain.backbone.", "prior."))
            assert torch.equal(each, own[name] if is_taken else before[name]), name


def test_a_second_stage_starts_from_the_first_without_its_mixer_blocks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = {name: HEADS[name] for name in ("image", "text")}
    first = Aligner(Layout(SPEC, heads, BRAIN, retrieval_heads=("image",))).eval()
    first.save(tmp_path / "model")
    second = Aligner(
        Layout(SPEC, HEADS, {**NEURONS, "brain": {**BRAIN, "mixer": "none"}}, retrieval_heads=("image",))
    )
    signal, subject = torch.randn(3, VOXELS, 1), torch.zeros(3, dtype=torch.long)

    load_start(second, tmp_path / "model", "backbone.brain")

    with torch.no_grad():
        one, other = first.predict(signal, subject), second.eval().predict(signal, subject, ["image"])
    assert torch.allclose(one["image"], other["image"], atol=1e-5)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("backbone.brain", "subject 1 has 5 voxels, the model was trained on 7"),
        ("backbone.text_seg_dec", "has no weights for the part backbone.text_seg_dec: "),
    ],
)
def test_other_voxels_and_absent_parts_are_one_line(mindeye2: Path, part: str, message: str) -> None:
    heads = {name: head for name, head in HEADS.items() if name != "text" and name != "caption"}
    new = Aligner(Layout(replace(SPEC, widths=(5,)), heads, NEURONS, retrieval_heads=("image",)))

    with pytest.raises(BrainhiveError, match=message):
        load_start(new, mindeye2, part)


def test_a_checkpoint_of_seven_subjects_has_a_ridge_of_each(made: Aligner, tmp_path: Path) -> None:
    state = {n: v for n, v in as_published(made).items() if n.startswith(("ridge", "backbone", "diffusion"))}
    weight, bias = (state.pop(f"ridge.linears.0.{name}") for name in ("weight", "bias"))
    for place in range(7):
        state[f"ridge.linears.{place}.weight"] = weight[:, : 3 + place % 4] + place
        state[f"ridge.linears.{place}.bias"] = bias

    found = aligner.load(save(state, tmp_path / "multisubject_subj01_1024hid_nolow_300ep/last.pth"))

    assert found.layout.spec.subjects == found.learned.subjects == (2, 3, 4, 5, 6, 7, 8)
    assert found.layout.spec.widths == (3, 4, 5, 6, 3, 4, 5)
    assert torch.equal(found.backbone.brain.ridge.linears["4"].weight, weight[:, :5] + 2)
    with pytest.raises(BrainhiveError, match="has ridges of 7 subjects, its folder is named as that of 1"):
        aligner.load(save(state, tmp_path / "final_subj01/last.pth"))


def test_other_voxels_of_a_whole_checkpoint_are_one_line(neurons: Path) -> None:
    layout, _ = read_checkpoint(neurons)

    with pytest.raises(BrainhiveError, match="subject 1 has 5 voxels, the model was trained on 7"):
        take_over(Aligner(replace(layout, spec=replace(SPEC, widths=(5,)))), neurons)


@pytest.mark.parametrize(
    ("gone", "added", "message"),
    [
        ("diffusion_prior.net.", "", "has decoders of NEURONS without their part diffusion_prior"),
        ("text_dec.", "", "has decoders of NEURONS without their part text_dec"),
        ("nothing", "adapter.weight", "has the part adapter, which neither MindEye2 nor NEURONS has"),
        ("backbone.clip_proj.0", "", "is no brain model of MindEye2"),
    ],
)
def test_a_checkpoint_without_a_part_or_with_others_is_one_line(
    made: Aligner, tmp_path: Path, gone: str, added: str, message: str
) -> None:
    state = {name: each for name, each in as_published(made).items() if not name.startswith(gone)}
    if added:
        state[added] = torch.zeros(2)

    with pytest.raises(BrainhiveError, match=message):
        aligner.load(save(state, tmp_path / "subj_01/brain_model_prior.pth"))
