"""gLocal: real transforms over bases of their width, and what is noticed when they do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.models import encoders

SAME = 1e-5
"""Largest difference of float32 from the float64 computed here, relative to the embedding's spread."""


def base_of(width: int) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 16, "patch_size": 8, "projection_dim": width}
    return {"kind": "transformers_clip", "source": "random", "architecture": vision}


def install(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "transform.npz").symlink_to(file)
    return folder


@pytest.mark.parametrize(
    ("name", "file", "width"),
    [
        ("glocal", "resnet18_avgpool", 512),
        ("clip-rn50+glocal", "clip_RN50_visual", 1024),
        ("dino-b16+glocal", "dino-vit-base-p16_norm", 768),
    ],
)
def test_a_real_transform_maps_its_bases_embedding(
    name: str,
    file: str,
    width: int,
    shared: Path,
    tmp_path: Path,
    picture: Image.Image,
    embed: Any,
    difference: Any,
) -> None:
    path = shared / f"data/glocal/{file}_transform.npz"
    source = str(install(path, tmp_path / "norm"))
    base = encoders.resolve(base_of(width))
    aligned = encoders.resolve({"kind": name, "base": base, "source": source}).build()
    t, x = np.load(path), embed(base.build(), picture).double().numpy()
    assert difference(embed(aligned, picture), ((x - t["mean"]) / t["std"]) @ t["weights"] + t["bias"]) < SAME
    assert aligned.weights["base_source"] == "random" and len(aligned.weights["digest"]) == 64


def test_a_transform_may_have_no_bias(
    tmp_path: Path, picture: Image.Image, embed: Any, difference: Any
) -> None:
    np.savez(tmp_path / "transform.npz", weights=2 * np.eye(8), mean=1, std=4)
    base = encoders.resolve(base_of(8))
    aligned = encoders.resolve({"kind": "glocal", "base": base, "source": str(tmp_path)}).build()
    assert difference(embed(aligned, picture), (embed(base.build(), picture).double() - 1) / 2) < SAME


def test_a_transform_of_another_width_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "transform.npz", weights=np.eye(8), mean=0, std=1)
    config = encoders.resolve({"kind": "glocal", "base": base_of(6), "source": str(tmp_path)})
    with pytest.raises(RecipeError, match=r"gives 6 values, .* takes 8"):
        config.build().module  # noqa: B018


def test_a_transform_without_its_base_is_refused(tmp_path: Path) -> None:
    config = encoders.resolve({"kind": "glocal", "source": str(tmp_path)})
    for look in (config.build, config.inputs):
        with pytest.raises(RecipeError, match="says nothing of its base"):
            look()


def test_several_outputs_of_a_base_are_refused(tmp_path: Path) -> None:
    base = {"kind": "timm", "source": "random", "architecture": "test_vit", "output": ["class", "mean"]}
    config = encoders.resolve({"kind": "glocal", "base": base, "source": str(tmp_path)})
    for look in (config.build, config.inputs):
        with pytest.raises(RecipeError, match=r"one output of its base, not .*-class-.*, .*-mean-"):
            look()


def test_dinos_transform_published_as_dinov2s_is_noticed(shared: Path, tmp_path: Path) -> None:
    dinos = shared / "data/glocal/dino-vit-base-p16_norm_transform.npz"
    source = str(install(dinos, tmp_path / "dinov2-vit-base-p14/norm"))
    config = encoders.resolve({"kind": "dinov2-b14+glocal", "base": base_of(768), "source": source})
    with pytest.raises(MissingData, match="its sha256 begins 2bcb2d77346f, not 9cf041b79d8c") as caught:
        config.build()
    assert "d1860d3" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_broken_transform_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "transform.npz").write_bytes(content)
    config = encoders.resolve({"kind": "glocal", "base": base_of(8), "source": str(tmp_path)})
    with pytest.raises(MissingData, match="is no gLocal transform"):
        config.build()


def test_a_base_may_see_degraded_pictures(tmp_path: Path, picture: Image.Image, embed: Any) -> None:
    np.savez(tmp_path / "transform.npz", weights=np.eye(8), mean=0, std=1)
    base = {**base_of(8), "degrade": "mosaic-4"}
    aligned = encoders.resolve({"kind": "glocal", "base": base, "source": str(tmp_path)}).build()

    embedding = embed(aligned, picture)

    assert np.allclose(embedding, embed(encoders.resolve(base).prepare(), picture), atol=SAME)
    assert not np.allclose(embedding, embed(encoders.resolve(base).build(), picture), atol=SAME)
