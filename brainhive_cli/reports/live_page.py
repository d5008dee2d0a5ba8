"""Page of a live session: a local server that shows events in a browser while they
come.
"""

import asyncio
import ipaddress
import json
import resource
import secrets
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from functools import lru_cache, partial
from itertools import count
from typing import Any

from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingExtra,
    first_line,
    install_line,
)
from brainhive_cli.core.measurements import CAVEATS
from brainhive_cli.reports.sentences import MEANINGS
from brainhive_cli.reports.tables import templates

RESULTS_KEPT = 12
"""Results and drawings that a browser gets when it connects: those of the filmstrip."""
EVENTS_KEPT = 64
"""Events of any kind that wait for slow browsers; one that is further behind misses the
oldest.
"""
PICTURES_KEPT, DRAWINGS_KEPT = 256, 24
"""Pictures of the gallery, and drawings, that stay in memory."""
POLL_S, KEEPALIVE_S, RETRY_MS = 0.05, 15, 1000
"""Pause between two looks of a stream at the events, pause after which an idle one
sends a comment, and a browser's pause before it reconnects.
"""
GRACE_S, STOP_S = 1, 2
"""What open requests have when the server stops, and what `stop` waits for at most."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response: no other page embeds it, learns its address or keeps
it.
"""
PAGE_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri "
    "'none'; form-action 'none'"
)
"""The policy of the page: its own style and script, pictures and events of its own
server.
"""
MAX_CONNECTIONS, SHARE_OF_FILES = 200, 0.25
"""Connections of a page, of which a browser has six at most, and the largest share that
they take of the files that the process may open: the session writes some, too.
"""
PAUSE_S = 0.008
"""Pause before each picture, of which one takes a millisecond: viewers cost a ninth of
a core at most.
"""
REFUSAL = (
    "Refused: open the address that brainhive live has printed, on the machine where "
    "it runs.\n"
)
NAME_ADDRESS = "name the address that browsers open, as 192.168.1.20"


def resolve_host(host: str) -> str:
    """Resolve the host of a page to the address (IPv4) to listen on.

    Raises:
        BrainhiveError: if it is not one address of one machine, however it is written.
    """
    # one address of one machine, since requests are compared with it by name
    try:
        address = ipaddress.IPv4Address(socket.gethostbyname(host))
    except (OSError, ValueError) as error:
        raise BrainhiveError(
            f"host {host!r} is not found: {first_line(error)}", NAME_ADDRESS
        ) from error
    if address.is_unspecified:
        raise BrainhiveError(
            f"host {host!r} is {address}, which stands for more than one address",
            NAME_ADDRESS,
        )
    return str(address)


class _LimitedSocket(socket.socket):
    """Listening socket that closes connections beyond a limit at once.

    The server counts requests. Connections that ask for nothing would take all files
    that the process may open, and the session could no longer be saved.
    """

    def __init__(self, *arguments: Any, limit: int, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._limit = limit
        self._accepted = list[socket.socket]()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            ConnectionAbortedError: after a connection that is one too many.
        """
        connection, address = super().accept()
        self._accepted = [each for each in self._accepted if each.fileno() >= 0]
        if len(self._accepted) >= self._limit:
            connection.close()
            raise ConnectionAbortedError
        self._accepted.append(connection)
        return connection, address


class LivePage:
    """Local page of a live session, fed with events.

    Every browser reads the same bounded log of events from where it is, so that a slow
    or a stuck one costs neither time nor memory.

    Args:
        title: Heading of the page.
        read_picture: Reads the PNG file of a picture of the gallery by its id; None for
            an unknown id. It is called by threads of the server, one at a time.
        host: Address to listen on, which is also the one that browsers name.
        port: Port to listen on; 0 for any that is free.

    Attributes:
        load_picture: `read_picture`, which keeps the last pictures in memory.
        drawings: The last drawings by the number of their window.
    """

    def __init__(
        self,
        title: str,
        read_picture: Callable[[str], bytes | None],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        # who may read the page
        self.title = title
        self._host = host
        self._port = port
        self._token = secrets.token_urlsafe(32)

        # numbered messages: the latest of each kind, of windows the last few, and the
        # last of all kinds
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._latest = dict[tuple[str, int], tuple[int, str]]()
        self._recent = deque[tuple[int, str]](maxlen=EVENTS_KEPT)
        self._hits: list[list[float]] = []

        # pictures
        self.load_picture = lru_cache(PICTURES_KEPT)(read_picture)
        self.drawings = OrderedDict[str, bytes]()

        self._is_stopping = False

    def start(self) -> str:
        """Start the server in a thread.

        Returns:
            Address of the page, with the token that opens it.

        Raises:
            BrainhiveError: if the port is taken, or the host is no address of this
                machine.
            MissingExtra: without starlette and uvicorn.
        """
        try:
            import uvicorn
        except ImportError as error:
            raise MissingExtra(
                "the page of a live session needs starlette and uvicorn",
                install_line("live"),
            ) from error

        # listen before anything runs, so that a port in use is an error of the caller
        address = resolve_host(self._host)
        try:
            listening = socket.create_server((address, self._port))
        except (OSError, OverflowError) as error:
            raise BrainhiveError(
                f"cannot open the page on {self._host}, port {self._port}: "
                f"{first_line(error)}",
                "choose another port (0 for any that is free), or an address of "
                "this machine",
            ) from error

        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = min(MAX_CONNECTIONS, int(SHARE_OF_FILES * files))
        self._socket = _LimitedSocket(fileno=listening.detach(), limit=limit)

        # browsers name the host by its address or as it is called, and leave port 80
        # out
        port = self._socket.getsockname()[1]
        suffix = "" if port == 80 else f":{port}"
        hosts = [
            f"{name}{suffix}"
            for name in (address, "127.0.0.1", "localhost", self._host.lower())
        ]

        # no access log, which would hold the token, and no other words on the terminal
        config = uvicorn.Config(
            _build_app(self, self._token, {*hosts}),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server: Any = uvicorn.Server(config)
        serve = partial(self._server.run, sockets=[self._socket])
        self._thread = threading.Thread(target=serve, name="live page", daemon=True)
        self._thread.start()
        return f"http://{hosts[0]}/?token={self._token}"

    def publish(self, event: dict[str, Any], drawing: bytes | None = None) -> None:
        """Show an event in every open page, from any thread, without waiting for a
        browser.

        Args:
            event: Plain values; its `kind` says what it is. Pages ignore kinds that
                they do not know.
            drawing: PNG file of the event's window, of which the last are kept.
        """
        text = _write_json(event)
        with self._lock:
            # keep it for those who are behind, and for those who come later
            message = (next(self._numbers), text)
            self._recent.append(message)
            self._latest[event["kind"], event.get("window", 0) % RESULTS_KEPT] = message

            # drawings, and the curve of hit rates, which is longer than the results
            # that are kept
            if drawing is not None:
                self.drawings[str(event["window"])] = drawing
                if len(self.drawings) > DRAWINGS_KEPT:
                    self.drawings.popitem(last=False)
            if hits := event.get("hits"):
                self._hits.append([hits["n"], hits["rate"], *hits["interval"]])

    def stop(self) -> None:
        """Send what was published, and end the server, also with open pages; may be
        called twice.
        """
        self._is_stopping = self._server.should_exit = True
        self._thread.join(STOP_S)
        self._socket.close()

    async def stream_messages(self) -> AsyncIterator[str]:
        """Write the session so far and then its events, as server-sent events, until
        the server stops.
        """
        # the curve, and the drawings that are kept
        with self._lock:
            drawings = list(map(int, self.drawings))
            text = _write_json(
                {"kind": "history", "hits": self._hits, "drawings": drawings}
            )
        yield f"retry: {RETRY_MS}\ndata: {text}\n\n"

        last = 0
        sent_s = time.monotonic()
        is_stopping = False
        while not is_stopping:
            # what was published before the end is still sent
            is_stopping = self._is_stopping
            with self._lock:
                messages = {*self._latest.values(), *(self._recent if last else ())}
            for number, text in sorted(
                message for message in messages if message[0] > last
            ):
                yield f"id: {number}\ndata: {text}\n\n"
                last = number
                sent_s = time.monotonic()

            # a comment keeps an idle connection open
            if time.monotonic() - sent_s > KEEPALIVE_S:
                yield ":\n\n"
                sent_s = time.monotonic()
            await asyncio.sleep(POLL_S)


def _build_app(page: LivePage, token: str, hosts: set[str]) -> Any:
    """Build the four addresses of a page: itself, its events, pictures and drawings.

    Every request is refused that the page itself has not made. A page of another origin
    names itself in Origin or in Sec-Fetch-Site, a name that was bound to this address
    names itself in Host (DNS rebinding), and any other program does not know the token.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.requests import Request
    from starlette.responses import (
        HTMLResponse,
        PlainTextResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Route

    async def guard(request: Request, answer: Any) -> Response:
        # host, origin and token have to be those of the page
        headers = request.headers
        host = headers.get("host", "").lower()
        sent = request.query_params.get("token", "")
        is_allowed = (
            host in hosts
            and all(
                origin.lower() == f"http://{host}"
                for origin in headers.getlist("origin")
            )
            and all(
                site in ("same-origin", "none")
                for site in headers.getlist("sec-fetch-site")
            )
            and secrets.compare_digest(sent.encode(), token.encode())
        )
        if not is_allowed:
            response: Response = PlainTextResponse(
                REFUSAL, 403, {"Connection": "close"}
            )
        elif request.method in ("GET", "HEAD"):
            response = await answer(request)
        else:
            response = PlainTextResponse(
                "Only GET and HEAD.\n", 405, {"Allow": "GET, HEAD"}
            )

        # every response has the headers, the refusals too
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    template = templates().get_template("live_page.html")

    # the page knows no event yet, and reads the token from its own address
    async def show_page(request: Request) -> Response:
        # marks the style and the script that the browser may use
        nonce = secrets.token_urlsafe(16)
        policy = {"Content-Security-Policy": PAGE_POLICY.format(nonce=nonce)}
        return HTMLResponse(
            template.render(
                title=page.title, nonce=nonce, meanings=MEANINGS, signs=CAVEATS
            ),
            headers=policy,
        )

    async def stream_events(request: Request) -> Response:
        if request.method == "HEAD":  # whose answer would never end
            return Response(media_type="text/event-stream")
        return StreamingResponse(page.stream_messages(), media_type="text/event-stream")

    turn = asyncio.Lock()

    async def send_image(
        load: Callable[[str], bytes | None], key: str, request: Request
    ) -> Response:
        # one after the other, with pauses, so that many viewers do not slow the session
        async with turn:
            await asyncio.sleep(PAUSE_S)
            content = await run_in_threadpool(load, request.query_params.get(key, ""))
        if content:
            return Response(content, media_type="image/png")
        return Response(status_code=404)

    routes = [
        Route("/", show_page),
        Route("/events", stream_events),
        Route("/picture", partial(send_image, page.load_picture, "image")),
        Route("/drawing", partial(send_image, page.drawings.get, "window")),
    ]
    app = Starlette(
        routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)]
    )
    # the address of a redirection would hold the token
    app.router.redirect_slashes = False
    return app


def _write_json(value: Any) -> str:
    """Write a value as JSON, which has no word for numbers that are not finite: they
    become null.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(
            json.loads(json.dumps(value), parse_constant=lambda name: None)
        )
