"""Repositories of the hub that this machine writes: one commit with all files, and tags."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import console, documents, hub
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, first_line
from brainhive_cli.core.files import read_regular
from brainhive_cli.core.hub import SCHEME, quiet, transport_error
from brainhive_cli.core.shared_runs import CARD, MANIFEST, parse_manifest

FILES_OF_THE_HUB = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""
TARGET = re.compile(r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<tag>\w[\w.-]*))?", re.ASCII)
RESERVED_TAG = re.compile(r"main|[0-9a-f]{40}|.*\.lock")
"""Names that cannot be those of a tag here."""
LOGIN = "hf auth login, with a token that may write"


@dataclass(frozen=True)
class Target:
    """A repository of models on the hub, and the tag of a version.

    Attributes:
        repository: `owner/name`.
        tag: Empty where no version is named.
    """

    repository: str
    tag: str = ""

    @classmethod
    def parse(cls, reference: str) -> Self:
        """Read `hub:owner/name[@tag]`.

        Raises:
            RecipeError: if it is no such name.
        """
        match = TARGET.fullmatch(reference)
        # the hub itself refuses `--` and `..` in names
        if match is None or "--" in reference or ".." in reference:
            raise RecipeError(
                f"{documents.show_value(reference)} names no repository of the hub",
                "hub:owner/name, or hub:owner/name@v2",
            )
        if match["tag"] and RESERVED_TAG.fullmatch(match["tag"]):
            raise RecipeError(f"{match['tag']} is no name of a tag", "hub:owner/name@v2")
        return cls(match["repository"], match["tag"] or "")

    def __str__(self) -> str:
        """Write it as a command line names it."""
        return f"{SCHEME}{self.repository}" + (f"@{self.tag}" if self.tag else "")


def push(
    target: Target, files: Mapping[str, Path | bytes], message: str, is_public: bool
) -> tuple[str, bool]:
    """Put files into a repository, by one commit; large ones are uploaded before it.

    An interrupted push leaves no commit. The same files make none, but get the tag. Where only the card
    differs, it is sent, unless its owner has edited it on its page.

    Args:
        target: A repository, which is created if it is not there, and a tag.
        files: By name in the repository; manifest, card and list of digests as bytes.
        message: Of the commit.
        is_public: Whether everybody may see a new repository.

    Returns:
        The commit that holds the files, and whether only the repository's owner can see it.

    Raises:
        MissingData: if there is no token, or the hub cannot be reached.
        BrainhiveError: if the name has other contents, this user may not write, or the repository is public
            and `is_public` is not set.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, name = HfApi(), target.repository
    with _describing_refusals(target):
        # the repository, what it holds, and what `push` has put there
        try:
            info = api.model_info(name)
        except RepositoryNotFoundError:
            api.create_repo(name, private=not is_public, exist_ok=True)
            info = api.model_info(name)

        # a public repository is refused, unless the user asks for it by --public
        if not info.private and not is_public:
            raise BrainhiveError(
                f"{SCHEME}{name} is public on the hub", "--public, if everybody may see the model"
            )
        names = {file.rfilename for file in info.siblings or ()} - FILES_OF_THE_HUB

        # files that `push` wrote: those with a digest, the list of digests and the card
        texts = _read_texts(name, info.sha) if MANIFEST in names else {}
        pushed = names & {*_read_digests(texts), documents.SHA256SUMS, CARD} if texts else set()

        # a tag stays what it is
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(name).tags}
        if tagged := tags.get(target.tag):
            if _read_model(_read_texts(name, tagged)) != _read_model(files):
                raise BrainhiveError(
                    f"{target} exists with other contents", f"another tag: {SCHEME}{name}@TAG"
                )
            console.say("the model is there already: nothing was sent")
            return tagged, bool(info.private)

        # the files that differ: all of another model, or the card of the same one
        sent = dict(files)
        is_same = _read_model(texts) == _read_model(files)
        if is_same:
            # a card with another digest than the manifest has was edited on its page
            manifest = parse_manifest(texts[MANIFEST], f"{SCHEME}{name}: {MANIFEST}")
            card = texts.get(CARD, b"")
            is_edited = hashlib.sha256(card).hexdigest() != manifest.card
            if is_edited and card != files[CARD]:
                console.warn(
                    "the card was edited on its page and stays so; a new @tag with other weights replaces it"
                )
            is_due = not is_edited and card != files[CARD]
            sent = {path: files[path] for path in (MANIFEST, documents.SHA256SUMS, CARD) if is_due}
        elif pushed and not target.tag:
            raise BrainhiveError(
                f"{SCHEME}{name} exists with other contents", f"{SCHEME}{name}@TAG for a corrected version"
            )
        elif names and not pushed:
            raise BrainhiveError(
                f"{SCHEME}{name} exists with files of others ({console.summarise_names(sorted(names))})",
                "another name, or remove them on its page",
            )

        # one commit, and the tag
        commit = str(info.sha)
        if sent:
            operations: list[Any] = [
                CommitOperationAdd(path, content) for path, content in sorted(sent.items())
            ]
            if not is_same:
                # weights of the earlier model would be mixed with this one
                operations += [CommitOperationDelete(path) for path in sorted(pushed - files.keys())]
            with quiet():
                # with `parent_commit` the hub refuses if another commit came in between
                committed = api.create_commit(
                    name, operations, commit_message=message, parent_commit=info.sha
                )
            commit = committed.oid
        if target.tag:
            api.create_tag(name, tag=target.tag, revision=commit)
        words = "pushed the card" if is_same else f"pushed {len(files)} files"
        console.say(words if sent else "the model is there already: nothing was sent")
        return commit, bool(info.private)


def _read_texts(name: str, commit: str | None) -> dict[str, bytes]:
    """Read the manifest, the list of digests and the card of a repository, by name; those that it has."""
    wanted = (MANIFEST, documents.SHA256SUMS, CARD)
    with quiet():
        folder = Path(hub.snapshot(name, revision=commit, allow_patterns=[*wanted]))
    return {file: read_regular(folder / file) for file in wanted if (folder / file).is_file()}


def _read_digests(files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Read the list of digests among files: digest by name."""
    text = files.get(documents.SHA256SUMS, b"")
    assert isinstance(text, bytes)
    lines = map(documents.DIGEST_LINE.fullmatch, text.decode("utf-8", "replace").splitlines())
    return {match[2]: match[1] for match in lines if match}


def _read_model(files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Read the digests of all but the manifest, which changes with the card: those of one model are equal."""
    return {name: digest for name, digest in _read_digests(files).items() if name != MANIFEST}


@contextmanager
def _describing_refusals(target: Target) -> Iterator[None]:
    """Require a token, and describe in our words why the hub refuses a request that writes.

    Raises:
        MissingData: if there is no token, it is not accepted, or the hub does not answer.
        BrainhiveError: if the hub refuses.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise MissingData("no token of the hub is on this machine", f"{LOGIN}; or HF_TOKEN")
    name = f"{SCHEME}{target.repository}"
    try:
        yield
    except BrainhiveError:  # some of which are ValueErrors, too
        raise
    except HfHubHTTPError as error:
        # by the status of the answer
        status = error.response.status_code
        refusals = {
            401: MissingData("the hub does not accept the token of this machine", LOGIN),
            403: BrainhiveError(f"no right to write to {name}", f"another owner, or {LOGIN}"),
            404: MissingData(f"no repository {name} that this user sees", f"check the name, or {LOGIN}"),
            412: BrainhiveError(f"{name} has changed meanwhile", "look at it, then the same command again"),
        }
        problem = f"the hub answers {status} for {name}: {first_line(error)}"
        raise refusals.get(status, BrainhiveError(problem, "the same command continues")) from error
    except ValueError as error:  # of a card or a name that the hub does not accept
        raise BrainhiveError(
            f"the hub refuses {name}: {' '.join(str(error).split())}",
            "other words in the recipe of push, or another name",
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, transport_error()) as error:
        raise MissingData(
            f"the hub cannot be reached, or has stopped answering: {first_line(error)}",
            "the same command continues: what has arrived is not sent again",
        ) from error
