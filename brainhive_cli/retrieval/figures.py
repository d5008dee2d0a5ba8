"""The pictures of an evaluated run: the top-k sheet, and the curves."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from torch.nn.functional import normalize

from brainhive_cli.core.caveats import in_title, said_in
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.reports.curve_plot import draw_curve
from brainhive_cli.reports.sheets import top_k_sheet
from brainhive_cli.retrieval.cell_scores import EvaluationSpec
from brainhive_cli.retrieval.ensembles import Ensemble
from brainhive_cli.retrieval.rankings import Gallery
from brainhive_cli.stores.hdf5 import match_ids

SHOWN = {"top1": "top-1", "top5": "top-5"}


def draw_sheet(
    folder: RunFolder, ensemble: Ensemble, asked: EvaluationSpec, rows: int, protocol: str
) -> None:
    """Draw some queries of a cell's first subject beside the pictures that were retrieved."""
    gallery = Gallery.of(ensemble, asked.splits, 0, asked.seed)
    subject = ensemble.cell.tested_on[0]
    signals, picture = ensemble.signals(subject, asked.split)
    tokens, target = ensemble.tokens(subject, signals), np.searchsorted(gallery.rows, picture)
    chosen = np.random.default_rng(asked.seed).permutation(len(tokens))[:rows]
    scores = normalize(tokens[chosen], dim=1) @ normalize(gallery.tokens, dim=1).T
    pictures = _pictures(ensemble, asked, gallery)
    title = in_title(f"{ensemble.cell.name} on sub-{subject:02d}", said_in(protocol))
    sheet = top_k_sheet(pictures, scores.cpu().numpy(), target[chosen], title=title)
    folder.replace("top_k.png", sheet.save)


def _pictures(ensemble: Ensemble, asked: EvaluationSpec, gallery: Gallery) -> Any:
    """Return what opens a picture by its place in the gallery."""
    dataset, places = ensemble.members[0].align.dataset, []
    start = 0
    for split in reversed(asked.splits):
        images, count = dataset.images(split), len(ensemble.rows(split))
        known = gallery.image_ids[start : start + count]
        places += [(images, row) for row in match_ids(known, images.image_ids, f"{images.dataset} {split}")]
        start += count

    def open_picture(place: int) -> Image.Image:
        images, row = places[place]
        return images.open(int(row))

    return open_picture


def draw_curves(folder: RunFolder, metrics: Mapping[str, Any]) -> None:
    """Draw the curves that were measured."""
    axes = {"repetitions": "repetitions averaged", "sliding": "centre of the window, ms after the picture"}
    for name, axis in axes.items():
        if points := metrics["curves"][name]:
            title = f"{metrics['protocol']}\n{metrics['curves']['how'][name]}"
            draw = partial(draw_curve, points=points, metrics=SHOWN, axis=axis, title=title)
            folder.replace(f"{name}.png", partial(draw, doubling=name == "repetitions"))
