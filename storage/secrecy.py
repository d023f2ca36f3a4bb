"""Passwords in addresses: found, so that logs and messages can leave them out. Standard library only."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote

_TELLING = re.compile(r"pass|pwd|token|secret|key", re.IGNORECASE)

HIDDEN = "***"


def secrets_in(address: str) -> tuple[str, ...]:
    """The passwords and tokens that an address holds, in every spelling, the longest first.

    Looks at the user part and at the query: ``postgresql://me:secret@host/db?sslpassword=other`` holds two.
    """
    if _is_file(address):
        return ()
    found = {value for name, value in parse_qsl(address.partition("?")[2]) if _TELLING.search(name)}
    user, colon, password = _user_part(address).partition(":")
    # A user part without a colon is a token: https://token@host.
    told = password if colon else user
    found |= {told, unquote(told)}
    spellings = found | {quote(value, safe="") for value in found} | {quote_plus(value) for value in found}
    return tuple(sorted(spellings - {""}, key=len, reverse=True))


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with each secret replaced by ``***``."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def public_address(address: str) -> str:
    """The address of a database or a server without its user part and query: for people to read."""
    scheme, separator, rest = address.partition("://")
    if not separator or _is_file(address):
        return address
    before, _, query = rest.partition("?")
    # A '@' past the '?' may end a password or stand in the query: nothing of such an address is safe to show.
    return f"{scheme}://{HIDDEN if '@' in query else before.rpartition('@')[2]}"


def _is_file(address: str) -> bool:
    return address.partition(":")[0].partition("+")[0] in ("sqlite", "file")


def _user_part(address: str) -> str:
    # A password may itself hold '/', '?', '#' or '@', so the user part ends at the last '@' of all.
    return address.partition("://")[2].rpartition("@")[0]


class HidingFormatter(logging.Formatter):
    """Formats a record, traceback included, and then hides secrets in all of it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record), self._secrets)
