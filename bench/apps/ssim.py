"""Compare images with a reference: `python ssim.py < JOB`. It runs in an environment that has scikit-image.

The job is a JSON object with the path of a `reference`, and `images`, a list of paths. The output is a JSON
list with the structural similarity (SSIM) of each image: of its `luma`, and the mean of its color channels,
`colors`. An image has null if its size differs from that of the reference.

The parameters are those of Wang et al., "Image quality assessment: from error visibility to structural
similarity" (2004): Gaussian weights with a standard deviation of 1.5 pixels.
"""

import importlib
import json
import sys

from PIL import Image

# scikit-image is not in the requirements, so mypy does not know it. It is imported dynamically.
_array = importlib.import_module("numpy").asarray
_ssim = importlib.import_module("skimage.metrics").structural_similarity

_WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


def _read(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _similarity(reference: Image.Image, image: Image.Image) -> dict[str, float] | None:
    if image.size != reference.size:
        return None
    luma = _ssim(_array(reference.convert("L")), _array(image.convert("L")), **_WANG)
    colors = _ssim(_array(reference), _array(image), channel_axis=2, **_WANG)
    return {"luma": float(luma), "colors": float(colors)}


def main() -> None:
    """Run the job on standard input."""
    job = json.load(sys.stdin)
    reference = _read(job["reference"])
    json.dump([_similarity(reference, _read(path)) for path in job["images"]], sys.stdout)


if __name__ == "__main__":
    main()
