"""The pictures of an evaluated run: the top-k sheet, and the curves."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image
from torch.nn.functional import normalize

from brainhive_cli.core.caveats import extend_title
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.reports.bar_plot import draw_bars
from brainhive_cli.reports.curve_plot import draw_curve
from brainhive_cli.reports.sheets import top_k_sheet
from brainhive_cli.retrieval.ensembles import Ensemble
from brainhive_cli.retrieval.rankings import Gallery
from brainhive_cli.retrieval.recipe import EvaluationSpec
from brainhive_cli.retrieval.summary import label, points_of, regions_of
from brainhive_cli.stores.ids import match_ids

FILES = {
    "top-k sheet": "top_k.png",
    "repetitions": "repetitions.png",
    "sliding window": "sliding.png",
    "regions": "regions.png",
}
"""What each picture is called, and its file in the run folder."""
LINES = {"top1": "top-1", "top5": "top-5"}
AXES = {"repetitions": "repetitions averaged", "sliding": "centre of the window, ms after the picture"}


def draw_sheet(
    folder: RunFolder, ensemble: Ensemble, spec: EvaluationSpec, rows: int, caveats: list[str]
) -> None:
    """Draw some queries of a cell's first subject, each with the pictures that were retrieved."""
    gallery = Gallery.of(ensemble, spec.splits, 0, spec.seed)
    subject = ensemble.cell.tested_on[0]
    signals, picture = ensemble.signals(subject, spec.split)
    tokens, target = ensemble.tokens(subject, signals), np.searchsorted(gallery.rows, picture)
    chosen = np.random.default_rng(spec.seed).permutation(len(tokens))[:rows]
    scores = normalize(tokens[chosen], dim=1) @ normalize(gallery.tokens, dim=1).T
    title = extend_title(f"{ensemble.cell.name} on {label(subject)}", caveats)
    sheet = top_k_sheet(_opener(ensemble, spec), scores.cpu().numpy(), target[chosen], title=title)
    folder.replace(FILES["top-k sheet"], sheet.save)


def _opener(ensemble: Ensemble, spec: EvaluationSpec) -> Callable[[int], Image.Image]:
    """Return a function that opens a picture by its place in the gallery."""
    member, places = ensemble.members[0], []
    for split in reversed(spec.splits):
        images, known = member.align.dataset.images(split), member.pictures(split).image_ids
        ids = [known[row] for row in ensemble.rows(split)]
        places += [(images, row) for row in match_ids(ids, images.image_ids, f"{images.dataset} {split}")]

    def open_picture(place: int) -> Image.Image:
        images, row = places[place]
        picture: Image.Image = images.open(int(row))
        return picture

    return open_picture


def draw_regions(folder: RunFolder, found: Measurements) -> None:
    """Draw what each region carries of each head, if it was measured."""
    if regions := regions_of(found):
        axis = "share of the prediction that is lost without the region"
        draw = partial(draw_bars, groups=regions, axis=axis, title=found.notes["protocol"])
        folder.replace(FILES["regions"], draw)


def draw_curves(folder: RunFolder, found: Measurements) -> None:
    """Draw the curves that were measured."""
    for name, curve in found.notes["curves"].items():
        points = points_of(found, name)
        lines = {words: [each[metric] for each in points.values()] for metric, words in LINES.items()}
        title = f"{found.notes['protocol']}\n{curve['description']}"
        draw = partial(draw_curve, at=list(points), lines=lines, axis=AXES[name], title=title)
        folder.replace(f"{name}.png", partial(draw, is_logarithmic=name == "repetitions"))
