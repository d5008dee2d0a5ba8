"""Tests of the metrics, sheets and tables of reconstructions."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.runs import RunFolder, artifacts
from brainhive_cli.demo.pictures import draw_scene, list_scenes
from brainhive_cli.evaluation.reconstruction.evaluation import (
    choose_rank_metric,
    compute_rank,
)
from brainhive_cli.evaluation.reconstruction.scoring import SOURCE_TITLES
from brainhive_cli.measurement.metrics import image as metrics
from brainhive_cli.measurement.metrics.image import (
    standardise,
    two_way_identification,
)
from brainhive_cli.models import encoders
from brainhive_cli.reports.pages.page import DETAILS, FINDING
from tests.worlds.command_fixtures import COLOURS
from tests.worlds.reconstructions import train_first_subject


@pytest.mark.nightly
def test_metrics_are_those_of_the_pictures_on_disk(reconstruct_result):
    result = reconstruct_result
    by_id = {scene.image_id: draw_scene(scene) for scene in list_scenes("test")}
    files = sorted(
        (result.folder / "samples" / "sub-01_seed-1" / "sub-01").rglob("00.png")
    )
    ids = [
        file.parent.relative_to(
            result.folder / "samples/sub-01_seed-1/sub-01"
        ).as_posix()
        for file in files
    ]
    encoder = encoders.resolve(COLOURS).build()

    def prepared(pictures):
        return torch.stack(
            [
                metrics.prepare(pil_to_tensor(p)[None] / 255, "brainhive")[0]
                for p in pictures
            ]
        )

    def features(pictures):
        return torch.stack(
            [encoder.preprocess(picture).flatten() for picture in pictures]
        )

    by_ids, expected = [by_id[image_id] for image_id in ids], []
    for repeat in range(2):
        images = [Image.open(file.with_name(f"{repeat:02d}.png")) for file in files]
        truth, drawn_prepared = prepared(by_ids), prepared(images)
        standard = [metrics.standardise(features(some)) for some in (by_ids, images)]
        two_way = metrics.two_way_identification(*standard, torch.arange(len(images)))
        expected.append(
            torch.stack(
                [
                    metrics.pixcorr(truth, drawn_prepared),
                    metrics.ssim(truth, drawn_prepared),
                    two_way,
                ]
            )
        )
    items = result.metrics.items["brain · sub-01_seed-1"]
    rows = [items["image_ids"].index(image_id) for image_id in ids]
    tensor = torch.tensor(
        [values for key, values in items.items() if key not in ("image_ids", "units")]
    )[:, rows]
    assert torch.allclose(
        tensor, torch.stack(expected).mean(0).to(tensor.dtype), atol=1e-6
    )
    overall = result.metrics.overall
    assert overall["pixcorr"].value == pytest.approx(float(tensor[0].mean()), abs=1e-6)
    name = "two_way_brainhive_cli-models-encoders-python-example"
    assert (overall[name].n, overall[name].chance) == (3, 0.5)
    assert {(m.low, m.high, m.interval) for m in overall.values()} == {
        (None, None, "none: 3 pictures are too few")
    }


def test_sheets_show_random_and_ranked_items_of_every_source(
    reconstruct_result,
):
    run_artifacts = artifacts.read(RunFolder(reconstruct_result.folder))
    sources, best, ranks, compared = run_artifacts

    image_ids = reconstruct_result.metrics.items["brain · sub-01_seed-1"]["image_ids"]
    # sheet_rows
    random = [image_ids[row] for row in np.random.default_rng(0).permutation(3)[:2]]
    assert [row.query for row in sources.rows] == random
    assert sources.note.startswith("2 of 3 pictures, drawn at random (seed 0); ")
    assert list(best.columns) == ["seen", "drawn"]
    assert sources.section == best.section != DETAILS
    assert len(best.rows) == 2
    assert {row.query for row in best.rows} <= set(image_ids)
    titles = [
        SOURCE_TITLES[source] for source in reconstruct_result.metrics.facts.sources
    ]
    assert list(sources.columns) == ["seen"] + list(titles)
    assert all(tile.file for tile in sources.rows[0].tiles)
    measured, chance = ranks.lines
    assert ranks.section == FINDING
    assert list(ranks.at) == ["1", "2–3"]
    assert sum(measured.values) == pytest.approx(1)
    assert chance.values == pytest.approx([1 / 3, 2 / 3], abs=1e-3)
    assert sources.sample.n_tested == 3
    assert sources.sample.subject == "sub-01"
    for row in sources.rows:
        two_way = row.tiles[1].metrics[sources.ranked_by]
        assert row.n_candidates == 3
        assert row.rank == 1 + 2 * (1 - two_way)
    assert compared.section == "Comparisons"
    assert "PixCorr" in {row[0] for row in compared.rows}
    assert "brainhive report" in reconstruct_result.hint


def test_the_rank_counts_stimuli_that_resemble_a_picture_more():
    stimuli = standardise(torch.rand(7, 30, generator=torch.Generator().manual_seed(1)))
    mixed = standardise(0.4 * stimuli[[2, 5]] + stimuli[[4, 0]])
    rows = torch.tensor([2, 5])
    two_way = two_way_identification(stimuli, mixed, rows).tolist()

    correlations = stimuli @ mixed.T  # [7, 2]
    for column, share in enumerate(two_way):
        correct_correlation = correlations[rows[column], column]
        rank = int((correlations[:, column] >= correct_correlation).sum())
        assert compute_rank(share, 7) == rank > 1


def test_ranks_come_from_the_headline_if_it_is_two_way():
    assert choose_rank_metric(["ssim", "alexnet2", "clip"]) == "clip"
    assert choose_rank_metric(["ssim", "alexnet2"]) == "alexnet2"
    assert choose_rank_metric(["two_way_x", "video_50way"]) == "two_way_x"
    assert choose_rank_metric(["ssim", "video_50way"]) == ""


@pytest.mark.nightly
def test_scored_pictures_keep_the_caveat_of_selection_on_test(
    run_command, reconstruct_overrides, align_overrides, runs, prior, tmp_path
):
    train_first_subject(
        run_command, align_overrides, runs, f"prior={prior}", "train.selection=test"
    )

    drawn_result = run_command("reconstruct", *reconstruct_overrides, "sheet_rows=2")
    # any pictures of these names
    for file in (drawn_result.folder / "samples").rglob("00.png"):
        truth = (tmp_path / "truth" / file.parent.name).with_suffix(".png")
        truth.parent.mkdir(exist_ok=True)
        Image.open(file).save(truth)
    scored = run_command(
        "reconstruct",
        f"score={drawn_result.folder}/samples",
        f"truth={tmp_path}/truth",
        "metrics=pixcorr",
        runs,
    )

    for caveat in ("simulated", "selected on test"):
        for result in (drawn_result, scored):
            assert caveat in result.metrics.caveats
            assert all(caveat in table.note for table in result.tables)
            assert all(
                caveat in metric.protocol for metric in result.metrics.overall.values()
            )
            sheets = [
                sheet
                for sheet in artifacts.read(RunFolder(result.folder))
                if sheet.kind == "sheet"
            ]
            assert sheets
            assert all(caveat in sheet.note for sheet in sheets)


@pytest.mark.nightly
def test_cells_have_a_table_and_an_item_counts_once_over_seeds(
    run_command, world, reconstruct_overrides, align_overrides, runs, prior
):
    run_command(
        "train-align",
        *align_overrides,
        runs,
        f"prior={prior}",
        "subjects=1,2",
        "seeds=1,2",
        "train.epochs=1",
    )

    both_result = run_command("reconstruct", *reconstruct_overrides, "seeds=1,2")
    first_result = run_command(
        "reconstruct", *reconstruct_overrides, "seeds=2", "subjects=2"
    )

    assert both_result.tables[0].title == "Reconstruction of test pictures"
    assert both_result.tables[0].note.startswith("for these 3 pictures. 6 tested.")
    assert both_result.tables[0].note.endswith(
        "brainhive, 2 repeats, intra demo-noise-0.3-40-concepts, 17 channels, 0 to "
        "1000 ms, 250 Hz, 16 repetitions averaged, uV, simulated. † simulated"
    )
    assert {metric.n for metric in both_result.metrics.overall.values()} == {2 * 3}
    cells = ["sub-01_seed-1", "sub-01_seed-2", "sub-02_seed-1", "sub-02_seed-2"]
    rows = list(cells) + ["agreement with people"]
    assert [row[0] for row in both_result.tables[1].rows] == rows
    assert both_result.tables[1].columns == ["model (person, seed)", "PixCorr", "SSIM"]
    assert "3 tested." in both_result.tables[1].note
    name = "brain · sub-02_seed-2"
    assert list(first_result.metrics.facts.cells) == [name]
    assert len(first_result.tables) == 1
    assert first_result.metrics.items[name] == both_result.metrics.items[name]
    with pytest.raises(MissingData, match=r"\b3\b"):
        run_command("reconstruct", *reconstruct_overrides, "subjects=3")
