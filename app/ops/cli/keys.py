"""`flask keys …`: create API keys."""

import click
from flask.cli import AppGroup

from app.config.api_keys import SCOPES, new_key
from app.ops.cli.output import as_json_option, print_facts

keys_commands = AppGroup("keys", help="Create keys for API_KEYS.")


@keys_commands.command()
@click.option(
    "--name",
    default="key",
    show_default=True,
    help="Appears in logs. Keys with the same name share rate limits.",
)
@click.option("--scopes", default="+".join(SCOPES), show_default=True, help="What the key allows.")
@as_json_option
def new(name: str, scopes: str, as_json: bool) -> None:
    """Print a new key and its entry for API_KEYS. The entry contains only a hash, so keep the key."""
    try:
        key, entry = new_key(name, scopes.split("+"))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    print_facts(as_json, {"key": key, "entry_for_API_KEYS": entry})
