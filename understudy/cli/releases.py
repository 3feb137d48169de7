"""``understudy releases``: what there is, and how to take it back."""

import getpass
from typing import Any

import click

from understudy import releases as store
from understudy.cli.output import json_option, lake_option, number, print_json, print_table, short
from understudy.lake import Lake
from understudy.releases import lifecycle
from understudy.releases.approvals import approval, give_word
from understudy.releases.fetching import fetch
from understudy.releases.mirror import Mirrored, keep_mirror, mirror
from understudy.releases.quarantine import REASONS

__all__ = ["releases"]

_note_option = click.option("--note", default="", help="For whoever reads it later.")


def _somebody() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


_by_option = click.option("--by", default=_somebody, show_default="you", metavar="NAME", help="Whose word it is.")


@click.group()
def releases() -> None:
    """Look at releases, approve or refuse, promote, roll back, quarantine, fetch, mirror.

    Where UNDERSTUDY_MLFLOW names an MLflow server, promote, rollback and quarantine bring it up to date as well.
    """


@releases.command("list")
@lake_option
@json_option
def list_releases(lake: str, as_json: bool) -> None:
    """Every release: aliases, teacher, window, metrics; newest window first."""
    opened = Lake.open(lake)
    found = [_brief(opened, digest) for digest in store.digests(opened)]
    found.sort(key=lambda one: (one["window"]["end"], one["digest"]), reverse=True)
    if as_json:
        print_json(found)
        return
    print_table(
        "releases",
        ("release", "aliases", "window", "teacher", "gate AUC", "calibration", "quarantined"),
        [_row(one) for one in found],
    )


@releases.command("show")
@click.argument("ref")
@lake_option
@json_option
def show_release(ref: str, lake: str, as_json: bool) -> None:
    """One release, every file verified."""
    opened = Lake.open(lake)
    release = store.load(opened, ref)
    whole = _brief(opened, release.digest) | {"manifest": release.manifest}
    if as_json:
        print_json(whole)
        return
    print_table(
        f"release {release.digest}",
        ("what", "value"),
        [(k, str(whole[k])) for k in ("aliases", "window", "teacher", "approval")],
    )
    rows = [
        (h, number(m["auc"]), number(m["log_loss"]), number(m["calibration_ratio"], 3))
        for h, m in whole["metrics"].items()
    ]
    print_table("metrics on the gate rows", ("head", "AUC", "log loss", "calibration ratio"), rows)
    gates = [(g["gate"], g["outcome"], g["reason"]) for g in release.manifest["gates"]]
    print_table("gates", ("gate", "outcome", "why"), gates)
    print_table("files", ("file", "SHA-256"), sorted(release.manifest["files"].items()))


@releases.command("approve")
@click.argument("ref", default="candidate")
@_by_option
@_note_option
@lake_option
def approve(ref: str, by: str, note: str, lake: str) -> None:
    """Let a run go on that waits for it (`rollout.approval: required`); default: the candidate's."""
    click.echo(f"{short(give_word(Lake.open(lake), ref, 'approved', by, note))} is approved")


@releases.command("refuse")
@click.argument("ref", default="candidate")
@_by_option
@_note_option
@lake_option
def refuse(ref: str, by: str, note: str, lake: str) -> None:
    """End a run that waits for a word, as a gate does; production stays as it is."""
    click.echo(f"{short(give_word(Lake.open(lake), ref, 'refused', by, note))} is refused")


@releases.command("promote")
@click.argument("ref", default="candidate")
@lake_option
def promote(ref: str, lake: str) -> None:
    """Make a release production (default: the candidate)."""
    click.echo(f"{short(lifecycle.promote(Lake.open(lake), ref))} is production")
    keep_mirror(lake)


@releases.command("rollback")
@click.option("--to", metavar="REF", help="Release to bring back; default: previous.")
@lake_option
def rollback(to: str | None, lake: str) -> None:
    """Bring back the release before production, or another."""
    click.echo(f"{short(lifecycle.rollback(Lake.open(lake), to))} is production")
    keep_mirror(lake)


@releases.command("quarantine")
@click.argument("ref")
@click.option(
    "--reason", required=True, type=click.Choice(REASONS), help="harm, scoring and data spread to what it taught."
)
@_note_option
@lake_option
def quarantine(ref: str, reason: str, note: str, lake: str) -> None:
    """Take a release out of service and out of training; production falls back to a healthy one."""
    marked, production = lifecycle.put_in_quarantine(Lake.open(lake), ref, reason, note)
    click.echo(f"{short(marked)} is in quarantine ({reason}); production is {short(production)}")
    keep_mirror(lake)


@releases.command("fetch")
@click.argument("ref")
@lake_option
@click.option("--to", required=True, metavar="DIR", help="Folder of the copy; `understudy serve --fetched` reads it.")
def fetch_release(ref: str, lake: str, to: str) -> None:
    """Copy a release out of the lake, every file verified."""
    digest = fetch(Lake.open(lake), ref, to)
    click.echo(f"{short(digest)} is in {to}, verified")


@releases.command("mirror")
@lake_option
@json_option
def mirror_releases(lake: str, as_json: bool) -> None:
    """Show the releases as versions of a model of MLflow; what is so already stays.

    UNDERSTUDY_MLFLOW is the server's URI, UNDERSTUDY_MLFLOW_MODEL the registered model (default: understudy), one for
    each lake. Credentials are MLflow's own: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    MLFLOW_TRACKING_TOKEN.
    """
    done = mirror(Lake.open(lake))
    if as_json:
        listed = {name: sorted(getattr(done, name)) for name in ("tagged", "reported", "removed")}
        print_json({**vars(done), **listed})
        return
    for line in _changes(done):
        click.echo(line)


def _changes(done: Mirrored) -> list[str]:
    """What was changed, a line each."""
    what = f"{done.model} at {done.uri}"
    if not done.changed:
        return [f"nothing to do: {what} shows the lake's releases ({done.releases}) as they are"]
    return [
        *(f"{short(digest)} is version {number} of {what}" for digest, number in done.created.items()),
        *(f"{alias} is {short(digest) if digest else 'removed'}" for alias, digest in done.aliases.items()),
        *(f"{short(digest)}: tags are up to date" for digest in sorted(done.tagged)),
        *(f"{short(digest)}: its run's page is up to date" for digest in sorted(done.reported)),
        *(f"version {number} showed a release twice, it is removed" for number in sorted(done.removed)),
    ]


def _brief(lake: Lake, digest: str) -> dict[str, Any]:
    manifest = store.read_manifest(lake, digest)
    metrics = lake.read_json("releases", digest, "metrics.json")
    return {
        "digest": digest,
        "aliases": sorted(name for name, one in store.aliases(lake).items() if one == digest),
        "teacher": manifest["teacher"],
        "window": manifest["window"],
        "metrics": metrics["heads"],
        "quarantined": digest in store.quarantined(lake),
        "approval": approval(lake, digest),
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    auc = ", ".join(f"{head} {number(m['auc'])}" for head, m in one["metrics"].items())
    ratio = ", ".join(f"{head} {number(m['calibration_ratio'], 3)}" for head, m in one["metrics"].items())
    window = f"{one['window']['start']} to {one['window']['end']}"
    quarantined = "yes" if one["quarantined"] else ""
    return (short(one["digest"]), ", ".join(one["aliases"]), window, short(one["teacher"]), auc, ratio, quarantined)
