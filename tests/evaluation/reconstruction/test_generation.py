"""Tests of generated files: their noise, their resumption and lack of memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import DeviceError
from tests.worlds.reconstructions import read_pictures


@pytest.mark.nightly
def test_pictures_do_not_depend_on_the_batch_size(
    run_command, prior_align_run, reconstruct_overrides
):
    one, five = (
        read_pictures(
            run_command(
                "reconstruct", *reconstruct_overrides, f"batch_size={size}", again=True
            ).folder
        )
        for size in (1, 5)
    )

    assert one.keys() == five.keys()
    assert len(one) == 6
    # rounding to bytes
    assert max(np.abs(one[name] - five[name]).max() for name in one) <= 1


def test_every_item_and_repeat_has_noise_of_its_own(
    run_command, prior_align_run, reconstruct_overrides, reconstruct_result
):
    generated_pictures = read_pictures(reconstruct_result.folder)
    pictures = [
        picture
        for name, picture in generated_pictures.items()
        if name.startswith("samples/sub-01")
    ]
    for index, picture in enumerate(pictures):
        assert all(
            np.abs(picture - other_picture).max() > 10
            for other_picture in pictures[index + 1 :]
        )
    others = read_pictures(
        run_command("reconstruct", *reconstruct_overrides, "seed=1").folder
    ).values()
    assert all(
        np.abs(single_picture - other_picture).max() > 10
        for single_picture, other_picture in zip(pictures, others, strict=True)
    )


@pytest.mark.nightly
def test_a_resumed_reconstruct_generates_only_what_is_missing(
    run_command, prior_align_run, reconstruct_overrides
):
    folder = run_command("reconstruct", *reconstruct_overrides).folder
    whole_pictures, files = (
        read_pictures(folder),
        sorted((folder / "samples").rglob("*.png")),
    )
    (folder / "metrics.json").unlink()
    files[2].unlink()
    inodes = {file: file.stat().st_ino for file in files if file.exists()}

    second_run_folder = run_command("reconstruct", *reconstruct_overrides).folder

    assert second_run_folder == folder
    assert {file: file.stat().st_ino for file in inodes} == inodes
    assert all(
        np.abs(read_pictures(folder)[name] - whole_pictures[name]).max() <= 1
        for name in whole_pictures
    )


def refused(*argv):
    """Run a command that runs out of memory, and return the lines of its message."""
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == DeviceError.exit_code
    return result.stderr.splitlines()[-2:]


@pytest.mark.nightly
def test_out_of_memory_a_run_continues_with_smaller_batches(
    run_command, prior_align_run, reconstruct_overrides, monkeypatch
):
    from diffusers import UNet2DConditionModel

    forward, calls = UNet2DConditionModel.forward, []

    def full(self, *args, **options):
        calls.append(None)
        if len(calls) > 4:  # two steps a batch
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "forward", full)
        lines = refused("reconstruct", *reconstruct_overrides, "batch_size=2")
    assert len(lines) == 2
    assert lines[0].endswith(": CUDA out of memory. Tried to allocate 2 GiB")
    for key in (" batch_size", "tiling=true", "offload=true", "metric_batch_size"):
        assert key in lines[1]
    (run,) = (
        Path(reconstruct_overrides[0].removeprefix("paths.runs=")) / "reconstruct"
    ).iterdir()
    st_inos_by_name = {file: file.stat().st_ino for file in run.rglob("*.png")}
    assert len(st_inos_by_name) == 4

    assert (
        run_command("reconstruct", *reconstruct_overrides, "batch_size=1").folder == run
    )
    assert {file: file.stat().st_ino for file in st_inos_by_name} == st_inos_by_name
    assert len(read_pictures(run)) == 6
