"""The headers in which a caller says a user's bucket, and, in a replay, what time it is."""

__all__ = ["BUCKET", "NOW", "bucket_of", "now_of"]

BUCKET = "x-understudy-bucket"
NOW = "x-understudy-now"
_LATEST_S = 1e11


def bucket_of(value: str) -> int:
    """The bucket.

    Raises:
        ValueError: it is no number from 0 to 99.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= 2):
        raise ValueError(f"header {BUCKET}: expected a number from 0 to 99, found {value[:20]!r}")
    return int(value)


def now_of(value: str) -> float:
    """Seconds since 1970.

    Raises:
        ValueError: it is no such number.
    """
    try:
        now_s = float(value)
    except ValueError:
        now_s = -1.0
    if not 0 <= now_s < _LATEST_S:
        raise ValueError(f"header {NOW}: expected seconds since 1970, found {value[:20]!r}")
    return now_s
