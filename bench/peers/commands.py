"""Fresh processes that import a peer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from ..case import Side


class ImportTorch(Side):
    """`import torch`."""

    module = "torch"

    def gate(self) -> dict[str, np.ndarray]:
        """The exit code."""
        return {"exit": np.array([self.exit_code()])}

    def run(self) -> None:
        if self.exit_code():
            raise RuntimeError(f"import {self.module} failed")

    def exit_code(self) -> int:
        """Of the process, once it has ended."""
        command = [sys.executable, "-c", f"import {self.module}"]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False).returncode


class ImportJax(ImportTorch):
    """`import jax`."""

    module = "jax"
