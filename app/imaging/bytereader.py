"""Reading a container front to back without ever leaving it."""

from app.errors import UndecodableImage


class ByteReader:
    """A cursor over `data[start:end]` that raises UndecodableImage instead of reading short."""

    def __init__(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = start
        self.end = len(data) if end is None else min(end, len(data))

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return self.end - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.skip(count)
        return bytes(self.data[self.position - count : self.position])

    def skip(self, count: int) -> None:
        """Pass over the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise UndecodableImage(detail=f"{count} bytes wanted at {self.position}, {self.left} left")
        self.position += count

    def big(self, count: int) -> int:
        """The next `count` bytes as an unsigned big-endian number."""
        return int.from_bytes(self.take(count), "big")

    def little(self, count: int) -> int:
        """The next `count` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(count), "little")
