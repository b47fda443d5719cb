"""SSH to somebody's machine as the user has set it up: their known hosts, agent, keys and ``~/.ssh/config``. Nothing of it is changed.

A host that is not known is refused, and so is one that shows another key than before.
"""

import logging
import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from harness.errors import HostError, UsageError
from harness.guest.ssh import Ssh
from harness.host.deadline import Deadline

_KNOWN_HOSTS = ".ssh/known_hosts"
_KNOWN_TO_ALL = Path("/etc/ssh/ssh_known_hosts")
_CONFIG = ".ssh/config"
_PORT = 22


@dataclass(frozen=True)
class UserAddress:
    """``[USER@]MACHINE[:PORT]``, as it was written; what is None the user's configuration says, or ssh's usual value is."""

    machine: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.machine}" if self.user else self.machine


def parse_address(text: str) -> UserAddress:
    """Read ``[USER@]MACHINE[:PORT]``; an IPv6 address with a port stands in brackets. Raises UsageError."""
    match = re.fullmatch(
        r"(?:([^@\s]+)@)?(?:\[([0-9a-fA-F:]+)\]|([^-@:\s\[\]][^@:\s\[\]]*)|([0-9a-fA-F:]+:[0-9a-fA-F:]*))(?::(\d{1,5}))?", text
    )
    if match is None or (match[5] is not None and not 0 < int(match[5]) < 65536):
        raise UsageError(f"not [USER@]MACHINE[:PORT]: {text!r}")
    return UserAddress(match[2] or match[3] or match[4], match[1], int(match[5]) if match[5] else None)


@contextmanager
def connected_as_user(address: UserAddress, deadline: Deadline) -> Iterator[Ssh]:
    """Connect and authenticate as ssh would. Raises HostError that says what to do: not found, refused, not known, changed, not let in."""
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    said = _configuration(address.machine)
    host = str(said.get("hostname", address.machine))
    port = address.port or _configured_port(said)
    keys: Any = [str(Path(name).expanduser()) for name in said.get("identityfile", [])]  # a list is taken, too
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Refusing(address, host, port))
    try:
        for known in (_KNOWN_TO_ALL, Path.home() / _KNOWN_HOSTS):
            if known.is_file():
                client.load_system_host_keys(str(known))
        left_s = max(deadline.remaining_s, 0.01)
        client.connect(
            host,
            port,
            address.user or said.get("user"),
            key_filename=keys or None,
            timeout=left_s,
            banner_timeout=left_s,
            auth_timeout=left_s,
        )
    except HostError:  # of ours: a host that is not known
        client.close()
        raise
    except Exception as error:
        client.close()
        raise _told(error, address, host, port, deadline) from error
    try:
        transport = client.get_transport()
        assert transport is not None  # connect raises otherwise
        yield Ssh(transport, str(address))
    finally:
        client.close()


def _configuration(machine: str) -> dict[str, Any]:
    path = Path.home() / _CONFIG
    if not path.is_file():
        return {}
    try:
        return dict(paramiko.SSHConfig.from_path(str(path)).lookup(machine))
    except (OSError, paramiko.ConfigParseError) as error:
        raise HostError(f"{path} cannot be read: {error}") from error


def _configured_port(said: dict[str, Any]) -> int:
    text = str(said.get("port", _PORT))
    if not text.isdigit():
        raise HostError(f"~/{_CONFIG} names a port that is no number: {text}")
    return int(text)


class _Refusing(paramiko.MissingHostKeyPolicy):
    """Refuses a host that is not known, and says how it becomes known."""

    def __init__(self, address: UserAddress, host: str, port: int) -> None:
        self._address, self._host, self._port = address, host, port

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        adding = f"ssh-keyscan -p {self._port} {shlex.quote(self._host)} >> ~/{_KNOWN_HOSTS}"
        raise HostError(
            f"{self._address} is not known here (~/{_KNOWN_HOSTS}). It shows the {key.get_name()} key {key.fingerprint}.\n"
            f"If that is its key, add it: {adding}"
        )


def _told(error: Exception, address: UserAddress, host: str, port: int, deadline: Deadline) -> HostError:
    """Return what became of a connection, as an error of ours."""
    where = f"{host} port {port}"
    if isinstance(error, paramiko.BadHostKeyException):
        named = host if port == _PORT else f"[{host}]:{port}"
        shown = f"{error.key.get_name()} {error.key.fingerprint}"
        return HostError(
            f"{address} shows another host key than the known one: {shown}. Somebody may be in between, or it was installed anew.\n"
            f"If that is its key now, remove the old one: ssh-keygen -R {shlex.quote(named)}"
        )
    if isinstance(error, socket.gaierror):
        return HostError(f"no address is known for {host}: {error.strerror}")
    if isinstance(error, TimeoutError):
        return HostError(f"{where} did not answer within {deadline.limit_s:.0f} s")
    if isinstance(error, OSError):
        return HostError(f"no connection to {where}: {error.strerror or error}")
    if isinstance(error, paramiko.AuthenticationException | paramiko.PasswordRequiredException):
        return HostError(
            f"{address} lets nobody in with the keys that were offered ({error}): those of the agent, of ~/.ssh, and of IdentityFile in"
            f" ~/{_CONFIG}. Does ssh -o BatchMode=yes -p {port} {address} true work?"
        )
    if isinstance(error, paramiko.SSHException):
        if "No authentication methods available" in str(error):
            return HostError(f"there is no key to offer to {address}: neither an agent, nor a key in ~/.ssh or ~/{_CONFIG}")
        return HostError(f"no SSH to {where}: {error}")
    return HostError(f"no SSH to {where}: {error!r}")
