"""Text of others, made safe to show: names and messages come from users' code."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Without control and direction characters, which could repaint a terminal, break XML, or show a name that is another."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") else "\N{REPLACEMENT CHARACTER}" for c in text
    )
