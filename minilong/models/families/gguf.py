"""Models of llama.cpp's GGUF files: its metadata and names to a configuration, arrays and a config.json.

Such a file says what a config.json says, in other words, so it is translated into one, and the family reads that. One
thing lies otherwise: rotary pairs are neighbours in llama.cpp and halves in the published models, and the converter has
reordered queries and keys accordingly. They are put back here (`eq:rotary-layout`), so that the model equals the
published one and can be saved as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minilong.backend import Array
from minilong.errors import UserError
from minilong.models.assemble import report, shapes_of
from minilong.models.config import ModelConfig
from minilong.models.families.llama import LLAMA
from minilong.models.families.places import Place, shapes_there
from minilong.models.fields import show
from minilong.models.files.gguf import open_gguf
from minilong.models.files.tensors import TensorFile
from minilong.models.pretrained import Pretrained, misfit
from minilong.nn.blocks import FORMATS
from minilong.nn.lowbit import LowBit
from minilong.positions import to_half

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Published names -> llama.cpp's, without layer and end."""

TOKENS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
SCALINGS = {"none": "default", "linear": "linear", "yarn": "yarn"}


def open_gguf_model(path: Path, *, lowbit: bool = False) -> Pretrained:
    """The model in a GGUF file of the architecture llama.

    lowbit: matrices in blocks stay so (`LowBit`); otherwise all is float32. UserError for another architecture, for
    what the architecture has and minilong does not compute, and for arrays that are not those of the configuration.
    """
    file = open_gguf(path)
    hf = config_json(file)
    try:
        config, vocabulary = LLAMA.config(hf), LLAMA.vocabulary(hf)
    except UserError as error:
        raise UserError(f"{file.source} does not fit together: {error}") from None
    if config.layers > len(file.names):
        raise UserError(f"{file.source} tells of {config.layers} layers in {len(file.names)} arrays; fetch it again")
    places, wanted = LLAMA.places(config), shapes_of(config, vocabulary)
    there = {theirs: (llama_cpp(theirs), shape) for theirs, shape in shapes_there(places, wanted).items()}
    known = {name for name, _ in there.values()}
    wrong = [
        f"{name} ({reason})"
        for name, shape in there.values()
        if name in file.names and (reason := misfit(file, name, shape))
    ]
    report(file.source, sorted(known - set(file.names)), [n for n in file.names if n not in known], wrong)
    arrays = {ours: _array(file, there[place.name][0], place, config, lowbit) for ours, place in places.items()}
    return Pretrained(config, vocabulary, arrays, "llama", hf, path)


def config_json(file: TensorFile) -> dict[str, Any]:
    """The config.json that says the same as a file's metadata."""
    told = file.metadata
    architecture = told.get("general.architecture")
    if architecture != "llama":
        raise UserError(f"{file.source} holds a model of the architecture {show(architecture)}; minilong opens llama")
    for key in ("expert_count", "attention.sliding_window"):
        if told.get(f"llama.{key}"):
            raise UserError(f"{file.source} has llama.{key}, which minilong does not compute; take another model")
    if "rope_freqs.weight" in file.names:
        raise UserError(f"{file.source} has frequencies of its own for rotary positions; open the published folder")
    heads = _number(file, "attention.head_count")
    width = _number(file, "embedding_length")
    head_width = _number(file, "attention.key_length", width // max(int(heads), 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if _number(file, key, head_width) != head_width:
            raise UserError(
                f"{file.source} has llama.{key} unlike the width of its heads, {head_width}; it is not read"
            )
    context = _number(file, "context_length")
    table = file.shape("token_embd.weight") if "token_embd.weight" in file.names else (0,)
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": _number(file, "block_count"),
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": _number(file, "attention.head_count_kv", heads),
        "head_dim": head_width,
        "intermediate_size": _number(file, "feed_forward_length"),
        "rms_norm_eps": _short(_number(file, "attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": context,
        "rope_theta": _short(_number(file, "rope.freq_base", 10000.0)),
        "rope_scaling": _scaling(file, context),
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_up.bias" in file.names,
        "tie_word_embeddings": "output.weight" not in file.names,
        "vocab_size": _number(file, "vocab_size", table[0]),
        **_tokens(told),
    }


def llama_cpp(name: str) -> str:
    """llama.cpp's name of an array that has this published name."""
    stem, _, end = name.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, stem = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{NAMES[stem]}.{end}"
    return f"{NAMES[stem]}.{end}"


def _array(file: TensorFile, name: str, place: Place, config: ModelConfig, lowbit: bool) -> Array | LowBit:
    """One of our arrays: a view of the file where that holds float32 and the rows lie as ours do."""
    kept = lowbit and file.kind(name) in FORMATS and len(file.shape(name)) == 2
    x = file.stored(name) if kept else place.of(file.array(name))
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return x
    if isinstance(x, LowBit):
        return LowBit(np.ascontiguousarray(to_half(x.blocks.T, heads).T), x.kind, x.shape)
    return to_half(x, heads) if x.ndim == 2 else to_half(x[None], heads)[0]


def _number(file: TensorFile, key: str, default: Any = None) -> Any:
    """A number of the metadata; whether its value makes sense is the family's to say."""
    value = file.metadata.get(f"llama.{key}", default)
    if value is None:
        raise UserError(f"{file.source} has no llama.{key}; it is damaged, fetch it again")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UserError(f"{file.source} has llama.{key} = {show(value)}, which is not read; take another model")
    return value


def _short(value: Any) -> Any:
    """A number that was stored in float32 as the shortest decimal that rounds to it: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _scaling(file: TensorFile, context: int) -> dict[str, Any] | None:
    """The object rope_scaling of a config.json."""
    kind = file.metadata.get("llama.rope.scaling.type", "none")
    if kind not in SCALINGS:
        raise UserError(f"{file.source} scales rotary positions by {show(kind)}; minilong knows {', '.join(SCALINGS)}")
    if kind == "none":
        return None
    before = {"original_max_position_embeddings": _number(file, "rope.scaling.original_context_length", context)}
    return {"rope_type": SCALINGS[kind], "factor": float(_number(file, "rope.scaling.factor"))} | (
        before if kind == "yarn" else {}
    )


def _tokens(told: Mapping[str, object]) -> dict[str, int]:
    """Ids of special tokens."""
    found = {key: told.get(f"tokenizer.ggml.{role}_token_id") for role, key in TOKENS.items()}
    return {key: id for key, id in found.items() if isinstance(id, int)}
