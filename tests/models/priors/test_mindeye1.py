"""Diffusion priors of MindEye1 and MindEye2 against their references, from folders of
ours and from published checkpoints.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.measurements import SELECTED_ON_TEST
from brainhive_cli.models import priors
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors import mindeye1, mindeye2
from tests.tools.golden_files import assert_near, read

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
Golden = dict[str, Tensor]


def weights_of(golden: Golden) -> Golden:
    """The reference's weights, by the names that they have in its checkpoint."""
    found = {
        name.removeprefix("weights."): value
        for name, value in golden.items()
        if "weights." in name
    }
    return {
        name if name.startswith("net.") else f"net.{name}": value
        for name, value in found.items()
    }


@pytest.fixture
def reference(golden: Path) -> tuple[mindeye1.Config, Golden]:
    """MindEye1's prior at tiny widths."""
    config, values = read(golden / "havir" / "mindeye_prior.safetensors")
    sizes = {
        name: config["net"][name] for name in ("dim", "depth", "heads", "dim_head")
    }
    made = {
        "tokens": config["net"]["num_tokens"],
        "timesteps": config["prior"]["timesteps"],
        **sizes,
    }
    return mindeye1.Config(**made), values


@pytest.fixture
def prior(
    reference: tuple[mindeye1.Config, Golden], tmp_path: Path
) -> mindeye1.DiffusionPrior:
    """The reference's weights, through a folder of ours."""
    made = reference[0].build({}, None)
    made.load_state_dict(weights_of(reference[1]))
    made.save(tmp_path / "prior")
    found = priors.load(str(tmp_path / "prior"))
    assert found.kind == "mindeye1"
    return found


@pytest.fixture
def checkpoint(reference: tuple[mindeye1.Config, Golden], tmp_path: Path) -> Path:
    """A checkpoint of the high level's training, as MindEye1 writes it, with its brain
    model.
    """
    _, golden = reference
    state = weights_of(golden) | {"voxel2clip.lin1.bias": torch.zeros(3)}
    state |= {"noise_scheduler.alphas_cumprod": golden["out.alphas_cumprod"]}
    path = tmp_path / "last.pth"
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 239, "model_state_dict": wrapped, "train_losses": [1.0]}, path)
    return path


def test_it_predicts_clean_tokens_as_the_reference_with_and_without_what_it_is_given(
    prior, reference
):
    _, golden = reference
    given = golden["in.image"], golden["in.times"], golden["in.brain"]

    with torch.no_grad():
        assert_near(prior.net(*given), golden["out.prediction"])
        assert_near(
            prior.net(*given, False, False), golden["out.prediction_all_dropped"]
        )
    assert torch.allclose(prior.alphas_cumprod, golden["out.alphas_cumprod"])


def test_its_loss_is_the_references(prior, reference, monkeypatch):
    _, golden = reference
    monkeypatch.setattr(
        mindeye1, "DROP_PROBABILITY", 0.0
    )  # as the golden values have it
    monkeypatch.setattr(torch, "randint", lambda *_, **__: golden["in.times"])
    monkeypatch.setattr(torch, "randn_like", lambda _: golden["in.noise"])

    with torch.no_grad():
        predicted, target = prior.learn(golden["in.brain"], golden["in.image"])

    assert_near(predicted, golden["out.loss_prediction"])
    assert torch.isclose(
        torch.nn.functional.mse_loss(predicted, target),
        golden["out.loss"],
        rtol=TOLERANCE,
    )
    assert torch.isclose(
        target, golden["in.image"] * golden["out.image_embed_scale"]
    ).all()


def test_it_samples_as_the_reference_from_the_noise_of_each_rows_seed(
    prior, reference, monkeypatch
):
    _, golden = reference
    brain, noises = golden["in.brain"], golden["in.sampling_noises"]
    count = len(brain)
    decoded, seeds = (
        Decoded({"image": brain, "latent": torch.ones(count, 4, 2, 2)}),
        [*range(5, 5 + count)],
    )

    ours = prior.condition(decoded, seeds)
    alone = prior.condition(decoded[1:], seeds[1:])
    monkeypatch.setattr(prior, "noises", lambda seeds: iter(noises[:, list(seeds)]))
    found = prior.condition(decoded, range(count))

    # the reference's number was taken before its last division
    expected = golden["out.sample_times_scale"] / golden["out.image_embed_scale"]
    assert_near(found.embeddings, expected)
    assert torch.allclose(alone.embeddings, ours.embeddings[1:], atol=TOLERANCE)
    assert not torch.allclose(found.embeddings, ours.embeddings, atol=100 * TOLERANCE)
    # other heads are conditions as they are
    assert found.start is decoded.tensors["latent"]
    assert len(prior.null(2, [0, 1])) == 0


@pytest.fixture
def neurons(golden: Path) -> tuple[mindeye2.Config, Golden]:
    """NEURONS' prior, which is MindEye2's, at tiny widths."""
    config, values = read(golden / "neurons" / "prior.safetensors")
    sizes = {name: config[name] for name in ("dim", "depth", "heads", "dim_head")}
    tokens, timesteps = config["num_tokens"], config["timesteps"]
    knobs = mindeye2.Config(tokens=tokens, timesteps=timesteps, head="tokens", **sizes)
    return knobs, values


def test_mindeye2s_prior_predicts_and_noises_tokens_as_they_are(neurons, monkeypatch):
    knobs, values = neurons
    prior = knobs.build({}, None)
    prior.load_state_dict(weights_of(values))
    brain, image = values["input.brain"], values["input.image"]
    kept = [values["input.brain_keep"], values["input.image_keep"]]
    monkeypatch.setattr(torch, "randint", lambda *_, **__: values["input.timesteps"])
    monkeypatch.setattr(torch, "randn_like", lambda _: values["input.noise"])

    with torch.no_grad():
        for drop, expected in ((0.0, "loss_no_drop"), (0.5, "loss_with_drop")):
            # rows that are kept draw 1, the others 0
            monkeypatch.setattr(mindeye1, "DROP_PROBABILITY", drop)
            monkeypatch.setattr(
                torch, "rand", lambda *_, **__: torch.stack(kept).float()
            )
            predicted, target = prior.learn(brain, image)
            loss = torch.nn.functional.mse_loss(predicted, target)
            assert_near(loss, values[f"expected.{expected}"])
        assert_near(predicted, values["expected.prediction_with_drop"])
        times, noisy = values["input.timesteps"], values["expected.noisy"]
        assert_near(prior.net(noisy, times, brain), values["expected.prediction"])
        assert_near(
            prior.net(noisy, times, brain, False, False),
            values["expected.prediction_all_dropped"],
        )
        # the first key is the null one
        bias = prior.net.bias(brain.shape[1] + 1 + image.shape[1])
        assert_near(bias, values["expected.rel_pos_bias"])
    assert torch.equal(target, image)
    steps = len(prior.betas)
    assert_near(prior.betas, values[f"expected.betas_{steps}"])
    assert_near(prior.alphas_cumprod, values[f"expected.alphas_cumprod_{steps}"])


def test_mindeye2s_prior_samples_tokens_as_they_are(neurons, tmp_path, monkeypatch):
    knobs, values = neurons
    brain, noises = values["input.brain"], values["input.sample_noises"]
    steps = len(noises) - 1
    made = knobs.model_copy(update={"timesteps": steps}).build({}, None)
    made.load_state_dict(weights_of(values))
    made.save(tmp_path / "prior")
    checkpoint = {
        f"diffusion_prior.{name}": value for name, value in weights_of(values).items()
    }
    checkpoint["diffusion_prior.noise_scheduler.alphas_cumprod"] = made.alphas_cumprod
    path = tmp_path / "last.pth"
    torch.save({"epoch": 149, "model_state_dict": checkpoint}, path)

    for reference in (str(tmp_path / "prior"), f"mindeye2:{path}"):
        found = priors.load(reference)
        described = priors.describe(reference)
        monkeypatch.setattr(found, "noises", lambda seeds: iter(noises[:, list(seeds)]))
        sampled = found.sample(brain, range(len(brain)))
        assert (found.kind, described.kind) == ("mindeye2", "mindeye2")
        assert_near(sampled, values[f"expected.sample_{steps}_steps"])
        # its authors keep the last epoch
        assert not described.caveats
    assert_near(found.alphas_cumprod, values[f"expected.alphas_cumprod_{steps}"])


def test_a_published_checkpoint_is_read_and_says_that_test_chose_it(
    checkpoint, reference
):
    prior, described = (
        priors.load(f"mindeye1:{checkpoint}"),
        priors.describe(f"mindeye1:{checkpoint}"),
    )

    assert prior.config == reference[0]
    assert all(
        torch.equal(weights_of(reference[1])[name], each)
        for name, each in prior.state_dict().items()
    )
    assert (described.kind, list(described.caveats)) == ("mindeye1", [SELECTED_ON_TEST])
