"""HAVIR's backbone: the reference's outputs with its weights, two streams, subjects of any width."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.parts import resolve
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones.havir import TINY, Config
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.initialisation import take_over
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
Golden = dict[str, Tensor]
SPLIT = {"spatial": ((0, 2), (1, 2, 3)), "semantic": ((1, 3, 4), (0,))}
SPEC = SignalSpec((), 1, (4, 7), (5, 4), regions=SPLIT)
HEADS = {
    "latent": Head((4, 8, 8), "vae"),
    "maps": Head((16, 6), "maps"),
    "image": Head((3, 5), "image"),
    "text": Head((2, 5), "text"),
}


def read(path: Path) -> tuple[dict[str, Any], Golden]:
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()  # which may be 0


def loaded(layout: Layout, golden: Golden, names: dict[str, str], folder: Path) -> Aligner:
    """Give a backbone the reference's weights, and bring the model through its folder."""
    weights = {name.removeprefix("weights."): each for name, each in golden.items() if "weights." in name}
    made = Aligner(layout)
    state = {}
    for name, value in weights.items():
        old = next(old for old in names if name.startswith(old))
        state[names[old] + name.removeprefix(old)] = value
    made.backbone.load_state_dict(state)
    made.save(folder)
    return aligner.load(folder)


def among_others(voxels: Tensor) -> Tensor:
    """Signals [B, 2 V, 1], of which every second voxel is one of these [B, V]."""
    signal = torch.randn(len(voxels), 2 * voxels.shape[1], 1)
    signal[:, 1::2, 0] = voxels
    return signal


def spec_of_every_second(width: int, region: str) -> SignalSpec:
    return SignalSpec((), 1, (5,), (2 * width,), regions={region: (tuple(range(1, 2 * width, 2)),)})


def test_the_structural_generator_gives_the_references_latent_and_maps(golden: Path, tmp_path: Path) -> None:
    """Golden values: MindEye1's Voxel2StableDiffusionModel at tiny widths."""
    config, expected = read(golden / "havir/structural.safetensors")
    heads = {name: Head(tuple(expected[f"out.{name}"].shape[1:]), name) for name in ("latent", "maps")}
    backbone = {
        "kind": "havir",
        "hidden": config["h"],
        "blocks": config["n_blocks"],
        "features": config["channels"],
        "decoder_channels": config["block_out_channels"],
        "decoder_layers": config["layers_per_block"],
        "decoder_groups": config["norm_num_groups"],
    }
    layout = Layout(
        spec_of_every_second(config["in_dim"], "spatial"), heads, backbone, retrieval_heads=("maps",)
    )
    names = {"lin0.": "inputs.spatial.5.", "": "structural."}
    model = loaded(layout, expected, names, tmp_path)
    signal = among_others(expected["in.voxels"])
    subject = torch.zeros(len(signal), dtype=torch.long)

    decoded = model.decode(signal, subject, range(len(signal)))

    assert_near(decoded.tensors["latent"], expected["out.latent"])
    assert_near(decoded.tensors["maps"], expected["out.maps"])
    with torch.no_grad():
        assert torch.equal(model.encode_signal(signal, subject), decoded.tensors["maps"].flatten(1))
        other = model.predict(signal.flip(0), subject)
    assert (other["latent"] - expected["out.latent"]).abs().max() > 0.01


def test_the_semantic_extractor_gives_the_references_tokens_and_retrieves_by_either(
    golden: Path, tmp_path: Path
) -> None:
    """Golden values: MindEye1's BrainNetwork with its projector at tiny widths."""
    config, expected = read(golden / "havir/semantic.safetensors")
    shape = (config["tokens"], config["clip_size"])
    heads = {name: Head(shape, "clip") for name in ("image", "image_projected")}
    sizes = {"hidden": config["h"], "blocks": config["n_blocks"], "projector": config["projector_hidden"]}
    layout = Layout(
        spec_of_every_second(config["in_dim"], "semantic"),
        heads,
        {"kind": "havir", **sizes},
        retrieval_heads=("image_projected",),
    )
    names = {"lin0.": "inputs.semantic.5.", "lin1.": "semantic.lin1.image."}
    names |= {"projector.": "semantic.projector.image.", "": "semantic."}
    model = loaded(layout, expected, names, tmp_path)
    signal = among_others(expected["in.voxels"])
    subject = torch.zeros(len(signal), dtype=torch.long)

    with torch.no_grad():
        found = model.predict(signal, subject)
        compared = model.encode_signal(signal, subject)

    assert_near(found["image"].flatten(1), expected["out.backbone"])
    assert_near(found["image_projected"], expected["out.projected"])
    assert torch.equal(compared, found["image_projected"].flatten(1))


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return backbones.build(TINY, SPEC, HEADS).eval()


def test_each_head_depends_on_the_voxels_of_its_stream_alone(model: Any) -> None:
    signal = torch.randn(2, 5, 1, requires_grad=True)
    of_subject = torch.zeros(2, dtype=torch.long)
    streams = {"latent": "spatial", "maps": "spatial", "image": "semantic", "text": "semantic"}

    for head, stream in streams.items():
        (gradient,) = torch.autograd.grad(model(signal, of_subject)[head].square().sum(), signal)
        touched = gradient.abs().sum((0, 2)).nonzero().flatten().tolist()
        assert touched == list(SPLIT[stream][0])


def test_without_a_split_both_streams_read_all_voxels() -> None:
    whole = backbones.build(TINY, SignalSpec((), 1, (1,), (5,)), HEADS)

    assert [
        layer[0].in_features for layer in (whole.inputs["spatial"]["1"], whole.inputs["semantic"]["1"])
    ] == [
        5,
        5,
    ]


def test_subjects_of_one_width_in_one_batch_get_their_own_regions_and_input_layers() -> None:
    spec = replace(SPEC, widths=(5, 5))
    model = backbones.build(TINY, spec, HEADS).eval()
    signal, subject = torch.randn(4, 5, 1), torch.tensor([1, 0, 0, 1])

    together = model(signal, subject)

    for row in range(4):
        alone = model(signal[row : row + 1], subject[row : row + 1])
        for head in HEADS:
            torch.testing.assert_close(together[head][row], alone[head][0])


def test_projected_tokens_that_are_no_heads_are_there_in_training_alone(model: Any) -> None:
    signal, subject = torch.randn(2, 5, 1), torch.zeros(2, dtype=torch.long)

    found, replaced = backbones.learn(model, HEADS, signal, subject, {}, None)

    assert found.keys() - HEADS.keys() == {"image_projected", "text_projected"} and not replaced
    assert model(signal, subject).keys() == HEADS.keys()
    assert not torch.allclose(found["image"], found["image_projected"])


def test_every_parameter_learns_and_dropout_is_for_training_only(model: Any) -> None:
    signal, subject = torch.randn(4, 5, 1), torch.zeros(4, dtype=torch.long)
    found = backbones.learn(model.train(), HEADS, signal, subject, {}, None)[0]
    sum(each.mul(torch.randn_like(each)).sum() for each in found.values()).backward()

    unused = {name for name, each in model.named_parameters() if each.grad is None}
    assert unused == {name for name, _ in model.named_parameters() if ".7." in name}
    first, second = (model(signal, subject)["image"] for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(signal, subject)["image"], model(signal, subject)["image"])


def test_a_new_subject_gets_input_layers_of_its_own_and_the_shared_streams(tmp_path: Path) -> None:
    layout = Layout(SPEC, HEADS, TINY.model_dump(mode="json"), retrieval_heads=("image",))
    learned = Aligner(layout)
    learned.save(tmp_path)
    new = Aligner(
        replace(
            layout,
            spec=SignalSpec((), 1, (1,), (6,), regions={"spatial": ((0,),), "semantic": ((1, 2, 3, 4, 5),)}),
        )
    )
    before = {name: each.clone() for name, each in new.state_dict().items()}

    take_over(new, tmp_path)

    known = learned.state_dict()
    for name, each in new.state_dict().items():
        assert torch.equal(each, before[name] if ".inputs." in name else known[name])


def test_a_subject_without_an_input_layer_is_told_to_be_fine_tuned(model: Any) -> None:
    with pytest.raises(BrainhiveError, match="havir knows the subjects it was fitted on only") as caught:
        model(torch.randn(1, 5, 1), None)
    assert "mode=finetune" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "heads", "what"),
    [
        (SignalSpec(("Oz",), 9, (1,), (1,)), HEADS, "takes voxels, not signals of 9 samples"),
        (replace(SPEC, regions={"spatial": SPLIT["spatial"]}), HEADS, "need voxels of semantic"),
        (SPEC, {"latent": Head((4, 7, 8))}, r"latent is \[4, 7, 8\], .* multiples of 2"),
        (SPEC, {**HEADS, "maps": Head((9, 6))}, r"maps is \[9, 6\], .* from 4×4 maps"),
        (SPEC, {"maps": HEADS["maps"]}, "the head maps comes with the head latent"),
        (SPEC, {"image_projected": HEADS["image"]}, "image_projected is of a projector, on a head image"),
        (SPEC, {**HEADS, "text_projected": HEADS["image"]}, "on a head text of its shape"),
    ],
)
def test_signals_and_heads_that_do_not_go_with_the_streams_are_one_line(
    spec: SignalSpec, heads: dict[str, Head], what: str
) -> None:
    with pytest.raises(BrainhiveError, match=what):
        backbones.build(TINY, spec, heads)


def test_groups_that_do_not_divide_the_channels_are_one_line() -> None:
    config = resolve("backbones", {"kind": "havir", "hidden": 8, "decoder_groups": 5})
    with pytest.raises(BrainhiveError, match=r"havir cannot be built: num_channels .* must be divisible"):
        backbones.build(config, SPEC, {"latent": Head((4, 8, 8))})


def test_a_low_rank_and_narrow_model_is_small() -> None:
    """The facts' estimate of MindEye1's widths: trunk 112 M, image head 808 M, text head 242 M."""
    spec = SignalSpec((), 1, (1,), (10_000,))
    heads = {"image": Head((257, 768)), "text": Head((77, 768))}
    counts = {}
    for name, config in {"full": Config(), "small": Config(hidden=1024, head_rank=256)}.items():
        with torch.device("meta"):
            made = backbones.build(config, spec, heads)
        counts[name] = sum(each.numel() for each in made.parameters())

    assert 1.1e9 < counts["full"] < 1.2e9
    assert counts["small"] < 0.12e9
