"""Publishing with a trustee: the requests of :mod:`sevlaunch.owner.kbs`, one after the other."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from sevlaunch import __version__
from sevlaunch.errors import HostError, InsecureUse, UsageError
from sevlaunch.image.web import is_private
from sevlaunch.owner.kbs import Publication

# Seconds for one answer.
LIMIT = 30.0
_MAX_ANSWER = 1 << 16
# The kind of an error about who asks.
_NO_ACCESS = "AdminAuth"
_ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def publish(
    url: str, requests: Sequence[Publication], *, token: str = "", authority: Path | None = None, insecure: bool = False
) -> Iterator[Publication]:
    """Make the requests, and yield each that the service took; it waits for the network.

    :param url: of the KBS, such as ``https://kbs.example:8080``.
    :param token: of its administrator; empty: none is sent.
    :param authority: a file with the certificates that the server's has to be signed by, in place of the system's.
    :param insecure: send token and resources over a connection that is not encrypted.
    :raise InsecureUse: for such a connection, unless it is allowed.
    :raise UsageError: when ``url`` is none of a server.
    :raise HostError: when a request is refused, or there is no answer; what was yielded has been taken.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"wanted the URL of a KBS, found {url}", hint="https://HOST:PORT")
    if not is_private(url) and not insecure:
        raise InsecureUse(
            f"the connection to {url} is not encrypted: anybody on the way gets the token and the resources, and can "
            "change the rest",
            hint="https://HOST:PORT, or a tunnel that ends at localhost; to send it all the same: --insecure",
        )
    try:
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
    except OSError as error:
        raise UsageError(f"the certificates in {authority} can't be read: {error}", hint="give PEM") from error
    opener = urllib.request.build_opener(_NoRedirections(), urllib.request.HTTPSHandler(context=context))
    for request in requests:
        _post(opener, f"{url.rstrip('/')}/{request.path}", request, token)
        yield request


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    """A KBS redirects nobody, and whoever does is not to get the token."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def _post(opener: urllib.request.OpenerDirector, url: str, request: Publication, token: str) -> None:
    headers = {"User-Agent": f"sevlaunch/{__version__}", "Content-Type": request.kind}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    asked = urllib.request.Request(url, request.content, headers, method="POST")
    try:
        with opener.open(asked, timeout=LIMIT) as answer:
            answer.read(_MAX_ANSWER)
    except urllib.error.HTTPError as error:
        raise _refusal(url, request, error, with_token=bool(token)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise HostError(
            f"the {request.what} can't be published: no answer from {url}: {reason}",
            hint="is the address right, and the service there? --ca FILE names an authority of one's own",
        ) from error


def _refusal(url: str, request: Publication, error: urllib.error.HTTPError, *, with_token: bool) -> HostError:
    with error:
        body = error.read(_MAX_ANSWER)
    kind, detail = _said(body)
    if kind and not kind.startswith(_NO_ACCESS):
        hint = "fix what it names, and publish again"
    elif error.code == http.HTTPStatus.UNAUTHORIZED:
        hint = "is the token that of its administrator, and not expired?" if with_token else "--admin-token FILE"
    else:
        hint = "is this the address of a KBS?"
    said = f": {kind}: {detail}" if kind else ""
    return HostError(f"the {request.what}: {url} answers {error.code}{said}", hint=hint)


def _said(body: bytes) -> tuple[str, str]:
    """The kind of an error and its details, as RFC 7807 has them: kbs/src/error.rs. Empty: it says nothing."""
    try:
        document = json.loads(body)
        return str(document["type"]).removeprefix(_ERRORS), str(document.get("detail", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
