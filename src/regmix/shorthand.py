"""Short forms in which a user names things. Imports nothing heavy, because the help needs it."""

from regmix.errors import UserError


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


def with_settings(text: str, flag: str) -> tuple[str, dict[str, str]]:
    """The name and the settings in a text such as pgd_at:steps=2:start=corner, which `flag` has in its list.

    Raises:
        UserError: a setting that is not of the form FIELD=VALUE, or is there twice.
    """
    name, *parts = text.strip().split(":")
    settings = {}
    for part in parts:
        field, equals, value = part.partition("=")
        if not (field and equals and value):
            raise UserError(f"{flag} {text.strip()}: {part!r} is not a setting; write {name}:FIELD=VALUE")
        if field in settings:
            raise UserError(f"{flag} {text.strip()}: {field} is set twice; keep one")
        settings[field] = value
    return name, settings


def names_in(text: str | None) -> list[str]:
    """The names in a list that commas separate."""
    return [name.strip() for name in text.split(",")] if text else []
