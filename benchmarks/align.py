"""How fast `brainhive train-align` is next to bare loops and the published code."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import torch
import yaml
from harness import OVERHEAD_NOTE, Bench, main, prepare_command, run_command
from synthetic import DIMS, Model
from torch import nn

from brainhive_cli.commands import train_align
from brainhive_cli.core import parts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
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
"""Our encoders by the names that the published code has for them."""
OPTIONS: dict[str, dict[str, Any]] = {
    "--reference": {
        "type": Path,
        "help": "checkout of ssshamiii/Brain-HIVE, to compare `command` with",
    },
    "--reference-python": {
        "default": sys.executable,
        "help": "a Python that has what the checkout needs",
    },
}


def train_model(
    on: Bench, model: Model, data: CellData, precision: str, epochs: int = 3
) -> float:
    """Train as a cell does; return the seconds of the fastest epoch but the first."""
    ends: list[float] = []
    train, launch = model.make_settings(precision, epochs), Launch(0, 1, on.device)
    fixed = (
        model.layout,
        data,
        model.terms,
        train,
        RunFolder(on.make_folder()),
        launch,
    )
    train_cell("cell", 1, *fixed, lambda event: ends.append(on.read_clock()))
    return min(np.diff(ends).tolist())


def train_bare(on: Bench, model: Model, data: CellData, precision: str) -> float:
    """Train the same model as one writes it by hand; return the seconds of the faster
    epoch.
    """
    aligner, objective = (
        model.build_aligner(on.device),
        Objective(model.terms).to(on.device),
    )
    signal = torch.from_numpy(data.trials[0].averages).to(on.device)
    parameters = [
        each
        for each in [*objective.parameters(), *aligner.parameters()]
        if each.requires_grad
    ]
    optimizer = torch.optim.AdamW(
        parameters, 5e-4, betas=(0.9, 0.995), weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * model.steps)
    times = []
    for _ in range(2):
        start = on.read_clock()
        for rows in torch.randperm(len(signal), device=on.device).split(model.batch):
            embeddings = data.targets.gather(rows)
            with torch.autocast(
                on.device.type, torch.bfloat16, enabled=precision == "bf16"
            ):
                loss = objective(*model.forward(aligner, signal[rows], embeddings))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        times.append(on.read_clock() - start)
    return min(times)


def loop(on: Bench) -> None:
    """Compare the training loop with a bare one around the same model, in the same
    precision.
    """
    batch, steps = on.pick((16, 2), (1024, 8), (1024, 16))
    models = {
        kind: synthetic.eeg_model(kind, batch, steps) for kind in ("brain_mlp", "nice")
    }
    width, halves = on.pick(16, 3200, 3200), on.pick((16, 2), (512, 16), (512, 32))
    models |= {"samga": synthetic.samga_model(*halves, width)}
    models |= {
        "shallow-alignment": synthetic.shallow_alignment_model(batch, steps, width)
    }
    models |= {
        "havir": synthetic.havir_model(on.size),
        "neurons": synthetic.neurons_model(on.size),
    }
    for name, model in models.items():
        data = model.draw_data(on.device)
        for precision in (
            ("bf16", "fp32") if name in ("brain_mlp", "nice") else (on.precision,)
        ):
            sides = [
                lambda side=side: side(on, model, data, precision)  # noqa: B023
                for side in (train_model, train_bare)
            ]
            what = f"{name} {precision}: of a bare loop"
            on.compare(
                what,
                *sides,
                model.batch * model.steps,
                "signals/s",
                0.95,
                OVERHEAD_NOTE,
                warm_up=False,
            )


def command(on: Bench) -> None:
    """Compare the whole command with the published code's: the same files, pictures,
    epochs and precision.
    """
    folder: Path | None = on.options.get("reference")
    if folder is None:
        on.leave_out(
            "train-align: of the published code", "--reference FOLDER is not given"
        )
        return
    epochs, concepts = on.pick((1, 8), (25, 1654), (25, 1654))
    ids = synthetic.make_things_ids("train", concepts)
    # which our store of the subject holds, too
    tested = synthetic.make_things_ids("test", 2)
    synthetic.write_published(on.home, 1, {"train": ids, "test": tested})
    synthetic.write_targets(on.home, "things-eeg", "train", ids)
    _write_parquet(on.home, ids)

    def ours(precision: str) -> None:
        for made in ("runs", "signals"):
            shutil.rmtree(on.home / made, ignore_errors=True)
        settings = {
            "epochs": epochs,
            "precision": precision,
            "validation": 0,
            "selection": "last",
        }
        words = [f"train.{name}={value}" for name, value in settings.items()]
        words += ["subjects=1", "seeds=2025", f"encoders={','.join(DIMS)}"]
        run_command(**prepare_command(["train-align", *words], on.home))

    def published(precision: str) -> None:
        config = on.make_folder() / "config.json"
        config.write_text(
            json.dumps(_reference_config(on, config.parent, precision, epochs))
        )
        run_command(
            [on.options["reference_python"], "train_clip.py", str(config)], cwd=folder
        )

    for precision, target in (("fp32", 4.0), ("bf16", 5.5)):
        what = f"train-align, {epochs} epochs, {precision}: of the published code"
        sides = [lambda side=side: side(precision) for side in (ours, published)]  # noqa: B023
        on.compare(
            what,
            *sides,
            epochs * len(ids),
            "signals/s",
            target,
            in_children=True,
            warm_up=False,
        )


def _write_parquet(home: Path, ids: list[str]) -> None:
    """Write embeddings as the published code reads them."""
    import pyarrow
    from pyarrow import parquet

    for encoder, name in UPSTREAM.items():
        values = TargetStore.open(
            build_store_path(home / "embeddings", "things-eeg", "train", encoder)
        ).embedding
        stems = [Path(each).name for each in ids]
        table = pyarrow.table({"image_id": stems, "emb": list(np.asarray(values))})
        parquet.write_table(
            table, home / f"things_train_{name}-part-00000-of-00000.parquet"
        )


def _reference_config(
    on: Bench, folder: Path, precision: str, epochs: int
) -> dict[str, Any]:
    """Write the published settings, without evaluations and checkpoints between."""
    published = yaml.safe_load(
        (on.options["reference"] / "configs/train_clip.yaml").read_text()
    )
    data = on.home / "data/things-eeg/Preprocessed_data_250Hz_whiten"
    return {
        **{name: value for name, value in published.items() if value is not None},
        **{
            "learning_rate": 5e-4,
            "num_train_epochs": epochs,
            "bf16": precision == "bf16",
            "seed": 2025,
        },
        **{
            "proj_meta": {name: DIMS[ours] for ours, name in UPSTREAM.items()},
            "report_to": "none",
        },
        **{
            "selected_channels": list(POSTERIOR),
            "data_directory": str(data),
            "do_eval": False,
        },
        **{
            "embedding_directory": str(on.home),
            "output_dir": str(folder),
            "cache_dir": str(folder),
        },
        **{
            "eval_strategy": "no",
            "save_strategy": "no",
            "use_cpu": on.device.type == "cpu",
        },
    }


def opening(on: Bench) -> None:
    """Open and average the signals of ten subjects, whose stores hold four
    repetitions.
    """
    subjects, concepts = on.pick((2, 8), (10, 1654), (10, 1654))
    ids = synthetic.make_things_ids("train", concepts)
    synthetic.write_targets(on.home, "things-eeg", "train", ids, {"vae": 1024})
    synthetic.write_signals(on.home, ids, subjects)
    paths = Paths(
        **{
            name: str(on.home / name)
            for name in ("data", "embeddings", "signals", "runs")
        }
    )
    dataset = parts.resolve("datasets", "things-eeg").build(paths)
    pictures = TargetStore.open(
        build_store_path(on.home / "embeddings", "things-eeg", "train", "vae")
    )
    source, opened = Recordings(dataset, paths, Signal()), []

    def read() -> None:
        for subject in range(1, subjects + 1):
            opened.append(read_training(source, subject, pictures)[0].averages)

    took_s = on.measure_seconds(read)
    rate = 4 * sum(each.nbytes for each in opened) / took_s / 1e9
    note = f"{rate:.1f} GB/s from the page cache"
    on.show(
        f"opening {subjects} subjects",
        took_s,
        unit="s",
        target=15,
        at_most=True,
        note=note,
    )


def cells(on: Bench) -> None:
    """Train the cells of a sweep of the demo's size in one process, next to `fit` alone
    on the same data.
    """
    count, launch = on.pick(3, 300, 300), Launch(0, 1, "cpu")
    os.environ["BRAINHIVE_HOME"] = str(on.home)
    run_command(**prepare_command(["embed", "--recipe", "demo"], on.home))

    def resolve(count: int) -> train_align.Recipe:
        rates = ",".join(f"{1e-4 + 1e-7 * number:.7f}" for number in range(count))
        words = ["subjects=1", "seeds=1", "train.epochs=2", f"sweep.train.lr=[{rates}]"]
        return train_align.Recipe.resolve("train-align", "demo", {}, words)

    def sweep() -> None:
        train_align.run(resolve(count), launch, again=True)

    def bare() -> None:
        job = Job.resolve(resolve(count))
        todo, stores = job.cells, job.stores
        opened = TrainingData(job, job.variants[todo[0].variant], stores, [1], launch)
        for cell in todo:
            recipe, (layout, data) = (
                job.variants[cell.variant],
                opened.select_cell(cell),
            )
            fit(layout, data, recipe.loss_terms, recipe.train, seed=cell.seed)

    # which makes the signals, and loads what training needs
    train_align.run(resolve(2), launch)
    on.compare(
        f"{count} cells of the demo: of fit alone",
        sweep,
        bare,
        count,
        "cells/s",
        rounds=1,
        warm_up=False,
    )
    start_s = time.process_time()
    sweep()
    a_cell_s = (time.process_time() - start_s) / count
    on.show("a cell, on a core", a_cell_s, unit="s", target=0.35, at_most=True)


CASES = (loop, command, opening, cells)

if __name__ == "__main__":
    main(__doc__, CASES, OPTIONS)
