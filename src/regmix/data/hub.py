"""Image data sets of the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from regmix.data.decode import import_optional
from regmix.data.images import ImageSet, Split
from regmix.data.parquet import Shards
from regmix.types import Tag, UserError


@dataclass(frozen=True, kw_only=True)
class Hub(Shards):
    """A data set of the Hugging Face hub, kept there as parquet files of encoded images."""

    name: Tag[Literal["hub"]] = "hub"
    repository: str = "uoft-cs/cifar10"
    """Name of the data set on the hub."""
    revision: str = "main"
    """Branch, tag or commit; a commit makes a run reproducible."""
    image_column: str = "img"
    """Column of the encoded images."""

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
        if self.stream:
            return self.read_files(files, split, self.repository, remote.open)
        return self.read_files(files, split, self.repository)
