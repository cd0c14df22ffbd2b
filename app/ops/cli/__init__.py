"""The operator commands: `flask bucket …`, `flask cache …`, `flask images …`, `flask keys …`."""

from flask import Flask

from app.ops.cli.bucket import bucket_commands
from app.ops.cli.cache import cache_commands
from app.ops.cli.cost import cost
from app.ops.cli.doctor import doctor
from app.ops.cli.images import images_commands
from app.ops.cli.keys import keys_commands


def register_commands(flask: Flask) -> None:
    """Add all commands to the application's command line."""
    bucket_commands.add_command(doctor)
    bucket_commands.add_command(cost)
    for group in (bucket_commands, cache_commands, images_commands, keys_commands):
        flask.cli.add_command(group)
