"""Repositories of the hub that this machine writes: one commit with all files, and tags."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, first_line
from brainhive_cli.core.hub import SCHEME, quiet, transport_error
from brainhive_cli.core.shared_runs import FILES, MANIFEST

FILES_OF_THE_HUB = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""
TARGET = re.compile(r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<tag>\w[\w.-]*))?", re.ASCII)
RESERVED_TAG = re.compile(r"main|[0-9a-f]{40}|.*\.lock")
"""Names that cannot be those of a tag here."""
LOGIN = "hf auth login, with a token that may write"


def parse_target(reference: str) -> tuple[str, str]:
    """Read `hub:owner/name[@tag]`: the repository, and the tag of a version, empty where none is named.

    Raises:
        RecipeError: if it is no such name.
    """
    # the hub itself refuses `--` and `..` in names
    match = TARGET.fullmatch(reference)
    if match is None or "--" in reference or ".." in reference:
        raise RecipeError(
            f"{documents.show_value(reference)} names no repository of the hub",
            "hub:owner/name, or hub:owner/name@v2",
        )
    if match["tag"] and RESERVED_TAG.fullmatch(match["tag"]):
        raise RecipeError(f"{match['tag']} is no name of a tag", "hub:owner/name@v2")
    return match["repository"], match["tag"] or ""


def push(
    reference: str, files: Mapping[str, Path | bytes], message: str, is_public: bool
) -> tuple[str, bool]:
    """Put files into a repository in place of those of an earlier model, by one commit.

    Large files are uploaded before it: an interrupted push leaves no commit.

    Args:
        reference: A repository, which is created if it is not there, and a new tag, if any.
        files: By name in the repository; manifest, card and list of digests as bytes.
        message: Of the commit.
        is_public: Whether everybody may see a new repository.

    Returns:
        The commit that holds the files, and whether only the repository's owner can see it.

    Raises:
        MissingData: if there is no token, or the hub cannot be reached.
        BrainhiveError: if the tag exists, the repository has files of others, this user may not write, or
            the repository is public and `is_public` is not set.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, (name, tag) = HfApi(), parse_target(reference)
    with _describing_refusals(f"{SCHEME}{name}"):
        # the repository, and what it holds
        try:
            info = api.model_info(name)
        except RepositoryNotFoundError:
            api.create_repo(name, private=not is_public, exist_ok=True)
            info = api.model_info(name)
        names = {file.rfilename for file in info.siblings or ()} - FILES_OF_THE_HUB

        # nothing becomes public, and nothing of others is replaced, unless the user says so
        if not info.private and not is_public:
            raise BrainhiveError(
                f"{SCHEME}{name} is public on the hub", "--public, if everybody may see the model"
            )
        if names and MANIFEST not in names:
            raise BrainhiveError(
                f"{SCHEME}{name} exists with files of others ({console.summarise_names(sorted(names))})",
                "another name, or remove them on its page",
            )
        if tag and tag in {known.name for known in api.list_repo_refs(name).tags}:
            raise BrainhiveError(f"{reference} exists", f"another tag: {SCHEME}{name}@TAG")

        # weights of an earlier model would be mixed with these
        patterns = [pattern for patterns in FILES.values() for pattern in patterns]
        earlier = [file for file in names - files.keys() if any(fnmatch(file, each) for each in patterns)]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path, content) for path, content in sorted(files.items())),
            *(CommitOperationDelete(path) for path in sorted(earlier)),
        ]
        with quiet():
            # with `parent_commit` the hub refuses if another commit came in between
            commit = api.create_commit(name, operations, commit_message=message, parent_commit=info.sha).oid
        if tag:
            api.create_tag(name, tag=tag, revision=commit)
        console.say(f"pushed {len(files)} files")
        return commit, bool(info.private)


@contextmanager
def _describing_refusals(name: str) -> Iterator[None]:
    """Require a token, and describe in our words why the hub refuses a request that writes.

    Raises:
        MissingData: if there is no token, it is not accepted, or the hub does not answer.
        BrainhiveError: if the hub refuses.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise MissingData("no token of the hub is on this machine", f"{LOGIN}; or HF_TOKEN")
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
