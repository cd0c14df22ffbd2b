"""What `flask bucket setup` prints: the plan, the calls, what became of them, the settings."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from app.bucket.plan import Plan
from app.bucket.steps import Outcome, Result, Step
from app.bucket.target import Target

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
