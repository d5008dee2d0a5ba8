"""Checkpoints of MindEye1, MindEye2, NEURONS and BrainHiVE, whole and in parts."""

import json
import re
from dataclasses import asdict, replace

import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from brainhive_cli import aligner
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import SELECTED_ON_TEST
from brainhive_cli.data.targets.encoder_keys import find_encoders
from brainhive_cli.models import Decoded, FusionEncoder, Head, SignalSpec
from brainhive_cli.training.alignment import (
    Aligner,
    Layout,
    model as aligners,
    model_files,
)
from brainhive_cli.training.alignment.layout import ATTENTION_NAMES, UPSTREAM_BACKBONES
from brainhive_cli.training.alignment.training.initialisation import load_start
from tests.tools.golden_files import assert_near

State = dict[str, Tensor]
VOXELS, SUBJECT, TOKENS, WIDTH = 7, 1, 4, 16
BRAIN = {"kind": "mindeye2", "hidden": 8, "blocks": 2}
PRIOR = {"kind": "mindeye2", "depth": 1, "heads": 2, "dim_head": 4, "timesteps": 3}
DECODERS = {
    "frames": 2,
    "maps": (8, 8, 8),
    "channels": (32, 64, 64),
    "concept_width": 8,
    "vocabulary": 64,
}
CAPTIONS = {
    "caption_width": 64,
    "caption_layers": 1,
    "caption_heads": 1,
    "caption_positions": 64,
}
NEURONS = {
    "kind": "neurons",
    "brain": BRAIN,
    "prior": PRIOR,
    **DECODERS,
    **CAPTIONS,
    "mode": "published",
}
HEADS = {
    "image": Head((TOKENS, WIDTH)),
    "text": Head((6,)),
    "motion": Head((2, TOKENS, WIDTH)),
    "mask": Head((2, 1, 8, 8)),
    "latents": Head((2, 4, 3, 3)),
    "concepts": Head((5,)),
    "caption": Head((60,)),
}
SPEC = SignalSpec((), 1, (SUBJECT,), (VOXELS,))


@pytest.fixture(scope="module")
def written_aligner():
    torch.manual_seed(0)
    model = Aligner(Layout(SPEC, HEADS, NEURONS, retrieval_heads=("image",))).eval()
    with torch.no_grad():
        shared = model.backbone.brain.backbone
        # so that a model without the constant is another one
        zeros = torch.zeros(1, shared.backbone_linear.in_features)
        assert shared.mix(zeros).abs().min() > 0.05
    return model


def feature_mixers():
    """Make MindEye2's mixer blocks over features, which have no effect on outputs."""
    torch.manual_seed(2)
    mixers = {}
    for number in range(2):
        layers = nn.Sequential(
            nn.Linear(8, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, 8)
        )
        block = nn.Sequential(nn.LayerNorm(8), layers).state_dict()
        mixers |= {
            f"backbone.mixer_blocks1.{number}.{name}": weights_of_block
            for name, weights_of_block in block.items()
        }
    return mixers


def as_published(written_aligner):
    """Return the weights of a model as a checkpoint of NEURONS names them."""
    state = {}
    for name, value in written_aligner.backbone.state_dict().items():
        name = name.removeprefix("brain.").replace(f"linears.{SUBJECT}.", "linears.0.")
        state[re.sub(r"^prior\.", "diffusion_prior.", name)] = value
    state |= feature_mixers()
    state["text_dec.decoder.lm_head.weight"] = state[
        "text_dec.decoder.transformer.wte.weight"
    ]
    for name in ("betas", "alphas_cumprod"):
        state[f"diffusion_prior.noise_scheduler.{name}"] = torch.zeros(3)
    return state


def save(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"epoch": 49, "model_state_dict": state, "train_losses": [0.5], "lrs": [5e-5]},
        path,
    )
    return path


def blurry_branch():
    """Make the layers of MindEye2's blurry branch, with their published names."""
    torch.manual_seed(1)
    kinds = ("UpDecoderBlock2D",) * 3
    projector = [nn.Conv2d(64, 512, 1, bias=False), nn.GroupNorm(1, 512), nn.ReLU()]
    projector += [nn.Conv2d(512, 512, 1, bias=False), nn.GroupNorm(1, 512), nn.ReLU()]
    return nn.ModuleDict(
        {
            "blin1": nn.Linear(8, 4 * 28 * 28),
            "bdropout": nn.Dropout(0.3),
            "bnorm": nn.GroupNorm(1, 64),
            "bupsampler": Decoder(64, 4, kinds, (32, 64, 128), layers_per_block=1),
            "b_maps_projector": nn.Sequential(*projector, nn.Conv2d(512, 512, 1)),
        }
    ).eval()


@pytest.fixture(scope="module")
def neurons(written_aligner, tmp_path_factory):
    path = (
        tmp_path_factory.mktemp("neurons")
        / "exp_1/subj_01/checkpoints/brain_model_prior_last.pth"
    )
    return save(as_published(written_aligner), path)


@pytest.fixture(scope="module")
def mindeye2(written_aligner, tmp_path_factory):
    """MindEye2's: no projection to text, no decoders, and a branch of blurry
    pictures.
    """
    state = {
        n: v
        for n, v in as_published(written_aligner).items()
        if n.startswith(("ridge", "backbone", "diffusion"))
    }
    state |= {
        f"backbone.{name}": weight
        for name, weight in blurry_branch().state_dict().items()
    }
    return save(
        state,
        tmp_path_factory.mktemp("hub") / "final_subj01_pretrained_40sess_24bs/last.pth",
    )


def test_the_names_are_those_of_the_manifest(written_aligner, golden):
    manifest = json.loads((golden / "neurons/state_dict_manifest.json").read_text())[
        "state_dicts"
    ]

    def general(names):
        return {
            re.sub(r"\.\d+(?=\.)", ".N", name)
            for name in names
            if "noise_scheduler" not in name
        }

    assert general(as_published(written_aligner)) == general(
        manifest["brain_model_prior.pth"]
    )


def test_neurons_checkpoint_is_the_model_that_wrote_it(written_aligner, neurons):
    loaded_model, signal, subject = (
        aligner.load(neurons),
        torch.randn(3, VOXELS, 1),
        torch.zeros(3, dtype=torch.long),
    )

    loaded_prediction, written_prediction = (
        tensor.decode(signal, subject, range(3))
        for tensor in (loaded_model, written_aligner)
    )

    assert isinstance(loaded_prediction, Decoded)
    assert (
        loaded_prediction.tensors.keys()
        == written_prediction.tensors.keys()
        == HEADS.keys() - {"motion"}
    )
    assert all(
        torch.allclose(tensor, written_prediction.tensors[name], atol=1e-4)
        for name, tensor in loaded_prediction.tensors.items()
    )
    shapes = {name: head.shape for name, head in loaded_model.layout.heads.items()}
    assert shapes == {name: head.shape for name, head in HEADS.items()}
    assert loaded_model.layout.backbone["mode"] == "published"
    assert (loaded_model.learned.dataset, loaded_model.learned.subjects) == (
        "cc2017",
        (SUBJECT,),
    )
    names = {
        key: config.name
        for key, config in find_encoders(loaded_model.layout.encoders).items()
    }
    assert names == {
        tensor: tensor for tensor in ("clip-bigg-tokens-view-2", "clip-bigg-text")
    }
    assert SELECTED_ON_TEST in loaded_model.learned.caveats


def test_mindeye2s_prior_and_blurry_branch_get_their_inputs(written_aligner, mindeye2):
    loaded_model, signal = aligner.load(mindeye2), torch.randn(3, VOXELS, 1)
    subject, branch = torch.zeros(3, dtype=torch.long), blurry_branch()
    brain, prior = written_aligner.backbone.brain, written_aligner.backbone.prior

    decoded = loaded_model.decode(signal, subject, range(3)).tensors

    assert (loaded_model.learned.dataset, loaded_model.learned.selection) == (
        "nsd",
        "last epoch",
    )
    with torch.no_grad():
        expected_tokens = prior.sample(
            brain.predict_with_voxel_tokens(signal, subject)[0], range(3)
        )
        assert torch.allclose(decoded["image"], expected_tokens, atol=1e-5)
        mixed = brain.backbone.mix(brain.ridge["linears"](signal, subject))
        maps = branch["bnorm"](branch["blin1"](mixed).reshape(3, 64, 7, 7))
        expected = branch["b_maps_projector"](maps).flatten(2).permute(0, 2, 1)
        assert torch.allclose(decoded["blurry"], branch["bupsampler"](maps), atol=1e-5)
    assert decoded["blurry"].shape == (3, 4, 28, 28)
    assert torch.allclose(decoded["maps"], expected, atol=1e-5)


@pytest.mark.nightly
def test_a_model_starts_in_parts_from_several_checkpoints(
    written_aligner, neurons, mindeye2, tmp_path
):
    """As in NEURONS, backbone and prior start from MindEye2, and the ridge is new."""
    plain_fields = {**NEURONS, "mode": "right"}
    new_aligner = Aligner(
        Layout(
            replace(SPEC, widths=(5,)), HEADS, plain_fields, retrieval_heads=("image",)
        )
    )
    initial_weights, own_weights = (
        new_aligner.backbone.state_dict(),
        written_aligner.backbone.state_dict(),
    )
    initial_weights = {name: weight.clone() for name, weight in initial_weights.items()}
    torch.save({"proj": torch.ones(WIDTH, 6)}, tmp_path / "coca.pth")

    parts = {
        "brain.backbone": mindeye2,
        "prior": mindeye2,
        "brain.clipproj": tmp_path / "coca.pth",
    }
    for partial_name, path in parts.items():
        load_start(new_aligner, path, f"backbone.{partial_name}")

    for name, weight in new_aligner.backbone.state_dict().items():
        if name == "brain.clipproj.proj":
            assert (weight == 1).all()
        else:
            is_taken = name.startswith(("brain.backbone.", "prior."))
            assert torch.equal(
                weight, own_weights[name] if is_taken else initial_weights[name]
            ), name


def test_gpt2_starts_from_files_with_and_without_a_last_layer(
    tmp_path,
):
    module_name = "backbone.text_dec.decoder.transformer"
    for prefix, ending in (("", ".safetensors"), ("decoder.transformer.", ".pth")):
        new_aligner = Aligner(Layout(SPEC, HEADS, NEURONS, retrieval_heads=("image",)))
        weights = new_aligner.get_submodule(module_name).state_dict()
        published = {
            prefix + name: torch.randn_like(value) for name, value in weights.items()
        }
        surplus = {
            f"{prefix}h.0.attn.bias": torch.ones(1, 1, 4, 4),
            "lm_head.weight": torch.zeros(2, 2),
        }
        path = tmp_path / f"model{ending}"
        (save_file if ending == ".safetensors" else torch.save)(
            published | surplus, path
        )

        load_start(new_aligner, path, module_name)

        for name, value in new_aligner.get_submodule(module_name).state_dict().items():
            assert torch.equal(value, published[prefix + name]), name


def test_a_checkpoint_without_a_part_or_with_others_is_one_line(
    written_aligner, tmp_path
):
    for absent_prefix, added, pattern in (
        (
            "diffusion_prior.net.",
            {},
            "diffusion prior",
        ),
        ("nothing", {"adapter.weight": torch.zeros(2)}, "backbone.adapter.weight"),
        ("backbone.clip_proj.0", {}, "MindEye2"),
    ):
        state = {
            name: tensor
            for name, tensor in as_published(written_aligner).items()
            if not name.startswith(absent_prefix)
        }
        with pytest.raises(BrainhiveError, match=pattern):
            aligner.load(
                save(state | added, tmp_path / "subj_01/brain_model_prior.pth")
            )


Golden = dict[str, Tensor]


PUBLISHED = "autoencoder_subj05_4x_locont_no_reconst"


def read_golden(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118


def first_subject(golden):
    """Return the subject index of each signal of a golden file."""
    return torch.zeros(len(golden["in.voxels"]), dtype=torch.long)


def weights_of(golden):
    return {
        name.removeprefix("weights."): tensor
        for name, tensor in golden.items()
        if "weights." in name
    }


def save_mindeye1(state, path):
    """Write a checkpoint as MindEye1's save_ckpt does, by torch before 2.1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scheduler = {
        "total_steps": 9,
        "anneal_func": OneCycleLR._annealing_cos,
        "_last_lr": [3e-4],
    }
    optimizer = {
        "state": {0: {"step": 3, "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 3e-4}],
    }
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
def low(golden):
    """Golden values: MindEye1's low level at tiny widths."""
    return read_golden(golden / "havir/structural.safetensors")


@pytest.fixture
def low_file(low, tmp_path):
    """The checkpoint, with the attention names of diffusers 0.13."""
    state = {}
    for name, value in weights_of(low).items():
        old_name = next(
            (
                old_name
                for old_name, new_name in ATTENTION_NAMES.items()
                if f".{new_name}." in name
            ),
            "",
        )
        state[
            f"module.{name.replace(ATTENTION_NAMES.get(old_name, '?'), old_name)}"
        ] = value
    assert any(".proj_attn." in name for name in state)
    assert not any(".to_" in name for name in state)
    return save_mindeye1(state, tmp_path / PUBLISHED / "epoch120.pth")


@pytest.fixture
def high(golden):
    """Golden values: MindEye1's high level at tiny widths."""
    return read_golden(golden / "havir/semantic.safetensors")


@pytest.fixture
def high_file(high, tmp_path):
    """The checkpoint, which holds the diffusion prior and the brain model."""
    state = {f"voxel2clip.{name}": value for name, value in weights_of(high).items()}
    shape = high["out.projected"].shape[1:]
    state |= {
        "net.learned_query": torch.zeros(shape),
        "noise_scheduler.betas": torch.zeros(100),
    }
    return save_mindeye1(
        state, tmp_path / "prior_257_final_subj02_bimixco_softclip_byol/last.pth"
    )


def test_the_low_level_gives_the_latents_of_the_reference(low, low_file):
    model = aligner.load(low_file)

    with torch.no_grad():
        predictions = model.predict(low["in.voxels"][..., None], first_subject(low))

    assert model.layout.spec == SignalSpec((), 1, (5,), (low["in.voxels"].shape[1],))
    assert_near(predictions["latent"], low["out.latent"])
    assert predictions.keys() == {"latent"}
    assert model.layout.heads["latent"].target == "vd-vae"


def test_the_high_level_gives_the_tokens_of_the_reference(high, high_file):
    model, voxels = aligner.load(high_file), high["in.voxels"][..., None]

    with torch.no_grad():
        subject = first_subject(high)
        predictions, compared = (
            model.predict(voxels, subject),
            model.encode_signal(voxels, subject),
        )

    assert model.layout.spec.subjects == (2,)
    assert model.layout.heads["image"].shape == high["out.projected"].shape[1:]
    assert_near(predictions["image"].flatten(1), high["out.backbone"])
    assert_near(predictions["image_projected"], high["out.projected"])
    assert torch.equal(compared, predictions["image_projected"].flatten(1))


DIMS = {"vae": 6, "CLIP-ViT-B-32-laion2B-s34B-b79K": 4}
KEPT = {
    "architectures": ["BrainCLIPModel"],
    "dropout": 0.1,
    "intermediate_size": 16,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "proj_meta": DIMS,
    "transformers_version": "4.57.3",
}
"""What a config holds apart from the sizes of the brain encoder."""


Reference = dict[str, Tensor]


@pytest.fixture
def reference(golden, kind):
    """Signals, weights and output of one of the BrainHiVE repository's brain
    encoders.
    """
    return load_file(golden / "backbones" / f"{kind}.safetensors")


def config_of(reference):
    """The config of a model with this brain encoder."""
    _, channels, samples = reference["signal"].shape
    sizes = {"brain_channels": channels, "brain_sequence_length": samples}
    return KEPT | sizes | {"hidden_size": reference["output"].shape[1]}


def state_of(reference):
    """Name the weights of a brain encoder as upstream's whole model does, together with
    a fusion encoder.
    """
    brain = {
        f"brain_model.backbone.{k[8:]}": v
        for k, v in reference.items()
        if k.startswith("weights.")
    }
    torch.manual_seed(0)
    fuser = FusionEncoder(DIMS, reference["output"].shape[1], 16)
    vision = {f"vision_model.{k}": v for k, v in fuser.state_dict().items()}
    return {**brain, **vision, "logit_scale": torch.tensor(3.5)}


def write(
    folder,
    config,
    state,
    file="model.safetensors",
):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", UPSTREAM_BACKBONES)
def test_an_upstream_folder_gives_the_references_output(reference, tmp_path, kind):
    """Golden values: the BrainHiVE repository's encoders; without a name the kind is
    known by its weights.
    """
    for named_pairs, file in zip(
        ({"brain_backbone": kind}, {}), model_files.WEIGHT_FILES, strict=True
    ):
        config = config_of(reference) | named_pairs
        model = aligners.load(write(tmp_path / file, config, state_of(reference), file))

        with torch.no_grad():
            token = model.encode_signal(reference["signal"], reference["subject_index"])
            image = model.encode_image(
                {key: torch.randn(2, width) for key, width in DIMS.items()}
            )

        assert (token - reference["output"]).abs().max() < 1e-5
        assert image.shape == (2, config["hidden_size"])
        assert model.losses == {"0.logit_scale": torch.tensor(3.5)}
        assert model.layout.spec.names == tuple(
            map(str, range(config["brain_channels"]))
        )
        assert list(model.layout.dims) == list(DIMS)
        assert model.layout.encoders == {key: key for key in DIMS}
    model.save(tmp_path / "ours")
    reloaded = aligners.load(tmp_path / "ours")
    assert asdict(reloaded.layout) == asdict(model.layout)
    assert all(
        torch.equal(reloaded.state_dict()[name], value)
        for name, value in model.state_dict().items()
    )
