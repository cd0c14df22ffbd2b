"""The body of an upload: a form (RFC 7578) or an image's bytes; errors say what is wrong with it."""

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
    "There is no image in the request. Send a multipart form with a file field 'image', "
    "or the image's bytes with a Content-Type such as image/png."
)
_NO_BOUNDARY = (
    "The Content-Type multipart/form-data has no boundary. Let your client set this header itself, "
    "or add the boundary that the body has."
)
_OTHER_BOUNDARY = "The form has no part that begins with the boundary of its Content-Type."
_CUT_OFF = "The form ends before its last boundary: it is incomplete. Please send it again."
_UNTOLD = (
    "The body is a multipart form, and its Content-Type does not say so. Send multipart/form-data with the "
    "boundary of the body; most clients do that if you leave this header to them."
)
_NAMELESS = "A part of the form has no Content-Disposition with a name."
_TWO_FILES = "There are {} images in the request. Send one image per request."
_EMPTY = "The file in '{}' is empty: it has no bytes."
_NO_FILE = "No file was chosen: the field '{}' is empty."
_TEXT = "The field '{0}' holds text, not a file. Send the file's bytes; with curl: -F {0}=@photo.jpg"
_DATA_URL = "The field '{}' holds a data: URL. Send the file's bytes, such as those of canvas.toBlob()."
_ENCODED = "The field '{}' is sent with the Content-Transfer-Encoding {}. Send the file's bytes as they are."

_AS_IT_IS = {"", "binary", "8bit", "7bit"}
_UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}
"""Types that say nothing: the bytes say what they are."""

_CHARSETS = {"ascii", "us-ascii", "utf-8", "iso-8859-1"}
_PIECE = 64 * 1024

_FORM = re.compile(rb"(?:\r?\n)*--[^\r\n]{1,200}\r?\ncontent-[a-z-]+:", re.IGNORECASE)
"""How a multipart form begins. No image does."""

_PLAIN_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{1,1000}\Z")
"""What people send by mistake in place of a file, such as its name. No image that we take looks like it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image's bytes, never empty, and the form's other fields."""

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
        """Besides UTF-8: old clients write file names in Latin-1."""
        try:
            return super()._parse_headers(data)
        except UnicodeDecodeError:
            return super()._parse_headers(data.decode("latin-1").encode())


def read_upload(request: Request) -> Upload:
    """Read the image and the fields that were sent with it.

    Raises `BadRequest` if there is no image, more than one, or a form that can't be read.
    """
    if request.mimetype == "multipart/form-data":
        return _from_form(request)
    if not (request.mimetype.startswith("image/") or request.mimetype in _UNTYPED):
        raise BadRequest(f"A body of type {request.mimetype[:100]} is not an image. {_HOW_TO_SEND}")
    data = request.get_data(cache=False)
    if not data:
        raise BadRequest(_HOW_TO_SEND)
    if _FORM.match(data):
        raise BadRequest(_UNTOLD)
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
    """Raise `BadRequest` for what can't be an image file, in words for whoever wrote the client."""
    encoding = part.headers.get("Content-Transfer-Encoding", "").strip().lower()
    if encoding not in _AS_IT_IS:
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
    """Yield the form's parts; of files that are not images only the names.

    Raises `BadRequest` for a form that can't be read, `RequestEntityTooLarge` for one with too much text.
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
    """Yield what werkzeug's decoder finds in the body."""
    decoder = _decoder(request)
    stream = request.stream
    try:
        while decoder.state is not State.COMPLETE:
            _feed(decoder, stream.read(_PIECE))
            while not isinstance(event := decoder.next_event(), NeedData):
                yield event
                if isinstance(event, Epilogue):
                    break
    except ValueError as exc:
        raise BadRequest(_what_is_wrong(decoder)) from exc


def _feed(decoder: _Decoder, piece: bytes) -> None:
    try:
        decoder.receive_data(piece or None)
    except RequestEntityTooLarge as exc:
        if decoder.state is State.PREAMBLE:  # it has kept all that came before the first boundary
            raise BadRequest(_OTHER_BOUNDARY) from exc
        if decoder.state is State.PART:  # it looks for the end of headers that are not there
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


def _what_is_wrong(decoder: _Decoder) -> str:
    end = b"--%b--" % decoder.boundary
    if not decoder.complete or (decoder.state is State.PART and end in decoder.buffer):
        return _NAMELESS
    return _OTHER_BOUNDARY if decoder.state is State.PREAMBLE else _CUT_OFF
