"""Passwords in addresses are found and left out, however they are spelled."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.secrecy import hide, public_address, secrets_in


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@db:5432/studies", "postgresql://db:5432/studies"),
        ("postgresql+psycopg://me:se/cr@et@db/studies?password=secret", "postgresql+psycopg://db/studies"),
        ("postgresql://me:a#b@db/studies", "postgresql://db/studies"),
        ("postgresql://me:a?b@db/studies", "postgresql://***"),
        ("postgresql://db/studies?password=a@b", "postgresql://***"),
        ("https://token@mlflow.example.org", "https://mlflow.example.org"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////home/a@b/studies.db", "sqlite:////home/a@b/studies.db"),
        ("/home/a@b/studies.db", "/home/a@b/studies.db"),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(address: str, shown: str) -> None:
    assert public_address(address) == shown


def test_secrets_are_found_in_every_part_of_an_address() -> None:
    address = "postgresql://me:p%40ss@db:5432/runs?sslpassword=other&connect_timeout=5"
    assert set(secrets_in(address)) == {"p%40ss", "p@ss", "p%2540ss", "other"}
    assert secrets_in("https://hunter2@mlflow.example.org") == ("hunter2",)
    assert secrets_in("sqlite:////home/me:a@b/studies.db") == ()


@given(st.text(min_size=9).filter(lambda word: word not in "postgresql://db:5432/studies"))
def test_no_password_is_seen_in_an_address_or_in_a_message_that_quotes_it(password: str) -> None:
    for spelled in (password, quote(password, safe="")):
        address = f"postgresql://me:{spelled}@db:5432/studies"
        assert public_address(address) in ("postgresql://db:5432/studies", "postgresql://***")
        assert password not in hide(f"can't reach {address}", secrets_in(address))
