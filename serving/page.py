"""The page at `/`: one file, which asks for nothing from elsewhere."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

__all__ = ["page_router"]

FILE: Final = Path(__file__).with_name("page.html")


def page_router() -> APIRouter:
    """The route of the page."""
    text = FILE.read_text(encoding="utf-8")
    told = {"Content-Security-Policy": _policy(text), "X-Content-Type-Options": "nosniff"}
    told |= {"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def get_page() -> HTMLResponse:
        """Search, the stream, and recommendations."""
        return HTMLResponse(text, headers=told)

    return router


def _policy(text: str) -> str:
    """What the page may do: its own script and style, and requests to this server."""
    allowed = {"default-src": "'none'", "connect-src": "'self'", "img-src": "data:"}
    for tag in ("script", "style"):
        [inner] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        allowed[f"{tag}-src"] = f"'sha256-{digest}'"
    allowed |= {"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    return "; ".join(f"{name} {source}" for name, source in allowed.items())
