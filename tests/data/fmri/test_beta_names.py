"""Betas whose files, headers and labels name their pictures, and betas in runs."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.fmri.beta_names import order_betas, read_labels

PATH = Path("betas.nii.gz")
PICTURES = ["cat/c_2.png", "dog/d_1.png", "cat/c_10.png"]
LINES = [{"picture": name, "run": "1"} for name in PICTURES]


def order(labels, lines=LINES):
    rows, unnamed = order_betas(labels, lines, "picture", PATH)
    assert not unnamed
    return rows.tolist()


@pytest.mark.parametrize(
    "form",
    [
        "sub-01_trial-{}_betas.nii.gz",
        "sub-01/{}/beta.nii",
        "beta_0001.nii\nspm_spm:beta (0001) - Sn(1) {}*bf(1)",
        "betas.nii\n{}#0_Coef",
    ],
)
@pytest.mark.parametrize("separator", ["_", "", "-"])
def test_names_of_pictures_decide_the_order(form, separator):
    names = ["c_10", "c_2", "d_1"]
    labels = [form.format(name.replace("_", separator)) for name in names]
    assert order(labels) == [1, 2, 0]


def test_numbers_of_pictures_need_a_word_before_them():
    lines = [{"picture": f"{number:03d}.jpg"} for number in (3, 1, 2)]
    trials = [f"trial-{number}_beta.nii" for number in (1, 2, 3)]
    pictures = [f"image-{number}_beta.nii" for number in (1, 2, 3)]
    assert order(trials, lines) == [0, 1, 2]
    assert order(pictures, lines) == [2, 0, 1]


def test_repeated_pictures_are_in_the_order_of_the_lines():
    lines = [{"picture": name} for name in ("b1.png", "a1.png", "b1.png")]
    assert order(["a1_1.nii", "b1_1.nii", "b1_2.nii"], lines) == [1, 0, 2]


@pytest.mark.parametrize(
    "labels",
    [["run-2_betas.nii"] * 2 + ["run-10_betas.nii"], ["con-b"] * 2 + ["con-a"]],
)
def test_other_columns_choose_the_file_of_a_line(labels):
    runs, conditions = ["10", "2", "2"], ["a", "b", "b"]
    lines = [
        {"picture": name, "run": finished_run, "con": condition}
        for name, finished_run, condition in zip(
            PICTURES, runs, conditions, strict=True
        )
    ]
    assert order(labels, lines) == [2, 0, 1]


@pytest.mark.parametrize(
    "labels",
    [
        ["c_2.nii", "d_1.nii", "d_1.nii"],  # other pictures
        ["beta_1.nii", "beta_2.nii"],  # too few
        ["beta_1.nii", "beta_2.nii", "con_1.nii"],  # no order
        ["reg/cope1.nii", "cope1.nii", "cope2.nii"],
    ],
)
def test_names_that_contradict_the_table_are_refused(labels):
    with pytest.raises(BrainhiveError):
        order(labels)


def test_regressors_and_unknown_names_are_no_trials():
    labels = ["b1.nii\nSn(1) c_2*bf(1)", "b2.nii\nSn(1) d_1*bf(1)"]
    labels += ["b3.nii\nSn(1) c_10*bf(1)", "b4.nii\nSn(1) R1", "b5.nii\nSn(1) constant"]
    assert order(labels) == [0, 1, 2]
    rows, unnamed = order_betas(list(labels) + ["b6.nii\nfish"], LINES, "picture", PATH)
    assert rows.tolist() == [0, 1, 2]
    assert unnamed == ["b6.nii\nfish"]


def save(path, shape, labels=""):
    image = nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4))
    image.header["descrip"] = b"Sn(1) face"
    if labels:
        content = f'<AFNI_atr atr_name="BRICK_LABS" >\n "{labels}"</AFNI_atr>'.encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(4, content))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def test_labels_are_read_from_headers_and_designs(tmp_path):
    save(tmp_path / "spm.nii", (2, 2, 2))
    assert read_labels(tmp_path / "spm.nii", tmp_path, "") == ["spm.nii\nSn(1) face"]
    save(tmp_path / "afni.nii", (2, 2, 2, 1, 2), "a#0_Coef~a#0_Tstat~")
    labels = read_labels(tmp_path / "afni.nii", tmp_path, "")
    assert [label[-6:] for label in labels] == ["0_Coef", "_Tstat"]
    save(tmp_path / "run-1.feat/stats/cope2.nii.gz", (2, 2, 2))
    design = "/ContrastName1\tface\n/ContrastName2\thouse\n"
    (tmp_path / "run-1.feat/design.con").write_text(design)
    (label,) = read_labels(
        tmp_path / "run-1.feat/stats/cope2.nii.gz", tmp_path, "copy it"
    )
    assert label.startswith("run-1.feat/stats/")
    assert "house" in label
    assert "/ContrastName1" not in label
