"""A small home with everything that commands read: data sets, stores, runs,
checkpoints, weights.
"""

import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.soak import own_data, recordings

ENCODER = "weights/encoder"
NAME = "local--encoder"
"""What stores of that encoder are called."""
COMMON = ("run.device=cpu", "run.workers=0")
THINGS = ("dataset=things-eeg", f"encoders=[{ENCODER}]")
IMAGES = "{kind: image-folder, root: pictures}"
PICTURES = (f"dataset={IMAGES}", f"encoders=[{ENCODER}]")
GENERATOR = "generator={kind: sdxl, source: weights/generator}"
ALIGN = (
    *(
        "train-align",
        *THINGS,
        "subjects=1",
        "seeds=1",
        "dim=64",
        "fuser.intermediate_size=64",
    ),
    *(
        "train.precision=fp32",
        "train.epochs=3",
        "train.batch_size=32",
        "backbone={kind: linear}",
    ),
    "train.validation=0.2",
)
PRIOR = (
    *(
        "train-prior",
        *PICTURES,
        GENERATOR,
        "prior={kind: fusion_prior, hidden_size: 32}",
    ),
    *(
        "prior.intermediate_size=32",
        "resolution_px=32",
        "validation_items=2",
        "sample_items=1",
    ),
    *(
        "sample_steps=1",
        f"similarity=[{ENCODER}]",
        "lpips=false",
        "train.steps=3",
        "train.batch_size=2",
    ),
    *("train.precision=fp32", "train.checkpoint_steps=1"),
)
ALIGN_PRIOR = (
    *(
        "train-align",
        *THINGS,
        "subjects=1",
        "seeds=1",
        "prior=weights/prior",
        "paths.runs=with-prior",
    ),
    *(
        "train.precision=fp32",
        "train.epochs=2",
        "train.batch_size=32",
        "backbone={kind: linear}",
    ),
)
DRAW = (
    *(
        "reconstruct",
        "prior=weights/prior",
        GENERATOR,
        "items=2",
        "repeats=1",
        "resolution_px=32",
    ),
    *(
        "steps=1",
        "metrics=pixcorr,ssim",
        "sheet_rows=0",
        "align_run=runs/prior-aligned",
    ),
)
FRESH = "paths.runs=fresh"
"""Runs of its own, so that nothing is finished yet."""


@dataclass(frozen=True)
class Reader:
    """A command that reads files of the world.

    Attributes:
        argv: The command line.
        files: What it reads, as patterns below home with spaces between them.
        has_digest: Whether these files can tell a damaged payload from a sound one.
        setup: Changes the home first, as for a command that resumes.
        surface: The group that it is counted in.
    """

    argv: tuple[str, ...]
    files: str
    has_digest: bool = True
    setup: Callable[[Path], Any] | None = None
    surface: str = "damaged"

    @property
    def case(self) -> dict[str, Any]:
        """The command line, and the change of the home, of a case."""
        setup = self.setup
        return {
            "argv": (*self.argv, *COMMON, "--json"),
            "prepare": setup and (lambda home, _: setup(home)),
        }


def _without(*patterns: str) -> Callable[[Path], None]:
    """Delete what a command would otherwise find finished."""

    def delete(home: Path) -> None:
        for pattern in patterns:
            for path in home.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return delete


def _importing(source: str, *more: str) -> tuple[str, ...]:
    return (
        "import-embeddings",
        source,
        PICTURES[0],
        "--encoders",
        ENCODER,
        "paths.embeddings=new",
        *more,
    )


def _embedding(dataset: str = IMAGES, encoder: str = ENCODER) -> tuple[str, ...]:
    return (
        "embed",
        f"dataset={dataset}",
        f"encoders=[{encoder}]",
        "paths.embeddings=new",
        "batch_size=8",
    )


def _preparing(kind: str, root: str, *more: str) -> tuple[str, ...]:
    return (
        "prepare",
        "--from",
        kind,
        f"preparation.root=data/{root}",
        "paths.signals=new",
        *more,
    )


def _modelling(space: str) -> tuple[str, ...]:
    keys = (
        f"preparation.stimuli={IMAGES}",
        "preparation.estimator=lsa",
        f"preparation.space={space}",
    )
    return _preparing("bold", "own-bold", *keys)


BETAS_OF_A_LAB = _preparing(
    *("betas", "own-betas", f"preparation.stimuli={IMAGES}", "preparation.zscore=run"),
    "preparation.regions={atlas: sub-01_atlas.nii.gz, region: sub-01_region.mgz}",
)
EEG = _preparing(
    *("recording", "own-eeg", f"preparation.stimuli={IMAGES}"),
    *("preparation.epoch_ms=[-100, 400]", "preparation.keep_ms=[0, 400]"),
)
EXPLAIN = (
    "explain",
    "--run",
    "runs/aligned",
    "draws=20",
    "window={width_ms: 20, step_ms: 20}",
)
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
TRAIN, TEST = (
    f"embeddings/things-eeg/{split}/{NAME}.h5" for split in ("train", "test")
)
READERS: dict[str, Reader] = {
    # stores
    "align": Reader((*ALIGN, FRESH), f"{TRAIN} signals/**/sub-01.h5"),
    "eval": Reader(
        ("eval-retrieval", "--run", "runs/aligned", "sheet_rows=0", FRESH),
        f"{TEST} signals/**/sub-01.h5 runs/aligned/recipe.yaml "
        "runs/aligned/metrics.json runs/aligned/embeddings.json "
        "runs/aligned/**/model/*.json runs/aligned/**/model/*.safetensors",
    ),
    "check": Reader(("check", "embeddings", "--again"), f"{TRAIN} {TEST}"),
    "export-npy": Reader(("export-embeddings", "embeddings", "format=npy"), f"{TEST}"),
    "export-parquet": Reader(("export-embeddings", "embeddings"), f"{TRAIN}"),
    "latents": Reader((*PRIOR, "cache_latents=true", FRESH), "latents/**/*.h5"),
    "embed-resumed": Reader(
        ("embed", *PICTURES, "paths.embeddings=begun", "batch_size=1"),
        f"begun/pictures/train/{NAME}.h5.part",
    ),
    "nsd": Reader(
        _embedding("{kind: nsd, root: data/nsd}"),
        "data/nsd/*.hdf5 data/nsd/*.csv",
        has_digest=False,
    ),
    # finished runs
    "align-finished": Reader(
        (*ALIGN,), "runs/train-align/*/metrics.json runs/train-align/*/recipe.yaml"
    ),
    "eval-finished": Reader(
        ("eval-retrieval", "--run", "runs/aligned", "sheet_rows=0"),
        "runs/eval-retrieval/*/*.json",
    ),
    "against": Reader(
        (
            "eval-retrieval",
            "--run",
            "runs/aligned",
            "sheet_rows=0",
            "against=runs/prior-aligned",
            FRESH,
        ),
        "runs/prior-aligned/*.json runs/prior-aligned/recipe.yaml",
    ),
    "draw-against": Reader(
        (*DRAW, "against=runs/drawn", FRESH),
        "runs/drawn/metrics.json runs/drawn/recipe.yaml",
    ),
    "redraw": Reader(
        (*DRAW,), "runs/reconstruct/*/metrics.json runs/reconstruct/*/values.csv"
    ),
    "finetune": Reader(
        (
            *ALIGN[:-1],
            "mode=finetune",
            "finetune.run=runs/aligned",
            "subjects=2",
            FRESH,
        ),
        "runs/aligned/recipe.yaml runs/aligned/**/model/* runs/aligned/metrics.json",
    ),
    "recipe": Reader(
        (*ALIGN, FRESH, "--recipe", "own.yaml"), "own.yaml", has_digest=False
    ),
    # checkpoints
    "align-resumed": Reader((*ALIGN, "paths.runs=begun-align"), "begun-align/**/*.pt"),
    "prior-resumed": Reader(
        (*PRIOR, "paths.runs=begun-prior"),
        "begun-prior/**/*.pt begun-prior/**/*.safetensors",
    ),
    # weights and their configs
    "draw": Reader(
        (*DRAW, FRESH),
        "weights/generator/**/*.json weights/generator/**/*.safetensors "
        "weights/prior/**/*.json weights/prior/**/*.safetensors",
        has_digest=False,
    ),
    "encoder": Reader(_embedding(), f"{ENCODER}/*", has_digest=False),
    "timm": Reader(
        _embedding(IMAGES, "{kind: timm, source: weights/timm}"),
        "weights/timm/config.json weights/timm/model.safetensors",
        has_digest=False,
    ),
    "timm-bin": Reader(
        _embedding(IMAGES, "{kind: timm, source: weights/timm}"),
        "weights/timm/pytorch_model.bin",
        setup=_without("weights/timm/model.safetensors"),
    ),
    "vae": Reader(
        _embedding(IMAGES, "{kind: diffusers_vae, source: weights/generator/vae}"),
        "weights/generator/vae/*",
        has_digest=False,
    ),
    "hub": Reader(_embedding(IMAGES, "hub:owner/encoder"), "hub/**/refs/main"),
    # recordings and pictures of others
    "things": Reader(
        (*ALIGN, FRESH), "data/things-eeg/**/sub-01/*.pt", setup=_without("signals")
    ),
    "things-pickle": Reader(
        (*ALIGN, FRESH, "dataset.signals=Bare"),
        "data/things-eeg/Bare/sub-01/*.npy",
        has_digest=False,
        setup=_without("signals"),
    ),
    "pictures": Reader(_embedding(), "pictures/**/*.png"),
    "jpeg": Reader(
        _embedding("{kind: image-folder, root: jpeg}"),
        "jpeg/**/*.jpg",
        has_digest=False,
    ),
    "score": Reader(
        (
            "reconstruct",
            "--score",
            "scored",
            "--truth",
            "pictures",
            "metrics=pixcorr,ssim",
            FRESH,
        ),
        "scored/**/*.png scored/**/*.jpg",
        has_digest=False,
    ),
    "coco": Reader(
        _embedding("{kind: coco, root: data/coco}"),
        "data/coco/annotations/*.json data/coco/train2017/*.jpg",
        has_digest=False,
    ),
    "parquet": Reader(
        _embedding("{kind: imagenet, root: data/parquet}"),
        "data/parquet/*.parquet",
        has_digest=False,
    ),
    "unpacked": Reader(
        (
            "embed",
            "dataset={kind: things-eeg, root: data/packed}",
            f"encoders=[{ENCODER}]",
        ),
        "data/packed/*.zip data/packed/*.tar.gz",
    ),
    # recordings of others, as prepare reads them
    **{
        f"prepare-nsd-{form}": Reader(
            _preparing("nsd", f"nsd-{form}", "preparation.sessions=1"),
            f"data/nsd-{form}/nsddata/**/*.mat data/nsd-{form}/nsddata/**/*.nii.gz "
            f"data/nsd-{form}/{BETAS}/betas* data/nsd-{form}/{BETAS}/ncsnr.nii.gz",
            has_digest=False,
        )
        for form in ("hdf5", "nii-gz")
    },
    "prepare-mindeye2": Reader(
        _preparing("mindeye2", "mindeyev2"),
        "data/mindeyev2/*.hdf5 data/mindeyev2/**/*.tar",
        has_digest=False,
    ),
    "prepare-meg": Reader(
        _preparing("things-meg", "things-meg"),
        "data/things-meg/*.fif",
        has_digest=False,
    ),
    "prepare-arrays": Reader(
        _preparing("things-prepared", "arrays"),
        "data/arrays/sub-01/*.npy data/arrays/image_metadata.npy",
        has_digest=False,
    ),
    # pages
    "report": Reader(
        ("report", "runs/aligned", "runs/drawn", "runs/explained"),
        (
            "runs/aligned/*.json runs/drawn/*.json runs/explained/*.json "
            "runs/drawn/samples/**/*.png"
        ),
        surface="pages",
    ),
    "explain": Reader(
        (*EXPLAIN, FRESH),
        f"{TEST} signals/**/sub-01.h5 runs/aligned/**/model/*",
        surface="pages",
    ),
    "explain-finished": Reader(EXPLAIN, "runs/explain/*/*.json", surface="pages"),
    # vectors of others
    **{
        f"import-{name.replace('.', '-')}": Reader(
            _importing(f"vectors/{name}"),
            f"vectors/{name}",
            has_digest=name.endswith(("npz", "pt")),
        )
        for name in ("dict.npz", "dict.pt", "dict.npy", "old.pth")
    },
    "import-tree": Reader(
        _importing("vectors/tree", "suffix=_clip"),
        "vectors/tree/**/*.npy",
        has_digest=False,
    ),
    "import-parquet": Reader(
        _importing("vectors/table.parquet"), "vectors/table.parquet", has_digest=False
    ),
    **{
        f"import-thingsvision-{ending}": Reader(
            _importing(f"vectors/{ending}"), f"vectors/{ending}/*", has_digest=False
        )
        for ending in ("npy", "pt")
    },
}
OWN = {
    "own-betas": (
        BETAS_OF_A_LAB,
        "data/own-betas/*.nii.gz data/own-betas/*.npz data/own-betas/*.mgz",
    ),
    "own-trials": (BETAS_OF_A_LAB, "data/own-betas/*.csv data/own-betas/*.tsv"),
    "own-bold": (_modelling("T1w"), "data/own-bold/**/*.nii.gz"),
    "own-bids": (_modelling("T1w"), "data/own-bold/**/*.json data/own-bold/**/*.tsv"),
    "own-surface": (_modelling("fsaverage5"), "data/own-bold/**/*.gii"),
    "own-eeg": (
        EEG,
        "data/own-eeg/*.fif data/own-eeg/*.edf data/own-eeg/*.v* data/own-eeg/*.eeg",
    ),
    "own-eeg-gz": (EEG, "data/own-eeg/*.fif.gz"),
}
"""A lab's own recordings: command and files; what is packed has checksums."""
READERS |= {
    name: Reader(argv, files, has_digest=files.endswith(("gz", "mgz")), surface="own")
    for name, (argv, files) in OWN.items()
}


def build(home: Path) -> list[Callable[[Path], Any] | tuple[str, ...]]:
    """List the steps that make the world, each run in a process of its own: functions
    of home, commands.
    """
    return [
        *(_paint, _make_weights, _record, recordings.write, own_data.write, _pack),
        ("embed", *THINGS),
        ("embed", *PICTURES),
        lambda home: _interrupted(
            home, ("embed", *PICTURES, "paths.embeddings=begun", "batch_size=1")
        ),
        ALIGN,
        ALIGN_PRIOR,
        PRIOR,
        (*PRIOR, "cache_latents=true", "paths.runs=other"),
        lambda home: _interrupted(home, (*ALIGN, "paths.runs=begun-align")),
        lambda home: _interrupted(home, (*PRIOR, "paths.runs=begun-prior")),
        _name_runs,
        ("eval-retrieval", "--run", "runs/aligned", "sheet_rows=0"),
        DRAW,
        EXPLAIN,
        _name_runs,
        ("export-embeddings", f"embeddings/pictures/train/{NAME}.h5", "to=vectors"),
        _make_vectors,
    ]


def _interrupted(home: Path, argv: tuple[str, ...]) -> None:
    """Run a command that is killed after it has saved something twice."""
    from brainhive_cli.data.stores.target_writer import TargetWriter
    from brainhive_cli.training.alignment.training import cell_folder
    from tests.soak.runner import run_command

    def ending(owner: Any, name: str, times: int) -> None:
        saved, calls = getattr(owner, name), [0]

        def save(*given: Any, **options: Any) -> None:
            saved(*given, **options)
            calls[0] += 1
            if calls[0] == times:
                os._exit(0)

        setattr(owner, name, save)

    cell_folder.CHECKPOINT_INTERVAL_S = 0.0
    ending(torch, "save", 3)
    ending(TargetWriter, "write", 8)
    run_command((*argv, *COMMON))
    raise RuntimeError(f"{argv[0]} was not interrupted")


def _name_runs(home: Path) -> None:
    """Copy runs to names that do not depend on fingerprints."""
    for name, pattern in {
        "aligned": "runs/train-align/*",
        "prior-aligned": "with-prior/train-align/*",
        "prior": "runs/train-prior/*",
        "drawn": "runs/reconstruct/*",
        "explained": "runs/explain/*",
    }.items():
        for found in sorted(home.glob(pattern))[-1:]:
            if (found / "metrics.json").is_file() and not (
                home / "runs" / name
            ).exists():
                shutil.copytree(found, home / "runs" / name)


def _pictures(
    folder: Path, concepts: int, each: int, ending: str = "png", seed: int = 0
) -> None:
    random = np.random.default_rng(seed)
    for concept in range(concepts):
        colour = random.integers(40, 215, 3)
        (folder / f"concept_{concept}").mkdir(parents=True)
        for number in range(each):
            pixels = (colour + random.integers(-40, 40, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(
                folder / f"concept_{concept}" / f"{number}.{ending}"
            )


def _paint(home: Path) -> None:
    _pictures(home / "pictures", 4, 3)
    _pictures(home / "jpeg", 2, 2, "jpg")
    _pictures(home / "scored", 3, 2, seed=1)
    (home / "scored/concept_2/2.jpg").write_bytes(
        (home / "jpeg/concept_0/0.jpg").read_bytes()
    )
    things = home / "data/things-eeg"
    _pictures(things / "training_images", 10, 3)
    _pictures(things / "test_images", 8, 1, seed=2)
    coco = home / "data/coco"
    _pictures(coco, 1, 4, "jpg")
    (coco / "concept_0").rename(coco / "train2017")
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(4)]
    areas = [
        {"image_id": n, "category_id": n % 2, "area": 5.0, "caption": f"a {n}"}
        for n in range(4)
    ]
    kinds = [{"id": n, "name": name} for n, name in enumerate(("bowl", "dog"))]
    (coco / "annotations").mkdir()
    for name in ("instances", "captions"):
        text = json.dumps({"images": images, "categories": kinds, "annotations": areas})
        (coco / f"annotations/{name}_train2017.json").write_text(text)
    rows = [f"concept_{number}\tkind {number % 2}" for number in range(10)]
    (home / "data/categories.tsv").write_text("\n".join(rows) + "\n")
    (home / "own.yaml").write_text(
        "# a recipe\nseeds: [1]\ntrain:\n  lr: 5.0e-4\n  batch_size: 32\n"
    )


def _make_weights(home: Path) -> None:
    import timm
    from timm.models._hub import save_for_hf

    from brainhive_cli.core.hub import DEMO_WEIGHTS
    from brainhive_cli.models.generators import sdxl
    from brainhive_cli.models.priors import fusion_prior

    folder = home / "weights"
    shutil.copytree(DEMO_WEIGHTS / "encoder", folder / "encoder")
    torch.manual_seed(0)
    save_for_hf(
        timm.create_model("test_vit", num_classes=0),
        folder / "timm",
        safe_serialization="both",
    )
    made = sdxl.TINY.build()
    for name in ("unet", "vae", "scheduler"):
        getattr(made.pipeline, name).save_pretrained(folder / "generator" / name)
    text, pooled = made.embed_empty_prompt(1)
    embeds = {
        "prompt_embeds": text.contiguous(),
        "pooled_prompt_embeds": pooled.contiguous(),
    }
    save_file(embeds, folder / "generator/empty_prompt.safetensors")
    sizes = fusion_prior.Config(hidden_size=32, intermediate_size=32)
    sizes.build({NAME: 128}, made).save(folder / "prior")
    repository = home / "hub/models--owner--encoder"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123456789" * 4)
    shutil.copytree(folder / "encoder", repository / "snapshots" / ("0123456789" * 4))


def _record(home: Path) -> None:
    """Write recordings of two subjects, as torch archives, and as the bare pickles of
    others.
    """
    root = home / "data/things-eeg"
    random = np.random.default_rng(0)
    for split, below, repetitions in (
        ("train", "training_images", 2),
        ("test", "test_images", 3),
    ):
        files = sorted((root / below).rglob("*.png"))
        names = [file.relative_to(root).as_posix() for file in files]
        for subject in (1, 2):
            eeg = random.standard_normal((len(files), repetitions, 63, 20)).astype(
                np.float16
            )
            content = {"eeg": eeg, "times": np.arange(20) / 250}
            content["img"] = np.repeat(np.asarray(names)[:, None], repetitions, axis=1)
            path = root / f"Preprocessed_data_250Hz_whiten/sub-{subject:02d}/{split}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, path, pickle_protocol=5)
            bare = {
                "train": "preprocessed_eeg_training.npy",
                "test": "preprocessed_eeg_test.npy",
            }[split]
            path = root / f"Bare/sub-{subject:02d}/{bare}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(content, 4))


def _pack(home: Path) -> None:
    """Pack pictures in parquet, HDF5, and archives that nobody has unpacked."""
    jpeg = sorted((home / "jpeg").rglob("*.jpg"))
    images = [
        {"bytes": path.read_bytes(), "path": f"n01440764_{n}.jpg"}
        for n, path in enumerate(jpeg)
    ]
    rows = [{"image": image, "label": 0} for image in images]
    (home / "data/parquet").mkdir()
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(
        table, home / "data/parquet/train-00000-of-00001.parquet", row_group_size=2
    )
    (home / "data/nsd").mkdir()
    with h5py.File(home / "data/nsd/nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = np.random.default_rng(0).integers(
            0, 255, (6, 8, 8, 3), dtype=np.uint8
        )
    info = "\n".join(
        ["cocoId,nsdId,shared1000", *(f"{n},{n},{n in (2, 4)}" for n in range(6))]
    )
    (home / "data/nsd/nsd_stim_info_merged.csv").write_text(info + "\n")
    packed = home / "data/packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "training_images.zip", "w") as archive:
        archive.write(
            home / "pictures/concept_0/0.png", "training_images/concept_0/0.png"
        )
    with tarfile.open(packed / "sub-01.tar.gz", "w:gz") as tar:
        tar.add(home / "own.yaml", "sub-01/train.pt")


def _make_vectors(home: Path) -> None:
    """Write vectors of the pictures as other projects do."""
    folder = home / "vectors"
    (file,) = folder.glob("*.parquet")
    file.rename(folder / "table.parquet")
    pictures = home / "pictures"
    names = [
        path.relative_to(pictures).as_posix()
        for path in sorted(pictures.rglob("*.png"))
    ]
    vectors = (
        np.random.default_rng(0).standard_normal((len(names), 128)).astype(np.float32)
    )
    np.savez(folder / "dict.npz", ids=np.asarray(names), vectors=vectors)
    torch.save({"ids": names, "vectors": torch.from_numpy(vectors)}, folder / "dict.pt")
    plain = {
        name: torch.from_numpy(vector.copy())
        for name, vector in zip(names, vectors, strict=True)
    }
    torch.save(plain, folder / "old.pth", _use_new_zipfile_serialization=False)
    np.save(folder / "dict.npy", {"ids": names, "vectors": vectors}, allow_pickle=True)  # type: ignore[arg-type]
    for name, vector in zip(names, vectors, strict=True):
        path = folder / "tree" / name.replace(".png", "_clip.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vector)
    for ending in ("npy", "pt"):
        (folder / ending).mkdir()
        (folder / ending / "file_names.txt").write_text("\n".join(names))
    np.save(folder / "npy/features.npy", vectors)
    torch.save(torch.from_numpy(vectors), folder / "pt/features.pt")
