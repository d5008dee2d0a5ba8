"""Which reconstructions people are shown, and on which sheet."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.data.media_files import first_frame
from brainhive_cli.reconstruction.generated import TRUTH, Scored, best_first
from brainhive_cli.reconstruction.metric_parts import short
from brainhive_cli.reports.sheets import INK, Tile, draw_rows


def sheets_of(
    scored: Sequence[Scored],
    open_seen: Callable[[str], Any],
    label: Callable[[str], str],
    rows: int,
    protocol: str,
) -> dict[str, Image.Image]:
    """Make the sheets, by file name.

    The first items as they come; the best and the worst of all cells and subjects, each item once; and for
    each cell and subject a sheet that goes from the best to the worst in even steps.

    Args:
        scored: The reconstructions; the first source is the one that is shown in full.
        open_seen: Image id to stimulus; of a clip the first frame is shown.
        label: Image id to what it shows.
        rows: Items on a sheet.
        protocol: How they were compared, for the titles.
    """

    def sheet(title: str, order: Sequence[tuple[Scored, str]], places: Iterable[int]) -> Image.Image:
        how = f"{protocol}, {order[0][0].generated.described}"
        return draw_rows(f"{title}: {how}", [row(order, place) for place in places])

    def row(order: Sequence[tuple[Scored, str]], place: int) -> list[Tile]:
        each, image_id = order[place]
        lines = [label(image_id), f"rank {place + 1} of {len(order)}", *each.generated.title.split("/")]
        return [
            Tile(first_frame(open_seen(image_id)), lines, frame=INK),
            *(
                Tile(first_frame(each.generated.open(file)), metrics={short(n): v for n, v in values.items()})
                for file, values in each.of_item(image_id)
            ),
        ]

    first = scored[0]
    of_first, ids = best_first([first]), list(first.generated.files)
    together = best_first([each for each in scored if each.generated.source == first.generated.source])
    where = {image_id: place for place, (_, image_id) in enumerate(of_first)}
    half = max(1, rows // 2)
    forward = range(len(together))
    sheets = {
        "contact_sheet.png": sheet("First items", of_first, [where[image_id] for image_id in ids[:rows]]),
        "best.png": sheet("Best items", together, _each_once(together, forward)[:half]),
        "worst.png": sheet("Worst items", together, _each_once(together, forward[::-1])[:half]),
    }
    for each in scored:
        if each.generated.source in ("mean", TRUTH):  # one picture for all, or what every sheet shows
            continue
        order = best_first([each])
        steps = np.unique(np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int))
        sheets[f"sheets/{each.generated.name}.png"] = sheet(
            f"{each.generated.scope}, best to worst", order, steps
        )
    return sheets


def _each_once(order: Sequence[tuple[Scored, str]], places: Iterable[int]) -> list[int]:
    """Keep the first place of each item: the same one of several subjects would fill a sheet."""
    taken: dict[str, int] = {}
    for place in places:
        taken.setdefault(order[place][1], place)
    return list(taken.values())
