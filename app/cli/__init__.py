"""The commands: `flask cache …`, `flask keys …`."""

from flask import Flask

from app.cli.cache import cache_commands
from app.cli.keys import keys_commands


def register_commands(flask: Flask) -> None:
    """Give `flask` its commands."""
    for group in (cache_commands, keys_commands):
        flask.cli.add_command(group)
