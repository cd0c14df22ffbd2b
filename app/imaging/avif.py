"""AVIF (AV1 Image File Format, based on ISO/IEC 23008-12): reads its boxes, tables and bitstreams."""

from app.errors import UndecodableImage
from app.imaging.avif_items import Judged, survey_items
from app.imaging.avif_metadata import top_level, without_metadata
from app.imaging.avif_tracks import survey_tracks
from app.imaging.boxes import needed, only
from app.imaging.limits import ImageLimits
from app.imaging.survey import PartCount, Survey


def survey_avif(data: bytes, limits: ImageLimits) -> Survey:
    """Read the boxes and the AV1 in them, as far as a decoder may read.

    Raises UndecodableImage if something is cut, if the size of the AV1 differs from that in the boxes, or if
    the file is ambiguous; TooManyPixels. Orientation is in the `irot` and `imir` properties,
    which every browser follows and which stay.
    """
    count = PartCount()
    if any(box.kind == b"moof" for box in top_level(data, count)):
        raise UndecodableImage(detail="an animation in fragments")
    clean = without_metadata(data, count)
    size, frames = _judged(clean if limits.strip_metadata else data, limits)
    return Survey(clean, *size, frames=frames)


def _judged(data: bytes, limits: ImageLimits) -> Judged:
    """Return size and number of the frames that are shown of a file to be stored.

    The file may have a still image and an animation. Both are checked; the major brand says which is shown.
    """
    count = PartCount()
    found = top_level(data, count)
    media = [box for box in found if box.kind == b"mdat"]
    still, animation = only(found, b"meta"), only(found, b"moov")
    ftyp = needed(found, b"ftyp")
    pictures = {
        b"avif": still and survey_items(data, still, media, limits, count),
        b"avis": animation and survey_tracks(data, animation, media, limits, count),
    }
    brand = data[ftyp.body : ftyp.body + 4]
    shown = pictures[brand] if brand in pictures else pictures[b"avis"] or pictures[b"avif"]
    if shown is None:
        raise UndecodableImage(detail=f"nothing to show in a file of brand {brand!r}")
    return shown
