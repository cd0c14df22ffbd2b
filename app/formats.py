"""The image formats that the service takes and serves: name, media type and file extensions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """One format; `name` is what settings and clients say, `pillow` what Pillow calls it."""

    name: str
    pillow: str
    content_type: str
    extensions: tuple[str, ...]

    @property
    def extension(self) -> str:
        """The extension that new keys get, without the dot."""
        return self.extensions[0]


FORMATS = {
    known.name: known
    for known in (
        ImageFormat("png", "PNG", "image/png", ("png",)),
        ImageFormat("jpeg", "JPEG", "image/jpeg", ("jpg", "jpeg")),
        ImageFormat("gif", "GIF", "image/gif", ("gif",)),
        ImageFormat("webp", "WEBP", "image/webp", ("webp",)),
        ImageFormat("avif", "AVIF", "image/avif", ("avif",)),
    )
}

CONTENT_TYPES = {extension: f.content_type for f in FORMATS.values() for extension in f.extensions}
"""Media type by file extension (IANA media types)."""
