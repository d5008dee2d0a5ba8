"""Architecture of brain models, read from configs and shapes of weights."""

from math import prod

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.models import FUSED_TARGET, Head, SignalSpec
from brainhive_cli.training.alignment.layout import (
    FORMAT,
    Layout,
    describe_history,
    find_subjects,
    find_token_axes,
    holds_model,
    is_checkpoint,
    is_upstream,
    read_checkpoint,
    read_upstream,
)
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

SPEC = make_signal_spec(("Oz", "Pz"), 5)
HEADS = {
    "text": Head((3,), "bert"),
    "token": Head((6,), FUSED_TARGET),
    "image": Head((2, 4), "clip"),
}


def state_of(**shapes):
    """Make weights that hold their positions. `__` in a name stands for a dot."""
    return {
        name.replace("__", "."): torch.arange(float(prod(shape))).reshape(shape)
        for name, shape in shapes.items()
    }


def write_checkpoint(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 3, "model_state_dict": state}, path)
    return path


LOW = state_of(
    lin0__0__weight=(6, 9),
    lin0__0__bias=(6,),
    mlp__0__0__weight=(6, 6),
    mlp__1__0__weight=(6, 6),
    mlp__2__0__weight=(6, 6),
    norm__weight=(5,),
    lin1__weight=(5 * 4 * 4, 6),
    maps_projector__0__weight=(2, 5),
    upsampler__conv_norm_out__weight=(2,),
    upsampler__conv_out__weight=(4, 2, 3, 3),
    **{
        f"upsampler__up_blocks__{stage}__resnets__{layer}__conv1__weight": (width, 1)
        for stage, width in enumerate((8, 4, 2))
        for layer in range(3)
    },
    upsampler__mid_block__attentions__0__query__weight=(2, 2),
    upsampler__mid_block__attentions__0__proj_attn__bias=(2,),
)
HIGH = state_of(
    lin0__0__weight=(6, 9),
    mlp__0__0__weight=(6, 6),
    mlp__1__0__weight=(6, 6),
    lin1__weight=(3 * 7, 6),
    projector__0__weight=(7,),
    projector__2__weight=(11, 7),
)
SHARED = state_of(
    **{f"ridge__linears__{index}__weight": (6, 20 + index) for index in range(7)},
    backbone__clip_proj__0__weight=(7,),
    backbone__backbone_linear__weight=(4 * 7, 6),
    backbone__mixer_blocks1__0__weight=(2,),
    backbone__mixer_blocks2__0__weight=(2,),
    backbone__mixer_blocks2__1__weight=(2,),
    backbone__mixer_blocks2__2__weight=(2,),
    backbone__blin1__weight=(5 * 3 * 3, 6),
    backbone__bnorm__weight=(5,),
    backbone__bupsampler__up_blocks__0__weight=(2,),
    backbone__bupsampler__up_blocks__1__weight=(2,),
    backbone__bupsampler__conv_out__weight=(4, 2),
    backbone__b_maps_projector__6__weight=(13, 2),
    clipproj__proj=(7, 10),
)


def test_mindeye1s_low_level_is_a_decoder_of_latents(tmp_path):
    layout, state = read_checkpoint(
        write_checkpoint(LOW, tmp_path / "x_subj05_y/last.pth")
    )
    assert layout.spec == SignalSpec((), 1, (5,), (9,))
    # two of three stages double a side of 4
    assert layout.heads == {"latent": Head((4, 16, 16), "vd-vae")}
    assert layout.backbone == {
        "kind": "havir",
        "hidden": 6,
        "blocks": 3,
        "features": 5,
        "decoder_channels": [2, 4, 8],
        "decoder_layers": 2,
    }
    assert layout.encoders == {"vd-vae": "vd-vae"}
    assert layout.retrieval_heads == ("latent",)
    attention = "backbone.structural.upsampler.mid_block.attentions.0"
    for name, old_text in (
        ("backbone.inputs.spatial.5.0.weight", "lin0.0.weight"),
        ("backbone.structural.lin1.weight", "lin1.weight"),
        (f"{attention}.to_q.weight", f"{attention[20:]}.query.weight"),
        (f"{attention}.to_out.0.bias", f"{attention[20:]}.proj_attn.bias"),
    ):
        assert torch.equal(state[name], LOW[old_text])
    assert len(state) == len(LOW) - 1


def test_mindeye1s_high_level_is_of_image_tokens(tmp_path):
    # its diffusion prior lies next to the model
    whole_values_by_name = {
        f"module.voxel2clip.{name}": value for name, value in HIGH.items()
    }
    whole_values_by_name["module.net.weight"] = torch.ones(2)
    path = write_checkpoint(
        whole_values_by_name, tmp_path / "prior_final_subj2/last.pth"
    )
    layout, state = read_checkpoint(path)
    assert layout.spec == SignalSpec((), 1, (2,), (9,))
    tokens = Head((3, 7), "vd-image")
    assert layout.heads == {"image": tokens, "image_projected": tokens}
    assert layout.backbone == {
        "kind": "havir",
        "hidden": 6,
        "blocks": 2,
        "projector": 11,
    }
    assert layout.retrieval_heads == ("image_projected",)
    assert state.keys() == {
        "backbone.inputs.semantic.2.0.weight",
        "backbone.semantic.mlp.0.0.weight",
        "backbone.semantic.mlp.1.0.weight",
        "backbone.semantic.lin1.image.weight",
        "backbone.semantic.projector.image.0.weight",
        "backbone.semantic.projector.image.2.weight",
    }
    assert describe_history(path).selection == "test"


def test_mindeye2s_model_has_a_ridge_of_each_person(tmp_path):
    path = write_checkpoint(SHARED, tmp_path / "multisubject_subj03_hypatia/last.pth")
    layout, state = read_checkpoint(path)
    people = (1, 2, 4, 5, 6, 7, 8)
    assert layout.spec == SignalSpec((), 1, people, tuple(range(20, 27)))
    assert layout.backbone == {"kind": "mindeye2", "hidden": 6, "blocks": 3}
    assert layout.heads == {
        "image": Head((4, 7), "clip-bigg-tokens"),
        "text": Head((10,), "clip-bigg-text"),
        "blurry": Head((4, 6, 6)),
        "maps": Head((9, 13)),
    }
    assert layout.encoders == {
        name: name for name in ("clip-bigg-tokens", "clip-bigg-text")
    }
    assert layout.retrieval_heads == ("image",)
    assert torch.equal(
        state["backbone.ridge.linears.4.weight"], SHARED["ridge.linears.2.weight"]
    )
    assert {"backbone.backbone.blin1.weight", "backbone.clipproj.proj"} <= state.keys()
    assert not any("mixer_blocks1" in name for name in state)

    learned = describe_history(path)
    assert (learned.dataset, learned.recordings) == ("nsd", "nsd")
    assert learned.people == {"nsd": people}
    assert learned.has_all_subjects
    assert learned.selection == "last epoch"


def test_neurons_files_are_of_clips_and_chosen_by_the_test(tmp_path):
    shared_targets = {name: SHARED[name] for name in SHARED if "ridge" not in name}
    shared_targets["ridge.linears.0.weight"] = torch.ones(6, 8)
    path = write_checkpoint(
        shared_targets,
        tmp_path / "exp_1/subj_03/checkpoints/brain_model_last.pth",
    )
    layout, _ = read_checkpoint(path)
    assert layout.spec == SignalSpec((), 1, (3,), (8,))
    assert layout.heads["image"].target == "clip-bigg-tokens-view-2"
    learned = describe_history(path)
    assert learned.people == {"cc2017": (3,)}
    assert learned.recordings == "cc2017"
    assert learned.selection == "test"
    assert learned.has_all_subjects


def test_the_path_says_whose_voxels_a_file_takes(tmp_path):
    everybody = tuple(range(1, 9))
    for name, expected in (
        ("final_subj01_x/last.pth", (1,)),
        ("subj_8/last.pth", (8,)),
        ("subj1/subj02/last.pth", (2,)),
        ("subj05/a/b/c/last.pth", (5,)),
        ("multisubject_subj08/last.pth", everybody[:-1]),
        ("multisubject_subj01/last.pth", everybody[1:]),
    ):
        assert find_subjects(tmp_path / name) == expected
    for name in ("last.pth", "subj09/last.pth", "subj15/x.pth", "subj05/a/b/c/d/x.pth"):
        with pytest.raises(BrainhiveError):
            find_subjects(tmp_path / name)
    # which was tuned to a person after a training on all others
    tuned_path = write_checkpoint(
        SHARED, tmp_path / "final_subj01_pretrained_40sess/last.pth"
    )
    assert describe_history(tuned_path).people == {"nsd": everybody}


def test_checkpoints_and_whole_models_are_told_from_others(tmp_path):
    for number, (state, is_whole) in enumerate(
        ((LOW, True), (SHARED, True), ({"net.weight": torch.ones(2)}, False))
    ):
        path = write_checkpoint(state, tmp_path / f"{number}.pth")
        assert is_checkpoint(path)
        assert holds_model(path) == is_whole
    (tmp_path / "a.pt").touch()
    (tmp_path / "a.bin").touch()
    assert is_checkpoint(tmp_path / "a.pt")
    assert not is_checkpoint(tmp_path / "a.bin")
    assert not is_checkpoint(tmp_path / "b.pth")
    assert not is_checkpoint(tmp_path)


def test_retrieval_compares_the_named_head_token_or_only_head():
    def compared(names, named_heads=()):
        heads = {name: HEADS[name] for name in names}
        return Layout(SPEC, heads, {}, retrieval_heads=named_heads).compared_heads

    assert compared(("text", "token", "image")) == ("token",)
    assert compared(("text",)) == ("text",)
    assert compared(("text", "token"), ("text",)) == ("text",)
    with pytest.raises(RecipeError):
        compared(("text", "image"))


def test_targets_of_heads_are_made_from_their_embeddings():
    layout = Layout(SPEC, HEADS, {}, dims={"a": 3, "b": 4})
    assert layout.list_keys(["text", "image"]) == {"bert", "clip"}
    assert layout.list_keys(["token", "image"]) == {"a", "b", "clip"}
    assert layout.compared_keys == {"a", "b"}
    assert layout.fused_heads == {"token": HEADS["token"]}


def test_only_heads_of_the_model_are_compared():
    Layout(SPEC, HEADS, {}, retrieval_heads=("text",)).check()
    with pytest.raises(RecipeError):
        Layout(SPEC, HEADS, {}, retrieval_heads=("text", "depth")).check()


def test_a_layout_is_written_as_plain_values():
    fields = make_token_layout(SPEC, 6, {"e": 8}).as_dict()
    assert fields["format"] == FORMAT == 8
    assert fields["heads"] == {
        "token": {"shape": (6,), "target": FUSED_TARGET, "digest": ""}
    }
    assert fields["spec"]["names"] == ("Oz", "Pz")
    assert fields["dims"] == {"e": 8}


def test_vectors_or_as_many_tokens_are_fused():
    assert find_token_axes({"a": (3,), "b": (5,)}) == ()
    assert find_token_axes({"a": (4, 3), "b": (4, 5)}) == (4,)
    for shapes in (
        {"a": (4, 3), "b": (5, 3)},
        {"a": (3,), "b": (4, 3)},
        {"a": (2, 2, 3), "b": (2, 2, 3)},
    ):
        with pytest.raises(RecipeError):
            find_token_axes(shapes)


UPSTREAM = {"brain_channels": 2, "brain_sequence_length": 5, "proj_meta": {"e": 8}}


def upstream_state(**fields):
    return state_of(
        vision_model__block__layers__0__ff__w1__weight=(24, 6),
        vision_model__proj_maps__e__weight=(6, 8),
        brain_model__backbone__other__weight=(2,),
        logit_scale=(1,),
        **fields,
    )


def test_an_upstream_config_must_say_what_weights_do_not():
    for absent in UPSTREAM:
        config = {name: value for name, value in UPSTREAM.items() if name != absent}
        with pytest.raises(BrainhiveError):
            read_upstream(config, upstream_state())
    # no brain encoder has such weights, and none is named
    with pytest.raises(BrainhiveError):
        read_upstream(UPSTREAM, upstream_state())


def test_sizes_of_upstreams_models_are_in_their_weights():
    config = {**UPSTREAM, "brain_backbone": "nice", "dropout": 0.3}
    layout, state = read_upstream(config, upstream_state())
    assert layout.spec == SignalSpec(("0", "1"), 5, (), ())
    assert layout.backbone == {"kind": "nice", "dropout": 0.3}
    assert layout.fuser == {
        "kind": "fusion_encoder",
        "intermediate_size": 24,
        "dropout": 0.3,
    }
    assert layout.heads == {"token": Head((6,), FUSED_TARGET)}
    assert layout.dims == {"e": 8}
    assert layout.encoders == {"e": "e"}
    assert {"backbone.other.weight", "losses.0.logit_scale"} <= state.keys()
    assert is_upstream(upstream_state())
    assert not is_upstream(state)


def test_atms_shared_token_is_the_last_row_of_its_table():
    table_name = "brain_model__backbone__encoder__enc_embedding__subject_embedding__"
    table, shared = (
        f"{table_name}subject_embedding__weight",
        f"{table_name}shared_embedding",
    )
    upstream = upstream_state(**{table: (3, 4), shared: (1, 4)})
    config = {**UPSTREAM, "brain_backbone": "atm"}
    layout, state = read_upstream(config, upstream)
    assert layout.spec.subjects == (0, 1, 2, 3)
    assert layout.spec.widths == (2,) * 4
    name = table.replace("__", ".").removeprefix("brain_model.")
    expected = list(upstream[f"brain_model.{name}"]) + list(
        upstream[shared.replace("__", ".")]
    )
    assert torch.equal(state[name], torch.stack(expected))
