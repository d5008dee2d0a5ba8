"""From YAML, flags and overrides to one recipe; each test resolves a real recipe of a
command.
"""

import json
import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter

from brainhive_cli.commands.explain import Recipe as Explanation
from brainhive_cli.commands.workflow import Recipe as Workflow
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes import (
    OneRun,
    Pattern,
    RunOptions,
    parts,
    read_ranges,
    read_recipe,
    recipe as core_recipe,
    refuse_idle,
    require_names,
    split_commas,
)
from brainhive_cli.core.recipes.keys import Cluster, merge_with_default
from brainhive_cli.data.files import subjects
from brainhive_cli.evaluation.reconstruction.recipe import Recipe as Reconstruction
from brainhive_cli.training.alignment.recipe import Recipe


def resolve(*overrides, recipe=None, **flags):
    flags = {key.replace("__", "."): value for key, value in flags.items()}
    return Recipe.resolve(
        "train-align", None if recipe is None else str(recipe), flags, overrides
    )


@pytest.fixture
def write_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "train: {epochs: 3, lr: 0.1, batch_size: 8}\n"
        "backbone: {kind: nice, dropout: 0.4}\n"
    )
    return path


def test_overrides_win_over_flags_and_flags_over_the_recipe(write_recipe):
    train = resolve(
        "train.lr=0.3",
        recipe=write_recipe,
        train__batch_size=16,
        train__lr=0.2,
        train__epochs=None,
    ).train
    assert (train.epochs, train.batch_size, train.lr) == (3, 16, 0.3)


def test_an_unknown_key_is_named_and_the_nearest_suggested():
    for override, key, guess in (
        ("train.epoch=3", "'train.epoch'", " train.epochs?"),
        ("backbone.droput=0", "'backbone.droput'", " backbone.dropout?"),
        ("paths.data.deeper=x", "paths.data", ""),
    ):
        with pytest.raises(RecipeError) as caught:
            resolve(override)
        assert key in caught.value.message
        assert guess in caught.value.hint


WRONG = (
    ("train.epochs=many", "train.epochs: must be a whole number (integer)"),
    (
        "mode=sideways",
        "mode: must be 'intra', 'inter', 'joint' or 'finetune', got 'sideways'",
    ),
    ("encoders=['hub:']", "the reference 'hub:' names no encoder"),
    ("train.epochs=[1", "is not valid YAML"),
    ("train.epochs=" + "9" * 5000, "train.epochs"),
    ("subjects=" + "[1, " * 30 + "]" * 30, ""),
    (
        "run.cluster.modules=['../theirs']",
        "run.cluster.modules.0: String should match pattern",
    ),
    ("seeds=1-999999", "seeds: Value should have at most 10000 items"),
)


def test_an_invalid_value_is_shown_with_its_key_in_one_line():
    for override, message in WRONG:
        with pytest.raises(RecipeError) as caught:
            resolve(override)
        assert (
            message in caught.value.message and "\n" not in caught.value.in_one_line
        ), override[:50]
        assert len(caught.value.in_one_line) < 1000


def test_an_unknown_part_or_recipe_suggests_existing_names():
    with pytest.raises(RecipeError) as caught:
        resolve("backbone.kind=nise")
    guess, _, names = caught.value.hint.partition("? ")
    assert guess.endswith(" nice")
    assert names.endswith(f": {', '.join(parts.list_kinds('backbones'))}")
    with pytest.raises(RecipeError) as caught:
        resolve(recipe="papres/nice")
    guess, _, names = caught.value.hint.partition("? ")
    assert guess.endswith(" papers/nice")
    assert "train-align: " in names
    assert "demo, demo-havir, " in names
    assert ", papers/alignvis-inter, " in names
    assert "prior" not in names
    assert resolve(recipe="demo") == resolve(recipe="demo/train-align")


def test_lists_take_commas_or_brackets_and_no_is_a_precision():
    for text in ("1,2,5", "[1, 2, 5]", " 1, 2 ,5,"):
        assert (
            resolve(f"subjects={text}").subjects
            == resolve(subjects=text.strip("[] ")).subjects
            == [1, 2, 5]
        )
    assert resolve("seeds=7").seeds == [7]
    assert [encoder.name for encoder in resolve(encoders="vae").encoders] == ["vae"]
    assert resolve("run.mixed_precision=no").run.mixed_precision == "no"


def test_only_a_change_of_kind_drops_the_settings_of_a_part(
    write_recipe,
):
    assert resolve(recipe=write_recipe, backbone__kind="nice").backbone.dropout == 0.4
    assert (
        resolve(
            "backbone.dropout=0.1", recipe=write_recipe, backbone__kind="nice"
        ).backbone.dropout
        == 0.1
    )
    other_backbone = resolve(recipe=write_recipe, backbone__kind="brain_mlp").backbone
    assert other_backbone == type(other_backbone)()
    dataset = resolve("dataset.noise=2", dataset="demo").dataset
    assert (dataset.kind, dataset.noise) == ("demo", 2.0)
    prior = resolve(
        "backbone.prior.kind=fusion-prior", recipe="papers/neurons"
    ).backbone.prior
    assert prior.kind == "fusion-prior"


def test_the_fingerprint_ignores_only_settings_of_execution():
    recipe = resolve()
    neutral_overrides = [
        "run.processes=2",
        "run.device=cpu",
        "run.mixed_precision=bf16",
        "run.workers=0",
    ]
    neutral_overrides += [
        "run.trackers=tensorboard,wandb",
        "published={source: a paper, values: {top1: 0.5}}",
    ]
    neutral_overrides += ["paths.runs=elsewhere"]
    assert {resolve(override).fingerprint() for override in neutral_overrides} == {
        recipe.fingerprint()
    }
    changing_overrides = [
        f"{key}={value}" for key, value in {"seeds": 1, "train.lr": 0.1}.items()
    ]
    changing_overrides += [
        "backbone.dropout=0.5",
        "backbone.kind=nice",
        "dataset.root=/elsewhere",
        "signal.scale=2",
    ]
    assert len(
        {recipe.fingerprint()} | {resolve(o).fingerprint() for o in changing_overrides}
    ) == 1 + len(changing_overrides)


def test_a_fingerprint_depends_only_on_changed_defaults(
    monkeypatch,
):
    initial_fingerprints_by_name = {
        override: resolve(override).fingerprint()
        for override in ("train.epochs=3", "train.lr=0.1")
    }

    # as if a later version had one key more, and one with another default
    class Later(Recipe):
        later: int = 7

    def fingerprint(*overrides):
        return Later.resolve("train-align", None, {}, overrides).fingerprint()

    assert {
        override: fingerprint(override) for override in initial_fingerprints_by_name
    } == initial_fingerprints_by_name
    assert (
        fingerprint("train.lr=0.1", "later=8")
        != initial_fingerprints_by_name["train.lr=0.1"]
    )
    monkeypatch.setattr(core_recipe, "DEFAULTS_VERSION", 0)
    assert fingerprint("train.lr=0.1") != initial_fingerprints_by_name["train.lr=0.1"]


def test_contents_count_also_where_their_name_is_the_default():
    recipe = Reconstruction.resolve("reconstruct", None, {}, [])
    digests = [{recipe.prior.source: digest} for digest in "ab"]
    pinned = [
        recipe.model_copy(update={"digests": each}).fingerprint() for each in digests
    ]
    assert len({recipe.fingerprint()} | set(pinned)) == 3


def test_a_fingerprint_is_of_contents_whatever_their_path():
    def fingerprint(digests, *overrides):
        recipe = resolve(*overrides)
        return recipe.model_copy(update={"digests": digests}).fingerprint()

    local_root, other_root = "dataset.root=/here", "dataset.root=/there"
    here = fingerprint({"/here": "1"}, local_root)
    assert len(here) == 10
    assert here == fingerprint({"/there": "1"}, other_root)
    assert here != fingerprint({"/here": "2"}, local_root)
    assert here != fingerprint({}, local_root) != fingerprint({}, other_root)
    # what no key names counts, too; stores by their names
    file, other_fingerprint = fingerprint({"file a": "1"}), fingerprint({"file b": "1"})
    assert file == other_fingerprint
    assert len({file, fingerprint({}), fingerprint({"a": "2"})}) == 3
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "1", "a": "2"})
    for store in ("signals ", "embeddings "):
        pair = {f"{store}a": "1", f"{store}b": "2"}
        swapped = {f"{store}a": "2", f"{store}b": "1"}
        assert fingerprint(pair) != fingerprint(swapped)
        assert fingerprint(pair) == fingerprint(dict(reversed(pair.items())))


def test_mixed_precision_changes_the_fingerprint():
    for mixed, precision in (("no", "fp32"), ("bf16", "bf16"), (None, "bf16")):
        recipe = resolve("train.epochs=3", run__mixed_precision=mixed)
        assert recipe.train.precision == precision
        plain_recipe = resolve("train.epochs=3", f"train.precision={precision}")
        assert recipe.fingerprint() == plain_recipe.fingerprint()


def test_defaults_written_out_have_the_fingerprint_of_defaults(tmp_path):
    path = tmp_path / "resolved.yaml"
    path.write_text(Recipe().to_yaml())
    assert resolve(recipe=path).fingerprint() == Recipe().fingerprint()
    path.write_text("# nothing\n")
    assert resolve(recipe=path).model_copy(update={"recipe_name": ""}) == Recipe()


def test_the_resolved_recipe_runs_as_it_is(tmp_path, write_recipe):
    recipe = resolve(
        "signal.window_ms=[0, 500]",
        "encoders=vae,hub:a/b",
        "run.mixed_precision=no",
        recipe=write_recipe,
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml())
    assert resolve(recipe=path) == recipe


def test_paths_lie_below_home(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    assert resolve().paths.under_home("runs") == tmp_path / "runs"
    assert resolve("paths.runs=/elsewhere").paths.under_home("runs") == Path(
        "/elsewhere"
    )
    monkeypatch.delenv("BRAINHIVE_HOME")
    assert resolve().paths.under_home("data") == Path("data")


def test_an_override_keeps_the_other_settings_of_a_default_part():
    for override in ("backbone.prior.depth=2", "backbone.prior={depth: 2}"):
        prior = resolve(override, recipe="papers/neurons").backbone.prior
        assert (prior.depth, prior.heads, prior.dim_head) == (2, 32, 52)


def test_a_recipe_that_extends_another_lays_its_keys_over_it(home):
    (home / "base.yaml").write_text(
        "mode: joint\n"
        "seeds: [1, 2]\n"
        "train: {epochs: 3, lr: 0.1}\n"
        "backbone: {kind: nice}\n"
    )
    (home / "mine.yaml").write_text(
        "extends: base.yaml\n"
        "seeds: [3]\n"
        "train: {epochs: 5}\n"
        "backbone: {dropout: 0.25}\n"
    )
    (home / "other.yaml").write_text("extends: mine.yaml\nbackbone: {kind: linear}\n")

    mine = resolve("train.lr=0.5", recipe=home / "mine.yaml")
    assert (mine.mode, mine.seeds, mine.train.epochs, mine.train.lr) == (
        "joint",
        [3],
        5,
        0.5,
    )
    assert (mine.backbone.kind, mine.backbone.dropout, mine.recipe_name) == (
        "nice",
        0.25,
        "mine.yaml",
    )
    other_recipe = read_recipe(home / "other.yaml", "train-align")
    assert other_recipe["backbone"] == {"kind": "linear"}
    assert other_recipe["mode"] == "joint"

    for base, fact in (
        ("other.yaml", "other.yaml"),
        ("none.yaml", "none.yaml"),
        (3, "got 3"),
    ):
        (home / "base.yaml").write_text(f"extends: {base}\n")
        with pytest.raises(RecipeError) as caught:
            read_recipe(home / "other.yaml", "train-align")
        assert fact in caught.value.message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ('paths.data="a\\nb"', "data"),
        ('encoders=["clip\\e[2J"]', "encoders"),
        ('{"dataset\\u0007": 1}', "the key 'dataset\\x07'"),
        ('backbone={kind: nice, "a\\u009b": 1}', "the key 'a\\x9b'"),
    ],
)
def test_names_that_no_file_or_terminal_should_get_are_refused(tmp_path, override, key):
    path = tmp_path / "mine.yaml"
    name, _, value = override.partition("=")
    path.write_text(f"{name}: {value}\n" if value and "." not in name else "{}\n")
    overrides = [override] if "." in name else []
    if not value:
        path.write_text(override)
    with pytest.raises(RecipeError) as caught:
        resolve(*overrides, recipe=path)
    assert caught.value.message.startswith(key)
    assert caught.value.message.isprintable()


def test_texts_for_people_may_have_several_lines(tmp_path):
    path = tmp_path / "workflow.yaml"
    path.write_text("steps:\n  check:\n    says: |\n      one\n      two\n")
    steps = Workflow.resolve("workflow", str(path), {}, ()).steps
    assert steps["check"].says == "one\ntwo\n"


NET = {"kind": "my_net", "depth": 2, "block": {"kind": "a", "width": 3}}


@pytest.mark.parametrize(
    ("default", "value", "merges_all", "merged"),
    [
        # knobs of the same kind, however it is written
        (NET, {"depth": 3}, False, {**NET, "depth": 3}),
        (NET, {"kind": "my-net"}, False, {**NET, "kind": "my-net"}),
        (NET, "my-net", False, {**NET, "kind": "my-net"}),
        (
            NET,
            {"block": {"width": 4}},
            False,
            {**NET, "block": {"kind": "a", "width": 4}},
        ),
        (NET, {"block": {"kind": "b"}}, False, {**NET, "block": {"kind": "b"}}),
        # another kind, or no part, stands alone
        (NET, {"kind": "other"}, False, {"kind": "other"}),
        (NET, "other", False, {"kind": "other"}),
        (NET, None, False, None),
        ({"a": 1}, {"b": 2}, False, {"b": 2}),
        ({"a": 1}, {"b": 2}, True, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, True, {"a": {"b": 3, "c": 2}}),
        ({"a": 1}, "x", True, "x"),
        ("my_net", {"depth": 2}, True, {"kind": "my_net", "depth": 2}),
        ("my_net", {"depth": 2}, False, {"depth": 2}),
        ("my_net", {"kind": "b"}, True, {"kind": "b"}),
        (3, {"a": 1}, True, {"a": 1}),
        (
            RunOptions(workers=2),
            {"device": "cpu"},
            False,
            {"workers": 2, "device": "cpu"},
        ),
        (RunOptions(workers=2), "cpu", False, "cpu"),
    ],
)
def test_a_value_is_laid_over_its_default(default, value, merges_all, merged):
    assert merge_with_default(default, value, merges_all) == merged


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a, b,,c ", ["a", "b", "c"]),
        ("", []),
        (3, [3]),
        ([1, "a,b"], [1, "a,b"]),
        ((1,), (1,)),
        (None, None),
    ],
)
def test_texts_are_split_at_commas(value, parts):
    assert split_commas(value) == parts


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ("1-3", [1, 2, 3]),
        ("2 - 2, 7", [2, "7"]),
        ("4-3", []),
        (["1-2", 5], [1, 2, 5]),
        (6, [6]),
        (None, None),
        ("1-1234567", ["1-1234567"]),
    ],
)
def test_ranges_hold_both_of_their_ends(value, numbers):
    assert read_ranges(value) == numbers


def test_subjects_of_mosaic_are_numbered_over_its_studies():
    numbers = list(subjects.RECORDS.values())
    assert numbers == list(range(1, sum(subjects.PEOPLE.values()) + 1))
    named_subjects = resolve("subjects=sub-01_BMD,sub-01_BOLD5000,2").subjects
    assert named_subjects == [1, 11, 2]
    assert resolve("subjects=all").subjects is None
    for text in ("1,1", "[]", "sub-99_BMD", "-1"):
        with pytest.raises(RecipeError):
            resolve(f"subjects={text}")


@pytest.mark.parametrize(
    ("pattern", "is_valid"),
    [("**/a*.tsv", True), ("/a", False), ("a**/b", False), ("**", True)],
)
def test_a_pattern_lies_below_its_root(pattern, is_valid):
    adapter = TypeAdapter(Pattern)
    if is_valid:
        assert adapter.validate_python(pattern) == pattern
        return
    with pytest.raises(ValueError):
        adapter.validate_python(pattern)


def test_one_run_is_taken_out_of_its_list():
    adapter = TypeAdapter(OneRun)
    for value, run_name in ((["a"], "a"), ("a", "a"), (None, None)):
        assert adapter.validate_python(value) == run_name
    with pytest.raises(RecipeError):
        adapter.validate_python(["a", "b"])


def test_keys_at_their_default_are_not_idle():
    section = RunOptions(workers=3)
    refuse_idle(section, "processes", "here")
    refuse_idle(section, ("processes", "trackers", "cluster"), "here")
    with pytest.raises(RecipeError) as caught:
        refuse_idle(section, ("processes", "workers"), "here", "hint")
    assert caught.value.hint == "hint"
    assert "workers" in caught.value.message
    with pytest.raises(RecipeError):
        refuse_idle(RunOptions(cluster=Cluster(tasks=2)), "cluster", "here")


def test_unknown_names_are_refused_with_a_guess():
    adapter = TypeAdapter(Annotated[list[str], require_names("colour", ["red"])])
    assert adapter.validate_python(["red"]) == ["red"]
    with pytest.raises(RecipeError) as caught:
        adapter.validate_python(["red", "rad"])
    assert "'rad'" in caught.value.message
    assert "red" in caught.value.hint


def set_key(fields, key, value):
    Recipe.set_key(fields, key, value)
    return fields


def test_a_dotted_key_is_set_in_sections_parts_and_lists():
    assert set_key({}, "a.b.c", 1) == {"a": {"b": {"c": 1}}}
    assert set_key({"a": {"b": 3}}, "a.c", 1) == {"a": {"b": 3, "c": 1}}
    assert set_key({"a": "kind"}, "a.c", 1) == {"a": {"kind": "kind", "c": 1}}
    assert set_key({"a": 7}, "a.c", 1) == {"a": {"c": 1}}
    lists = {"a": [{"b": 1}, "kind"]}
    assert set_key(lists, "a.1.c", 2)["a"] == [{"b": 1}, {"kind": "kind", "c": 2}]
    assert set_key(lists, "a.0", 5)["a"][0] == 5
    for key in ("a.2", "a.x", "a.2.c", "a.-1"):
        with pytest.raises(RecipeError, match=f"{re.escape(key)}: .* of length 2"):
            set_key({"a": [1, 2]}, key, 0)
    # knobs of another kind go, those of the same stay
    net = {"kind": "my_net", "depth": 2}
    assert set_key({"a": dict(net)}, "a.kind", "other") == {"a": {"kind": "other"}}
    assert set_key({"a": dict(net)}, "a.kind", "my-net")["a"]["depth"] == 2


def test_a_key_of_a_mapping_keeps_the_others_of_its_default():
    class Own(core_recipe.Recipe):
        sizes: dict[str, int] = Field({"a": 1, "b": 2})

    fields = {}
    Own.set_key(fields, "sizes.b", 3)
    assert fields == {"sizes": {"a": 1, "b": 3}}
    assert Own.model_fields["sizes"].default == {"a": 1, "b": 2}
    other_default = {}
    Own.set_key(other_default, "sizes", {"c": 3})
    assert other_default == {"sizes": {"c": 3}}


def test_a_base_is_beside_the_file_or_known_by_name(tmp_path):
    nice = read_recipe(core_recipe.find_recipe("train-align", "papers/nice"))
    (tmp_path / "base.yaml").write_text("seeds: 3\nrecipe_name: x\ndim: 8\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\ndim: 9\n")
    (tmp_path / "other.yaml").write_text("extends: papers/nice\n")
    (tmp_path / "train-align.yaml").write_text("extends: papers/nice\n")
    assert read_recipe(tmp_path / "mine.yaml") == {"seeds": 3, "dim": 9}
    assert read_recipe(tmp_path / "base.yaml")["recipe_name"] == "x"
    assert read_recipe(tmp_path / "train-align.yaml") == nice
    assert read_recipe(tmp_path / "other.yaml", "train-align") == nice
    with pytest.raises(RecipeError):
        read_recipe(tmp_path / "other.yaml")
    (tmp_path / "link.yaml").symlink_to("loop.yaml")
    (tmp_path / "loop.yaml").write_text("extends: link.yaml\n")
    (tmp_path / "number.yaml").write_text("extends: 3\n")
    for name in ("loop.yaml", "number.yaml"):
        with pytest.raises(RecipeError):
            read_recipe(tmp_path / name)


def test_a_recipe_is_known_by_its_shipped_folder_or_path(home):
    root = core_recipe.shipped_recipes()
    for name in ("papers/nice", "papers/nice/train-align"):
        path = core_recipe.find_recipe("train-align", name)
        assert core_recipe.recipe_name_of(path) == "papers/nice"
    assert core_recipe.find_recipe("embed", None) == root / "embed.yaml"
    assert core_recipe.recipe_name_of(root / "embed.yaml") == ""
    assert core_recipe.recipe_name_of(home / "x/mine.yaml") == "x/mine.yaml"
    (home / "demo").write_text("seeds: 5\n")
    assert core_recipe.find_recipe("train-align", "demo") == Path("demo")
    recipe = resolve(recipe="papers/nice")
    assert recipe.recipe_name == "papers/nice"
    assert resolve().recipe_name == ""


def test_an_override_has_a_value_and_may_begin_as_no_yaml():
    for text in ("*.tsv", "&a", "!x", "%x", "@x", "`x", "#x", "/study #1"):
        assert core_recipe.parse_value(text, f"a={text}") == text
    assert core_recipe.parse_value("[1, a]", "") == [1, "a"]
    assert core_recipe.parse_value("", "") is None
    for override in ("train.lr", "x={a"):
        with pytest.raises(RecipeError):
            resolve(override)


def test_a_run_is_short_for_the_run_that_is_measured():
    explanation = Explanation.resolve("explain", None, {}, ["run=a", "run.workers=2"])
    assert explanation.align_run == "a"
    assert explanation.run.workers == 2


def test_commands_that_read_files_share_no_work():
    class OfFiles(core_recipe.FileRecipe):
        pass

    assert OfFiles().run.device == "cpu"
    for options in (
        {"processes": 2},
        {"mixed_precision": "bf16"},
        {"trackers": "wandb"},
    ):
        with pytest.raises(RecipeError):
            core_recipe.validate(OfFiles, {"run": options})
    with pytest.raises(RecipeError):
        core_recipe.validate(core_recipe.Recipe, {"run": {"trackers": "wandb"}})


def test_folders_are_taken_as_paths_and_refused_in_one_line(home):
    paths = core_recipe.Paths(data=home / "x")  # type: ignore[arg-type]
    assert paths.data == str(home / "x")
    assert paths.under_home("data") == home / "x"
    assert paths.under_home("runs") == home / "runs"
    assert paths.dataset("nsd") == home / "x/nsd"
    (home / "here").mkdir()
    assert paths.dataset("nsd", "here") == home / "here"
    with pytest.raises(RecipeError):
        core_recipe.Paths(data=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, True, 7])
def test_an_error_shows_how_a_text_is_quoted(name):
    with pytest.raises(RecipeError) as caught:
        parts.resolve("datasets", {"kind": "categories", "names": ["a", name]})
    (quoted,) = re.findall(r"KEY='\[(.*), …\]'", caught.value.hint)
    assert core_recipe.parse_value(quoted, "") == str(json.dumps(name))


def test_a_long_chain_of_recipes_is_refused(tmp_path):
    (tmp_path / "0.yaml").write_text("seeds: 3\n")
    for number in range(1, 60):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number - 1}.yaml\n")
    assert read_recipe(tmp_path / "49.yaml") == {"seeds": 3}
    with pytest.raises(RecipeError, match="more than 50"):
        read_recipe(tmp_path / "59.yaml")


@pytest.mark.parametrize(
    ("override", "fact"),
    [
        ("train.stagesx=1", "train.stagesx"),
        ("train=.nan", "train: must be"),
        ("train=.inf", "train: must be"),
        ("train=2020-01-01", "train: must be"),
        ("dataset=.nan", "nan does not name a dataset"),
        ("train=" + "{a: " * 2000 + "1" + "}" * 2000, "nesting depth"),
    ],
)
def test_strange_values_are_refused_by_their_key(override, fact):
    with pytest.raises(RecipeError, match=fact):
        resolve(override)


def test_a_file_of_the_kernel_is_no_recipe():
    with pytest.raises(RecipeError, match="not a regular file"):
        read_recipe(Path("/proc/self/mem"), "train-align")
