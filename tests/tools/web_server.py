"""A web server on this machine, with answers of a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = bytes | Callable[[BaseHTTPRequestHandler], None]


class Routes:
    """Answers by path, without the query.

    Attributes:
        address: Address of the server, with a final slash.
        answers: A body, or a function that writes the whole answer.
        requests: Paths and ranges of the requests.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str]] = []


def send(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: object
) -> None:
    """Send an answer. Underscores in names of headers become hyphens."""
    request.send_response(status)
    for name, value in {"Content-Length": len(body), **headers}.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def serving() -> Iterator[Routes]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            routes.requests.append((path, self.headers.get("Range", "")))
            answer = routes.answers.get(path)
            with suppress(OSError):  # the client has disconnected
                if answer is None:
                    send(self, b"", 404)
                elif callable(answer):
                    answer(self)
                else:
                    send(self, answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        routes = Routes(f"http://127.0.0.1:{server.server_address[1]}/")
        Thread(target=server.serve_forever, daemon=True).start()
        yield routes
        server.shutdown()
