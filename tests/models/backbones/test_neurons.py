"""NEURONS' decoders compared with the reference's values, and the whole model."""

import json
import zlib

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Head, LossContext, SignalSpec, backbones
from brainhive_cli.models.backbones import neurons
from brainhive_cli.models.backbones._neurons_decoders import (
    CaptionHead,
    TextDrivenDecoder,
    make_concept_head,
    make_motion_projection,
    project_motion,
)
from tests.tools.golden_files import assert_near

Golden = dict[str, Tensor]


def read_golden(golden, name):
    """Read a golden file.

    Returns:
        Config with its seed, tensors, and weights by name.
    """
    with safe_open(golden / "neurons" / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    config = json.loads(metadata.get("config", "{}"))
    config["seed"] = int(metadata["seed"])
    weights = {}
    for key, value in tensors.items():
        if key.startswith("weights."):
            weights[key.removeprefix("weights.")] = value
    return config, tensors, weights


def load_weights(module, weights):
    """Load weights into a module for evaluation."""
    module.load_state_dict(weights)
    return module.eval().requires_grad_(False)


def test_motion_tokens_are_the_references(golden):
    config, tensors, weights = read_golden(golden, "motion_proj")
    projection = make_motion_projection(config["clip_size"], config["n_frames"])
    load_weights(projection, weights)

    motion = project_motion(projection, tensors["input.tokens"])

    assert_near(motion, tensors["expected.motion_tokens"])


def test_concepts_are_the_references(golden):
    _, tensors, weights = read_golden(golden, "classifier")
    hidden, width = weights["vision_proj_channel.weight"].shape
    head = make_concept_head(width, hidden, len(weights["classifier.bias"]))
    load_weights(head, weights)

    logits = head(tensors["input.motion_tokens"].mean((1, 2)))

    assert_near(logits, tensors["expected.logits"])


def make_decoder(config, tensors, weights, mode):
    """Make the decoder with the reference's sizes and weights."""
    settings = neurons.Config(
        maps=config["maps"],
        channels=config["block_out_channels"],
        groups=config["groups"],
        mode=mode,
    )
    n_latents = tensors["expected.latents_reference"].shape[1]
    decoder = TextDrivenDecoder(
        settings, config["vision_dim"], config["text_dim"], n_latents
    )
    load_weights(decoder, weights)
    return decoder


def decode_masks_singly(decoder, motion, text):
    """Decode the masks of each clip in a batch of its own."""
    masks = []
    for clip in range(len(text)):
        decoded = decoder(motion[[clip]], text[[clip]])
        masks.append(decoded["mask"][0])
    return torch.cat(masks)


def test_mode_published_decodes_as_the_reference(golden):
    config, tensors, weights = read_golden(golden, "text_driven_decoder")
    decoder = make_decoder(config, tensors, weights, "published")
    motion = tensors["input.motion_tokens"]
    text = tensors["input.text"]

    fused = decoder.fuse(motion.flatten(0, 1), text)
    decoded = decoder(motion, text)
    masks = decoded["mask"].flatten(0, 1)
    latents = decoded["latents"].flatten(0, 1)
    single_masks = decode_masks_singly(decoder, motion, text)

    assert_near(fused, tensors["expected.fused"])
    assert_near(masks, tensors["expected.segmentation_reference"])
    assert_near(latents, tensors["expected.latents_reference"])
    assert_near(single_masks, tensors["fault.segmentation_one_clip_at_a_time"])


def test_mode_right_decodes_each_clip_by_itself(golden):
    config, tensors, weights = read_golden(golden, "text_driven_decoder")
    decoder = make_decoder(config, tensors, weights, "right")
    motion = tensors["input.motion_tokens"]
    text = tensors["input.text"]

    decoded = decoder(motion, text)
    masks = decoded["mask"].flatten(0, 1)
    latents = decoded["latents"].flatten(0, 1)

    assert_near(masks, tensors["right.segmentation_residual_own_text"])
    assert_near(latents, tensors["right.latents_residual_own_text"])
    assert_near(decode_masks_singly(decoder, motion, text), masks)


def test_the_text_driven_decoder_decodes_without_a_text(golden):
    config, tensors, weights = read_golden(golden, "text_driven_decoder")
    decoder = make_decoder(config, tensors, weights, "right")

    decoded = decoder(tensors["input.motion_tokens"], None)

    masks = decoded["mask"].flatten(0, 1)
    latents = decoded["latents"].flatten(0, 1)
    assert_near(masks, tensors["right.segmentation_no_text"])
    assert_near(latents, tensors["right.latents_no_text"])


def decode_with_features(decoder, motion, text):
    """Decode, and return the outputs with inner features.

    The features are the maps before and after their normalisation, and the outputs of
    the video decoder.
    """
    features = {}

    def record_maps(module, inputs, output):
        features.update(maps=inputs[0], normed_maps=output)

    def record_decoder(module, inputs):
        features.update(decoder=inputs[0])

    decoder.norm.register_forward_hook(record_maps)
    decoder.seg_head.register_forward_pre_hook(record_decoder)
    decoded = decoder(motion, text)
    return features | decoded


def test_maps_and_features_are_the_references_in_mode_published(golden):
    config, tensors, weights = read_golden(golden, "text_driven_decoder")
    decoder = make_decoder(config, tensors, weights, "published")

    features = decode_with_features(
        decoder, tensors["input.motion_tokens"], tensors["input.text"]
    )

    assert_near(features["maps"], tensors["expected.maps"])
    assert_near(features["normed_maps"], tensors["expected.normed_maps"])
    assert_near(features["decoder"], tensors["expected.decoder_batch_time"])


def test_time_within_a_clip_is_right_for_published_texts_too(golden, monkeypatch):
    """Golden values: texts of the whole batch as published, time within a clip."""
    config, tensors, weights = read_golden(golden, "text_driven_decoder")
    decoder = make_decoder(config, tensors, weights, "right")
    published = make_decoder(config, tensors, weights, "published")
    monkeypatch.setattr(decoder, "fuse", published.fuse)

    features = decode_with_features(
        decoder, tensors["input.motion_tokens"], tensors["input.text"]
    )

    assert_near(features["decoder"], tensors["right.decoder_clip_time"])
    masks = features["mask"].flatten(0, 1)
    assert_near(masks, tensors["right.segmentation_text_batch_time_clip"])


def test_latents_are_resized_to_their_head_by_nearest_values(golden):
    """Golden value: L1 distance of the reference's resized latents from an
    autoencoder's.
    """
    _, tensors, _ = read_golden(golden, "text_driven_decoder")
    n_clips, n_frames = tensors["input.motion_tokens"].shape[:2]
    decoded = tensors["expected.latents_reference"].unflatten(0, (n_clips, n_frames))
    target = tensors["input.vae_latents"].unflatten(0, (n_clips, n_frames))
    heads = {"image": Head((4, 16)), "latents": Head(tuple(target.shape[1:]))}
    config = neurons.TINY.model_copy(update={"frames": n_frames})
    model = backbones.build(config, SPEC, heads)
    model.text_seg_dec.register_forward_hook(lambda *_: {"latents": decoded})
    signal = torch.randn(n_clips, 7, 1)
    subject = torch.zeros(n_clips, dtype=torch.long)

    with torch.no_grad():
        predicted = backbones.predict(model, heads, signal, subject, ["latents"])
    l1 = parts.load("losses", "l1").Config().build()
    distance = l1(predicted["latents"], target, LossContext())

    # the sum has another order
    expected = tensors["expected.l1_reference"].item()
    assert distance == pytest.approx(expected, rel=1e-5)


def draw_by_name(seed, name, shape):
    """Draw numbers by the rule of the golden folder's README."""
    random = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return torch.randn(tuple(shape), generator=random)


def draw_weight(seed, name, shape):
    """Draw a weight by the rule of the golden folder's README."""
    if ".weights." in name:
        return torch.full(shape, 0.7)
    values = draw_by_name(seed, name, shape)
    if len(shape) > 1:
        return values / shape[1:].numel() ** 0.5
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def assert_starts_with(value, first_values):
    assert torch.equal(value.flatten()[: len(first_values)], first_values)


def test_at_its_real_widths_the_decoder_is_the_references(golden):
    """Golden values: two clips of three frames, with the first values of the inputs."""
    config, tensors, _ = read_golden(golden, "decoder_real_width")
    seed = config["seed"]
    decoder = TextDrivenDecoder(neurons.Config(mode="published"), 1664, 1280, 4)
    weights = {}
    for name, value in decoder.state_dict().items():
        weights[name] = draw_weight(seed, name, value.shape)
    load_weights(decoder, weights)
    n_frames = len(tensors["expected.segmentation_reference"]) // 2
    motion = draw_by_name(seed, "input.motion_tokens", (2, n_frames, 16, 1664))
    text = draw_by_name(seed, "input.text", (2, 1280))
    assert_starts_with(motion, tensors["input.motion_tokens.head"])
    assert_starts_with(text, tensors["input.text.head"])
    assert_starts_with(decoder.q.weight, tensors["weights.q.weight.head"])

    decoded = decoder(motion, text)
    decoder.mode = "right"
    without_text = decoder(motion, None)

    masks = decoded["mask"].flatten(0, 1)
    latents = decoded["latents"].flatten(0, 1)
    assert_near(masks, tensors["expected.segmentation_reference"])
    assert_near(latents, tensors["expected.latents_reference"])
    masks = without_text["mask"].flatten(0, 1)
    assert_near(masks, tensors["right.segmentation_no_text"])


@pytest.fixture
def caption_head(golden):
    """The caption head with the reference's weights, and its config and tensors."""
    config, tensors, weights = read_golden(golden, "caption")
    settings = neurons.Config(
        vocabulary=config["vocab"],
        caption_width=config["n_embd"],
        caption_layers=config["n_layer"],
        caption_heads=config["n_head"],
        caption_positions=config["n_positions"],
    )
    head = CaptionHead(settings, config["prefix"], config["greedy_steps"]["plain"])
    load_weights(head, weights)
    return head, config, tensors


def test_the_caption_head_predicts_as_the_reference(caption_head):
    head, config, tensors = caption_head
    ids = tensors["input.tokens"]

    logits = head(tensors["input.text"], ids)

    assert_near(logits, tensors["expected.logits"])
    is_correct = logits.argmax(-1) == ids
    accuracy = is_correct[ids != config["ignore_index"]].float().mean()
    assert_near(accuracy, tensors["expected.accuracy"])


def test_captions_are_written_as_by_the_reference(caption_head):
    head, config, tensors = caption_head
    text = tensors["input.text"]
    expected = tensors[f"expected.greedy_{config['greedy_steps']['plain']}"]

    assert torch.equal(head.write(text, 1000), expected)
    # an id ends the caption where it is first written
    ids = expected[0].tolist()
    end = ids[3]
    first_end = ids.index(end)
    shorter = head.write(text[:1], end)[0]
    assert shorter[first_end + 1 :].unique().tolist() == [0]


SPEC = SignalSpec((), 1, (1, 2), (7, 5))
HEADS = {
    "image": Head((4, 16)),
    "motion": Head((2, 4, 16)),
    "text": Head((6,)),
    "mask": Head((2, 1, 4, 4)),
    "latents": Head((2, 4, 3, 3)),
    "concepts": Head((5,)),
    "caption": Head((8,)),
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return backbones.build(neurons.TINY, SPEC, HEADS)
