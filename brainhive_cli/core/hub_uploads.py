"""Repositories of the hub that this machine writes: one commit with all files, tags, and their removal."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import documents, hub
from brainhive_cli.core.console import summarise_names
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
Content = Path | bytes
"""A file of a repository: one of this machine, or its bytes."""


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


@dataclass(frozen=True)
class Pushed:
    """Result of a push.

    Attributes:
        commit: The commit that holds the files.
        sent: Description of the files sent; empty if none were.
        is_edited: Whether the card was edited on its page, and therefore left as it is.
        url: The page of the repository.
        is_private: Whether only its owner can see it.
    """

    commit: str
    sent: str
    is_edited: bool
    url: str
    is_private: bool


@dataclass(frozen=True)
class Repository:
    """Content of a repository.

    Attributes:
        commit: The newest commit, or that of a revision.
        names: Its files.
        texts: The manifest, the list of digests and the card, by name; those that it has.
        tags: Commits by tag.
        is_private: Whether only its owner can see it.
    """

    commit: str
    names: frozenset[str]
    texts: Mapping[str, bytes]
    tags: Mapping[str, str]
    is_private: bool

    @classmethod
    def open(cls, api: Any, name: str, revision: str | None = None) -> Self:
        """Ask the hub what a repository holds, at its newest commit or another."""
        info, refs = api.model_info(name, revision=revision), api.list_repo_refs(name)
        names = frozenset(file.rfilename for file in info.siblings) - FILES_OF_THE_HUB
        texts, wanted = {}, {MANIFEST, documents.SHA256SUMS, CARD} & names if MANIFEST in names else ()
        if wanted:
            with quiet():
                folder = Path(hub.snapshot(name, revision=info.sha, allow_patterns=[*wanted]))
            texts = {file: read_regular(folder / file) for file in wanted}
        return cls(
            info.sha, names, texts, {tag.name: tag.target_commit for tag in refs.tags}, bool(info.private)
        )

    @property
    def pushed(self) -> frozenset[str]:
        """Names of the files that `push` has put there; none of a repository without its list."""
        listed = _read_digests(self.texts.get(documents.SHA256SUMS, b""))
        return self.names & {*listed, documents.SHA256SUMS, CARD} if listed else frozenset()

    def holds(self, digests: bytes) -> bool:
        """Whether it holds the model of a list of digests, whatever its card says."""
        lists = (self.texts.get(documents.SHA256SUMS, b""), digests)
        here, there = ({k: v for k, v in _read_digests(text).items() if k != MANIFEST} for text in lists)
        return here == there


def _read_digests(text: bytes) -> dict[str, str]:
    lines = map(documents.DIGEST_LINE.fullmatch, text.decode("utf-8", "replace").splitlines())
    return {match[2]: match[1] for match in lines if match}


def push(target: Target, files: Mapping[str, Content], message: str, is_public: bool) -> Pushed:
    """Put files into a repository, by one commit; large ones are uploaded before it.

    An interrupted push leaves no commit. The same files make none, but get the tag. Where only the card
    differs, it is sent, unless its owner has edited it on its page.

    Args:
        target: A repository, which is created if it is not there, and a tag.
        files: By name in the repository; manifest, card and list of digests as bytes.
        message: Of the commit.
        is_public: Whether everybody may see a new repository.

    Raises:
        MissingData: if there is no token, or the hub cannot be reached.
        BrainhiveError: if the name has other contents, this user may not write, or the repository is public
            and `is_public` is not set.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, name = HfApi(), target.repository
    digests, card = files[documents.SHA256SUMS], files[CARD]
    assert isinstance(digests, bytes)
    with _writing(target):
        # the repository, and what it holds
        try:
            repository = Repository.open(api, name)
        except RepositoryNotFoundError:
            api.create_repo(name, private=not is_public, exist_ok=True)
            repository = Repository.open(api, name)
        if not repository.is_private and not is_public:
            raise BrainhiveError(
                f"{SCHEME}{name} is public on the hub", "--public, if everybody may see the model"
            )

        # what is there is of a version that this one knows
        manifest = None
        if MANIFEST in repository.texts:
            manifest = parse_manifest(repository.texts[MANIFEST], f"{SCHEME}{name}: {MANIFEST}")

        # a tag stays what it is
        page, is_private = f"{api.endpoint}/{name}", repository.is_private
        if target.tag in repository.tags:
            tagged = Repository.open(api, name, repository.tags[target.tag])
            if not tagged.holds(digests):
                raise BrainhiveError(
                    f"{target} exists with other contents", f"another tag: {SCHEME}{name}@TAG"
                )
            return Pushed(tagged.commit, "", False, page, is_private)

        # the files that differ: all of another model, or the card of the same one
        is_same, is_edited = repository.holds(digests), False
        sent = dict(files)
        if is_same:
            is_edited = card != repository.texts.get(CARD) and hashlib.sha256(
                repository.texts.get(CARD, b"")
            ).hexdigest() != (manifest and manifest.card)
            is_sent = card != repository.texts.get(CARD) and not is_edited
            sent = {path: files[path] for path in (MANIFEST, documents.SHA256SUMS, CARD) if is_sent}
        elif repository.names and not (target.tag and repository.pushed):
            if repository.pushed:
                problem, way = "other contents", f"{SCHEME}{name}@TAG for a corrected version"
            else:
                foreign = summarise_names(sorted(repository.names))
                problem, way = f"files of others ({foreign})", "another name, or remove them on its page"
            raise BrainhiveError(f"{SCHEME}{name} exists with {problem}", way)

        # one commit, and the tag
        operations: list[Any] = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in sorted(sent.items())
        ]
        if not is_same:
            operations += [CommitOperationDelete(path) for path in sorted(repository.pushed - files.keys())]
        commit = repository.commit
        if operations:
            with quiet():
                committed = api.create_commit(
                    name, operations, commit_message=message, parent_commit=repository.commit
                )
            commit = committed.oid
        if target.tag:
            api.create_tag(name, tag=target.tag, revision=commit)
        words = "" if not operations else "the card" if is_same else f"{len(files)} files"
        return Pushed(commit, words, is_edited, page, is_private)


def find_pushed(target: Target) -> Repository:
    """Find what `push` has put under a name, before it is removed.

    Raises:
        MissingData: if there is no such repository or tag.
        BrainhiveError: if a whole repository holds files of others, too.
    """
    from huggingface_hub import HfApi

    name = f"{SCHEME}{target.repository}"
    with _writing(target):
        repository = Repository.open(HfApi(), target.repository)
        if target.tag and target.tag not in repository.tags:
            known = ", ".join(sorted(repository.tags)) or "none"
            raise MissingData(f"{name} has no tag {target.tag}", f"it has: {known}")
        if not repository.pushed and repository.names:
            raise BrainhiveError(f"{name} has nothing that was pushed by brainhive", "remove it on its page")
        if not target.tag and (foreign := repository.names - repository.pushed):
            raise BrainhiveError(
                f"{name} holds files of others ({summarise_names(sorted(foreign))})",
                "remove them, or the repository, on its page",
            )
        return repository


def delete(target: Target, repository: Repository) -> str:
    """Remove a tag with the files of its version, or a whole repository; say what was removed, in words."""
    from huggingface_hub import CommitOperationDelete, HfApi

    api, name = HfApi(), target.repository
    with _writing(target):
        if not target.tag:
            api.delete_repo(name)
            return f"the repository {name} with all its commits"

        # the newest version loses the files of this model, unless another tag stands for it
        digests = Repository.open(api, name, repository.tags[target.tag]).texts.get(documents.SHA256SUMS, b"")
        api.delete_tag(name, tag=target.tag)
        remaining = {commit for tag, commit in repository.tags.items() if tag != target.tag}
        is_tagged = any(Repository.open(api, name, commit).holds(digests) for commit in sorted(remaining))
        if is_tagged or not repository.pushed or not repository.holds(digests):
            return f"the tag {target.tag}"
        operations = [CommitOperationDelete(path) for path in sorted(repository.pushed)]
        api.create_commit(
            name, operations, commit_message=f"Withdraw {target.tag}", parent_commit=repository.commit
        )
        return f"the tag {target.tag}, and its {len(operations)} files from the newest version"


@contextmanager
def _writing(target: Target) -> Iterator[None]:
    """Require a token, and describe in our words why the hub refuses a request that writes.

    Raises:
        MissingData: if there is no token, it is not accepted, or the hub does not answer.
        BrainhiveError: if the hub refuses.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if get_token() is None:
        raise MissingData("no token of the hub is on this machine", f"{LOGIN}; or HF_TOKEN")
    name = f"{SCHEME}{target.repository}"
    try:
        yield
    except HFValidationError as error:
        raise RecipeError(f"{name}: {first_line(error)}", "hub:owner/name") from error
    except OfflineModeIsEnabled as error:
        raise MissingData("HF_HUB_OFFLINE is set: the hub is not asked", "unset HF_HUB_OFFLINE") from error
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
        if isinstance(error, BrainhiveError):
            raise
        raise BrainhiveError(
            f"the hub refuses {name}: {' '.join(str(error).split())}",
            "other words in the recipe of push, or another name",
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, transport_error()) as error:
        raise MissingData(
            f"the hub cannot be reached, or has stopped answering: {first_line(error)}",
            "the same command continues: what has arrived is not sent again",
        ) from error
