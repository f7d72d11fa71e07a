"""Fetch one file of known size over HTTP, going on where an earlier try stopped. Only this module uses the network.

A download grows in a ``.part`` file. Beside it, ``.part.json`` keeps what the server said to recognise the file by, so
that a part is continued only with bytes of the same file (``If-Range``). Proxies come from ``HTTPS_PROXY``,
``HTTP_PROXY`` and ``NO_PROXY``, certificates from the system or ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from medtool import __version__
from medtool.errors import NetworkError, reason_of
from medtool.storage import output_error, write_json

TIMEOUT_S = 30.0
"""How long a server may be silent."""
FRUITLESS_TRIES = 5
"""How many tries in a row may end without a single new byte."""
PAUSE_S = 1.0
"""Wait after the first fruitless try; doubled after each further one."""
BLOCK_BYTES = 1 << 20

_PASSING = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes that there will be."""
Tell = Callable[[str], None]
"""Called with one line for the user."""


class _DroppedError(Exception):
    """The connection ended early; another try may go on from there."""


def download(url: str, part: Path, *, size_bytes: int, progress: Progress, tell: Tell) -> None:
    """Fetch ``url`` into ``part`` until it has ``size_bytes``; what is in it already is kept and continued.

    Its content is not checked here: the caller compares a digest.

    Raises
    ------
    NetworkError
        If the server cannot be reached, refuses, or offers something of another size; the message names the address.
    OutputError
        If ``part`` cannot be written. What has come so far stays.
    """
    fruitless = 0
    most = _size(part)
    while _size(part) != size_bytes:
        try:
            _transfer(url, part, size_bytes, progress, is_first=most == 0 and fruitless == 0)
        except _DroppedError as drop:
            # A server that always starts anew brings no new bytes either: only a new maximum counts.
            fruitless = 0 if _size(part) > most else fruitless + 1
            most = max(most, _size(part))
            if fruitless >= FRUITLESS_TRIES:
                raise NetworkError(f"{url} stopped at {most:,} of {size_bytes:,} bytes: {drop}") from drop
            tell(f"the connection ended at {_size(part):,} of {size_bytes:,} bytes ({drop}); trying again")
            time.sleep(PAUSE_S * 2 ** (fruitless - 1) if fruitless else 0)
    _note_of(part).unlink(missing_ok=True)


def forget_part(part: Path) -> None:
    """Remove what an unfinished download left."""
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, size_bytes: int, progress: Progress, *, is_first: bool) -> None:
    """Do one request and write what it brings."""
    if _size(part) > size_bytes:
        forget_part(part)
    have = _size(part)
    with contextlib.closing(_open(url, part, have, is_first=is_first)) as response:
        start = _checked_start(url, part, have, response, size_bytes)
        if start == 0:
            _write_note(part, url, response.headers)
        have = start
        progress(have, size_bytes)
        try:
            stream = part.open("ab" if start else "wb", buffering=0)
        except OSError as error:
            raise output_error(part, error) from error
        with stream:
            while block := _read(response):
                have += len(block)
                if have > size_bytes:
                    stream.close()
                    forget_part(part)
                    raise NetworkError(f"{url} gives more than the published {size_bytes:,} bytes")
                _write(stream, block, part)
                progress(have, size_bytes)
    if have < size_bytes:
        raise _DroppedError("it was closed early")


def _open(url: str, part: Path, have: int, *, is_first: bool) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"medtool/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := _read_note(part, url):
            headers["If-Range"] = validator
    opener = urllib.request.build_opener()  # urlopen would keep the proxies of its first call
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                forget_part(part)
                raise _DroppedError("the server cannot continue it") from error
            if error.code in _PASSING:
                raise _DroppedError(f"the server answers {error.code} {error.reason}") from error
            raise NetworkError(f"{url} answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        reason = _reason(error.reason)
        if is_first or isinstance(error.reason, ssl.SSLCertVerificationError):
            raise NetworkError(f"{url} cannot be reached: {reason}") from error
        raise _DroppedError(reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(_reason(error)) from error
    except ValueError as error:
        raise NetworkError(f"{url} cannot be reached: {_reason(error)}") from error
    if not isinstance(response, http.client.HTTPResponse):
        raise NetworkError(f"{url} is not an http address")
    return response


def _checked_start(url: str, part: Path, have: int, response: http.client.HTTPResponse, size_bytes: int) -> int:
    """Return where the body belongs in the file, having refused every answer that is not the file.

    Nothing has been written yet, so a proxy's login page costs none of what came before.
    """
    if response.headers.get_content_type() == "text/html":
        raise NetworkError(f"{url} answers with a web page instead of the file: a proxy's or a login page")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if given is None or int(given[1]) != have:
            forget_part(part)
            raise _DroppedError("the server continued it in the wrong place")
        start, total = have, None if given[2] == "*" else int(given[2])
    elif response.status == http.HTTPStatus.OK:
        length = response.headers.get("Content-Length", "")
        start, total = 0, int(length) if length.isdigit() else None
    else:
        raise NetworkError(f"{url} answers {response.status} {response.reason}")
    if total not in (None, size_bytes):
        raise NetworkError(f"{url} offers {total:,} bytes; the published file has {size_bytes:,}")
    return start


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(_reason(error)) from error


def _write(stream: BinaryIO, block: bytes, part: Path) -> None:
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
    except OSError as error:
        raise output_error(part, error) from error


def _reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted here ({error.verify_message}); where a proxy re-signs traffic,"
            " SSL_CERT_FILE names the file with the proxy's certificate"
        )
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up; this machine seems to be offline"
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT_S:g} seconds"
    return reason_of(error) if isinstance(error, BaseException) else " ".join(str(error).split())


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise output_error(part, error) from error


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_note(part: Path, url: str, headers: http.client.HTTPMessage) -> None:
    tag = headers.get("ETag", "")
    validator = tag if tag.startswith('"') else headers.get("Last-Modified", "")  # a weak tag may not be used here
    write_json(_note_of(part), {"url": url, "validator": validator})


def _read_note(part: Path, url: str) -> str:
    try:
        note = json.loads(_note_of(part).read_bytes())
        return str(note["validator"]) if note["url"] == url else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""
