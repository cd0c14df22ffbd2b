"""Start the decoder host: a Python process that has loaded the decoders, but not the server.

The worker runs this file by its path, with the control socket as standard input. The first argument lists the
CPU cores to run on, separated by commas. The other arguments are the worker's `sys.path`. An empty package
stands in for `app`, because importing the real one would load the whole server, including Flask and boto3.
"""

import importlib
import sys
import types
from pathlib import Path


def main() -> None:
    """Run the decoder host until the worker exits."""
    package = types.ModuleType("app")
    package.__path__ = [str(Path(__file__).parents[2])]
    sys.modules["app"] = package
    sys.path[:] = sys.argv[2:]
    importlib.import_module("app.imaging.sandbox.host").serve(sys.argv[1])


if __name__ == "__main__":
    main()
