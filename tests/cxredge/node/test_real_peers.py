"""A node in a process of its own, with Debian's dcmtk and Orthanc as peers, and killed while they send."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from cxredge.logs import FIELDS
from cxredge.node.service import Node
from cxredge.node.tls import TlsFiles

from .peers import Archive, Served, another, free_port, get, need, send, until

Serve = Callable[..., Served]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def study(tmp_path: Path, radiograph: Path) -> list[Path]:
    """Four made radiographs of one study."""
    folder = tmp_path / "study"
    folder.mkdir()
    paths = [folder / f"{number}.dcm" for number in range(4)]
    for path in paths:
        another(radiograph).save_as(path, enforce_file_format=True)
    return paths


class Orthanc:
    """Debian's Orthanc with an empty store."""

    def __init__(self, folder: Path, node_port: int) -> None:
        self.dicom, self.http = free_port(), free_port()
        settings = {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "Plugins": [],
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom,
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"node": ["CXREDGE", "127.0.0.1", node_port]},
        }
        folder.mkdir()
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [need("Orthanc"), str(folder / "orthanc.json")], stdout=self._log, stderr=self._log
        )
        until(self.answers, 60)

    def answers(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(self, path: str, data: bytes | None = None) -> object:
        if data is None:
            return json.loads(get(f"http://127.0.0.1:{self.http}{path}"))
        done = run("curl", "-s", "--data-binary", data.decode(), f"http://127.0.0.1:{self.http}{path}")
        return json.loads(done.stdout)

    def of_modality(self, modality: str) -> list[dict[str, str]]:
        found = []
        for series in self.ask("/series?expand"):
            if series["MainDicomTags"]["Modality"] == modality:
                found += [self.ask(f"/instances/{one}/simplified-tags") for one in series["Instances"]]
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[[int], Orthanc]]:
    need("Orthanc")
    running: list[Orthanc] = []

    def begin(node_port: int) -> Orthanc:
        running.append(Orthanc(tmp_path / "orthanc", node_port))
        return running[-1]

    yield begin
    for one in running:
        one.close()


def test_dcmtk_sends_and_orthanc_gets_the_segmentations(
    serve: Serve, orthanc: Callable[[int], Orthanc], study: list[Path]
) -> None:
    port = free_port()
    archive = orthanc(port)
    node = serve("--reply", f"ORTHANC@127.0.0.1:{archive.dicom}", "--allow", "CONSOLE,ORTHANC", port=port)
    called = ("-aec", "CXREDGE", "127.0.0.1", str(port))
    assert run(need("echoscu"), "-aet", "CONSOLE", *called).returncode == 0
    assert run(need("echoscu"), "-aet", "STRANGER", *called).returncode != 0
    assert run(need("storescu"), "-aet", "CONSOLE", *called, *study).returncode == 0
    segmentations = until(lambda: len(found := archive.of_modality("SEG")) == 4 and found, 60)
    sources = {dcmread(path).SOPInstanceUID for path in study}
    assert {one["StudyInstanceUID"] for one in segmentations} == {dcmread(study[0]).StudyInstanceUID}
    referenced = {
        one["ReferencedSeriesSequence"][0]["ReferencedInstanceSequence"][0]["ReferencedSOPInstanceUID"]
        for one in segmentations
    }
    assert referenced == sources
    until(lambda: len(archive.of_modality("OT")) == 4, 60)  # secondary captures
    assert node.stop() == 0
    assert "made" not in node.log.read_text().lower(), "Made^Radiograph is the patient"


def test_orthanc_sends_a_study_and_gets_it_back_segmented(
    serve: Serve, orthanc: Callable[[int], Orthanc], study: list[Path]
) -> None:
    port = free_port()
    archive = orthanc(port)
    serve("--reply", f"ORTHANC@127.0.0.1:{archive.dicom}", "--results", "seg", port=port)
    assert run(need("storescu"), "-aec", "ORTHANC", "127.0.0.1", str(archive.dicom), *study).returncode == 0
    (number,) = archive.ask("/series")
    for _ in range(2):  # once more: the same objects
        answer = archive.ask("/modalities/node/store", str(number).encode())
        assert answer["FailedInstancesCount"] == 0
        until(lambda: len(archive.of_modality("SEG")) == 4, 60)
    (study_now,) = archive.ask("/studies?expand")
    assert len(study_now["Series"]) == 1 + 4


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., tuple[int, Path]]]:
    """Start dcmtk's receiver; gives its port and the folder into which it stores."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*options: str | Path) -> tuple[int, Path]:
        port, folder = free_port(), tmp_path / f"stored-{len(running)}"
        folder.mkdir()
        running.append(subprocess.Popen([need("storescp"), *options, "-od", folder, str(port)]))
        return port, folder

    yield begin
    for one in running:
        one.terminate()
        one.wait(10)


def test_storescp_gets_the_results(serve: Serve, study: list[Path], storescp: Callable[..., tuple[int, Path]]) -> None:
    port, folder = storescp()
    node = serve("--reply", f"ANY@127.0.0.1:{port}")
    assert run(need("storescu"), "-aec", "CXREDGE", "127.0.0.1", str(node.port), study[0]).returncode == 0
    until(lambda: len(list(folder.iterdir())) == 2 and node.event("sent"), 60)
    assert sorted(dcmread(path).Modality for path in folder.iterdir()) == ["OT", "SEG"]


def certificate(folder: Path, name: str, authority: str | None = None, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate for a host, signed by itself or by another."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    signed = ("-CA", folder / f"{authority}.pem", "-CAkey", folder / f"{authority}.key") if authority else ()
    named = ("-addext", f"subjectAltName={host}") if authority else ()
    done = run(
        need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", cert, *named, *signed,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cert, key


def test_tls_asks_peers_for_certificates(serve: Serve, tmp_path: Path, study: list[Path]) -> None:
    certificate(tmp_path, "authority")
    certificate(tmp_path, "stranger")
    cert, key = certificate(tmp_path, "node", "authority")
    own, own_key = certificate(tmp_path, "console", "authority")
    node = serve("--tls", str(cert), str(key), str(tmp_path / "authority.pem"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCP_BUFFER_LENGTH", "65536")
        called = ("-aec", "CXREDGE", "127.0.0.1", str(node.port))
        trusted = ("+cf", tmp_path / "authority.pem")
        assert run(need("echoscu"), "+tls", own_key, own, *trusted, *called).returncode == 0
        assert run(need("storescu"), "+tls", own_key, own, *trusted, *called, study[0]).returncode == 0
        stranger = (tmp_path / "stranger.key", tmp_path / "stranger.pem")
        assert run(need("echoscu"), "+tls", *stranger, *trusted, *called).returncode != 0
        assert run(need("echoscu"), "-to", "5", "-ta", "5", *called).returncode != 0
        assert run(need("echoscu"), "+tls", own_key, own, *trusted, *called).returncode == 0
        assert node.event("tls_failed")
    until(lambda: node.event("sent"), 60)


def test_results_go_to_storescp_over_tls(
    serve: Serve, tmp_path: Path, study: list[Path], storescp: Callable[..., tuple[int, Path]]
) -> None:
    certificate(tmp_path, "authority")
    authority = tmp_path / "authority.pem"
    cert, key = certificate(tmp_path, "node", "authority")
    archive, archive_key = certificate(tmp_path, "archive", "authority")
    port, folder = storescp("--require-peer-cert", "+tls", archive_key, archive, "+cf", authority)
    node = serve("--tls", str(cert), str(key), str(authority), "--reply", f"ANY@127.0.0.1:{port}", "--reply-tls")
    called = ("+tls", archive_key, archive, "+cf", authority, "-aec", "CXREDGE", "127.0.0.1", str(node.port))
    assert run(need("storescu"), *called, *study).returncode == 0
    until(lambda: len(list(folder.iterdir())) == 8, 60)
    assert Counter(dcmread(path).Modality for path in folder.iterdir()) == {"OT": 4, "SEG": 4}
    assert run(need("echoscu"), "-to", "5", "-ta", "5", "127.0.0.1", str(port)).returncode != 0, "it takes TLS only"
    assert node.stop() == 0
    assert not node.event("tls_failed")


DISTRUSTED = {
    "signed by nobody known": ("stranger", "IP:127.0.0.1", "unable to get local issuer certificate"),
    "of another host": ("authority", "IP:127.0.0.2", "IP address mismatch"),
    "without TLS": (None, "", "WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|went away"),
}


@pytest.mark.parametrize(("signer", "host", "cause"), DISTRUSTED.values(), ids=DISTRUSTED)
def test_no_result_goes_to_a_peer_that_is_not_to_be_trusted(
    start: Callable[..., Node],
    tmp_path: Path,
    radiograph: Path,
    caplog: pytest.LogCaptureFixture,
    signer: str | None,
    host: str,
    cause: str,
) -> None:
    for name in ("authority", "stranger"):
        certificate(tmp_path, name)
    node_files = TlsFiles(*certificate(tmp_path, "node", "authority"), tmp_path / "authority.pem")
    other = None if signer is None else TlsFiles(*certificate(tmp_path, "archive", signer, host), node_files.authority)
    archive = Archive(tls=None if other is None else other.server_context())
    try:
        node = start(reply=archive.peer, reply_tls=True, tls=node_files)
        assert send(node.acceptor.port, dcmread(radiograph)) == [None], "it takes TLS only"
        caplog.clear()
        received = Path(shutil.copy(radiograph, node.state.incoming))
        node.queue.add(dcmread(radiograph).SOPInstanceUID, node.state.keep(received))
        until(lambda: node.metrics.sent.labels("unreachable")._value.get() >= 1)
        causes = [getattr(record, FIELDS)["cause"] for record in caplog.records if record.getMessage() == "tls_failed"]
        assert any(re.search(cause, one) for one in causes), causes
        assert not archive.stored
        assert node.queue.counts()["sending"] == 1, "kept for when it is"
    finally:
        archive.close()


def kill_again_and_again(tmp_path: Path, radiograph: Path, serve: Serve, times: int) -> tuple[int, int]:
    """Kill a node ``times`` times while a sender sends; gives numbers of accepted images and of arrivals."""
    port, archive = free_port(), Archive()
    options = ("--reply", f"ARCHIVE@127.0.0.1:{archive.peer.port}", "--results", "seg")
    accepted: set[str] = set()
    stopping = threading.Event()

    def sender() -> None:
        while not stopping.is_set():
            datasets = [another(radiograph) for _ in range(3)]
            for dataset, status in zip(datasets, send(port, *datasets), strict=True):
                if status == 0:
                    accepted.add(dataset.SOPInstanceUID)
            time.sleep(0.05)

    thread = threading.Thread(target=sender)
    try:
        chance = random.Random(6)
        thread.start()
        for _ in range(times):
            node = serve(*options, port=port)
            before = len(accepted)
            until(lambda before=before: len(accepted) > before, 60)
            time.sleep(chance.random())
            node.kill()
        stopping.set()
        thread.join()
        node = serve(
            *options,
            port=port,
        )
        until(lambda: len(archive.of_modality("SEG")) >= len(accepted), 300)
        until(lambda: not any((tmp_path / "served" / "objects").iterdir()), 60)
        assert node.stop() == 0
        sources = [
            one.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
            for one in archive.of_modality("SEG")
        ]
        assert len(sources) == len(set(sources)), "one segmentation of an image, whatever arrived how often"
        assert accepted <= set(sources), "nothing that was accepted is lost"
        return len(accepted), len(archive.arrivals)
    finally:
        stopping.set()
        thread.join()
        archive.close()


def test_a_node_that_is_killed_loses_and_doubles_nothing(tmp_path: Path, radiograph: Path, serve: Serve) -> None:
    accepted, _ = kill_again_and_again(tmp_path, radiograph, serve, 3)
    assert accepted >= 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_node_that_is_killed_thirty_times_loses_and_doubles_nothing(
    tmp_path: Path, radiograph: Path, serve: Serve
) -> None:
    accepted, arrivals = kill_again_and_again(tmp_path, radiograph, serve, 30)
    assert accepted >= 30
    print(f"30 kills: {accepted} accepted, {arrivals} arrivals")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_senders_at_once(serve: Serve, tmp_path: Path, radiograph: Path) -> None:
    node = serve("--results", "seg")
    command = (need("storescu"), "-aec", "CXREDGE", "127.0.0.1", str(node.port))
    paths = [tmp_path / f"{number}.dcm" for number in range(200)]
    for path in paths:
        another(radiograph).save_as(path, enforce_file_format=True)
    senders = [subprocess.Popen([*command, path]) for path in paths]
    assert [sender.wait(300) for sender in senders] == [0] * 200
    outbox = tmp_path / "served" / "outbox"
    until(lambda: outbox.exists() and len(list(outbox.iterdir())) == 200, 300)
    assert node.stop() == 0
