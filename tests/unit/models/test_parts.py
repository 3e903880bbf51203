"""What goes out of an image or a file, and what does not: nothing that a provider would refuse for ever."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.providers.histories import check_anthropic, check_openai
from trio_sagents.data.messages import FilePart, ImagePart, Message
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._anthropic_request import anthropic_body
from trio_sagents.models._openai_request import openai_body
from trio_sagents.models._parts import file_text, image_data, image_url, pdf_data

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
JPEG = b"\xff\xd8\xff\xe0" + bytes(12)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


def b64(data: bytes) -> str:
    """Return data as base64."""
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("declared", "data", "sent"),
    [
        ("image/png", PNG, "image/png"),
        ("image/jpeg", PNG, "image/png"),
        ("image/png", JPEG, "image/jpeg"),
        ("image/tiff", JPEG, "image/jpeg"),
        ("application/octet-stream", WEBP, "image/webp"),
        ("", b"GIF89a" + bytes(9), "image/gif"),
        ("image/jpg", b"no magic", "image/jpeg"),
        ("IMAGE/PNG; charset=binary", b"no magic", "image/png"),
        ("image/tiff", b"no magic", None),
        ("image/svg+xml", b"<svg/>", None),
        ("image/png", b"", None),
    ],
)
def test_type_of_an_image(declared: str, data: bytes, sent: str | None) -> None:
    """An image is of the type that its bytes tell, as providers compare the two; else of the declared one, as they spell it."""
    image = image_data(ImagePart(declared, data=b64(data)))

    assert sent == (None if image is None else image.media_type)


@pytest.mark.parametrize("data", ["not base64", "AAA", "AA=A", "é", "AAAA-_==", "=", None])
def test_image_when_its_data_cannot_be_read(data: str | None) -> None:
    """Data that is no base64 is not sent: the address is, where there is one."""
    image = ImagePart("image/png", data=data, url="https://example.org/a.png")

    assert image_data(image) is None
    assert "https://example.org/a.png" == image_url(image)


def test_image_when_its_data_has_lines() -> None:
    """Base64 that an encoder broke into lines goes out in one."""
    lines = base64.encodebytes(PNG * 20).decode()
    image = image_data(ImagePart("image/png", data=lines))

    assert "\n" in lines
    assert image is not None
    assert b64(PNG * 20) == image.data


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        (f"data:image/png;base64,{b64(b'x')}", ("image/png", b64(b"x"))),
        (f"DATA:image/jpg;name=a.jpg;base64,{b64(b'x')}", ("image/jpeg", b64(b"x"))),
        ("data:image/png,raw", None),
        ("data:image/png;base64,", None),
        ("data:text/html;base64,eA==", None),
        ("file:///etc/passwd", None),
        ("a.png", None),
        ("", None),
    ],
)
def test_image_when_its_address_is_no_web_address(url: str, sent: tuple[str, str] | None) -> None:
    """A data URL is data; what a provider cannot fetch is not sent."""
    part = ImagePart("image/png", url=url)
    image = image_data(part)

    assert sent == (None if image is None else (image.media_type, image.data))
    assert image_url(part) is None


def test_image_when_it_has_data_and_an_address() -> None:
    """Data that can be sent goes before the address; data of a type that cannot leaves it to the address."""
    url = "https://example.org/a.tiff"
    bodies = [
        anthropic_body("m", ModelRequest("", [Message("1", "user", (ImagePart(media_type, "AAAA", url),))]), 1, {})
        for media_type in ("image/png", "image/tiff")
    ]

    assert ["base64", "url"] == [body["messages"][0]["content"][0]["source"]["type"] for body in bodies]


@pytest.mark.parametrize(
    ("media_type", "data", "text"),
    [
        ("text/plain", "Grüße", "Grüße"),
        ("text/csv; charset=utf-8", "a,b", "a,b"),
        ("TEXT/X-Python", "x = 1", "x = 1"),
        ("text/plain", "\ufeffmarked", "marked"),
        ("application/json", "{}", "{}"),
        ("application/ld+json", "{}", "{}"),
        ("image/svg+xml", "<svg/>", "<svg/>"),
        ("application/javascript", "1", "1"),
        ("text/plain", " \n", None),
        ("application/zip", "PK", None),
        ("application/pdf", "%PDF", None),
    ],
)
def test_text_of_a_file(media_type: str, data: str, text: str | None) -> None:
    """Whatever is text by its type goes out as text."""
    assert text == file_text(FilePart("f", media_type, b64(data.encode())))


@pytest.mark.parametrize("data", [b64("ü".encode("latin-1")), "not base64", ""])
def test_text_of_a_file_that_cannot_be_read(data: str) -> None:
    """What is no UTF-8 in base64 is not guessed at."""
    assert file_text(FilePart("f", "text/plain", data)) is None


@pytest.mark.parametrize(
    ("media_type", "data", "is_sent"),
    [("application/pdf", "JVBERg==", True), ("Application/PDF; x=y", "JVBERg==", True), ("application/x-pdf", "JVBE\nRg==", True)]
    + [("application/pdf", data, False) for data in ("", "not base64", "=")]
    + [("text/plain", "JVBERg==", False)],
)
def test_pdf_of_a_file(media_type: str, data: str, is_sent: bool) -> None:
    """A PDF goes out under the one name of its type; one whose data cannot be read does not."""
    pdf = pdf_data(FilePart("f", media_type, data))

    assert is_sent == (pdf is not None)
    assert pdf is None or "data:application/pdf;base64,JVBERg==" == pdf.url


def test_image_in_a_file() -> None:
    """A picture that came as a file is shown as a picture."""
    history = [Message("1", "user", (FilePart("a.png", "image/png", b64(PNG)),))]

    assert "image" == anthropic_body("m", ModelRequest("", history), 1, {})["messages"][0]["content"][0]["type"]
    assert "image_url" == openai_body("m", ModelRequest("", history), {})["messages"][0]["content"][0]["type"]


@pytest.mark.parametrize("name", ["n" * 600, " " * 600 + "n", "n"])
def test_title_of_a_document(name: str) -> None:
    """A name of any length is a title that the API takes."""
    body = anthropic_body("m", ModelRequest("", [Message("1", "user", (FilePart(name, "application/pdf", "JVBERg=="),))]), 1, {})

    assert 0 < len(body["messages"][0]["content"][0]["title"]) <= 500


_TYPES = st.sampled_from(["image/png", "image/jpg", "image/tiff", "application/pdf", "text/plain", "application/zip", "", "é;;"])
_DATA = st.binary(max_size=20).map(b64) | st.text(max_size=8) | st.sampled_from([b64(PNG), b64(JPEG), b64(WEBP)])
_URLS = st.none() | st.text(max_size=8) | st.sampled_from(["data:image/png;base64,AAAA", "data:;base64,", "https://example.org/a.png"])
_PARTS = st.lists(
    st.builds(ImagePart, _TYPES, st.none() | _DATA, _URLS) | st.builds(FilePart, st.text(max_size=5), _TYPES, _DATA), min_size=1
)


@given(_PARTS)
def test_any_parts_become_valid_bodies(parts: list[ImagePart | FilePart]) -> None:
    """Whatever people hand over, each part stands in a request that providers take."""
    request = ModelRequest("", [Message("1", "user", tuple(parts))])
    to_anthropic, to_openai = anthropic_body("m", request, 1, {}), openai_body("m", request, {})

    check_anthropic(to_anthropic)
    assert len(parts) == len(to_anthropic["messages"][0]["content"])
    content = to_openai["messages"][0]["content"]
    assert isinstance(content, str) or len(parts) == len(content)
    # The checker knows one type of image alone.
    for media_type in ("jpeg", "gif", "webp"):
        to_openai = json.loads(json.dumps(to_openai).replace(f"data:image/{media_type};", "data:image/png;"))
    check_openai(to_openai)
