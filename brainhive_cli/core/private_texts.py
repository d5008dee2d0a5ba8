"""Texts that are shared: paths, e-mail addresses and names of people and machines in them."""

import getpass
import html
import os
import re
import socket
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from brainhive_cli.core.files import portable
from brainhive_cli.core.surroundings import SECRET as HIDDEN

SEGMENT = r"[^\s/:'\",;()\[\]{}|]+"
PATH = re.compile(
    rf"""
    (?i:file|smb|nfs|afp|ssh|sftp|scp):/+[^\s'",;]+    # a URL of this machine or network
    | (?<![\w/.~\\]) (?:~[\w.-]*)? /(?:{SEGMENT}/)+(?:{SEGMENT})?    # /home/jane/x
    | (?<![\w/.~\\]) ~[\w.-]*[/\\]{SEGMENT}            # ~/x and ~jane/x
    | (?<=["']) /[\w.-]+ (?=["'])                      # "/jane", alone
    | (?:\$(?:env:)?\{{?\w+\}}?|%\w+%)[/\\]+[^\s'",;]+   # $HOME/x, ${{HOME}}/x and %USERPROFILE%\x
    | (?:\.\.[/\\]+)+[^\s'",;]+                        # ../../jane/x
    | (?<![\w.+-]) [\w.+-]+@[\w.-]+:[\w/~][^\s'",;]*   # jane@server:x
    | (?<!\w) [A-Za-z]:[\\/](?!/)[^\s'",;]+            # C:\Users\jane and C:/Users/jane
    | \\{{2,4}}[\w.-]+\\{{1,2}}[^\s'",;]+              # \\server\jane
    | (?<![\w:/]) //[\w.-]+/[^\s'",;]+                 # //server/jane
    """,
    re.VERBOSE,
)
"""A path that tells of a machine: an absolute one, one by a variable, or one that leads out of its folder."""
EMAIL = re.compile(
    r"""
    (?<![\w.+-]) [\w.+-]+ "? (?:@|\s?[\[(]at[\])]\s?)                       # jane@, "jane"@ and jane (at)
    (?: [\w-]+ (?:\.|\s?[\[(]dot[\])]\s?) [a-z][\w.-]+ | \[[\d:.]+ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
SECRET = re.compile(
    r"""
    (?<![\w+.-])[a-z][\w+.-]*://[^\s/@'"]+@[^\s'"]+                    # https://jane:password@server
    | [?&\#][\w-]*(?:token|key|secret|sig|signature|password|auth)=[^&\s'"]+  # ?access_token=…
    | \b(?:hf|gh[pousr]|github_pat|wandb_v1|npm)_\w{16,} | \b(?:sk|xox[a-z]|glpat)-[\w-]{16,}
    | \bA[KS]IA[0-9A-Z]{16}\b | \bAIza[\w-]{30,} | \bbearer\s[\w.~+/-]{16,}
    | \beyJ[\w-]{10,2000}\.[\w-]+ | -----BEGIN\ [A-Z ]{,20}PRIVATE\ KEY
    | (?:wandb[\w. -]{,40}|(?:api|access|secret|private)[_-]?(?:key|token)|secret)
        ["']?\s?[:=]\s?["']?[\w/+-]{8,}
    | (?:passw(?:or)?d|pwd)["']?\s?[:=]\s?["']?[^\s"']{6,}
    | \btoken["']?\s?[:=]\s?["']?(?=[a-z]*\d)[a-z\d]{16,}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Tokens of the hub and of others, keys, and addresses that hold one."""
HUB_REFERENCE = re.compile(r"(?<!\w)hub:[\w.-]+/[\w./-]+(?:@[\w./-]+)?(?::[\w.-]+)?")
"""A reference with a revision, which is no e-mail address."""
PEOPLE = "sub|subj|subject|participant|patient|proband|probandin|volunteer"
"""Words before the name or number of a person."""
WORDS = """
    cortical threshold second sampl sample folder set band space type word region network system group layer
    index indice number channel score mean variance token embedding value byte model id row table rank module
    bias wise name label list count key left right all any none null nan true false unknown new each one first
    and or of in for is are was were has have had that who whom whose by to if does without with out at on
    alone would may must a an the as but before after until while where trained tested token id data
    specific dependent independent average adapter linear head vector conv block pixel optimal encoder decoder
    weight aware agnostic general session trial person matter too
    proj emb embed norm ln attn mlp fc query pos scale film affine readout gate quantizer quantiz
"""
"""Words of English behind these, and of the keys of recipes; behind `sub-` they may be a part of a word."""
WORD = rf"(?:{'|'.join(WORDS.split())})(?:e?s|e?d|ing|ly|al)?(?![^\W\d_])"
ENTITIES = "ses|task|run|acq|rec|dir|space|desc|hemi|seed|fold|epoch|pretrained"
"""Names behind `sub-01_`, those of BIDS among them, and MindEye2's."""
UNITS = "k?hz|[mcµu]?m|[mµun]?s|[mµun]?v|[kmg]b"
LETTERS = rf"(?!{WORD}|(?:{PEOPLE})[-_]*\d)[^\W\d_]"
SUBJECT = re.compile(
    rf"""
    (?<![^\W_]) (?:{PEOPLE}) (?:
        [-_/]+ {LETTERS}\w*                                                      # sub_jane
        | [-_]*\d+[-_]+ (?!(?:{ENTITIES}|{PEOPLE})(?![^\W\d_])) {LETTERS}\w*     # sub-01_jane
        | [-_]*\d+ (?!(?:{UNITS})\b) [^\W\d_]{{2,}}\w*                            # sub-01jane
        | (?:_(?:id|name|label)|s)? (?:
            ["']?\ ?[:=]\ ?\[(?:[^\]]{{,200}}[\s,])?? ["']? {LETTERS}\w*              # subjects: [1, jane]
            | ["']?\ ?:\n(?:\ *-\ +["']?\d+["']?\n){{,200}}\ *-\ +(?:\w+:\ )? ["']? {LETTERS}\w*  # in YAML
            | (?:["']?\s?[:=]\s?["'] | [:=] | :[ ]+(?={LETTERS}\w*(?:\ \w+)?\s*(?:,|$))) {LETTERS}\w*
        )
        | s?/ {LETTERS}\w*                                                       # subjects/jane
        | \ (?!\w+ing\b) {LETTERS}\w* (?=["'),;.]|$)                             # subject jane
        | s?\ (?!{WORD})(?-i:[A-Z][a-z])\w*                                     # participants Jane and John
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""A subject who has a name and not a number alone, as in `sub-jane`, `sub-01_jane` or `participant jane`."""
DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
BREAK = re.compile(r"""(?<!\\)\\([nrt])|\\+(?=["'])""")
"""A break of a line in JSON, or the beginning of a folder of Windows; an escaped quote."""
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
    text = _write_plainly(text)
    without_references = HUB_REFERENCE.sub("", text)
    patterns = {"a password, token or key": SECRET, "an absolute path": PATH}
    patterns |= {"an e-mail address": EMAIL, "a subject's name": SUBJECT}
    for kind, pattern in patterns.items():
        if match := pattern.search(without_references):
            words = " ".join(match[0].split())
            words = f"{words[:4]}…" if pattern is SECRET else words  # a log keeps no secret
            yield f"{kind} ({words})"

    # this machine and its user, wherever they stand
    host, home = socket.gethostname(), os.path.expanduser("~")
    names = dict.fromkeys((home, os.path.realpath(home)), "the folder of this user")
    names |= dict.fromkeys((host, host.partition(".")[0]), "the name of this machine")
    with suppress(OSError, KeyError):  # of a user whom the system does not know
        names[getpass.getuser()] = "the login of this user"
    for name, kind in names.items():
        words = rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"
        is_searched = len(name) >= MIN_NAME_LENGTH and name.lower() not in COMMON_NAMES
        if is_searched and re.search(words, without_references, re.IGNORECASE):
            yield f"{kind} ({name})"
    tokens = (value for name, value in os.environ.items() if HIDDEN.search(name) and len(value) > 11)
    if any(token in without_references for token in tokens):
        yield "a token of this user (…)"


def _write_plainly(text: str) -> str:
    """Undo what hides letters: escapes of JSON, HTML and URLs, other forms of letters and dashes."""
    with suppress(ValueError):  # of a number that is no letter
        text = html.unescape(text)
    text += "\n" + BREAK.sub(lambda match: " " if match[1] else "", text) if BREAK.search(text) else ""
    text = ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\\/", "/")
    for _ in range(3):  # encoded twice, or more
        text = unquote(text)
    text = unicodedata.normalize("NFKC", DASHES.sub("-", text.replace("…", " ")))
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
