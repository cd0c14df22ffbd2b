"""`flask bucket …`: set up the bucket and the user that works with it.

What `flask bucket setup` prints: the plan, the calls, what became of them, the settings.
"""

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
from app.ops.bucket.apply import carry_out
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.plan import Outcome, Plan, Result, Step, make_plan
from app.ops.bucket.policy import Mode, Target, least_policy
from app.ops.bucket.user import ServerUser, provide_user
from app.ops.cli.output import as_json_option, errors_shown, print_facts

_NO_POLICY = (
    "The server has no bucket policies. Images get a public ACL if it takes one; if they can't be read with "
    "it, the image server serves them. See what is so: flask bucket doctor"
)


class SetupReport:
    """Lines for people as things happen; or one JSON object at the end."""

    def __init__(self, target: Target, plan: Plan, settings: dict[str, str], *, as_json: bool) -> None:
        self._settings = settings
        self._target = target
        self._plan = plan
        self._as_json = as_json
        self._results: list[Result] = []

    @property
    def settings(self) -> dict[str, str]:
        """The lines for `.env`: if no policy opened a public bucket, ACLs may, which the server finds out."""
        return self._settings | ({"S3_ACL": "auto", "IMAGE_URLS": "auto"} if self._has_no_policy else {})

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(result.outcome is Outcome.FAILED for result in self._results)

    @property
    def _has_no_policy(self) -> bool:
        if self._target.mode != "public":
            return False
        left_out = {
            result.step.operation
            for result in self._results
            if result.outcome in (Outcome.UNSUPPORTED, Outcome.REVERTED)
        }
        return "GetBucketPolicy" in self._plan.unsupported or "PutBucketPolicy" in left_out

    def show_calls(self) -> None:
        """Each call that the plan would make, with its parameters."""
        if self._as_json:
            self._print_json([_described(step) for step in self._plan.steps])
            return
        self._say_unsupported()
        for step in self._plan.steps:
            click.echo(f"# {step.title}\n{step.operation} {json.dumps(step.parameters, indent=2)}")
        if not self._plan.steps:
            click.echo(self._nothing_to_do())

    def show_plan(self) -> None:
        """What would be done, in its order."""
        if self._as_json:
            return
        self._say_unsupported()
        if not self._plan.steps:
            click.echo(self._nothing_to_do())
            return
        target = self._target
        click.echo(f"To make {target.bucket} a {target.mode} bucket in {target.region}:")
        for step in self._plan.steps:
            click.echo(f"  {step.title} ({step.operation})")

    def show_results(self, results: Iterable[Result]) -> None:
        """What becomes of each step, while it does."""
        for result in results:
            self._results.append(result)
            if not self._as_json:
                click.echo(f"{result.outcome}: {result.step.title}" + _indented(result.message))

    def show_end(self, written: Path | None) -> None:
        """The settings for the bucket; exits with status 1 where a step failed."""
        if self._as_json:
            steps = [
                _described(result.step) | {"outcome": result.outcome, "message": result.message}
                for result in self._results
            ]
            self._print_json(steps)
        elif not self.failed:
            if self._has_no_policy:
                click.echo(_NO_POLICY)
            click.echo(f"Written into {written}:" if written else "The settings for it, for .env:")
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

    def _say_unsupported(self) -> None:
        for operation in self._plan.unsupported:
            click.echo(f"{Outcome.UNSUPPORTED}: {operation}")

    def _nothing_to_do(self) -> str:
        return f"Nothing to do: {self._target.bucket} is as asked."


def _described(step: Step) -> dict[str, Any]:
    return {"title": step.title, "operation": step.operation, "parameters": step.parameters}


def _indented(message: str) -> str:
    return f"\n  {message}" if message else ""


bucket_commands = AppGroup("bucket", help="Create, check (doctor) and price the S3 bucket.")

_MODES = click.Choice(["public", "private"])
_bucket_option = click.option("--bucket", default="", help="The bucket's name; otherwise that in S3_BUCKET.")
_region_option = click.option("--region", default="", help="Its region; otherwise that in AWS_REGION.")
_env_option = click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=lambda: settings_file() or PROJECT_ROOT / ".env",
    show_default="the one that the server reads: .env, or that in ENV_FILE",
)
_profile_option = click.option(
    "--profile", default="", help="The profile to do this with, rather than the server's own credentials."
)
_mode_option = click.option(
    "--mode", type=_MODES, help="Without it, S3_ACL tells whether objects get an ACL."
)


def _origins(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454, 6.2), with at most one `*`, as S3 takes them."""
    for value in values:
        if value != "*" and (not re.fullmatch(r"https?://[^/\s,]+", value) or value.count("*") > 1):
            raise click.BadParameter(f"{value!r} is not an origin such as https://example.org, nor *")
    return tuple(dict.fromkeys(values))


def _expiries(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for value in values:
        match = re.fullmatch(r"([^=\s]{1,200})=([1-9]\d{0,4})", value)
        if not match:
            raise click.BadParameter(f"{value!r} is not a prefix and a number of days such as generated/=30")
        found[match[1]] = int(match[2])
    return found


@bucket_commands.command()
@click.option("--mode", type=_MODES, required=True, help="Whether everybody may read the objects.")
@_bucket_option
@_region_option
@_profile_option
@click.option("--cors", multiple=True, callback=_origins, metavar="ORIGIN", help="May be repeated.")
@click.option("--expire", multiple=True, callback=_expiries, metavar="PREFIX=DAYS", help="May be repeated.")
@click.option("--open-existing", is_flag=True, help="Let everybody read the objects that are there already.")
@click.option("--dry-run", is_flag=True, help="Print each call with its parameters; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--write-env", is_flag=True, help="Write the settings into the env file, too.")
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
    """Create the bucket, or bring it to what is asked, and tell the settings for it."""
    with errors_shown():
        config, clients = _asked(bucket, region, profile)
        target = Target(config.s3_bucket, clients.region, mode, clients.partition, cors, expire)
        plan = make_plan(clients, target, may_upload=not dry_run)
        report = SetupReport(target, plan, _settings(clients, target), as_json=as_json)
        if dry_run:
            report.show_calls()
        if plan.publishes and not open_existing:
            raise click.ClickException(_kept_closed(target.bucket, plan))
        if dry_run:
            return
        report.show_plan()
        if plan.steps and not yes:
            click.confirm("Make these changes?", abort=True, err=as_json)
        report.show_results(carry_out(clients, plan.steps))
        if write_env and not report.failed:
            _write(env_file, report.settings)
        report.show_end(written=env_file if write_env else None)


@bucket_commands.command()
@_mode_option
@_bucket_option
@_region_option
def iam_policy(mode: Mode | None, bucket: str, region: str) -> None:
    """Print the least IAM policy with which the server works."""
    with errors_shown():
        config, clients = _asked(bucket, region)
        click.echo(json.dumps(least_policy(config, clients.partition, mode), indent=2))


@bucket_commands.command()
@click.argument("name", default="s3-image-server")
@_mode_option
@_bucket_option
@_region_option
@_profile_option
@click.option("--replace-keys", is_flag=True, help="Replace the keys that are in the env file.")
@click.option("--show", is_flag=True, help="Print the new key, too; it can't be had again.")
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
    """Make the IAM user NAME, allow it what iam-policy prints, and write a key of it into the env file."""
    with errors_shown():
        config, clients = _asked(bucket, region, profile)
        if not clients.has_iam:
            raise click.ClickException(f"{clients.endpoint.url} is a server that makes its users itself.")
        policy_name = f"s3-image-server-{config.s3_bucket}"
        document = least_policy(config, clients.partition, mode)
        before = read_settings(env_file)
        user = ServerUser(clients, name)
        done = provide_user(user, policy_name, document, env_file, replace=replace_keys)
    facts = {
        "user": name,
        "created": done.created,
        "policy": policy_name,
        "env_file": str(env_file),
        "new_key": done.key is not None,
    }
    print_facts(as_json, facts | (done.key.settings if show and done.key else {}))
    _warn_of_exported_key(before)


def _kept_closed(bucket: str, plan: Plan) -> str:
    holds = (
        "may hold objects that not everybody may read now: it can't be listed, which needs s3:ListBucket and "
        "a server that knows ListObjects."
        if plan.unlisted
        else "holds objects that not everybody may read now."
    )
    return f"The bucket {bucket} {holds} Look at them first; --open-existing lets everybody read them."


def _warn_of_exported_key(held: dict[str, str]) -> None:
    """What the shell exports goes before `.env`, whose values before this call, `held`, were read as well."""
    if os.environ.get("AWS_ACCESS_KEY_ID", "") not in ("", held.get("AWS_ACCESS_KEY_ID")):
        click.echo("AWS_ACCESS_KEY_ID is set in this shell too, and wins: unset it for the server.", err=True)


def _asked(bucket: str, region: str, profile: str = "") -> tuple[Config, AwsClients]:
    """The settings with the bucket and the region of this call, and clients for them."""
    config = components().config
    config = replace(config, s3_bucket=bucket or config.s3_bucket, aws_region=region or config.aws_region)
    if not config.s3_bucket:
        raise click.UsageError("Which bucket? Say --bucket NAME, or set S3_BUCKET.")
    clients = AwsClients.from_config(config, profile, may_ask=sys.stdin.isatty())
    return replace(config, aws_region=clients.region), clients


def _settings(clients: AwsClients, target: Target) -> dict[str, str]:
    """Return the lines of `.env` with which the server works on this bucket, also without this profile."""
    endpoint = {"AWS_ENDPOINT_URL_S3": clients.endpoint.url} if clients.is_compatible_server else {}
    return {
        "S3_BUCKET": target.bucket,
        "AWS_REGION": target.region,
        **endpoint,
        "S3_ACL": "none",
        "IMAGE_URLS": "s3" if target.mode == "public" else "server",
    }


def _write(env_file: Path, settings: dict[str, Any]) -> None:
    try:
        write_settings(env_file, settings)
    except OSError as exc:
        raise click.ClickException(f"{env_file} could not be written: {exc.strerror}.") from exc
