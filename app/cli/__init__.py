"""The commands: `flask cache …`."""

from flask import Flask

from app.cli.cache import cache_commands


def register_commands(flask: Flask) -> None:
    """Give `flask` its commands."""
    for group in (cache_commands,):
        flask.cli.add_command(group)
