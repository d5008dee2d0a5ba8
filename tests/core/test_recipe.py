"""From YAML, flags and overrides to one recipe; each test resolves a real recipe of a
command.
"""

from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.commands.explain import Recipe as Explanation
from brainhive_cli.commands.workflow import Recipe as Workflow
from brainhive_cli.core import parts, recipe as core_recipe
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import read_recipe
from brainhive_cli.evaluation.reconstruction.recipe import Recipe as Reconstruction
from brainhive_cli.training.alignment.recipe import Recipe


def resolve(*overrides: str, recipe: str | Path | None = None, **flags: Any) -> Recipe:
    flags = {key.replace("__", "."): value for key, value in flags.items()}
    return Recipe.resolve(
        "train-align", None if recipe is None else str(recipe), flags, overrides
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "train: {epochs: 3, lr: 0.1, batch_size: 8}\n"
        "backbone: {kind: nice, dropout: 0.4}\n"
    )
    return path


def test_overrides_win_over_flags_and_flags_over_the_recipe(written: Path) -> None:
    train = resolve(
        "train.lr=0.3",
        recipe=written,
        train__batch_size=16,
        train__lr=0.2,
        train__epochs=None,
    ).train
    assert (train.epochs, train.batch_size, train.lr) == (3, 16, 0.3)


def test_an_unknown_key_is_named_and_the_nearest_suggested() -> None:
    for override, key, guess in (
        ("train.epoch=3", "'train.epoch'", "did you mean train.epochs?"),
        ("backbone.droput=0", "'backbone.droput'", "did you mean backbone.dropout?"),
        ("paths.data.deeper=x", "paths.data", ""),
    ):
        with pytest.raises(RecipeError) as caught:
            resolve(override)
        assert key in caught.value.message and guess in caught.value.hint


WRONG = (
    ("train.epochs=many", "train.epochs: Input should be a valid integer"),
    (
        "mode=sideways",
        "mode: Input should be 'intra', 'inter', 'joint' or 'finetune', got 'sideways'",
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


def test_a_value_that_a_key_does_not_take_is_shown_with_its_key_in_one_line() -> None:
    for override, shown in WRONG:
        with pytest.raises(RecipeError) as caught:
            resolve(override)
        assert shown in caught.value.message and "\n" not in caught.value.in_one_line, (
            override[:50]
        )
        assert len(caught.value.in_one_line) < 1000


def test_a_missing_part_or_recipe_suggests_the_nearest_and_lists_those_there_are() -> (
    None
):
    with pytest.raises(RecipeError) as caught:
        resolve("backbone.kind=nise")
    assert (
        caught.value.hint
        == f"did you mean nice? there are: {', '.join(parts.kinds('backbones'))}"
    )
    with pytest.raises(RecipeError) as caught:
        resolve(recipe="papres/nice")
    guess, _, known = caught.value.hint.partition(" shipped for train-align: ")
    assert guess == "did you mean papers/nice?"
    assert (
        "demo, demo-havir, " in known
        and ", papers/alignvis-inter, " in known
        and "prior" not in known
    )
    assert resolve(recipe="demo") == resolve(recipe="demo/train-align")


def test_lists_are_written_with_commas_or_brackets_and_yamls_no_is_a_precision() -> (
    None
):
    for text in ("1,2,5", "[1, 2, 5]", " 1, 2 ,5,"):
        assert (
            resolve(f"subjects={text}").subjects
            == resolve(subjects=text.strip("[] ")).subjects
            == [1, 2, 5]
        )
    assert resolve("seeds=7").seeds == [7]
    assert [encoder.name for encoder in resolve(encoders="vae").encoders] == ["vae"]
    assert resolve("run.mixed_precision=no").run.mixed_precision == "no"


def test_another_kind_drops_the_knobs_of_the_part_before_and_the_same_keeps_them(
    written: Path,
) -> None:
    assert resolve(recipe=written, backbone__kind="nice").backbone.dropout == 0.4
    assert (
        resolve(
            "backbone.dropout=0.1", recipe=written, backbone__kind="nice"
        ).backbone.dropout
        == 0.1
    )
    other = resolve(recipe=written, backbone__kind="brain_mlp").backbone
    assert other == type(other)()
    dataset = resolve("dataset.noise=2", dataset="demo").dataset
    assert (dataset.kind, dataset.noise) == ("demo", 2.0)
    prior = resolve(
        "backbone.prior.kind=fusion-prior", recipe="papers/neurons"
    ).backbone.prior
    assert prior.kind == "fusion-prior"


def test_the_fingerprint_ignores_how_a_run_is_run_and_nothing_else() -> None:
    recipe = resolve()
    same = [
        "run.processes=2",
        "run.device=cpu",
        "run.mixed_precision=bf16",
        "run.workers=0",
    ]
    same += [
        "run.trackers=tensorboard,wandb",
        "published={source: a paper, values: {top1: 0.5}}",
    ]
    same += ["paths.runs=elsewhere"]
    assert {resolve(override).fingerprint() for override in same} == {
        recipe.fingerprint()
    }
    others = [f"{key}={value}" for key, value in {"seeds": 1, "train.lr": 0.1}.items()]
    others += [
        "backbone.dropout=0.5",
        "backbone.kind=nice",
        "dataset.root=/elsewhere",
        "signal.scale=2",
    ]
    assert len(
        {recipe.fingerprint(), *(resolve(o).fingerprint() for o in others)}
    ) == 1 + len(others)


def test_a_fingerprint_is_of_what_differs_from_the_defaults_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {
        override: resolve(override).fingerprint()
        for override in ("train.epochs=3", "train.lr=0.1")
    }

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
    pinned = [
        recipe.model_copy(update={"digests": each}).fingerprint() for each in digests
    ]
    assert len({recipe.fingerprint(), *pinned}) == 3


def test_a_fingerprint_is_of_contents_whatever_their_path() -> None:
    def fingerprint(digests: dict[str, str], *overrides: str) -> str:
        recipe = resolve(*overrides)
        return recipe.model_copy(update={"digests": digests}).fingerprint()

    here, there = "dataset.root=/here", "dataset.root=/there"
    found = fingerprint({"/here": "1"}, here)
    assert found == fingerprint({"/there": "1"}, there)
    assert found != fingerprint({"/here": "2"}, here)
    assert found != fingerprint({}, here) != fingerprint({}, there)
    # what no key names counts, too; stores by their names
    file, other = fingerprint({"file a": "1"}), fingerprint({"file b": "1"})
    assert file == other and len({file, fingerprint({}), fingerprint({"a": "2"})}) == 3
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "1", "a": "2"})
    for store in core_recipe.STORES:
        pair = {f"{store}a": "1", f"{store}b": "2"}
        swapped = {f"{store}a": "2", f"{store}b": "1"}
        assert fingerprint(pair) != fingerprint(swapped)
        assert fingerprint(pair) == fingerprint(dict(reversed(pair.items())))


def test_a_mixed_precision_is_the_precision_and_so_part_of_the_fingerprint() -> None:
    for mixed, precision in (("no", "fp32"), ("bf16", "bf16"), (None, "bf16")):
        found = resolve("train.epochs=3", run__mixed_precision=mixed)
        assert found.train.precision == precision
        plain = resolve("train.epochs=3", f"train.precision={precision}")
        assert found.fingerprint() == plain.fingerprint()


def test_defaults_written_out_have_the_fingerprint_of_defaults(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(Recipe().to_yaml())
    assert resolve(recipe=path).fingerprint() == Recipe().fingerprint()
    path.write_text("# nothing\n")
    assert resolve(recipe=path).model_copy(update={"recipe_name": ""}) == Recipe()


def test_the_resolved_recipe_runs_as_it_is(tmp_path: Path, written: Path) -> None:
    recipe = resolve(
        "signal.window_ms=[0, 500]",
        "encoders=vae,hub:a/b",
        "run.mixed_precision=no",
        recipe=written,
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml())
    assert resolve(recipe=path) == recipe


def test_paths_lie_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    assert resolve().paths.under_home("runs") == tmp_path / "runs"
    assert resolve("paths.runs=/elsewhere").paths.under_home("runs") == Path(
        "/elsewhere"
    )
    monkeypatch.delenv("BRAINHIVE_HOME")
    assert resolve().paths.under_home("data") == Path("data")


def test_a_number_in_a_key_is_a_place_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  stages: [{epochs: 2}, {epochs: 3, lr: 0.1}]\n")

    stages = resolve("train.stages.1.epochs=7", recipe=path).train.stages

    assert [(each.epochs, each.lr) for each in stages][1] == (7, 0.1) and stages[
        0
    ].epochs == 2
    for key in ("train.stages.2.epochs=7", "train.stages.last.epochs=7"):
        with pytest.raises(RecipeError, match="is no index of a list of 2"):
            resolve(key, recipe=path)


def test_an_override_of_one_knob_keeps_the_others_of_its_places_default() -> None:
    for override in ("backbone.prior.depth=2", "backbone.prior={depth: 2}"):
        prior = resolve(override, recipe="papers/neurons").backbone.prior
        assert (prior.depth, prior.heads, prior.dim_head) == (2, 32, 52)
    bands = Explanation.resolve("explain", None, {}, ["bands.alpha=[7, 13]"]).bands
    assert (bands["alpha"], bands["delta"]) == ((7, 13), (1, 4))


def test_a_recipe_that_extends_another_lays_its_keys_over_it(home: Path) -> None:
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
    other = read_recipe(home / "other.yaml", "train-align")
    assert other["backbone"] == {"kind": "linear"} and other["mode"] == "joint"

    for base, message in (
        ("other.yaml", "extends itself"),
        ("none.yaml", "no recipe"),
        (3, "should be a string"),
    ):
        (home / "base.yaml").write_text(f"extends: {base}\n")
        with pytest.raises(RecipeError, match=message):
            read_recipe(home / "other.yaml", "train-align")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ('paths.data="a\\nb"', "data"),
        ('encoders=["clip\\e[2J"]', "encoders"),
        ('{"dataset\\u0007": 1}', "the key 'dataset\\x07'"),
        ('backbone={kind: nice, "a\\u009b": 1}', "the key 'a\\x9b'"),
    ],
)
def test_names_that_no_file_or_terminal_should_get_are_refused(
    tmp_path: Path, override: str, key: str
) -> None:
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


def test_texts_for_people_may_have_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text("steps:\n  check:\n    says: |\n      one\n      two\n")
    steps = Workflow.resolve("workflow", str(path), {}, ()).steps
    assert steps["check"].says == "one\ntwo\n"
