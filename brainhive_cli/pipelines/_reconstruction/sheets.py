"""Which reconstructions people are shown, and on which sheet."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from brainhive_cli.datasets import decode
from brainhive_cli.pipelines._reconstruction.drawn import Scored
from brainhive_cli.reports.reconstructions import Row, reconstruction_sheet

Sheets = dict[str, Image.Image]


def sheets_of(
    scored: Sequence[Scored],
    open_seen: Callable[[str], Image.Image],
    label: Callable[[str], str],
    rows: int,
    how: str,
) -> Sheets:
    """Draw the sheets, by file name.

    The first items as they come; the best and the worst of all; and for each cell and subject a sheet that
    goes from the best to the worst in even steps. Items are ranked by the mean over metrics of their ranks.

    Args:
        scored: The reconstructions; the first source is the one that is shown in full.
        open_seen: Image id to stimulus.
        label: Image id to what it shows.
        rows: Items on a sheet.
        how: How the pictures were made, for the titles.
    """

    def sheet(title: str, chosen: Sequence[tuple[Scored, str]]) -> Image.Image:
        return reconstruction_sheet(f"{title}: {how}", [row(each, image_id) for each, image_id in chosen])

    def row(each: Scored, image_id: str) -> Row:
        rank, count = orders[each.drawn.name].index(image_id) + 1, len(each.drawn.files)
        lines = [label(image_id), f"rank {rank} of {count}", each.drawn.name]
        drawn = [(decode(str(file), file), values) for file, values in each.of_item(image_id)]
        return Row(lines, open_seen(image_id), drawn)

    orders = {each.drawn.name: each.best_first for each in scored}
    first = scored[0]
    main = [each for each in scored if each.drawn.source == first.drawn.source]
    drawn = {"contact_sheet.png": sheet("First items", [(first, i) for i in list(first.drawn.files)[:rows]])}
    half = max(1, rows // 2)
    for name, ends in {
        "best": orders,
        "worst": {name: order[::-1] for name, order in orders.items()},
    }.items():
        picked = [
            (each, ends[each.drawn.name][r])
            for r in range(half)
            for each in main
            if r < len(each.drawn.files)
        ]
        drawn[f"{name}.png"] = sheet(f"{name.title()} items", picked[:half])
    for each in scored:
        order = orders[each.drawn.name]
        steps = np.unique(np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int))
        title = f"{each.drawn.name}, best to worst"
        drawn[f"sheets/{each.drawn.name}.png"] = sheet(title, [(each, order[place]) for place in steps])
    return drawn
