"""Short forms in which a user names things. Imports nothing heavy, because the help needs it."""


def named(part: str, text: str) -> tuple[str, dict[str, str]]:
    """The kind of a part of an experiment that a text means, and the settings of that kind that follow from it.

    A model may be written timm:NAME, hf:NAME or module:function, data module:function. Any other text is a kind.
    """
    before, colon, after = text.partition(":")
    if not colon or part not in ("model", "data"):
        return text, {}
    libraries = {"timm": ("timm", "architecture"), "hf": ("transformers", "repository")} if part == "model" else {}
    kind, setting = libraries.get(before, ("function", "source"))
    return kind, {setting: after if before in libraries else text}


def names_in(text: str | None) -> list[str]:
    """The names in a list that commas separate."""
    return [name.strip() for name in text.split(",")] if text else []
