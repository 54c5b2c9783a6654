"""`--on` with PyTorch: functions of tensors, modules, and the shipped example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from minilong.audit.user import to_arrays, to_tensors
from minilong.cli import main

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

TORCH = """
import torch
def softmax(x):
    return torch.softmax(x, dim=-1)

class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return torch.softmax(self.drop(self.one * x), dim=-1)

module = Module()

def either(x):
    return torch.softmax(torch.as_tensor(x), dim=-1)

def wrong(x):
    return torch.softmax(x * 1.01, dim=-1)

def broken(x):
    return torch.softmax(x, dim=7)
"""


def on(target: object, kind: str = "softmax") -> Result:
    return CliRunner().invoke(main, ["audit", "--on", str(target), "--as", kind, "--examples", "25"])


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    path = tmp_path / "tensors.py"
    path.write_text(TORCH)
    return path


@pytest.mark.parametrize("name", ["softmax", "module", "either"])
def test_functions_of_tensors_and_modules_are_adapted(tensors: Path, name: str) -> None:
    result = on(f"{tensors}:{name}")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("mode", ["torch", "numpy"])
def test_a_file_may_choose_its_adapter(tensors: Path, mode: str) -> None:
    tensors.write_text(TORCH + f"\nminilong_adapter = {mode!r}\n")
    assert on(f"{tensors}:softmax").exit_code == (0 if mode == "torch" else 1)


def test_a_wrong_function_of_tensors_fails_with_tensors_that_paste(tensors: Path) -> None:
    result = on(f"{tensors}:wrong")
    assert result.exit_code == 1
    code = result.stdout.split("minimal counterexample:\n\n")[1].split("\n\n")[0]
    assert "\nimport torch\nfrom tensors import wrong\nx = torch.from_numpy(np.array(" in code
    done = subprocess.run([sys.executable, "-c", code], cwd=tensors.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_error_told_is_the_one_of_tensors_where_arrays_are_refused(tensors: Path) -> None:
    result = on(f"{tensors}:broken")
    assert result.exit_code == 1
    assert "found: it raised IndexError: Dimension out of range" in result.stdout


def test_conversion_goes_into_lists_and_keeps_types() -> None:
    there = to_tensors([np.array([1, 2]), (np.array([True]), 0.5), np.flip(np.arange(3.0))])
    assert there[0].dtype == torch.int64
    assert there[1][0].dtype == torch.bool
    assert there[2].dtype == torch.float64
    back = to_arrays([there[0], (torch.ones(2, requires_grad=True), "text", None)])
    np.testing.assert_array_equal(back[0], [1, 2])
    assert isinstance(back[1][0], np.ndarray)
    assert back[1][1:] == ("text", None)


def test_the_shipped_examples() -> None:
    right = on(EXAMPLES / "audit_torch_attention.py", "attention")
    assert right.exit_code == 0, right.output
    assert "attention/blind-queries" in right.stdout  # fully masked rows
