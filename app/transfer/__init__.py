"""Images in bulk: from a directory into the store, and back."""

from app.transfer.exporter import Exporter, Wanted
from app.transfer.files import find_files
from app.transfer.importer import Importer
from app.transfer.parallel import run
from app.transfer.tally import Outcome, Result, Tally

__all__ = ["Exporter", "Importer", "Outcome", "Result", "Tally", "Wanted", "find_files", "run"]
