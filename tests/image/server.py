"""A web server on loopback that serves images as well or as badly as a test wants."""

from __future__ import annotations

import hashlib
import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sevlaunch.image.catalogue import file_name, read_catalogue

_RANGE = re.compile(r"bytes=([0-9]+)-")


@dataclass
class Served:
    """A file of the server.

    ``breaks_after``: for each answer in turn, after how many bytes of it the connection is cut (None: never; the last
    entry holds for all later ones). ``stalls_after``: bytes, then silence until the server ends. ``promised``: the
    length that it claims for the whole. ``status``: an answer without the file. ``location``: where it redirects to.
    ``busy``: how many answers are 429 before the file comes, each of which asks to wait for as many ``seconds``.
    """

    content: bytes
    etag: str = '"1"'
    ranges: bool = True
    breaks_after: list[int | None] = field(default_factory=list)
    stalls_after: int | None = None
    promised: int | None = None
    length_said: bool = True
    status: int | None = None
    location: str = ""
    busy: int = 0
    seconds: str = "0"

    @property
    def length(self) -> int:
        """What the server says that it has."""
        return len(self.content) if self.promised is None else self.promised

    def cut(self) -> int | None:
        """Where the answer under way is cut."""
        if not self.breaks_after:
            return None
        return self.breaks_after.pop(0) if len(self.breaks_after) > 1 else self.breaks_after[0]


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    path: str
    range: str | None
    if_range: str | None
    status: int


class Server:
    """What a test puts on the server, and what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self.ended = threading.Event()
        self.stalled = threading.Event()
        self.url = ""

    def put(self, path: str, content: bytes, **behaviour: Any) -> str:
        """Serve ``content``; its URL."""
        self.files[path] = Served(content, **behaviour)
        return f"{self.url}/{path}"

    def requests(self, path: str) -> list[Asked]:
        """What was asked for a file, in order."""
        return [asked for asked in self.asked if asked.path == path]


def mirror(server: Server, name: str, content: bytes) -> str:
    """Serve ``content`` as the catalogue's image ``name``, with its publisher's file of checksums; the mirror's URL."""
    entry = read_catalogue()[name]
    digest = hashlib.sha512(content).hexdigest()
    server.put(f"mirror/{entry.image.partition('://')[2]}", content)
    server.put(f"mirror/{entry.checksums_url.partition('://')[2]}", f"{digest}  {file_name(entry.image)}\n".encode())
    return f"{server.url}/mirror"


@contextmanager
def serving(*, certificate: Path | None = None) -> Iterator[Server]:
    """A server that runs during the block; with the file of a certificate and its key over HTTPS."""
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            file = server.files.get(path)
            wanted, if_range = self.headers.get("Range"), self.headers.get("If-Range")
            status, start = _status(file, wanted, if_range)
            server.asked.append(Asked(path, wanted, if_range, status))
            # Whoever asks may be gone, or killed.
            with suppress(ConnectionError):
                self._answer(file, status, start)

        def _answer(self, file: Served | None, status: int, start: int) -> None:
            if file is None or status >= 300:
                self.send_response(status)
                if status == HTTPStatus.TOO_MANY_REQUESTS and file:
                    self.send_header("Retry-After", file.seconds)
                if file and file.location:
                    self.send_header("Location", file.location)
                if file and status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    self.send_header("Content-Range", f"bytes */{file.length}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            total = file.length
            self.send_response(status)
            self.send_header("ETag", file.etag)
            if status == HTTPStatus.PARTIAL_CONTENT:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if file.length_said:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            rest = file.content[start:]
            if file.stalls_after is not None:
                self.wfile.write(rest[: file.stalls_after])
                self.wfile.flush()
                server.stalled.set()
                server.ended.wait()
                return
            cut = file.cut()
            self.wfile.write(rest if cut is None else rest[:cut])

        def log_message(self, *_: Any) -> None:
            """Nothing: the test looks at ``asked``."""

    class Threads(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Whoever does not believe the certificate is gone."""

    with Threads(("127.0.0.1", 0), Handler) as listener:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake in the thread of the connection: whoever breaks it off is not in the way of others.
            listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
        server.url = f"http{'s' if certificate else ''}://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            listener.shutdown()
            thread.join()


def _status(file: Served | None, wanted: str | None, if_range: str | None) -> tuple[int, int]:
    """The answer's status, and where in the file it begins."""
    if file is None:
        return HTTPStatus.NOT_FOUND, 0
    if file.busy:
        file.busy -= 1
        return HTTPStatus.TOO_MANY_REQUESTS, 0
    if file.status is not None:
        return file.status, 0
    match = _RANGE.fullmatch(wanted or "")
    if not match or not file.ranges or (if_range and if_range != file.etag):
        return HTTPStatus.OK, 0
    start = int(match[1])
    if start >= file.length:
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0
    return HTTPStatus.PARTIAL_CONTENT, start
