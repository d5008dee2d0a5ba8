"""Sources of each data set, its terms, and its files on the hub, whose downloads can be resumed."""

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.request import urlopen

from brainhive_cli.core import hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.lines import Hint, Line
from brainhive_cli.data.exchange import digits69

TIMEOUT_S = 60
"""Seconds without an answer after which a server counts as unreachable."""


@dataclass(frozen=True)
class Repository:
    """Source of files.

    Attributes:
        name: owner/name.
        kind: What the hub takes it for.
        patterns: Of the files that are wanted; all when None.
    """

    name: str
    kind: Literal["dataset", "model"] = "dataset"
    patterns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        size: Bytes.
        is_there: Whether the folder holds it already.
    """

    name: str
    size: int
    is_there: bool
    repository: Repository


def list_files(repository: Repository, folder: Path) -> list[HubFile]:
    """List the files of a repository, and which of them a folder already holds.

    Raises:
        MissingData: if the hub does not say, or does not have it, or its terms were not accepted.
    """
    with hub.quiet(), TemporaryDirectory() as empty:  # the hub's client would create the folder
        options = {"allow_patterns": repository.patterns, "dry_run": True}
        try:
            place = folder if folder.is_dir() else empty
            listed = hub.snapshot(repository.name, repository.kind, local_dir=place, **options)
        except hub.Unreachable as error:
            words = repository.name, repository.kind, repository.patterns or ()
            line = hub.download_line(*words, "--local-dir", str(folder))
            raise hub.Unreachable(error.message, f"on a machine with a network: {line}") from error
    return [HubFile(f.filename, f.file_size or 0, not f.will_download, repository) for f in listed]


def read_licence(repository: Repository) -> str:
    """Read the licence that a repository's page names; empty if it names none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError, OSError, ValueError, KeyError):
        card = getattr(HfApi().repo_info(repository.name, repo_type=repository.kind), "card_data", None)
        licence = (card.get("license") if card else None) or ""
        return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
    return ""


def download_files(files: Sequence[HubFile], folder: Path) -> None:
    """Fetch files into a folder; what is there stays, and what was interrupted is resumed.

    Raises:
        MissingData: if the hub cannot be reached.
    """
    for repository in dict.fromkeys(file.repository for file in files):
        patterns = [escape(file.name) for file in files if file.repository == repository]
        hub.snapshot(repository.name, repo_type=repository.kind, local_dir=folder, allow_patterns=patterns)


@dataclass(frozen=True)
class WebFile:
    """A file of a web server, whose content is known.

    Attributes:
        url: Its address, with the commit where it is of a repository.
        size: Bytes.
        sha256: Of its content.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    def is_there(self, folder: Path) -> bool:
        """Whether a folder holds the file, whole and unchanged."""
        path = folder / self.name
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256

    def download(self, folder: Path) -> None:
        """Download the file into a folder.

        Raises:
            MissingData: if the server cannot be reached, or has another content.
        """
        path = folder / self.name
        line = f"curl -L --create-dirs -o {shlex.quote(str(path))} {self.url}"
        with atomic_write(path) as part:
            try:
                with urlopen(self.url, timeout=TIMEOUT_S) as answer:
                    content = answer.read(self.size + 1)  # a server may send without end
            except OSError as error:  # urllib's errors are such
                problem = f"{self.url} cannot be fetched: {getattr(error, 'reason', error)}"
                raise MissingData(problem, f"on a machine with a network: {line}") from error
            if hashlib.sha256(content).hexdigest() != self.sha256:
                problem = f"{self.url} gave {len(content):,} bytes that are not the known {self.size:,}"
                raise MissingData(problem, f"fetch it again, or by hand: {line}")
            part.write_bytes(content)


@dataclass(frozen=True)
class Source:
    """Sources of a data set.

    Attributes:
        repository: Of the hub; empty where the hub does not have it.
        further: Others of the hub whose files lie in the same folder.
        terms: Where its licence, or agreement, stands.
        steps: What people do themselves, in order; `{root}` is the folder of the data set, `{subjects}` those
            whose recordings they want.
        elsewhere: Where else it is, or more of it.
        tops: How files at the top of an archive of the first folder begin, if they belong into a folder of
            the archive's name.
        subjects: All subjects, where steps name them.
        web: Files of a web server, where the hub does not have it.
        convert: What turns these files, in the folder of the data set, into folders that commands read, and
            says what it wrote.
        next_line: The command that takes the data set from there.
        known: Size and licence, as far as they are known without a network.
        model_licence: Licence, by the hub's list, that brain models of its recordings may have; empty where
            nothing that was read here says that such models may be shared.
    """

    repository: str = ""
    further: tuple[Repository, ...] = ()
    terms: str = ""
    steps: tuple[str, ...] = ()
    elsewhere: str = ""
    tops: tuple[str, ...] = ()
    subjects: tuple[int, ...] = ()
    web: tuple[WebFile, ...] = ()
    convert: Callable[[Path], str] | None = None
    next_line: Hint = ""
    known: str = ""
    model_licence: str = ""

    @property
    def about(self) -> str:
        """Size and licence as far as they are known without a network, and where the terms stand."""
        return "; ".join(filter(None, [self.known, f"terms: {self.terms}"]))


def _by_hand(terms: str, *steps: str, known: str = "") -> Source:
    """Say where a data set is that the hub does not have."""
    return Source(terms=terms, steps=steps, known=known)


THINGS = ("sub-", "training_images/", "train_images/", "test_images/")
IMAGES = "https://osf.io/jum2f"
"""Of THINGS, with their LICENSE, which is to be read before the password of the archive is used."""
NSD = "aws s3 cp --no-sign-request s3://natural-scenes-dataset"
DESIGN = "nsddata/experiments/nsd"
MASKS = "nsddata/ppdata/subj0$s/func1pt8mm/roi"
BETAS = "nsddata_betas/ppdata/subj0$s/func1pt8mm/betas_fithrf_GLMdenoise_RR"
IMAGERY = "nsddata_betas/ppdata/subj0$s/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR"
IMAGERY_TABLES = "nsddata/bdata/nsdimagery"
ON_REQUEST = "not verified (recordings); ImageNet's, on request only (pictures)"
GOD = "https://github.com/KamitaniLab/GenericObjectDecoding"
DEEPRECON = "https://github.com/KamitaniLab/DeepImageReconstruction"
ASK = "ask the authors for the pictures: {root}/images/training and {root}/images/test"
SOURCES: Mapping[str, Source] = {
    # READMEs of UBP (HaitaoWuTJU/Uncertainty-aware-Blur-Prior), BrainHiVE (ssshamiii/Brain-HIVE), NeuroBridge
    # (feroooooo/NeuroBridge: crxs4, y63gw), ATM (ncclab-sustech/EEG_Image_decode) and the data's authors
    # (gifale95/eeg_encoding: 3jk45)
    "things-eeg": Source(
        "Haitao999/things-eeg",
        terms=f"https://osf.io/3jk45 (recordings), LICENSE of {IMAGES} (pictures)",
        elsewhere="raw recordings, for `brainhive prepare`: https://osf.io/crxs4, with image_metadata.npy of "
        "https://osf.io/qkgtf; prepared by their authors: https://osf.io/anp5v, by ATM's: "
        "LidongYang/EEG_Image_decode on the hub; pictures: https://osf.io/y63gw",
        tops=THINGS,
        known="26 GB of ten subjects, pictures not counted; CC BY 4.0 by NEMAR's record (recordings), for "
        "research (pictures)",
        model_licence="cc-by-4.0",
    ),
    # READMEs of BrainHiVE and UBP; NeuroBridge's scripts/things_meg/download_meg.sh
    "things-meg": Source(
        "Haitao999/things-eeg-meg",
        terms=f"https://openneuro.org/datasets/ds004212 (recordings), LICENSE of {IMAGES} (pictures)",
        elsewhere="Haitao999/things-meg on the hub; epochs, for `brainhive prepare`: "
        "aws s3 cp --no-sign-request --recursive s3://openneuro.org/ds004212/derivatives/preprocessed FOLDER",
        tops=THINGS,
        known="9.7 GB of four subjects, pictures not counted; CC0, as all of OpenNeuro (recordings), for "
        "research (pictures)",
        model_licence="cc0-1.0",
    ),
    # Pages of these repositories on the hub, whose terms are ImageNet's
    "imagenet": Source(
        "ILSVRC/imagenet-1k",
        terms="non-commercial research and education only, https://image-net.org/download.php (accept them "
        "on https://huggingface.co/datasets/ILSVRC/imagenet-1k, then: hf auth login)",
        elsewhere="visual-layer/imagenet-1k-vl-enriched and timm/imagenet-1k-wds on the hub",
        known="about 145 GB; non-commercial research and education",
    ),
    # READMEs of NeuroClips (gongzix/NeuroClips) and NEURONS (xmed-lab/NEURONS); page of the recordings
    "cc2017": Source(
        "gongzx/cc2017_dataset",
        (Repository("McGregorW/NEURONS", "model", ("masks/*", "qwen_annotation/*")),),
        terms="https://doi.org/10.4231/R7SF2TCW (recordings and films: CC0)",
        subjects=(1, 2, 3),
        known="at least 30 GB: frames 20 GB, masks 7 GB, fMRI 3 GB; CC0",
    ),
    # cocodataset.org, Download and Terms of use
    "coco": Source(
        terms="https://cocodataset.org/#termsofuse",
        known="19 GB; CC BY 4.0 (captions), each picture has terms of its own",
        steps=(
            "mkdir -p {root} && cd {root}",
            "curl -C - -O http://images.cocodataset.org/zips/train2017.zip",
            "curl -C - -O http://images.cocodataset.org/zips/val2017.zip",
            "curl -C - -O http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            "unzip -nq train2017.zip && unzip -nq val2017.zip && unzip -nq annotations_trainval2017.zip",
        ),
    ),
    # NSD's data manual (cvnlab.slite.page: How to get the data; Terms and Conditions); the files are those
    # that brain-diffuser's data/download_nsddata.py takes
    "nsd": Source(
        terms="https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions",
        steps=(
            "read the terms, and fill in the NSD Data Access Agreement: https://naturalscenesdataset.org",
            f"{NSD}/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5 {{root}}/nsddata_stimuli/stimuli/nsd/",
            f"for f in nsd_expdesign.mat nsd_stim_info_merged.csv; do {NSD}/{DESIGN}/$f {{root}}/{DESIGN}/; "
            "done",
            "hf download pscotti/naturalscenesdataset COCO_73k_annots_curated.npy --repo-type dataset "
            "--local-dir {root}",
            f"for s in {{subjects}}; do {NSD}/{MASKS} {{root}}/{MASKS} --recursive; done",
            f"for s in {{subjects}}; do {NSD}/{BETAS} {{root}}/{BETAS} --recursive "
            "--exclude '*' --include '*.nii.gz'; done",
        ),
        elsewhere="other files of MindEye: pscotti/naturalscenesdataset and pscotti/mindeyev2 on the hub",
        known="39.6 GB of pictures, and betas of up to 1 GB a session, 30 to 40 a subject; an agreement",
        subjects=(1, 2, 3, 4, 5, 6, 7, 8),
    ),
    # NSD's bucket, as three public downloaders list it; it does not have nsdimagery_stimuli.pkl3
    "nsd-imagery": Source(
        terms="NSD's: https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions",
        steps=(
            "agree to NSD's terms, and get its masks, into {root}/../nsd: brainhive fetch nsd",
            f"for s in {{subjects}}; do {NSD}/{IMAGERY}/betas_nsdimagery.hdf5 {{root}}/../nsd/{IMAGERY}/; "
            "done",
            f"{NSD}/{IMAGERY_TABLES} {{root}}/../nsd/{IMAGERY_TABLES} --recursive",
            f"{NSD}/nsddata/experiments/nsdimagery/rawtargetimages {{root}}/stimuli --recursive",
            "call pictures as {root}/stimuli/SET-CONDITION.png, by the tables' CONDITION: no file maps them",
        ),
        elsewhere="betas are 1.1 GB a subject; nsdimagery_stimuli.pkl3 of a laboratory, anywhere below nsd, "
        "is read where there are no tables",
        subjects=(1, 2, 3, 4, 5, 6, 7, 8),
    ),
    # README and documents of ViCCo-Group/LAION-fMRI; the bucket has no mask of voxels, but the map of R²
    "laion-fmri": _by_hand(
        "CC0 (brain data); an agreement (pictures: not passed on, not used commercially)",
        "fetch derivatives/glmsingle-tedana (betas, trials, R2mean), derivatives/rois and stimuli/ to {root} "
        "by https://github.com/ViCCo-Group/LAION-fMRI",
        "copy laion_fmri/splits/data of that package to {root}/splits",
    ),
    # van Gerven et al. 2010; Güçlü's repository of the data, in which no file states a licence
    "digits69": Source(
        terms="none stated: neither the repository umguec/Decoding-brain-representations nor the file says "
        "on what terms the data may be used or passed on; ask their authors before you share them",
        web=(
            WebFile(
                "https://raw.githubusercontent.com/umguec/Decoding-brain-representations/"
                "ea52ab2cd1c1342fcf5db81b357414facbe1d679/" + digits69.FILE,
                3_220_652,
                "1544e704114bab975b69e9a0921362cc4104f8e4a902e8d572a70a4418c73dd3",
            ),
        ),
        convert=digits69.write_folders,
        next_line=Line("workflow", ("recipe", "digits69")),
    ),
    # Hebart et al. 2023; figshare plus 20492835, version 2
    "things-fmri": _by_hand(
        f"not verified (betas), LICENSE of {IMAGES} (pictures)",
        "get betas_csv.zip (43 GB) of https://doi.org/10.25452/figshare.plus.c.6161151, unpack it in {root}",
        f"get THINGS at {IMAGES}, as {{root}}/images/CONCEPT/NAME.jpg",
        known="43 GB of betas, pictures not counted",
    ),
    # Chang et al. 2019; the betas are of release 2.0
    "bold5000": _by_hand(
        "not verified for release 2.0 (1.0: CC0)",
        "get CSI*_imgnames.txt, CSI*_GLMbetas-TYPED-*_ses-*.nii.gz and CSI*_brainmask.nii.gz into {root}: "
        "figshare 14456124",
        "or, for preparation.form=regions, BOLD5000_GLMsingle_ROI_betas/py in place of volumes and masks",
        "get BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli of release 1.0 into {root}",
    ),
    # READMEs of Kamitani's group; data/files.json of KamitaniLab/feature-decoding
    "god": _by_hand(
        ON_REQUEST,
        f"get Subject1.h5 to Subject5.h5, version 5 or later, into {{root}}: figshare 7387130, {GOD}",
        ASK,
    ),
    "deeprecon": _by_hand(
        ON_REQUEST,
        "get sub-0*_ImageNetTraining_fmriprep_volume_native.h5 and sub-0*_ImageNetTest_* into {root}: "
        "figshare, by data/files.json of https://github.com/KamitaniLab/feature-decoding",
        f"or their older form, sub-0*_perceptionNaturalImage*_original_VC.h5: figshare 7033577, {DEEPRECON}",
        ASK,
    ),
}
"""Each address is one that the public source in the comment above it gives."""


def is_of_subjects(name: str, subjects: Mapping[int, object] | list[int] | None) -> bool:
    """Whether a file belongs to one of the subjects, or to all."""
    named = re.search(r"sub(?:ject|j)?[-_]?(\d+)", name)
    return subjects is None or named is None or int(named[1]) in subjects
