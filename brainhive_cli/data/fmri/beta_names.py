"""Names of pictures and conditions that files of betas state."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Int64
from brainhive_cli.core.files import read_lines
from brainhive_cli.data.files import path_ends, summarise_names, to_image_id
from brainhive_cli.data.fmri.volumes import open_image
from brainhive_cli.data.recordings import EMPTY_CELLS

SEPARATORS = r"[\W_]*"
SHAPE_HINT = (
    "write one line per beta, and leave out statistics between betas; n betas are "
    "[X, Y, Z, n] on the grid of the mask, n volumes, [n, voxels], or [voxels, n] if "
    "that is not square"
)
Patterns = Mapping[str, tuple[re.Pattern[str], str]]
"""Pattern of a name in texts, and its cell of a table, by letters and digits."""


def read_labels(path: Path, root: Path, way_out: str) -> list[str]:
    """Read the texts of each volume of a file that may name its picture.

    They are the path, SPM's description, FEAT's name of the contrast and AFNI's label.

    Args:
        path: NIfTI [X, Y, Z] or [X, Y, Z, n].
        root: Folder to which the path is relative.
        way_out: Advice on how to get an undamaged file.
    """
    header = open_image(path, way_out).header
    text = f"{path.relative_to(root).as_posix()}\n"
    text += bytes(header["descrip"]).decode(errors="replace").strip("\0")
    design = path.parents[1] / "design.con"
    if path.parent.name == "stats" and design.is_file():
        number = re.sub(r"\D", "", path.name)
        for line in read_lines(design, errors="replace"):
            if line.startswith(f"/ContrastName{number}\t"):
                text += line

    names = [""] * math.prod(header.get_data_shape()[3:])
    for extension in header.extensions:
        # AFNI's labels of volumes in the header of NIfTI.
        match = re.search(
            rb'BRICK_LABS"[^>]*>\s*"([^"]*)"', bytes(extension.get_content())
        )
        if match:
            names = match[1].decode(errors="replace").split("~")[: len(names)]
    return [text + name for name in names]


def order_betas(
    labels: Sequence[str], lines: Sequence[Mapping[str, str]], column: str, path: Path
) -> tuple[Int64, list[str]]:
    """Find the beta of each line of a table, by the names that the files state.

    A column of the table counts if the files name its cells, such as `run` for run-01.
    Betas with equal names are in the order of the lines.

    Args:
        labels: Text of each beta, which begins with its path, in natural order.
        lines: Lines of the table.
        column: Column of the pictures.
        path: File of the first beta, for messages.

    Returns:
        Row of the beta of each line, and the labels of betas that name no picture
        while most do.

    Raises:
        BrainhiveError: if betas and lines differ in number or in their names, or if
            nothing states the order of the files.
    """
    # Names of SPM's regressors without a picture, and of AFNI's statistics.
    rows = [
        row
        for row, label in enumerate(labels)
        if not re.search(r"Sn\(\d+\) (R\d+|constant)|(stat|R\^2)$", label)
    ]
    unnamed: list[str] = []
    columns = [[""] * len(labels)]  # cells that the files name
    line_columns = [[""] * len(lines)]
    has_names = False
    # Words before the number of a picture. Other numbers may count trials.
    picture_words = ("stim", "stimulus", "image", "img", "picture", "pic")
    for name in sorted(lines[0], key=lambda name: name != column):
        line_cells = [line.get(name, "") for line in lines]
        words = (name, *picture_words) if name == column else (name,)
        patterns = _make_patterns(set(line_cells).difference(EMPTY_CELLS), words)
        cell_of = {label: _find_cell(label, patterns) for label in set(labels)}
        cells = [cell_of[label] for label in labels]
        # a single name may stand in all paths by chance
        is_picture = name == column and len(set(cells)) > 1 + ("" in cells)
        if is_picture:
            unnamed = [labels[row].strip() for row in rows if not cells[row]]
            rows = [row for row in rows if cells[row]]
        is_fit = {cells[row] for row in rows} == set(line_cells)
        if is_picture or (len(patterns) > 1 and is_fit):
            columns.append(cells)
            line_columns.append(line_cells)
            has_names |= not all(map(str.isdecimal, patterns))

    # without names, the paths may only differ in numbers
    paths = [labels[row].partition("\n")[0] for row in rows]
    path_of = {re.sub(r"\d+", "", path): path for path in paths}
    if len(path_of) > 1 and not has_names:
        raise BrainhiveError(
            f"nothing states the order of {' and '.join(list(path_of.values())[:2])}",
            "name the files in a column of the table, or choose some: "
            "preparation.betas=PATTERN",
        )
    keys = [" ".join(cells[row] for cells in columns) for row in rows]
    line_keys = [" ".join(cells) for cells in zip(*line_columns, strict=True)]
    counts = Counter(keys)
    counts.subtract(line_keys)
    differences = sorted(key for key, count in counts.items() if count)
    if differences:
        names = f", unequal for {summarise_names(differences)}" if columns[1:] else ""
        raise BrainhiveError(
            f"{path} and its table differ: there are {len(rows)} betas and "
            f"{len(lines)} lines{names}",
            SHAPE_HINT,
        )
    order = np.empty(len(lines), np.int64)
    sorted_rows = np.array(rows)[np.argsort(keys, kind="stable")]
    order[np.argsort(line_keys, kind="stable")] = sorted_rows
    return order, unnamed


def _make_patterns(cells: Collection[str], words: Sequence[str]) -> Patterns:
    """Make a pattern of each cell, and of paths without their first folders.

    Args:
        cells: Cells of a column of a table.
        words: Words before a cell that is only a number.

    Returns:
        Patterns of long names before those of short names.
    """
    cells_of = defaultdict[str, set[str]](set)
    for cell in cells:
        image_id = to_image_id(cell).casefold()
        for end in (image_id, *path_ends(image_id)):
            cells_of[re.sub(SEPARATORS, "", end)].add(cell)
    prefix = "|".join(map(re.escape, words))
    patterns = {}
    for name, matching_cells in cells_of.items():
        number = name.removeprefix(words[0].casefold())
        if len(matching_cells) > 1 or not name:
            continue
        if number.isdecimal():
            name = str(int(number))
            expression = rf"(?:{prefix}){SEPARATORS}0*{name}(?!\d)"
        else:
            # a name does not end within a word or number
            first, last = (
                r"\d" if letter.isdecimal() else r"[^\W\d_]"
                for letter in (name[0], name[-1])
            )
            expression = f"(?<!{first}){SEPARATORS.join(name)}(?!{last})"
        (cell,) = matching_cells
        patterns[name] = (re.compile(expression, re.IGNORECASE), cell)
    return dict(sorted(patterns.items(), key=lambda item: -len(item[0])))


def _find_cell(label: str, patterns: Patterns) -> str:
    """Find the longest name in a label, and return its cell, or ""."""
    compact_label = re.sub(SEPARATORS, "", label.casefold())
    for name, (pattern, cell) in patterns.items():
        # a fast test of most names
        if name in compact_label and pattern.search(label):
            return cell
    return ""
