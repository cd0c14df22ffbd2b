"""`flask bucket …`: set up the bucket and the user that works with it."""

from flask.cli import AppGroup

bucket_commands = AppGroup("bucket", help="Set up the bucket, and the user that works with it.")
