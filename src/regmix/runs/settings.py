"""The settings with which weights and states were made, kept in their files, and whether config.json says the same."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open

from regmix.runtime.files import flat, parse_json
from regmix.types import UserError

SETTINGS = "settings"
"""The entry of a state, and of the metadata of a file of weights."""
TRAINED = ("model", "threat", "method")
"""The parts of config.json that say what weights compute and how they were trained; their files keep these."""
PLACES = {"data.root", "data.download", "device", "model.source", "data.source"}
"""Settings that say where something is, and change no number. Of a user's own model the code is compared, not its
name."""


def metadata_of(config: str) -> dict[str, str]:
    """What a file of weights keeps of the config.json of its training; nothing without a config."""
    settings = json.loads(config) if config else {}
    kept = {part: settings[part] for part in TRAINED if part in settings}
    return {SETTINGS: json.dumps(kept)} if kept else {}


def check_weights(config: str, path: Path, weights: Iterable[Path]) -> None:
    """Raises UserError if files of weights were trained with other settings than config.json at `path` says."""
    for file in weights:
        try:
            with safe_open(file, "pt") as opened:
                kept = (opened.metadata() or {}).get(SETTINGS)
        except (SafetensorError, OSError):  # who loads the weights says so
            continue
        if kept is not None:
            check_settings(parse_json(kept, file), parse_json(config, path), path, file.name, PLACES)


def check_settings(
    before: Mapping[str, JsonValue], now: Mapping[str, JsonValue], path: Path, of: str, but: Collection[str] = ()
) -> None:
    """Raises UserError if config.json at `path` has another value of a setting than `before`.

    Settings that only one of them has are of another version of regmix.

    Args:
        of: the file that was trained with `before`.
        but: settings that may differ.
    """
    was, says = flat(before), flat(now) if isinstance(now, dict) else {}
    for name in sorted(was.keys() & says.keys() - {*but}, key=lambda name: (not name.endswith("name"), name)):
        if was[name] != says[name]:
            old, new = json.dumps(was[name]), json.dumps(says[name])
            raise UserError(
                f"{path} was edited: it says {name} = {new}, but {of} was trained with {old}; put {old} back. To train "
                f"with other settings, begin a new run: regmix train --from {path.parent} with their flags"
            )
