"""Slices of the brain with maps of voxels, drawn by nilearn."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, Float64
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.runs import BrainMap

SMALLEST_VALUE = 1e-6
"""Threshold without a threshold: nilearn draws NaN, which is 0 in its copy, as 0."""


def has_nilearn() -> bool:
    """Return True if nilearn is installed, without importing it."""
    return find_spec("nilearn") is not None


def draw_slices_at_peak(axes: Any, brain_map: BrainMap) -> None:
    """Draw the slices of a map at its peak, with nilearn.

    Args:
        axes: Axes of matplotlib, in which nilearn draws the slices.
        brain_map: Map with paths of files.
    """
    from matplotlib import rc_context
    from nilearn.plotting import plot_stat_map

    volume, background = _open_images(brain_map)
    limit = float(np.abs(volume.get_fdata()).max())
    mode = choose_slices(brain_map)
    cut_coords = list(brain_map.peak_mm)
    if mode != "ortho":
        cut_coords = [cut_coords["xyz".index(mode)]]
    # Font size of the coordinates, of L and R, and of the numbers of the colour bar.
    letter_pt = 6
    with _silence(), rc_context({"font.size": letter_pt}):
        display = plot_stat_map(
            volume,
            bg_img=background,
            cut_coords=cut_coords,
            display_mode=mode,
            figure=axes.figure,
            axes=axes,
            threshold=brain_map.threshold or SMALLEST_VALUE,
            vmin=-limit if brain_map.is_diverging else 0,
            vmax=limit,
            cmap="RdBu_r" if brain_map.is_diverging else "viridis",
            symmetric_cbar=brain_map.is_diverging,
            black_bg=True,
            annotate=False,
            transparency=choose_opacity(brain_map),
            cbar_tick_format="%.3g",
            resampling_interpolation="nearest",
        )
        display.annotate(size=letter_pt)


def choose_opacity(brain_map: BrainMap) -> float:
    """Choose the opacity of colours: the anatomy shines through maps of all voxels."""
    is_covered = bool(brain_map.underlay) and brain_map.threshold is None
    # Opacity of colours that would hide the anatomy.
    return 0.6 if is_covered else 1.0


def choose_slices(brain_map: BrainMap) -> str:
    """Choose nilearn's display mode: three slices, or one of a thin volume.

    Args:
        brain_map: Map with paths of files.
    """
    import nibabel

    image = nibabel.load(brain_map.volume)
    shape = nibabel.as_closest_canonical(image).shape
    # Smallest number of voxels along both sides of a slice that is drawn.
    if min(shape) >= 4:
        return "ortho"
    return "xyz"[int(np.argmin(shape))]


def write_view(brain_map: BrainMap, folder: Path) -> str:
    """Write a page on which a map can be explored, without links to servers.

    Args:
        brain_map: Map with paths of files.
        folder: Folder of the new page.

    Returns:
        Name of the file, or "" if nilearn is not installed.
    """
    if not has_nilearn():
        return ""
    from nilearn.plotting import view_img

    volume, background = _open_images(brain_map)
    with _silence():
        view = view_img(
            volume,
            bg_img=background,
            cut_coords=brain_map.peak_mm,
            threshold=brain_map.threshold or SMALLEST_VALUE,
            cmap="RdBu_r" if brain_map.is_diverging else "viridis",
            symmetric_cmap=brain_map.is_diverging,
            black_bg=True,
            opacity=choose_opacity(brain_map),
            resampling_interpolation="nearest",
        )
        # Link to an icon on a server, which nilearn writes into a page.
        page = re.sub(r'<link[^>]*rel="[^"]*icon"[^>]*>', "", view.get_standalone())

    # a title above the slices would be cut off
    heading = f"<title>{escape(brain_map.title)}</title>"
    page = re.sub("<title>.*?</title>", lambda _: heading, page, count=1)

    # Random id of the elements of nilearn's page.
    view_id = r"div_viewer-([0-9a-f]{32})"
    # equal maps are equal files, without the random id of nilearn
    for random_id in re.findall(view_id, page)[:1]:
        page = page.replace(random_id, "map")
    digest = hashlib.sha256(page.encode()).hexdigest()
    name = f"{Path(brain_map.volume).name.partition('.')[0]}-{digest[:8]}.html"
    with atomic_write(folder / name, is_lasting=False) as part_path:
        part_path.write_text(page, encoding="utf-8")
    return name


def _open_images(brain_map: BrainMap) -> tuple[Any, Any]:
    """Open the volume, with 0 for NaN, and the anatomy or None, as nibabel images.

    Their axes point right, front and up.
    """
    import nibabel

    values, affine = _read_volume(brain_map.volume)
    volume = nibabel.Nifti1Image(np.nan_to_num(values).astype(np.float32), affine)
    background = None
    if brain_map.underlay:
        brightness, underlay_affine = _read_volume(brain_map.underlay)
        background = nibabel.as_closest_canonical(
            nibabel.Nifti1Image(brightness.astype(np.float32), underlay_affine)
        )
    return nibabel.as_closest_canonical(volume), background


def _read_volume(path: str) -> tuple[Array, Float64]:
    """Read the values [X, Y, Z] and the affine of a NIfTI file of a run."""
    from brainhive_cli.data.fmri import open_image, read_volume

    hint = "run the command that made it again"
    values = read_volume(Path(path), hint)
    return values, np.asarray(open_image(Path(path), hint).affine, np.float64)


@contextmanager
def _silence() -> Iterator[None]:
    """Ignore warnings of nilearn, such as on a volume of a single slice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
