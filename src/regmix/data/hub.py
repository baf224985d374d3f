"""Image data sets of the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

from regmix.data.decode import import_optional
from regmix.data.images import ImageSet, Split
from regmix.data.parquet import Disk, Shards
from regmix.data.stored import Identity
from regmix.types import Tag, UserError


@dataclass(frozen=True, kw_only=True)
class Hub(Shards):
    """A data set of the Hugging Face hub, stored there as parquet files of encoded images."""

    name: Tag[Literal["hub"]] = "hub"
    repository: str = "uoft-cs/cifar10"
    """Name of the data set on the hub."""
    revision: str = "main"
    """Branch, tag or commit. Give a commit to make the run reproducible."""
    image_column: str = "img"
    """Column with the encoded images."""

    def read(self, split: Split) -> ImageSet:
        """Images uint8 [N, 3, H, W] as `read_parquet` makes them; files come from the hub once and then from
        its cache, or with `stream` in parts whenever they are needed. Raises UserError if the repository or the files
        cannot be had."""
        hub = import_optional("huggingface_hub")
        pattern = self.pattern(split)
        try:
            if self.stream:
                remote = hub.HfFileSystem()
                base = f"datasets/{self.repository}@{quote(self.revision, safe='')}"
                files = sorted(remote.glob(f"{base}/{pattern}"))
            else:
                base = hub.snapshot_download(
                    self.repository,
                    repo_type="dataset",
                    revision=self.revision,
                    # The hub's patterns know no **: there, * crosses folders.
                    allow_patterns=pattern.replace("**/", "*"),
                )
                files = sorted(str(path) for path in Path(base).glob(pattern))
        # Its file system lets errors of the library through that it speaks HTTP with, which changes.
        except Exception as error:
            why = " ".join(str(error).split())
            raise UserError(f"{self.repository} cannot be had from the Hugging Face hub: {why}") from error
        folders = sorted({str(Path(path).parent.relative_to(base)) for path in files})
        if len(folders) > 1:
            raise UserError(
                f"{self.repository} has {pattern} in several folders ({', '.join(folders)}); "
                f"choose one with --data.{split}-files"
            )
        store = Remote(remote, base) if self.stream else Disk(Path(base))
        return self.read_files(files, split, self.repository, store)


@dataclass(frozen=True)
class Remote:
    """Files that stay on the hub and are fetched in parts."""

    files: Any
    """The file system of huggingface_hub."""
    base: str
    """What the names of the files begin with."""

    def open(self, name: str) -> BinaryIO:
        """A file of the hub, of which only what is read is fetched."""
        return cast(BinaryIO, self.files.open(name))

    def identity(self, name: str) -> Identity:
        """Name and size of a file, and the hash of its content that the hub knows it by."""
        found = self.files.info(name)
        version = found.get("xet_hash") or found.get("blob_id") or ""
        return Identity(Path(name).relative_to(self.base).as_posix(), found["size"], version)
