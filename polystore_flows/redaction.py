"""What must never be shown: passwords in URIs, and values under names that tell of a secret."""

from __future__ import annotations

import re

MASK = "***"
"""Stands where a secret was."""

_SECRET = re.compile(
    r"pass|pwd|secret|token|signature|^sig$|credential|session|auth|key(?!word)", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether what has this name is probably a secret: ``token``, ``api_key``."""
    return _SECRET.search(name) is not None


def redact(text: str) -> str:
    """`text` with user and password, and secret-looking values of a query, masked.

    For errors and logs, so it takes any text, also one that is no URI.
    """
    head, mark, query = text.partition("?")
    scheme, colon, rest = head.partition(":")
    secret, at, host = rest.rpartition("@")
    if colon and ":" in secret:
        slashes = "//" if rest.startswith("//") else ""
        head = f"{scheme}:{slashes}{MASK}{at}{host}"
    pairs = (pair.partition("=") for pair in query.split("&"))
    masked = (f"{k}{eq}{MASK if eq and is_secret(k) else v}" for k, eq, v in pairs)
    return head + mark + "&".join(masked)
