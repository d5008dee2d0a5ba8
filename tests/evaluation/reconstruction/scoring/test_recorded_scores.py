"""Tests that scores of small random media equal recorded numbers."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results.measurements import ALL, Measurements
from brainhive_cli.core.runs import Launch, OpenRun, RunFolder, artifacts
from brainhive_cli.data.media import Clip, StimulusSet, media_files
from brainhive_cli.evaluation.reconstruction import metric_parts, run as scored_run
from brainhive_cli.evaluation.reconstruction.evaluation import (
    SheetWriter,
    describe_missing_metrics,
    find_runs_to_compare,
    make_comparison_tables,
    make_tables,
    measure_run,
    write_comparisons,
)
from brainhive_cli.evaluation.reconstruction.facts import ReconstructionFacts
from brainhive_cli.evaluation.reconstruction.folders import (
    leave_out_originals,
)
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
    find_metric,
    get_scale,
    is_available,
    list_metric_inputs,
    load_metrics_and_encoders,
    name_two_way_metric,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.run import ScoredRun
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Scorer,
    Stimuli,
    TaskScores,
    collect_decoded_annotations,
    collect_stimulus_annotation,
    find_originals_and_blanks,
    measure_sets,
    pool_folds,
    rank_items,
    score_set,
    write_values,
)
from brainhive_cli.measurement import StimulusGrouping, compare_runs
from brainhive_cli.models import Decoded, encoders
from brainhive_cli.training.alignment.facts import TrainingFacts
from tests.tools.recorded_numbers import metric_rows
from tests.worlds.command_fixtures import COLOURS
from tests.worlds.reconstructions import draw_media

CPU = torch.device("cpu")
HERE = Launch(0, 1, CPU)
IDS = [f"p{row}" for row in range(7)]
FRAMES = 3


def stimuli(frames=0):
    """Make seven stimuli of three concepts."""

    def open_stimulus(image_id):
        pixels = draw_media(int(image_id[1:]), 40, frames)
        return Clip(pixels, 8) if frames else Image.fromarray(pixels)

    concepts = dict(zip(IDS, "aabbbcc", strict=True))
    return Stimuli(open_stimulus, str, grouping=StimulusGrouping("concept", concepts))


def make_sets(folder, frames=0):
    """Write reconstructions of two seeds and two subjects, some with two repeats."""
    sets = []
    for number, (subject, seed) in enumerate(((1, 1), (1, 2), (2, 1))):
        name = f"sub-{subject:02d}_seed-{seed}/sub-{subject:02d}"
        files = {}
        for row, image_id in enumerate(IDS[: 7 - subject + 1]):
            repeats = 1 + (row + number) % 2
            files[image_id] = [
                folder / name / f"{image_id}-{repeat}.png" for repeat in range(repeats)
            ]
            for repeat, file in enumerate(files[image_id]):
                other_media = draw_media(100 * number + 10 * row + repeat, 48, frames)
                truth = np.asarray(
                    [
                        Image.fromarray(one).resize((48, 48))
                        for one in draw_media(row, 40, 1)
                    ]
                )
                truth = np.resize(truth, other_media.shape)
                file.parent.mkdir(parents=True, exist_ok=True)
                mixed = (0.5 * other_media + 0.5 * truth).astype(np.uint8)
                media_files.save(mixed, file, 8 if frames else None)
        sets.append(
            GeneratedSet("brain", name, (seed,), files, subject, "made at random")
        )
    return sets


@pytest.mark.parametrize("frames", [0, FRAMES])
@pytest.mark.parametrize("protocol", ["brainhive", "mindeye2"])
def test_scores(recorded, tmp_path, frames, protocol):
    sets, seen_stimuli = make_sets(tmp_path, frames), stimuli(frames)
    names = ["frame_ssim", "frame_pixcorr", "frame_psnr"]
    chosen = names if frames else ["pixcorr", "ssim"]
    parts, missing = load_metrics_and_encoders(
        chosen, [encoders.resolve(COLOURS)], HERE
    )
    opens = [lambda image_id=image_id: seen_stimuli.open(image_id) for image_id in IDS]
    scorer = Scorer(parts, protocol, 4, CPU, opens, frames or None)
    rows = {image_id: row for row, image_id in enumerate(IDS)}

    scored = [score_set(generated_set, scorer, rows, HERE) for generated_set in sets]

    write_values(tmp_path / "values.csv", scored)
    with (tmp_path / "values.csv").open() as file:
        listed = [row[2:3] + row[4:] for row in csv.reader(file)]
    metrics = measure_sets(scored, protocol, "test", seen_stimuli.grouping)
    recorded(
        digits=4,
        missing=len(missing),
        values=[generated_set.values for generated_set in scored],
        means=[generated_set.means for generated_set in scored],
        metrics=metric_rows(metrics),
        order=[image_id for _, image_id in rank_items(scored)],
        files=len(listed),
        columns=len(listed[0]),
        described=scorer.describe_stimuli(),
    )
    assert [row[0] for row in listed[1:]] == [
        image_id for generated_set in scored for image_id, _ in generated_set.media
    ]
    assert [generated_set.title for generated_set in scored] == [
        generated_set.name.partition("/")[0] for generated_set in sets
    ]


def test_clips_of_another_length_are_refused_and_pictures_repeat(
    tmp_path,
):
    parts, _ = load_metrics_and_encoders(["frame_pixcorr"], [], HERE)
    media = draw_media(0, 40, 3)
    scorer = Scorer(parts, "brainhive", 4, CPU, [lambda: Clip(media, 8)], 3)
    image = Image.fromarray(media[0])
    bar = SimpleNamespace(advance=lambda count: None)
    row = np.array([0])

    values = scorer.score(
        [lambda: image, lambda: Clip(media, 8)], row[[0, 0]], row, bar
    )

    alone = scorer.score([lambda: Clip(media[[0, 0, 0]], 8)], row, row, bar)
    assert values["frame_pixcorr"] == pytest.approx([alone["frame_pixcorr"][0], 1])
    with pytest.raises(BrainhiveError, match="2 frames"):
        scorer.score([lambda: Clip(media[:2], 8)], row, row, bar)
    pictures = replace(scorer, open_stimuli=[lambda: image], n_frames=None)
    with pytest.raises(BrainhiveError, match="3 frames") as caught:
        pictures.score([lambda: Clip(media, 8)], row, row, bar)
    assert "None" not in str(caught.value)


def measured(folder, frames, shift=0):
    """Measure a run with two sources. A third source is missing."""
    sets = make_sets(folder, frames)
    if shift:
        # the other run has the pictures of other items
        for row, generated_set in enumerate(sets):
            names, media = list(generated_set.files), list(generated_set.files.values())
            media = media[shift:] + media[:shift]
            sets[row] = replace(
                generated_set, files=dict(zip(names, media, strict=True))
            )
    files = dict(zip(IDS, reversed(sets[0].files.values()), strict=True))
    name = f"nearest/{sets[0].name}"
    nearest = replace(sets[0], source="nearest", name=name, files=files)
    tasks = [scores_of_tasks(order) for order in (range(7), [1, 0] + list(range(2, 7)))]
    brain = [replace(sets[row], task_scores=tasks[row]) for row in range(2)]
    people = list(brain) + [nearest]
    run_folder = RunFolder(folder)
    metric = "frame_ssim" if frames else "ssim"
    recipe = Recipe(metrics=[metric], sheet_rows=3)
    summary = measure_run(
        run_folder,
        recipe,
        people,
        stimuli(frames),
        "test",
        HERE,
        {"mean": "get it"},
        ReconstructionFacts(),
    )
    artifacts.write(run_folder, summary.artifacts)
    run_folder.finish(summary.measurements)
    return run_folder


LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]] * 2)[:7]


def labelled(frames=2):
    """Make stimuli with labels, captions and objects. The last two have no mask."""

    def masks(row):
        zeros = np.zeros((frames, 8, 8), np.uint8)
        zeros[:, : row + 1, :4] = 255 * (row < 5)
        return zeros

    return StimulusSet(
        "made",
        "test",
        IDS,
        IDS,
        str,
        frames=frames,
        masks=masks,
        labels=LABELS.astype(np.uint8).__getitem__,
        label_names=("animal", "human", "tree"),
        captions=lambda row: [f"a thing {row}", "a thing that stands"][: row % 3],
        objects=["dog", "man", "car", "cat", "dog", "man", "car"],
        object_names=("dog", "man", "car", "cat"),
    )


def decoded_as(order):
    random = torch.Generator().manual_seed(3)
    tensors = {
        "mask": torch.rand(7, 2, 1, 4, 4, generator=random),
        "concepts": torch.rand(7, 3, generator=random),
    }
    named = ("dog", "man", "car", "bee", "dog", "", "a car")
    texts = [f"a {name} stands" for name in named]
    return Decoded(tensors, {"caption": texts})[list(order)]


def scores_of_tasks(order):
    return TaskScores.from_decoded(decoded_as(order), labelled(), IDS)


def test_scores_of_words_and_masks(recorded):
    first_scores, second = (
        scores_of_tasks(range(7)),
        scores_of_tasks([3, 4, 5, 6, 0, 1, 2]),
    )
    fewer = replace(second, values={"mask_dice": second.values["mask_dice"]})
    decoded = collect_decoded_annotations(
        decoded_as(range(7)), IDS, labelled().label_names
    )
    stimulus_annotations = [
        collect_stimulus_annotation(labelled(), row) for row in range(7)
    ]
    bare = replace(labelled(), masks=None, labels=None, captions=None, label_names=())

    recorded(
        digits=5,
        scores=[vars(one) for one in (first_scores, second)],
        joined=vars(TaskScores.join([first_scores, fewer])),
        masks=[
            one.masks for one in tuple(decoded.values()) + tuple(stimulus_annotations)
        ],
        concepts=[
            len(one.concepts)
            for one in tuple(decoded.values()) + tuple(stimulus_annotations)
        ],
    )
    captions = ["", "a thing 1", "a thing 2", "", "a thing 4", "a thing 5", ""]
    assert [one.caption for one in stimulus_annotations] == captions
    shown = [("animal", "human"), ("human",), ("tree",), ()]
    assert [one.concepts for one in stimulus_annotations[:4]] == shown
    assert decoded["p3"].caption == "a bee stands"
    stimulus_annotation = collect_stimulus_annotation(bare, 0)
    assert (
        stimulus_annotation.caption,
        stimulus_annotation.concepts,
        stimulus_annotation.masks,
    ) == ("", (), None)
    # heads of other shapes are none
    other_decoded = Decoded({"mask": torch.zeros(7, 4), "concepts": torch.zeros(7, 9)})
    assert collect_decoded_annotations(other_decoded, IDS, labelled().label_names) == {}
    assert TaskScores.from_decoded(other_decoded, labelled(), IDS).values == {}
    # a stimulus set without truth has no scores
    bare = replace(bare, objects=None)
    assert TaskScores.from_decoded(decoded_as(range(7)), bare, IDS).values == {}


def test_the_likeliest_concepts_are_named_at_most_four():
    likely = torch.tensor([[0.6, 0.9, 0.7, 0.55, 0.8, 0.1], [0.2, 0.1, 0.5, 0, 0, 0]])
    decoded_annotations = collect_decoded_annotations(
        Decoded({"concepts": likely}), ["a", "b"], list("uvwxyz")
    )
    assert decoded_annotations["a"].concepts == (
        "v",
        "y",
        "w",
        "u",
    )
    assert decoded_annotations["b"].concepts == ("w",)


@pytest.mark.parametrize("frames", [0, FRAMES])
def test_a_run(recorded, tmp_path, frames):
    run = measured(tmp_path, frames)

    measurements = run.measurements()
    facts = measurements.require_facts(ReconstructionFacts)
    drawn = artifacts.read(run)
    laid_out = list(make_tables(measurements)) + list(
        make_comparison_tables(measurements)
    )
    recorded(
        digits=4,
        scopes={
            name: metric_rows(metrics) for name, metrics in measurements.scopes.items()
        },
        items={
            name: {
                key: [np.nan if value is None else value for value in column]
                for key, column in columns.items()
                if key not in ("image_ids", "units")
            }
            for name, columns in measurements.items.items()
        },
        units=[columns["units"] for columns in measurements.items.values()],
        facts=[facts.unit_count, facts.stimuli, facts.inflation, len(facts.concepts)],
        comparisons=facts.comparisons,
        tables=[[list(row) for row in table.rows] for table in laid_out],
        rows=[[row.query for row in one.rows] for one in drawn if one.kind == "sheet"],
    )
    assert list(measurements.missing)[-1] == "mean"
    assert facts.sources == [
        "brain",
        "nearest",
    ]
    assert measurements.scopes[ALL] == measurements.scopes["brain"]
    assert facts.medium == ("clip" if frames else "picture")


def test_runs_are_compared_item_by_item(recorded, tmp_path):
    runs = [measured(tmp_path / "one", 0), measured(tmp_path / "two", 0, shift=3)]

    write_comparisons(*runs[:1], runs[1:])

    first, second = [finished_run.measurements() for finished_run in runs]
    comparisons, errors = compare_runs({("one", "two"): (first, second)})
    against = runs[0].measurements().facts.against
    again = artifacts.read(runs[0])
    write_comparisons(*runs[:1], runs[1:])
    recorded(
        digits=4,
        against=[row.model_copy(update={"second": ""}) for row in against],
        comparisons=comparisons,
        sources=runs[0].measurements().facts.comparisons,
    )
    # tables of an earlier call are replaced
    assert len(artifacts.read(runs[0])) == len(again)
    assert errors == {}


def test_a_run_is_outdated_if_a_missing_metric_is_available(monkeypatch, tmp_path):
    finished = OpenRun(measured(tmp_path, 0), HERE)
    job = ScoredRun()
    job.recipe = Recipe()
    for known, is_outdated in ((), False), (("mean",), True), (("other",), False):
        monkeypatch.setattr(
            scored_run,
            "is_available",
            lambda name, encoders, known=known: name in known,
        )
        assert job.is_outdated(finished) is is_outdated


def test_a_run_is_compared_wherever_it_lies_if_it_reconstructs(tmp_path):
    run = measured(tmp_path / "moved", 0)
    run.write_text("recipe.yaml", "{}")
    assert find_runs_to_compare(Paths(), [str(run.path)]) == [run]
    other_run_folder = RunFolder(tmp_path / "reconstruct")
    other_run_folder.path.mkdir()
    other_run_folder.finish(Measurements(facts=TrainingFacts()))
    other_run_folder.write_text("recipe.yaml", "{}")
    with pytest.raises(RecipeError, match="train-align"):
        find_runs_to_compare(Paths(), [str(other_run_folder.path)])


def test_an_item_without_a_value_in_one_training_has_none():
    files = {image_id: [] for image_id in IDS[:4]}
    values = [[0.5, 0.25, np.nan, 1.0], [0.75, np.nan, np.nan, 0.0]]
    sets = [
        GeneratedSet(
            "brain",
            f"sub-01_seed-{seed}/sub-01",
            (seed,),
            files,
            1,
            task_scores=TaskScores({"mask_dice": np.array(column)}),
        )
        for seed, column in enumerate(values)
    ]
    metric = measure_sets(sets, "a", "test", StimulusGrouping())["mask_dice"]
    assert (metric.n, metric.value) == (2, (0.625 + 0.5) / 2)


def test_sheets_show_each_file_once(tmp_path):
    sets = make_sets(tmp_path / "elsewhere")
    run_folder = RunFolder(tmp_path / "run")
    values = {"ssim": np.linspace(0, 1, len(sets[0].media))}
    scored = [replace(sets[0], values=values)]

    sheets = SheetWriter(run_folder, scored, stimuli(), 2, "a", "picture").write_sheets(
        None
    )

    examples, best = sheets
    assert len(examples.rows) == len(best.rows) == 2
    assert [row.query for row in best.rows] == ["p6", "p0"]
    files = {tile.file for sheet in sheets for row in sheet.rows for tile in row.tiles}
    assert all((run_folder.path / file).is_file() for file in files)
    (value,) = best.rows[0].tiles[1].metrics.values()
    assert value == values["ssim"][-1]


def test_sets_of_folds_are_pooled():
    files = [{"a": [Path("a")]}, {"b": [Path("b")]}, {"c": [Path("c")]}]
    tasks = TaskScores({"mask_dice": np.array([0.5])})
    sets = []
    for files_of_cell, (seed, fold) in zip(
        files, ((1, 1), (1, 2), (2, 1)), strict=True
    ):
        name = f"sub-01_fold-{fold}_seed-{seed}/sub-01"
        sets.append(
            GeneratedSet("brain", name, (seed,), files_of_cell, 1, task_scores=tasks)
        )
    pooled = pool_folds(sets)
    assert [list(one.files) for one in pooled] == [["a", "b"], ["c"]]
    assert [one.seeds for one in pooled] == [(1,), (2,)]
    assert pooled[0].task_scores.values["mask_dice"].tolist() == [0.5, 0.5]
    assert "fold" not in pooled[0].name


def test_originals_and_pictures_of_one_colour_are_known(tmp_path):
    seen_stimuli = stimuli()
    ramp = np.repeat(np.arange(20, dtype=np.uint8), 60).reshape(20, 20, 3)
    made = {
        # up to 1.5 levels are JPEG's
        "p0": Image.fromarray(np.clip(draw_media(0, 40), 1, None) - 1),
        "p1": seen_stimuli.open("p1").resize((90, 90)),
        "p2": Image.fromarray(draw_media(50, 40)),
        "p3": Image.new("RGB", (20, 20), (9, 200, 30)),
        "p4": Image.fromarray(np.clip(draw_media(4, 40), 2, None) - 2),
        "p5": Image.fromarray(ramp // 8 + 100),
        "p6": Image.fromarray(ramp // 5 + 100),
    }
    files = {}
    for image_id, picture in made.items():
        files[image_id] = [tmp_path / f"{image_id}.png"]
        picture.save(files[image_id][0])

    generated = GeneratedSet("scored", "made", (), files)

    originals, blank = find_originals_and_blanks(generated, seen_stimuli)

    assert [file.stem for file in originals] == ["p0", "p1"]
    assert [file.stem for file in blank] == ["p3", "p5"]
    facts = ReconstructionFacts(score=str(tmp_path), without=["x"])
    kept, told = leave_out_originals(generated, seen_stimuli, facts, None)
    assert list(kept.files) == ["p2", "p3", "p4", "p5", "p6"]
    assert told.originals == ["p0.png", "p1.png"]
    assert told.without == ["x", "p0", "p1"]
    assert leave_out_originals(generated, seen_stimuli, facts, "left") == (
        generated,
        facts,
    )


@pytest.mark.parametrize("names", [None, ["ssim"], ["seed_score"]])
def test_metrics_are_chosen_by_medium(names):
    metrics = choose_metrics("picture", names)
    if names is None:
        assert {"pixcorr", "ssim", "clip"} <= set(metrics)
        assert not {"seed_score", "object_f1", "cap_sim"} & set(metrics)
        assert "epe" in choose_metrics("clip", None)
    elif names == ["ssim"]:
        assert metrics == names
    else:
        assert set(metrics) == set(names) | set(metric_parts.SEED_PARTS)
    for wrong_name in ("frame_ssim", "nothing"):
        with pytest.raises(RecipeError):
            choose_metrics("picture", [wrong_name])


def test_facts_of_metrics():
    encoder = encoders.resolve(COLOURS)
    assert find_metric("ssim") is metric_parts.PARTS["ssim"]
    assert find_metric("nothing") is None
    assert get_scale("pixcorr").low == -1
    assert get_scale(name_two_way_metric(encoder)).chance == 0.5
    assert get_scale("caption_object").low == 0
    assert is_available("ssim", [])
    assert is_available(name_two_way_metric(encoder), [encoder])
    assert not is_available(name_two_way_metric(encoder), [])
    networks = {"clip": 1, "cap_sim": 2, "ssim": 0}
    for name, count in networks.items():
        assert len(list_metric_inputs([name, name], [])) == count
    lines = describe_missing_metrics({"clip": "x", "swav": "x", "mean": "y"}, "clip")
    assert len(lines) == 2
    assert "mean training clip" in lines[1]


@pytest.mark.parametrize(("levels", "is_original"), [(0, True), (1, False)])
def test_a_faint_picture_differs_from_a_copy_by_a_single_level(
    tmp_path, levels, is_original
):
    faint = 120 + draw_media(0, 64).astype(np.uint8) // 20  # a deviation of 3 levels
    stand_in = SimpleNamespace(open=lambda image_id: Image.fromarray(faint))
    Image.fromarray(faint + levels).save(tmp_path / "a.png")
    generated = GeneratedSet("scored", "made", (), {"a": [tmp_path / "a.png"]})
    originals, _ = find_originals_and_blanks(generated, stand_in)
    assert bool(originals) == is_original
