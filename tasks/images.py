"""Thumbnail of one picture."""

from pathlib import Path
from typing import Annotated

from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from conventions import BusinessError, ImmediateTask
from tasks.files import atomic, source_below

MAX_PIXELS = 50_000_000  # a picture of more is refused before it is decoded: 50 million need 200 MB
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
)  # a decoder that few pictures need is one more that a forged picture may misuse

Pixels = Annotated[int, Field(ge=16, le=2048)]


class MakeThumbnail(ImmediateTask):
    """Make one small copy of one picture, turned upright and without its metadata.

    Raises:
        BusinessError: no such file, not a picture, broken, or too large to decode.
    """

    not_idempotent = "the same file is written again with the same content, and the picture may have changed since"

    def run(self, source: str, size: Pixels = 256) -> str:
        """Write `thumbnails/<size>/<source>` below the output folder and return its path.

        Args:
            source: path of the picture, relative to `CONVENTIONS_INPUT_DIR`, by default the folder in which the worker runs.
            size: longest side of the copy, 16 to 2048 pixels; a smaller picture is not enlarged.
        """
        root = Path(self.app.settings.input_dir)
        path = source_below(root, source)
        relative = path.relative_to(root.resolve())
        picture = _open(path, source)
        keeps_alpha = picture.has_transparency_data
        picture = picture.convert("RGBA" if keeps_alpha else "RGB")
        picture.thumbnail((size, size))
        picture.info.clear()  # no location, no camera, no embedded original
        suffix = ".png" if keeps_alpha else ".jpg"
        # The whole name is kept: a.png and a.jpg are two pictures.
        target = Path(self.app.settings.output_dir) / "thumbnails" / str(size) / f"{relative}{suffix}"
        with atomic(target) as draft:
            picture.save(draft, quality=85, progressive=True)  # PNG has no use for either
        return str(target)


def _open(path: Path, source: str) -> Image.Image:
    """Decode the picture and turn it upright. Raises: BusinessError."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BusinessError(f"{source!r} has {picture.width} x {picture.height} pixels, too many to decode")
            picture.load()
            return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise BusinessError(f"{source!r} is not a picture of these kinds: {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BusinessError(f"{source!r} has too many pixels to decode") from None
    except (SyntaxError, ValueError, OSError) as error:  # what Pillow raises for a broken or cut-off file
        raise BusinessError(f"{source!r} cannot be decoded: {error}") from error
