"""Mutated files for the readers: what is changed in a valid file, and what has to hold afterwards.

The suite calls :func:`mutated` with edits that hypothesis draws. A long run is its own program, which keeps the
input at hand in a file, so that one that crashes or hangs the process is not lost:

    python tests/fuzzing.py FOLDER --seconds 600 --seed 1
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import struct
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cxredge import read_radiograph
from cxredge.errors import InputError
from cxredge.limits import MOST_PIXELS
from cxredge.preprocessing import network_input

CORPUS = Path(__file__).parent / "corpus"
IMAGES = sorted(path for path in CORPUS.iterdir() if path.suffix in {".png", ".jpg", ".tif", ".npy", ".dcm"})
MARKER = "MARKER"
"""Every attribute of a patient in the corpus contains it."""
SLOWEST = 5.0
"""Seconds that a small file may take at most."""
PNG_START = b"\x89PNG\r\n\x1a\n"

Edit = tuple[str, float, bytes]
"""Kind, place as a share of the file, and what is put there."""

KINDS = ("flip", "put", "insert", "delete", "repeat", "cut", "extreme")
EXTREMES = tuple(
    struct.pack(order + form, value)
    for order in "<>"
    for form, values in (("H", (0, 1, 2, 0x7FFF, 0x8000, 0xFFFF)), ("I", (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
    for value in values
)
"""Numbers at which arithmetic of 16 and 32 bits turns over."""


def mutated(content: bytes, edits: Iterable[Edit], *, whole_png: bool = True) -> bytes:
    """``content`` after some edits; the checksums of a PNG are mended, so that what lies behind them is reached."""
    for kind, share, what in edits:
        place = int(share * len(content))
        if kind == "flip":
            bit = 1 << (what[0] % 8 if what else 0)
            content = content[:place] + bytes(byte ^ bit for byte in content[place : place + 1]) + content[place + 1 :]
        elif kind == "put":
            content = content[:place] + what + content[place + len(what) :]
        elif kind == "insert":
            content = content[:place] + what + content[place:]
        elif kind == "delete":
            content = content[:place] + content[place + 1 + len(what) :]
        elif kind == "repeat":
            content = content[:place] + content[max(0, place - 8 * len(what)) :]
        elif kind == "cut":
            content = content[: max(place, 8)]
        elif kind == "extreme":
            number = EXTREMES[(what[0] if what else 0) % len(EXTREMES)]
            content = content[:place] + number + content[place + len(number) :]
    return mended_png(content) if whole_png and content.startswith(PNG_START) else content


def mended_png(content: bytes) -> bytes:
    """``content`` with the right checksum for every whole chunk."""
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(content):
            break
        parts += [content[place:end], struct.pack(">I", zlib.crc32(content[place + 4 : end]))]
        place = end + 4
    return b"".join(parts) + content[place:]


def require_refused_or_read(path: Path) -> str:
    """Read a file and check what has to hold of any; says ``read`` or ``refused``."""
    started = time.monotonic()
    try:
        radiograph = read_radiograph(path)
        assert radiograph.pixels.ndim == 2
        assert radiograph.pixels.size <= MOST_PIXELS
        assert radiograph.pixels.dtype.kind != "f" or np.isfinite(radiograph.pixels).all()
        pixels = network_input(radiograph, 32)
        assert pixels.shape == (32, 32)
        assert np.isfinite(pixels).all()
        assert -1.001 <= pixels.min() <= pixels.max() <= 1.001
    except InputError as error:
        reason = error.reason
    else:
        reason = "read"
    assert time.monotonic() - started < SLOWEST
    assert reason
    assert "\n" not in reason
    assert MARKER not in reason
    return "read" if reason == "read" else "refused"


def random_edits(source: random.Random, donors: Sequence[bytes]) -> list[Edit]:
    """Up to eight edits; some put in a piece of another file."""
    edits = []
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        donor = source.choice(donors)
        start = source.randrange(len(donor))
        what = source.choice((source.randbytes(source.randint(1, 8)), donor[start : start + source.randint(1, 64)]))
        share = source.random() ** source.choice((1, 1, 3))  # headers are worth more
        edits.append((source.choice(KINDS), share, what))
    return edits


def fuzz(folder: Path, seconds: float, seed: int, files: Sequence[Path] = IMAGES) -> tuple[Counter[str], list[Path]]:
    """Read mutated files for some seconds.

    Args:
        folder: where the input at hand is kept, and every one on which a reader failed.
        seconds: to go on for.
        seed: of the edits.
        files: to start from.

    Returns:
        How many were read, refused and failed, and the files that failed.
    """
    source, corpus = random.Random(seed), [(path.suffix, path.read_bytes()) for path in files]
    donors = [content for _, content in corpus]
    counts: Counter[str] = Counter()
    failed: list[Path] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        suffix, content = source.choice(corpus)
        path = folder / f"now{suffix}"
        path.write_bytes(mutated(content, random_edits(source, donors), whole_png=source.random() < 0.8))
        faulthandler.dump_traceback_later(5 * SLOWEST, exit=True)
        try:
            counts[require_refused_or_read(path)] += 1
        except KeyboardInterrupt:
            raise
        except BaseException:
            counts["failed"] += 1
            failed.append(folder / f"failed-{seed}-{sum(counts.values())}{suffix}")
            path.replace(failed[-1])
            failed[-1].with_suffix(suffix + ".txt").write_text(traceback.format_exc())
        faulthandler.cancel_dump_traceback_later()
    return counts, failed


def main() -> None:
    """Fuzz for some minutes and print what was found."""
    parser = argparse.ArgumentParser(description="Fuzz the readers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="*", help="files of the corpus to start from, as jpeg*.dcm")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [path for path in IMAGES if path.match(options.only)]
    counts, failed = fuzz(options.folder, options.seconds, options.seed, files)
    print(dict(counts))
    for path in failed:
        print(path)


if __name__ == "__main__":
    faulthandler.enable()
    main()
