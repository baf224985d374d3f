"""Image data sets from the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

from regmix.data.decode import import_optional
from regmix.data.images import ImageSet, Split
from regmix.data.parquet import Shards
from regmix.data.row_groups import Disk
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
        """Reads images uint8 [N, 3, H, W] as `read_parquet` does.

        Files are downloaded once and then come from the hub's cache; with `stream` only the parts in use are fetched.

        Raises:
            UserError: the repository or its files cannot be fetched or read.
        """
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
                    # The hub's patterns have no **; their * crosses folders.
                    allow_patterns=pattern.replace("**/", "*"),
                )
                files = sorted(str(path) for path in Path(base).glob(pattern))
        # HfFileSystem leaks errors of its HTTP client, and the client varies by version.
        except Exception as error:
            cause = " ".join(str(error).split())
            raise UserError(f"{self.repository} cannot be fetched from the Hugging Face hub: {cause}") from error
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
    """Files that stay on the hub; only the parts that are read are fetched."""

    files: Any
    """The HfFileSystem."""
    base: str
    """Common prefix of the names of the files."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file of the hub."""
        return cast(BinaryIO, self.files.open(name))

    def identity(self, name: str) -> Identity:
        """The name and size of a file, and the hub's hash of its content."""
        info = self.files.info(name)
        version = info.get("xet_hash") or info.get("blob_id") or ""
        return Identity(Path(name).relative_to(self.base).as_posix(), info["size"], version)
