"""Wrong and right implementations that were written without a look at the laws: `--on` finds the wrong ones only.

They are in `blind/`, as people write them, several after reports of real bugs. Seven of the wrong ones (six here, with
a star) got past the laws as these first were; each led to a new law or, for PyTorch, to a mended adapter. Three of the
seven, those in blocks of 128 and 256, were written after the first two had shown the gap.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from minilong.cli import main

BLIND = Path(__file__).parent / "blind"
EXAMPLES = "40"

WRONG = {
    "attention": {
        "wrong_attention.py:one_query_sees_all": "hidden-keys",  # nanochat 452
        "wrong_attention.py:small_penalty": "hidden-keys",  # BERT's -10000
        "wrong_attention.py:width_of_values": "padded-width",
        "wrong_attention.py:masked_by_product": "hidden-keys",
        "wrong_attention.py:stale_accumulator": "long",  # *
        "wrong_attention.py:last_block_dropped": "long",  # *
        "wrong_attention.py:one_maximum_for_all": "weights",
        "wrong_attention.py:scaled_in_place": "pure",
    },
    "softmax": {
        "wrong_attention.py:softmax_in_place": "pure",
        "wrong_attention.py:softmax_clipped": "shift",
        "wrong_attention.py:softmax_second_axis": "sums-to-one",
        "wrong_attention.py:softmax_in_blocks": "long",  # *
    },
    "layer-norm": {
        "wrong_layers.py:fast_variance": "far-rows",  # * Flax's use_fast_variance
        "wrong_layers.py:all_but_the_batch": "rows",  # TensorFlow's begin_norm_axis=1
        "wrong_layers.py:bias_before_gain": "gain-and-bias",
        "wrong_layers.py:at_least_eps": "moments",
    },
    "rms-norm": {
        "wrong_layers.py:one_plus_gain": "gain",  # Gemma's convention
        "wrong_layers.py:centred_rms": "not-centred",
        "wrong_layers.py:eps_on_the_root": "scale",
        "wrong_layers.py:single_precision_inside": "definition",
    },
    "cross-entropy": {
        "wrong_training.py:ignores_the_negative": "ignored-tokens",
        "wrong_training.py:every_target_of_every_row": "concatenation",
        "wrong_training.py:never_divides_by_zero": "uniform",
        "wrong_training.py:probabilities_clipped": "extreme-logits",  # Keras clips at 1e-7
        "wrong_training.py:mean_of_chunks": "long",  # * the mean of means of HF 34191
        "wrong_training.py:vocabulary_in_blocks": "long",  # *
    },
    "adam": {
        "wrong_training.py:corrected_moments_kept": "returns-raw-moments",
        "wrong_training.py:step_counted_twice": "first-step",
        "wrong_training.py:largest_second_moment": "run",
        "wrong_training.py:moment_of_the_surprise": "first-step",
        "wrong_training.py:one_step_late": "run",
    },
    "clip": {
        "wrong_training.py:spectral_norm": "norm-afterwards",
        "wrong_training.py:square_compared": "never-enlarges",
        "wrong_training.py:sum_of_norms": "regrouping",
        "wrong_training.py:largest_norm": "norm-afterwards",
    },
    "sinusoidal": {
        "wrong_layers.py:cosine_has_its_own_exponent": "constant-norm",  # many a tutorial
        "wrong_layers.py:exponent_doubled": "shift",
        "wrong_layers.py:longest_wave_included": "nested-widths",  # tensor2tensor
        "wrong_layers.py:counts_from_one": "first-row",  # fairseq
    },
    "rotary": {
        "wrong_layers.py:overwritten_view": "norm",
        "wrong_layers.py:exponent_not_doubled": "frequencies",
        "wrong_layers.py:stale_frequencies": "other-base",  # found at first, by a case that did not reproduce it
        "wrong_layers.py:counted_from_the_first": "row-order",
        "wrong_layers.py:half_unturned": "frequencies",  # GPT-NeoX's rotary_pct
    },
    "alibi": {
        "wrong_layers.py:slopes_by_whole_division": "powers-of-two",
        "wrong_layers.py:slopes_between_in_a_row": "other-numbers",
        "wrong_layers.py:slopes_from_one": "powers-of-two",
    },
}

RIGHT = {
    "attention": (
        "attention_einsum",
        "attention_loops",
        "attention_in_blocks",
        "attention_from_logsumexp",  # a false alarm at first
        "attention_base_two",
    ),
    "softmax": ("softmax_by_logsumexp", "softmax_by_differences"),  # the former a false alarm at first
    "layer-norm": ("layer_norm_by_projection", "layer_norm_welford"),
    "rms-norm": ("rms_norm_by_length",),
    "cross-entropy": ("cross_entropy_loops", "cross_entropy_one_hot"),
    "adam": ("adam_as_one_rate",),
    "clip": ("clip_of_one_vector", "clip_by_hypot"),
    "sinusoidal": ("sinusoidal_complex", "sinusoidal_by_logarithm"),
    "rotary": ("rotary_halves", "rotary_complex", "rotary_matrices"),
    "alibi": ("alibi_by_key", "alibi_causal"),
}


def audit(target: str, kind: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        main, ["audit", "--on", str(BLIND / target), "--as", kind, "--examples", EXAMPLES, "--quiet"]
    )
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("kind", "target", "law"), [(kind, target, law) for kind, of in WRONG.items() for target, law in of.items()]
)
def test_a_fault_is_found(kind: str, target: str, law: str) -> None:
    code, said = audit(target, kind)
    assert code == 1, said
    assert f"\nlaw {kind}/{law}\n" in f"\n{said}"
    assert "minimal counterexample:\n\nimport numpy as np\n" in said


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, of in RIGHT.items() for name in of])
def test_a_right_one_passes(kind: str, name: str) -> None:
    code, said = audit(f"right_numpy.py:{name}", kind)
    assert code == 0, said


def test_every_function_of_the_files_is_audited() -> None:
    """A wrong implementation that no test names would prove nothing."""
    named = {name.split(":")[1] for of in WRONG.values() for name in of} | {n for of in RIGHT.values() for n in of}
    helpers = {"softmax_over_keys", "log_softmax", "slopes"}
    for path in (p for p in BLIND.glob("*.py") if not p.stem.endswith("_torch")):
        found = {line[4:].split("(")[0] for line in path.read_text().splitlines() if line.startswith("def ")}
        assert found - helpers <= named, path
