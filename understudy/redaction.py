"""Words of another program, made fit to be shown: bounded, and without the secrets of this process."""

import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["last_lines", "one_line", "redacted"]

_HIDDEN = "…"
_LEAST = 4  # characters of a secret; what is shorter would be found in words of any text
# A variable whose name has one of these words holds a secret.
_SECRETS = {
    *("AUTH", "AUTHORIZATION", "COOKIE", "COOKIES", "CREDENTIAL", "CREDENTIALS", "KEY", "PASS", "PASSPHRASE"),
    *("PASSWD", "PASSWORD", "SECRET", "SIGNATURE", "TOKEN", "WEBHOOK"),
}
_PLACES = {"DIR", "FILE", "PATH"}  # where a secret lies is none
_USER = re.compile(r"(?<=://)[^/\s@\"']+(?=@)")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def redacted(text: str, environ: Mapping[str, str] = os.environ, more: Iterable[str] = ()) -> str:
    """The text without values of secret variables, and without users and passwords of URLs.

    Args:
        more: secrets that no variable holds.
    """
    hidden = {value for value in (*_values(environ), *more) if len(value) >= _LEAST}
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    return _USER.sub(_HIDDEN, text)


def one_line(text: str, most: int, environ: Mapping[str, str] = os.environ, more: Iterable[str] = ()) -> str:
    """The text as one line of at most ``most`` characters, redacted."""
    line = " ".join(redacted(_CONTROL.sub("", text), environ, more).split())
    return line if len(line) <= most else f"{line[: most - 1]}{_HIDDEN}"


def last_lines(
    text: str, *, lines: int = 20, characters: int = 2000, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """The last lines that are not empty, redacted, as many as fit into ``characters``; of the oldest its end."""
    kept: list[str] = []
    for line in reversed(redacted(_CONTROL.sub("", text.replace("\r", "\n")), environ).splitlines()):
        if not line.strip():
            continue
        room = characters - sum(len(one) + 1 for one in kept) - 1
        if room <= 0 or len(kept) == lines:
            break
        kept.append(line.rstrip()[-room:])
    return kept[::-1]


def _values(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        words = name.upper().split("_")
        if _SECRETS.intersection(words) and words[-1] not in _PLACES:
            yield value.strip()
        if "://" in value:
            yield from _passwords(value)


def _passwords(url: str) -> Iterator[str]:
    """The password of a URL, as it is written and as it is meant."""
    try:
        password = urllib.parse.urlsplit(url).password or ""
    except ValueError:
        return
    yield from {password, urllib.parse.unquote(password)}
