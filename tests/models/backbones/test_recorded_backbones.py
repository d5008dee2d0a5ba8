"""Predictions of all backbones for fixed signals, compared with recorded numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Head, LossContext, SignalSpec, backbones
from brainhive_cli.models.backbones import (
    atm,
    brain_mlp,
    havir,
    mindeye2,
    neurons,
    ridge,
    shared_ridge,
    with_prior,
)
from brainhive_cli.models.backbones.lda import Config as LdaConfig
from tests.tools.network_digests import digest, disturb, gradient_norm, parameters
from tests.worlds.model_layouts import make_signal_spec

pytestmark = pytest.mark.usefixtures("doubles")
ONE_VECTOR = [
    "atm",
    "brain-mlp",
    "brain-projection",
    "deep-net",
    "eeg-net",
    "linear",
    "nice",
    "segments",
    "shallow-net",
    "spatial-mlp",
    "ts-conv",
    "voxel-ridge",
]
"""Kinds that predict one vector."""
SPECIAL = {
    "atm late": atm.Config(dropout=0.5, convolution_dropout=0.0),
    "brain-mlp silu": brain_mlp.Config(hidden=5, activation="silu"),
    "segments five": parts.load("backbones", "segments").Config(segments=5, hidden=3),
    "spatial-mlp wide": parts.load("backbones", "spatial-mlp").Config(
        filters=2, hidden=6, dropout=0.1
    ),
}


def predict_in_both_modes(model: torch.nn.Module, *arguments: Any) -> dict[str, Any]:
    """Predict in evaluation and, with fixed dropout, in training."""
    numbers: dict[str, Any] = {"made": parameters(model)}
    disturb(model)
    numbers["evaluated"] = digest(model.eval()(*arguments))
    torch.manual_seed(1)
    learned = model.train()(*arguments)
    numbers["gradient"] = gradient_norm(learned, model)
    numbers["learned"] = digest(learned)
    numbers["then"] = parameters(model)
    return numbers


@pytest.mark.parametrize("kind", ONE_VECTOR + list(SPECIAL))
def test_tokens(recorded, kind: str) -> None:
    config = SPECIAL.get(kind) or parts.load("backbones", kind).TINY
    spec = make_signal_spec(tuple("ABC"), 153, (5, 2, 9))
    heads = {"a": Head((3,)), "b": Head((2, 2))}
    model = backbones.build(config, spec, heads)
    signal = torch.randn(5, 3, 153)
    subject = torch.tensor([2, 0, 2, 1, 0])
    numbers = predict_in_both_modes(model, signal, subject)
    model.eval()
    numbers["unknown"] = digest(model(signal, None))
    numbers["heads"] = digest(backbones.predict(model, heads, signal, subject))
    recorded(6, **numbers)


WIDTHS = SignalSpec((), 1, (4, 7, 1), (5, 4, 6))
SPLIT = {"spatial": ((0, 2), (1, 2, 3), (5,)), "semantic": ((1, 3, 4), (0,), (0, 2))}
REGIONS = SignalSpec((), 1, (4, 7, 1), (5, 4, 6), regions=SPLIT)
TOKENS = {"image": Head((3, 6)), "text": Head((4,))}
BLURRY = {"image": Head((2, 4)), "blurry": Head((4, 8, 4)), "maps": Head((2, 5))}
STREAMS = {
    "latent": Head((4, 8, 4)),
    "maps": Head((8, 5)),
    "image": Head((3, 6)),
    "text": Head((4,)),
    "image_projected": Head((3, 6)),
}
FRAMES = {
    "image": Head((4, 6)),
    "motion": Head((2, 4, 6)),
    "text": Head((5,)),
    "mask": Head((2, 1, 5, 3)),
    "latents": Head((2, 3, 4, 4)),
    "concepts": Head((4,)),
}
NO_PRIOR = neurons.TINY.model_copy(
    update={"prior": None, "channels": (8, 4), "groups": 2}
)
PUBLISHED = neurons.TINY.model_copy(update={"mode": "published"})
DEEP = havir.TINY.model_copy(
    update={
        "blocks": 2,
        "head_rank": None,
        "decoder_channels": (4, 8),
        "decoder_layers": 2,
    }
)
INNER = with_prior.TINY.model_copy(
    update={"backbone": mindeye2.TINY, "condition": "voxel_tokens"}
)
BY_HEADS = {
    "havir": (havir.TINY, REGIONS, STREAMS),
    "havir deep": (DEEP, WIDTHS, {"latent": Head((4, 4, 4)), "image": Head((3, 6))}),
    "havir semantic": (havir.TINY, REGIONS, {"image": Head((3, 6))}),
    "mindeye2": (mindeye2.TINY, WIDTHS, TOKENS),
    "mindeye2 blurry": (mindeye2.Config(hidden=5, blocks=2), WIDTHS, BLURRY),
    "neurons": (neurons.TINY, WIDTHS, FRAMES),
    "neurons published": (PUBLISHED, WIDTHS, FRAMES),
    "neurons without prior": (
        NO_PRIOR,
        WIDTHS,
        {**FRAMES, "image": Head((9, 6)), "motion": Head((2, 9, 6))},
    ),
    "with-prior": (
        with_prior.TINY,
        SignalSpec((), 1, (4, 7, 1), (5, 5, 5)),
        {"image": Head((3, 6)), "latent": Head((2, 2, 2))},
    ),
    "with-prior of inner tokens": (INNER, WIDTHS, TOKENS),
}


@pytest.mark.parametrize("name", BY_HEADS)
def test_heads(recorded, name: str) -> None:
    config, spec, heads = BY_HEADS[name]
    model = backbones.build(config, spec, heads)
    numbers: dict[str, Any] = {"made": parameters(model)}
    disturb(model)
    model.eval()
    for index, width in enumerate(spec.widths):
        signal = torch.randn(3, width, 1)
        subject = torch.full((3,), index)
        predicted = backbones.predict(model, heads, signal, subject)
        numbers[f"subject {index}"] = digest(predicted)
    decoded = backbones.decode(model, heads, signal, subject, [3, 1, 7])
    numbers["decoded"] = digest(decoded.tensors)
    image = backbones.predict(model, heads, signal, subject, ["image"])
    numbers["text"] = digest(image)
    targets = {name: torch.rand(3, *head.shape) for name, head in heads.items()}
    torch.manual_seed(1)
    learned, replaced = backbones.learn(
        model.train(), heads, signal, subject, targets, LossContext()
    )
    numbers["learned"] = digest(learned)
    numbers["replaced"] = digest(replaced)
    numbers["gradient"] = gradient_norm(learned, model)
    recorded(5, **numbers)


def draw_data(count: int, width: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw signals [N, V, 1] with two equal voxels, and targets."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.5, 4, width)[:, None]
    signal = torch.randn(count, width, 1, generator=random) * spread + 2
    signal[:, 2] = signal[:, 0]
    mixed = torch.tanh(signal[..., 0] @ torch.randn(width, 7, generator=random))
    noisy = mixed + 0.5 * torch.randn(count, 7, generator=random) + 3
    return signal, {"a": noisy[:, :4].unflatten(1, (2, 2)), "b": noisy[:, 4:]}


RIDGES: dict[str, Any] = {
    "two penalties": ridge.Config(alpha={"a": 3.0, "b": 40.0}),
    "auto": ridge.Config(alpha="auto"),
    "few components": ridge.Config(alpha="auto", components=3),
    "many components": ridge.Config(alpha=2.0, components=9, standardise=False),
    "spread as it is": ridge.Config(alpha="auto", standardise=False),
    "shared": shared_ridge.Config(alpha="auto"),
    "shared without intercept": shared_ridge.Config(alpha="auto", intercept=False),
    "shared penalty": shared_ridge.Config(alpha=5.0),
}


def fit(model: Any, subject: int, signal: Tensor, targets: Any, held_out: Any) -> None:
    """Fit the signals of a subject to targets [N, ...] by head."""

    def read_targets(rows: slice) -> dict[str, Tensor]:
        return {name: target[rows] for name, target in targets.items()}

    model.fit(subject, signal, read_targets, held_out)


@pytest.mark.parametrize("case", RIDGES)
def test_ridges(recorded, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    heads = {"a": Head((2, 2)), "b": Head((3,))}
    config = RIDGES[case]
    is_shared = isinstance(config, shared_ridge.Config)
    widths = (9, 9) if is_shared else (9, 6)
    monkeypatch.setattr(ridge, "MAX_TARGET_NUMBERS", 7 * 4)
    monkeypatch.setattr(shared_ridge, "MAX_TARGET_NUMBERS", 16 * 4)
    numbers: dict[str, Any] = {}
    for counts in ((6, 3) if is_shared else (7, 23), (13, 5)):
        model = backbones.build(config, SignalSpec((), 1, (4, 1), widths), heads)
        for subject, width, count in zip((1, 4), widths[::-1], counts, strict=True):
            signal, targets = draw_data(count, width, seed=count)
            held_out = draw_data(4, width, seed=50)[0][: count % 5 + 1]
            fit(model, subject, signal, targets, held_out)
        if is_shared:
            model.solve()
            signal, targets = draw_data(11, 9, seed=3)
            fit(model, 4, signal, targets, signal)
            model.solve()
        for index, width in enumerate(widths):
            test_signal, _ = draw_data(5, width, seed=99)
            predicted = model(test_signal, torch.full((5,), index))
            numbers[f"{counts} {index}"] = digest(predicted)
        numbers[f"{counts}"] = parameters(model)
    recorded(4, **numbers)


def test_discriminants(recorded) -> None:
    torch.set_default_dtype(torch.float32)
    heads = {"a": Head((4,)), "b": Head((2,))}
    widths = (9, 6)
    model = LdaConfig().build(SignalSpec((), 1, (4, 1), widths), heads)
    for subject, width, count in ((1, 6, 14), (4, 9, 25)):
        signal, targets = draw_data(count, width, seed=count)
        order = targets["b"].argsort(0)
        labels = {
            "a": torch.eye(4)[order[:, 0] % 3 + (order[:, 1] > 8)],
            "b": torch.eye(2)[(order[:, 2] > 4).long()],
        }
        fit(model, subject, signal, labels, signal)
    numbers = {}
    for index, width in enumerate(widths):
        test_signal, _ = draw_data(5, width, seed=99)
        scores = model(test_signal, torch.full((5,), index))
        numbers[f"subject {index}"] = digest(scores)
    recorded(4, **numbers)
