"""Text that every form can carry."""


def printable(text: str) -> str:
    """Return ``text`` with a question mark for each character that XML has no word for: control characters but tab and new line."""
    return "".join(character if character in "\t\n" or character.isprintable() else "?" for character in text)
