"""Words of other programs, as they are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.redaction import last_lines, one_line, redacted

ENVIRON = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "UNDERSTUDY_REDIS_URL": "redis://me:p%40ssword@redis:6379/0",
    "UNDERSTUDY_ALERT_WEBHOOK": "https://hooks.example/T1/B2",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    "TOKENIZERS_PARALLELISM": "false",
    "HOME": "/home/me",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key wJalrXUtnFEMI is wrong", "key … is wrong"),
        ("POST https://hooks.example/T1/B2/x", "POST …/x"),
        ("as p%40ssword or p@ssword", "as … or …"),
        ("s3://user:other@store/bucket", "s3://…@store/bucket"),
        ("no file /var/run/token, false, /home/me", "no file /var/run/token, false, /home/me"),
    ],
)
def test_secrets_of_the_environment_and_users_of_urls_are_hidden(text: str, shown: str) -> None:
    assert redacted(text, ENVIRON) == shown


def test_one_line_is_one_and_bounded() -> None:
    assert one_line(" a\n\tb\x1b[31m c\x00 ", 20, {}) == "a b c"
    assert one_line("x" * 30, 20, {}) == "x" * 19 + "…"


def test_the_last_lines_are_those_that_say_something() -> None:
    text = "\n".join(f"line {n}" for n in range(100)) + "\n\n \n"
    assert last_lines(text, lines=3) == ["line 97", "line 98", "line 99"]
    assert last_lines("progress 1\rprogress 2\r\n") == ["progress 1", "progress 2"]
    assert last_lines("") == []


@given(st.text(), st.integers(1, 30), st.integers(1, 200))
def test_last_lines_keep_their_bounds_and_their_secrets(text: str, lines: int, characters: int) -> None:
    found = last_lines(text + "hunter22" + text, lines=lines, characters=characters, environ={"PASSWORD": "hunter22"})
    assert len(found) <= lines
    assert len("\n".join(found)) <= characters
    assert "hunter22" not in "\n".join(found)
