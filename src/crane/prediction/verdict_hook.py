"""What is told each verdict while a folder is watched: a command, or an address nearby."""

import ipaddress
import json
import logging
import socket
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult, urlsplit

from crane.errors import UsageError, counted

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that one verdict may take to be told."""
MAX_WAITING = 1000
"""Verdicts that wait while one is told; further ones are reported as not told."""


class VerdictHook:
    """Tells verdicts one after the other in a thread; a failure is reported and stops nothing.

    Args:
        target: A command and its arguments, which gets JSON on its standard input and never passes
            through a shell; or an address `http://HOST:PORT/PATH` of this machine or of a private
            network, which gets the same by POST.

    Raises:
        UsageError: It is neither, or the address is not private.
    """

    def __init__(self, target: str | Sequence[str]) -> None:
        self.target = target
        self.num_failed = 0
        self.check(target)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="crane-verdict")
        self._waiting: set[Future[None]] = set()

    @classmethod
    def check(cls, target: str | Sequence[str]) -> None:
        """Refuse what a hook does not take; errors as of the class."""
        if isinstance(target, str):
            private_address(cls._split(target))

    @staticmethod
    def _split(target: str) -> SplitResult:
        try:
            parts = urlsplit(target)
            is_address = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise UsageError(
                f"must be a command as [PROGRAM,ARGUMENT] or http://HOST:PORT/PATH, not {target}",
                key="on_verdict",
            )
        return parts

    def tell(self, verdict: Mapping[str, object]) -> None:
        """Tell a verdict, in the background."""
        self._waiting = {one for one in self._waiting if not one.done()}
        if len(self._waiting) >= MAX_WAITING:
            self._failed(verdict, f"{MAX_WAITING} verdicts are waiting")
            return
        self._waiting.add(self._pool.submit(self._tell, verdict))

    def close(self) -> None:
        """Give what is waiting some seconds, and report what was not told."""
        left = wait(self._waiting, TIMEOUT).not_done
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.num_failed += len(left)
        if self.num_failed:
            logger.warning("on_verdict: %s not told", counted(self.num_failed, "verdict was"))

    def _tell(self, verdict: Mapping[str, object]) -> None:
        content = json.dumps(verdict).encode()
        try:
            if isinstance(self.target, str):
                _post(self._split(self.target), content)
            else:
                _run(self.target, content)
        except (OSError, HTTPException, UsageError, RuntimeError) as error:
            self._failed(verdict, str(error) or type(error).__name__)
        except subprocess.TimeoutExpired:
            self._failed(verdict, f"no answer within {TIMEOUT:g} seconds")

    def _failed(self, verdict: Mapping[str, object], reason: str) -> None:
        self.num_failed += 1
        logger.warning("on_verdict: %s was not told: %s", verdict["image"], reason)


def _run(command: Sequence[str], content: bytes) -> None:
    done = subprocess.run(
        list(command),
        input=content,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{command[0]} ended with {done.returncode} {' '.join(said)}".strip())


def _post(parts: SplitResult, content: bytes) -> None:
    host, port = private_address(parts)
    connection = HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Content-Type": "application/json", "Host": parts.netloc.rpartition("@")[2]}
        connection.request("POST", path, content, headers)
        code = connection.getresponse().status  # another address, as of a redirect, is not asked
    finally:
        connection.close()
    if not 200 <= code < 300:
        raise RuntimeError(f"{parts.hostname} answered {code}")


def private_address(parts: SplitResult) -> tuple[str, int]:
    """The number and port of a host of this machine or of a private network.

    The number that was checked is the one to connect to: a name may mean another one later.

    Raises:
        UsageError: The host is not known, or one of its numbers is public.

    >>> private_address(urlsplit("http://127.0.0.1:9000/verdicts"))
    ('127.0.0.1', 9000)
    >>> private_address(urlsplit("http://8.8.8.8/"))
    Traceback (most recent call last):
    crane.errors.UsageError: on_verdict: 8.8.8.8 is not on this machine or a private network
    """
    host, port = str(parts.hostname), parts.port or 80
    try:
        numbers = [str(ipaddress.ip_address(host))]
    except ValueError:  # a name
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"the host {host} is not known: {error}", key="on_verdict") from error
        numbers = [str(entry[4][0]) for entry in found]
    if not all(map(_is_private, numbers)):
        raise UsageError(f"{host} is not on this machine or a private network", key="on_verdict")
    return numbers[0], port


def _is_private(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    # Link-local numbers are private, too: cloud machines have their credentials there.
    is_odd = address.is_link_local or address.is_unspecified or address.is_multicast
    return address.is_loopback or (address.is_private and not is_odd)
