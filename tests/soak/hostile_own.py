"""Hostile files of a lab's own fMRI and EEG, and hostile documents of runs that pages
show.
"""

import gzip
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np

from tests.soak import damage, hostile
from tests.soak.runner import Case

DERIVED = "data/own-bold/derivatives/fmriprep/sub-01/func/sub-01_task-images_run-1"
SERIES, MASK = (
    f"{DERIVED}_space-T1w_desc-preproc_bold",
    f"{DERIVED}_space-T1w_desc-brain_mask.nii.gz",
)
SURFACE = f"{DERIVED}_hemi-L_space-fsaverage5_bold.func.gii"
EVENTS = "data/own-bold/sub-01/func/sub-01_task-images_run-1_events.tsv"
FIF, EDF, VHDR = (
    f"data/own-eeg/sub-01_ses-0{n}_eeg.{end}"
    for n, end in ((1, "fif"), (3, "edf"), (4, "vhdr"))
)
TABLES = {
    EVENTS: "own-bids",
    f"{DERIVED}_desc-confounds_timeseries.tsv": "own-bids",
    "data/own-betas/sub-01_ses-01_trials.csv": "own-trials",
    "data/own-betas/sub-01_atlas.tsv": "own-trials",
}
CELLS = (
    "nan",
    "inf",
    "-1",
    "1e308",
    "9" * 400,
    "",
    " ",
    "x",
    "\0",
    "../../x",
    "a\x1b[31mb",
    "\u202e",
    "n/a",
)
VALUES: list[Any] = [
    None,
    "2.0",
    [],
    {},
    -2,
    0,
    1e308,
    "x" * 10_000,
    10**400,
    [[1]],
    "\u202ea\nb",
    "../x",
]
FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1e30)
DIMS = (
    (4, *[32767] * 4),
    (4, -3, 4, 5, 60),
    (4, 0, 4, 5, 60),
    (8, 3),
    (0,),
    (1, 3),
    (3, 3, 4, 5),
    (5, 3, 4, 5, 6, 10),
)
NIFTI = {
    **{
        f"type-{code}": (70, pack("<h", code))
        for code in (0, 32, 128, 1536, 1792, 2304, 9999)
    },
    **{f"dim-{dim}": (40, pack(f"<{len(dim)}h", *dim)) for dim in DIMS},
    **{
        f"float-{at}-{value}": (at, pack("<f", value))
        for at in (92, 108, 112, 280)
        for value in FLOATS
    },
    **{
        "magic": (344, b"n+9\0"),
        "extension": (348, b"\1\0\0\0" + pack("<ii", 2**31 - 16, 4)),
    },
    **{
        "size": (0, b"\0\0\1\x5c"),
        "nan": (352, b"\0\0\xc0\x7f" * 3600),
        "bomb": (352, bytes(2**28)),
    },
}
"""By name, other bytes of a NIfTI file and where: data type, dimensions, zooms, offset,
scale and affine.
"""
ENTITIES = "".join(
    f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 99}">' for n in range(9)
)
GIFTI = {
    "external": ('ExternalFileName=""', 'ExternalFileName="/etc/passwd"'),
    "pipe": ('ExternalFileName=""', 'ExternalFileName="pipe"'),
    **{
        f"count-{n}": ('NumberOfDataArrays="60"', f'NumberOfDataArrays="{n}"')
        for n in ("1000000000", "x", "-1")
    },
    **{
        f"dim-{n}": ('Dim0="12"', f'Dim0="{n}"')
        for n in ("999999999999", "-12", "9" * 400, "x", "13")
    },
    "dims": ('Dimensionality="1"', 'Dimensionality="1000000000"'),
    **{
        f"type-{name}": ("NIFTI_TYPE_FLOAT32", name)
        for name in ("NIFTI_TYPE_COMPLEX64", "x", "NIFTI_TYPE_RGB24")
    },
    **{
        f"encoding-{name}": ("GZipBase64Binary", name)
        for name in ("ExternalFileBinary", "ASCII", "x")
    },
    "intent": ("NIFTI_INTENT_", "x"),
    "entities": ("<GIFTI", f"<!DOCTYPE GIFTI [{ENTITIES}]><GIFTI"),
    "file": (
        "<GIFTI",
        '<!DOCTYPE GIFTI [<!ENTITY e8 SYSTEM "file:///etc/passwd">]><GIFTI',
    ),
    "deep": ("<DataArray", "<a>" * 50_000 + "<DataArray"),
    **{
        "cut": ("</GIFTI>", ""),
        "nul": ("<DataArray", "\0<DataArray"),
        "no-arrays": ("<DataArray", "<!--<DataArray"),
    },
}
"""By name, the text of a GIFTI file that another text replaces."""
FIFS = {
    "flat": "[channel['loc'].fill(0.1) for channel in raw.info['chs']]",
    "nan-place": "[channel['loc'].fill(float('nan')) for channel in raw.info['chs']]",
    **{
        "bad": "raw.info['bads'].extend(raw.ch_names[:4])",
        "all-bad": "raw.info['bads'].extend(raw.ch_names)",
    },
    **{
        f"all-{value}": f"raw._data.fill(float('{value}'))"
        for value in ("nan", "1e30", "0")
    },
    **{
        "short": "raw.crop(0, 2)",
        "before": "raw.annotations.append(-5.0, 0.0, 'concept_0/0.png')",
    },
    "names": "raw.rename_channels({'Cz': 'a\\x1b[31m\\n', 'Pz': '\\u202e'})",
    "marks": "raw.annotations.append(2.0, 1e9, 'a\\x1b[31m\\nb\\u202e' * 50)",
}
"""By name, what changes a recording of mne."""
HEADER = (
    "DataFile=/etc/passwd DataFile=../../../x.eeg MarkerFile=/dev/zero MarkerFile=. "
)
HEADER += (
    "NumberOfChannels=999999999 NumberOfChannels=-1 SamplingInterval=0 "
    "SamplingInterval=-1 SamplingInterval=nan BinaryFormat=UINT_8 "
)
HEADER += (
    f"Codepage=x DataOrientation=VECTORIZED SamplingInterval={'9' * 400} "
    "Ch1=\x1b[31m,,0,nan Ch1=Pz,,inf,µV "
)
HEADER += (
    "Mk2=Stimulus,a\x1b,-5,1,0 Mk2=Stimulus,a,nan,1,0 Mk2=Stimulus,a,1,x,y "
    "Mk2=Stimulus,a,5,"
) + "9" * 400
LINKS = {
    "itself": None,
    "zero": "/dev/zero",
    "memory": "/proc/self/mem",
    "pipe": "pipe",
    "folder": "..",
}
TREES = {"loop": "..", "sub-02": "/proc/self", "proc": "/proc"}
SHOWN = (
    "/etc/passwd",
    "../../../../outside/private",
    "private",
    "pipe",
    "",
    "x" * 300,
    "a\0b",
    "\n",
    "//host/x",
)


def cases(seed: int, count: int, world: Path, surface: str) -> Iterator[Case]:
    """Make damaged and hostile files of a surface in turn; again, with other details,
    until enough.
    """
    damaged, made = damage.cases(seed, count, world, surface), 0
    while made < count:
        chosen = random.Random(f"{seed}/{made}")
        hostile_cases = [*(_own() if surface == "own" else _pages(chosen))]
        chosen.shuffle(hostile_cases)
        for case in hostile_cases[: (count - made + 1) // 2]:
            yield from (replace(case, group=surface), next(damaged))
            made += 2


def _own() -> Iterator[Case]:
    betas = [
        f"data/own-betas/sub-01_{name}.nii.gz"
        for name in ("ses-01_betas", "mask", "atlas")
    ]
    for place, name in product((f"{SERIES}.nii.gz", MASK, *betas), NIFTI):
        yield hostile._case(
            "nifti",
            f"{name} {place}",
            "own-bold" if place not in betas else "own-betas",
            _nifti,
            place,
            name,
        )
    for name in GIFTI:
        yield hostile._case("gifti", name, "own-surface", _gifti, name)
    for key, value in product(
        ("StartTime", "RepetitionTime", "SliceTimingCorrected"), VALUES
    ):
        yield hostile._case(
            "sidecar",
            f"{key} {value!r:.20}",
            "own-bids",
            hostile._keys,
            f"{SERIES}.json",
            {key: value},
        )
    for (place, reader), column, cell in product(TABLES.items(), range(3), CELLS):
        yield hostile._case(
            "table",
            f"{place} {column} {cell!r:.20}",
            reader,
            _cell,
            place,
            column,
            cell,
        )
    for line in HEADER.split(" "):
        yield hostile._case("brainvision", f"{line!r:.40}", "own-eeg", _line, line)
    for at, text in product(
        (236, 244, 252, 168, 256 + 16 * 5 + 80 * 5),
        ("-1", "0", "9999", "x", "nan", "1e9"),
    ):
        yield hostile._case(
            "edf", f"{at} {text}", "own-eeg", _bytes, at, text.encode().ljust(4)
        )
    for name in FIFS:
        yield hostile._case("fif", name, "own-eeg", _fif, name)
    for kind in ("complex64", "S3", "O", "float64", "bool", "M8[s]"):
        yield hostile._case("npz", kind, "own-betas", _npz, kind)
    linked = {
        f"{SERIES}.nii.gz": "own-bold",
        SURFACE: "own-surface",
        f"{SERIES}.json": "own-bids",
        VHDR: "own-eeg",
    }
    linked |= {betas[1]: "own-betas", EDF: "own-eeg", EVENTS: "own-bids"}
    for (place, reader), (name, target) in product(linked.items(), LINKS.items()):
        yield hostile._case(
            "link", f"{place} {name}", reader, hostile._link, place, target
        )
    for (kind, reader), (name, target) in product(
        {"bold": "own-bold", "betas": "own-betas", "recording": "own-eeg"}.items(),
        TREES.items(),
    ):
        yield hostile._case(
            "tree",
            f"{kind} {name}",
            reader,
            hostile._link,
            f"data/{reader}/{name}",
            target,
        )
        yield hostile._case(
            "tree", f"{kind} dot-files", reader, _dot_files, reader, is_compared=True
        )
        yield hostile._command(
            f"root {kind} {target}",
            "prepare",
            "--from",
            kind,
            f"preparation.root={target}",
            must_fail=True,
        )


def _nifti(place: str, name: str, home: Path, outside: Path) -> None:
    at, changed = NIFTI[name]
    content = bytearray(gzip.decompress((home / place).read_bytes()))
    content[at : at + len(changed)] = changed
    (home / place).write_bytes(gzip.compress(content, 1))


def _gifti(name: str, home: Path, outside: Path) -> None:
    path = home / SURFACE
    os.mkfifo(path.parent / "pipe")
    text = path.read_text().replace(*GIFTI[name], 1)
    if name in ("external", "pipe"):
        text = text.replace("GZipBase64Binary", "ExternalFileBinary", 1)
    path.write_text(
        text.replace("<Data>", "<Data>&e8;", 1) if "ENTITY" in text else text
    )


def _cell(place: str, column: int, cell: str, home: Path, outside: Path) -> None:
    """Replace a cell of the third line of a table."""
    lines, separator = (
        (home / place).read_text().split("\n"),
        "\t" if place.endswith("tsv") else ",",
    )
    cells = lines[2].split(separator)
    lines[2] = separator.join([*cells[:column], cell, *cells[column + 1 :]])
    (home / place).write_text("\n".join(lines))


def _line(line: str, home: Path, outside: Path) -> None:
    """Replace the line of a header or list of markers that begins as this one does."""
    path, key = (
        home / (VHDR.replace("vhdr", "vmrk") if line.startswith("Mk") else VHDR),
        line.partition("=")[0],
    )
    lines = path.read_text().split("\n")
    path.write_text(
        "\n".join(line if old.startswith(f"{key}=") else old for old in lines)
    )


def _bytes(start: int, content: bytes, home: Path, outside: Path) -> None:
    with (home / EDF).open("r+b") as file:
        file.seek(start)
        file.write(content)


def _fif(name: str, home: Path, outside: Path) -> None:
    import mne

    raw = mne.io.read_raw_fif(home / FIF, preload=True, verbose="ERROR")
    eval(FIFS[name], {"raw": raw})
    raw.save(home / FIF, overwrite=True, verbose="ERROR")


def _npz(kind: str, home: Path, outside: Path) -> None:
    path = home / "data/own-betas/sub-01_ses-02_betas.npz"
    np.savez(path, betas=np.load(path)["betas"].astype(kind))


def _dot_files(folder: str, home: Path, outside: Path) -> None:
    """Put files next to all that macOS leaves on drives of others."""
    for path in [
        path for path in (home / "data" / folder).rglob("*") if path.is_file()
    ]:
        (path.parent / f"._{path.name}").write_bytes(
            b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(100)
        )
        shutil.copy(path, path.parent / f".{path.name}")


def _pages(chosen: random.Random) -> Iterator[Case]:
    documents = product(
        ("explained", "drawn", "aligned"), ("metrics", "artifacts"), VALUES, range(2)
    )
    for run, name, value, turn in documents:
        reader = (
            {"aligned": "eval", "drawn": "draw-against"}.get(run, "report")
            if turn
            else "report"
        )
        changes = (f"runs/{run}/{name}.json", value, chosen.randrange(2**30))
        yield hostile._case(
            "json", f"{run} {name} {value!r:.20} {changes[2]}", reader, _edit, *changes
        )
    for shown in SHOWN:
        yield hostile._case("media", f"{shown!r:.20}", "report", _show, shown)


def _edit(place: str, value: Any, seed: int, home: Path, outside: Path) -> None:
    """Replace a value of a document, at any depth, that no digest covers then."""
    path, chosen = home / place, random.Random(seed)
    (path.parent / "SHA256SUMS").unlink()
    document = inner = json.loads(path.read_text())
    while True:
        key = chosen.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
        if (
            not isinstance(inner[key], dict | list)
            or not inner[key]
            or chosen.random() < 0.2
        ):
            break
        inner = inner[key]
    inner[key] = value
    path.write_text(json.dumps(document))


def _show(name: str, home: Path, outside: Path) -> None:
    """Let the artifacts of a run show another file."""
    run = home / "runs/drawn"
    (run / "SHA256SUMS").unlink()
    picture = (home / "pictures/concept_0/0.png").read_bytes()
    (outside / "private").write_bytes(picture + b"secret" * 9)
    (run / "private").symlink_to(outside / "private")
    os.mkfifo(run / "pipe")
    document = json.loads((run / "artifacts.json").read_text())
    document["artifacts"].append({"kind": "media", "title": "shown", "file": name})
    (run / "artifacts.json").write_text(json.dumps(document))
