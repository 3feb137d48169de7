"""A run's plan: written once, read by every step and by every rerun."""

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from understudy import __version__, renames
from understudy.errors import BadInput

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What a run works on, frozen before it starts. Days are ``YYYY-MM-DD`` in ``time_zone``.

    Args:
        purpose: ``train``; ``evaluate``: every day of the window is scored, none trains; ``compare``: rows and
            features for several configurations; or ``refresh``: only features are built.
        history_start: first day whose events may count in features.
        window_start: first day of the training window.
        window_end: last day of the window; early stopping, calibration and gates use it.
        snapshot: number of the snapshot of the ingested tables.
        production: digest of the release in production, or None.
        reference: digest of the release that drift and gates compare with: production, or its nearest
            healthy ancestor where it is in quarantine, or None.
        reference_features: the reference's section ``features``, or None; what it reads is built and retrieved too.
        teacher: digest of the release that teaches, or None.
        teacher_note: why this teacher, or none, in words.
        control: whether a network that nobody teaches is trained beside the student.
        given_up: whether nobody teaches because it has not paid.
        quarantined: digests of releases whose ranked rows stay out.
        input_fingerprint: digest of the ingested tables up to window_end.
        config_digest: digest of the configuration.
        config: the configuration itself, in today's names; without keys that are newer than the plan, which
            ``section.stored`` fills in.
        version: of the package.
    """

    run_id: str
    purpose: str
    time_zone: str
    heads: tuple[str, ...]
    history_start: str
    window_start: str
    window_end: str
    snapshot: int
    production: str | None
    reference: str | None
    reference_features: dict[str, Any] | None
    teacher: str | None
    teacher_note: str
    control: bool
    given_up: bool
    quarantined: tuple[str, ...]
    input_fingerprint: str
    config_digest: str
    config: dict[str, Any]
    version: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Plan":
        """Read back what ``to_json`` wrote, also in an earlier version.

        Raises:
            BadInput: another version wrote it, with fields that this one does not know, or without those that it needs.
        """
        known = {one.name for one in fields(cls)}
        needed = {one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING}
        if not needed <= set(value) <= known:
            raise BadInput(
                f"run {value.get('run_id')}: expected a plan that version {__version__} can read, found one by version "
                f"{value.get('version')} with other fields; use that version, or start a fresh run"
            )
        tuples = {"heads": tuple(value["heads"]), "quarantined": tuple(value["quarantined"])}
        names = {"config": renames.today(value["config"]), "reference_features": _features(value["reference_features"])}
        return cls(**{**value, **tuples, **names})


def _features(section: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if section is None else dict(renames.today({"features": section})["features"])
