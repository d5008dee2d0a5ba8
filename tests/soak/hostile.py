"""Malicious files that crash a reader, write elsewhere, run code or fill the memory."""

import io
import itertools
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from brainhive_cli.data.files import hdf5
from tests.soak.runner import Case
from tests.soak.world import (
    CPU_KEYS,
    ENCODER,
    FRESH_RUNS,
    PICTURE_KEYS,
    READERS,
    TEST,
    TRAIN,
)

SIGNALS = "signals/**/sub-01.h5"
ABSOLUTE = "/dev/shm/brainhive-soak"
ESCAPING_NAMES = (
    "../../x",
    "../../../outside/x",
    ABSOLUTE,
    "..",
    ".",
    "",
    "a/../../../../b",
    "a//b",
)
UNUSUAL_NAMES = (
    "a\0b",
    "x" * 10_000,
    "\\\\host\\x",
    "C:\\x",
    "a\nb",
    "a\x1b[31mb",
    "\u202eb",
    "a/",
    " ",
    "-x",
    "~/x",
)
HARMLESS_KINDS = ("enum", "quadruple", "flat", "larger", "soft-link", "strings")
"""Kinds of datasets that a reader may accept."""
RESIZED_KINDS = ("fewer-rows", "more-rows", "no-rows", "axis")
"""Kinds of datasets that a reader may accept in files without digests."""
DEEP = "[" * 100_000
Make = Callable[[Path, Path], Any]
"""Function that changes home, given its path and a folder outside of it."""


def cases(seed, count):
    """Yield all cases in random order, repeated with other details up to `count`."""
    n_cases = 0
    while n_cases < count:
        shuffled_cases = list(_all(random.Random(f"{seed}/{n_cases}")))
        random.Random(seed).shuffle(shuffled_cases)
        for case in shuffled_cases[: count - n_cases]:
            yield case
            n_cases += 1


def _all(rng):
    return chain(
        _datasets(),
        _attributes(rng),
        _ids(),
        _recipes(),
        _archives(),
        _documents(),
        _configs(),
        _weights(),
        _links(),
        _facts(),
        _pictures_and_tables(),
    )


def _make_case(
    kind,
    name,
    reader_name,
    make,
    *args,
    is_compared=False,
    must_fail=False,
):
    """Make a case in which `make(*args, home, outside_folder)` changes files."""
    reader = READERS[reader_name]

    def prepare(home, outside_folder):
        if reader.setup:
            reader.setup(home)
        make(*args, home, outside_folder)

    return Case(
        "hostile",
        f"{kind} {name} {reader_name}",
        reader.argv + CPU_KEYS + ("--json",),
        prepare,
        reader=reader_name if is_compared else "",
        must_fail=must_fail,
    )


def _find_first(home, pattern):
    return sorted(home.glob(pattern))[0]


# HDF5


def _h5_kinds():
    """List functions of (file, name, original, outside_folder) that write a dataset."""

    def with_dtype(dtype):
        return lambda file, name, original, outside_folder: file.create_dataset(
            name, original.shape, dtype
        )

    def with_values(change):
        return lambda file, name, original, outside_folder: file.create_dataset(
            name, data=change(original)
        )

    def write_virtual(file, name, original, outside_folder):
        values = np.ones_like(original) if original.dtype.kind != "S" else original
        with h5py.File(outside_folder / "other.h5", "w") as other_file:
            other_file["x"] = values
        layout = h5py.VirtualLayout(original.shape, original.dtype)
        layout[...] = h5py.VirtualSource(
            outside_folder / "other.h5", "x", original.shape
        )
        file.create_virtual_dataset(name, layout)

    def write_external(file, name, original, outside_folder):
        (outside_folder / "raw").write_bytes(b"secret" * original.nbytes)
        file.create_dataset(
            name,
            original.shape,
            original.dtype,
            external=[(str(outside_folder / "raw"), 0, original.nbytes)],
        )

    def write_external_link(file, name, original, outside_folder):
        write_virtual(file, f"{name}-other", original, outside_folder)
        del file[f"{name}-other"]
        file[name] = h5py.ExternalLink(str(outside_folder / "other.h5"), "x")

    def with_shape(shape):
        return lambda file, name, original, outside_folder: file.create_dataset(
            name, shape + original.shape[1:], original.dtype
        )

    def write_bomb(file, name, original, outside_folder):
        file.create_dataset(
            name,
            (2**33,) + original.shape[1:],
            original.dtype,
            chunks=(2**12,) + original.shape[1:],
            compression="gzip",
        )

    strings, ref = h5py.string_dtype(), h5py.ref_dtype
    return {
        "vlen-strings": lambda file, name, original, outside_folder: (
            file.create_dataset(
                name, data=np.full(original.shape, "x" * 99, object), dtype=strings
            )
        ),
        "vlen-numbers": with_dtype(h5py.vlen_dtype(np.float32)),
        "references": lambda file, name, original, outside_folder: file.create_dataset(
            name, data=np.full(original.shape, file.ref, object), dtype=ref
        ),
        "regions": with_dtype(h5py.regionref_dtype),
        "compound": with_dtype(np.dtype([("a", "f4"), ("b", "i8")])),
        "enum": with_dtype(h5py.enum_dtype({"a": 1}, "i4")),
        "opaque": with_dtype(np.dtype("V16")),
        "strings": with_dtype("S8"),
        "complex": with_values(lambda original: np.zeros(original.shape, np.complex64)),
        "quadruple": with_values(
            lambda original: np.zeros(original.shape, np.longdouble)
        ),
        "no-rows": with_values(lambda original: original[:0]),
        "fewer-rows": with_values(lambda original: original[:-2]),
        "more-rows": with_values(
            lambda original: np.concatenate([original, original[:3]])
        ),
        "scalar": with_values(lambda original: original.reshape(-1)[0]),
        "axis": with_values(lambda original: original[None]),
        "flat": with_values(lambda original: original.reshape(-1)),
        "null": lambda file, name, original, outside_folder: file.create_dataset(
            name, data=h5py.Empty(original.dtype)
        ),
        "group": lambda file, name, original, outside_folder: file.create_group(name),
        "absent": lambda file, name, original, outside_folder: None,
        "type": lambda file, name, original, outside_folder: file.__setitem__(
            name, np.dtype("f4")
        ),
        "huge": with_shape((2**38,)),
        "larger": with_shape((10_000_000,)),
        "bomb": write_bomb,
        "external": write_external,
        "virtual": write_virtual,
        "external-link": write_external_link,
        "soft-loop": lambda file, name, original, outside_folder: file.__setitem__(
            name, h5py.SoftLink(f"/{name}")
        ),
        "soft-link": lambda file, name, original, outside_folder: file.__setitem__(
            name, h5py.SoftLink("/done")
        ),
    }


@contextmanager
def changed(path):
    """Open an HDF5 file for changes, and then renew its checksums and seal."""
    hdf5.unseal(path)
    with h5py.File(path, "r+") as file:
        yield file
        is_store, names = hdf5.CHECKSUMS in file, list[str]()
        if is_store:
            file[hdf5.CHECKSUMS].visititems(
                lambda name, item: (
                    names.append(name) if hasattr(item, "shape") else None
                )
            )
        file.flush()
        for name in names:
            with suppress(Exception):  # an unreadable dataset keeps its old checksums
                checksums = hdf5.row_checksums(hdf5.map_numbers(file, name))
                del file[f"{hdf5.CHECKSUMS}/{name}"]
                file[f"{hdf5.CHECKSUMS}/{name}"] = checksums
    if is_store:
        digest = hdf5._digest(path, [], path.stat().st_size)
        with path.open("ab") as file:
            file.write(hdf5.SEAL_FOOTER.pack(digest, 0, hdf5.SEAL_MARK))


def _datasets():
    cases_by_pattern = {
        TRAIN: (
            ("embedding", "image_id", "concept", "done"),
            ("align", "check", "export-parquet"),
        ),
        TEST: (("embedding", "image_id", "done"), ("eval", "export-npy")),
        SIGNALS: (
            ("train/signal", "train/image_id", "train/repetitions", "test/signal"),
            ("align", "eval"),
        ),
        "latents/**/*.h5": (("embedding", "sizes", "done"), ("latents",)),
        "data/nsd/nsd_stimuli.hdf5": (("imgBrick",), ("nsd",)),
    }
    turn = 0
    for pattern, (datasets, readers) in cases_by_pattern.items():
        has_digest = not pattern.startswith("data")
        for dataset, kind in product(datasets, _h5_kinds()):
            turn += 1
            yield _make_case(
                "dataset",
                f"{dataset} {kind}",
                readers[turn % len(readers)],
                _replace_dataset,
                pattern,
                dataset,
                kind,
                is_compared=has_digest,
                must_fail=not has_digest and kind not in HARMLESS_KINDS + RESIZED_KINDS,
            )


def _replace_dataset(pattern, dataset, kind, home, outside_folder):
    with changed(_find_first(home, pattern)) as file:
        original = file[dataset][()]
        del file[dataset]
        write_dataset = _h5_kinds()[kind]
        write_dataset(file, dataset, original, outside_folder)


def _attributes(rng):
    values = [
        "",
        "{",
        "[]",
        "null",
        "x" * 60_000,
        -1,
        float("nan"),
        np.zeros(3),
        h5py.Empty("S1"),
        b"\xff",
    ]
    values += ESCAPING_NAMES[:4]
    values += [
        "[" * 50_000,
        '{"a": NaN}',
        np.array(["a", "b"], object),
        2**62,
        "a\0b",
        True,
    ]
    target_attributes = (
        "format encoder dataset split config weights pictures health skipped "
        "alternatives dtype preprocessing versions latent_space imported"
    )
    signal_attributes = (
        "format holds splits channels times_s rate_hz unit provenance space"
    )
    target_readers = ("align", "check", "export-npy", "export-parquet")
    for pattern, names, count, readers in (
        (TRAIN, target_attributes, 5, target_readers),
        (SIGNALS, signal_attributes, 4, ("align", "eval")),
    ):
        for name in names.split():
            for value in rng.sample(values, count):
                yield _make_case(
                    "attribute",
                    f"{name} {value!r:.20}",
                    rng.choice(readers),
                    _set_attribute,
                    pattern,
                    name,
                    value,
                )


def _set_attribute(pattern, name, value, home, outside_folder):
    with changed(_find_first(home, pattern)) as file:
        if isinstance(value, np.ndarray) and value.dtype == object:
            file.attrs.create(name, value, dtype=h5py.string_dtype())
        elif isinstance(value, bytes):
            file.attrs[name] = np.bytes_(value)
        else:
            text = (
                str(value)
                .replace(ABSOLUTE, str(outside_folder / "absolute"))
                .replace("\0", "_")
            )
            file.attrs[name] = text if isinstance(value, str) else value


def _ids():
    readers = ("export-npy", "export-parquet", "eval", "align", "check", "draw")
    ids = ESCAPING_NAMES + UNUSUAL_NAMES + (b"\xff\xfe",)
    for number, name in enumerate(ids):
        for reader in (
            readers[number % len(readers)],
            readers[(number + 2) % len(readers)],
            "draw",
        ):
            yield _make_case("id", f"{name!r:.30}", reader, _set_first_image_id, name)
    fields = ("dataset", "split", "encoder")
    names = ESCAPING_NAMES + UNUSUAL_NAMES[1:4]
    for field, name, reader in product(fields, names, readers[:2]):
        yield _make_case(
            "name", f"{field} {name!r:.30}", reader, _set_attribute, TRAIN, field, name
        )


def _set_first_image_id(name, home, outside_folder):
    """Set the image id of the first picture in all stores."""
    if isinstance(name, str):
        name = name.replace(ABSOLUTE, str(outside_folder / "absolute"))
        name = name.encode(errors="surrogatepass")
    embeddings = home.glob("embeddings/things-eeg/*/*.h5")
    for path in chain(embeddings, home.glob(SIGNALS)):
        with changed(path) as file:
            for dataset in ("image_id", "train/image_id", "test/image_id"):
                if dataset in file:
                    image_ids = file[dataset][()].tolist()
                    image_ids[0] = name
                    del file[dataset]
                    file[dataset] = np.array(image_ids, np.bytes_)


# recipes


def _add_evil_module(home, outside_folder):
    """Write a module that writes `pwned` when it is imported."""
    (home / "modules/evil").mkdir(parents=True)
    (home / "modules/evil/__init__.py").write_text("")
    text = (
        f"open({str(outside_folder / 'pwned')!r}, 'w').close()\n"
        "def load(): return None, None\n"
    )
    (home / "modules/evil/part.py").write_text(text)


def _recipes():
    return chain(_recipes_with_code(), _recipes_with_names(), _recipes_with_sizes())


def _recipes_with_code():
    """Yield recipes that name code of an unknown module."""
    align, draw, latents = (READERS[name].argv for name in ("align", "draw", "latents"))
    score, vectors = READERS["score"].argv, READERS["import-dict-npz"].argv
    embed = ("embed", PICTURE_KEYS[0])
    evil_list, evil_part = "['python:evil.part:load']", "{kind: evil.part}"
    code = {
        "encoder": embed + (f"encoders={evil_list}",),
        "encoder-kind": embed + (f"encoders=[{evil_part}]",),
        "python-kind": embed
        + ("encoders=[{kind: python, source: 'python:evil.part:load'}]",),
        "backbone": align + (f"backbone={evil_part}",),
        "loss": align + (f"loss={evil_part}",),
        "fuser": align + (f"fuser={evil_part}",),
        "dataset": ("embed", f"encoders=[{ENCODER}]", f"dataset={evil_part}"),
        "generator": draw + (f"generator={evil_part}",),
        "prior": latents + (f"prior={evil_part}",),
        "similarity": latents + (f"similarity={evil_list}",),
        "metric": score + (f"metric_encoders={evil_list}",),
        "fid": latents + ("fid_features='python:evil.part:load'",),
        "import": vectors + (f"encoders={evil_list}",),
    }
    flags = ((), ("--check",))
    for (name, argv), flag in product(code.items(), flags):
        recipe_argv = ("--recipe", "evil.yaml") + CPU_KEYS + flag
        # a recipe file holds the last override
        yield Case(
            "hostile",
            f"code {name} {' '.join(flag)}",
            argv[:-1] + recipe_argv,
            partial(_write_recipe, argv),
        )
        # a recipe file holds all overrides, as the first step of several
        for command in ("workflow", "demo")[: 1 + (argv[0] == "embed")]:
            command_line = (command,) + recipe_argv
            yield Case(
                "hostile",
                f"code {name} {' '.join(command_line)}",
                command_line,
                partial(_write_steps, command, argv),
            )
    launch = READERS["encoder"].argv + CPU_KEYS + ("--processes", "2")
    for package in ("brainhive_cli", "torch", "site"):  # in the working directory
        shadow = partial(_shadow_package, package)
        yield Case("hostile", f"code launched {package}", launch, shadow)


def _recipes_with_names():
    """Yield recipes whose names and paths leave their folder."""
    align, encoders = READERS["align"].argv, f"encoders=[{ENCODER}]"
    for name in ESCAPING_NAMES + UNUSUAL_NAMES[:4]:
        quoted, label = json.dumps(name), f"{name!r:.30}"
        dataset = f"dataset={{kind: image-folder, root: pictures, name: {quoted}}}"
        yield _make_command_case(f"dataset.name {label}", ("embed", dataset, encoders))
        if "\0" not in name:
            argv = ("eval-retrieval", f"align_run=[{quoted}]", FRESH_RUNS)
            yield _make_command_case(
                f"align_run {label}",
                argv + ("sheet_rows=0",),
                must_fail=name not in ("", "..", "."),
            )
            argv = align + (f"signal.name={quoted}",)
            yield _make_command_case(f"signal.name {label}", argv, must_fail=True)
    for argv in (
        ("train-align", "--recipe"),
        ("demo", "--recipe"),
        ("report",),
        ("eval-retrieval", "--run"),
    ):
        yield _make_command_case(f"long {argv[0]}", argv + ("x" * 300,), must_fail=True)
    for signals in ("/abs", "**x"):
        argv = align + (f"dataset.signals='{signals}'",)
        yield _make_command_case(f"dataset.signals {signals}", argv, must_fail=True)
    repositories = (
        "a/b/../.. a/b/../../../../.. ../b /a/b a a/b@../.. a/b/../../../outside a//b @"
    )
    for repository in repositories.split():
        argv = ("embed", PICTURE_KEYS[0], f"encoders=['hub:{repository}']")
        yield Case(
            "hostile",
            f"hub {repository}",
            argv + CPU_KEYS,
            _add_repository,
            must_fail=True,
        )


def _recipes_with_sizes():
    """Yield recipes with huge numbers."""
    for size in (
        "dataset.subjects=999999999999",
        "dataset.subjects=100000000",
        "seeds=[1,2,3,999999999999999999999]",
    ):
        argv = ("train-align", "dataset=demo", f"encoders=[{ENCODER}]", size)
        argv += CPU_KEYS + (FRESH_RUNS,)
        yield Case("hostile", f"large {size}", argv, must_fail=True)
        yield Case("hostile", f"large {size} --check", argv + ("--check",))
    for size in (
        "dim=9999999999",
        "train.batch_size=99999999999",
        "backbone={kind: brain_mlp, hidden: 99999999}",
    ):
        argv = READERS["align"].argv[:5] + (size,)
        yield Case("hostile", f"large {size}", argv + CPU_KEYS + (FRESH_RUNS,))
    for size in (
        "resolution_px=8000000",
        "repeats=99999999999",
        "steps=999999999",
        "batch_size=9999999999",
    ):
        argv = READERS["draw"].argv + (size,)
        yield Case("hostile", f"large {size}", argv + CPU_KEYS + ("--check",))


def _make_command_case(name, argv, must_fail=False):
    return Case("hostile", name, argv + CPU_KEYS, must_fail=must_fail)


def _write_recipe(argv, home, outside_folder):
    _add_evil_module(home, outside_folder)
    key, _, value = argv[-1].partition("=")
    (home / "evil.yaml").write_text(f"{key}: {value}\n")


def _shadow_package(package, home, outside_folder):
    _add_evil_module(home, outside_folder)
    (home / package).mkdir()
    for name in ("__init__", "__main__"):
        shutil.copy(home / "modules/evil/part.py", home / package / f"{name}.py")


def _write_steps(command, argv, home, outside_folder):
    """Write a workflow or demo with a step of these overrides."""
    _add_evil_module(home, outside_folder)
    step, overrides = argv[0], [argument for argument in argv[1:] if "=" in argument]
    fields = {"overrides": {step: overrides}, "quick": True}
    if command == "workflow":
        fields = {"steps": {step: {"overrides": overrides}}}
    (home / "evil.yaml").write_text(json.dumps(fields))


def _add_repository(home, outside_folder):
    commit = home / "hub/models--a--b/snapshots" / ("0123456789" * 4)
    commit.mkdir(parents=True)
    (home / "hub/models--a--b/refs").mkdir()
    (home / "hub/models--a--b/refs/main").write_text("0123456789" * 4)
    for folder in (outside_folder, home / "hub", commit.parents[1], commit.parent):
        for file in (home / ENCODER).iterdir():
            shutil.copy(file, folder)


# archives and arrays


class _TouchFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def _make_tar_header(name, size, kind=b"0"):
    block = bytearray(512)
    block[:100], block[100:108] = name.ljust(100, b"\0"), b"0000644\0"
    block[108:124], block[124:136] = b"0000000\0" * 2, size.ljust(12, b"\0")
    block[136:148], block[148:156], block[156:157] = b"00000000000\0", b" " * 8, kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _archives():
    return chain(_tars(), _arrays(), _pickles())


def _tars():
    sizes = (
        b"-0000000512\0",
        b"-0000001024\0",
        b"77777777777\0",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"\x80" + bytes(3) + b"\x7f" * 8,
        b"          -\0",
        b"00000000000\0",
        b"x" * 12,
        b"-1\0",
        b"1_0\0",
    )
    for (number, size), kind in product(enumerate(sizes), (b"0", b"x", b"L")):
        content = _make_tar_header(b"sample1.behav.npy", size, kind) + b"x" * 2048
        yield _make_case(
            "tar", f"size {number} {kind!r}", "prepare-mindeye2", _write_tar, content
        )
    for name in (b"../../x.jpg", b"/x.jpg", b"\xff.jpg", b"a\nb.jpg", b"x" * 100):
        content = (
            _make_tar_header(name, b"00000000004\0")
            + b"jpeg".ljust(512, b"\0")
            + bytes(1024)
        )
        yield _make_case(
            "tar", f"name {name!r:.20}", "prepare-mindeye2", _write_tar, content
        )
    for kind in (b"1", b"2", b"3", b"5", b"6", b"S", b"g", b"K", b"\0", b"D"):
        payload = b"30 path=../../../x\n".ljust(1024, b"\0") + bytes(1024)
        content = _make_tar_header(b"sample1.behav.npy", b"00000000777\0", kind)
        content += payload
        yield _make_case(
            "tar", f"type {kind!r}", "prepare-mindeye2", _write_tar, content
        )


def _arrays():
    readers = {
        "dict.npz": "dict-npz",
        "tree": "tree",
        "npy/features.npy": "thingsvision-npy",
    }
    headers = {
        "huge": _npy_header("<f4", "99999999999, 128"),
        "negative": _npy_header("<f4", "-1, 128"),
        "overflow": _npy_header("<f4", "4294967296, 4294967296"),
        "objects": _npy_header("|O", "12,"),
        "void": _npy_header("|V1000000000", "12,"),
        "strings": _npy_header("<U100000000", "12, 12"),
        "code": (
            "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': "
            "(12,), }"
        ),
        "deep": "(" * 3000 + ")" * 3000,
        "bools": _npy_header("<f4", "True, 12"),
        "dates": _npy_header("<M8[s]", "12, 12"),
        "fields": (
            "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': "
            "(12,), }"
        ),
    }
    for (name, text), (file, reader) in product(headers.items(), readers.items()):
        yield _make_case(
            "array", f"{name} {file}", f"import-{reader}", _write_array, file, text
        )
    dtypes = {
        "strings": "U3",
        "complex": "c8",
        "bytes": "S9",
        "dates": "M8[s]",
        "longdouble": "g",
    }
    for (name, dtype), (file, reader) in product(dtypes.items(), readers.items()):
        yield _make_case(
            "values",
            f"{name} {file}",
            f"import-{reader}",
            _write_values,
            file,
            dtype,
            must_fail=name != "longdouble",
        )
    yield _make_case("zip", "bomb", "import-dict-npz", _write_zip_bomb)
    yield _make_case(
        "zip",
        "overlap",
        "import-dict-npz",
        _edit_zip_header,
        46 - 4,
        b"\xff\xff\xff\x7f",
    )
    yield _make_case("zip", "names", "import-dict-npz", _write_zip_names)


def _pickles():
    readers = {
        "dict.npy": "import-dict-npy",
        "dict.npz": "import-dict-npz",
        "dict.pt": "import-dict-pt",
        "old.pth": "import-old-pth",
        "npy/features.npy": "import-thingsvision-npy",
        "pt/features.pt": "import-thingsvision-pt",
    }
    for (file, reader), protocol in product(readers.items(), (0, 2, 4, 5)):
        yield _make_case(
            "pickle",
            f"{file} {protocol}",
            reader,
            _write_pickle,
            file,
            protocol,
            must_fail=True,
        )
    recording = "../data/things-eeg/Bare/sub-01/preprocessed_eeg_training.npy"
    for protocol in (0, 2, 4):
        yield _make_case(
            "pickle",
            f"recording {protocol}",
            "things-pickle",
            _write_pickle,
            recording,
            protocol,
            must_fail=True,
        )
    torch_readers = {
        "begun-align/**/checkpoints/*.pt": "align-resumed",
        "begun-prior/**/checkpoints/*.pt": "prior-resumed",
        "weights/timm/pytorch_model.bin": "timm-bin",
        "data/things-eeg/**/sub-01/train.pt": "things",
    }
    variants = ("zip", "bare", "legacy")
    for (pattern, reader), variant in product(torch_readers.items(), variants):
        yield _make_case(
            "pickle",
            f"{pattern} {variant}",
            reader,
            _write_torch_code,
            pattern,
            variant,
        )
    for kind in (
        "string complex bfloat16 sparse bool quantized strided meta nan objects".split()
    ):
        is_read = kind in ("bool", "strided", "bfloat16", "nan")
        yield _make_case(
            "signals", kind, "things", _write_signals, kind, must_fail=not is_read
        )
    streams = {
        "memo": b"\x80\x04]\x94(h\x00e.",
        "huge": b"\x80\x04B\xff\xff\xff\x7f",
        "marks": b"(" * 10**6 + b".",
        "deep": b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "long": b"\x80\x04\x8b\xff\xff\xff\x7f1.",
        "ext": b"\x80\x04\x82\x01.",
        "put": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95" + b"\xff" * 8,
    }
    for name, content in streams.items():
        yield _make_case(
            "pickle",
            name,
            "import-dict-npy",
            _write_file,
            "vectors/dict.npy",
            content,
            must_fail=True,
        )


def _write_file(pattern, content, home, outside_folder):
    path = _find_first(home, pattern) if "*" in pattern else home / pattern
    if isinstance(content, str):
        content = content.encode(errors="surrogatepass")
    path.write_bytes(content)


def _write_tar(content, home, outside_folder):
    _find_first(home, "data/mindeyev2/**/*.tar").write_bytes(content)


def _find_vectors(home, file):
    if file == "tree":
        return _find_first(home / "vectors/tree", "**/*.npy")
    return home / "vectors" / file


def _npy_header(dtype, shape):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}"


def _make_npy(header_text, size=12 * 128 * 4):
    header = header_text.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + bytes(size)


def _write_array(file, header, home, outside_folder):
    path = _find_vectors(home, file)
    if file.endswith("npz"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ids.npy", _make_npy(header))
            archive.writestr("vectors.npy", _make_npy(header))
    else:
        path.write_bytes(_make_npy(header))


def _write_values(file, dtype, home, outside_folder):
    path = _find_vectors(home, file)
    values = np.zeros((12, 128) if file != "tree" else 128, dtype)
    if file.endswith("npz"):
        image_ids = np.load(path)["ids"]
        np.savez(path, ids=image_ids, vectors=values)
    else:
        np.save(path, values)


def _write_zip_bomb(home, outside_folder):
    with zipfile.ZipFile(
        home / "vectors/dict.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        archive.writestr("ids.npy", _make_npy(_npy_header("<U9", "12,")))
        with archive.open("vectors.npy", "w", force_zip64=True) as file:
            file.write(_make_npy(_npy_header("<f4", "12, 83886080"), 0))
            for _ in range(60):
                file.write(bytes(2**26))


def _edit_zip_header(offset, content, home, outside_folder):
    """Overwrite bytes of the last central entry."""
    path = home / "vectors/dict.npz"
    archive = bytearray(path.read_bytes())
    start = archive.rfind(b"PK\x01\x02") + offset
    archive[start : start + len(content)] = content
    path.write_bytes(archive)


def _write_zip_names(home, outside_folder):
    with zipfile.ZipFile(home / "vectors/dict.npz", "w") as archive:
        for name in ("../../../../outside/x.npy", "/x.npy", "ids.npy", "ids.npy"):
            archive.writestr(name, _make_npy(_npy_header("<f4", "12, 128")))


def _write_pickle(file, protocol, home, outside_folder):
    code = _TouchFile(str(outside_folder / "pwned"))
    content = {"ids": ["a"], "vectors": code}
    path = home / "vectors" / file
    if file.endswith(".npz"):
        np.savez(path, ids=np.array([code], object))
    elif file.endswith((".pt", ".pth")):
        is_zip = path.suffix == ".pt"
        torch.save(
            content,
            path,
            pickle_protocol=max(protocol, 2),
            _use_new_zipfile_serialization=is_zip,
        )
    elif protocol == 5:
        np.save(path, np.array(content, object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content, protocol))


def _write_torch_code(pattern, variant, home, outside_folder):
    path, content = (
        _find_first(home, pattern),
        {"x": _TouchFile(str(outside_folder / "pwned"))},
    )
    if variant == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=variant == "zip")


def _write_signals(kind, home, outside_folder):
    path = _find_first(home, "data/things-eeg/**/sub-01/train.pt")
    content = torch.load(path, weights_only=False)
    eeg = torch.from_numpy(content["eeg"].astype(np.float32))
    content["eeg"] = {
        "string": lambda: np.full(eeg.shape, "a"),
        "complex": lambda: eeg.to(torch.complex64),
        "bfloat16": lambda: eeg.to(torch.bfloat16),
        "sparse": lambda: eeg.to_sparse(),
        "bool": lambda: eeg > 0,
        "quantized": lambda: torch.quantize_per_tensor(eeg, 0.1, 0, torch.qint8),
        "strided": lambda: eeg.transpose(2, 3).contiguous().transpose(2, 3),
        "meta": lambda: eeg.to("meta"),
        "nan": lambda: eeg * float("nan"),
        "objects": lambda: np.full(eeg.shape, None, object),
    }[kind]()
    torch.save(content, path)


# documents


def _documents():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for key, previous_key in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{key}: &{key} [{', '.join(['*' + previous_key] * 9)}]\n"
    yaml = {
        "bomb": bomb,
        "lines": "seeds: [" + "1, " * 3_000_000 + "1]",
        "deep": "seeds: " + DEEP,
        "cycle": "seeds: &a [*a]",
        "cycle-keys": "&a {dataset: *a}",
        "python": "!!python/object/apply:os.system [touch pwned]",
        "python-name": "dataset: !!python/name:os.system",
        "date": "seed: 2026-13-45",
        "date-key": "2026-01-01: 1",
        "list-key": "[a, b]: 1",
        "int": "dim: !!int x",
        "float": "dim: !!float x",
        "digits": "dim: " + "9" * 5000,
        "hex": "dim: 0x" + "f" * 200_000,
        "sexagesimal": "dim: " + "59:" * 5000 + "1",
        "merge": "<<: [1, 2]",
        "two": "a: 1\n---\nb: 2",
        "binary": "dataset: !!binary '*'",
        "set": "!!set {a, b}",
        "text": "just words",
        "number": "7",
        "null": "~",
        "nul": "dim: 3\0",
        "latin": "\udcff",
        "bom": "\ufeffdim: 3",
        "tabs": "\tdim: 3",
        "anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(100_000)),
        "inf": "train: {lr: .inf}",
        "nan": "train: {weight_decay: .nan}",
        "bools": "{y: 1, true: 2, 1: 3}",
    }
    for name, text in yaml.items():
        yield _make_case("yaml", name, "recipe", _write_file, "own.yaml", text)
        yield _make_case(
            "yaml", name, "eval", _write_file, "runs/aligned/recipe.yaml", text
        )
    documents = {
        "eval": "runs/aligned/metrics.json runs/aligned/embeddings.json "
        "runs/aligned/cells/**/model/config.json",
        "draw-against": "runs/drawn/metrics.json",
        "align-finished": "runs/train-align/*/metrics.json",
        "draw": "weights/generator/unet/config.json "
        "weights/generator/scheduler/scheduler_config.json "
        "weights/prior/fusion_encoder/config.json",
        "encoder": "weights/encoder/config.json "
        "weights/encoder/preprocessor_config.json",
        "timm": "weights/timm/config.json",
        "coco": "data/coco/annotations/instances_train2017.json",
    }
    texts = {
        "deep": DEEP,
        "digits": '{"schema": ' + "9" * 5000 + "}",
        "list": "[]",
        "null": "null",
        "nan": '{"schema": NaN}',
        "twice": '{"schema": 1, "schema": 1}',
        "empty": "{}",
        "number": "1e999",
    }
    for reader, patterns in documents.items():
        for pattern in patterns.split():
            for name, text in texts.items():
                yield _make_case(
                    "json", f"{pattern} {name}", reader, _write_file, pattern, text
                )
            for value in (None, [], {}, -1, "x", 1e300, "../../x", [["a"]]):
                yield _make_case(
                    "json",
                    f"{pattern} values {value!r}",
                    reader,
                    _set_values,
                    pattern,
                    value,
                )


def _facts():
    for key, run_folder in product(
        ("sources", "titles", "caveats"), ("runs/drawn", "runs/aligned")
    ):
        yield Case(
            "hostile",
            f"facts {run_folder} {key}",
            ("report", run_folder) + CPU_KEYS,
            partial(_name_absent_fact, f"{run_folder}/metrics.json", key),
            must_fail=key == "sources",
        )


def _name_absent_fact(pattern, key, home, outside_folder):
    """Name absent entries in the facts of a document."""
    path = _find_first(home, pattern)
    (path.parent / "SHA256SUMS").unlink()
    document = json.loads(path.read_text())
    document["facts"] = {**document["facts"], key: ["absent", "\u202eabsent"]}
    path.write_text(json.dumps(document))


def _set_values(pattern, value, home, outside_folder):
    """Replace the value of every fifth key of a document, at any depth."""
    path, key_numbers = _find_first(home, pattern), itertools.count(1)
    document = json.loads(path.read_text())

    def change(node):
        if not isinstance(node, dict):
            return node
        changed_node = {}
        for key, child in node.items():
            is_replaced = next(key_numbers) % 5 == 0
            changed_node[key] = value if is_replaced else change(child)
        return changed_node

    path.write_text(json.dumps(change(document)))


# configs and weights of other projects


def _configs():
    classes = (
        "DiffusionPipeline os utils AutoPipelineForText2Image __builtins__ UNet2DModel "
        "logging"
    ).split()
    classes += (
        "StableDiffusionPipeline schedulers FrozenDict __file__ AutoencoderKL x "
        "__dict__"
    ).split()
    scheduler, unet, vae = (
        f"weights/generator/{name}.json"
        for name in ("scheduler/scheduler_config", "unet/config", "vae/config")
    )
    encoder, pixels = f"{ENCODER}/config.json", f"{ENCODER}/preprocessor_config.json"
    for name in classes:
        keys = {"_class_name": name}
        yield _make_case(
            "class",
            f"scheduler {name}",
            "draw",
            _set_keys,
            scheduler,
            keys,
            must_fail=True,
        )
    for name in classes[:6] + ["AsymmetricAutoencoderKL", 3, None, ["a"]]:
        yield _make_case(
            "class", f"vae {name}", "vae", _set_keys, vae, {"_class_name": name}
        )
    for name in ("bert", "clip", "os", 3, None, ["clip"], "gpt2", "dinov2", "siglip"):
        yield _make_case(
            "class",
            f"encoder {name}",
            "encoder",
            _set_keys,
            encoder,
            {"model_type": name},
        )
    code = {"AutoModel": "evil.part--load", "AutoImageProcessor": "evil.part"}
    for pattern in (encoder, pixels):
        keys = {"auto_map": code, "trust_remote_code": True}
        yield _make_case(
            "class", f"code {pattern}", "encoder", _set_keys_and_add_code, pattern, keys
        )
    for name in (
        "vit_base_patch16_224",
        "os",
        "../../x",
        "",
        "hf-hub:a/b",
        "local-dir:/",
        3,
        None,
    ):
        keys = {"architecture": name}
        yield _make_case(
            "class",
            f"timm {name}",
            "timm",
            _set_keys,
            "weights/timm/config.json",
            keys,
            must_fail=True,
        )
    sizes = {
        encoder: "hidden_size num_hidden_layers image_size patch_size",
        unet: "cross_attention_dim layers_per_block norm_num_groups",
        vae: "latent_channels layers_per_block scaling_factor",
        "weights/prior/fusion_encoder/config.json": (
            "hidden_size num_layers intermediate_size"
        ),
        "weights/prior/proj/config.json": (
            "sequence_length cross_attention_dim embed_dim"
        ),
        pixels: "size crop_size image_mean resample",
        scheduler: "num_train_timesteps beta_schedule",
    }
    for pattern, names in sizes.items():
        reader = "encoder" if pattern.startswith(ENCODER) else "draw"
        for key, value in product(names.split(), (10**12, -1, 0, 1e300, "x", None)):
            yield _make_case(
                "size",
                f"{pattern} {key} {value}",
                reader,
                _set_keys,
                pattern,
                {key: value},
            )


def _set_keys(pattern, changes, home, outside_folder):
    path = _find_first(home, pattern)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _set_keys_and_add_code(pattern, changes, home, outside_folder):
    _add_evil_module(home, outside_folder)
    for file in (home / "modules/evil").iterdir():
        shutil.copy(file, (home / pattern).parent)
    _set_keys(pattern, changes, home, outside_folder)


def _weights():
    readers = {
        f"{ENCODER}/model.safetensors": "encoder",
        "weights/prior/proj/diffusion_pytorch_model.safetensors": "draw",
        "weights/generator/unet/diffusion_pytorch_model.safetensors": "draw",
        "weights/generator/empty_prompt.safetensors": "draw",
        "runs/aligned/cells/**/model/*.safetensors": "eval",
        "weights/timm/model.safetensors": "timm",
    }
    variants = "length deep overlap shape negative dtype huge names absent surplus"
    for pattern, reader in readers.items():
        for variant in variants.split():
            yield _make_case(
                "safetensors",
                f"{pattern} {variant}",
                reader,
                _edit_safetensors,
                pattern,
                variant,
                must_fail=variant != "surplus",
            )
        for dtype in ("bfloat16", "int64", "float64", "bool", "complex64", "rank"):
            yield _make_case(
                "tensors", f"{pattern} {dtype}", reader, _cast_tensors, pattern, dtype
            )


def _edit_safetensors(pattern, variant, home, outside_folder):
    path = _find_first(home, pattern)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    name = next(iter(header))
    if variant == "length":
        path.write_bytes((2**63 + 5).to_bytes(8, "little") + content[8:])
        return
    entry_changes = {
        "overlap": {"data_offsets": [0, len(data) * 9]},
        "shape": {"shape": [2**40, 2**40]},
        "negative": {"shape": [-1, -4]},
        "dtype": {"dtype": "F1024"},
    }
    if variant in entry_changes:
        header[name] |= entry_changes[variant]
    elif variant == "names":
        header["../" * 99] = header.pop(name)
    elif variant == "absent":
        header = {}
        data = b""
    elif variant == "huge":
        header["more"] = {"dtype": "F32", "shape": [2**34], "data_offsets": [0, 2**36]}
    elif variant == "surplus":
        offsets = [len(data), len(data)]
        header["more"] = {"dtype": "F32", "shape": [0], "data_offsets": offsets}
    text = DEEP.encode() if variant == "deep" else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _cast_tensors(pattern, dtype, home, outside_folder):
    path = _find_first(home, pattern)
    state_dict = load_file(path)
    for key, value in state_dict.items():
        cast = value[None] if dtype == "rank" else value.to(getattr(torch, dtype))
        state_dict[key] = cast.contiguous()
    save_file(state_dict, path, metadata={"format": "pt"})


# links, pictures, tables


def _links():
    targets = {
        "itself": None,
        "zero": "/dev/zero",
        "random": "/dev/urandom",
        "root": "/",
        "memory": "/proc/self/mem",
        "pipe": "pipe",
    }
    readers = {
        TRAIN: "align",
        "own.yaml": "recipe",
        "weights/encoder/model.safetensors": "encoder",
        "weights/encoder/config.json": "encoder",
        "pictures/concept_0/0.png": "pictures",
        "vectors/dict.npz": "import-dict-npz",
        "vectors/npy/file_names.txt": "import-thingsvision-npy",
        "runs/aligned/metrics.json": "eval",
        "data/mindeyev2/**/*.tar": "prepare-mindeye2",
        "scored/concept_0/0.png": "score",
        "data/nsd-hdf5/**/nsd_expdesign.mat": "prepare-nsd-hdf5",
        "runs/aligned/recipe.yaml": "eval",
    }
    for (pattern, reader), (name, target) in product(readers.items(), targets.items()):
        yield _make_case(
            "link", f"{pattern} {name}", reader, _replace_by_link, pattern, target
        )
    report = ("report", "runs/drawn")
    command_lines = {
        "runs/drawn/**/*.png": report,
        "runs/drawn/recipe.yaml": report,
        "runs/drawn/.claim": ("runs", "rm", "drawn", "--yes"),
    }
    targets["private"] = "private"
    for (name, target), (pattern, argv) in product(
        targets.items(), command_lines.items()
    ):
        yield Case(
            "hostile",
            f"link {pattern} {name} {argv[0]}",
            argv + CPU_KEYS,
            partial(_replace_by_link, pattern, target),
        )
    for folder, reader in (("pictures", "pictures"), ("embeddings", "check")):
        link = f"{folder}/loop"
        yield _make_case("link", f"{link} loop", reader, _replace_by_link, link, "..")


def _replace_by_link(pattern, target, home, outside_folder):
    path = _find_first(home, pattern) if "*" in pattern else home / pattern
    path.unlink(missing_ok=True)
    if target == "private":
        target = str(outside_folder / "private")
        shutil.copy(home / "pictures/concept_0/0.png", target)
    os.mkfifo(path) if target == "pipe" else path.symlink_to(target or path)


def _pictures_and_tables():
    def bomb(home, outside_folder):
        Image.new("1", (40_000, 40_000)).save(home / "pictures/concept_0/0.png")

    def frames(home, outside_folder):
        images = [Image.new("P", (4, 4), n % 250) for n in range(3000)]
        path = home / "pictures/concept_0/0.gif"
        images[0].save(path, save_all=True, append_images=images[1:])

    def tiff(home, outside_folder):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "tiff")
        (home / "pictures/concept_0/9.tif").write_bytes(
            file.getvalue().replace(b"\x08\x00", b"\xff\xff", 6)
        )

    def names(home, outside_folder):
        for name in (
            "a\nb.png",
            "a\x1b[31m.png",
            "-rf.png",
            "\udcff.png",
            "x" * 250 + ".png",
        ):
            shutil.copy(
                home / "pictures/concept_0/1.png", home / "pictures/concept_0" / name
            )

    def script(home, outside_folder):
        text = (
            "%!PS-Adobe-3.0 EPSF-3.0\n"
            "%%BoundingBox: 0 0 9 9\n"
            f"({outside_folder}/pwned) (w) file closefile\n"
        )
        (home / "pictures/concept_0/0.png").write_text(text)

    def lasting(home, outside_folder):
        images = [Image.new("RGB", (4000, 4000), (n, 0, 0)) for n in range(4)]
        images[0].save(
            home / "pictures/concept_0/0.png",
            save_all=True,
            append_images=images[1:],
            duration=[1, 65_000, 1, 1],
        )

    for make in (bomb, frames, lasting, tiff, names, script):
        yield _make_case("picture", make.__name__, "pictures", make)
        yield _make_case("picture", make.__name__, "score", _copy_to_scored, make)
    rows = {
        "negative": "1,-5,True",
        "huge": "1,99999999999999999999,True",
        "nul": "1,\0,True",
        "quote": '1,"2,True',
        "long": "1," + "9" * 200_000 + ",True",
        "many": "1,2,True\n" * 10,
        "words": "a,b,c",
    }
    for name, row in rows.items():
        text = f"cocoId,nsdId,shared1000\n{row}\n"
        yield _make_case(
            "table", name, "nsd", _write_file, "data/nsd/nsd_stim_info_merged.csv", text
        )
    for kind in ("strings", "ragged", "nested", "nulls", "huge", "structs"):
        yield _make_case(
            "parquet",
            kind,
            "import-parquet",
            _write_vectors_table,
            kind,
            must_fail=True,
        )
    for kind in ("path", "label", "null", "text"):
        yield _make_case("parquet", kind, "parquet", _write_picture_rows, kind)


def _copy_to_scored(make, home, outside_folder):
    make(home, outside_folder)
    shutil.copytree(home / "pictures", home / "scored", dirs_exist_ok=True)


def _write_vectors_table(kind, home, outside_folder):
    table = pyarrow.parquet.read_table(home / "vectors/table.parquet")
    count = len(table)
    values = {
        "strings": ["x"] * count,
        "ragged": [[1.0] * (n + 1) for n in range(count)],
        "nested": [[[[[1.0]]]]] * count,
        "nulls": [None] * count,
        "huge": [[1.0]] * (count * 100_000),
        "structs": [{"a": 1.0}] * count,
    }[kind]
    paths = table["path"].to_pylist() * (len(values) // count)
    columns = {"path": paths, "emb": values}
    pyarrow.parquet.write_table(pyarrow.table(columns), home / "vectors/table.parquet")


def _write_picture_rows(kind, home, outside_folder):
    path = home / "data/parquet/train-00000-of-00001.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    changes = {
        "path": {"image": {**rows[0]["image"], "path": "../../../x.jpg"}},
        "label": {"label": 2**40},
        "null": {"image": {"bytes": None, "path": None}},
        "text": {"image": {"bytes": b"%!PS", "path": "a\n\x1b[31mb.jpg"}},
    }[kind]
    rows[0] |= changes
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
