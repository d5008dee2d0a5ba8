"""A small home with data sets, stores, runs, checkpoints and weights for commands to
read.
"""

import itertools
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
STORE_NAME = "local--encoder"
"""Name of the embedding stores of ENCODER."""
CPU_KEYS = ("run.device=cpu", "run.workers=0")
THINGS_KEYS = ("dataset=things-eeg", f"encoders=[{ENCODER}]")
PICTURE_DATASET = "{kind: image-folder, root: pictures}"
PICTURE_KEYS = (f"dataset={PICTURE_DATASET}", f"encoders=[{ENCODER}]")
GENERATOR = "generator={kind: sdxl, source: weights/generator}"
ALIGN = (
    "train-align",
    "dataset=things-eeg",
    f"encoders=[{ENCODER}]",
    "subjects=1",
    "seeds=1",
    "dim=64",
    "fuser.intermediate_size=64",
    "train.precision=fp32",
    "train.epochs=3",
    "train.batch_size=32",
    "backbone={kind: linear}",
    "train.validation=0.2",
)
PRIOR = (
    "train-prior",
    f"dataset={PICTURE_DATASET}",
    f"encoders=[{ENCODER}]",
    GENERATOR,
    "prior={kind: fusion_prior, hidden_size: 32}",
    "prior.intermediate_size=32",
    "resolution_px=32",
    "validation_items=2",
    "sample_items=1",
    "sample_steps=1",
    f"similarity=[{ENCODER}]",
    "lpips=false",
    "train.steps=3",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.checkpoint_steps=1",
)
ALIGN_PRIOR = (
    "train-align",
    "dataset=things-eeg",
    f"encoders=[{ENCODER}]",
    "subjects=1",
    "seeds=1",
    "prior=weights/prior",
    "paths.runs=with-prior",
    "train.precision=fp32",
    "train.epochs=2",
    "train.batch_size=32",
    "backbone={kind: linear}",
)
DRAW = (
    "reconstruct",
    "prior=weights/prior",
    GENERATOR,
    "items=2",
    "repeats=1",
    "resolution_px=32",
    "steps=1",
    "metrics=pixcorr,ssim",
    "sheet_rows=0",
    "align_run=runs/prior-aligned",
)
FRESH_RUNS = "paths.runs=fresh"
"""Override that names an empty folder of runs, so that no run is finished."""


@dataclass(frozen=True)
class Reader:
    """A command that reads files of the world.

    Attributes:
        argv: The command line.
        files: Patterns of the files that it reads, below home, separated by spaces.
        has_digest: If True, the files have digests that reveal a damaged payload.
        setup: Function that changes the home before the command runs.
        surface: Group of the table that counts the cases of this reader.
    """

    argv: tuple[str, ...]
    files: str
    has_digest: bool = True
    setup: Callable[[Path], Any] | None = None
    surface: str = "damaged"

    @property
    def case(self):
        """Fields `argv` and `prepare` of a case that runs this command."""
        setup = self.setup
        return {
            "argv": self.argv + CPU_KEYS + ("--json",),
            "prepare": setup and (lambda home, _: setup(home)),
        }


def _delete_first(*patterns):
    """Make a setup that deletes the files and folders of some patterns."""

    def delete(home):
        for pattern in patterns:
            for path in home.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return delete


def _make_import(source, *overrides):
    argv = ("import-embeddings", source, PICTURE_KEYS[0], "--encoders", ENCODER)
    return argv + ("paths.embeddings=new",) + overrides


def _make_embed(dataset=PICTURE_DATASET, encoder=ENCODER):
    return (
        "embed",
        f"dataset={dataset}",
        f"encoders=[{encoder}]",
        "paths.embeddings=new",
        "batch_size=8",
    )


def _make_prepare(kind, root, *overrides):
    argv = ("prepare", "--from", kind, f"preparation.root=data/{root}")
    return argv + ("paths.signals=new",) + overrides


def _make_bold_prepare(space):
    return _make_prepare(
        "bold",
        "own-bold",
        f"preparation.stimuli={PICTURE_DATASET}",
        "preparation.estimator=lsa",
        f"preparation.space={space}",
    )


BETAS_OF_A_LAB = _make_prepare(
    "betas",
    "own-betas",
    f"preparation.stimuli={PICTURE_DATASET}",
    "preparation.zscore=run",
    "preparation.regions={atlas: sub-01_atlas.nii.gz, region: sub-01_region.mgz}",
)
EEG = _make_prepare(
    "recording",
    "own-eeg",
    f"preparation.stimuli={PICTURE_DATASET}",
    "preparation.epoch_ms=[-100, 400]",
    "preparation.keep_ms=[0, 400]",
)
INTERRUPTED_EMBED = (
    "embed",
    f"dataset={PICTURE_DATASET}",
    f"encoders=[{ENCODER}]",
    "paths.embeddings=begun",
    "batch_size=1",
)
EXPLAIN = (
    "explain",
    "--run",
    "runs/aligned",
    "draws=20",
    "window={width_ms: 20, step_ms: 20}",
)
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
TRAIN = f"embeddings/things-eeg/train/{STORE_NAME}.h5"
TEST = f"embeddings/things-eeg/test/{STORE_NAME}.h5"
READERS = {
    # stores
    "align": Reader(ALIGN + (FRESH_RUNS,), f"{TRAIN} signals/**/sub-01.h5"),
    "eval": Reader(
        ("eval-retrieval", "--run", "runs/aligned", "sheet_rows=0", FRESH_RUNS),
        f"{TEST} signals/**/sub-01.h5 runs/aligned/recipe.yaml "
        "runs/aligned/metrics.json runs/aligned/embeddings.json "
        "runs/aligned/**/model/*.json runs/aligned/**/model/*.safetensors",
    ),
    "check": Reader(("check", "embeddings", "--again"), f"{TRAIN} {TEST}"),
    "export-npy": Reader(("export-embeddings", "embeddings", "format=npy"), f"{TEST}"),
    "export-parquet": Reader(("export-embeddings", "embeddings"), f"{TRAIN}"),
    "latents": Reader(
        PRIOR
        + (
            "cache_latents=true",
            FRESH_RUNS,
        ),
        "latents/**/*.h5",
    ),
    "embed-resumed": Reader(
        INTERRUPTED_EMBED,
        f"begun/pictures/train/{STORE_NAME}.h5.part",
    ),
    "nsd": Reader(
        _make_embed("{kind: nsd, root: data/nsd}"),
        "data/nsd/*.hdf5 data/nsd/*.csv",
        has_digest=False,
    ),
    # finished runs
    "align-finished": Reader(
        ALIGN, "runs/train-align/*/metrics.json runs/train-align/*/recipe.yaml"
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
            FRESH_RUNS,
        ),
        "runs/prior-aligned/*.json runs/prior-aligned/recipe.yaml",
    ),
    "draw-against": Reader(
        DRAW
        + (
            "against=runs/drawn",
            FRESH_RUNS,
        ),
        "runs/drawn/metrics.json runs/drawn/recipe.yaml",
    ),
    "redraw": Reader(
        DRAW, "runs/reconstruct/*/metrics.json runs/reconstruct/*/values.csv"
    ),
    "finetune": Reader(
        ALIGN[:-1]
        + ("mode=finetune", "finetune.run=runs/aligned", "subjects=2", FRESH_RUNS),
        "runs/aligned/recipe.yaml runs/aligned/**/model/* runs/aligned/metrics.json",
    ),
    "recipe": Reader(
        ALIGN + (FRESH_RUNS, "--recipe", "own.yaml"), "own.yaml", has_digest=False
    ),
    # checkpoints
    "align-resumed": Reader(ALIGN + ("paths.runs=begun-align",), "begun-align/**/*.pt"),
    "prior-resumed": Reader(
        PRIOR + ("paths.runs=begun-prior",),
        "begun-prior/**/*.pt begun-prior/**/*.safetensors",
    ),
    # weights and their configs
    "draw": Reader(
        DRAW + (FRESH_RUNS,),
        "weights/generator/**/*.json weights/generator/**/*.safetensors "
        "weights/prior/**/*.json weights/prior/**/*.safetensors",
        has_digest=False,
    ),
    "encoder": Reader(_make_embed(), f"{ENCODER}/*", has_digest=False),
    "timm": Reader(
        _make_embed(PICTURE_DATASET, "{kind: timm, source: weights/timm}"),
        "weights/timm/config.json weights/timm/model.safetensors",
        has_digest=False,
    ),
    "timm-bin": Reader(
        _make_embed(PICTURE_DATASET, "{kind: timm, source: weights/timm}"),
        "weights/timm/pytorch_model.bin",
        setup=_delete_first("weights/timm/model.safetensors"),
    ),
    "vae": Reader(
        _make_embed(
            PICTURE_DATASET, "{kind: diffusers_vae, source: weights/generator/vae}"
        ),
        "weights/generator/vae/*",
        has_digest=False,
    ),
    "hub": Reader(
        _make_embed(PICTURE_DATASET, "hub:owner/encoder"), "hub/**/refs/main"
    ),
    # published recordings and pictures
    "things": Reader(
        ALIGN + (FRESH_RUNS,),
        "data/things-eeg/**/sub-01/*.pt",
        setup=_delete_first("signals"),
    ),
    "things-pickle": Reader(
        ALIGN + (FRESH_RUNS, "dataset.signals=Bare"),
        "data/things-eeg/Bare/sub-01/*.npy",
        has_digest=False,
        setup=_delete_first("signals"),
    ),
    "pictures": Reader(_make_embed(), "pictures/**/*.png"),
    "jpeg": Reader(
        _make_embed("{kind: image-folder, root: jpeg}"),
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
            FRESH_RUNS,
        ),
        "scored/**/*.png scored/**/*.jpg",
        has_digest=False,
    ),
    "coco": Reader(
        _make_embed("{kind: coco, root: data/coco}"),
        "data/coco/annotations/*.json data/coco/train2017/*.jpg",
        has_digest=False,
    ),
    "parquet": Reader(
        _make_embed("{kind: imagenet, root: data/parquet}"),
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
    # published recordings that `prepare` reads
    **{
        f"prepare-nsd-{form}": Reader(
            _make_prepare("nsd", f"nsd-{form}", "preparation.sessions=1"),
            f"data/nsd-{form}/nsddata/**/*.mat data/nsd-{form}/nsddata/**/*.nii.gz "
            f"data/nsd-{form}/{BETAS}/betas* data/nsd-{form}/{BETAS}/ncsnr.nii.gz",
            has_digest=False,
        )
        for form in ("hdf5", "nii-gz")
    },
    "prepare-mindeye2": Reader(
        _make_prepare("mindeye2", "mindeyev2"),
        "data/mindeyev2/*.hdf5 data/mindeyev2/**/*.tar",
        has_digest=False,
    ),
    "prepare-meg": Reader(
        _make_prepare("things-meg", "things-meg"),
        "data/things-meg/*.fif",
        has_digest=False,
    ),
    "prepare-arrays": Reader(
        _make_prepare("things-prepared", "arrays"),
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
        EXPLAIN + (FRESH_RUNS,),
        f"{TEST} signals/**/sub-01.h5 runs/aligned/**/model/*",
        surface="pages",
    ),
    "explain-finished": Reader(EXPLAIN, "runs/explain/*/*.json", surface="pages"),
    # vectors that other projects computed
    **{
        f"import-{name.replace('.', '-')}": Reader(
            _make_import(f"vectors/{name}"),
            f"vectors/{name}",
            has_digest=name.endswith(("npz", "pt")),
        )
        for name in ("dict.npz", "dict.pt", "dict.npy", "old.pth")
    },
    "import-tree": Reader(
        _make_import("vectors/tree", "suffix=_clip"),
        "vectors/tree/**/*.npy",
        has_digest=False,
    ),
    "import-parquet": Reader(
        _make_import("vectors/table.parquet"), "vectors/table.parquet", has_digest=False
    ),
    **{
        f"import-thingsvision-{ending}": Reader(
            _make_import(f"vectors/{ending}"), f"vectors/{ending}/*", has_digest=False
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
    "own-bold": (_make_bold_prepare("T1w"), "data/own-bold/**/*.nii.gz"),
    "own-bids": (
        _make_bold_prepare("T1w"),
        "data/own-bold/**/*.json data/own-bold/**/*.tsv",
    ),
    "own-surface": (_make_bold_prepare("fsaverage5"), "data/own-bold/**/*.gii"),
    "own-eeg": (
        EEG,
        "data/own-eeg/*.fif data/own-eeg/*.edf data/own-eeg/*.v* data/own-eeg/*.eeg",
    ),
    "own-eeg-gz": (EEG, "data/own-eeg/*.fif.gz"),
}
"""Command and files of a lab's own recordings. Packed files have checksums."""
READERS |= {
    name: Reader(argv, files, has_digest=files.endswith(("gz", "mgz")), surface="own")
    for name, (argv, files) in OWN.items()
}


def build(home):
    """List the steps that make the world: functions of home, and command lines."""
    return [
        _paint,
        _make_weights,
        _record,
        recordings.write,
        own_data.write,
        _pack,
        ("embed",) + THINGS_KEYS,
        ("embed",) + PICTURE_KEYS,
        lambda home: _interrupt(INTERRUPTED_EMBED),
        ALIGN,
        ALIGN_PRIOR,
        PRIOR,
        PRIOR + ("cache_latents=true", "paths.runs=other"),
        lambda home: _interrupt(ALIGN + ("paths.runs=begun-align",)),
        lambda home: _interrupt(PRIOR + ("paths.runs=begun-prior",)),
        _name_runs,
        ("eval-retrieval", "--run", "runs/aligned", "sheet_rows=0"),
        DRAW,
        EXPLAIN,
        _name_runs,
        (
            "export-embeddings",
            f"embeddings/pictures/train/{STORE_NAME}.h5",
            "to=vectors",
        ),
        _make_vectors,
    ]


def _interrupt(argv):
    """Run a command up to its third checkpoint or eighth batch."""
    from brainhive_cli.data.stores.target_writer import TargetWriter
    from brainhive_cli.training.alignment.training import cell_folder
    from tests.soak.runner import run_command

    def exit_after(owner, method, n_calls):
        save = getattr(owner, method)
        call_numbers = itertools.count(1)

        def save_and_exit(*args, **kwargs):
            save(*args, **kwargs)
            if next(call_numbers) == n_calls:
                os._exit(0)

        setattr(owner, method, save_and_exit)

    cell_folder.CHECKPOINT_INTERVAL_S = 0.0
    exit_after(torch, "save", 3)
    exit_after(TargetWriter, "write", 8)
    run_command(argv + CPU_KEYS)
    raise RuntimeError(f"{argv[0]} was not interrupted")


def _name_runs(home):
    """Copy runs to names that do not depend on fingerprints."""
    for name, pattern in {
        "aligned": "runs/train-align/*",
        "prior-aligned": "with-prior/train-align/*",
        "prior": "runs/train-prior/*",
        "drawn": "runs/reconstruct/*",
        "explained": "runs/explain/*",
    }.items():
        copied_run = home / "runs" / name
        for folder in sorted(home.glob(pattern))[-1:]:
            if (folder / "metrics.json").is_file() and not copied_run.exists():
                shutil.copytree(folder, copied_run)


def _paint_concepts(
    folder,
    n_concepts,
    n_pictures,
    ending="png",
    seed=0,
):
    """Write noise pictures with a mean colour for each concept."""
    rng = np.random.default_rng(seed)
    for concept in range(n_concepts):
        colour = rng.integers(40, 215, 3)
        concept_folder = folder / f"concept_{concept}"
        concept_folder.mkdir(parents=True)
        for number in range(n_pictures):
            pixels = (colour + rng.integers(-40, 40, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(concept_folder / f"{number}.{ending}")


def _paint(home):
    _paint_concepts(home / "pictures", 4, 3)
    _paint_concepts(home / "jpeg", 2, 2, "jpg")
    _paint_concepts(home / "scored", 3, 2, seed=1)
    (home / "scored/concept_2/2.jpg").write_bytes(
        (home / "jpeg/concept_0/0.jpg").read_bytes()
    )
    things_folder = home / "data/things-eeg"
    _paint_concepts(things_folder / "training_images", 10, 3)
    _paint_concepts(things_folder / "test_images", 8, 1, seed=2)
    coco = home / "data/coco"
    _paint_concepts(coco, 1, 4, "jpg")
    (coco / "concept_0").rename(coco / "train2017")
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(4)]
    annotations = [
        {"image_id": n, "category_id": n % 2, "area": 5.0, "caption": f"a {n}"}
        for n in range(4)
    ]
    categories = [{"id": 0, "name": "bowl"}, {"id": 1, "name": "dog"}]
    document = {"images": images, "categories": categories, "annotations": annotations}
    text = json.dumps(document)
    (coco / "annotations").mkdir()
    for name in ("instances", "captions"):
        (coco / f"annotations/{name}_train2017.json").write_text(text)
    rows = [f"concept_{number}\tkind {number % 2}" for number in range(10)]
    (home / "data/categories.tsv").write_text("\n".join(rows) + "\n")
    (home / "own.yaml").write_text(
        "# a recipe\nseeds: [1]\ntrain:\n  lr: 5.0e-4\n  batch_size: 32\n"
    )


def _make_weights(home):
    import timm
    from timm.models._hub import save_for_hf

    from brainhive_cli.core.files.hub import DEMO_WEIGHTS
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
    generator = sdxl.TINY.build()
    for name in ("unet", "vae", "scheduler"):
        component = getattr(generator.pipeline, name)
        component.save_pretrained(folder / "generator" / name)
    text, pooled = generator.embed_empty_prompt(1)
    embeds = {
        "prompt_embeds": text.contiguous(),
        "pooled_prompt_embeds": pooled.contiguous(),
    }
    save_file(embeds, folder / "generator/empty_prompt.safetensors")
    config = fusion_prior.Config(hidden_size=32, intermediate_size=32)
    config.build({STORE_NAME: 128}, generator).save(folder / "prior")
    repository = home / "hub/models--owner--encoder"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123456789" * 4)
    shutil.copytree(folder / "encoder", repository / "snapshots" / ("0123456789" * 4))


def _record(home):
    """Write EEG of two subjects, as torch archives and as plain pickles."""
    root = home / "data/things-eeg"
    rng = np.random.default_rng(0)
    for split, picture_folder, pickle_name, n_repetitions in (
        ("train", "training_images", "preprocessed_eeg_training.npy", 2),
        ("test", "test_images", "preprocessed_eeg_test.npy", 3),
    ):
        files = sorted((root / picture_folder).rglob("*.png"))
        names = [file.relative_to(root).as_posix() for file in files]
        for subject in (1, 2):
            eeg = rng.standard_normal((len(files), n_repetitions, 63, 20))
            content = {"eeg": eeg.astype(np.float16), "times": np.arange(20) / 250}
            content["img"] = np.repeat(
                np.asarray(names)[:, None], n_repetitions, axis=1
            )
            path = root / f"Preprocessed_data_250Hz_whiten/sub-{subject:02d}/{split}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, path, pickle_protocol=5)
            pickle_path = root / f"Bare/sub-{subject:02d}/{pickle_name}"
            pickle_path.parent.mkdir(parents=True, exist_ok=True)
            pickle_path.write_bytes(pickle.dumps(content, 4))


def _pack(home):
    """Pack pictures in parquet, HDF5, and archives that are not unpacked yet."""
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
    lines = [f"{n},{n},{n in (2, 4)}\n" for n in range(6)]
    text = "cocoId,nsdId,shared1000\n" + "".join(lines)
    (home / "data/nsd/nsd_stim_info_merged.csv").write_text(text)
    packed = home / "data/packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "training_images.zip", "w") as archive:
        archive.write(
            home / "pictures/concept_0/0.png", "training_images/concept_0/0.png"
        )
    with tarfile.open(packed / "sub-01.tar.gz", "w:gz") as tar:
        tar.add(home / "own.yaml", "sub-01/train.pt")


def _make_vectors(home):
    """Write vectors of the pictures as other projects do."""
    folder = home / "vectors"
    (file,) = folder.glob("*.parquet")
    file.rename(folder / "table.parquet")
    pictures = home / "pictures"
    names = [
        path.relative_to(pictures).as_posix()
        for path in sorted(pictures.rglob("*.png"))
    ]
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(names), 128)).astype(np.float32)
    np.savez(folder / "dict.npz", ids=np.asarray(names), vectors=vectors)
    torch.save({"ids": names, "vectors": torch.from_numpy(vectors)}, folder / "dict.pt")
    tensors = {
        name: torch.from_numpy(vector.copy())
        for name, vector in zip(names, vectors, strict=True)
    }
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
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
