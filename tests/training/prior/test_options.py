"""The options of train-prior: each does what its name says, and nothing else."""

from collections.abc import Callable
from functools import partialmethod

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from worlds import first_batch

from brainhive_cli.app import app
from brainhive_cli.core.errors import BrainhiveError, DeviceError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.targets.views import Batch
from brainhive_cli.models.generators.sdxl import SDXL
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.training.prior.loop import Learner, Training, train

ROUNDING = 1e-6
"""Sums over pictures in another order, float32."""


def trained(
    training: Training, folder: RunFolder, after_step: Callable[[int], None] = lambda _: None
) -> Learner:
    learner = Learner(training.prior, training.recipe.freeze, training.recipe.train)
    train(training, folder, learner, after_step)
    return learner


def gradients(learner: Learner) -> list[torch.Tensor]:
    """What the optimiser has seen in its first step, up to a factor."""
    return [learner.optimizer.state[parameter]["exp_avg"] for parameter in learner.parameters]


def many(count: int) -> Batch:
    """A batch of which only the places in the step matter."""
    empty = torch.empty(0)
    return Batch(np.arange(count), empty, empty, {}, step=3, positions=tuple(range(count)))


@pytest.mark.parametrize(("size", "passes"), [(2, 2), (4, 3)])  # 10 pictures: 2 + 2, and 4 + 3 + 3
def test_accumulated_passes_have_the_gradient_of_one_large_batch(settings, begun, tmp_path, size, passes):
    whole = min(10, size * passes)
    settings = (*settings, "train.steps=1")
    one = trained(begun(*settings, f"train.batch_size={whole}"), RunFolder(tmp_path / "one"))

    several = trained(
        begun(*settings, f"train.batch_size={size}", f"train.accumulate={passes}"),
        RunFolder(tmp_path / "several"),
    )

    assert max(float(g.abs().max()) for g in gradients(one)) > 100 * ROUNDING
    for a, b in zip(gradients(one), gradients(several), strict=True):
        assert torch.allclose(a, b, atol=ROUNDING, rtol=1e-4)


def test_more_passes_than_pictures_are_refused(settings, begun, tmp_path):
    with pytest.raises(BrainhiveError, match="10 pictures to learn are fewer than 11 passes") as caught:
        trained(begun(*settings, "train.accumulate=11"), RunFolder(tmp_path / "run"))
    assert "train.accumulate" in caught.value.hint


def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradient(settings, begun):
    def backward(training: Training) -> tuple[int, list[torch.Tensor]]:
        kept = [0]

        def count(tensor: torch.Tensor) -> torch.Tensor:
            kept[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = training.loss(first_batch(training))
        loss.backward()
        return kept[0], [p.grad for p in training.prior.parameters()]

    plain_bytes, plain = backward(begun(*settings))
    fewer_bytes, same = backward(begun(*settings, "train.gradient_checkpointing=true"))

    assert fewer_bytes < plain_bytes / 2
    assert all(torch.allclose(a, b, atol=ROUNDING) for a, b in zip(plain, same, strict=True))


def test_tokens_are_zeroed_at_the_rate_asked_for_and_then_carry_nothing(settings, begun):
    training = begun(*settings, "token_dropout=0.3")
    batch = first_batch(training, 10)

    kept, _ = training.draw(many(2000))
    drawn, random = training.draw(batch)
    loss = training.loss(batch)

    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.04)  # four standard errors
    assert 0 < drawn.sum() < 10
    token = training.prior.fuser(training.embeddings(batch))
    token = torch.where(drawn, token, torch.zeros_like(token))
    given = Conditioning(embeddings=training.prior.tokens(training.prior.adapt(token)))
    direct = training.generator.loss(training.latents(batch), given, random, batch.sizes)
    assert torch.allclose(loss, direct, rtol=1e-6)


def test_bf16_is_the_diffusion_models_dtype_and_not_the_priors(settings, begun):
    exact, coarse = begun(*settings), begun(*settings, "train.precision=bf16")

    losses = [training.loss(first_batch(training)) for training in (exact, coarse)]
    losses[1].backward()

    assert coarse.generator.unet.dtype == torch.bfloat16 and coarse.generator.vae.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in coarse.prior.parameters())
    assert losses[0] != losses[1] and torch.allclose(*losses, rtol=0.02)


def test_a_compiled_unet_learns_the_same(settings, begun, monkeypatch):
    captured = partialmethod(torch.nn.Module.compile, backend="eager")  # the graph, without minutes of C++
    monkeypatch.setattr(torch.nn.Module, "compile", captured)
    plain, compiled = begun(*settings), begun(*settings, "train.compile=true")

    losses = [training.loss(first_batch(training)) for training in (plain, compiled)]
    for loss in losses:
        loss.backward()

    assert compiled.generator.unet._compiled_call_impl is not None
    assert torch.allclose(*losses, rtol=1e-5)
    for a, b in zip(plain.prior.parameters(), compiled.prior.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=ROUNDING)


def test_the_gradient_is_clipped_and_its_norm_before_that_is_known(settings, begun, tmp_path):
    training = begun(*settings, "train.steps=1", "train.grad_norm=1e-3")

    learner = trained(training, RunFolder(tmp_path / "run"))

    seen = torch.cat([gradient.flatten() for gradient in gradients(learner)]).norm()
    assert float(seen) == pytest.approx((1 - 0.9) * 1e-3, rel=1e-3) and learner.norm > 1e-3


def test_the_optimiser_has_the_knobs_of_the_recipe(settings, begun):
    training = begun(*settings, "train.lr=0.5", "train.weight_decay=0.25", "train.betas=[0.1, 0.2]")

    learner = Learner(training.prior, [], training.recipe.train)

    (group,) = learner.optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.5, 0.25, (0.1, 0.2))


def test_out_of_memory_is_reported_with_what_needs_less(settings, monkeypatch):
    def full(*_: object, **knobs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore about it.")

    monkeypatch.setattr(SDXL, "loss", full)

    shown = CliRunner().invoke(app, ["train-prior", *settings])
    assert shown.exit_code == DeviceError.exit_code
    assert shown.stderr.splitlines()[-2:] == [
        "error: out of memory: CUDA out of memory. Tried to allocate 2 GiB.",
        "  try: a smaller train.batch_size and as much more train.accumulate, or cache_latents=true, or "
        "train.gradient_checkpointing=true; what is finished is kept",
    ]
