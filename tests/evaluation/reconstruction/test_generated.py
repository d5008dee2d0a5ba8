"""What reconstructions score together: items over seeds and subjects, and their order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    measure_sets,
    rank_items,
    write_values,
)
from brainhive_cli.evaluation.reconstruction.selections import Selection
from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import Alike

IDS = ("a", "b", "c", "d", "e", "f")


def scored(
    subject: int, seed: int, repeats: int = 1, folder: Path = Path(), **values: list[float]
) -> GeneratedSet:
    """Make a subject's reconstructions of as many items as values, every repeat with the item's value."""
    name = f"sub-{subject:02d}_seed-{seed}/sub-{subject:02d}"
    ids = IDS[: len(next(iter(values.values())))]
    files = {image_id: [folder / f"{image_id}.png"] * repeats for image_id in ids}
    repeated = {metric: np.repeat(found, repeats) for metric, found in values.items()}
    return GeneratedSet("brain", name, (seed,), files, subject, values=repeated)


def test_an_item_counts_once_averaged_over_repeats_and_seeds():
    first = scored(1, 5, 4, ssim=[0.1, 0.2, 0.9, 0.5, 0.4, 0.3])
    second = scored(1, 6, 2, ssim=[0.3, 0.4, 0.5, 0.7, 0.2, 0.5])

    metric = measure_sets([first, second], "mindeye2", "test", Alike())["ssim"]

    items = np.array([0.2, 0.3, 0.7, 0.6, 0.3, 0.4])
    assert (metric.value, metric.n, metric.seeds) == (pytest.approx(items.mean()), 6, (5, 6))
    expected = describe([items], limits=(-1, 1))
    assert (metric.low, metric.high) == pytest.approx((expected.low, expected.high))
    error = items.std(ddof=1) / np.sqrt(6)
    assert (metric.low, metric.high) == pytest.approx(ends(items.mean(), 2.5706, error), rel=1e-4)


def ends(value: float, quantile: float, error: float) -> np.ndarray:
    """A t interval between -1 and 1, on the logit scale."""
    return np.tanh(np.arctanh(value) + np.array([-1, 1]) * quantile * error / (1 - value**2))


def test_the_interval_for_people_is_over_subjects_and_each_counts_alike():
    """Their items do not differ, so nothing is said of two subjects alone."""
    two = [scored(n, 5, ssim=[value] * 6) for n, value in enumerate((0.49, 0.51))]
    five = [scored(n, 5, ssim=[0.48 + 0.01 * n] * 6) for n in range(5)]

    of_two, of_five = (measure_sets(some, "mindeye2", "test", Alike())["ssim"] for some in (two, five))

    assert (of_two.value, of_two.n) == (pytest.approx(0.5), 12)
    assert of_two.people == pytest.approx(ends(0.5, 12.706, 0.01), rel=1e-4)
    assert (of_two.low, of_two.high, of_two.these_subjects) == (None, None, None)
    assert of_two.interval == "none: no item differs from others; for these 6 pictures and these 2 subjects"
    error = 0.01 * np.sqrt(2.5 / 5)
    assert (of_five.low, of_five.high) == of_five.people == pytest.approx(ends(0.5, 2.7764, error), rel=1e-4)


def test_of_five_items_there_is_no_interval_and_the_reason_is_said():
    subjects = [scored(n, 5, ssim=[0.1, 0.4, 0.9, 0.2, 0.3], clip=[1.0] * 5) for n in (1, 2)]

    found = measure_sets(subjects, "mindeye2", "test", Alike())

    for metric in (found["ssim"], found["clip"]):
        assert (metric.low, metric.high, metric.these_subjects, metric.people) == (None, None, None, None)
        assert metric.interval == "none: 5 pictures are too few"


def test_items_without_a_value_are_not_counted_among_those_of_the_interval():
    values = [0.1, 0.4, np.nan, 0.9, 0.2, 0.3]
    of_five, of_six = (
        scored(1, 5, mask_dice=some) for some in (values, [0.7 if v != v else v for v in values])
    )

    found, all_found = (
        measure_sets([some], "brainhive", "test", Alike())["mask_dice"] for some in (of_five, of_six)
    )

    assert (found.n, found.interval) == (5, "none: 5 pictures are too few")
    assert (all_found.n, all_found.interval) == (6, "t over 6 pictures; for these 6 pictures")
    assert 0 < all_found.low < all_found.value < all_found.high < 1


def test_intervals_of_clips_are_over_blocks_of_neighbours():
    values = np.random.default_rng(0).random(360)
    files = {f"{n:03d}": [Path(f"{n}.mp4")] for n in range(360)}
    one = GeneratedSet("brain", "sub-01", (5,), files, 1, values={"frame_ssim": values})

    metric = measure_sets([one], "mindeye2", "test", Alike("neighbours", medium="clip"))["frame_ssim"]

    assert (metric.value, metric.n) == (pytest.approx(values.mean()), 360)
    error = values.reshape(6, 60).mean(1).std(ddof=1) / np.sqrt(6)
    assert (metric.low, metric.high) == pytest.approx(ends(values.mean(), 2.5706, error), rel=1e-4)
    assert metric.interval == "t over 6 blocks of 60 neighbouring clips; for these films"


def test_ends_stay_within_what_a_metric_can_be_and_pixels_are_no_hits():
    shares = (-0.99, -0.99, 0.0, 0.99, 0.99)
    subjects = [scored(n, 5, ssim=[x] * 6, effnet=[1 + x] * 6) for n, x in enumerate(shares)]
    found = measure_sets(subjects, "mindeye2", "test", Alike())
    reach = 2.7764 * np.std(shares, ddof=1) / np.sqrt(5)
    assert reach > 1  # beyond the limits, from the middle
    assert (found["ssim"].low, found["ssim"].high) == pytest.approx(
        (-np.tanh(reach), np.tanh(reach)), rel=1e-4
    )
    assert (found["effnet"].low, found["effnet"].high) == pytest.approx(
        (1 - np.tanh(reach), 1 + np.tanh(reach)), rel=1e-4
    )

    equal = measure_sets([scored(1, 5, ssim=[1.0] * 6, clip=[1.0] * 6)], "mindeye2", "test", Alike())
    assert (equal["ssim"].low, equal["ssim"].high) == (None, None)
    assert equal["ssim"].interval.startswith("none: no item differs from others")
    assert equal["clip"].low == pytest.approx(6 / (6 + 1.959964**2))  # Wilson's of six hits in six


def test_subjects_who_saw_the_same_pictures_share_their_units():
    """In whatever order the files were found: six pictures leave the error of six, not of twelve."""
    values = [0.1, 0.4, 0.9, 0.2, 0.3, 0.5]
    other = scored(2, 5, ssim=values[::-1])
    files = dict(reversed(other.files.items()))
    turned = GeneratedSet("brain", "", (5,), files, 2, values={"ssim": np.array(values[::-1])})

    metric = measure_sets([scored(1, 5, ssim=values), turned], "mindeye2", "test", Alike())["ssim"]

    alone = measure_sets([scored(1, 5, ssim=values)], "mindeye2", "test", Alike())["ssim"]
    error = np.std(values, ddof=1) / np.sqrt(6)
    assert (alone.low, alone.high) == pytest.approx(ends(0.4, 2.5706, error), rel=1e-4)
    assert (metric.low, metric.high) == metric.these_subjects == pytest.approx((alone.low, alone.high))


def test_identification_tells_its_pool_and_chance():
    metric = measure_sets([scored(1, 5, clip=[0.5, 0.5, 1.0])], "mindeye2", "test", Alike())["clip"]
    assert (metric.pool, metric.chance) == (3, 0.5)


def test_items_are_sorted_by_their_mean_rank_and_less_distance_is_better():
    many = scored(1, 5, ssim=[0.9, 0.8, 0.7], clip=[0.0, 1.0, 1.0], swav=[0.3, 0.2, 0.1])
    # ranks of ssim: 1 2 3; of clip: 3 1.5 1.5; of swav: 3 2 1
    assert [image_id for _, image_id in rank_items([many])] == ["b", "c", "a"]


def test_ties_do_not_make_a_metric_weigh_less():
    tied = scored(1, 5, ssim=[0.9, 0.8, 0.7], clip=[0.0, 1.0, 1.0], alexnet2=[0.0, 0.0, 1.0])
    # ranks of ssim: 1 2 3; of clip: 3 1.5 1.5; of alexnet2: 2.5 2.5 1: means 2.2, 2, 1.8
    assert [image_id for _, image_id in rank_items([tied])] == ["c", "b", "a"]


def test_every_picture_keeps_its_own_value(tmp_path):
    files = {i: [tmp_path / i / f"{repeat}.png" for repeat in range(2)] for i in IDS[:3]}
    each = GeneratedSet("brain", "cell", (5,), files, values={"ssim": np.arange(6) / 10})

    write_values(tmp_path / "values.csv", [each])

    assert each.list_files("b") == [(files["b"][0], {"ssim": 0.2}), (files["b"][1], {"ssim": 0.3})]
    assert list(each.files) == ["a", "b", "c"]
    assert {name: means.tolist() for name, means in each.means.items()} == {"ssim": [0.05, 0.25, 0.45]}
    rows = [row.split(",") for row in (tmp_path / "values.csv").read_text().splitlines()]
    assert rows[0] == ["source", "cell", "image_id", "file", "ssim"]
    assert rows[4] == ["brain", "cell", "b", "1.png", "0.3"]


def test_from_the_best_to_the_worst_goes_over_all_subjects_and_shows_each_item_once(tmp_path):
    for image_id in IDS:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{image_id}.png")
    subjects = [
        scored(1, 5, folder=tmp_path, ssim=[0.1, 0.2, 0.3]),
        scored(2, 5, folder=tmp_path, ssim=[0.5, 0.6, 0.4]),
        scored(3, 5, folder=tmp_path, ssim=[0.7, 0.9, 0.8]),
    ]

    selection = Selection(
        RunFolder(tmp_path), subjects, Stimuli(lambda i: Image.new("RGB", (4, 4)), str), 4, ""
    )
    first, best = selection.show_pictures()

    assert {row.query for row in first.rows} == {"a", "b", "c"}
    assert [row.query for row in best.rows] == ["b", "c", "a"]  # all of subject 3
    assert [row.tiles[1].metrics["SSIM"] for row in best.rows] == [0.9, 0.8, 0.7]
    assert best.rows[0].tiles[1].file == "b.png" and (tmp_path / best.rows[0].tiles[0].file).is_file()
