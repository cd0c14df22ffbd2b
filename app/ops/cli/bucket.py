"""`flask bucket …`: set up the bucket, and the IAM user whose credentials the server uses."""

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from app.api.context import components
from app.config.env_file import PROJECT_ROOT, read_settings, settings_file, write_settings
from app.config.settings import Config
from app.ops.bucket.apply import StepResult, StepStatus, apply_steps
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.iam import minimal_policy, provide_user
from app.ops.bucket.plan import Plan, Step, make_plan
from app.ops.bucket.state import Mode, Target
from app.ops.cli.output import as_json_option, errors_shown, print_facts

bucket_commands = AppGroup("bucket", help="Set up and check (doctor) the S3 bucket, and estimate its cost.")

_MODES = click.Choice(["public", "private"])
_bucket_option = click.option("--bucket", default="", help="Name of the bucket. Default: S3_BUCKET.")
_region_option = click.option("--region", default="", help="Its region. Default: AWS_REGION.")
_env_option = click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=lambda: settings_file() or PROJECT_ROOT / ".env",
    show_default="the file that the server reads: .env, or the file in ENV_FILE",
)
_profile_option = click.option(
    "--profile", default="", help="AWS profile to use for this command instead of the server's credentials."
)
_mode_option = click.option(
    "--mode", type=_MODES, help="Mode of the bucket. Without it, S3_ACL decides whether objects get an ACL."
)

_NO_POLICY = (
    "The server does not support bucket policies. Images get a public ACL if the server supports ACLs. If "
    "browsers still can't read them there, the image server serves them. To check: flask bucket doctor"
)


def _origins(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values without duplicates. Each must be an origin as browsers send it (RFC 6454, 6.2).

    S3 allows one `*` in an origin.
    """
    for value in values:
        if value != "*" and (not re.fullmatch(r"https?://[^/\s,]+", value) or value.count("*") > 1):
            raise click.BadParameter(f"{value!r} is not * or an origin such as https://example.org")
    return tuple(dict.fromkeys(values))


def _expiries(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for value in values:
        match = re.fullmatch(r"([^=\s]{1,200})=([1-9]\d{0,4})", value)
        if not match:
            raise click.BadParameter(f"{value!r} is not a prefix and a number of days, such as generated/=30")
        found[match[1]] = int(match[2])
    return found


@bucket_commands.command()
@click.option("--mode", type=_MODES, required=True, help="public: everyone may read the objects.")
@_bucket_option
@_region_option
@_profile_option
@click.option(
    "--cors",
    multiple=True,
    callback=_origins,
    metavar="ORIGIN",
    help="Let pages of this origin fetch() images. Repeatable.",
)
@click.option(
    "--expire",
    multiple=True,
    callback=_expiries,
    metavar="PREFIX=DAYS",
    help="Delete objects with this key prefix after DAYS days. Repeatable.",
)
@click.option("--open-existing", is_flag=True, help="Let everyone read the objects that already exist.")
@click.option("--dry-run", is_flag=True, help="Print each call with its parameters, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--write-env", is_flag=True, help="Write the settings to the env file.")
@_env_option
@as_json_option
def setup(
    mode: Mode,
    bucket: str,
    region: str,
    profile: str,
    cors: tuple[str, ...],
    expire: dict[str, int],
    open_existing: bool,
    dry_run: bool,
    yes: bool,
    write_env: bool,
    env_file: Path,
    as_json: bool,
) -> None:
    """Create the bucket or change its settings, and print the settings with which the server uses it."""
    with errors_shown():
        config, clients = _config_and_clients(bucket, region, profile)
        target = Target(config.s3_bucket, clients.region, mode, clients.partition, cors, expire)
        plan = make_plan(clients, target, may_upload=not dry_run)
        report = _SetupReport(target, plan, _server_settings(clients, target), as_json=as_json)
        if dry_run:
            report.show_calls()
        if plan.publishes and not open_existing:
            holds = (
                "may contain objects that are not public yet: it can't be listed, which needs "
                "s3:ListBucket and a server that supports ListObjects."
                if plan.unlisted
                else "contains objects that are not public yet."
            )
            raise click.ClickException(
                f"The bucket {target.bucket} {holds} Check them first. To let everyone read them, use "
                "--open-existing."
            )
        if dry_run:
            return
        report.show_plan()
        if plan.steps and not yes:
            click.confirm("Make these changes?", abort=True, err=as_json)
        report.show_results(apply_steps(clients, plan.steps))
        if write_env and not report.failed:
            try:
                write_settings(env_file, report.settings)
            except OSError as exc:
                raise click.ClickException(f"{env_file} could not be written: {exc.strerror}.") from exc
        report.show_end(written=env_file if write_env else None)


@bucket_commands.command()
@_mode_option
@_bucket_option
@_region_option
def iam_policy(mode: Mode | None, bucket: str, region: str) -> None:
    """Print the minimal IAM policy for the server."""
    with errors_shown():
        config, clients = _config_and_clients(bucket, region)
        click.echo(json.dumps(minimal_policy(config, clients.partition, mode), indent=2))


@bucket_commands.command()
@click.argument("name", default="s3-image-server")
@_mode_option
@_bucket_option
@_region_option
@_profile_option
@click.option("--replace-keys", is_flag=True, help="Replace the keys in the env file.")
@click.option("--show", is_flag=True, help="Also print the new key. AWS returns it only once.")
@_env_option
@as_json_option
def create_user(
    name: str,
    mode: Mode | None,
    bucket: str,
    region: str,
    profile: str,
    replace_keys: bool,
    show: bool,
    env_file: Path,
    as_json: bool,
) -> None:
    """Create the IAM user NAME with the policy that iam-policy prints, and write its key to the env file."""
    with errors_shown():
        config, clients = _config_and_clients(bucket, region, profile)
        if not clients.has_iam:
            raise click.ClickException(
                f"{clients.endpoint.url} is not AWS, so it has no IAM users. "
                "Create the user with the tools of that server."
            )
        policy_name = f"s3-image-server-{config.s3_bucket}"
        policy = minimal_policy(config, clients.partition, mode)
        before = read_settings(env_file)
        user = provide_user(clients, name, policy_name, policy, env_file, replace=replace_keys)
    facts = {
        "user": name,
        "created": user.created,
        "policy": policy_name,
        "env_file": str(env_file),
        "new_key": user.key is not None,
    }
    print_facts(as_json, facts | (user.key.settings if show and user.key else {}))
    # The environment also contains the values that `.env` had before this command.
    if os.environ.get("AWS_ACCESS_KEY_ID", "") not in ("", before.get("AWS_ACCESS_KEY_ID")):
        click.echo(
            "AWS_ACCESS_KEY_ID is also set in this shell and takes precedence over the file. Unset it before "
            "you start the server.",
            err=True,
        )


def _config_and_clients(bucket: str, region: str, profile: str = "") -> tuple[Config, AwsClients]:
    """Return a tuple: the settings with the bucket and the region of this command, and clients for them."""
    config = components().config
    config = replace(config, s3_bucket=bucket or config.s3_bucket, aws_region=region or config.aws_region)
    if not config.s3_bucket:
        raise click.UsageError("The name of the bucket is missing. Use --bucket NAME, or set S3_BUCKET.")
    clients = AwsClients.from_config(config, profile, interactive=sys.stdin.isatty())
    return replace(config, aws_region=clients.region), clients


def _server_settings(clients: AwsClients, target: Target) -> dict[str, str]:
    """Return the settings with which the image server uses this bucket.

    The endpoint of a compatible server is among them. It may come from the AWS profile of this command, which
    the image server does not use.
    """
    endpoint = {"AWS_ENDPOINT_URL_S3": clients.endpoint.url} if clients.is_compatible_server else {}
    return {
        "S3_BUCKET": target.bucket,
        "AWS_REGION": target.region,
        **endpoint,
        "S3_ACL": "none",
        "IMAGE_URLS": "s3" if target.mode == "public" else "server",
    }


class _SetupReport:
    """The output of `flask bucket setup`: lines as it progresses, or one JSON object at the end."""

    def __init__(self, target: Target, plan: Plan, settings: dict[str, str], *, as_json: bool) -> None:
        self._settings = settings
        self._target = target
        self._plan = plan
        self._as_json = as_json
        self._results: list[StepResult] = []

    @property
    def settings(self) -> dict[str, str]:
        """The settings for `.env`.

        If a bucket that should be public can't have a policy, the image server finds out whether ACLs work.
        """
        return self._settings | ({"S3_ACL": "auto", "IMAGE_URLS": "auto"} if self._lacks_policy else {})

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(result.status is StepStatus.FAILED for result in self._results)

    @property
    def _lacks_policy(self) -> bool:
        """Whether the bucket should be public, but the S3 server does not support the policy for that."""
        if self._target.mode != "public":
            return False
        left_out = {
            result.step.operation
            for result in self._results
            if result.status in (StepStatus.UNSUPPORTED, StepStatus.REVERTED)
        }
        return "GetBucketPolicy" in self._plan.unsupported or "PutBucketPolicy" in left_out

    def show_calls(self) -> None:
        """Print each call of the plan with its parameters."""
        if self._as_json:
            self._print_json([_described(step) for step in self._plan.steps])
            return
        self._show_summary()
        for step in self._plan.steps:
            click.echo(f"# {step.title}\n{step.operation} {json.dumps(step.parameters, indent=2)}")

    def show_plan(self) -> None:
        """Print the steps of the plan, in order."""
        if self._as_json:
            return
        self._show_summary()
        target = self._target
        if self._plan.steps:
            click.echo(f"To make {target.bucket} a {target.mode} bucket in {target.region}:")
        for step in self._plan.steps:
            click.echo(f"  {step.title} ({step.operation})")

    def show_results(self, results: Iterable[StepResult]) -> None:
        """Print each result as it arrives."""
        for result in results:
            self._results.append(result)
            if not self._as_json:
                message = f"\n  {result.message}" if result.message else ""
                click.echo(f"{result.status}: {result.step.title}{message}")

    def show_end(self, written: Path | None) -> None:
        """Print the settings, or the JSON object. Exit with status 1 if a step failed."""
        if self._as_json:
            steps = [
                _described(result.step) | {"outcome": result.status, "message": result.message}
                for result in self._results
            ]
            self._print_json(steps)
        elif not self.failed:
            if self._lacks_policy:
                click.echo(_NO_POLICY)
            click.echo(f"Written to {written}:" if written else "Settings for .env:")
            for name, value in self.settings.items():
                click.echo(f"{name}={value}")
        if self.failed:
            raise click.exceptions.Exit(1)

    def _print_json(self, steps: list[dict[str, Any]]) -> None:
        target = self._target
        facts = {
            "bucket": target.bucket,
            "region": target.region,
            "mode": target.mode,
            "steps": steps,
            "unsupported": self._plan.unsupported,
            "settings": self.settings,
        }
        click.echo(json.dumps(facts))

    def _show_summary(self) -> None:
        for operation in self._plan.unsupported:
            click.echo(f"{StepStatus.UNSUPPORTED}: {operation}")
        if not self._plan.steps:
            click.echo(f"Nothing to do: {self._target.bucket} already has these settings.")


def _described(step: Step) -> dict[str, Any]:
    return {"title": step.title, "operation": step.operation, "parameters": step.parameters}
