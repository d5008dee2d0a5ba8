"""Checkpoints as MindEye1's training writes them, read as brain models, evaluated and started from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SELECTED_ON_TEST
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published import nsd
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores import recordings, target_store
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import Blank, TargetWriter
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.initialisation import take_over
from brainhive_cli.training.alignment.learned import LearnedPictures
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.published_models import ATTENTION

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
Golden = dict[str, Tensor]
PUBLISHED = "autoencoder_subj05_4x_locont_no_reconst"
Save = Callable[..., Path]


def read(path: Path) -> Golden:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118


def first_subject(golden: Golden) -> Tensor:
    """The index of a model's only subject, for each signal of a golden file."""
    return torch.zeros(len(golden["in.voxels"]), dtype=torch.long)


def weights_of(golden: Golden) -> Golden:
    return {name.removeprefix("weights."): each for name, each in golden.items() if "weights." in name}


def save(state: Golden, path: Path) -> Path:
    """Write a checkpoint as MindEye1's save_ckpt does, by torch before 2.1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scheduler = {"total_steps": 9, "anneal_func": OneCycleLR._annealing_cos, "_last_lr": [3e-4]}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 3e-4}]}
    content = {
        "epoch": 119,
        "model_state_dict": state,
        "optimizer_state_dict": optimizer,
        "lr_scheduler": scheduler,
        "train_losses": [0.5],
        "val_losses": [0.4],
        "lrs": [3e-4],
    }
    torch.save(content, path)
    return path


@pytest.fixture
def low(golden: Path) -> Golden:
    """Golden values: MindEye1's low level at tiny widths."""
    return read(golden / "havir/structural.safetensors")


@pytest.fixture
def low_file(low: Golden, tmp_path: Path) -> Path:
    """Its checkpoint, with the names of attention in diffusers 0.13."""
    state = {}
    for name, value in weights_of(low).items():
        old = next((old for old, new in ATTENTION.items() if f".{new}." in name), "")
        state[f"module.{name.replace(ATTENTION.get(old, '?'), old)}"] = value
    assert any(".proj_attn." in name for name in state) and not any(".to_" in name for name in state)
    return save(state, tmp_path / PUBLISHED / "epoch120.pth")


@pytest.fixture
def high(golden: Path) -> Golden:
    """Golden values: MindEye1's high level at tiny widths."""
    return read(golden / "havir/semantic.safetensors")


@pytest.fixture
def high_file(high: Golden, tmp_path: Path) -> Path:
    """Its checkpoint, in which the diffusion prior lies next to the brain model."""
    state = {f"voxel2clip.{name}": value for name, value in weights_of(high).items()}
    shape = high["out.projected"].shape[1:]
    state |= {"net.learned_query": torch.zeros(shape), "noise_scheduler.betas": torch.zeros(100)}
    return save(state, tmp_path / "prior_257_final_subj02_bimixco_softclip_byol/last.pth")


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()  # which may be 0


def test_the_low_level_gives_the_references_latents_without_its_maps(low: Golden, low_file: Path) -> None:
    model = aligner.load(low_file)

    with torch.no_grad():
        found = model.predict(low["in.voxels"][..., None], first_subject(low))

    assert model.layout.spec == SignalSpec((), 1, (5,), (low["in.voxels"].shape[1],))
    assert_near(found["latent"], low["out.latent"])
    assert found.keys() == {"latent"} and model.layout.heads["latent"].target == "vd-vae"


def test_the_high_level_gives_the_references_tokens_and_is_compared_by_the_projected(
    high: Golden, high_file: Path
) -> None:
    model, voxels = aligner.load(high_file), high["in.voxels"][..., None]

    with torch.no_grad():
        subject = first_subject(high)
        found, compared = model.predict(voxels, subject), model.encode_signal(voxels, subject)

    assert model.layout.spec.subjects == (2,)
    assert model.layout.heads["image"].shape == high["out.projected"].shape[1:]
    assert_near(found["image"].flatten(1), high["out.backbone"])
    assert_near(found["image_projected"], high["out.projected"])
    assert torch.equal(compared, found["image_projected"].flatten(1))


def test_whatever_starts_from_it_was_selected_on_test(low_file: Path, tmp_path: Path) -> None:
    learned = aligners.learned_in(low_file)
    start = aligner.load(low_file)
    new = Aligner(replace(start.layout, spec=SignalSpec((), 1, (5, 7), (start.layout.spec.widths[0], 9))))

    take_over(new, low_file)
    new.learned = replace(
        new.learned, selection="validation", people={"nsd": (5, 7)}, has_all_subjects=True
    ).after(learned)
    new.save(tmp_path / "model")

    found = aligner.load(tmp_path / "model")
    assert (found.learned.selection, found.learned.dataset) == ("test", "nsd")
    assert SELECTED_ON_TEST in found.learned.caveats == learned.caveats
    for name, each in start.state_dict().items():
        assert torch.equal(found.state_dict()[name], each)


def ids_of(low: Golden) -> list[str]:
    """A picture of NSD for each signal of the golden file."""
    return [f"nsd{number:05d}" for number in range(1, len(low["in.voxels"]) + 1)]


def write_test(home: Path, low: Golden, dataset: str = "nsd") -> None:
    """Write targets as the reference predicts them, so that each signal finds its own, and these signals."""
    latents, ids = low["out.latent"].numpy(), ids_of(low)
    path = target_store.path_of(home / "embeddings", dataset, "test", "vd-vae")
    about = {"encoder": "vd-vae", "dataset": dataset, "split": "test"}
    Blank(path, ids, ids, latents.shape[1:], "float32", about).create()
    writer = TargetWriter(path)
    writer.write(np.arange(len(latents)), latents)
    writer.close()
    writer.finish()
    voxels = low["in.voxels"].numpy()[:, None, :, None]
    space = Voxels({"V1": np.ones(voxels.shape[2], bool)})
    recorded = Trials(voxels, ids, space, np.zeros(1), None, "z-score")
    SignalStore.write(recordings.path_of(home / "signals", "nsd", "default", 5), {"test": recorded})


def test_it_is_evaluated_on_nsd_as_any_model_with_its_caveats(
    low: Golden, low_file: Path, home: Path, go: Callable[..., Any]
) -> None:
    write_test(home, low)

    scopes = go("eval-retrieval", f"align_run={low_file}", "dataset=nsd", "subjects=5", "sheet_rows=0")

    top1 = scopes.metrics.scopes["epoch120.pth · sub-05"]["top1"]
    assert top1.value == 1 and SELECTED_ON_TEST in top1.protocol


@pytest.mark.parametrize(("learned", "tested"), [("nsd", "{kind: nsd, subjects: [5]}"), ("nsd-1-5", "nsd")])
def test_pictures_of_nsd_are_recognised_in_any_part_of_it(
    low: Golden, low_file: Path, home: Path, go: Callable[..., Any], learned: str, tested: str
) -> None:
    write_test(home, low, "nsd" if tested == "nsd" else "nsd-5")
    model = aligner.load(low_file)
    part = nsd.Pictures(subjects=[1, 5] if learned == "nsd-1-5" else None).build(Paths())
    assert part.name == learned
    pictures = LearnedPictures.of(part.pictured_as, ids_of(low)[:2])
    model.learned = replace(model.learned, dataset=part.pictured_as, pictures=pictures)
    model.save(home / "model")

    seen = f"was trained on 2 of the {len(ids_of(low))} test pictures of nsd"
    with pytest.raises(BrainhiveError, match=seen):
        go("eval-retrieval", f"align_run={home / 'model'}", f"dataset={tested}", "subjects=5", "sheet_rows=0")


def test_masks_of_another_width_than_the_checkpoints_are_one_line(low_file: Path) -> None:
    layout = aligner.load(low_file).layout
    (width,) = layout.spec.widths
    new = Aligner(replace(layout, spec=SignalSpec((), 1, (5,), (width + 3,))))

    message = f"subject 5 has {width + 3} voxels, the model was trained on {width}"
    with pytest.raises(BrainhiveError, match=message):
        take_over(new, low_file)


@pytest.mark.parametrize(
    ("name", "state", "what"),
    [
        (f"{PUBLISHED}/last.pth", {"lin0.0.weight": torch.zeros(2, 3)}, "is no brain model of MindEye1"),
        (f"{PUBLISHED}/last.pth", {}, "is no brain model of MindEye1"),
        ("final/last.pth", None, "last.pth does not say whose voxels it takes"),
    ],
)
def test_what_is_no_such_checkpoint_is_one_line(
    low_file: Path, tmp_path: Path, name: str, state: Any, what: str
) -> None:
    path = tmp_path / "other" / name
    save(torch.load(low_file, weights_only=False)["model_state_dict"] if state is None else state, path)

    with pytest.raises(BrainhiveError, match=what):
        aligner.load(path)


def test_a_damaged_checkpoint_is_one_line(low_file: Path) -> None:
    low_file.write_bytes(low_file.read_bytes()[:-2000])

    with pytest.raises(BrainhiveError, match="is damaged or half-downloaded"):
        aligner.load(low_file)
