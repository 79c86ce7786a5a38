"""No code that comes with data is ever run: the sources of the four packages call nothing that could."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cxredge", "train", "export", "calibration")

UNPICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
    "yaml",
}
RUNNERS = {"eval", "exec", "compile", "__import__", "breakpoint"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
ONLY_ITS_ERROR = {("checkpoint.py", "pickle")}
"""torch.load raises pickle.UnpicklingError where ``weights_only`` has found code; only the name is used."""


def findings(source: str, name: str = "made.py") -> list[str]:
    """What in a source could run code that comes with data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            unpicklers = {module.split(".")[0] for module in modules} & UNPICKLERS
            found += [module for module in sorted(unpicklers) if (name, module) not in ONLY_ITS_ERROR]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            found += [] if node.attr == "UnpicklingError" else [ast.unparse(node)]
        elif isinstance(node, ast.Call):
            found += from_call(node)
    return found


def from_call(call: ast.Call) -> list[str]:
    """``[what it calls]`` where a call could run code."""
    called = ast.unparse(call.func)
    arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    loads = called.endswith(("torch.load", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"))
    unsafe = (
        (loads and arguments.get("weights_only") != "True")
        or arguments.get("allow_pickle", "False") != "False"
        or (called in ("np.load", "numpy.load") and arguments.get("allow_pickle") != "False")
        or arguments.get("shell", "False") != "False"
        or called in RUNNERS | SHELLS
        or called.endswith(("register_custom_ops_library", "read_pickle", "extractall", "unpack_archive"))
    )
    return [called] if unsafe else []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_can_run_code_that_comes_with_data(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): findings(path.read_text(encoding="utf-8"), path.name) for path in files}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill.source",
        "from yaml import safe_load",
        "pickle.loads(x)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=flag)",
        "torch.jit.load(p)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "np.save(p, a, allow_pickle=True)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
        "eval(text)",
        "exec(text)",
        "tarfile.open(p).extractall(q)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize(
    "source", ["torch.load(p, weights_only=True)", "np.load(p, allow_pickle=False)", "re.compile(x)", "model.eval()"]
)
def test_the_search_lets_pass(source: str) -> None:
    assert findings(source) == []


def test_the_one_mention_of_pickle_is_its_error() -> None:
    content = (ROOT / "train" / "cxredge_train" / "checkpoint.py").read_text(encoding="utf-8")
    assert findings(content, "other.py") == ["pickle"]
