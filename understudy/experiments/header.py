"""The header in which a caller says a user's bucket."""

__all__ = ["BUCKET", "bucket_of"]

BUCKET = "x-understudy-bucket"


def bucket_of(value: str) -> int:
    """The bucket.

    Raises:
        ValueError: it is no number from 0 to 99.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= 2):
        raise ValueError(f"header {BUCKET}: expected a number from 0 to 99, found {value[:20]!r}")
    return int(value)
