"""The commands: `flask bucket …`, `flask cache …`, `flask images …`, `flask keys …`."""

from flask import Flask

from app.cli.bucket import bucket_commands
from app.cli.cache import cache_commands
from app.cli.cost import cost
from app.cli.doctor import doctor
from app.cli.images import images_commands
from app.cli.keys import keys_commands


def register_commands(flask: Flask) -> None:
    """Give `flask` its commands."""
    bucket_commands.add_command(doctor)
    bucket_commands.add_command(cost)
    for group in (bucket_commands, cache_commands, images_commands, keys_commands):
        flask.cli.add_command(group)
