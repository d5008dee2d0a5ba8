"""train-prior: fusion encoder, projection and attention adapter on a frozen SDXL-type model."""

from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.alignment.learned import Learned, hashes_of
from brainhive_cli.core import console, trackers
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.command_lines import command, seen
from brainhive_cli.metrics.statistics import interval_text, measure
from brainhive_cli.prior_training.examples import Pictures
from brainhive_cli.prior_training.loop import Training, train
from brainhive_cli.prior_training.optimisation import LAST, Learner
from brainhive_cli.prior_training.plan import looks
from brainhive_cli.prior_training.recipe import Recipe
from brainhive_cli.prior_training.samples import measure_distribution, show, try_out
from brainhive_cli.priors.fusion_prior import digest, fused_by


def plan(what: Recipe) -> Plan:
    """Say what would be trained on what, what it needs, and what is missing."""
    return Plan.of(looks(what) | trackers.checks(what.run.trackers))


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, from the newest checkpoint if there is one."""
    trackers.require(what.run.trackers)
    for line in what.idle:
        console.warn(line)
    if what.continue_from is not None:
        what = what.holding({what.continue_from: digest(what.continue_from)})
    pictures = Pictures.of(what, launch)
    label = f"{pictures.images.dataset}-{what.prior.kind}"
    folder = RunFolder.open("train-prior", label, what, launch, again)
    if not folder.is_finished:
        metrics = _train(what, pictures, folder, launch)
        if launch.is_main:
            folder.finish(metrics)
            (folder.path / "checkpoints" / LAST).unlink(missing_ok=True)
        launch.barrier()
    return _result(folder, what)


def _train(what: Recipe, pictures: Pictures, folder: RunFolder, launch: Launch) -> dict[str, Any]:
    """Train, save the prior, and measure what it does to pictures kept from training."""
    training = Training.begin(what, pictures, launch)
    learner = Learner(training.prior, what.freeze, what.train)
    try_out(training, folder)
    at_start = _learn(training, folder, learner)
    losses = {"validation_loss_at_start": at_start}
    with learner.averaged():
        losses["validation_loss"] = training.validate()
        found: dict[str, Any] = {}
        if launch.is_main:
            folder.replace("model", lambda beside: _save(training, beside))
            found = show(training, folder, "last")
        distribution = _distribution(training, folder)
    named: Any = {"seeds": (what.seed,), "split": "validation"}
    denoised, drawn = "noise prediction, fixed noise", f"{what.sample_steps} steps"
    measured = {name: _measured(name, values, denoised, named) for name, values in losses.items()}
    measured |= {name: _measured(name, values, drawn, named) for name, values in found.items()}
    return {name: metric for name, metric in (measured | distribution).items() if metric}


def _save(training: Training, folder: Path) -> None:
    """Save the prior, and which pictures it learned from; those kept for validation count as seen."""
    training.prior.save(folder)
    images, source = training.pictures.images, training.recipe.continue_from
    pictures = np.sort(hashes_of(images.dataset, images.image_ids))
    learned = Learned("last epoch", images.dataset, split=images.split, pictures=pictures)
    (learned if source is None else learned.after(Learned.read(fused_by(source)[0]))).write(folder)


def _learn(training: Training, folder: RunFolder, learner: Learner) -> list[float]:
    """Train, drawing now and then, and tell log and trackers of it; return the losses at the start."""
    what, launch = training.recipe, training.launch
    names = what.run.trackers if launch.is_main else ()
    with trackers.tracked(names, folder.path, "prior", what.model_dump(mode="json"), clock="step") as track:

        def after_step(step: int) -> None:
            is_due = what.sample_every and step % what.sample_every == 0 and step < what.train.steps
            if not (launch.is_main and is_due):
                return
            with learner.averaged():
                found = show(training, folder, f"step-{step:06d}")
            means = {name: float(v.mean()) for name, v in found.items() if not isinstance(v, BrainhiveError)}
            folder.log(step=step, samples=means)
            track({"step": step, **means})

        return train(training, folder, learner, after_step, track)


def _distribution(training: Training, folder: RunFolder) -> dict[str, Any]:
    if not training.recipe.fid_items:
        return {}
    try:
        return {metric.name: metric.as_dict() for metric in measure_distribution(training, folder)}
    except BrainhiveError as error:
        return {name: {"missing": error.in_one_line} for name in ("fid", "kid")}


def _measured(name: str, values: Any, protocol: str, named: dict[str, Any]) -> dict[str, Any]:
    """Make a metric of values [N]; where there are none, say what is missing."""
    if isinstance(values, BrainhiveError):
        return {"missing": values.in_one_line}
    return measure(name, [np.asarray(values)], protocol=protocol, **named).as_dict() if len(values) else {}


def _result(folder: RunFolder, what: Recipe) -> Result:
    metrics = folder.metrics()
    rows = [
        (name, m["value"], interval_text(m, 4), m["n"]) for name, m in metrics.items() if "missing" not in m
    ]
    for name, m in metrics.items():
        if "missing" in m:
            console.warn(f"no {name}: {m['missing']}")
    table = console.Table("Fusion Prior", ("metric", "value", "95 % CI", "n"), tuple(rows))
    sheet = folder.path / "samples" / "last.png"
    files = {"samples": sheet} if sheet.is_file() else {}
    dataset = seen(what.dataset, what.paths)
    hint = command("train-align", dataset, what.encoders, "--prior", str(folder.path / "model"))
    return Result(folder.path, (table,), metrics, files, hint)
