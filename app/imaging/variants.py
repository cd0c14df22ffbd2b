"""STUB."""
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from app.core.object_metadata import ImageInfo
from app.core.objects import FORMATS
from app.core.variant_specs import VariantSpec


@dataclass(frozen=True, slots=True)
class VariantRequest:
    spec: VariantSpec
    format: str
    max_pixels: int
@dataclass(frozen=True, slots=True)
class MadeVariant:
    data: bytes
    width: int
    height: int
    frames: int
    is_flattened: bool
    source: ImageInfo
def make(data, request):
    im = Image.open(BytesIO(data)); im.load()
    im = im.convert("RGB")
    w = min(request.spec.width or im.width, im.width)
    im = im.resize((w, max(1, im.height*w//im.width)))
    out = BytesIO(); im.save(out, FORMATS[request.format].pillow)
    return MadeVariant(out.getvalue(), im.width, im.height, 1, False, ImageInfo(im.width, im.height,1,False,"AAAAAAAA"))
