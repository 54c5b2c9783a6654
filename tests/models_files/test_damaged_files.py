"""Damaged files never crash a reader, nor make it take memory or time that is not due to a file of their size.

This runs a few hundred; `python tests/models_files/fuzz_files.py 10000` runs so many for each reader.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fuzz_files
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import minilong.models.files.gguf as gguf
from minilong.errors import UserError
from minilong.models.files import open_safetensors

SCRIPT = Path(fuzz_files.__file__)


def test_damaged_files_are_opened_or_refused() -> None:
    ran = subprocess.run([sys.executable, SCRIPT, "100", "1000000"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert " 0 refused" not in line
        assert " 0 opened" not in line


@pytest.mark.parametrize(
    ("planted", "error"),
    [
        ("believes the count", "times its size"),
        ("no end of the file", "ValueError"),
        ("text as it comes", "UnicodeDecodeError"),
    ],
)
def test_the_search_finds_planted_mistakes(monkeypatch: pytest.MonkeyPatch, planted: str, error: str) -> None:
    """The mistakes that readers of such files have had, each found among some hundred files."""
    own: Any = gguf._Reader

    def believing(self: Any, kind: int, count: int, what: str) -> np.ndarray:
        np.zeros(min(count, 1 << 22), gguf.NUMBERS.get(kind, np.dtype("u1")))
        return own.numbers_before(self, kind, count, what)

    def endless(self: Any, size: int, what: str) -> np.ndarray:
        self.at += size
        return self.data[self.at - size : self.at]

    def any_text(self: Any, what: str, most: int | None = None) -> str:
        return self.take(self.whole(8, what), what).tobytes().decode("utf-8")

    monkeypatch.setattr(own, "numbers_before", own.numbers, raising=False)
    name, wrong = {
        "believes the count": ("numbers", believing),
        "no end of the file": ("take", endless),
        "text as it comes": ("string", any_text),
    }[planted]
    monkeypatch.setattr(own, name, wrong)
    monkeypatch.setattr(fuzz_files, "READERS", {"gguf": fuzz_files.READERS["gguf"]})
    monkeypatch.setattr(fuzz_files, "SPARE", 1 << 36)
    with np.errstate(divide="warn", over="warn", invalid="warn"), pytest.raises(AssertionError, match=error):
        fuzz_files.run(2000)


def test_what_is_accepted_here_the_library_accepts(tmp_path: Path) -> None:
    whole, path, accepted = fuzz_files.safetensors_bytes(np.random.default_rng(0)), tmp_path / "a", 0
    for seed in range(800):
        rng = np.random.default_rng(seed)
        data = fuzz_files.another_number(whole, rng) if seed % 2 else fuzz_files.damaged(whole, rng, 1200)
        path.write_bytes(data)
        try:
            with open_safetensors(path) as file:
                names = set(file.names)
        except UserError:
            continue
        accepted += 1
        assert {name for name, _ in safetensors.deserialize(data)} == names
    assert accepted > 5
