"""How a key stands in a route."""

from werkzeug.routing import BaseConverter


class KeyConverter(BaseConverter):
    """All the rest of the path, leading and double slashes included, so that a bad key is told to be one."""

    regex = "(?s:.+?)"
    part_isolating = False
    weight = 200
