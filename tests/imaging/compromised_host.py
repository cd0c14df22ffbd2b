"""Start the host of `compromised_decoder`, as `app/imaging/sandbox/__main__.py` starts the real one."""

import importlib
import sys
import types
from pathlib import Path

if __name__ == "__main__":
    package = types.ModuleType("app")
    package.__path__ = [str(Path(__file__).parents[2] / "app")]
    sys.modules["app"] = package
    sys.path[:] = [*sys.argv[2:], str(Path(__file__).parents[2])]
    importlib.import_module("tests.imaging.compromised_decoder").serve(sys.argv[1])
