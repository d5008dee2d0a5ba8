"""Texts that are shared: paths, e-mail addresses and names of people and machines in them."""

import getpass
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainhive_cli.core.files import portable

SEGMENT = r"[^\s/:'\",;()\[\]{}|]+"
PATH = re.compile(
    rf"""
    file:/+[^\s'",;]+                                  # a URL of this machine
    | (?<![\w/.~\\]) (?:~[\w.-]*)? /(?:{SEGMENT}/)+(?:{SEGMENT})?    # /home/jane/x
    | (?<![\w/.~\\]) ~[\w.-]*/{SEGMENT}                # ~/x and ~jane/x
    | (?:\.\./)+[^\s'",;]+                             # ../../jane/x
    | (?<!\w) [A-Za-z]:[\\/](?!/)[^\s'",;]+            # C:\Users\jane and C:/Users/jane
    | \\{{2,4}}[\w.-]+\\{{1,2}}[^\s'",;]+              # \\server\jane
    """,
    re.VERBOSE,
)
"""A path that tells of a machine: an absolute one, or one that leads out of its folder."""
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[A-Za-z][\w.-]+")
HUB_REFERENCE = re.compile(r"hub:[\w./@:-]+")
"""A reference with a revision, which is no e-mail address."""
ENGLISH = "cortical|threshold|second|sampl|folder|set|band|space|type|word|region|network|system|group"
"""Beginnings of English words behind `sub-`."""
ENTITIES = "ses|task|run|acq|rec|dir|space|desc|hemi|seed|fold|epoch"
"""Names behind `sub-01_`, those of BIDS among them."""
SUBJECT = re.compile(rf"\bsub-(?:(?!{ENGLISH})[a-z]\w*|\d+_(?!{ENTITIES})[a-z]\w*)", re.IGNORECASE)
"""A subject who has a name and not a number alone, as in `sub-jane` or `sub-01_jane`."""
COMMON_NAMES = {
    *("admin", "brain", "debian", "guest", "jovyan", "localhost", "research", "runner", "student", "ubuntu"),
    *("users", "vagrant"),
}
"""Names of users and machines that identify nobody."""
MIN_NAME_LENGTH = 5
"""Letters of a user's or machine's name that is searched for; shorter ones are words of any text."""


def cut_paths(value: Any) -> Any:
    """Write paths below home relative to it, and of others only the last part, in values as JSON has them."""
    if isinstance(value, Mapping):
        return {cut_paths(key): cut_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cut_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value

    # a value that is a path, spaces and all; else the paths in a text
    value = str(portable(value))
    if os.path.isabs(value):
        return Path(value).name
    return PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], value)


def find_private(text: str) -> Iterator[str]:
    """List private content of a text: kind and words."""
    without_references = HUB_REFERENCE.sub("", text)
    patterns = {"an absolute path": PATH, "an e-mail address": EMAIL, "a subject's name": SUBJECT}
    for kind, pattern in patterns.items():
        if match := pattern.search(without_references):
            yield f"{kind} ({match[0]})"

    # this machine and its user, wherever they stand
    names = {
        "the folder of this user": os.path.expanduser("~"),
        "the name of this machine": socket.gethostname(),
    }
    with suppress(OSError, KeyError):  # of a user whom the system does not know
        names["the login of this user"] = getpass.getuser()
    for kind, name in names.items():
        is_searched = len(name) >= MIN_NAME_LENGTH and name not in COMMON_NAMES
        if is_searched and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield f"{kind} ({name})"
