"""A page that segments a dropped PNG in the browser: one HTML file with the model and ONNX Runtime for browsers inside.

Opened from a disk it needs no server and no network, which its security policy forbids it. ``onnxruntime-web`` is
npm's package of Microsoft's (MIT licence); it is taken from where the user has it, and only the version that this
was tested with, by its files' SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import html
import subprocess
import tarfile
import tempfile
from pathlib import Path

from cxredge.contract import Contract
from cxredge.errors import InputError
from cxredge.limits import LimitError, read_bytes
from cxredge.runs.results import write_atomically

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
RUNTIME, WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
SHA256 = {
    RUNTIME: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LARGEST_FILE = 64 << 20
SCRIPTS = ("png.js", "cleaning.js", "page.js")
FETCH_SECONDS = 300
REMEDY = f"fetch it with 'npm pack {PACKAGE}@{VERSION}' and name the file with --ort, or use --fetch"


def write_demo(folder: Path, model: bytes, contract: Contract, runtime: dict[str, bytes]) -> Path:
    """Write the page.

    Args:
        folder: where to; made where it is missing.
        model: an ONNX file with its processing inside.
        contract: of the model, whose name, use and licence the page shows.
        runtime: files of onnxruntime-web, as :func:`read_runtime` gives them.

    Returns:
        ``index.html`` in ``folder``.

    Raises:
        OutputError: it cannot be written.
    """
    web = Path(__file__).parent / "web"
    values = {
        "name": html.escape(contract.name),
        "intended_use": html.escape(contract.intended_use),
        "licence": html.escape(contract.licence),
        "runtime_version": VERSION,
        "script": "".join((web / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "runtime": base64.b64encode(runtime[RUNTIME]).decode(),
        "wasm": base64.b64encode(runtime[WASM]).decode(),
        "model": base64.b64encode(model).decode(),
    }
    page = (web / "page.html").read_text(encoding="utf-8")
    for name, value in values.items():
        page = page.replace(f"{{{{{name}}}}}", value)
    path = folder / "index.html"
    write_atomically(path, page.encode())
    return path


def read_runtime(source: Path) -> dict[str, bytes]:
    """The two files of onnxruntime-web that the page needs, checked.

    Args:
        source: folder of the installed package, or the archive that ``npm pack`` made.

    Raises:
        InputError: it is not there, or not the version that this was tested with.
    """
    if not source.exists():
        raise InputError(f"there is no {PACKAGE} here; {REMEDY}", source)
    try:
        files = {name: read_file(source, name) for name in SHA256}
    except (OSError, KeyError, LimitError, tarfile.TarError) as error:
        raise InputError(f"is not the npm package {PACKAGE} ({error}); {REMEDY}", source) from error
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != SHA256[name]:
            raise InputError(f"{name} is not that of {PACKAGE} {VERSION}; {REMEDY}", source)
    return files


def read_file(source: Path, name: str) -> bytes:
    """One file of the package, in a folder or an archive, from which nothing is unpacked."""
    if source.is_dir():
        return read_bytes(source / name, LARGEST_FILE)
    with tarfile.open(source) as archive:
        member = archive.getmember(f"package/{name}")
        file = archive.extractfile(member)
        if file is None or member.size > LARGEST_FILE:
            raise LimitError(f"{name} is no file of a sensible size")
        return file.read(LARGEST_FILE)


def fetch_runtime() -> dict[str, bytes]:
    """:func:`read_runtime` of what ``npm pack`` brings.

    Raises:
        InputError: npm is missing or could not bring it, or it is not what this was tested with.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS, cwd=folder)
        except FileNotFoundError as error:
            raise InputError("npm is not installed; fetch the package elsewhere and name it with --ort") from error
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise InputError(f"npm could not bring {PACKAGE} {VERSION}; try '{' '.join(command[:3])}'") from error
        return read_runtime(Path(folder) / f"{PACKAGE}-{VERSION}.tgz")
