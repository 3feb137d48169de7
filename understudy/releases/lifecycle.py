"""What a person does with releases: promote, roll back, quarantine."""

from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.releases.aliases import aliases, move
from understudy.releases.quarantine import nearest_healthy, quarantine, quarantined
from understudy.releases.unit import load, resolve

__all__ = ["promote", "put_in_quarantine", "rollback"]


def promote(lake: Lake, ref: str) -> str:
    """Make a release production; returns its digest.

    Raises:
        BadInput: no such release, a damaged one, or one in quarantine.
    """
    return _bring(lake, load(lake, ref).digest, "promoted by hand")


def rollback(lake: Lake, to: str | None = None) -> str:
    """Bring back ``previous``, or another release; returns its digest."""
    if to is None and aliases(lake).get("previous") is None:
        raise BadInput(
            f"lake {lake.root}: expected a previous release, found none; "
            "name one with --to (`understudy releases list` shows them)"
        )
    digest = load(lake, to or "previous").digest
    if digest == aliases(lake).get("production"):
        raise BadInput(f"release {digest[:12]}: expected another release than production, found production itself")
    return _bring(lake, digest, "rolled back")


def put_in_quarantine(lake: Lake, ref: str, reason: str, note: str = "") -> tuple[str, str | None]:
    """Mark a release; where production is hit, go back to its nearest healthy ancestor.

    Returns:
        the digest that was marked, and the one that is production now, or None.
    """
    digest = resolve(lake, ref)
    quarantine(lake, digest, reason, note)
    now = aliases(lake)
    production, sick = now.get("production"), quarantined(lake)
    changes: dict[str, str | None] = {name: None for name, one in now.items() if one in sick}
    if production in sick and production is not None:
        changes["production"] = nearest_healthy(lake, production)
    if changes:
        move(lake, changes, f"{digest[:12]} in quarantine: {reason}", expected={"production": production})
    return digest, aliases(lake).get("production")


def _bring(lake: Lake, digest: str, reason: str) -> str:
    if digest in quarantined(lake):
        raise BadInput(f"release {digest[:12]}: expected a healthy release, found one in quarantine; choose another")
    production = aliases(lake).get("production")
    move(lake, {"production": digest, "previous": production}, reason, expected={"production": production})
    return digest
