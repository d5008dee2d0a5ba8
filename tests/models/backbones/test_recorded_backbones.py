"""Predictions of all backbones for fixed signals, compared with recorded numbers."""

import pytest
import torch

from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Head, LossContext, SignalSpec, backbones
from brainhive_cli.models.backbones import (
    atm,
    brain_mlp,
    havir,
    mindeye2,
    neurons,
    with_prior,
)
from tests.tools.network_digests import disturb, gradient_norm, parameters
from tests.worlds.model_layouts import make_signal_spec
from tests.worlds.number_rows import weighted_means

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
"""Kinds that predict a single vector."""
SPECIAL = {
    "atm late": atm.Config(dropout=0.5, convolution_dropout=0.0),
    "brain-mlp silu": brain_mlp.Config(hidden=5, activation="silu"),
    "segments five": parts.load("backbones", "segments").Config(segments=5, hidden=3),
    "spatial-mlp wide": parts.load("backbones", "spatial-mlp").Config(
        filters=2, hidden=6, dropout=0.1
    ),
}


def test_tokens(recorded):
    spec = make_signal_spec(tuple("ABC"), 153, (5, 2, 9))
    heads = {"a": Head((3,)), "b": Head((2, 2))}
    rows = {}
    for kind in ONE_VECTOR + list(SPECIAL):
        torch.manual_seed(0)
        config = SPECIAL.get(kind) or parts.load("backbones", kind).TINY
        model = backbones.build(config, spec, heads)
        initial_parameters = parameters(model)
        signal = torch.randn(5, 3, 153)
        subject = torch.tensor([2, 0, 2, 1, 0])
        disturb(model)

        evaluated = model.eval()(signal, subject)
        torch.manual_seed(1)  # for the dropout
        learned = model.train()(signal, subject)
        gradient = gradient_norm(learned, model)
        updated_parameters = parameters(model)
        model.eval()
        without_subject = model(signal, None)
        predicted = backbones.predict(model, heads, signal, subject)

        assert evaluated.shape == learned.shape == without_subject.shape == (5, 7)
        assert predicted["b"].shape == (5, 2, 2)
        means = weighted_means([evaluated, learned, without_subject, predicted])
        rows[kind] = initial_parameters + means + [gradient] + updated_parameters
    recorded(6, **rows)


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


def test_heads(recorded, monkeypatch):
    monkeypatch.setattr(with_prior, "SIGNALS_PER_BATCH", 2)
    rows = {}
    for name, (config, spec, heads) in BY_HEADS.items():
        # three signals are decoded in two batches, on which published texts depend
        batch_size = 3 if name == "neurons published" else 2
        monkeypatch.setattr(neurons, "SIGNALS_PER_BATCH", batch_size)
        torch.manual_seed(0)
        model = backbones.build(config, spec, heads)
        row = parameters(model)
        disturb(model)
        model.eval()
        for index, width in enumerate(spec.widths):
            signal = torch.randn(3, width, 1)
            subject = torch.full((3,), index)
            predicted = backbones.predict(model, heads, signal, subject)
            for head, tensor in predicted.items():
                assert tensor.shape == (3,) + tuple(heads[head].shape)
            row += weighted_means(predicted)
        decoded = backbones.decode(model, heads, signal, subject, [3, 1, 7])
        image = backbones.predict(model, heads, signal, subject, ["image"])
        targets = {head: torch.rand(3, *heads[head].shape) for head in heads}
        torch.manual_seed(1)  # for dropout and noise
        learned, replaced = backbones.learn(
            model.train(), heads, signal, subject, targets, LossContext()
        )

        row += weighted_means([decoded.tensors, image, learned, replaced])
        rows[name] = row + [gradient_norm(learned, model)]
    recorded(5, **rows)


def fit(model, subject, signal, targets, held_out):
    """Fit the signals of a subject to targets [N, ...] by head."""

    def read_targets(rows):
        return {name: target[rows] for name, target in targets.items()}

    model.fit(subject, signal, read_targets, held_out)
