"""Texts as windows keep them: a long one is a digest."""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["TEXT_LENGTH_KEPT", "kept_text", "text_digest"]

# Of longer texts a window keeps a digest as long: else one key could hold all memory there is.
TEXT_LENGTH_KEPT = 32


def kept_text(x: Any) -> Any:
    """A value as a window keeps it."""
    return text_digest(x) if type(x) is str and len(x) > TEXT_LENGTH_KEPT else x


def text_digest(x: str) -> str:
    """A digest of a long text, of which a window only has to know whether it is another."""
    return "\0" + hashlib.sha256(x.encode()).hexdigest()[:TEXT_LENGTH_KEPT]
