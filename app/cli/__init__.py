"""The commands: `flask bucket …`, `flask cache …`."""

from flask import Flask

from app.cli.bucket import bucket_commands
from app.cli.cache import cache_commands
from app.cli.doctor import doctor


def register_commands(flask: Flask) -> None:
    """Give `flask` its commands."""
    bucket_commands.add_command(doctor)
    for group in (bucket_commands, cache_commands):
        flask.cli.add_command(group)
