"""API keys: any lets in, none is told, none is logged."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from eftlocal.errors import UsageError
from eftlocal.server.security.keys import KeyCheck, check_keys, read_key_file

from .serving import api_of, run_app, settings_of
from .test_server_security import ask, router

TWO_KEYS = {"keys": ("first-key", "second-key")}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer first-key"}, 200),
        ({"authorization": "bearer second-key"}, 200),
        ({"authorization": "Bearer  second-key "}, 200),
        ({"x-api-key": "second-key"}, 200),
        ({"authorization": "Bearer x", "x-api-key": "first-key"}, 401),
        ({"authorization": "Basic first-key"}, 401),
        ({"authorization": "first-key"}, 401),
        ({"authorization": "Bearer first-ke"}, 401),
        ({"authorization": "Bearer first-keyy"}, 401),
        ({"authorization": "Bearer first-key,second-key"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer \xff\xfe"}, 401),
        ({"x-api-key": ""}, 401),
    ],
)
def test_keys(headers: dict[str, str], status: int) -> None:
    """Any key lets in, in both headers; everything else is 401 and says what is asked for."""
    settings = settings_of(**TWO_KEYS)
    found, answer = ask(settings, headers=headers)
    assert found == status
    assert ("www-authenticate" in answer) == (status == 401)
    assert ask(settings, "/health", headers=headers)[0] == 200


@pytest.mark.parametrize(
    "path", ["/nowhere", "/docs", "/openapi.json", "/metrics", "//health", "/health/"]
)
def test_everything_but_health_needs_a_key(path: str) -> None:
    """Also what is not there: nobody learns what the server has."""
    assert ask(settings_of(**TWO_KEYS), path)[0] == 401


def test_all_keys_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first match does not end the comparison: its time says nothing."""
    seen = []
    real = hmac.compare_digest

    def compare(known: bytes, given: bytes) -> bool:
        seen.append(len(known) == len(given))
        return real(known, given)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    check = KeyCheck(api_of(settings_of(), [router]), ("a", "longer", "c"))
    assert run_app(check, path="/thing", headers={"x-api-key": "a"})[0] == 200
    assert seen == [True] * 3


def test_key_files(tmp_path: Path) -> None:
    """One key per line; remarks and empty lines are left out; mistakes never show a key."""
    file = tmp_path / "keys"
    file.write_text("# of the team\nalpha\n\n  beta  \n#gamma\n")
    assert read_key_file(file) == ("alpha", "beta")
    file.write_text("# nothing\n")
    with pytest.raises(UsageError, match="there is no key in it"):
        read_key_file(file)
    with pytest.raises(UsageError, match="cannot read the keys"):
        read_key_file(tmp_path / "missing")
    assert check_keys(["a", "b", "a"]) == ("a", "b")
    for wrong in ("", "two words", "naïve", "tab\t"):
        with pytest.raises(UsageError) as caught:
            check_keys([wrong])
        assert not wrong or wrong not in str(caught.value)


def test_keys_are_in_no_repr() -> None:
    """Whoever logs settings logs no key."""
    assert "first-key" not in repr(settings_of(**TWO_KEYS))
