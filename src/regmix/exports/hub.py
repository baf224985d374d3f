"""Folders for the Hugging Face hub: the head of their README.md, and the upload."""

import json
import re
from pathlib import Path
from typing import Any

from regmix.exports.card import CLEAN, is_masked
from regmix.exports.checkpoint import Checkpointed
from regmix.runs.evaluations import Stored
from regmix.types import UserError


def front_matter(chosen: Checkpointed, name: str) -> str:
    """The metadata of a README.md of the hub, as YAML: library, task, tags, and accuracies in [0, 1] on the test split.

    Accuracies on other images are in the card alone. A licence is left out: the owner of the weights adds it.
    """
    threat = chosen.experiment.threat
    head: dict[str, Any] = {
        "library_name": "regmix",
        "pipeline_tag": "image-classification",
        "tags": ["regmix", "adversarial-robustness", f"threat-{threat.name}"],
    }
    if results := [_result(chosen, stored) for stored in chosen.own]:
        head["model-index"] = [{"name": name, "results": results}]
    # JSON is YAML too.
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", "", ""])


def _result(chosen: Checkpointed, stored: Stored) -> dict[str, Any]:
    evaluation, data = stored.evaluation, chosen.experiment.data.name
    masked = ", gradients masked" if is_masked(stored) else ""
    metrics = []
    for key, column in evaluation.columns.items():
        under = (
            ""
            if key == CLEAN
            else f" under {column.attack}, {chosen.experiment.threat.name} eps {column.eps_text}{masked}"
        )
        name = f"accuracy{under}, {evaluation.sample_text()}"
        metrics.append({"type": "accuracy", "name": name, "value": column.accuracy})
    return {
        "task": {"type": "image-classification"},
        "dataset": {"type": data, "name": data, "split": "test"},
        "metrics": metrics,
    }


def connect(repository: str) -> Any:
    """The client of the hub.

    Raises:
        UserError: the name is not OWNER/NAME, or huggingface_hub is not installed.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise UserError(f"--push {repository}: write the name of the repository as OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f'--push needs huggingface_hub: pip install "regmix[data]" ({error})') from None
    return huggingface_hub.HfApi()


def push(hub: Any, folder: Path, repository: str) -> str:
    """Uploads a folder to a repository of the hub, which is made (private) if it does not exist; returns its address.

    Raises:
        UserError: the hub refuses.
    """
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a model of regmix")
    except Exception as error:  # the hub's client and its HTTP library have many kinds
        cause = " ".join(str(error).split())
        raise UserError(f"{folder} is written, but not uploaded to {repository}: {cause}") from error
    return f"https://huggingface.co/{repository}"
