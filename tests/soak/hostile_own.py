"""Hostile files of a lab's own fMRI and EEG, and hostile documents of runs."""

import gzip
import json
import os
import random
import shutil
from dataclasses import replace
from itertools import product
from struct import pack

import numpy as np

from tests.soak import damage, hostile

DERIVED = "data/own-bold/derivatives/fmriprep/sub-01/func/sub-01_task-images_run-1"
SERIES = f"{DERIVED}_space-T1w_desc-preproc_bold"
MASK = f"{DERIVED}_space-T1w_desc-brain_mask.nii.gz"
SURFACE = f"{DERIVED}_hemi-L_space-fsaverage5_bold.func.gii"
EVENTS = "data/own-bold/sub-01/func/sub-01_task-images_run-1_events.tsv"
FIF = "data/own-eeg/sub-01_ses-01_eeg.fif"
EDF = "data/own-eeg/sub-01_ses-03_eeg.edf"
VHDR = "data/own-eeg/sub-01_ses-04_eeg.vhdr"
TABLES = {
    EVENTS: "own-bids",
    f"{DERIVED}_desc-confounds_timeseries.tsv": "own-bids",
    "data/own-betas/sub-01_ses-01_trials.csv": "own-trials",
    "data/own-betas/sub-01_atlas.tsv": "own-trials",
}
CELL_TEXTS = (
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
JSON_VALUES = [
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
DIMENSIONS = (
    (4, 32767, 32767, 32767, 32767),
    (4, -3, 4, 5, 60),
    (4, 0, 4, 5, 60),
    (8, 3),
    (0,),
    (1, 3),
    (3, 3, 4, 5),
    (5, 3, 4, 5, 6, 10),
)
NIFTI_EDITS = {
    **{
        f"type-{code}": (70, pack("<h", code))
        for code in (0, 32, 128, 1536, 1792, 2304, 9999)
    },
    **{f"dim-{dim}": (40, pack(f"<{len(dim)}h", *dim)) for dim in DIMENSIONS},
    **{
        f"float-{offset}-{value}": (offset, pack("<f", value))
        for offset, value in product((92, 108, 112, 280), FLOATS)
    },
    "magic": (344, b"n+9\0"),
    "extension": (348, b"\1\0\0\0" + pack("<ii", 2**31 - 16, 4)),
    "size": (0, b"\0\0\1\x5c"),
    "nan": (352, b"\0\0\xc0\x7f" * 3600),
    "bomb": (352, bytes(2**28)),
}
"""Offset and new bytes of each change of a NIfTI file: data type (70), dimensions (40),
zooms (92), data offset (108), scale (112) and affine (280).
"""
ENTITIES = "".join(
    f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 99}">' for n in range(9)
)
GIFTI_EDITS = {
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
    "cut": ("</GIFTI>", ""),
    "nul": ("<DataArray", "\0<DataArray"),
    "no-arrays": ("<DataArray", "<!--<DataArray"),
}
"""Old and new text of each change of a GIFTI file."""
FIF_EDITS = {
    "flat": "[channel['loc'].fill(0.1) for channel in raw.info['chs']]",
    "nan-place": "[channel['loc'].fill(float('nan')) for channel in raw.info['chs']]",
    "bad": "raw.info['bads'].extend(raw.ch_names[:4])",
    "all-bad": "raw.info['bads'].extend(raw.ch_names)",
    "all-nan": "raw._data.fill(float('nan'))",
    "all-1e30": "raw._data.fill(float('1e30'))",
    "all-0": "raw._data.fill(float('0'))",
    "short": "raw.crop(0, 2)",
    "before": "raw.annotations.append(-5.0, 0.0, 'concept_0/0.png')",
    "names": "raw.rename_channels({'Cz': 'a\\x1b[31m\\n', 'Pz': '\\u202e'})",
    "marks": "raw.annotations.append(2.0, 1e9, 'a\\x1b[31m\\nb\\u202e' * 50)",
}
"""Expressions that change `raw`, a recording of mne."""
HEADER_LINES = (
    "DataFile=/etc/passwd DataFile=../../../x.eeg MarkerFile=/dev/zero MarkerFile=. "
    "NumberOfChannels=999999999 NumberOfChannels=-1 SamplingInterval=0 "
    "SamplingInterval=-1 SamplingInterval=nan BinaryFormat=UINT_8 "
    f"Codepage=x DataOrientation=VECTORIZED SamplingInterval={'9' * 400} "
    "Ch1=\x1b[31m,,0,nan Ch1=Pz,,inf,µV "
    "Mk2=Stimulus,a\x1b,-5,1,0 Mk2=Stimulus,a,nan,1,0 Mk2=Stimulus,a,1,x,y "
    f"Mk2=Stimulus,a,5,{'9' * 400}"
)
LINK_TARGETS = {
    "itself": None,
    "zero": "/dev/zero",
    "memory": "/proc/self/mem",
    "pipe": "pipe",
    "folder": "..",
}
FOLDER_LINKS = {"loop": "..", "sub-02": "/proc/self", "proc": "/proc"}
ARTIFACT_NAMES = (
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


def cases(seed, count, world, surface):
    """Yield hostile and damaged files of a surface in turn, until there are `count`."""
    damaged_cases, n_cases = damage.cases(seed, count, world, surface), 0
    while n_cases < count:
        rng = random.Random(f"{seed}/{n_cases}")
        is_own = surface == "own"
        hostile_cases = list(_recording_cases() if is_own else _page_cases(rng))
        rng.shuffle(hostile_cases)
        for case in hostile_cases[: (count - n_cases + 1) // 2]:
            yield replace(case, group=surface)
            yield next(damaged_cases)
            n_cases += 2


def _recording_cases():
    betas = [
        f"data/own-betas/sub-01_{name}.nii.gz"
        for name in ("ses-01_betas", "mask", "atlas")
    ]
    volumes = [f"{SERIES}.nii.gz", MASK] + betas
    for file_name, name in product(volumes, NIFTI_EDITS):
        yield hostile._make_case(
            "nifti",
            f"{name} {file_name}",
            "own-bold" if file_name not in betas else "own-betas",
            _edit_nifti,
            file_name,
            name,
        )
    for name in GIFTI_EDITS:
        yield hostile._make_case("gifti", name, "own-surface", _edit_gifti, name)
    for key, value in product(
        ("StartTime", "RepetitionTime", "SliceTimingCorrected"), JSON_VALUES
    ):
        yield hostile._make_case(
            "sidecar",
            f"{key} {value!r:.20}",
            "own-bids",
            hostile._set_keys,
            f"{SERIES}.json",
            {key: value},
        )
    for (file_name, reader), column, cell in product(
        TABLES.items(), range(3), CELL_TEXTS
    ):
        yield hostile._make_case(
            "table",
            f"{file_name} {column} {cell!r:.20}",
            reader,
            _replace_cell,
            file_name,
            column,
            cell,
        )
    for line in HEADER_LINES.split(" "):
        yield hostile._make_case(
            "brainvision", f"{line!r:.40}", "own-eeg", _replace_line, line
        )
    for offset, text in product(
        (236, 244, 252, 168, 256 + 16 * 5 + 80 * 5),
        ("-1", "0", "9999", "x", "nan", "1e9"),
    ):
        content = text.encode().ljust(4)
        yield hostile._make_case(
            "edf", f"{offset} {text}", "own-eeg", _edit_edf, offset, content
        )
    for name in FIF_EDITS:
        yield hostile._make_case("fif", name, "own-eeg", _edit_fif, name)
    for kind in ("complex64", "S3", "O", "float64", "bool", "M8[s]"):
        yield hostile._make_case("npz", kind, "own-betas", _cast_npz, kind)
    readers = {
        f"{SERIES}.nii.gz": "own-bold",
        SURFACE: "own-surface",
        f"{SERIES}.json": "own-bids",
        VHDR: "own-eeg",
        betas[1]: "own-betas",
        EDF: "own-eeg",
        EVENTS: "own-bids",
    }
    for (file_name, reader), (name, target) in product(
        readers.items(), LINK_TARGETS.items()
    ):
        yield hostile._make_case(
            "link",
            f"{file_name} {name}",
            reader,
            hostile._replace_by_link,
            file_name,
            target,
        )
    kinds = {"bold": "own-bold", "betas": "own-betas", "recording": "own-eeg"}
    for (kind, reader), (name, target) in product(kinds.items(), FOLDER_LINKS.items()):
        yield hostile._make_case(
            "tree",
            f"{kind} {name}",
            reader,
            hostile._replace_by_link,
            f"data/{reader}/{name}",
            target,
        )
        yield hostile._make_case(
            "tree",
            f"{kind} dot-files",
            reader,
            _add_dot_files,
            reader,
            is_compared=True,
        )
        yield hostile._make_command_case(
            f"root {kind} {target}",
            ("prepare", "--from", kind, f"preparation.root={target}"),
            must_fail=True,
        )


def _edit_nifti(file_name, name, home, outside_folder):
    offset, new_bytes = NIFTI_EDITS[name]
    content = bytearray(gzip.decompress((home / file_name).read_bytes()))
    content[offset : offset + len(new_bytes)] = new_bytes
    (home / file_name).write_bytes(gzip.compress(content, 1))


def _edit_gifti(name, home, outside_folder):
    path = home / SURFACE
    os.mkfifo(path.parent / "pipe")
    text = path.read_text().replace(*GIFTI_EDITS[name], 1)
    if name in ("external", "pipe"):
        text = text.replace("GZipBase64Binary", "ExternalFileBinary", 1)
    if "ENTITY" in text:
        text = text.replace("<Data>", "<Data>&e8;", 1)
    path.write_text(text)


def _replace_cell(file_name, column, cell, home, outside_folder):
    """Replace a cell of the third line of a table."""
    lines = (home / file_name).read_text().split("\n")
    separator = "\t" if file_name.endswith("tsv") else ","
    cells = lines[2].split(separator)
    cells[column : column + 1] = [cell]
    lines[2] = separator.join(cells)
    (home / file_name).write_text("\n".join(lines))


def _replace_line(line, home, outside_folder):
    """Replace the line with the same key in a header or a list of markers."""
    is_marker = line.startswith("Mk")
    path = home / (VHDR.replace("vhdr", "vmrk") if is_marker else VHDR)
    key = line.partition("=")[0]
    lines = path.read_text().split("\n")
    for number, old_line in enumerate(lines):
        if old_line.startswith(f"{key}="):
            lines[number] = line
    path.write_text("\n".join(lines))


def _edit_edf(start, content, home, outside_folder):
    with (home / EDF).open("r+b") as file:
        file.seek(start)
        file.write(content)


def _edit_fif(name, home, outside_folder):
    import mne

    raw = mne.io.read_raw_fif(home / FIF, preload=True, verbose="ERROR")
    eval(FIF_EDITS[name], {"raw": raw})
    raw.save(home / FIF, overwrite=True, verbose="ERROR")


def _cast_npz(kind, home, outside_folder):
    path = home / "data/own-betas/sub-01_ses-02_betas.npz"
    np.savez(path, betas=np.load(path)["betas"].astype(kind))


def _add_dot_files(folder, home, outside_folder):
    """Put a macOS `._` file and a hidden copy next to each file."""
    for path in list((home / "data" / folder).rglob("*")):
        if not path.is_file():
            continue
        (path.parent / f"._{path.name}").write_bytes(
            b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(100)
        )
        shutil.copy(path, path.parent / f".{path.name}")


def _page_cases(rng):
    documents = product(
        ("explained", "drawn", "aligned"),
        ("metrics", "artifacts"),
        JSON_VALUES,
        range(2),
    )
    command_readers = {"aligned": "eval", "drawn": "draw-against"}
    for run_name, name, value, turn in documents:
        reader = command_readers.get(run_name, "report") if turn else "report"
        seed = rng.randrange(2**30)
        yield hostile._make_case(
            "json",
            f"{run_name} {name} {value!r:.20} {seed}",
            reader,
            _replace_value,
            f"runs/{run_name}/{name}.json",
            value,
            seed,
        )
    for name in ARTIFACT_NAMES:
        yield hostile._make_case(
            "media", f"{name!r:.20}", "report", _name_artifact, name
        )


def _replace_value(file_name, value, seed, home, outside_folder):
    """Replace a value of a document, at any depth, and delete its digests."""
    path, rng = home / file_name, random.Random(seed)
    (path.parent / "SHA256SUMS").unlink()
    document = node = json.loads(path.read_text())
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        child = node[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.2:
            break
        node = child
    node[key] = value
    path.write_text(json.dumps(document))


def _name_artifact(name, home, outside_folder):
    """Add a file name to the artifacts of a run, as a picture to show."""
    folder = home / "runs/drawn"
    (folder / "SHA256SUMS").unlink()
    picture = (home / "pictures/concept_0/0.png").read_bytes()
    (outside_folder / "private").write_bytes(picture + b"secret" * 9)
    (folder / "private").symlink_to(outside_folder / "private")
    os.mkfifo(folder / "pipe")
    document = json.loads((folder / "artifacts.json").read_text())
    document["artifacts"].append({"kind": "media", "title": "shown", "file": name})
    (folder / "artifacts.json").write_text(json.dumps(document))
