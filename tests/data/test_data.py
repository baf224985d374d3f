"""The package as a whole: its configs and what importing it costs."""

import dataclasses
import subprocess
import sys

import pydantic
import pytest
import tyro

from regmix.data import (
    Cifar10,
    Cifar100,
    DataConfig,
    Digits,
    Folder,
    Hub,
    Imagenet32,
    Parquet,
    Svhn,
    TinyImagenet,
)

CONFIGS = [
    Digits(),
    Cifar10(root="here", download=True),
    Cifar100(),
    Svhn(download=True),
    TinyImagenet(root="there"),
    Imagenet32(root="elsewhere"),
    Folder(root="pictures", size=48),
    Hub(repository="a/b", image_column="image"),
    Parquet(root="shards", stream=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_configs_survive_a_config_file(config):
    written = dataclasses.asdict(config)
    assert next(iter(written)) == "name"
    assert pydantic.TypeAdapter(DataConfig).validate_python(written) == config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["digits"], Digits()),
        (["cifar10", "--root", "here", "--download"], Cifar10(root="here", download=True)),
        (["folder", "--root", "x", "--size", "48"], Folder(root="x", size=48)),
        (["hub", "--repository", "a/b"], Hub(repository="a/b")),
    ],
)
def test_configs_can_be_written_on_the_command_line(words, expected):
    assert tyro.cli(DataConfig, args=words) == expected


def test_names_are_distinct():
    assert len({config.name for config in CONFIGS}) == len(CONFIGS)


@pytest.mark.slow
def test_importing_the_package_loads_no_reader():
    code = "import sys, regmix.data; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "regmix" in loaded
    assert not loaded & {"pyarrow", "PIL", "sklearn", "huggingface_hub", "torchvision", "pandas"}
