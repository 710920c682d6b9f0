"""The budgets page: one document, with its style and script inside, and nothing from elsewhere."""

import base64
import hashlib
from importlib.resources import files
from typing import Final


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_STYLE: Final = _part("page.css")
_SCRIPT: Final = _part("page.js")

PAGE: Final = _part("page.html").replace("/*style*/", _STYLE).replace("/*script*/", _SCRIPT)

CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        f"style-src {_digest(_STYLE)}",
        f"script-src {_digest(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing runs and nothing is loaded but what this page brings; it talks to us alone."""
