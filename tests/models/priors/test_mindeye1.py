"""Diffusion priors of MindEye1 and MindEye2, compared with the reference's numbers."""

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.results.measurements import SELECTED_ON_TEST
from brainhive_cli.models import Decoded, priors
from brainhive_cli.models.priors import mindeye1, mindeye2
from tests.tools.golden_files import assert_near, read

TOLERANCE = 1e-4
"""Tolerance relative to the largest value, from the golden folder's README."""
Golden = dict[str, Tensor]


def weights_of(golden):
    """Return the reference's weights, by their names in its checkpoint."""
    weights = {}
    for key, value in golden.items():
        if "weights." in key:
            name = key.removeprefix("weights.")
            weights[name if name.startswith("net.") else f"net.{name}"] = value
    return weights


@pytest.fixture
def reference(golden):
    """Settings and golden values of MindEye1's prior at tiny widths."""
    metadata, values = read(golden / "havir" / "mindeye_prior.safetensors")
    net = metadata["net"]
    config = mindeye1.Config(
        tokens=net["num_tokens"],
        timesteps=metadata["prior"]["timesteps"],
        dim=net["dim"],
        depth=net["depth"],
        heads=net["heads"],
        dim_head=net["dim_head"],
    )
    return config, values


@pytest.fixture
def prior(reference, tmp_path):
    """Prior with the reference's weights, saved and loaded."""
    config, values = reference
    prior = config.build({}, None)
    prior.load_state_dict(weights_of(values))
    prior.save(tmp_path / "prior")
    loaded = priors.load(str(tmp_path / "prior"))
    assert loaded.kind == "mindeye1"
    return loaded


@pytest.fixture
def checkpoint(reference, tmp_path):
    """Checkpoint of the high level's training, as MindEye1 writes it."""
    _, golden = reference
    state = weights_of(golden)
    state["voxel2clip.lin1.bias"] = torch.zeros(3)  # of the brain model
    state["noise_scheduler.alphas_cumprod"] = golden["out.alphas_cumprod"]
    wrapped = {f"module.{name}": value for name, value in state.items()}
    path = tmp_path / "last.pth"
    torch.save({"epoch": 239, "model_state_dict": wrapped, "train_losses": [1.0]}, path)
    return path


def test_clean_tokens_are_predicted_as_by_the_reference(prior, reference):
    _, golden = reference
    image = golden["in.image"]
    times = golden["in.times"]
    brain = golden["in.brain"]

    with torch.no_grad():
        predicted = prior.net(image, times, brain)
        with_hidden_inputs = prior.net(image, times, brain, False, False)

    assert_near(predicted, golden["out.prediction"])
    assert_near(with_hidden_inputs, golden["out.prediction_all_dropped"])
    assert torch.allclose(prior.alphas_cumprod, golden["out.alphas_cumprod"])


def test_its_loss_is_the_references(prior, reference, monkeypatch):
    _, golden = reference
    monkeypatch.setattr(mindeye1, "DROP_PROBABILITY", 0.0)  # as in the golden values
    monkeypatch.setattr(torch, "randint", lambda *_, **__: golden["in.times"])
    monkeypatch.setattr(torch, "randn_like", lambda _: golden["in.noise"])

    with torch.no_grad():
        predicted, target = prior.learn(golden["in.brain"], golden["in.image"])
        loss = torch.nn.functional.mse_loss(predicted, target)

    assert_near(predicted, golden["out.loss_prediction"])
    assert torch.isclose(loss, golden["out.loss"], rtol=TOLERANCE)
    expected_target = golden["in.image"] * golden["out.image_embed_scale"]
    assert torch.isclose(target, expected_target).all()


def test_tokens_are_sampled_as_by_the_reference(prior, reference, monkeypatch):
    _, golden = reference
    brain = golden["in.brain"]
    noises = golden["in.sampling_noises"]
    decoded = Decoded({"image": brain, "latent": torch.ones(len(brain), 4, 2, 2)})
    monkeypatch.setattr(prior, "noises", lambda seeds: iter(noises[:, list(seeds)]))

    conditioning = prior.condition(decoded, range(len(brain)))

    # the reference's number was taken before its last division
    expected = golden["out.sample_times_scale"] / golden["out.image_embed_scale"]
    assert_near(conditioning.embeddings, expected)
    # other heads are conditions as they are
    assert conditioning.start is decoded.tensors["latent"]
    assert len(prior.null(2, [0, 1])) == 0


@pytest.fixture
def neurons(golden):
    """Settings and golden values of NEURONS' prior, which is MindEye2's."""
    metadata, values = read(golden / "neurons" / "prior.safetensors")
    config = mindeye2.Config(
        tokens=metadata["num_tokens"],
        timesteps=metadata["timesteps"],
        head="tokens",
        dim=metadata["dim"],
        depth=metadata["depth"],
        heads=metadata["heads"],
        dim_head=metadata["dim_head"],
    )
    return config, values


def test_mindeye2s_prior_noises_tokens_without_a_scale(neurons, monkeypatch):
    config, values = neurons
    prior = config.build({}, None)
    prior.load_state_dict(weights_of(values))
    brain = values["input.brain"]
    image = values["input.image"]
    keep = torch.stack([values["input.brain_keep"], values["input.image_keep"]])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: values["input.timesteps"])
    monkeypatch.setattr(torch, "randn_like", lambda _: values["input.noise"])
    # rows that are kept draw 1, the others 0
    monkeypatch.setattr(torch, "rand", lambda *_, **__: keep.float())

    with torch.no_grad():
        for probability, name in ((0.0, "loss_no_drop"), (0.5, "loss_with_drop")):
            monkeypatch.setattr(mindeye1, "DROP_PROBABILITY", probability)
            predicted, target = prior.learn(brain, image)
            loss = torch.nn.functional.mse_loss(predicted, target)
            assert_near(loss, values[f"expected.{name}"])
    assert_near(predicted, values["expected.prediction_with_drop"])
    assert torch.equal(target, image)
    n_steps = len(prior.betas)
    assert_near(prior.betas, values[f"expected.betas_{n_steps}"])
    assert_near(prior.alphas_cumprod, values[f"expected.alphas_cumprod_{n_steps}"])


def test_mindeye2s_network_predicts_as_the_reference(neurons):
    config, values = neurons
    prior = config.build({}, None)
    prior.load_state_dict(weights_of(values))
    brain = values["input.brain"]
    noisy = values["expected.noisy"]
    times = values["input.timesteps"]
    n_tokens = 2 * config.tokens + 1

    with torch.no_grad():
        predicted = prior.net(noisy, times, brain)
        with_hidden_inputs = prior.net(noisy, times, brain, False, False)
        bias = prior.net.bias(n_tokens)

    assert_near(predicted, values["expected.prediction"])
    assert_near(with_hidden_inputs, values["expected.prediction_all_dropped"])
    assert_near(bias, values["expected.rel_pos_bias"])


def test_mindeye2s_prior_samples_tokens_without_a_scale(neurons, tmp_path, monkeypatch):
    config, values = neurons
    brain = values["input.brain"]
    noises = values["input.sample_noises"]
    n_steps = len(noises) - 1
    prior = config.model_copy(update={"timesteps": n_steps}).build({}, None)
    prior.load_state_dict(weights_of(values))
    prior.save(tmp_path / "prior")
    state = {}
    for name, value in weights_of(values).items():
        state[f"diffusion_prior.{name}"] = value
    state["diffusion_prior.noise_scheduler.alphas_cumprod"] = prior.alphas_cumprod
    path = tmp_path / "last.pth"
    torch.save({"epoch": 149, "model_state_dict": state}, path)

    for reference in (str(tmp_path / "prior"), f"mindeye2:{path}"):
        loaded = priors.load(reference)
        described = priors.describe(reference)
        monkeypatch.setattr(
            loaded, "noises", lambda seeds: iter(noises[:, list(seeds)])
        )
        sampled = loaded.sample(brain, range(len(brain)))
        assert (loaded.kind, described.kind) == ("mindeye2", "mindeye2")
        assert_near(sampled, values[f"expected.sample_{n_steps}_steps"])
        # the authors of MindEye2 keep the last epoch
        assert not described.caveats
        expected = values[f"expected.alphas_cumprod_{n_steps}"]
        assert_near(loaded.alphas_cumprod, expected)


def test_a_published_checkpoint_has_the_caveat_of_its_selection(checkpoint, reference):
    config, values = reference

    prior = priors.load(f"mindeye1:{checkpoint}")
    described = priors.describe(f"mindeye1:{checkpoint}")

    assert prior.config == config
    expected = weights_of(values)
    for name, value in prior.state_dict().items():
        assert torch.equal(value, expected[name])
    assert described.kind == "mindeye1"
    assert list(described.caveats) == [SELECTED_ON_TEST]
