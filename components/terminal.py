"""Text from outside as a terminal may show it.

What belongs here: making captions, names and messages harmless and short. What does not: what is said with them.
"""


def printable(text: str, width: int = 160) -> str:
    """The text with control characters escaped, so that it cannot move the cursor, and cut to ``width`` characters."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= width else f"{safe[: width - 1]}…"
