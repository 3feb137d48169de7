"""``understudy run``, ``compile``, ``upload`` and ``evaluate``."""

import dataclasses

import click

from understudy.cli.kubeflow import connected, kind_option, place_options
from understudy.cli.output import config_option, json_option, lake_option, number, print_json, print_table, short

__all__ = ["compile", "evaluate", "run", "upload"]


@click.command()
@config_option
@lake_option
@click.option("--window-end", metavar="DAY", help="Last day of the window; default: the newest complete day.")
@click.option("--again", is_flag=True, help="Run afresh, even where this window was run already.")
@click.option(
    "--runner",
    type=click.Choice(["subprocess", "docker"]),
    default="subprocess",
    show_default=True,
    help="What a step runs in; docker: a container of its role's image, see `make images`.",
)
@json_option
def run(config: str, lake: str, window_end: str | None, again: bool, runner: str, as_json: bool) -> None:
    """Make, gate and release a ranker for one window.

    Runs the Kubeflow pipeline on this machine. A run that was stopped goes on where it stood when
    the same command is given again.

    \b
    understudy run --config examples/kuairand.yaml --lake lake --window-end 2022-04-30
    """
    from pipelines.local import run_pipeline
    from understudy.config import load
    from understudy.lake import Lake
    from understudy.runs import Run

    run_id = run_pipeline(load(config), lake, window_end, again, runner=runner)
    opened = Lake.open(lake)
    record = Run(opened, run_id)
    promoted = (record.manifest("promote") or {"figures": {}})["figures"]
    seconds = {step: manifest["seconds"] for step, manifest in record.committed_steps().items()}
    report = opened.uri(record.folder, "report.html")
    if as_json:
        print_json({"run": run_id, "status": record.status(), **promoted, "report": report, "seconds": seconds})
        return
    click.echo(f"run {run_id}: {record.status()}, release {short(promoted.get('digest'))}, {promoted.get('reason')}")
    click.echo(f"report: {report}")


@click.command()
@config_option
@kind_option
@click.option("-o", "--output", default="pipeline.yaml", show_default=True, metavar="FILE", help="Where to write.")
@click.option("--kubernetes-manifest", is_flag=True, help="Objects for kubectl instead: Pipeline and PipelineVersion.")
@json_option
def compile(config: str, kind: str, output: str, kubernetes_manifest: bool, as_json: bool) -> None:
    """Write the pipeline as a file for Kubeflow Pipelines.

    The section `pipeline` says where its steps run; UNDERSTUDY_IMAGE_SPARK, _TOOLS and _TRAIN win over its images.

    \b
    understudy compile --config examples/kuairand.yaml -o pipeline.yaml
    """
    from pipelines.compile import compile_pipeline
    from understudy.config import load

    made = compile_pipeline(load(config), output, kind, manifest=kubernetes_manifest)
    if as_json:
        told = {"pipeline": made.name, "version": made.version, "images": made.images, "without_digest": made.loose}
        print_json({"file": output, **told})
        return
    click.echo(f"wrote {output}: {made.version}")
    if made.loose:
        click.echo(f"not named by a digest, so what runs may change: {', '.join(made.loose)}", err=True)


@click.command()
@config_option
@place_options
@json_option
def upload(config: str, host: str | None, namespace: str | None, as_json: bool) -> None:
    """Upload the pipeline, and those of the schedules, to Kubeflow Pipelines.

    A version is named by its content: what is there already is not uploaded again.

    \b
    understudy upload --config my.yaml --host http://localhost:8888
    """
    from pipelines.compile import compiled
    from pipelines.upload import upload as send
    from understudy.config import load

    read = load(config)
    connection = connected(read.pipeline, host, namespace)
    kinds = dict.fromkeys(["retrain", *(one.kind for one in read.pipeline.schedules)])
    done = [send(connection, compiled(read, kind)) for kind in kinds]
    if as_json:
        print_json([dataclasses.asdict(one) for one in done])
        return
    for one in done:
        click.echo(f"{one.pipeline}: {one.version} {'uploaded' if one.new else 'is there already, nothing uploaded'}")


@click.command()
@click.option("--release", required=True, metavar="REF", help="Alias, digest, or the beginning of one.")
@lake_option
@click.option("--from", "start", required=True, metavar="DAY", help="First day.")
@click.option("--to", "end", required=True, metavar="DAY", help="Last day.")
@json_option
def evaluate(release: str, lake: str, start: str, end: str, as_json: bool) -> None:
    """Score any ingested days with a release, also days that are newer than it.

    \b
    understudy evaluate --release production --lake lake --from 2022-05-01 --to 2022-05-04
    """
    from understudy.evaluation.adhoc import evaluate_release

    found = evaluate_release(lake, release, start, end)
    if as_json:
        print_json(found)
        return
    days = {"all days": found["heads"], **found["by_day"]}
    rows = [
        (
            day,
            head,
            m["rows"],
            number(m["auc"]),
            number(m["log_loss"]),
            number(m["calibration_ratio"], 3),
            number(m["ece"]),
        )
        for day, heads in days.items()
        for head, m in heads.items()
    ]
    title = f"release {short(found['release'])} on {start} to {end}"
    print_table(title, ("day", "head", "rows", "AUC", "log loss", "calibration ratio", "ECE"), rows)
