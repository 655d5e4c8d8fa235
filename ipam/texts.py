"""Which texts a message may have, and so what is stored.  Pure."""

LONGEST = 1024


def fault_of(text: str) -> str:
    """Say why no message may have *text*, or ""."""
    if len(text) > LONGEST:
        return f"a text of {len(text)} characters; at most {LONGEST}"
    if not text.isprintable():  # half a character, as JSON's "\\ud800" is one, neither
        return f"{text!r} has characters that cannot be printed"
    return ""


def legible(text: str, longest: int = LONGEST) -> str:
    """Return what a person is told: *text* as a message may have it."""
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= longest else f"{text[: longest - 2]} …"
