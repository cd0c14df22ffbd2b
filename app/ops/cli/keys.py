"""`flask keys …`: make API keys."""

import click
from flask.cli import AppGroup

from app.config.api_keys import SCOPES, new_key
from app.ops.cli.output import as_json_option, print_facts

keys_commands = AppGroup("keys", help="Make keys for API_KEYS.")


@keys_commands.command()
@click.option("--name", default="key", show_default=True, help="Shows in logs; limits are counted by it.")
@click.option("--scopes", default="+".join(SCOPES), show_default=True, help="What it is good for.")
@as_json_option
def new(name: str, scopes: str, as_json: bool) -> None:
    """Make a key. It is shown once; the server needs only the entry for API_KEYS, which holds its hash."""
    try:
        key, entry = new_key(name, scopes.split("+"))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    print_facts(as_json, {"key": key, "entry_for_API_KEYS": entry})
