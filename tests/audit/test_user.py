"""`--on FILE.py[:NAME] --as KIND`: finding and loading the function, adapters, and what a failure shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from minilong.audit import laws_for
from minilong.audit.user import Adapted, find, loaded, public_kind, split_target
from minilong.cli import main
from minilong.errors import UserError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

RIGHT = """
import numpy as np
from helper import one

def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return one * e / e.sum(axis=-1, keepdims=True)

def first_axis(x):
    e = np.exp(x - x.max(axis=0, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)

def coarse(x):
    return softmax(x.astype(np.float32))

def no_arguments():
    return 1

def two(x, axis):
    return softmax(x)

def with_default(x, axis=-1):
    return softmax(x)

class Layer:
    def __call__(self, x):
        return softmax(x)

    def method(self, x):
        return softmax(x)

layer = Layer()
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(RIGHT)
    (tmp_path / "helper.py").write_text("one = 1.0\n")
    return path


def on(target: object, kind: str = "softmax", *options: str) -> Result:
    return CliRunner().invoke(main, ["audit", "--on", str(target), "--as", kind, "--examples", "25", *options])


@pytest.mark.parametrize("name", ["", ":softmax", ":with_default", ":layer", ":layer.method"])
def test_a_right_function_passes_all_laws(mine: Path, name: str) -> None:
    result = on(f"{mine}{name}")
    assert result.exit_code == 0, result.output
    laws = laws_for("softmax")
    assert result.stdout.endswith(f"{mine}: all {len(laws)} laws of softmax hold\n")
    for law in laws:
        assert f"{law.name} " in result.stdout


def test_every_failing_law_is_told_with_a_case_that_pastes(mine: Path) -> None:
    result = on(f"{mine}:first_axis")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    failing = [line.split()[0] for line in result.stdout.splitlines() if line.endswith("  FAILS")]
    assert 2 <= len(failing) < len(laws_for("softmax"))
    assert result.stdout.splitlines()[-1] == f"{mine}: {len(failing)} of {len(laws_for('softmax'))} laws fail"
    for name in failing:
        section = result.stdout[result.stdout.index(f"\nlaw {name}\n") :]
        assert "  eq:softmax  " in section.split("found:")[0]
        assert "\\frac" in section.split("found:")[0]
        code = section.split("minimal counterexample:\n\n")[1].split("\n\n")[0]
        assert code.startswith("import numpy as np\nfrom mine import first_axis\nx = ")
        assert code.rstrip().endswith("first_axis(x)")
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=mine.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_quiet_leaves_the_failures_only(mine: Path) -> None:
    assert on(mine, "softmax", "--quiet").stdout == f"{mine}: all {len(laws_for('softmax'))} laws of softmax hold\n"
    assert on(f"{mine}:first_axis", "softmax", "--quiet").stdout.startswith("law softmax/")


def test_single_precision_is_named_as_the_reason(mine: Path) -> None:
    result = on(f"{mine}:coarse")
    assert result.exit_code == 1
    assert "it returns numbers of less than double precision, and the bounds are those of float64" in result.stdout


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("nothing_like_it.py", "softmax", "there is no file '{0}/nothing_like_it.py'; give FILE.py or FILE.py:NAME"),
        ("mime.py", "softmax", "there is no file '{0}/mime.py' (did you mean 'mine.py'?)"),
        ("mime.py:softmax", "softmax", "there is no file '{0}/mime.py' (did you mean 'mine.py'?)"),
        ("text.txt", "softmax", "{0}/text.txt is no Python file"),
        ("", "softmax", "there is no file"),
        ("mine.py:", "softmax", "names nothing after the colon"),
        ("mine.py:sofmax", "softmax", "has no function 'sofmax' (did you mean 'softmax'?); mine.py defines"),
        ("mine.py", "attention", "{0}/mine.py has no function 'attention'; give mine.py:NAME"),
        ("mine.py:layer.methods", "softmax", "has no function 'layer.methods'"),
        ("mine.py:number", "softmax", "number in {0}/mine.py is no function but a int"),
        ("mine.py:Layer", "softmax", "Layer in {0}/mine.py is a class; name an instance, or a function"),
        ("mine.py:no_arguments", "softmax", "no_arguments() in {0}/mine.py cannot be called as softmax(x)"),
        ("mine.py:two", "softmax", "two(x, axis) in {0}/mine.py cannot be called as softmax(x)"),
        ("mine.py:softmax", "layer-norm", "softmax(x) in {0}/mine.py cannot be called as layer_norm(x, gain"),
        ("mine.py", "sofmax", "there is no kind 'sofmax' (did you mean 'softmax'?); choose one of"),
        ("mine.py", "primitive", "there is no kind 'primitive'"),
        ("syntax.py", "softmax", "{0}/syntax.py:2 raises SyntaxError ("),
        ("raises.py", "softmax", "{0}/raises.py:3 raises KeyError ('a') when it is loaded; mend it"),
        ("leaves.py", "softmax", "{0}/leaves.py:2 raises SystemExit (3) when it is loaded"),
        ("imports.py", "softmax", "{0}/imports.py:1 raises ModuleNotFoundError (No module named 'not_there')"),
        ("adapter.py", "softmax", "minilong_adapter is 'troch' (did you mean 'torch'?); choose one of numpy, torch"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(mine: Path, target: str, kind: str, message: str) -> None:
    folder = mine.parent
    for name, text in {
        "syntax.py": "x = 1\ndef softmax(x:\n",
        "raises.py": "def f():\n    pass\n{}['a']\n",
        "leaves.py": "import sys\nsys.exit(3)\n",
        "imports.py": "import not_there\n",
        "adapter.py": RIGHT + "\nminilong_adapter = 'troch'\n",
        "text.txt": "x",
    }.items():
        (folder / name).write_text(text)
    result = on(folder / target if target else "", kind)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert message.format(folder) in line


def test_loading_leaves_nothing_behind(mine: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    with loaded(mine) as module:
        assert module.number == 3
        assert sys.path[0] == str(mine.parent)
    assert sys.path == path
    assert set(sys.modules) - modules <= {"helper"}
    sys.modules.pop("helper", None)


def test_a_file_may_be_named_in_a_folder_with_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "a.py:b"
    folder.mkdir()
    (folder / "mine.py").write_text(RIGHT)
    assert split_target(str(folder / "mine.py") + ":two") == (folder / "mine.py", "two")


def test_built_in_functions_are_called_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "built.py"
    path.write_text("from math import fsum as softmax\nimport numpy\nexp = numpy.exp\n")
    with loaded(path) as module:
        assert find(module, path, "exp", public_kind("softmax")) is np.exp


def test_an_error_of_the_function_itself_is_not_hidden_by_the_second_try() -> None:
    def f(x: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Adapted(f, None)(np.ones(2))


def test_the_shipped_wrong_layer_norm() -> None:
    wrong = on(EXAMPLES / "audit_wrong_layer_norm.py", "layer-norm")
    assert wrong.exit_code == 1
    assert "\nlaw layer-norm/definition\n" in wrong.stdout


def test_an_adapter_needs_torch_to_be_loaded(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    mine.write_text("minilong_adapter = 'torch'\ndef softmax(x):\n    return x\n")
    result = on(mine)
    assert result.exit_code == 2
    assert "the file does not import torch; import it there" in result.stderr


# In a test suite of somebody else


def test_laws_for_in_a_test_suite_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import numpy as np\n"
        "import pytest\n"
        "from minilong.audit import laws_for\n\n\n"
        "def right(x):\n"
        "    e = np.exp(x - x.max(axis=-1, keepdims=True))\n"
        "    return e / e.sum(axis=-1, keepdims=True)\n\n\n"
        "@pytest.mark.parametrize('law', laws_for('softmax'), ids=str)\n"
        "def test_right(law):\n"
        "    law(right, examples=20)\n\n\n"
        "@pytest.mark.parametrize('law', laws_for('softmax'), ids=str)\n"
        "def test_wrong(law):\n"
        "    law(lambda x: right(1.01 * x), examples=20)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_wrong[softmax/definition]" in done.stdout
    assert "test_right" not in done.stdout.split("short test summary")[1]
    assert "minimal counterexample:\nE" in done.stdout


def test_laws_for_an_unknown_kind_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"there is no kind 'sofmax'; choose one of .*softmax"):
        laws_for("sofmax")
    with pytest.raises(UserError):
        public_kind("sofmax")
