"""Parse the bodies of uploads, which are multipart forms (RFC 7578) or the bytes of an image.

If a body is neither, the error message says what is wrong with it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from flask import Request
from werkzeug.datastructures import Headers, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData, State

from app.core.errors import BadRequest

IMAGE_FIELDS = ("image", "file")

_HOW_TO_SEND = (
    "The request has no image. Send a multipart form with a file field 'image', "
    "or the image's bytes with a Content-Type such as image/png."
)
_NO_BOUNDARY = (
    "The Content-Type multipart/form-data has no boundary. Let the HTTP client set this header, "
    "or add the boundary that the body uses."
)
_OTHER_BOUNDARY = "The form has no part with the boundary of its Content-Type."
_CUT_OFF = "The form ends before its last boundary, so it is incomplete. Send it again."
_UNDECLARED_FORM = (
    "The body is a multipart form, but its Content-Type is not multipart/form-data. Set it, with the "
    "boundary of the body. Most HTTP clients do that if you don't set this header yourself."
)
_NAMELESS = "A part of the form has no name in its Content-Disposition."
_TWO_FILES = "The request has {} images. Send one image per request."
_EMPTY = "The file in the field '{}' is empty."
_NO_FILE = "No file was chosen: the field '{}' is empty."
_TEXT = "The field '{0}' contains text, not a file. Send the file's bytes; with curl: -F {0}=@photo.jpg"
_DATA_URL = "The field '{}' contains a data: URL. Send the file's bytes, for example from canvas.toBlob()."
_ENCODED = "The field '{}' has the Content-Transfer-Encoding {}. Send the file's bytes without it."

_IDENTITY_ENCODINGS = {"", "binary", "8bit", "7bit"}
_UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}
"""Media types that say nothing about the body. For these types, only the bytes of the body are checked."""

_CHARSETS = {"ascii", "us-ascii", "utf-8", "iso-8859-1"}
_CHUNK_BYTES = 64 * 1024

_FORM = re.compile(rb"(?:\r?\n)*--[^\r\n]{1,200}\r?\ncontent-[a-z-]+:", re.IGNORECASE)
"""The start of a multipart form. No image starts like this."""

_PLAIN_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{1,1000}\Z")
"""Text that was sent instead of a file by mistake, such as the file's name. Supported images never match."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an image, which are never empty, and the other fields of the form."""

    data: bytes
    fields: MultiDict[str, str] = field(default_factory=MultiDict)


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    filename: str | None
    headers: Headers
    data: bytes


class _Decoder(MultipartDecoder):
    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        """Parse headers as UTF-8, or as Latin-1 if that fails. Old clients send file names in Latin-1."""
        try:
            return super()._parse_headers(data)
        except UnicodeDecodeError:
            return super()._parse_headers(data.decode("latin-1").encode())


def read_upload(request: Request) -> Upload:
    """Return the image of an upload and the form fields sent with it.

    Raises `BadRequest` if there is no image or more than one, or if the form is malformed.
    """
    if request.mimetype == "multipart/form-data":
        return _from_form(request)
    if not (request.mimetype.startswith("image/") or request.mimetype in _UNTYPED):
        raise BadRequest(f"A body of type {request.mimetype[:100]} is not an image. {_HOW_TO_SEND}")
    data = request.get_data(cache=False)
    if not data:
        raise BadRequest(_HOW_TO_SEND)
    if _FORM.match(data):
        raise BadRequest(_UNDECLARED_FORM)
    return Upload(data)


def _from_form(request: Request) -> Upload:
    fields: MultiDict[str, str] = MultiDict()
    images, others = [], []
    for part in _parts(request):
        if part.name in IMAGE_FIELDS:
            images.append(part)
        elif part.filename is None:
            fields.add(part.name, part.data.decode(_charset(part), "replace"))
        else:
            others.append(part.name)
    images = [part for part in images if part.data or part.filename] or images[:1]
    if len(images) > 1:
        raise BadRequest(_TWO_FILES.format(len(images)))
    if not images:
        hint = f" The file is in the field '{others[0][:60]}'." if len(others) == 1 else ""
        raise BadRequest(_HOW_TO_SEND + hint)
    _check_image(images[0])
    return Upload(images[0].data, fields)


def _check_image(part: _Part) -> None:
    """Raise `BadRequest` if the part can't be an image file. The message says how to send a file."""
    encoding = part.headers.get("Content-Transfer-Encoding", "").strip().lower()
    if encoding not in _IDENTITY_ENCODINGS:
        raise BadRequest(_ENCODED.format(part.name, encoding[:40]))
    if not part.data:
        raise BadRequest((_NO_FILE if not part.filename else _EMPTY).format(part.name))
    if part.data[:5].lower() == b"data:":
        raise BadRequest(_DATA_URL.format(part.name))
    if part.filename is None and _PLAIN_TEXT.match(part.data):
        raise BadRequest(_TEXT.format(part.name))


def _charset(part: _Part) -> str:
    charset = parse_options_header(part.headers.get("Content-Type"))[1].get("charset", "").lower()
    return charset if charset in _CHARSETS else "utf-8"


def _parts(request: Request) -> Iterator[_Part]:
    """Yield the parts of the form. A file in a field that is not for images is yielded without its data.

    Raises `BadRequest` if the form is malformed, and `RequestEntityTooLarge` if it has too much text.
    """
    head: Field | File | None = None
    body = BytesIO()
    for event in _events(request):
        if isinstance(event, Field | File):
            if not event.name:
                raise BadRequest(_NAMELESS)
            head, body = event, BytesIO()
        elif isinstance(event, Data) and head is not None:
            filename = head.filename if isinstance(head, File) else None
            if head.name in IMAGE_FIELDS or filename is None:
                body.write(event.data)
            if head.name not in IMAGE_FIELDS and body.tell() > (request.max_form_memory_size or 0):
                raise RequestEntityTooLarge
            if not event.more_data:
                yield _Part(head.name, filename, head.headers, body.getvalue())


def _events(request: Request) -> Iterator[Event]:
    """Yield the events of werkzeug's multipart decoder."""
    decoder = _decoder(request)
    stream = request.stream
    try:
        while decoder.state is not State.COMPLETE:
            _feed(decoder, stream.read(_CHUNK_BYTES))
            while not isinstance(event := decoder.next_event(), NeedData):
                yield event
                if isinstance(event, Epilogue):
                    break
    except ValueError as exc:
        raise BadRequest(_decoding_problem(decoder)) from exc


def _feed(decoder: _Decoder, piece: bytes) -> None:
    try:
        decoder.receive_data(piece or None)
    except RequestEntityTooLarge as exc:
        if decoder.state is State.PREAMBLE:  # no boundary has been found
            raise BadRequest(_OTHER_BOUNDARY) from exc
        if decoder.state is State.PART:  # the headers of the part never end
            raise BadRequest(_NAMELESS) from exc
        raise


def _decoder(request: Request) -> _Decoder:
    try:
        boundary = request.mimetype_params.get("boundary", "").encode("latin-1")
    except UnicodeEncodeError:
        boundary = b""
    if not boundary:
        raise BadRequest(_NO_BOUNDARY)
    return _Decoder(boundary, request.max_form_memory_size, max_parts=request.max_form_parts)


def _decoding_problem(decoder: _Decoder) -> str:
    end = b"--%b--" % decoder.boundary
    if not decoder.complete or (decoder.state is State.PART and end in decoder.buffer):
        return _NAMELESS
    return _OTHER_BOUNDARY if decoder.state is State.PREAMBLE else _CUT_OFF
