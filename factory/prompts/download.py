"""Fetch pictures by https:// from hosts that the user allows, and from public addresses alone: `fetch`."""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from factory.prompts.row_error import short
from recon.user_error import UserError

ATTEMPTS, PAUSE_SECONDS = 4, 0.5
"""Tries of a fetch that fails for a passing reason; the pause after the first, doubled each time."""
CONNECT_SECONDS, SECONDS = 10.0, 60.0
"""Longest wait for a connection, and longest time of one try."""
MAX_REDIRECTS = 3
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_HEADERS = {"User-Agent": "im3d", "Accept": "image/png, image/jpeg, image/webp", "Accept-Encoding": "identity"}


class DownloadError(ValueError):
    """A picture that was not fetched; `kind` is the error type of its row."""

    def __init__(self, message: str, kind: str = "UnreadableImage") -> None:
        super().__init__(message)
        self.kind = kind


class _PassingError(Exception):
    """What may go well the next time."""


class _Place(NamedTuple):
    """Where a picture lies: a host that is allowed, its port, and what is asked for there."""

    host: str
    port: int
    target: str


def checked_hosts(hosts: Sequence[str]) -> frozenset[str]:
    """Hosts with their ports, 443 where none is given.

    Raises:
        UserError: for what is no host's name.
    """
    for host in hosts:
        if not _HOST.fullmatch(host.lower()):
            raise UserError(f"--image-hosts {host[:80]!r} is no host; name each one, as images.example.com")
    return frozenset(host.lower() if ":" in host else f"{host.lower()}:443" for host in hosts)


def fetch(address: str, hosts: frozenset[str], max_bytes: int) -> bytes:
    """What lies at an address; certificates are checked, proxies of the environment are not used.

    Args:
        address: https://... hosts: as `checked_hosts` gives them; redirects may lead to these alone.
        max_bytes: most bytes that are taken.

    Raises:
        DownloadError: when the host is not allowed or has an address that is not public, the answer is larger or no
            picture's, or the fourth try fails too.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _followed(address, hosts, max_bytes)
        except _PassingError as error:
            reason = str(error)
        if attempt + 1 < ATTEMPTS:
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise DownloadError(f"{short(address)} was not fetched in {ATTEMPTS} tries: {reason}", "ImageUnreachable")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, not of this machine, its network or a cloud's services."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = (
            ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        )
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def _followed(address: str, hosts: frozenset[str], max_bytes: int) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        found = _answer(_place(address, hosts), max_bytes)
        if isinstance(found, bytes):
            return found
        address = urljoin(address, found)
    raise DownloadError(f"{short(address)} is redirected over {MAX_REDIRECTS} times")


def _place(address: str, hosts: frozenset[str]) -> _Place:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError as error:
        raise DownloadError(f"{short(address)} is no address: {error}") from error
    if parts.scheme != "https" or parts.username is not None:
        raise DownloadError(f"{short(address)} is not fetched; only https:// without user name and password is")
    if f"{host}:{port}" not in hosts:
        named = f"{host}:{port}" if parts.port else host
        raise DownloadError(f"{short(address)} is not fetched: {short(named)} is none of --image-hosts")
    query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    return _Place(host, port, quote(parts.path or "/", safe=_SAFE) + query)


_SAFE = "/%:@!$&'()*+,;=~?"
"""Characters of an address that stay as they are."""


def _answer(place: _Place, max_bytes: int) -> bytes | str:
    """The bytes at a place, or the address that it redirects to."""
    connection = _connected(place)
    late = threading.Event()
    timer = threading.Timer(SECONDS, _cut, (connection.sock, late))
    timer.daemon = True
    timer.start()
    try:
        connection.request("GET", place.target, headers=_HEADERS)
        return _body(connection.getresponse(), place, max_bytes, late)
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"over {SECONDS:g} s" if late.is_set() else str(error) or type(error).__name__) from error
    finally:
        timer.cancel()
        connection.close()


def _body(response: http.client.HTTPResponse, place: _Place, max_bytes: int, late: threading.Event) -> bytes | str:
    if response.status in _REDIRECTS and (location := response.getheader("Location")):
        return location
    if response.status in _PASSING:
        raise _PassingError(f"{place.host} answered {response.status}")
    if response.status != http.client.OK:
        raise DownloadError(f"of {place.host} was not fetched: it answered {response.status}")
    length, data = response.length, bytearray()
    while len(data) <= max_bytes and (length or 0) <= max_bytes:
        chunk = response.read(1 << 16)
        data += chunk
        if not chunk:
            if late.is_set() or (length is not None and len(data) < length):
                raise _PassingError(f"over {SECONDS:g} s" if late.is_set() else "the answer was cut off")
            return bytes(data)
    raise DownloadError(f"of {place.host} has over {max_bytes} bytes, the limit: shrink it", "ImageTooLarge")


def _cut(connected: socket.socket, late: threading.Event) -> None:
    """End a connection that takes too long; whoever reads from it sees its end."""
    late.set()
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _connected(place: _Place) -> http.client.HTTPSConnection:
    """A connection to one of the host's addresses, each of which was looked at."""
    context, reason = ssl.create_default_context(), ""
    for address in _addresses(place):
        connection = http.client.HTTPSConnection(place.host, place.port, timeout=SECONDS)
        try:
            plain = socket.create_connection((address, place.port), CONNECT_SECONDS)
            connection.sock = context.wrap_socket(plain, server_hostname=place.host)
        except ssl.SSLCertVerificationError as error:
            raise DownloadError(f"of {place.host} was not fetched: {error.verify_message}") from error
        except OSError as error:
            reason = str(error)
            continue
        connection.sock.settimeout(SECONDS)
        return connection
    raise _PassingError(f"no connection to {place.host}: {reason}")


def _addresses(place: _Place) -> list[str]:
    """The IP addresses of a host; DownloadError where one is not public, or there is none."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise _PassingError(f"no answer on where {place.host} is") from error
        raise DownloadError(f"of {place.host} was not fetched: there is no such host") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        if not is_public(address):
            raise DownloadError(f"of {place.host} is not fetched: its address {address} is no public one")
    return addresses
