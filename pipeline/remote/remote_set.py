"""Open sets that are not on this machine.

The manifest, the indices and the backgrounds are fetched and hashed when a set is opened, into a
folder named by its fingerprint: so neither another set nor another state of it is ever taken for
it, and what an earlier run fetched is used again. Of the shards only the sizes are asked.
"""

import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.error import LoaderError
from pipeline.opening import OpenedSet, hash_fault, raise_faults
from pipeline.remote.fetched_files import FetchedFiles, NoRoomError
from pipeline.remote.folder import FetchError, RemoteConfig, RemoteFolder
from pipeline.remote.shard_fetcher import ShardFetcher
from pipeline.user_folder import user_cache_folder
from shards.error import ShardError
from shards.manifest import BACKGROUNDS, NAME, FileRecord, Manifest, read_manifest

_SPLITS = ("train", "val")
"""`mixed` is never streamed."""

_POLL_S = 0.05


class RemoteSets:
    """What the remote sets of one loader have in common: a folder and what fetches into it.

    Args:
        config: Where, how much, how many at a time.

    Raises:
        LoaderError: The folder cannot be made.
    """

    def __init__(self, config: RemoteConfig) -> None:
        folder = config.cache_dir or user_cache_folder() / "remote"
        try:
            self._files = FetchedFiles(folder, int(config.cache_gb * 1e9))
        except OSError as error:
            msg = f"{folder} cannot be made ({error.strerror}); choose another --remote-cache-dir"
            raise LoaderError(msg) from None
        self._config = config
        self.fetcher = ShardFetcher(self._files, config)

    def open(self, url: str) -> OpenedSet:
        """Fetch what is small, hash it, and compare the sizes of the rest.

        Raises:
            ShardError: The manifest is damaged, or of another version.
            LoaderError: Files are missing or differ; all of them are named at once.
        """
        remote, manifest, folder = self._look(url)
        shards = [shard.name for split in _SPLITS for shard in manifest.split_shards(split)]
        tars, small = [f"{name}.tar" for name in shards], [f"{name}.npy" for name in shards]
        if manifest.backgrounds:
            small.append(BACKGROUNDS)
        unknown = [name for name in tars + small if name not in manifest.files]
        raise_faults(url, [f"{name} is not among the manifest's files" for name in unknown])
        faults = self._fetch(remote, folder, manifest, small)
        raise_faults(url, faults + remote.size_faults({tar: manifest.files[tar] for tar in tars}))
        return OpenedSet(location=remote.url, folder=folder, manifest=manifest, remote=remote)

    def faults(self, url: str) -> list[str]:
        """What differs from the manifest: what is small by its hash, the rest by its size.

        Raises:
            ShardError: The manifest is damaged, or of another version.
            LoaderError: There is none.
        """
        remote, manifest, folder = self._look(url)
        small = [n for n in manifest.files if n.endswith(".npy") or n == BACKGROUNDS]
        rest = {name: record for name, record in manifest.files.items() if name not in small}
        return self._fetch(remote, folder, manifest, small) + remote.size_faults(rest)

    def close(self) -> None:
        """End all fetching."""
        self.fetcher.close()

    def _look(self, url: str) -> tuple[RemoteFolder, Manifest, Path]:
        """A set's place, its manifest, and the folder for what is fetched of it."""
        remote = RemoteFolder(url, self._config)
        try:
            content = remote.read(NAME)
        except FetchError as error:
            msg = (
                f"{remote.url}/{NAME} cannot be fetched ({error}); give the URL of a finished set, "
                "the folder that holds its manifest"
            )
            raise LoaderError(msg) from None
        with tempfile.TemporaryDirectory(dir=self._files.folder) as made:
            (Path(made) / NAME).write_bytes(content)
            try:
                manifest = read_manifest(Path(made))
            except ShardError as error:
                raise ShardError(str(error).replace(made, remote.url)) from None
            folder = self._files.folder / manifest.fingerprint
            folder.mkdir(exist_ok=True)
            (Path(made) / NAME).replace(folder / NAME)
        return remote, manifest, folder

    def _fetch(
        self, remote: RemoteFolder, folder: Path, manifest: Manifest, names: Iterable[str]
    ) -> list[str]:
        def fault(name: str) -> str:
            try:
                self._fetch_small(remote, folder / name, manifest.files[name])
            except FetchError as error:
                return f"{name} cannot be fetched ({error})"
            except NoRoomError as error:
                return f"there is no room for {name} ({error}; give a larger --remote-cache-gb)"
            return ""

        with ThreadPoolExecutor(self._config.fetches, "maskdepth-fetch") as pool:
            return [found for found in pool.map(fault, names) if found]

    def _fetch_small(self, remote: RemoteFolder, path: Path, record: FileRecord) -> None:
        if path.exists() and hash_fault(path, record):
            self._files.remove(path)
        while not path.exists():
            with self._files.arriving(path, record) as part:
                if part is not None:
                    remote.fetch(path.name, part, record)
                    continue
            time.sleep(_POLL_S)  # another process fetches it
