"""Where each data set is, on whose terms, and what people have to do themselves."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a data set is.

    Attributes:
        repository: Of the hub; empty where the hub does not have it.
        terms: Where its licence, or agreement, stands.
        steps: What people do themselves, in order; `{root}` is the folder of the data set.
        others: Where else it is, or more of it.
        tops: How files at the top of an archive of the first folder begin, if they belong into a folder of
            the archive's name.
    """

    repository: str = ""
    terms: str = ""
    steps: tuple[str, ...] = ()
    others: str = ""
    tops: tuple[str, ...] = ()


THINGS = ("sub-", "training_images/", "train_images/", "test_images/")
S3 = "aws s3 cp --no-sign-request s3://natural-scenes-dataset"
SOURCES: Mapping[str, Source] = {
    "things-eeg": Source(
        "Haitao999/things-eeg",
        "https://osf.io/3jk45 (recordings), https://osf.io/jum2f (pictures of THINGS)",
        others="raw recordings, for `brainhive prepare`: raw_eeg of https://osf.io/3jk45 and "
        "image_metadata.npy of https://osf.io/y63gw",
        tops=THINGS,
    ),
    "things-meg": Source(
        "Haitao999/things-eeg-meg",
        "https://openneuro.org/datasets/ds004212, https://osf.io/jum2f (pictures of THINGS)",
        others="epochs (preprocessed_PN-epo.fif): derivatives of https://openneuro.org/datasets/ds004212",
        tops=THINGS,
    ),
    "imagenet": Source(
        "ILSVRC/imagenet-1k",
        "https://huggingface.co/datasets/ILSVRC/imagenet-1k (accept them there, then: hf auth login)",
        others="visual-layer/imagenet-1k-vl-enriched and timm/imagenet-1k-wds on the hub; https://image-net.org",
    ),
    "coco": Source(
        terms="https://cocodataset.org/#termsofuse",
        steps=(
            "mkdir -p {root} && cd {root}",
            "curl -C - -O http://images.cocodataset.org/zips/train2017.zip",
            "curl -C - -O http://images.cocodataset.org/zips/val2017.zip",
            "curl -C - -O http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            "unzip -nq train2017.zip && unzip -nq val2017.zip && unzip -nq annotations_trainval2017.zip",
        ),
    ),
    "nsd": Source(
        terms="the NSD Data Access Agreement, https://naturalscenesdataset.org",
        steps=(
            "fill in the NSD Data Access Agreement: https://naturalscenesdataset.org, Data Access",
            f"{S3}/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5 {{root}}/nsddata_stimuli/stimuli/nsd/",
            f"{S3}/nsddata {{root}}/nsddata --recursive",
            f"{S3}/nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR "
            "{root}/nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR --recursive",
        ),
        others="files of MindEye: pscotti/naturalscenesdataset and pscotti/mindeyev2 on the hub",
    ),
}


def is_of_subjects(name: str, subjects: Mapping[int, object] | list[int] | None) -> bool:
    """Whether a file belongs to one of the subjects, or to all."""
    found = re.search(r"sub(?:ject|j)?[-_]?(\d+)", name)
    return subjects is None or found is None or int(found[1]) in subjects
