"""Radiographs at a URL: in object stores, and on whatever file systems pyarrow and fsspec reach (extra ``ray``).

pyarrow brings S3, Google's and Azure's stores and HDFS with it; other schemes go through fsspec, which says what to
install for them. Credentials come from the environment, as those libraries document, never from a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from cxredge.dicom.prefix import HEAD_LENGTH
from cxredge.errors import CxredgeError, InputError, MissingExtraError
from cxredge.limits import LARGEST_IMAGE_FILE
from cxredge.runs.proof import Signature

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

OF_ARROW = frozenset({"file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"})
"""Schemes that pyarrow serves itself; their URLs are percent-encoded."""
HEADS_AT_ONCE = 32
"""Objects whose first bytes are asked for at once."""
PASSWORD = re.compile(r"://[^/?#:]*:(?!\d+/|:)[^?#]*@")
"""``user:password@`` in any part of a chained URL; a password may hold a slash, a port does not count as one."""
PARAMETER = re.compile(r"[?&;#]([^=?&;#/]*)=")
"""Name of a parameter in any part of a chained URL."""
SECRET = re.compile(r"secret|token|signature|key|password|credential|(?<![a-z])sig(?![a-z])", re.IGNORECASE)
"""What a parameter's name has in it where its value must not be kept."""


@dataclass(frozen=True)
class Place:
    """Where a URL leads.

    Attributes:
        url: as the user named it.
        files: the file system.
        path: in it.
    """

    url: str
    files: FileSystem
    path: str

    def info(self) -> FileInfo:
        """Kind, size and time of change."""
        return self.files.get_file_info(self.path)

    def below(self, relative: PurePosixPath) -> str:
        """URL of a file below this folder."""
        name = quote(str(relative)) if urlsplit(self.url).scheme in OF_ARROW else str(relative)
        path, rest = split_path(self.url)
        return f"{path.removesuffix('/')}/{name}{rest}"


def is_url(text: str) -> bool:
    """Whether an input is a URL, not a path."""
    return "://" in text


def url_name(url: str) -> PurePosixPath:
    """Path of a URL, without its scheme and host."""
    parts = urlsplit(url)
    path = unquote(parts.path) if parts.scheme in OF_ARROW else parts.path
    return PurePosixPath(path.lstrip("/") or parts.netloc)


def split_path(url: str) -> tuple[str, str]:
    """A URL up to the end of its path, and what follows; without a host, too, where urlunsplit changes it."""
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    return path, url[len(path) :]


def find_remote(url: str) -> Iterator[tuple[str, PurePath]]:
    """URLs of the radiographs at a URL, with the names of their results.

    What is no folder is taken as it is: its result says what is wrong with it. In a folder, or below a prefix, the
    rules are those of :func:`cxredge.runs.discovery.find_radiographs`.

    Raises:
        InputError: the URL cannot be used, or its store cannot be reached.
    """
    from pyarrow.fs import FileSelector, FileType

    place = open_place(url)
    with reasons(url, "cannot be listed"):
        if place.info().type != FileType.Directory:
            yield url, PurePath(url_name(url).name)
            return
        found = place.files.get_file_info(FileSelector(place.path, recursive=True))
        files = [info for info in found if info.type == FileType.File]
    names = sorted(PurePosixPath(info.path.removeprefix(place.path).lstrip("/")) for info in files)
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
        taken = pool.map(lambda name: is_shown(name) and looks_like_radiograph(place, name), names)
        for name, take in zip(names, taken, strict=True):
            if take:
                yield place.below(name), PurePath(name)


def is_shown(name: PurePosixPath) -> bool:
    """Whether a file in a folder is neither hidden nor a result."""
    from cxredge.runs.results import RESULT_SUFFIXES

    return not any(part.startswith(".") for part in name.parts) and not name.name.endswith(RESULT_SUFFIXES)


def looks_like_radiograph(place: Place, name: PurePosixPath) -> bool:
    """Whether its name, or its first bytes, say that the file ``name`` below ``place`` is a radiograph."""
    from cxredge.runs.discovery import head_of_radiograph, name_of_radiograph

    by_name = name_of_radiograph(PurePath(name))
    if by_name is not None:
        return by_name
    try:
        with place.files.open_input_file(str(PurePosixPath(place.path) / name)) as file:
            return head_of_radiograph(file.read(HEAD_LENGTH))
    except Exception:  # back ends' errors have no common base; taken, so that its result says what is wrong
        return True


def remote_signature(url: str) -> Signature | None:
    """Size and time of last change of what is at a URL; ``None`` where there is nothing, or its store keeps no times.

    Raises:
        InputError: the URL cannot be used, or its store cannot be reached.
    """
    place = open_place(url)
    with reasons(url, "cannot be reached"):
        return signature_of(place, place.info())


def signature_of(place: Place, info: FileInfo) -> Signature | None:
    """The signature in what a store says of a file."""
    if info.size is None:
        return None
    if info.mtime_ns is not None:
        return info.size, info.mtime_ns
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    if isinstance(place.files, PyFileSystem) and isinstance(place.files.handler, FSSpecHandler):
        with suppress(NotImplementedError, KeyError):  # fsspec's ways to say that there is no such time
            return info.size, int(1e6 * place.files.handler.fs.modified(place.path).timestamp()) * 1000
    return None


def fetch(url: str, target: Path) -> Signature | None:
    """Copy what is at a URL into a new file; gives its signature from before that.

    Raises:
        InputError: there is nothing, it is too large, or it cannot be fetched.
    """
    from pyarrow.fs import FileType

    place = open_place(url)
    with reasons(url, "cannot be fetched"):
        info = place.info()
        if info.type != FileType.File:
            raise InputError("cannot be read: there is no such object", url)
        if info.size is not None and info.size > LARGEST_IMAGE_FILE:
            raise InputError(f"has {info.size} bytes, at most {LARGEST_IMAGE_FILE} are read", url)
        with place.files.open_input_stream(place.path, compression=None) as source, target.open("xb") as file:
            copy_bounded(source, file, url)
        return signature_of(place, info)


def copy_bounded(source: IO[bytes], target: IO[bytes], url: str) -> None:
    """Copy a stream, whose store may not have said how long it is.

    Raises:
        InputError: it is too large.
    """
    copied = 0
    while block := source.read(1 << 20):
        copied += len(block)
        if copied > LARGEST_IMAGE_FILE:
            raise InputError(f"has more than the {LARGEST_IMAGE_FILE} bytes that are read", url)
        target.write(block)


def require_valid(url: str) -> None:
    """Raise :class:`InputError` where a URL is malformed."""
    try:
        urlsplit(url)
    except ValueError:  # its message may quote what stands where a password does
        raise InputError("a URL is malformed: its host cannot be told") from None


def require_no_secret(url: str) -> None:
    """Refuse a URL that holds what must not stand in the results; the message does not repeat it.

    Raises:
        InputError: it holds a password, or a parameter that is called like a secret.
    """
    if PASSWORD.search(url):
        raise InputError("a URL with a password would be kept in the results; put credentials into the environment")
    if any(SECRET.search(unquote(name)) for name in PARAMETER.findall(url)):
        raise InputError(
            "a URL with a key, token or signature would be kept in the results; put credentials into the environment"
        )


def open_place(url: str) -> Place:
    """The file system of a URL, and the path in it.

    Raises:
        MissingExtraError: pyarrow or fsspec is not installed.
        InputError: the URL is malformed, holds a secret, or nothing serves its scheme.
    """
    require_libraries()
    require_no_secret(url)
    parts = urlsplit(url)
    if parts.scheme not in OF_ARROW:
        return Place(url, *through_fsspec(url))
    root = urlunsplit(parts._replace(path="/", fragment=""))
    with reasons(url, "cannot be used"):
        files, base = arrow_root(root)
    return Place(url, files, base.rstrip("/") + unquote(parts.path).rstrip("/"))


@lru_cache(maxsize=64)
def arrow_root(root: str) -> tuple[FileSystem, str]:
    """File system and path of the root of a URL; asked for once, since it may ask the store for its region."""
    from pyarrow.fs import FileSystem

    files, base = FileSystem.from_uri(root)
    return files, base


def through_fsspec(url: str) -> tuple[FileSystem, str]:
    """File system and path of a URL that pyarrow does not serve itself.

    Raises:
        InputError: fsspec does not know the scheme, or needs another package for it.
    """
    from fsspec.core import url_to_fs
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        files, path = url_to_fs(url)
    except Exception as error:  # back ends' errors have no common base
        raise InputError(f"cannot be used: {gist(error)}", url) from error
    return PyFileSystem(FSSpecHandler(files)), path


def require_libraries() -> None:
    """Raise :class:`MissingExtraError` where pyarrow or fsspec is missing."""
    try:
        import fsspec  # noqa: F401 (only whether it is there)
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading URLs and Parquet", "ray") from error


@contextmanager
def reasons(url: str, what: str) -> Iterator[None]:
    """Turn what a store complains about into an error of the input."""
    try:
        yield
    except CxredgeError:
        raise
    except Exception as error:  # those of fsspec's back ends, and pyarrow's, have no common base
        raise InputError(f"{what}: {gist(error)}", url) from error


def gist(error: Any) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
