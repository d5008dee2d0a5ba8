"""From YAML, flags and overrides to one recipe; each test resolves a real recipe of a command."""

import importlib
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.commands import workflow
from brainhive_cli.commands.eval_retrieval import Recipe as EvalRecipe
from brainhive_cli.core import parts
from brainhive_cli.core import recipe as core_recipe
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import read_recipe
from brainhive_cli.evaluation.reconstruction.recipe import Recipe as Reconstruction
from brainhive_cli.training.alignment.recipe import Recipe

SDXL = "hub:stabilityai/stable-diffusion-xl-base-1.0"


def resolve(*overrides: str, recipe: str | Path | None = None, **flags: Any) -> Recipe:
    flags = {key.replace("__", "."): value for key, value in flags.items()}
    return Recipe.resolve("train-align", None if recipe is None else str(recipe), flags, overrides)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 3, lr: 0.1, batch_size: 8}\nbackbone: {kind: nice, dropout: 0.4}\n")
    return path


def test_overrides_win_over_flags_and_flags_over_the_recipe(written: Path) -> None:
    train = resolve(
        "train.lr=0.3", recipe=written, train__batch_size=16, train__lr=0.2, train__epochs=None
    ).train
    assert (train.epochs, train.batch_size, train.lr) == (3, 16, 0.3)


@pytest.mark.parametrize(
    ("override", "key", "guess"),
    [
        ("modes=intra", "'modes'", "did you mean mode?"),
        ("train.epoch=3", "'train.epoch'", "did you mean train.epochs?"),
        ("backbone.droput=0", "'backbone.droput'", "did you mean backbone.dropout?"),
        ("run.procesess=2", "'run.procesess'", "did you mean run.processes?"),
        ("paths.data.deeper=x", "paths.data", ""),
    ],
)
def test_an_unknown_key_is_named_and_the_nearest_suggested(override: str, key: str, guess: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(override)
    assert key in caught.value.message and guess in caught.value.hint


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("train.epochs=many", "train.epochs: Input should be a valid integer"),
        ("train.epochs=many", "got 'many'"),
        ("mode=sideways", "mode: Input should be 'intra', 'inter', 'joint' or 'finetune', got 'sideways'"),
        ("subjects=1,two", "subjects.1: Input should be a valid integer"),
        ("encoders=", "encoders: Input should be a valid list, got None"),
        ("encoders=['hub:']", "the reference 'hub:' names no encoder"),
        (f"encoders={'x' * 400}", "no encoder called"),
        ("train.stages=1.5", "train.stages: Input should be a valid list, got 1.5"),
        ("backbone.kind=", "names no backbone"),
        ("loss.kind=clap", "no loss called 'clap'"),
        ("run.processes=0", "run.processes: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_a_value_of_the_wrong_type_is_shown_with_its_key(override: str, shown: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(override)
    assert shown in caught.value.message


def test_an_unknown_part_lists_those_there_are() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve("backbone.kind=nise")
    assert caught.value.hint == f"did you mean nice? there are: {', '.join(parts.kinds('backbones'))}"


@pytest.mark.parametrize("override", ["train.epochs", "train: [", "train.epochs=[1"])
def test_an_override_that_cannot_be_read_says_so(override: str) -> None:
    with pytest.raises(RecipeError, match=r"has no value|is not valid YAML"):
        resolve(override)


@pytest.mark.parametrize(
    ("text", "what"),
    [("a: [1", "is not valid YAML"), ("- 1", "valid dictionary"), ("\xff: 1", "is not a text in UTF-8")],
)
def test_a_recipe_that_is_not_yaml_keys_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=what):
        resolve(recipe=path)


@pytest.mark.parametrize(
    "override",
    [
        *(f"train.lr={value}" for value in (".inf", ".nan", "inf", "nan", "'-inf'", "1e999")),
        "backbone={kind: braindecode, model: EEGNetv4, options: {a: .nan}}",
        "train.epochs=" + "9" * 5000,
        f"train.epochs='{'9' * 30}'",
        "train.seeds=1.0e+30",
        "train.epochs=!!int x",
        "train.epochs=2026-01-01",
        "train.epochs=" + "[" * 3000 + "]" * 3000,
        "train={1: 2, a: 3}",
        "subjects=" + "[1, " * 30 + "]" * 30,
        'dataset.root="a\\0b"',
        'dataset.root="\\ud800"',
    ],
)
def test_a_value_that_no_run_folder_could_hold_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(override)
    assert len(caught.value.in_one_line) < 1000 and "\n" not in caught.value.in_one_line


def test_a_name_of_several_lines_is_shown_in_one(tmp_path: Path) -> None:
    path = tmp_path / "train-align.yaml"
    path.write_text('sweep: {"e\\nb": null}')
    with pytest.raises(RecipeError) as caught:
        Recipe.resolve("train-align", str(path), {}, [])
    assert "\n" not in caught.value.in_one_line and "sweep.e" in caught.value.message


def test_a_flag_is_checked_as_a_recipe_is() -> None:
    for text in ("a\0b", "\udcff"):  # the second is how Python reads a byte that is not UTF-8
        with pytest.raises(
            RecipeError, match=r"paths\.runs: text (has a control character|is not UTF-8), got"
        ):
            resolve(paths__runs=text)
    for value in (float("inf"), float("nan")):
        with pytest.raises(RecipeError, match=r"train\.lr: Input should be a finite number"):
            resolve(train__lr=value)


@pytest.mark.parametrize(
    "override",
    [
        'paths.runs="a\\nb"',
        'dataset.root="a\\tb"',
        'run.cluster.modules=["a\\rb"]',
        'digests={"a\\u009bb": x}',
    ],
)
def test_control_characters_are_refused_in_values_and_names(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(override)
    assert caught.value.message.isprintable()


def test_texts_for_people_may_have_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text('steps: {embed: {says: "first,\\n\\tthen"}}')
    assert workflow.Recipe.resolve("workflow", str(path), {}, []).steps["embed"].says == "first,\n\tthen"
    path.write_text('steps: {embed: {says: "\\e[2J"}}')
    with pytest.raises(RecipeError, match="says: text has a control character"):
        workflow.Recipe.resolve("workflow", str(path), {}, [])


@pytest.mark.parametrize("module", ["/tmp/theirs", "./theirs", "../theirs", "a/../../theirs", "-f", "$(id)"])
def test_a_module_is_named_and_no_file_of_code(module: str) -> None:
    for name in ("openmpi/4.1.6--gcc--12.2.0", "python/3.10.8--gcc--11.3.0", "root/6+", "libstdc++"):
        assert resolve(f"run.cluster.modules=[{name}]").run.cluster.modules == [name]
    assert resolve("run.cluster.modules=[cuda/12.8, gcc/11.2+x]").run.cluster.modules == [
        "cuda/12.8",
        "gcc/11.2+x",
    ]
    with pytest.raises(RecipeError, match=r"run\.cluster\.modules\.0: String should match pattern"):
        resolve(f"run.cluster.modules=['{module}']")


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert resolve(recipe=path).model_copy(update={"recipe_name": ""}) == Recipe()


def test_a_missing_recipe_suggests_the_nearest_shipped_one_of_the_command() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(recipe="papres/nice")
    guess, _, known = caught.value.hint.partition(" shipped for train-align: ")
    assert guess == "did you mean papers/nice?"
    assert "demo, demo-havir, " in known and ", papers/alignvis-inter, " in known and "prior" not in known


def test_a_folder_of_recipes_gives_each_command_its_own() -> None:
    assert resolve(recipe="demo").dataset.kind == "demo"
    assert resolve(recipe="demo") == resolve(recipe="demo/train-align")


@pytest.mark.parametrize("text", ["1,2,5", "[1, 2, 5]", " 1, 2 ,5,"])
def test_lists_are_written_with_commas_or_brackets(text: str) -> None:
    assert resolve(f"subjects={text}").subjects == resolve(subjects=text.strip("[] ")).subjects == [1, 2, 5]


def test_one_value_is_a_list_of_one() -> None:
    assert resolve("seeds=7").seeds == [7]
    assert [encoder.name for encoder in resolve(encoders="vae").encoders] == ["vae"]


def test_yamls_no_is_a_precision() -> None:
    assert resolve("run.mixed_precision=no").run.mixed_precision == "no"


def test_another_kind_drops_the_knobs_of_the_part_that_stood_there(written: Path) -> None:
    assert resolve(recipe=written).backbone.dropout == 0.4
    assert resolve("backbone.dropout=0.1", recipe=written, backbone__kind="nice").backbone.dropout == 0.1
    other = resolve(recipe=written, backbone__kind="brain_mlp").backbone
    assert other == type(other)()


def test_naming_the_same_kind_keeps_its_knobs_however_it_is_written(written: Path) -> None:
    written.write_text("backbone: {kind: brain-mlp, dropout: 0.4}")
    assert resolve(recipe=written, backbone__kind="brain_mlp").backbone.dropout == 0.4


def test_a_part_named_by_its_kind_alone_takes_knobs() -> None:
    dataset = resolve("dataset.noise=2", dataset="demo").dataset
    assert (dataset.kind, dataset.noise) == ("demo", 2.0)


def test_the_fingerprint_ignores_how_a_run_is_run_and_nothing_else() -> None:
    recipe = resolve()
    same = ["run.processes=2", "run.device=cpu", "run.mixed_precision=bf16", "run.workers=0"]
    same += ["run.trackers=tensorboard,wandb", "published={source: a paper, values: {top1: 0.5}}"]
    same += ["paths.runs=elsewhere"]
    assert {resolve(override).fingerprint() for override in same} == {recipe.fingerprint()}
    others = [f"{key}={value}" for key, value in {"seeds": 1, "train.lr": 0.1}.items()]
    others += ["backbone.dropout=0.5", "backbone.kind=nice", "dataset.root=/elsewhere", "signal.scale=2"]
    assert len({recipe.fingerprint(), *(resolve(o).fingerprint() for o in others)}) == 1 + len(others)


def test_a_fingerprint_is_of_what_differs_from_the_defaults_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {override: resolve(override).fingerprint() for override in ("train.epochs=3", "train.lr=0.1")}

    # as if a later version had one key more, and one with another default
    class Later(Recipe):
        later: int = 7

    def fingerprint(*overrides: str) -> str:
        return Later.resolve("train-align", None, {}, overrides).fingerprint()

    assert {override: fingerprint(override) for override in before} == before
    assert fingerprint("train.lr=0.1", "later=8") != before["train.lr=0.1"]
    monkeypatch.setattr(core_recipe, "DEFAULTS_VERSION", 0)
    assert fingerprint("train.lr=0.1") != before["train.lr=0.1"]


def test_contents_count_also_where_their_name_is_the_default() -> None:
    recipe = Reconstruction.resolve("reconstruct", None, {}, [])
    digests = [{recipe.prior.source: digest} for digest in "ab"]
    pinned = [recipe.model_copy(update={"digests": each}).fingerprint() for each in digests]
    assert len({recipe.fingerprint(), *pinned}) == 3


@pytest.mark.parametrize(("mixed", "precision"), [("no", "fp32"), ("bf16", "bf16"), (None, "bf16")])
def test_a_mixed_precision_is_the_precision_and_so_part_of_the_fingerprint(
    mixed: Any, precision: str
) -> None:
    flags = {"run__mixed_precision": mixed}
    plain = f"train.precision={precision}"
    for override in ("train.epochs=3", "train.precision=fp32" if mixed else "train.lr=1"):
        found = resolve(override, **flags)
        assert found.train.precision == precision
        assert found.fingerprint() == resolve(override, plain).fingerprint()


def test_every_recipe_with_a_precision_takes_the_mixed_one() -> None:
    for command, where in (("embed", ""), ("train-prior", "train"), ("reconstruct", "")):
        pipeline = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
        found = pipeline.Recipe.resolve(command, None, {"run.mixed_precision": "bf16"}, [])
        assert (getattr(found, where) if where else found).precision == "bf16"
    assert EvalRecipe.resolve("eval-retrieval", None, {"run.mixed_precision": "bf16"}, []).run


def test_defaults_written_out_have_the_fingerprint_of_defaults(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(Recipe().to_yaml())
    assert resolve(recipe=path).fingerprint() == Recipe().fingerprint()


def test_the_resolved_recipe_runs_as_it_is(tmp_path: Path, written: Path) -> None:
    recipe = resolve(
        "signal.window_ms=[0, 500]", "encoders=vae,hub:a/b", "run.mixed_precision=no", recipe=written
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml())
    assert resolve(recipe=path) == recipe


def test_paths_lie_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    assert resolve().paths.under_home("runs") == tmp_path / "runs"
    assert resolve("paths.runs=/elsewhere").paths.under_home("runs") == Path("/elsewhere")
    monkeypatch.delenv("BRAINHIVE_HOME")
    assert resolve().paths.under_home("data") == Path("data")


def test_a_number_in_a_key_is_a_place_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  stages: [{epochs: 2}, {epochs: 3, lr: 0.1}]\n")

    stages = resolve("train.stages.1.epochs=7", recipe=path).train.stages

    assert [(each.epochs, each.lr) for each in stages][1] == (7, 0.1) and stages[0].epochs == 2
    for key in ("train.stages.2.epochs=7", "train.stages.last.epochs=7"):
        with pytest.raises(RecipeError, match="is no index of a list of 2"):
            resolve(key, recipe=path)


@pytest.mark.parametrize(
    ("command", "recipe", "override", "key", "expected"),
    [
        (
            "train-align",
            "papers/neurons",
            "backbone.prior.depth=2",
            "backbone.prior",
            {"heads": 32, "dim_head": 52},
        ),
        ("train-align", "papers/neurons", "backbone.prior.kind=mindeye1", "backbone.prior", {"heads": 32}),
        ("train-prior", None, "generator.seed=1", "generator", {"source": SDXL}),
        ("runs", None, "run.workers=2", "run", {"device": "cpu"}),
        ("explain", None, "bands.alpha=[7, 13]", "bands", {"alpha": (7, 13), "delta": (1, 4)}),
    ],
)
def test_an_override_of_one_knob_keeps_the_others_of_its_places_default(
    command: str, recipe: str | None, override: str, key: str, expected: dict[str, Any]
) -> None:
    model = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}").Recipe

    section = reduce(getattr, key.split("."), model.resolve(command, recipe, {}, [override]))

    fields = section if isinstance(section, dict) else dict(section)
    assert {name: fields[name] for name in expected} == expected


def test_an_override_of_another_kind_keeps_no_knob_of_the_default() -> None:
    assert (
        resolve("backbone.prior.kind=fusion-prior", recipe="papers/neurons").backbone.prior.kind
        == "fusion-prior"
    )
    prior = resolve("backbone.prior={depth: 2, heads: 3}", recipe="papers/neurons").backbone.prior
    assert (prior.depth, prior.heads, prior.dim_head) == (2, 3, 52)
    assert resolve("backbone.prior=null", recipe="papers/neurons").backbone.prior is None


def test_a_recipe_that_extends_another_lays_its_keys_over_it(home: Path) -> None:
    (home / "base.yaml").write_text(
        "mode: joint\nseeds: [1, 2]\ntrain: {epochs: 3, lr: 0.1}\nbackbone: {kind: nice}\n"
    )
    (home / "mine.yaml").write_text(
        "extends: base.yaml\nseeds: [3]\ntrain: {epochs: 5}\nbackbone: {dropout: 0.25}\n"
    )
    (home / "other.yaml").write_text("extends: mine.yaml\nbackbone: {kind: linear}\n")

    mine = resolve("train.lr=0.5", recipe=home / "mine.yaml")
    assert (mine.mode, mine.seeds, mine.train.epochs, mine.train.lr) == ("joint", [3], 5, 0.5)
    assert (mine.backbone.kind, mine.backbone.dropout, mine.recipe_name) == ("nice", 0.25, "mine.yaml")
    other = read_recipe(home / "other.yaml", "train-align")
    assert other["backbone"] == {"kind": "linear"} and other["mode"] == "joint"

    (home / "kind.yaml").write_text("backbone: linear\nrecipe_name: a\ndigests: {b: c}\n")
    for backbone, expected in (("{bias: false}", {"kind": "linear", "bias": False}), ("nice", "nice")):
        (home / "knob.yaml").write_text(f"extends: kind.yaml\nbackbone: {backbone}\n")
        assert read_recipe(home / "knob.yaml", "train-align") == {"backbone": expected}
    (home / "same.yaml").write_text("extends: knob.yaml\nbackbone: nice\n")
    (home / "knob.yaml").write_text("backbone: {kind: nice, dropout: 0.25}\n")
    assert read_recipe(home / "same.yaml", "x") == {"backbone": {"kind": "nice", "dropout": 0.25}}

    for base, message in (
        ("other.yaml", "extends itself"),
        ("none.yaml", "no recipe"),
        (3, "should be a string"),
    ):
        (home / "base.yaml").write_text(f"extends: {base}\n")
        with pytest.raises(RecipeError, match=message):
            read_recipe(home / "other.yaml", "train-align")


def test_a_range_of_more_numbers_than_any_study_has_is_refused() -> None:
    assert len(resolve("seeds=1-10000").seeds) == 10_000
    with pytest.raises(RecipeError, match="seeds: Value should have at most 10000 items"):
        resolve("seeds=" + ",".join(["1-999999"] * 1000))


def test_a_key_of_any_length_is_refused_without_comparing_it_letter_by_letter() -> None:
    with pytest.raises(RecipeError, match="unknown recipe key"):
        resolve("k" * 100_000 + "=1")
