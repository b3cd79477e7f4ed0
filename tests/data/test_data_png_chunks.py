"""PNG: what a file says of itself is read without decoding it, wherever it stands."""

import io

from PIL import Image, ImageFile
import pytest

from raytricks.data.image_formats import header_of


def png(*, exif_behind: bool | None) -> bytes:
    """A 4 x 9 image (height x width), turned by a quarter where there is EXIF data."""
    image, file = Image.new("RGB", (9, 4), "red"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, "PNG", **({} if exif_behind is None else {"exif": exif}))
    content = file.getvalue()
    if not exif_behind:
        return content
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    return content[:start] + content[end:-12] + content[start:end] + content[-12:]


@pytest.mark.parametrize(("exif_behind", "size"), [(None, (4, 9)), (False, (9, 4)), (True, (9, 4))])
def test_header_of_a_png_has_its_orientation_wherever_it_stands(exif_behind, size):
    header = header_of(png(exif_behind=exif_behind), "x")
    assert (header.height, header.width) == size


@pytest.mark.parametrize("exif_behind", [None, False])
def test_header_of_a_png_is_read_without_decoding(monkeypatch, exif_behind):
    def load(image):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    header_of(png(exif_behind=exif_behind), "x")
