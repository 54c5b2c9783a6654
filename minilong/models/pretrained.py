"""Pretrained models in folders of the library `transformers`: config.json and safetensors, opened and saved."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minilong.backend import Array
from minilong.errors import UserError, did_you_mean
from minilong.models.assemble import assemble, check_shapes, report, shapes_of
from minilong.models.config import ModelConfig
from minilong.models.families import FAMILIES, Family
from minilong.models.families.hf import ROPE_KEYS
from minilong.models.families.places import arrays_there, shapes_there
from minilong.models.fields import show
from minilong.models.files.safetensors import open_safetensors, write_safetensors
from minilong.models.files.strict_json import strict_object
from minilong.models.files.tensors import TensorFile
from minilong.nn import EncoderDecoder, LanguageModel
from minilong.nn.lowbit import LowBit

LARGEST_JSON = 1 << 20
"""Bytes of a config.json beyond which it is none."""


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint that was opened.

    arrays: by our field paths, float32 views of the mapped file wherever it holds float32, or low-bit blocks. family:
    a `model_type` of `FAMILIES`. hf: its config.json, or what stands for that. path: the folder or file.
    """

    config: ModelConfig
    vocabulary: int
    arrays: dict[str, Array | LowBit]
    family: str
    hf: Mapping[str, Any]
    path: Path

    def model(self) -> LanguageModel | EncoderDecoder:
        """The model of these very arrays."""
        return assemble(self.config, self.vocabulary, self.arrays, repr(str(self.path)))


def open_folder(path: Path) -> Pretrained:
    """The model in a folder with config.json and model.safetensors (or model.safetensors.index.json with shards).

    Nothing is copied that the files hold in float32, and nothing in the folder is executed. UserError for a family or
    a value that is not supported, and for arrays that are missing, unexpected or misshapen, all named at once.
    """
    hf = read_config(path)
    family = family_of(hf)
    config, vocabulary = family.config(hf), family.vocabulary(hf)
    file = open_safetensors(path)
    check_size(config, vocabulary, file)
    names = names_now(family, file)
    config = replace(config, tied=config.tied and not separate_head(family, config, file, names))
    places, wanted = family.places(config), shapes_of(config, vocabulary)
    there, extras = shapes_there(places, wanted), family.extras(config) | {family.head}
    wrong = [f"{name} ({reason})" for name in there if (reason := misfit(file, names.get(name), there[name]))]
    missing = [name for name in there if name not in names]
    report(repr(str(path)), missing, [name for name in names if name not in there and name not in extras], wrong)
    held = {name: file.array(names[name]) for name in there}
    arrays: dict[str, Array | LowBit] = {ours: place.of(held[place.name]) for ours, place in places.items()}
    return Pretrained(config, vocabulary, arrays, family.model_type, hf, path)


def misfit(file: TensorFile, name: str | None, shape: tuple[int, ...]) -> str | None:
    """Why an array of the file is not the one that is wanted, or None."""
    if name is None or (file.shape(name) == shape and file.kind(name)[0] not in "IU" and file.kind(name) != "BOOL"):
        return None
    if file.shape(name) == shape:
        return f"{file.kind(name)}, not floating-point"
    return f"{' x '.join(map(str, file.shape(name)))}, not {' x '.join(map(str, shape))}"


def check_size(config: ModelConfig, vocabulary: int, file: TensorFile) -> None:
    """UserError where config.json describes more than the file holds, before anything is made of such a size."""
    c, held = config.resolved(), sum(math.prod(file.shape(name)) for name in file.names)
    least = max(c.layers * max(c.width, c.feed_forward, c.heads * c.head_width), vocabulary * c.width)
    if c.layers > len(file.names) or least > held:
        raise UserError(
            f"config.json describes a model of {c.layers} layers, {c.width} wide, for {vocabulary} tokens, but "
            f"{file.source} holds {held} numbers in {len(file.names)} arrays; they do not belong together"
        )


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a folder."""
    if not path.is_dir():
        raise UserError(f"{str(path)!r} is no folder; give one that holds config.json and model.safetensors")
    file = path / "config.json"
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        raise UserError(f"{str(path)!r} holds no config.json; give the folder of a pretrained model") from None
    return strict_object(data, repr(str(file)), LARGEST_JSON)


def family_of(hf: Mapping[str, Any]) -> Family:
    """The family of a config.json. UserError for one that is not known."""
    kind = hf.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        near = did_you_mean(kind, FAMILIES) if isinstance(kind, str) else ""
        raise UserError(f"config.json has model_type = {show(kind)}{near}; minilong opens {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def names_now(family: Family, file: TensorFile) -> dict[str, str]:
    """Today's full name -> name in the file: old ones name norms otherwise, those of a bare model lack a prefix."""
    bare = bool(family.prefix) and not any(name.startswith(family.prefix) for name in file.names)
    found = {(family.prefix if bare else "") + family.now(name): name for name in file.names}
    if len(found) < len(file.names):
        raise UserError(f"{file.source} holds an array under its old and its new name; fetch it again")
    return found


def separate_head(family: Family, config: ModelConfig, file: TensorFile, names: Mapping[str, str]) -> bool:
    """Whether the output projection differs from the embedding in spite of config.json: then the file is right."""
    head, table = names.get(family.head), names.get(family.embedding)
    if config.output == "none" or head is None or table is None or file.shape(head) != file.shape(table):
        return False
    return not np.array_equal(file.array(head), file.array(table))


def save_folder(
    path: Path,
    config: ModelConfig,
    arrays: Mapping[str, Array | LowBit],
    *,
    family: str,
    hf: Mapping[str, Any],
    tokenizer_json: str | None = None,
    chat_template: str | None = None,
) -> None:
    """Write a model as a folder that `transformers` opens: whole, or not at all.

    arrays: by our field paths, low-bit ones are decoded. hf: the config.json that it was opened from, whose other keys
    (ids of special tokens) are kept; {} for a model of our own. UserError where the folder exists, where the family's
    config.json can not say what the configuration says, and for arrays that are not the configured model's.
    """
    if path.exists():
        raise UserError(f"{str(path)!r} exists already; give a new folder, or remove that one")
    kind = FAMILIES[family]
    vocabulary = int(arrays["input.tokens.table"].shape[0]) if "input.tokens.table" in arrays else 1
    check_shapes(shapes_of(config, vocabulary), arrays, "what is to be saved")
    described = kind.describe(config, vocabulary)
    floats = {name: decoded(name, x) if isinstance(x, LowBit) else x for name, x in arrays.items()}
    tensors = arrays_there(kind.places(config), floats)
    bare = kind.prefix and config.output == "none"
    tensors = {name.removeprefix(kind.prefix) if bare else name: x for name, x in tensors.items()}
    other = {key: value for key, value in hf.items() if key not in (*ROPE_KEYS, "dtype", "transformers_version")}
    settings = {**other, **described, "torch_dtype": "float32"}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        write_safetensors(partial / "model.safetensors", tensors, {"format": "pt"})
        for name, values in (
            ("config.json", settings),
            ("generation_config.json", generation(settings) if config.kind != "encoder" else {}),
            ("tokenizer_config.json", tokenizer_settings(config, settings, tokenizer_json, chat_template)),
        ):
            if values:
                (partial / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if tokenizer_json is not None:
            (partial / "tokenizer.json").write_text(tokenizer_json, "utf-8")
        partial.chmod(0o755)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def decoded(name: str, x: LowBit) -> Array:
    """A low-bit array as a float one in our layout: weights (in, out), tables (entries, width)."""
    return x.decode() if name.endswith(".table") else x.decode().T


def generation(hf: Mapping[str, Any]) -> dict[str, Any]:
    """A generation_config.json: which tokens begin, end and pad a text."""
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return {key: hf[key] for key in keys if hf.get(key) is not None}


def tokenizer_settings(
    config: ModelConfig, hf: Mapping[str, Any], tokenizer_json: str | None, chat_template: str | None
) -> dict[str, Any]:
    """A tokenizer_config.json: the names of special tokens, by which `transformers` knows their roles."""
    if tokenizer_json is None:
        return {"chat_template": chat_template} if chat_template else {}
    told: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.context}
    table = json.loads(tokenizer_json)
    named = {token["id"]: token["content"] for token in table.get("added_tokens", [])}
    for role in ("bos", "eos", "pad", "sep", "cls"):
        id = hf.get(f"{role}_token_id")
        id = id[0] if isinstance(id, list) and id else id
        if isinstance(id, int) and id in named:
            told[f"{role}_token"] = named[id]
    for role, names in (
        ("unk", ("[UNK]", "<unk>")),
        ("mask", ("[MASK]", "<mask>")),
        ("cls", ("[CLS]",)),
        ("sep", ("[SEP]",)),
    ):
        known = [name for name in names if name in named.values()]
        if known:
            told.setdefault(f"{role}_token", known[0])
    return told | ({"chat_template": chat_template} if chat_template else {})
