"""`MakeThumbnail` on real pictures and on broken ones."""

import io
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from conventions import BusinessError, PayloadError
from conventions.app import ConventionsApp
from tasks.images import MakeThumbnail
from tests.demo_settings import settings_of

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"


def make(source: str, size: int = 64) -> Path:
    path: str = MakeThumbnail.apply(kwargs={"source": source, "size": size}).get()
    return Path(path)


@pytest.fixture
def pictures(app: ConventionsApp) -> Path:
    """The example pictures, in the folder in which the worker runs."""
    shutil.copytree(PICTURES, "pictures")
    return Path("pictures")


@pytest.mark.parametrize("name", sorted(path.name for path in PICTURES.iterdir()))
def test_the_longest_side_has_the_size_asked_for(pictures: Path, app: ConventionsApp, name: str) -> None:
    """The copy has the shape of the picture and lies where the result says."""
    path = make(f"pictures/{name}", 64)
    assert path == Path(settings_of(app).output_dir) / "thumbnails" / "64" / "pictures" / f"{name}.jpg"
    with Image.open(pictures / name) as picture, Image.open(path) as copy:
        assert max(copy.size) == 64
        assert copy.width / copy.height == pytest.approx(picture.width / picture.height, rel=0.03)
    assert [file.name for file in path.parent.iterdir()] == [f"{name}.jpg"]


def test_a_small_picture_is_not_enlarged(pictures: Path) -> None:
    """There is nothing to see that is not there."""
    with Image.open(make("pictures/rocket.jpg", 2048)) as copy:
        assert copy.size == (640, 427)


def test_transparency_is_kept(app: ConventionsApp) -> None:
    """A picture with an alpha channel becomes a PNG."""
    Image.new("RGBA", (100, 50), (255, 0, 0, 0)).save("logo.png")
    path = make("logo.png")
    assert path.suffix == ".png"
    with Image.open(path) as copy:
        assert copy.mode == "RGBA"
        assert copy.getchannel("A").getextrema() == (0, 0)


def test_a_turned_picture_stands_upright_and_loses_its_metadata(app: ConventionsApp) -> None:
    """The camera's orientation is carried out, and nothing of the camera stays."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    exif[0x010F] = "Maker of cameras"
    Image.new("RGB", (200, 100)).save("turned.jpg", exif=exif)
    with Image.open(make("turned.jpg", 64)) as copy:
        assert copy.size == (32, 64)
        assert not copy.getexif()


@pytest.mark.parametrize("source", ["../secret.png", "/etc/passwd", "pictures/../../secret.png", "link.png"])
def test_a_file_outside_the_folder_is_refused(app: ConventionsApp, tmp_path: Path, source: str) -> None:
    """A payload cannot make a task read what it should not."""
    Path("pictures").mkdir()
    Path("link.png").symlink_to("/etc/passwd")
    with pytest.raises(BusinessError, match="outside the folder"):
        make(source)


def test_a_missing_file_is_a_business_error(app: ConventionsApp) -> None:
    """It names the file."""
    with pytest.raises(BusinessError, match=r"no such file: 'no.png'"):
        make("no.png")


def test_what_is_no_picture_is_a_business_error(app: ConventionsApp) -> None:
    """Whatever its name says."""
    Image.new("RGB", (16, 16)).save("icon.ico")
    with pytest.raises(BusinessError, match="is not a picture of these kinds"):
        make("icon.ico")
    Path("text.png").write_text("not a picture")
    with pytest.raises(BusinessError, match="is not a picture"):
        make("text.png")


def test_a_cut_off_picture_is_a_business_error(pictures: Path) -> None:
    """Half a picture leaves no half thumbnail."""
    whole = (pictures / "rocket.jpg").read_bytes()
    (pictures / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BusinessError, match="cannot be decoded"):
        make("pictures/half.jpg")
    assert not Path("output").exists()


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(app: ConventionsApp, side: int) -> None:
    """A file of a few bytes that says it has billions of pixels costs nothing."""
    Path("bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(BusinessError, match="pixels"):
        make("bomb.png")


@pytest.mark.parametrize("size", [0, 15, 2049])
def test_a_size_out_of_range_is_refused_at_the_call(app: ConventionsApp, size: int) -> None:
    """Nothing is sent."""
    with pytest.raises(PayloadError, match="size"):
        MakeThumbnail.delay(source="a.png", size=size)


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces its size and has no content."""
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ):
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return file.getvalue()
