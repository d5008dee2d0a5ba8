"""Fusers of published retrieval methods, compared with their repositories."""

import torch
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core.recipes import parts

CLOSE = 1e-6
Tensors = dict[str, Tensor]


def read_golden(golden, name, **renamed):
    """Read the tensors of a file, and its weights under our names."""
    tensors = load_file(golden / "methods" / f"{name}.safetensors")
    weights = {
        key.removeprefix("weights."): v
        for key, v in tensors.items()
        if key.startswith("weights.")
    }
    for theirs, ours in renamed.items():
        weights = {
            key.replace(theirs.replace("__", "."), ours.replace("__", ".")): v
            for key, v in weights.items()
        }
    return tensors, weights


def build(kind, dims, dim, *subjects, **knobs):
    return parts.resolve("fusers", {"kind": kind, **knobs}).build(dims, dim, *subjects)


def test_the_router_equals_samga_for_everyone_and_for_subjects(golden, monkeypatch):
    tensors, weights = read_golden(
        golden, "samga_target", layer__="layers__", router__=""
    )
    features, subject, keep = (
        tensors[name] for name in ("features", "subject", "keep")
    )
    layers, width = features.shape[1:]
    hidden, (dim, _) = len(weights["pre.bias"]), weights["share.weight"].shape
    subjects = len(weights["subject_bias"])
    fuser = build(
        "router", {f"{n}": width for n in range(layers)}, dim, subjects, hidden=hidden
    )
    assert torch.equal(fuser.global_logits.detach(), tensors["initial_logits"])
    assert not fuser.subject_bias.any()

    fuser.load_state_dict(fuser.state_dict() | weights)
    embeddings = {f"{n}": features[:, n] for n in range(layers)}
    for dropout_mask, expected in (
        (torch.ones_like(subject), "subject"),
        (keep[:, 0], "dropped"),
    ):
        monkeypatch.setattr(
            "torch.nn.functional.dropout",
            lambda *_, dropout_mask=dropout_mask: dropout_mask,
        )
        assert (
            fuser.weights(subject) - tensors[f"expected.weights_{expected}"]
        ).abs().max() < CLOSE
        assert (
            fuser(embeddings, subject) - tensors[f"expected.token_{expected}"]
        ).abs().max() < CLOSE
    for picture in (fuser.eval()(embeddings), fuser(embeddings, subject)):
        assert (picture - tensors["expected.token_global"]).abs().max() < CLOSE


def test_weights_for_everyone_are_samgas_without_a_subject(golden):
    tensors, weights = read_golden(
        golden, "samga_target", layer__="layers__", router__=""
    )
    layers, width = tensors["features"].shape[1:]
    dims = {f"{layer}": width for layer in range(layers)}
    subjects = len(weights["subject_bias"])
    hidden = len(weights["pre.bias"])
    fuser = build("router", dims, len(weights["share.weight"]), subjects, hidden=hidden)
    fuser.load_state_dict(fuser.state_dict() | weights)

    weights_for_everyone = fuser.weights(None)

    # the reference stores them for each trial of a batch
    for expected in tensors["expected.weights_global"]:
        assert weights_for_everyone.shape == expected.shape
        assert (weights_for_everyone - expected).abs().max() < CLOSE


def test_branches_give_bridges_token(golden):
    tensors, weights = read_golden(
        golden, "bridge_fusion", branch__="branches__", block__w="block__ff__w"
    )
    embeddings = {
        key: value
        for key, value in sorted(tensors.items())
        if key.startswith("embedding.")
    }
    dims = {key: value.shape[1] for key, value in embeddings.items()}
    width, hidden, dim = (
        len(weights[key])
        for key in ("branches.0.bias", "block.ff.w1.weight", "input_proj.bias")
    )
    fuser = build("branches", dims, dim, width=width, hidden=hidden).eval()
    fuser.load_state_dict(weights)

    assert (fuser(embeddings) - tensors["expected.token"]).abs().max() < CLOSE


def test_levels_give_the_token_of_visual_blur_perception(golden):
    tensors, weights = read_golden(golden, "blur_encoder", img_adapter="adapter")
    embeddings = tensors["embeddings"]
    levels = embeddings.shape[1]
    learned = weights["default_feature"].shape[1]
    hidden, dim = (len(weights[f"adapter.{n}.bias"]) for n in (0, 3))
    fuser = build(
        "levels",
        {f"{n}": embeddings.shape[2] for n in range(levels)},
        dim,
        learned=learned,
        hidden=hidden,
    )
    state = {
        "learned": weights["default_feature"][0],
        "scale": weights["learned_scale"][0],
    }
    fuser.load_state_dict(
        state | {key: v for key, v in weights.items() if key.startswith("adapter.")}
    )

    token = fuser.eval()({f"{n}": embeddings[:, n] for n in range(levels)})
    assert (token - tensors["expected.image_token"]).abs().max() < CLOSE
