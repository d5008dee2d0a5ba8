"""Embeddings in two dimensions, for maps."""

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import MissingExtra

Values = NDArray[np.float32]


def require_projection(how: str) -> None:
    """Refuse a map that cannot be made before the work.

    Raises:
        MissingExtra: if umap-learn is not installed.
    """
    if how == "umap":
        try:
            import umap  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "embedding_map=umap needs umap-learn", "pip install 'brainhive[umap]'"
            ) from error


def project(values: Values, count: int, how: str, seed: int) -> Values:
    """Project vectors [N, D] to two dimensions [N, 2], which the first `count` define.

    Args:
        values: The vectors.
        count: How many are projected by themselves; the others follow.
        how: `pca`, or `umap` (McInnes et al. 2018), which keeps neighbours rather than distances.
        seed: Of UMAP.
    """
    if how == "umap":
        from umap import UMAP

        fitted = UMAP(random_state=seed, n_neighbors=min(15, count - 1)).fit(values[:count])
        return np.concatenate([fitted.embedding_, fitted.transform(values[count:])])
    _, _, directions = np.linalg.svd(values[:count], full_matrices=False)
    plane: Values = values @ directions[:2].T
    return plane if plane.shape[1] == 2 else np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
