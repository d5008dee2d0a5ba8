"""Published transforms of gLocal on bases of their width, and their errors."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.models import encoders

SAME = 1e-5
"""Largest difference of float32 from the float64 computed here, relative to the
embedding's spread.
"""


def base_of(width):
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision = {**sizes, "image_size": 16, "patch_size": 8, "projection_dim": width}
    return {"kind": "transformers_clip", "source": "random", "architecture": vision}


def install(file, folder):
    folder.mkdir(parents=True)
    (folder / "transform.npz").symlink_to(file)
    return folder


@pytest.mark.parametrize(
    ("name", "file", "width"),
    [
        ("clip-rn50+glocal", "clip_RN50_visual", 1024),
        ("dino-b16+glocal", "dino-vit-base-p16_norm", 768),
    ],
)
def test_a_real_transform_maps_its_bases_embedding(
    name,
    file,
    width,
    shared,
    tmp_path,
    picture,
    embed,
    measure_error,
):
    path = shared / f"data/glocal/{file}_transform.npz"
    source = str(install(path, tmp_path / "norm"))
    base = encoders.resolve(base_of(width))
    aligned = encoders.resolve({"kind": name, "base": base, "source": source}).build()
    t = np.load(path)
    x = embed(base.build(), picture).double().numpy()
    assert (
        measure_error(
            embed(aligned, picture),
            ((x - t["mean"]) / t["std"]) @ t["weights"] + t["bias"],
        )
        < SAME
    )
    assert aligned.weights["base_source"] == "random"
    assert len(aligned.weights["digest"]) == 64


def test_a_damaged_transform_or_one_of_another_base_is_refused(
    tmp_path,
):
    np.savez(tmp_path / "transform.npz", weights=np.eye(8), mean=0, std=1)
    config = encoders.resolve(
        {"kind": "glocal", "base": base_of(6), "source": str(tmp_path)}
    )
    with pytest.raises(RecipeError, match=r"\b6 .*\b8"):
        config.build().module  # noqa: B018
    with pytest.raises(RecipeError, match="base"):
        encoders.resolve({"kind": "glocal", "source": str(tmp_path)}).inputs()
    (tmp_path / "transform.npz").write_bytes(b"no archive")
    with pytest.raises(MissingData, match=r"transform\.npz"):
        config.build()
