"""The commands of docs/dicom-node.md run as they stand, and what is in docs/deploy has options that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from cxredge.cli.serve import command

from .peers import Archive, need, until

DOCS = Path(__file__).parents[3] / "docs"
SNIPPET = re.compile(r"<!-- run: (\w+) -->\n```console\n(.*?)```", re.DOTALL)


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    for program in ("echoscu", "storescu", "curl"):
        need(program)
    archive = Archive()
    snippets = dict(SNIPPET.findall((DOCS / "dicom-node.md").read_text(encoding="utf-8")))
    node_command = snippets["node"].replace("11113", str(archive.peer.port)).strip()
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin", "HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(node_command.split(), cwd=tmp_path, env=path, stderr=log)
    try:
        until(lambda: "node_started" in (tmp_path / "log").read_text() or process.poll() is not None, 120)
        assert process.poll() is None, (tmp_path / "log").read_text()
        done = subprocess.run(
            ["bash", "-e", "-c", snippets["peers"]], cwd=tmp_path, env=path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "ready" in done.stdout
        answer = json.loads(re.search(r"\{.*?\}\}", done.stdout, re.DOTALL)[0])
        assert (answer["width"], answer["height"]) == (1024, 1024)
        assert dcmread(tmp_path / "lungs.dcm").Modality == "SEG"
        until(lambda: len(archive.stored) == 2, 60)
    finally:
        process.terminate()
        process.wait(60)
        archive.close()


@pytest.mark.parametrize("name", ["cxredge.service", "Dockerfile", "Dockerfile.jetson"])
def test_options_in_deployments_exist(name: str) -> None:
    known = {option for parameter in command.params for option in parameter.opts}
    text = (DOCS / "deploy" / name).read_text(encoding="utf-8")
    if name == "cxredge.service":
        used = re.search(r"cxredge serve (.*?)\n[A-Z]", text, re.DOTALL)
    else:
        used = re.search(r"ENTRYPOINT (.*)", text)
    assert used
    options = set(re.findall(r"--[a-z-]+", used[1]))
    assert options
    assert options <= known


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (DOCS / "deploy" / "cxredge.service").read_text(encoding="utf-8")
    installed = str(Path(sys.executable).with_name("cxredge"))
    (tmp_path / "cxredge.service").write_text(unit.replace("/opt/cxredge/bin/cxredge", installed))
    check = [need("systemd-analyze"), "verify", "--man=no", str(tmp_path / "cxredge.service")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
