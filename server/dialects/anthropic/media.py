"""Images and documents: OpenAI's parts as Anthropic's blocks. What a file is, its first bytes say.

A declared type is not believed: Anthropic refuses an image whose bytes are of another kind, and
clients call every picture `image/jpeg`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from server.errors import InvalidRequest

#: Base64 without its padding of spaces; a data URL may have parameters before `;base64`.
_DATA_URL: Final = re.compile(r"data:(?P<type>[^,;]*)(?:;[^,]*?)?;base64,", re.IGNORECASE)
#: So many characters of base64 hold the first bytes that tell what a file is.
_HEAD: Final = 32
_PDF: Final = "application/pdf"


def sniffed(data: str) -> str | None:
    """The media type of base64 data by its first bytes; None where it is none that is known."""
    try:
        head = base64.b64decode(data[:_HEAD], validate=True)
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return _PDF if head.startswith(b"%PDF-") else None


def image(url: Any, where: str) -> dict[str, Any]:
    """An `image` block of an address or a data URL."""
    if not isinstance(url, str):
        raise InvalidRequest(f"`{where}` must be a string.", param=where, code="invalid_type")
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    data = _data(url)
    kind = None if data is None else sniffed(data)
    if kind is None or kind == _PDF:
        raise InvalidRequest(
            f"`{where}` must be an http(s) address or a data URL with a JPEG, PNG, GIF or WebP "
            "image in base64.",
            param=where,
        )
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def document(file: Any, where: str) -> dict[str, Any]:
    """A `document` block of a PDF that stands in the request."""
    if not isinstance(file, dict):
        raise InvalidRequest(f"`{where}` must be an object.", param=where, code="invalid_type")
    said, title = file.get("file_data"), file.get("filename")
    if said is None and file.get("file_id") is not None:
        raise InvalidRequest(
            f"`{where}.file_id` names a file at another provider; send the file itself as "
            "`file_data`.",
            param=f"{where}.file_id",
            code="unsupported_parameter",
        )
    data = _data(said) if isinstance(said, str) else None
    if data is None or sniffed(data) != _PDF:
        raise InvalidRequest(
            f"`{where}.file_data` must be a PDF in base64, as a data URL.",
            param=f"{where}.file_data",
        )
    source = {"type": "base64", "media_type": _PDF, "data": data}
    block: dict[str, Any] = {"type": "document", "source": source}
    if isinstance(title, str) and title:
        block["title"] = title
    return block


def _data(text: str) -> str | None:
    """The base64 of a data URL, or the text itself where it is no URL; None for other URLs."""
    if found := _DATA_URL.match(text):
        return text[found.end() :]
    return None if ":" in text[:16] else text
