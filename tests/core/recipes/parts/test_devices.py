"""Every part, and the commands, on a pretended GPU: no tensor stays behind on the CPU,
and no step waits.
"""

import importlib
from collections import Counter

import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.api import open_run
from brainhive_cli.core.base.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.data.targets import StoreTargets, Targets, group_encoders, spec_of
from brainhive_cli.data.targets.encoder_groups import BLANK
from brainhive_cli.models import Decoded, Head, LossContext, Mixing, fusers
from brainhive_cli.models.backbones import lda
from brainhive_cli.models.generators import DEFAULT_KIND, Sampling
from brainhive_cli.training.alignment import Layout, Term, Train
from brainhive_cli.training.alignment.training import CellData, cell_folder
from tests.tools.pretended_gpu import GPU, pretended_gpu
from tests.worlds.array_trials import make_trials
from tests.worlds.command_fixtures import ALIGN_OVERRIDES, COLOURS, DEMO

HERE = Launch(0, 1, torch.device("cuda"))
PICTURES = 24
HEADS = (
    {"token": (16,)},
    {"image": (2, 4)},
    {"image": (3, 16), "latent": (4, 2, 2)},
    {"image": (3, 5), "text": (2, 5), "latent": (4, 8, 8), "maps": (16, 6)},
    {
        **{"image": (4, 16), "motion": (2, 4, 16), "text": (6,), "concepts": (5,)},
        **{"mask": (2, 1, 4, 4), "latents": (2, 4, 3, 3), "caption": (8,)},
    },
)
"""Shapes of heads by name: a brain model predicts the first of these that it takes."""
VARIED = ("repetitions", "repetitions_equal", "repetitions_one")
SETTINGS = {"epochs": 1, "batch_size": 12, "selection": "last", "precision": "bf16"}


@pytest.fixture
def gpu():
    with pretended_gpu() as mode:
        yield mode


def all_on_gpu(*tensors):
    return {tensor.device for tensor in tensors} == {GPU}


MIXED = (
    lambda there: there + torch.ones(3),
    lambda there: torch.ones(3)[there.long()],
    lambda there: there.normal_(generator=torch.Generator()),
    lambda there: torch.nn.Linear(3, 3)(there),
    lambda there: np.asarray(there),
)


def test_a_pretended_gpu_refuses_what_a_real_one_does(gpu):
    noise = torch.rand(3, device="cuda")
    assert all_on_gpu(
        noise * torch.tensor(2.0), noise[torch.tensor([0, 2])], torch.ones(3).to(noise)
    )
    for mixed in MIXED:
        with pytest.raises((RuntimeError, TypeError), match="device"):
            mixed(noise)


def families(shelf):
    """Name the kinds of a shelf that have code of their own: a row of a table has that
    of its family.
    """
    return [
        kind for kind in parts.list_kinds(shelf) if kind not in parts.read_rows(shelf)
    ]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", families("encoders"))
def test_every_encoder_embeds_there(kind, gpu):
    config = parts.load("encoders", kind).TINY
    (group,) = group_encoders([config], "bf16", HERE)
    labels = np.zeros(config.static_shape or 0, np.uint8)
    view = group.view({**BLANK, "labels": labels}[group.encoder.reads])

    embeddings = group.encode(torch.stack([view, view]))

    assert all_on_gpu(*embeddings.values())
    assert not gpu.waits
    (embedding,) = (values.cpu() for values in embeddings.values())
    assert len(embedding) == 2
    assert embedding.ndim == len(config.shape or "D") + 1
    assert embedding.isfinite().all()


def cell_of(config):
    """Lay out a brain model of two subjects, who differ in their number of voxels where
    it takes any.
    """
    is_of_voxels, random, responses = config.takes_spec, np.random.default_rng(0), []
    # a map of all subjects is of equal voxels
    voxels_of_second = 7 if config.continues else 5
    for subject, voxels in ((1, 7), (2, voxels_of_second)):
        shape = (PICTURES, 3, voxels, 1) if is_of_voxels else (PICTURES, 3, 5, 160)
        trials = random.normal(size=shape).astype(np.float32)
        regions = {"spatial": (0, 2), "semantic": (1, 3, 4)} if is_of_voxels else {}
        names, rate_hz = ((), None) if is_of_voxels else (tuple("ABCDE"), 100.0)
        counts, rows = np.full(PICTURES, 3), np.arange(PICTURES)
        responses.append(
            make_trials(subject, trials, rows, names, rate_hz, counts, regions)
        )
    refusals = []
    for shapes in HEADS:
        heads = {name: Head(shape, name) for name, shape in shapes.items()}
        backbone, compared = config.model_dump(mode="json"), (next(iter(heads)),)
        layout = Layout(spec_of(responses), heads, backbone, retrieval_heads=compared)
        try:
            aligner.Aligner(layout)
            break
        except MissingExtra as error:
            pytest.skip(error.in_one_line)
        except BrainhiveError as error:
            refusals.append(error.in_one_line)
    assert len(refusals) < len(HEADS), refusals
    noises_by_name = {
        name: torch.rand(PICTURES, *shape, device="cuda")
        for name, shape in shapes.items()
    }
    if isinstance(config, lda.Config):  # which decides between categories
        noises_by_name = {
            name: torch.eye(len(values[0]), device="cuda")[np.arange(PICTURES) % 2]
            for name, values in noises_by_name.items()
        }
    noises_by_name |= (
        {"caption": torch.randint(1, 16, (PICTURES, 8), device="cuda")}
        if "caption" in shapes
        else {}
    )
    sources = {
        name: StoreTargets(values, device=HERE.device, other_values=(values,))
        for name, values in noises_by_name.items()
    }
    is_held_out = np.arange(PICTURES) < PICTURES // 2
    return layout, CellData(
        responses, Targets(sources), is_held_out, None, repetitions="random"
    )


def train(layout, data, folder, loss, **settings):
    folder.mkdir(exist_ok=True)
    terms = [Term(prediction=next(iter(layout.heads)), loss=loss)]
    cell_folder.train_cell(
        "cell",
        1,
        layout,
        data,
        terms,
        Train(**SETTINGS | settings),
        RunFolder(folder),
        HERE,
    )


@pytest.mark.nightly
@pytest.mark.parametrize("kind", families("backbones"))
def test_every_brain_model_learns_and_decodes_there(kind, gpu, tmp_path):
    layout, data = cell_of(parts.load("backbones", kind).TINY)

    train(layout, data, tmp_path, {"kind": "mse"})
    model = aligner.load(tmp_path / "cells/cell/model").to(HERE.device)
    signal = torch.from_numpy(data.trials[0].averages[:3]).to(HERE.device)
    decoded = model.decode(
        signal, torch.zeros(3, dtype=torch.long, device="cuda"), range(3)
    )

    assert all_on_gpu(*decoded.tensors.values())
    assert decoded.tensors.keys() == layout.heads.keys()


def test_a_step_of_training_does_not_wait_for_the_gpu(gpu, tmp_path):
    """Other waits do not grow with the steps; signals are varied and mixed, and one of
    two targets drawn.
    """
    layout, data = cell_of(parts.load("backbones", "nice").TINY)
    counts, augment = [], {**dict.fromkeys(VARIED, 0.2), "parts": ["smooth"]}
    for batch_size in (12, 4):
        gpu.waits.clear()
        mixed = {"kind": "mixco", "mix_alpha": 0.2, "mix_share": 0.5}
        train(
            layout,
            data,
            tmp_path / str(batch_size),
            mixed,
            batch_size=batch_size,
            augment=augment,
        )
        counts.append(Counter(gpu.waits))

    assert counts[0] == counts[1] != Counter()


def test_every_fuser_fuses_there(gpu):
    for kind in parts.list_kinds("fusers"):
        config, dims = parts.load("fusers", kind).TINY, {"one": 6, "other": 6}
        width = config.token_dim(dims, 8)
        fuser = fusers.build_fuser(config, dims, width, subjects=2).to(HERE.device)

        fused = fuser(
            {name: torch.randn(2, dim, device="cuda") for name, dim in dims.items()}
        )

        tokens = list(fused.values()) if isinstance(fused, dict) else [fused]
        assert all_on_gpu(*tokens) and not gpu.waits, kind
        assert all(len(token) == 2 for token in tokens), kind
        assert sum(token.shape[1] for token in tokens) == width, kind


def test_every_loss_is_lowered_there(gpu):
    for kind in parts.list_kinds("losses"):
        config = parts.load("losses", kind).TINY
        predicted, target = torch.rand(2, 3, 4, 8, 8, device="cuda").unbind()
        if kind == "cross-entropy":  # whose targets are ids
            target = torch.randint(0, 8, predicted.shape[:-1], device="cuda")
        is_mixed = getattr(config, "mix_alpha", 0)
        mixing = Mixing.draw(3, 0.2, torch.Generator("cuda"), 0.5) if is_mixed else None
        gpu.waits.clear()

        value = config.build().to(HERE.device)(
            predicted.requires_grad_(), target, LossContext(mixing)
        )
        value.backward()

        assert value.shape == () and all_on_gpu(value, predicted.grad), kind
        assert not gpu.waits, kind


PAIRS = [(kind, "identity") for kind in families("generators")]
PAIRS += [
    (DEFAULT_KIND, kind) for kind in parts.list_kinds("priors") if kind != "identity"
]


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "prior_kind"), PAIRS)
def test_every_generator_and_prior_draw_and_learn_there(kind, prior_kind, gpu):
    generator = parts.load("generators", kind).TINY.build(HERE.device)
    prior = parts.load("priors", prior_kind).TINY.build({"one": 4}, generator)
    prior.attach(generator)
    prior.to(HERE.device)
    tokens = {"token": torch.randn(2, prior.dim or 16), "image": torch.randn(2, 2, 16)}
    heads = {
        "animatediff": {"keyframe": torch.rand(2, 3, 32, 32)},
        "autoencoder": {"latent": torch.randn(2, 16)},
    }
    decoded = Decoded(heads.get(kind, tokens))
    random = [torch.Generator(), torch.Generator()]

    conditioning, null = (
        prior.condition(decoded.to(HERE.device), [0, 1]),
        prior.null(2, [0, 1]),
    )
    with torch.no_grad():
        media = generator.generate(
            conditioning, [0, 1], 32, Sampling(steps=1, guidance=2.0), null
        )

    assert all_on_gpu(media)
    assert media.shape in ((2, 3, 32, 32), (2, 6, 3, 32, 32))
    if not hasattr(generator, "loss"):  # a chain's stages learn by themselves
        return
    frames = (generator.config.frames,) if kind == "animatediff" else ()
    latents = torch.randn(2, *frames, *generator.latent_shape(32), device="cuda")
    sizes = torch.full((2, 6), 32.0, device="cuda")
    gpu.waits.clear()
    loss = generator.loss(latents, conditioning, random, sizes)
    assert all_on_gpu(generator.encode(media, random), loss)
    assert not gpu.waits


@pytest.mark.nightly
def test_all_commands_run_on_a_gpu_from_pictures_to_metrics(
    gpu, home, generator, prior, pictures
):
    def run_command(command, *overrides):
        module = importlib.import_module(
            f"brainhive_cli.commands.{command.replace('-', '_')}"
        )
        with foreign_code.allow_code(True):
            return module.run(
                module.Recipe.resolve(command, None, {}, overrides), HERE, False
            )

    colours, sdxl = (
        f"encoders=[{COLOURS!r}]",
        f"generator={{kind: sdxl, source: {generator}}}",
    )
    folder = f"dataset={{kind: image-folder, root: {pictures}}}"
    run_command("embed", DEMO, colours, "run.workers=0")
    run_command("embed", folder, colours, "run.workers=0")
    run_command(
        "train-prior",
        folder,
        colours,
        sdxl,
        "prior={kind: fusion_prior, hidden_size: 32, intermediate_size: 64}",
        "resolution_px=32",
        "run.workers=0",
        "sample_items=2",
        "train.steps=2",
        "train.batch_size=4",
        "lpips=false",
        f"similarity=[{COLOURS!r}]",
    )
    run_folder = run_command(
        "train-align",
        *ALIGN_OVERRIDES,
        "subjects=1",
        "train.epochs=2",
        "train.selection=test",
        f"prior={prior}",
    ).folder
    run_command(
        "eval-retrieval",
        f"run={run_folder}",
        "subsets=20",
        "ceiling_splits=2",
        "repetitions=2",
    )
    run_command(
        "reconstruct",
        f"prior={prior}",
        f"align_run={run_folder}",
        sdxl,
        "sources=brain,images,nearest",
        "items=2",
        "repeats=2",
        "resolution_px=32",
        "steps=1",
        "metrics=pixcorr,ssim",
        f"metric_encoders=[{COLOURS!r}]",
    )
    predictions = open_run(str(run_folder)).predictions(device="cuda")

    assert predictions.heads["token"].shape[1] == 64
