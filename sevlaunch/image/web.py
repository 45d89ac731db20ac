"""One request to a web server: redirections that stay encrypted, an end to silence, and why there is no answer."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urlsplit

from sevlaunch import __version__
from sevlaunch.errors import ImageError

# A server that says nothing for so long has stalled, by default.
STALL_LIMIT = 30.0
# Files of checksums and signatures.
MAX_TEXT = 4 << 20
_PIECE = 1 << 18
_AGAIN = "try again: what has come is kept"
# Compressed on the way it would have another length.
_HEADERS = {"User-Agent": f"sevlaunch/{__version__}", "Accept-Encoding": "identity"}


class Broken(ImageError):
    """The answer did not come whole, and may come at the next try.

    ``wait``: seconds that the server asks for until then, or 0.
    """

    wait = 0.0


class NotThere(ImageError):
    """The server has no such file."""


class Cancelled(Exception):
    """Another thread asked for the end: :meth:`Line.cancel`."""


class Line:
    """The connections of one download, which another thread can end.

    :param stall_limit: seconds without a byte, after which a server counts as stalled.
    """

    def __init__(self, stall_limit: float = STALL_LIMIT) -> None:
        self.stall_limit = stall_limit
        self._cancelled = threading.Event()
        self._socket: socket.socket | None = None

    def cancel(self) -> None:
        """End the request under way, and every later one, with :class:`Cancelled`; from any thread."""
        self._cancelled.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def pause(self, seconds: float) -> None:
        """Wait.

        :raise Cancelled: when it is ended.
        """
        self._cancelled.wait(seconds)
        self.check()

    def check(self) -> None:
        """:raise Cancelled: when it is ended."""
        if self._cancelled.is_set():
            raise Cancelled

    def connected(self, connection: socket.socket) -> None:
        """Remember the connection under way."""
        self._socket = connection
        self.check()


class Answer:
    """What a server answers, beginning with its headers."""

    def __init__(self, url: str, response: Any, line: Line) -> None:
        self.url = url
        self.status = int(response.status)
        self.headers: http.client.HTTPMessage = response.headers
        self._response = response
        self._line = line

    @property
    def length(self) -> int | None:
        """The bytes that the server promises to send; None where it promises nothing."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    def pieces(self) -> Iterator[bytes]:
        """The body, and no more than the server promises: it may say nothing after that, and not end either.

        :raise Broken: when it stalls or breaks off in a way that the connection shows. Fewer bytes than were promised
            are for the caller to see.
        """
        left = self.length
        with _named_problems(self.url, self._line):
            while left != 0 and (piece := self._response.read1(_PIECE if left is None else min(_PIECE, left))):
                self._line.check()
                left = None if left is None else left - len(piece)
                yield piece
        self._line.check()


@contextmanager
def request(url: str, line: Line, headers: dict[str, str] | None = None) -> Iterator[Answer]:
    """The answer to a GET; 416 (there is no such range) counts as one.

    :raise ImageError: when there is none; :class:`Broken` when there may be one later.
    """
    asked = urllib.request.Request(url, headers={**_HEADERS, **(headers or {})})
    opener = urllib.request.build_opener(_Redirections(), *_handlers(line))
    with _named_problems(url, line):
        line.check()
        try:
            response = opener.open(asked, timeout=line.stall_limit)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                error.close()
                raise
            response = error
    with response:
        yield Answer(url, response, line)


def read_text(url: str, line: Line) -> bytes:
    """A short file, whole.

    :raise ImageError: when it can't be had, or is longer than any file of checksums.
    """
    with request(url, line) as answer:
        content = bytearray()
        for piece in answer.pieces():
            content += piece
            if len(content) > MAX_TEXT:
                raise ImageError(f"{url} has more than {MAX_TEXT >> 20} MiB: wanted checksums, or a signature")
        if answer.length is not None and len(content) != answer.length:
            raise Broken(f"{url} breaks off: {answer.length} bytes were promised, {len(content)} came", hint=_AGAIN)
    return bytes(content)


def is_private(url: str) -> bool:
    """Whether nobody on the way can change what comes from there: it is encrypted, or does not leave this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return here and ("http" not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(host)))


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Those of urllib, but never from an encrypted connection to one that is not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise ImageError(
                f"{req.full_url} redirects to {newurl}, which is not encrypted: it is not followed",
                hint="name a mirror that is: --mirror URL",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _handlers(line: Line) -> tuple[urllib.request.BaseHandler, urllib.request.BaseHandler]:
    """Those of urllib for HTTP and HTTPS, whose connections ``line`` knows."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            line.connected(self.sock)

    class Encrypted(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            line.connected(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class EncryptedHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Encrypted, req, context=ssl.create_default_context())

    return PlainHandler(), EncryptedHandler()


@contextmanager
def _named_problems(url: str, line: Line) -> Iterator[None]:
    """Say what went wrong in the words of who wanted the file."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        line.check()
        raise _problem(url, line, error) from error


def _problem(url: str, line: Line, error: Exception) -> ImageError:
    if isinstance(error, urllib.error.HTTPError):
        return _refusal(url, error)
    cause: object = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).hostname
    if isinstance(cause, TimeoutError):
        return Broken(f"{url}: the server says nothing for {line.stall_limit:g} s", hint=_AGAIN)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ImageError(
            f"{url}: the certificate of {host} is not valid: {cause.verify_message}",
            hint="install ca-certificates, set the clock, or name SSL_CERT_FILE for an authority of one's own",
        )
    if isinstance(cause, socket.gaierror):
        return ImageError(
            f"{url}: no address of {host} can be found: {cause.strerror}",
            hint="is there a network? behind a proxy set https_proxy; without one bring the file, or use --mirror URL",
        )
    if isinstance(cause, (ConnectionError, http.client.IncompleteRead)):
        refused = isinstance(cause, ConnectionRefusedError)
        what = f"{host} refuses the connection" if refused else "the connection breaks off"
        return Broken(f"{url}: {what}", hint="is the server there? try again later" if refused else _AGAIN)
    if isinstance(cause, OSError):
        return Broken(f"{url}: {host} can't be reached: {cause.strerror or cause}", hint="is there a network?")
    return ImageError(f"{url}: no answer as of a web server: {cause}", hint="is the URL right?")


def _refusal(url: str, error: urllib.error.HTTPError) -> ImageError:
    if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return NotThere(f"{url} is not there ({error.code})", hint="has it moved? name its URL, or another mirror")
    kind = Broken if error.code >= 500 or error.code == HTTPStatus.TOO_MANY_REQUESTS else ImageError
    refusal = kind(f"{url}: the server answers {error.code} {error.reason}", hint="try again later, or another mirror")
    # The header may have a date, too, which is by the server's clock.
    said = error.headers.get("Retry-After", "")
    if isinstance(refusal, Broken) and said.isascii() and said.isdigit():
        refusal.wait = float(said)
    return refusal
