"""Repositories of the hub that this machine writes: one commit with all files, tags, and their removal."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, first_line
from brainhive_cli.core.hub import SCHEME, quiet
from brainhive_cli.core.shared_runs import CARD, MANIFEST

OF_THE_HUB = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""
TARGET = re.compile(r"hub:(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(@(?P<tag>[\w][\w.-]*))?", re.ASCII)
LOGIN = "hf auth login, with a token that may write"
MAX_LISTED = 3
"""Files of others that a message names."""
Content = Path | bytes
"""A file of a repository: one of this machine, or what it holds."""


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
        return cls(match["repository"], match["tag"] or "")

    def __str__(self) -> str:
        """Write it as a command line names it."""
        return f"{SCHEME}{self.repository}" + (f"@{self.tag}" if self.tag else "")


@dataclass(frozen=True)
class Pushed:
    """Files of a run on the hub.

    Attributes:
        commit: The commit that holds them.
        is_new: Whether this push has made it; not where they were there already.
        url: The page of the repository.
        is_private: Whether only its owner can see it.
    """

    commit: str
    is_new: bool
    url: str
    is_private: bool


@dataclass(frozen=True)
class Repository:
    """Content of a repository.

    Attributes:
        commit: The newest commit.
        names: Its files.
        digests: The list of digests that was pushed with a run, as text; empty where none was.
        tags: Commits by tag.
        is_private: Whether only its owner can see it.
    """

    commit: str
    names: frozenset[str]
    digests: str
    tags: Mapping[str, str]
    is_private: bool

    @classmethod
    def open(cls, api: Any, name: str, revision: str | None = None) -> Self:
        """Ask the hub what a repository holds, at its newest commit or another."""
        info, refs = api.model_info(name, revision=revision), api.list_repo_refs(name)
        names = frozenset(file.rfilename for file in info.siblings) - OF_THE_HUB
        digests = ""
        if {MANIFEST, documents.SHA256SUMS} <= names:
            with quiet():
                digests = Path(api.hf_hub_download(name, documents.SHA256SUMS, revision=info.sha)).read_text(
                    "utf-8"
                )
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        return cls(info.sha, names, digests, tags, bool(info.private))

    @property
    def pushed(self) -> set[str]:
        """Names of the files that `push` has put there."""
        listed = {
            match[2] for match in map(documents.DIGEST_LINE.fullmatch, self.digests.splitlines()) if match
        }
        return {*self.names} & {*listed, documents.SHA256SUMS, CARD} if listed else set()


def push(target: Target, files: Mapping[str, Content], message: str, is_public: bool) -> Pushed:
    """Put files into a repository, by one commit; large ones are uploaded before it.

    An interrupted push leaves no commit. Files that are there already make none, and get the tag.

    Args:
        target: A repository, which is made if it is not there, and a tag.
        files: By name in the repository, with a manifest and a list of digests among them.
        message: Of the commit.
        is_public: Whether everybody may see a new repository.

    Raises:
        MissingData: if there is no token, or the hub cannot be reached.
        BrainhiveError: if the name has other contents, this user may not write, or what is there is public
            and `is_public` is not set.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, name, digests = HfApi(), target.repository, files[documents.SHA256SUMS]
    assert isinstance(digests, bytes)
    with _writing(target):
        # the repository, and what it holds
        try:
            there = Repository.open(api, name)
        except RepositoryNotFoundError:
            api.create_repo(name, private=not is_public, exist_ok=True)
            there = Repository.open(api, name)
        if not there.is_private and not is_public:
            raise BrainhiveError(
                f"{SCHEME}{name} is public on the hub", "--public, if everybody may see the model"
            )

        # a tag stays what it is
        page = f"{api.endpoint}/{name}"
        if target.tag in there.tags:
            tagged = Repository.open(api, name, there.tags[target.tag])
            if tagged.digests != digests.decode():
                raise BrainhiveError(
                    f"{target} exists with other contents", f"another tag: {SCHEME}{name}@TAG"
                )
            return Pushed(tagged.commit, False, page, there.is_private)

        # one commit, where the newest does not hold these files
        commit, is_same = there.commit, there.digests == digests.decode()
        if not is_same:
            if there.names and not (target.tag and there.pushed):
                held = "other contents" if there.pushed else f"files of others ({_list(there.names)})"
                way = f"{SCHEME}{name}@TAG for a corrected version" if there.pushed else "another name"
                raise BrainhiveError(f"{SCHEME}{name} exists with {held}", way)
            operations: list[Any] = [
                CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
                for path, content in sorted(files.items())
            ]
            operations += [CommitOperationDelete(path) for path in sorted(there.pushed - files.keys())]
            with quiet():
                committed = api.create_commit(
                    name, operations, commit_message=message, parent_commit=there.commit
                )
            commit = committed.oid
        if target.tag:
            api.create_tag(name, tag=target.tag, revision=commit)
        return Pushed(commit, not is_same, page, there.is_private)


def find_pushed(target: Target) -> Repository:
    """Find what `push` has put under a name, for whoever is asked whether it is to go.

    Raises:
        MissingData: if there is no such repository or tag.
        BrainhiveError: if a whole repository holds files of others, too.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    with _writing(target):
        try:
            there = Repository.open(HfApi(), target.repository)
        except RepositoryNotFoundError as error:
            raise MissingData(
                f"no repository {SCHEME}{target.repository} that this user sees", "check the name"
            ) from error
        if target.tag and target.tag not in there.tags:
            raise MissingData(
                f"{SCHEME}{target.repository} has no tag {target.tag}",
                f"it has: {', '.join(sorted(there.tags)) or 'none'}",
            )
        if not there.pushed and there.names:
            raise BrainhiveError(
                f"{SCHEME}{target.repository} holds nothing that was pushed by brainhive",
                "remove it on its page",
            )
        if not target.tag and (foreign := there.names - there.pushed):
            raise BrainhiveError(
                f"{SCHEME}{target.repository} holds files of others ({_list(foreign)})",
                "remove them, or the repository, on its page",
            )
        return there


def delete(target: Target, there: Repository) -> str:
    """Remove a tag with the files of its version, or a whole repository; say what was removed, in words."""
    from huggingface_hub import CommitOperationDelete, HfApi

    api, name = HfApi(), target.repository
    with _writing(target):
        if not target.tag:
            api.delete_repo(name)
            return f"the repository {name} with all its commits"

        # the newest commit loses the files, unless another tag still stands for it
        commit = there.tags[target.tag]
        api.delete_tag(name, tag=target.tag)
        is_newest = commit == there.commit
        if is_newest and commit not in {other for tag, other in there.tags.items() if tag != target.tag}:
            operations: list[Any] = [CommitOperationDelete(path) for path in sorted(there.pushed)]
            api.create_commit(name, operations, commit_message=f"Withdraw {target.tag}", parent_commit=commit)
            return f"the tag {target.tag}, and its {len(operations)} files from the newest version"
        return f"the tag {target.tag}"


def _list(names: frozenset[str] | set[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(sorted(names)[:MAX_LISTED]) + more


@contextmanager
def _writing(target: Target) -> Iterator[None]:
    """Turn what the hub answers to who writes into errors of ours."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # the hub's error is one of its HTTP library, whose other errors say that nobody answers
    transport: Any = HfHubHTTPError.__bases__[0]
    if get_token() is None:
        raise MissingData("no token of the hub is on this machine", f"{LOGIN}; or HF_TOKEN")
    name = target.repository
    try:
        yield
    except HFValidationError as error:
        raise RecipeError(f"{name}: {first_line(error)}", "hub:owner/name") from error
    except OfflineModeIsEnabled as error:
        raise MissingData("HF_HUB_OFFLINE is set: the hub is not asked", "unset HF_HUB_OFFLINE") from error
    except HfHubHTTPError as error:
        # who may not write, who was faster, all else in the hub's words
        status = error.response.status_code
        known = {
            401: MissingData("the hub does not accept the token of this machine", LOGIN),
            403: BrainhiveError(f"no right to write to {SCHEME}{name}", f"another owner, or {LOGIN}"),
            404: MissingData(
                f"no repository {SCHEME}{name} that this user sees", f"check the name, or {LOGIN}"
            ),
            412: BrainhiveError(
                f"{SCHEME}{name} was changed meanwhile by somebody else",
                "look at it, then the same command again",
            ),
        }
        usual = BrainhiveError(
            f"the hub answers {status} for {name}: {first_line(error)}", "the same command continues"
        )
        raise known.get(status, usual) from error
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, transport) as error:
        way = "the same command continues: what has arrived is not sent again"
        raise MissingData(
            f"the hub cannot be reached, or has stopped answering: {first_line(error)}", way
        ) from error
