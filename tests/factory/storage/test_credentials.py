"""No credential reaches a log, a row or an error message."""

from __future__ import annotations

import json
import random

import pytest

from factory.line.failure import Failure
from factory.storage import credentials
from factory.storage.credentials import HIDDEN, scrub
from factory.storage.store import StorageConfig, open_store
from jobs.errors import guarded

SIGNED = (
    "GET https://bucket.s3.amazonaws.com/a.png?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260101&X-Amz-Date=2026"
    "&X-Amz-Signature=0123456789abcdef&versionId=7 failed"
)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (SIGNED, "0123456789abcdef"),
        (SIGNED, "AKIAIOSFODNN7EXAMPLE"),
        ("cannot reach http://user:hunter2@host:9000/x", "hunter2"),
        ("https://host/x?api_key=abcdef123&y=1", "abcdef123"),
        ("https://host/x?sv=1&sig=abc%2Fdef", "abc%2Fdef"),
        ("Authorization: Bearer abcdefgh.ijkl", "abcdefgh.ijkl"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/x, Signature=deadbeef", "deadbeef"),
        ("aws_secret_access_key = 'wJalrXUtnFEMI/K7MDENG'", "wJalrXUtnFEMI/K7MDENG"),
        ("token hf_abcdefghijklmnopqrst is invalid", "hf_abcdefghijklmnopqrst"),
    ],
)
def test_credentials_are_hidden(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in scrub(text)
    assert HIDDEN in scrub(text)


def test_values_of_secret_variables_are_hidden_and_others_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plain-looking-value")
    monkeypatch.setenv("HF_HOME", "/models/of/mine")
    assert scrub("a plain-looking-value in /models/of/mine") == f"a {HIDDEN} in /models/of/mine"


def test_secrets_are_hidden_as_json_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", 'gr\u00fcn"e\\wiese')
    assert scrub(json.dumps({"error": 'no entry with gr\u00fcn"e\\wiese'})) == json.dumps(
        {"error": f"no entry with {HIDDEN}"}
    )


def test_no_pattern_matches_a_text_that_is_passed_over() -> None:
    """Texts of random pieces, in random case: what each pattern alone would hide is hidden."""
    chance = random.Random(0)
    pieces = [
        "://",
        "u:p@",
        "?",
        "&",
        "key",
        "sig",
        "=",
        "secret",
        "Secret",
        "\u017fecret",
        "se\u017f\u017f\u0131on",
        "session",
        "auth",
    ]
    pieces += [
        "token",
        "AKIA",
        "ASIA",
        "0123456789ABCDEF",
        "hf_",
        "github_pat_",
        "sk-",
        "xoxb-",
        "Bearer ",
        "Bas\u0131c ",
    ]
    pieces += [
        "Basic ",
        "AWS ",
        "aws4-hmac-sha256 ",
        "signature=",
        "S\u0131gnature=0a",
        "abcdefghijklmnop",
        " ",
        ":",
        "'",
    ]
    matched = set()
    for _ in range(20_000):
        text = "".join(chance.choices(pieces, k=6))
        text = text.upper() if chance.random() < 0.2 else text
        for number, (words, pattern, _) in enumerate(credentials._PATTERNS):
            if pattern.search(text):
                matched.add(number)
                assert any(word in text.casefold() for word in words), (text, pattern.pattern)
    assert matched == set(range(len(credentials._PATTERNS)))


@pytest.mark.parametrize("text", ["a red car", "key 'a/../b' is not allowed", "s3://bucket/a.parquet: 503 SlowDown"])
def test_other_text_stays(text: str) -> None:
    assert scrub(text) == text


def test_rows_and_messages_are_scrubbed(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"error_stage": None}
    Failure.of(OSError(SIGNED)).mark(row, "image")
    assert "0123456789abcdef" not in str(row)

    def broken() -> int:
        raise ValueError(SIGNED)

    assert guarded(broken) == 3
    assert "0123456789abcdef" not in capsys.readouterr().err


def test_addresses_with_credentials_are_refused_without_repeating_them() -> None:
    with pytest.raises(ValueError, match="do not belong into an address") as error:
        open_store("s3://AKIAIOSFODNN7EXAMPLE:hunter22@bucket/x")
    assert "hunter22" not in str(error.value)
    with pytest.raises(ValueError, match=r"storage\.endpoint") as error:
        StorageConfig(endpoint="http://user:hunter22@host")
    assert "hunter22" not in str(error.value)
