"""A hub on this machine, with the protocol to list and fetch models."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".ckpt", ".zip", ".gz")
"""Endings of files that the hub answers with a redirect."""


class Hub:
    """Server of the repositories `root/owner/name/…`, with a commit each.

    Attributes:
        endpoint: Value of HF_ENDPOINT.
        fetched: Paths of the files that were sent, in order.
        absent: Status and headers of the answer for an absent repository.
        card: Card of every repository.
        commits: Commits of repositories that need their own.
        storage: Address of the server of large files.
        authorized: Paths of the requests with a token, in order.
    """

    absent: tuple[int, dict[str, str]] = (404, {"X-Error-Code": "RepoNotFound"})
    card: dict[str, Any] = {"cardData": {"license": "cc-by-4.0"}}  # noqa: RUF012

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.endpoint = f"http://127.0.0.1:{port}"
        self.fetched: list[str] = []
        self.commits: dict[str, str] = {}
        self.storage = self.endpoint
        self.authorized: list[str] = []

    def redirect_client(self, patch: pytest.MonkeyPatch) -> None:
        """Redirect the hub's client of this process to this server."""
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
            constants.ENDPOINT, self.endpoint
        )
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", self.endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)

    def answer(self, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        """Answer a request with a status, headers and a body."""
        parts = unquote(urlsplit(target).path).strip("/").split("/")
        if parts[:2] in (["api", "models"], ["api", "datasets"]):
            return self._api(parts[2:])
        parts = parts[1:] if parts[0] == "datasets" else parts
        if parts[0] == "large":
            return self._send(method, self.root.joinpath(*parts[1:]))
        repository, file = (
            self.root.joinpath(*parts[:2]),
            self.root.joinpath(*parts[:2], *parts[4:]),
        )
        if parts[2:3] != ["resolve"] or not repository.is_dir():
            return tuple(self.absent) + (b"",)
        commit = self._commit(file)
        if parts[3] not in ("main", commit) or not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        if file.suffix not in LARGE:
            return self._send(method, file)
        headers = {
            "X-Linked-Size": str(file.stat().st_size),
            "X-Linked-Etag": f'"{sha256(file)}"',
        }
        address = f"{self.storage}/large/{file.relative_to(self.root)}"
        return 302, {**headers, "X-Repo-Commit": commit, "Location": address}, b""

    def _api(self, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        """Answer `owner/name/revision/main` and `owner/name/tree/COMMIT`."""
        repository = self.root.joinpath(*parts[:2])
        if not repository.is_dir():
            return tuple(self.absent) + (b"",)
        files = sorted(file for file in repository.rglob("*") if file.is_file())
        document: Any = [describe_file(file, repository) for file in files]
        if parts[2:3] != ["tree"]:
            siblings = []
            for facts in document:
                siblings.append({"rfilename": facts["path"], "size": facts["size"]})
            document = {
                "id": "/".join(parts[:2]),
                "sha": self._commit(repository),
                "siblings": siblings,
                **self.card,
            }
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()

    def _send(self, method: str, file: Path) -> tuple[int, dict[str, str], bytes]:
        if method == "GET":
            self.fetched.append(file.relative_to(self.root).as_posix())
        return (
            200,
            {"ETag": f'"{sha256(file)}"', "X-Repo-Commit": self._commit(file)},
            file.read_bytes(),
        )

    def _commit(self, path: Path) -> str:
        return self.commits.get("/".join(path.relative_to(self.root).parts[:2]), COMMIT)


def describe_file(file: Path, repository: Path) -> dict[str, Any]:
    """Describe a file as the hub's tree listing does."""
    size, path = file.stat().st_size, file.relative_to(repository).as_posix()
    content = b"blob %d\0" % size + file.read_bytes()
    oid = hashlib.sha1(content).hexdigest()
    facts: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": oid}
    if file.suffix in LARGE:
        facts["lfs"] = {"oid": sha256(file), "size": size, "pointerSize": 134}
    return facts


def sha256(file: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Serve the repositories below `root` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"]:
                hub.authorized.append(self.path)
            status, headers, body = hub.answer(self.command, self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(root, server.server_address[1])
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
