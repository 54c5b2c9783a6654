"""`--on` with the wrong and right PyTorch implementations of `tests/audit/blind/`; see `tests/audit/test_blind.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from minilong.cli import main

pytest.importorskip("torch")
pytestmark = pytest.mark.peer

BLIND = Path(__file__).resolve().parents[1] / "audit" / "blind"

WRONG = [
    ("attention", "softmax_of_dimension_one", "batch-alone"),
    ("attention", "queries_scaled_in_place", "pure"),  # missed, until tensors shared the memory of the arrays
    ("rms-norm", "rms_by_normalize", "scale"),  # x-transformers' RMSNorm
    ("cross-entropy", "nan_without_tokens", "none-kept"),
    ("adam", "adamw_with_its_default", "zero-gradient"),
    ("layer-norm", "layer_norm_of_the_whole", "rows"),
    ("rotary", "rotated_half_interleaved", "norm"),  # the layouts of gpt-neox 834, mixed
    ("rotary", "half_precision_positions", "position-dependent"),
    ("clip", "clipped_by_torch", "norm-afterwards"),
]

RIGHT = [
    ("attention", "attention_sdpa"),
    ("attention", "attention_by_hand"),
    ("softmax", "softmax_of_logs"),
    ("layer-norm", "layer_norm_functional"),
    ("rms-norm", "rms_norm_module"),
    ("cross-entropy", "cross_entropy_sum"),
    ("adam", "adam_of_torch"),
    ("clip", "clip_of_torch"),
    ("sinusoidal", "sinusoidal_torch"),
    ("rotary", "rotary_torch"),
    ("alibi", "alibi_torch"),
]


def audit(target: str, kind: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["audit", "--on", str(BLIND / target), "--as", kind, "--examples", "40"])
    return result.exit_code, result.output


@pytest.mark.parametrize(("kind", "name", "law"), WRONG)
def test_a_fault_is_found(kind: str, name: str, law: str) -> None:
    code, said = audit(f"wrong_torch.py:{name}", kind)
    assert code == 1, said
    assert f"\nlaw {kind}/{law}\n" in said


@pytest.mark.parametrize(("kind", "name"), RIGHT)
def test_a_right_one_passes(kind: str, name: str) -> None:
    code, said = audit(f"right_torch.py:{name}", kind)
    assert code == 0, said
