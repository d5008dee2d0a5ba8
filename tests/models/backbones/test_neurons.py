"""NEURONS' decoders against the reference's values, and the model that they make
together.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import neurons
from brainhive_cli.models.backbones._neurons_decoders import (
    CaptionHead,
    TextDrivenDecoder,
    make_concept_head,
    make_motion_projection,
    project_motion,
)
from brainhive_cli.models.heads import Head
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec
from tests.tools.golden_files import assert_near

Golden = dict[str, Tensor]


def read(golden: Path, name: str) -> tuple[dict[str, Any], Golden, Golden]:
    """Read a golden file: its config with its seed, its tensors, and the weights by
    name.
    """
    with safe_open(golden / "neurons" / f"{name}.safetensors", "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = file.metadata() or {}
        config = {**json.loads(about.get("config", "{}")), "seed": int(about["seed"])}
    weights = {
        k.removeprefix("weights."): v
        for k, v in found.items()
        if k.startswith("weights.")
    }
    return config, found, weights


def filled(module: nn.Module, weights: Golden) -> nn.Module:
    module.load_state_dict(weights)
    return module.eval().requires_grad_(False)


def test_motion_and_concepts_are_the_references(golden: Path) -> None:
    config, found, weights = read(golden, "motion_proj")
    motion = filled(
        make_motion_projection(config["clip_size"], config["n_frames"]), weights
    )
    _, labels, own = read(golden, "classifier")
    hidden, width = own["vision_proj_channel.weight"].shape
    concepts = filled(
        make_concept_head(width, hidden, len(own["classifier.bias"])), own
    )

    assert_near(
        project_motion(motion, found["input.tokens"]), found["expected.motion_tokens"]
    )
    assert_near(
        concepts(labels["input.motion_tokens"].mean((1, 2))), labels["expected.logits"]
    )


def decoder(
    config: dict[str, Any], found: Golden, weights: Golden, mode: Any
) -> TextDrivenDecoder:
    latents = found["expected.latents_reference"].shape[1]
    own = {
        "maps": config["maps"],
        "channels": config["block_out_channels"],
        "groups": config["groups"],
    }
    sizes = neurons.Config(**own, mode=mode)
    made = TextDrivenDecoder(sizes, config["vision_dim"], config["text_dim"], latents)
    filled(made, weights)
    return made


def test_the_text_driven_decoder_is_the_references_in_mode_published(
    golden: Path,
) -> None:
    config, found, weights = read(golden, "text_driven_decoder")
    made = decoder(config, found, weights, "published")
    motion, text = found["input.motion_tokens"], found["input.text"]

    decoded = made(motion, text)
    alone = torch.cat(
        [made(motion[[clip]], text[[clip]])["mask"][0] for clip in range(len(text))]
    )

    assert_near(made.fuse(motion.flatten(0, 1), text), found["expected.fused"])
    assert_near(decoded["mask"].flatten(0, 1), found["expected.segmentation_reference"])
    assert_near(decoded["latents"].flatten(0, 1), found["expected.latents_reference"])
    assert_near(alone, found["fault.segmentation_one_clip_at_a_time"])


def test_the_text_driven_decoder_reads_the_own_clip_in_mode_right(golden: Path) -> None:
    config, found, weights = read(golden, "text_driven_decoder")
    made = decoder(config, found, weights, "right")
    motion, text = found["input.motion_tokens"], found["input.text"]

    decoded = made(motion, text)
    alone = torch.cat(
        [made(motion[[clip]], text[[clip]])["mask"][0] for clip in range(len(text))]
    )

    assert_near(
        decoded["mask"].flatten(0, 1), found["right.segmentation_residual_own_text"]
    )
    assert_near(
        decoded["latents"].flatten(0, 1), found["right.latents_residual_own_text"]
    )
    assert_near(alone, decoded["mask"].flatten(0, 1))


def test_the_text_driven_decoder_decodes_without_a_text(golden: Path) -> None:
    config, found, weights = read(golden, "text_driven_decoder")
    made = decoder(config, found, weights, "right")

    without = made(found["input.motion_tokens"], None)

    assert_near(without["mask"].flatten(0, 1), found["right.segmentation_no_text"])
    assert_near(without["latents"].flatten(0, 1), found["right.latents_no_text"])


def joints(made: TextDrivenDecoder, motion: Tensor, text: Tensor) -> Golden:
    """Decode, and return the maps before and after their norm, and the features of the
    video decoder, which its heads read.
    """
    seen: Golden = {}

    def note_norm(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.update(maps=inputs[0], normed_maps=output)

    def note_features(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.update(decoder=inputs[0])

    made.norm.register_forward_hook(note_norm)
    made.seg_head.register_forward_pre_hook(note_features)
    decoded = made(motion, text)
    return seen | decoded


def test_maps_and_features_are_the_references_in_mode_published(golden: Path) -> None:
    config, found, weights = read(golden, "text_driven_decoder")
    made = decoder(config, found, weights, "published")

    seen = joints(made, found["input.motion_tokens"], found["input.text"])

    assert_near(seen["maps"], found["expected.maps"])
    assert_near(seen["normed_maps"], found["expected.normed_maps"])
    assert_near(seen["decoder"], found["expected.decoder_batch_time"])


def test_time_within_a_clip_is_right_for_published_texts_too(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden values: texts of the whole batch as published, time within a clip."""
    config, found, weights = read(golden, "text_driven_decoder")
    made = decoder(config, found, weights, "right")
    published = decoder(config, found, weights, "published")
    monkeypatch.setattr(made, "fuse", published.fuse)

    seen = joints(made, found["input.motion_tokens"], found["input.text"])

    assert_near(seen["decoder"], found["right.decoder_clip_time"])
    assert_near(
        seen["mask"].flatten(0, 1), found["right.segmentation_text_batch_time_clip"]
    )


def test_latents_are_resized_to_their_head_by_nearest_values(golden: Path) -> None:
    """Golden value: the L1 distance of the reference's latents, resized so, from an
    autoencoder's.
    """
    _, found, _ = read(golden, "text_driven_decoder")
    clips, frames = found["input.motion_tokens"].shape[:2]
    decoded = found["expected.latents_reference"].unflatten(0, (clips, frames))
    target = found["input.vae_latents"].unflatten(0, (clips, frames))
    heads = {"image": Head((4, 16)), "latents": Head(tuple(target.shape[1:]))}
    made = backbones.build(
        neurons.TINY.model_copy(update={"frames": frames}), SPEC, heads
    )
    made.text_seg_dec.register_forward_hook(lambda *_: {"latents": decoded})
    signal, subject = torch.randn(clips, 7, 1), torch.zeros(clips, dtype=torch.long)

    with torch.no_grad():
        latents = backbones.predict(made, heads, signal, subject, ["latents"])
    l1 = parts.load("losses", "l1").Config().build()
    distance = l1(latents["latents"], target, LossContext())

    # the same values in another order
    assert distance == pytest.approx(found["expected.l1_reference"].item(), rel=1e-5)


def drawn_by_name(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """Draw numbers as the golden folder's README says, from the file's seed."""
    random = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return torch.randn(tuple(shape), generator=random)


def by_rule(seed: int, name: str, shape: torch.Size) -> Tensor:
    """Make a weight as the golden folder's README says."""
    drawn = drawn_by_name(seed, name, shape)
    if ".weights." in name:
        return torch.full(shape, 0.7)
    if len(shape) > 1:
        return drawn / shape[1:].numel() ** 0.5
    return 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn


def assert_begins(value: Tensor, first: Tensor) -> None:
    assert torch.equal(value.flatten()[: len(first)], first)


def test_at_its_real_widths_the_decoder_is_the_references(golden: Path) -> None:
    """Golden values: two clips of three frames; of these inputs the file holds the
    first values alone.
    """
    config, found, _ = read(golden, "decoder_real_width")
    seed = config["seed"]
    made = TextDrivenDecoder(neurons.Config(mode="published"), 1664, 1280, 4)
    filled(
        made,
        {
            name: by_rule(seed, name, each.shape)
            for name, each in made.state_dict().items()
        },
    )
    frames = len(found["expected.segmentation_reference"])
    shapes = {
        "input.motion_tokens": (2, frames // 2, 16, 1664),
        "input.text": (2, 1280),
    }
    inputs = [drawn_by_name(seed, name, shape) for name, shape in shapes.items()]
    for name, value in zip(shapes, inputs, strict=True):
        assert_begins(value, found[f"{name}.head"])

    decoded = made(*inputs)
    made.mode = "right"
    without = made(inputs[0], None)

    assert_begins(made.q.weight, found["weights.q.weight.head"])
    assert_near(decoded["mask"].flatten(0, 1), found["expected.segmentation_reference"])
    assert_near(decoded["latents"].flatten(0, 1), found["expected.latents_reference"])
    assert_near(without["mask"].flatten(0, 1), found["right.segmentation_no_text"])


def test_the_caption_head_is_the_references(golden: Path) -> None:
    config, found, weights = read(golden, "caption")
    theirs = {
        "vocabulary": "vocab",
        "caption_width": "n_embd",
        "caption_layers": "n_layer",
    }
    theirs |= {"caption_heads": "n_head", "caption_positions": "n_positions"}
    sizes = neurons.Config(**{ours: config[name] for ours, name in theirs.items()})
    made = CaptionHead(sizes, config["prefix"], config["greedy_steps"]["plain"])
    filled(made, weights)

    logits = made(found["input.text"], found["input.tokens"])

    assert_near(logits, found["expected.logits"])
    ids = found["input.tokens"]
    accuracy = (logits.argmax(-1) == ids)[ids != config["ignore_index"]].float().mean()
    assert_near(accuracy, found["expected.accuracy"])
    greedy = found[f"expected.greedy_{config['greedy_steps']['plain']}"]
    assert torch.equal(made.write(found["input.text"], 1000), greedy)
    written = greedy[0].tolist()
    # an id ends the caption where it is written first
    stop = written.index(end := written[3])
    assert made.write(found["input.text"][:1], end)[
        0, stop + 1 :
    ].unique().tolist() == [0]


SPEC = SignalSpec((), 1, (1, 2), (7, 5))
HEADS = {
    "image": Head((4, 16)),
    "motion": Head((2, 4, 16)),
    "text": Head((6,)),
    "mask": Head((2, 1, 4, 4)),
}
HEADS |= {"latents": Head((2, 4, 3, 3)), "concepts": Head((5,)), "caption": Head((8,))}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return backbones.build(neurons.TINY, SPEC, HEADS)


def shapes(found: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape[1:]) for name, each in found.items()}


def test_every_part_learns_from_what_the_prior_makes_of_noised_targets(
    model: nn.Module,
) -> None:
    signal, subject = torch.randn(3, 7, 1), torch.zeros(3, dtype=torch.long)
    targets = {name: torch.rand(3, *head.shape) for name, head in HEADS.items()}
    targets["caption"] = torch.randint(1, 16, (3, 8)).float()

    predicted, replaced = backbones.learn(
        model, HEADS, signal, subject, targets, LossContext()
    )
    sum(each.square().sum() for each in predicted.values()).backward()

    expected = {name: head.shape for name, head in HEADS.items()}
    assert shapes(predicted) == {**expected, "caption": (8, 16), "denoised": (4, 16)}
    assert replaced.keys() == {"denoised"} and torch.equal(
        replaced["denoised"], targets["image"]
    )
    idle = {
        name.partition(".weight")[0]
        for name, each in model.named_parameters()
        if each.grad is None
    }
    assert idle == {
        "brain.ridge.linears.2",
        "brain.ridge.linears.2.bias",
        # fixed, as in the reference
        "prior.net.causal_transformer.layers.0.0.rotary_emb.freqs",
        "text_seg_dec.k",
    }


def test_decoding_samples_tokens_by_the_seed_of_a_row_whatever_the_batch(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neurons, "SIGNALS_PER_BATCH", 2)
    model, signal, subject = (
        model.eval(),
        torch.randn(5, 7, 1),
        torch.zeros(5, dtype=torch.long),
    )

    decoded = backbones.decode(model, HEADS, signal, subject, range(5))
    found = decoded.tensors
    other = backbones.decode(model, HEADS, signal, subject, range(1, 6)).tensors
    alone = backbones.decode(model, HEADS, signal[3:4], subject[3:4], [3]).tensors

    assert (
        found.keys() == HEADS.keys() - {"motion"} and len(decoded.texts["caption"]) == 5
    )
    assert (
        decoded.texts["caption"][2]
        == model.vocabulary.decode(found["caption"][2].tolist())
        != ""
    )
    assert not torch.allclose(found["latents"], other["latents"], atol=1e-3)
    for name, each in alone.items():
        assert torch.allclose(each, found[name][3:4], atol=1e-5)
    assert 0 <= found["mask"].min() <= found["mask"].max() <= 1
    with torch.no_grad():
        image = backbones.predict(model, HEADS, signal, subject, ["image"])
        text = backbones.predict(model, HEADS, signal, subject, ["text"])["text"]
        every = backbones.predict(model, HEADS, signal, subject)
    assert shapes(image) == {"image": (4, 16)} and torch.equal(
        image["image"], every["image"]
    )
    assert torch.equal(text, every["text"]) and shapes(every) == {
        n: head.shape for n, head in HEADS.items()
    }
