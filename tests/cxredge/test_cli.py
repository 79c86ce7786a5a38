"""The command line as a whole: its help, its exit codes, and how little it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cxredge import __version__
from cxredge.cli import COMMANDS, main

PROGRAM = Path(sys.executable).parent / "cxredge"
HEAVY = ("onnxruntime", "tensorrt", "pydicom", "cv2", "torch", "onnx", "PIL", "rich", "openvino")


def loaded_after(program: str) -> set[str]:
    """Modules of :data:`HEAVY` that a fresh interpreter has loaded after ``program``."""
    report = "\nimport sys; print('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=True)
    return set(done.stdout.partition("loaded:")[2].split()) & set(HEAVY)


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where ``module`` is not installed."""
    program = f"import sys; sys.modules[{module!r}] = None; from cxredge.cli import main; main(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


def test_importing_cxredge_loads_nothing_heavy() -> None:
    assert loaded_after("import cxredge") == set()


def test_help_and_version_load_nothing_heavy() -> None:
    for arguments in (["--help"], ["--version"]):
        program = f"from cxredge.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
        assert loaded_after(program) == set(), arguments


def test_help_of_a_command_loads_no_runtime() -> None:
    program = "from cxredge.cli import main\ntry: main(['segment', '--help'])\nexcept SystemExit: pass"
    assert not loaded_after(program) & {"onnxruntime", "torch", "cv2", "pydicom", "onnx"}


def test_public_names_are_there_and_others_are_not() -> None:
    import cxredge

    for name in cxredge.__all__:
        assert getattr(cxredge, name) is not None
    assert set(dir(cxredge)) == set(cxredge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = cxredge.Nonsense


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == f"cxredge, version {__version__}"


def test_help_lists_every_command_and_the_exit_codes() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for command, summary in COMMANDS.items():
        assert f"  {command} " in result.output
        assert summary in result.output
    assert "Exit codes: 0 all done, 1 nothing could be done, 2 wrong usage, 3 some inputs" in result.output


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_its_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: main {command}" in result.output


@pytest.mark.parametrize("arguments", [["abacus"], ["--nonsense"], ["segment", "--nonsense"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Error: No such" in result.stderr


def test_the_installed_program_runs() -> None:
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.strip() == f"cxredge, version {__version__}"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "extra"),
    [(["export", "checkpoint", "-o", "model.onnx"], "export"), (["train", "config.toml"], "train")],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    command: list[str], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_without("torch", *command)
    assert done.returncode == 1
    assert f"pip install 'cxredge[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_runtime_commands_need_no_torch() -> None:
    for command in ("segment", "sample", "evaluate", "doctor"):
        assert run_without("torch", command, "--help").returncode == 0
