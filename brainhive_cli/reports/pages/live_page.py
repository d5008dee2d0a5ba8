"""Web page of a live session, served on this machine."""

import asyncio
import ipaddress
import json
import resource
import secrets
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache, partial
from itertools import count
from typing import Any

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingExtra,
    first_line,
    install_line,
)
from brainhive_cli.core.results import CAVEATS
from brainhive_cli.data.files import name_stimulus
from brainhive_cli.reports.sentences.sentences import MEANINGS
from brainhive_cli.reports.templates import templates

MAX_RESULTS = 12
"""Largest number of results and drawings that a browser gets when it connects. The
filmstrip of the page shows as many.
"""
GRACE_S = 1
"""Time that open requests have when the server stops."""


def resolve_host(host: str) -> str:
    """Return the IPv4 address on which the server of a page listens.

    Args:
        host: Name or address of this machine.

    Raises:
        BrainhiveError: if the host is unknown, or if its address is 0.0.0.0.
    """
    host_hint = "give the address that browsers open, such as 192.168.1.20"
    try:
        address = ipaddress.IPv4Address(socket.gethostbyname(host))
    except (OSError, ValueError) as error:
        raise BrainhiveError(
            f"host {host!r} was not found: {first_line(error)}", host_hint
        ) from error

    # 0.0.0.0 would match no Host header of a request
    if address.is_unspecified:
        raise BrainhiveError(
            f"host {host!r} is {address}, which stands for several addresses",
            host_hint,
        )
    return str(address)


class _LimitedSocket(socket.socket):
    """Listening socket that closes new connections if too many are open.

    Unlimited connections could use up the files of the process.

    Args:
        *arguments: Arguments of a socket.
        limit: Largest number of open connections.
        **keywords: Keyword arguments of a socket.
    """

    def __init__(self, *arguments: Any, limit: int, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._limit = limit
        self._accepted = list[socket.socket]()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the socket of a new connection, and the address of the browser.

        Raises:
            ConnectionAbortedError: if there are too many open connections.
        """
        # forget closed sockets, which have the file number -1
        connection, address = super().accept()
        self._accepted = [
            accepted for accepted in self._accepted if accepted.fileno() >= 0
        ]
        if len(self._accepted) >= self._limit:
            connection.close()
            raise ConnectionAbortedError
        self._accepted.append(connection)
        return connection, address


class LivePage:
    """Local web page of a live session, which shows published events.

    Args:
        title: Title of the page.
        read_picture: Function that returns the PNG file of a gallery picture by its id,
            or None. Threads of the server call it in turn.
        host: Name or address to listen on.
        port: Port to listen on, or 0 for a free port.

    Attributes:
        load_picture: `read_picture` with a cache.
        drawings: Latest drawings (PNG files) by the number of their window.
    """

    def __init__(
        self,
        title: str,
        read_picture: Callable[[str], bytes | None],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.title = title
        self._host = host
        self._port = port
        self._token = secrets.token_urlsafe(32)

        # a message is a number and a JSON text; `_latest` has a message of each kind
        # for each of the last time windows, and `_hits` the hit rates so far
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._latest = dict[tuple[str, int], tuple[int, str]]()
        # Largest number of events that are kept for slow browsers. A browser that is
        # further behind misses the oldest events.
        self._recent = deque[tuple[int, str]](maxlen=64)
        self._hits: list[list[float]] = []

        # Largest number of gallery pictures in memory.
        self.load_picture = lru_cache(256)(read_picture)
        self.drawings = OrderedDict[str, bytes]()

        self._is_stopping = False

    def start(self) -> str:
        """Start the server in a thread.

        Returns:
            Address of the page, with its token.

        Raises:
            BrainhiveError: if the host is unknown or not this machine, or if the port
                is in use.
            MissingExtra: if uvicorn is not installed.
        """
        try:
            import uvicorn
        except ImportError as error:
            raise MissingExtra(
                "the page of a live session needs starlette and uvicorn",
                install_line("live"),
            ) from error

        # listen before the thread starts, so that errors reach the caller
        address = resolve_host(self._host)
        try:
            listening = socket.create_server((address, self._port))
        except (OSError, OverflowError) as error:
            raise BrainhiveError(
                f"cannot open the page on {self._host}, port {self._port}: "
                f"{first_line(error)}",
                "choose another port (0 selects a free port), or an address of this "
                "machine",
            ) from error

        max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Largest share of the files that the process may open which connections may
        # take. The session needs files for its results.
        max_files_share = 0.25
        # Largest number of connections to a page. A browser has at most six.
        limit = min(200, int(max_files_share * max_files))
        self._socket = _LimitedSocket(fileno=listening.detach(), limit=limit)

        # browsers send the address or the name of the host, without port 80
        port = self._socket.getsockname()[1]
        suffix = "" if port == 80 else f":{port}"
        names = (address, "127.0.0.1", "localhost", self._host.lower())
        hosts = [f"{name}{suffix}" for name in names]

        # an access log would contain the token
        config = uvicorn.Config(
            _build_app(self, self._token, set(hosts)),
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
        """Store an event, which every open page then fetches and shows.

        Any thread may call this method. It does not wait for browsers. A result gets
        the `names` of its pictures by image id.

        Args:
            event: Values that JSON can represent, with the key `kind`. A result also
                has the number of its time `window`, and may have `hits`, the hit rate.
            drawing: PNG file of the picture that was drawn from this window.
        """
        if event["kind"] == "result":
            event = {**event, "names": _name_pictures(event)}
        text = _write_json(event)
        with self._lock:
            message = (next(self._numbers), text)
            self._recent.append(message)
            slot = event.get("window", 0) % MAX_RESULTS
            self._latest[event["kind"], slot] = message

            if drawing is not None:
                self.drawings[str(event["window"])] = drawing
                # Largest number of drawings in memory.
                if len(self.drawings) > 24:
                    self.drawings.popitem(last=False)
            hits = event.get("hits")
            if hits:
                low, high = hits["interval"]
                self._hits.append([hits["n"], hits["rate"], low, high])

    def stop(self) -> None:
        """Send the published events and end the server, even if pages are open.

        A second call does nothing.
        """
        self._is_stopping = self._server.should_exit = True
        # Longest time that `stop` waits for the server.
        stop_s = 2
        self._thread.join(stop_s)
        self._socket.close()

    async def stream_messages(self) -> AsyncIterator[str]:
        """Yield server-sent events to a browser, until the server stops.

        The first event holds the hit rates so far, and the windows that have drawings.
        """
        with self._lock:
            drawings = list(map(int, self.drawings))
            history = {"kind": "history", "hits": self._hits, "drawings": drawings}
            text = _write_json(history)
        # Time after which a browser reconnects.
        retry_ms = 1000
        yield f"retry: {retry_ms}\ndata: {text}\n\n"

        last_number = 0
        sent_s = time.monotonic()
        is_stopping = False
        # Interval at which a stream looks for new events.
        poll_s = 0.05
        # Time without events after which a stream sends a comment.
        keepalive_s = 15
        while not is_stopping:
            # read the flag first, so that a last round sends the messages before a stop
            is_stopping = self._is_stopping

            # a new browser gets only the latest message of each kind and window
            with self._lock:
                messages = set(self._latest.values())
                if last_number:
                    messages.update(self._recent)
            for number, text in sorted(messages):
                if number > last_number:
                    yield f"id: {number}\ndata: {text}\n\n"
                    last_number = number
                    sent_s = time.monotonic()

            # a comment keeps an idle connection open
            if time.monotonic() - sent_s > keepalive_s:
                yield ":\n\n"
                sent_s = time.monotonic()
            await asyncio.sleep(poll_s)


def _build_app(page: LivePage, token: str, hosts: set[str]) -> Any:
    """Build the starlette application: its document, events, pictures and drawings.

    Requests from other sites, for other hosts or without the token are refused.

    Args:
        page: The page.
        token: Token in the address of the page.
        hosts: Names and addresses of the host, with the port, in lower case.
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

    refusal = (
        "Access refused. Open the address that brainhive live printed, on the machine "
        "where it runs.\n"
    )

    # Headers of every response, unless the response sets another policy.
    default_headers = {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    async def guard(request: Request, respond: Any) -> Response:
        # an unknown host shows DNS rebinding, and other origins show other sites
        headers = request.headers
        host = headers.get("host", "").lower()
        request_token = request.query_params.get("token", "")
        origins = set(map(str.lower, headers.getlist("origin")))
        sites = set(headers.getlist("sec-fetch-site"))
        is_allowed = (
            host in hosts
            and origins <= {f"http://{host}"}
            and sites <= {"same-origin", "none"}
            and secrets.compare_digest(request_token.encode(), token.encode())
        )
        if not is_allowed:
            response: Response = PlainTextResponse(
                refusal, 403, {"Connection": "close"}
            )
        elif request.method in ("GET", "HEAD"):
            response = await respond(request)
        else:
            response = PlainTextResponse(
                "Only GET and HEAD.\n", 405, {"Allow": "GET, HEAD"}
            )

        for name, value in default_headers.items():
            response.headers.setdefault(name, value)
        return response

    template = templates().get_template("live_page.html")

    # Content security policy of the page: only its own style, script,
    # pictures and events.
    page_policy = (
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src "
        "'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )

    async def show_page(request: Request) -> Response:
        # the nonce marks the style and the script that the browser may use
        nonce = secrets.token_urlsafe(16)
        policy = {"Content-Security-Policy": page_policy.format(nonce=nonce)}
        return HTMLResponse(
            template.render(
                title=page.title, nonce=nonce, meanings=MEANINGS, signs=CAVEATS
            ),
            headers=policy,
        )

    async def stream_events(request: Request) -> Response:
        if request.method == "HEAD":  # a stream would never end
            return Response(media_type="text/event-stream")
        return StreamingResponse(page.stream_messages(), media_type="text/event-stream")

    image_lock = asyncio.Lock()

    # Pause before each picture. A picture takes about a millisecond, so viewers cost at
    # most a ninth of a core.
    picture_pause_s = 0.008

    async def send_image(
        load: Callable[[str], bytes | None], key: str, request: Request
    ) -> Response:
        # images are sent in turn, so that many viewers do not slow the session
        async with image_lock:
            await asyncio.sleep(picture_pause_s)
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
    # a redirection would repeat the token in an address
    app.router.redirect_slashes = False
    return app


def _name_pictures(event: Mapping[str, Any]) -> dict[str, str]:
    """Name the pictures of a result for people, by their image ids."""
    image_ids = [event["shown"]]
    for matches in (event["best"], event["average_best"]):
        for match in matches or ():
            image_ids.append(match["image"])
    return {image_id: name_stimulus(image_id) for image_id in image_ids if image_id}


def _write_json(value: Any) -> str:
    """Write a value as JSON, with null for numbers that are not finite."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
        return json.dumps(finite)
