"""Tests of the agreement of metrics with ratings of people."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import AGREEMENT
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    CLIP_METRICS,
    PARTS,
    PICTURE_METRICS,
    choose_metrics,
)
from tests.repositories import semantic_networks

DOCS = Path(__file__).parents[4] / "docs"
PAIRS = "metrics=pixcorr,ssim"


@pytest.fixture
def folders(home):
    """Arguments for three pictures: one has a copy, two have other pictures."""
    random = np.random.default_rng(0)
    for name in ("truth/a.png", "truth/b.png", "truth/c.png", "made/b.png"):
        (home / name).parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((64, 64)).save(home / name)
    Image.open(home / "truth/a.png").save(home / "made/a.png")
    Image.open(home / "truth/b.png").save(home / "made/c.png")
    return f"score={home / 'made'}", f"truth={home / 'truth'}"


def test_metrics_are_sorted_by_agreement_and_large_ones_optional():
    names = [name for name in PICTURE_METRICS if name in AGREEMENT]
    assert PICTURE_METRICS == names == list(AGREEMENT), (
        "add the metric to agreement in core/results/metric_table.json and to the "
        "table of docs/reconstruction.md"
    )
    assert names == sorted(names, key=AGREEMENT.__getitem__, reverse=True)

    default = choose_metrics("picture", None)
    assert set(names) - set(default) == {"seed_score", "object_f1", "cap_sim"}
    assert choose_metrics("picture", ["ssim", "swav", "clip"]) == [
        "swav",
        "clip",
        "ssim",
    ]
    assert choose_metrics("picture", ["seed_score"]) == names[:4]  # and its parts
    clips = [name for name, part in PARTS.items() if part.medium == "clip"]
    assert choose_metrics("clip", None) == CLIP_METRICS == clips


def test_the_guide_has_the_agreement_of_each_metric():
    table = (DOCS / "reconstruction.md").read_text().partition("| metric of pictures")
    rows = re.findall(r"^\| (`.+`) \| .+ \| (\.\d.*) \|$", table[2], re.M)
    values_by_name = {
        name: float(value)
        for names, values in rows
        for name, value in zip(
            re.findall(r"`(\w+)`", names), values.split(", "), strict=True
        )
    }
    assert list(values_by_name.items()) == list(AGREEMENT.items())


@pytest.mark.nightly
def test_seed_and_its_parts_are_measured_if_a_recipe_names_them(
    run_command, folders, image_networks, hub_cache
):
    semantic_networks.write(hub_cache)
    result = run_command("reconstruct", *folders, "metrics=pixcorr,seed_score")

    items = result.metrics.items["scored · made"]
    names = ["seed_score", "effnet", "object_f1", "cap_sim", "pixcorr"]
    assert [name for name in items if name in AGREEMENT] == names
    assert list(result.metrics.overall) == names
    assert not result.metrics.missing
    for row, image_id in enumerate(items["image_ids"]):
        seed, effnet, f1, cap_sim, _ = (items[name][row] for name in names)
        assert seed == pytest.approx((f1 + cap_sim + 1 - effnet) / 3, abs=1e-6)
        best = pytest.approx([1, 0, 1, 1], abs=1e-6)
        assert ([seed, effnet, f1, cap_sim] == best) == (image_id == "a")


@pytest.mark.nightly
def test_seed_without_weights_of_a_part_names_the_fetch_command(
    run_command, folders, image_networks, hub_cache, capsys
):
    result = run_command("reconstruct", *folders, "metrics=seed_score,pixcorr")

    assert list(result.metrics.overall) == ["effnet", "pixcorr"]
    assert set(result.metrics.missing) == {"seed_score", "object_f1", "cap_sim"}
    warned = capsys.readouterr().err
    assert "hf download openmmlab-community/mm_grounding_dino_large_all" in warned
    assert "hf download microsoft/git-large-coco" in warned
    with pytest.raises(BrainhiveError, match="metrics") as caught:
        run_command("reconstruct", *folders, "metrics=object_f1")
    assert "hf download openmmlab-community" in caught.value.hint

    semantic_networks.write(hub_cache)
    second_result = run_command("reconstruct", *folders, "metrics=seed_score,pixcorr")
    assert second_result.folder == result.folder
    assert "seed_score" in second_result.metrics.overall


def test_tables_pages_csv_and_latex_have_the_agreement(run_command, folders, home):
    result = run_command("reconstruct", *folders, PAIRS)
    table = result.tables[0]
    column = table.columns.index("agreement with people")
    values = {row[0]: row[column].value for row in table.rows}
    assert values == {"PixCorr": 0.117, "SSIM": 0.112}
    assert "22" in table.note
    assert "1,000" in table.note
    assert "2503.06437" in table.note

    run = f"runs={[str(result.folder)]}"
    for suffix in ("html", "csv", "tex"):
        run_command("report", run, f"to={home}/page.{suffix}", f"format={suffix}")
    page, tex = ((home / f"page.{suffix}").read_text() for suffix in ("html", "tex"))
    assert "agreement with people" in page
    assert "0.117" in page
    assert "2503.06437" in page
    assert "agreement with people & 0.117 & 0.112" in tex
    assert "2503.06437" in tex
    rows = csv.DictReader((home / "page.csv").read_text().splitlines())
    assert {(row["metric"], row["agreement"]) for row in rows} == {
        ("pixcorr", "0.117"),
        ("ssim", "0.112"),
    }
