"""Speed of `brainhive train-align` next to bare loops and the published code."""

import json
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import torch
import yaml
from harness import OVERHEAD_NOTE, Bench, main, prepare_command, run_command
from synthetic import DIMS, Model
from torch import nn

from brainhive_cli.cli.lines import resolve_line
from brainhive_cli.commands import train_align
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.data.targets.model_input import read_training
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.cell_folder import train_cell
from brainhive_cli.training.alignment.training.job import Job
from brainhive_cli.training.alignment.training.loop import fit
from brainhive_cli.training.alignment.training.objective import Objective
from brainhive_cli.training.alignment.training.training_data import TrainingData

UPSTREAM = {
    "synclr-b16": "synclr_vit_b_16",
    "clip-b32": "CLIP-ViT-B-32-laion2B-s34B-b79K",
    "vae": "vae",
}
"""Names of the encoders in the published code, keyed by ours."""
OPTIONS: dict[str, dict[str, Any]] = {
    "--reference": {
        "type": Path,
        "help": "checkout of ssshamiii/Brain-HIVE, to compare `command` with",
    },
    "--reference-python": {
        "default": sys.executable,
        "help": "Python in which the checkout can run",
    },
}


def train_model(
    bench: Bench, model: Model, data: CellData, precision: str, epochs: int = 3
) -> float:
    """Train a cell, and return the seconds of its fastest epoch after the first."""
    ends: list[float] = []
    train_cell(
        "cell",
        1,
        model.layout,
        data,
        model.terms,
        model.make_settings(precision, epochs),
        RunFolder(bench.make_folder()),
        Launch(0, 1, bench.device),
        lambda event: ends.append(bench.read_clock()),
    )
    return min(np.diff(ends).tolist())


def train_bare(bench: Bench, model: Model, data: CellData, precision: str) -> float:
    """Train the model in a loop by hand, and return the seconds of its faster epoch."""
    aligner = model.build_aligner(bench.device)
    objective = Objective(model.terms).to(bench.device)
    signal = torch.from_numpy(data.trials[0].averages).to(bench.device)
    weights = list(objective.parameters()) + list(aligner.parameters())
    parameters = [weight for weight in weights if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, 5e-4, betas=(0.9, 0.995), weight_decay=0.05, fused=True
    )
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, 2 * model.steps
    )
    times = []
    for _ in range(2):
        start = bench.read_clock()
        for rows in torch.randperm(len(signal), device=bench.device).split(model.batch):
            embeddings = data.targets.gather(rows)
            with torch.autocast(
                bench.device.type, torch.bfloat16, enabled=precision == "bf16"
            ):
                loss = objective(*model.forward(aligner, signal[rows], embeddings))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        times.append(bench.read_clock() - start)
    return min(times)


def loop(bench: Bench) -> None:
    """Compare the training loop with a bare loop around the same model."""
    batch, steps = bench.pick((16, 2), (1024, 8), (1024, 16))
    samga_batch, samga_steps = bench.pick((16, 2), (512, 16), (512, 32))
    width = bench.pick(16, 3200, 3200)
    models = {
        "brain_mlp": synthetic.eeg_model("brain_mlp", batch, steps),
        "nice": synthetic.eeg_model("nice", batch, steps),
        "samga": synthetic.samga_model(samga_batch, samga_steps, width),
        "shallow-alignment": synthetic.shallow_alignment_model(batch, steps, width),
        "havir": synthetic.havir_model(bench.size),
        "neurons": synthetic.neurons_model(bench.size),
    }
    for name, model in models.items():
        data = model.draw_data(bench.device)
        precisions = [bench.precision]
        if name in ("brain_mlp", "nice"):
            precisions = ["bf16", "fp32"]
        for precision in precisions:
            bench.compare(
                f"{name} {precision}: of a bare loop",
                partial(train_model, bench, model, data, precision),
                partial(train_bare, bench, model, data, precision),
                count=model.batch * model.steps,
                unit="signals/s",
                target=0.95,
                note=OVERHEAD_NOTE,
                warm_up=False,
            )


def command(bench: Bench) -> None:
    """Compare the whole command with the published code in the same training."""
    folder: Path | None = bench.options.get("reference")
    if folder is None:
        bench.leave_out(
            "train-align: of the published code", "--reference FOLDER is not given"
        )
        return
    epochs, concepts = bench.pick((1, 8), (25, 1654), (25, 1654))
    ids = synthetic.make_things_ids("train", concepts)
    # the published files also need test pictures
    test_ids = synthetic.make_things_ids("test", 2)
    synthetic.write_published(bench.home, 1, {"train": ids, "test": test_ids})
    synthetic.write_targets(bench.home, "things-eeg", "train", ids)
    _write_parquet(bench.home, ids)

    def ours(precision: str) -> None:
        for name in ("runs", "signals"):
            shutil.rmtree(bench.home / name, ignore_errors=True)
        arguments = [
            "train-align",
            f"train.epochs={epochs}",
            f"train.precision={precision}",
            "train.validation=0",
            "train.selection=last",
            "subjects=1",
            "seeds=2025",
            f"encoders={','.join(DIMS)}",
        ]
        run_command(**prepare_command(arguments, bench.home))

    def published(precision: str) -> None:
        path = bench.make_folder() / "config.json"
        config = _make_reference_config(bench, path.parent, precision, epochs)
        path.write_text(json.dumps(config))
        python = bench.options["reference_python"]
        run_command([python, "train_clip.py", str(path)], cwd=folder)

    for precision, target in (("fp32", 4.0), ("bf16", 5.5)):
        bench.compare(
            f"train-align, {epochs} epochs, {precision}: of the published code",
            partial(ours, precision),
            partial(published, precision),
            count=epochs * len(ids),
            unit="signals/s",
            target=target,
            in_children=True,
            warm_up=False,
        )


def _write_parquet(home: Path, ids: list[str]) -> None:
    """Write embeddings in the format of the published code."""
    import pyarrow
    from pyarrow import parquet

    for encoder, name in UPSTREAM.items():
        values = TargetStore.open(
            build_store_path(home / "embeddings", "things-eeg", "train", encoder)
        ).embedding
        names = [Path(image_id).name for image_id in ids]
        table = pyarrow.table({"image_id": names, "emb": list(np.asarray(values))})
        parquet.write_table(
            table, home / f"things_train_{name}-part-00000-of-00000.parquet"
        )


def _make_reference_config(
    bench: Bench, folder: Path, precision: str, epochs: int
) -> dict[str, Any]:
    """Return the published settings without evaluations and checkpoints."""
    path = bench.options["reference"] / "configs/train_clip.yaml"
    published = yaml.safe_load(path.read_text())
    config = {name: value for name, value in published.items() if value is not None}
    data = bench.home / "data/things-eeg/Preprocessed_data_250Hz_whiten"
    config.update(
        learning_rate=5e-4,
        num_train_epochs=epochs,
        bf16=precision == "bf16",
        seed=2025,
        proj_meta={name: DIMS[encoder] for encoder, name in UPSTREAM.items()},
        report_to="none",
        selected_channels=list(POSTERIOR),
        data_directory=str(data),
        do_eval=False,
        embedding_directory=str(bench.home),
        output_dir=str(folder),
        cache_dir=str(folder),
        eval_strategy="no",
        save_strategy="no",
        use_cpu=bench.device.type == "cpu",
    )
    return config


def opening(bench: Bench) -> None:
    """Open the signals of ten subjects, and average four repetitions."""
    subjects, concepts = bench.pick((2, 8), (10, 1654), (10, 1654))
    ids = synthetic.make_things_ids("train", concepts)
    synthetic.write_targets(bench.home, "things-eeg", "train", ids, {"vae": 1024})
    synthetic.write_signals(bench.home, ids, subjects)
    paths = Paths(
        data=str(bench.home / "data"),
        embeddings=str(bench.home / "embeddings"),
        signals=str(bench.home / "signals"),
        runs=str(bench.home / "runs"),
    )
    dataset = parts.resolve("datasets", "things-eeg").build(paths)
    pictures = TargetStore.open(
        build_store_path(bench.home / "embeddings", "things-eeg", "train", "vae")
    )
    recordings = Recordings(dataset, paths, Signal())
    averages = []

    def read_averages() -> None:
        for subject in range(1, subjects + 1):
            trials = read_training(recordings, subject, pictures)[0]
            averages.append(trials.averages)

    seconds = bench.measure_seconds(read_averages)
    n_bytes = sum(array.nbytes for array in averages)
    rate = 4 * n_bytes / seconds / 1e9
    note = f"{rate:.1f} GB/s from the page cache"
    bench.show(
        f"opening {subjects} subjects",
        seconds,
        unit="s",
        target=15,
        at_most=True,
        note=note,
    )


def cells(bench: Bench) -> None:
    """Train the cells of a sweep of the demo, next to `fit` on the same data."""
    count, launch = bench.pick(3, 300, 300), Launch(0, 1, "cpu")
    os.environ["BRAINHIVE_HOME"] = str(bench.home)
    run_command(**prepare_command(["embed", "--recipe", "demo"], bench.home))

    overrides = ["subjects=1", "seeds=1", "train.epochs=2"]

    def sweep(count: int = count) -> None:
        rates = ",".join(f"{1e-4 + 1e-7 * number:.7f}" for number in range(count))
        line = [*overrides, f"sweep.train.lr=[{rates}]"]
        _, module, recipe = resolve_line("train-align", "demo", {}, line)
        module.run(recipe, launch, force=True)

    def fit_cells() -> None:
        recipe = train_align.Recipe.resolve("train-align", "demo", {}, overrides)
        job = Job.resolve(recipe)
        (cell,) = job.cells
        training_data = TrainingData(job, [1], launch)
        for _ in range(count):
            layout, data = training_data.select_cell(cell, job)
            fit(layout, data, recipe.loss_terms, recipe.train, seed=cell.seed)

    # prepare the signals, and load the libraries
    sweep(2)
    bench.compare(
        f"{count} cells of the demo: of fit alone",
        sweep,
        fit_cells,
        count,
        "cells/s",
        rounds=1,
        warm_up=False,
    )
    start_s = time.process_time()
    sweep()
    a_cell_s = (time.process_time() - start_s) / count
    bench.show("a cell, on a core", a_cell_s, unit="s", target=0.35, at_most=True)


CASES = (loop, command, opening, cells)

if __name__ == "__main__":
    main(__doc__, CASES, OPTIONS)
