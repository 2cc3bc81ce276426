"""Text of others, made safe to show: names and messages come from users' code."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Without control and direction characters, which could repaint a terminal, break XML, or show a name that is another."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def short(error: object, most: int = 300) -> str:
    """What an error says, in one line of at most so many characters; cut between words."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[: most - 4].rsplit(" ", 1)[0] + " ..."
