"""Who may ask a server of ours: programs of this machine, and elsewhere those that know a token."""

import ipaddress
import secrets
from collections.abc import Sequence

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 12


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str, token: str | None, *, guards: str) -> str | None:
    """The token that must be named: the given one, elsewhere than on loopback else a fresh one; ValueError for one that
    could be guessed."""
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(16)
    if len(token) < SHORTEST_TOKEN:
        raise ValueError(
            f"--token has {len(token)} characters, expected at least {SHORTEST_TOKEN}: it is all that guards {guards}"
        )
    return token


def is_foreign(hosts: Sequence[str], origins: Sequence[str], *, loopback: bool) -> bool:
    """Whether a request's Host and Origin headers say that a page of somebody else sent it, perhaps by DNS rebinding.

    `loopback`: the server listens there, so that it has no other names than LOOPBACK.
    """
    other_page = any(list(hosts) != [origin.partition("://")[2]] for origin in origins)
    rebound = loopback and any(name_of(host) not in LOOPBACK for host in hosts)
    return other_page or rebound


def name_of(host: str) -> str:
    """A Host header without its port."""
    name, _, port = host.rpartition(":")
    return name if port.isdigit() and name else host


def address(host: str, port: int) -> str:
    """The address that a browser takes."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
