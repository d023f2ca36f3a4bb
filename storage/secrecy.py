"""Passwords in addresses: found, so that logs and messages can leave them out. Standard library only."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlencode, urlsplit, urlunsplit

_TELLING = re.compile(r"pass|pwd|token|secret|key", re.IGNORECASE)

HIDDEN = "***"


def secrets_in(address: str) -> tuple[str, ...]:
    """The passwords and tokens that an address holds, in every spelling, the longest first.

    Looks at the user part and at the query: ``postgresql://me:secret@host/db?sslpassword=other`` holds two.
    """
    parts = urlsplit(address)
    found = {value for name, value in parse_qsl(parts.query) if _TELLING.search(name)}
    if parts.password:
        found |= {parts.password, unquote(parts.password)}
    spellings = found | {quote(value, safe="") for value in found} | {quote_plus(value) for value in found}
    return tuple(sorted(spellings - {""}, key=len, reverse=True))


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with each secret replaced by ``***``."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def public_address(address: str) -> str:
    """The address without its user part, the telling values of its query hidden: for people to read."""
    if not secrets_in(address) and "@" not in urlsplit(address).netloc:
        return address
    parts = urlsplit(address)
    query = [(name, HIDDEN if _TELLING.search(name) else value) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(query, safe="*/")))


class HidingFormatter(logging.Formatter):
    """Formats a record, traceback included, and then hides secrets in all of it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record), self._secrets)
