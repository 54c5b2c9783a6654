"""The tokenizer files of a model's folder: `tokenizer.json`, or the older `vocab.txt` (BERT), or `vocab.json` with
`merges.txt` (GPT-2, RoBERTa); and what the files beside them say of its special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minilong.data.roles import Roles, ends_of
from minilong.data.tokenizer_json import (
    Json,
    added,
    around,
    bert_parts,
    byte_level,
    byte_pairs,
    document,
    word_pieces,
)
from minilong.errors import UserError

LARGEST = 256 * 2**20
"""Bytes of a file that is read."""

NAMES = ("pad", "bos", "eos", "unk", "sep", "cls", "mask")
"""Roles as the files call them, each with `_token` behind."""


def json_of_folder(path: Path) -> tuple[str, Roles]:
    """The text of a `tokenizer.json` and the roles of its special ids. UserError where there is none."""
    names = _names(path)
    if (path / "tokenizer.json").is_file():
        text = read_text(path / "tokenizer.json")
        data = _object(text, path / "tokenizer.json")
    elif (path / "vocab.txt").is_file():
        data = _bert(path, names)
        text = json.dumps(data, ensure_ascii=False)
    elif (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        data = _byte_pairs(path, names)
        text = json.dumps(data, ensure_ascii=False)
    else:
        old = next((p.name for p in sorted(path.glob("*.model"))), None)
        hint = f", only {old} of SentencePiece: save it as tokenizer.json with `transformers`" if old else ""
        raise UserError(f"{path} has no tokenizer.json, no vocab.txt, and no vocab.json with merges.txt{hint}")
    return text, _roles(path, data, names)


def read_text(path: Path) -> str:
    """A text file of a checkpoint; UserError where it is missing, too large, or no UTF-8."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for such a file; it is damaged")
        return path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; it is damaged") from None


def read_object(path: Path) -> Json:
    """The JSON object of a file; empty where there is no file. UserError for anything else."""
    return _object(read_text(path), path) if path.is_file() else {}


def _object(text: str, path: Path) -> Json:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; it is damaged") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is {type(data).__name__}, not a table of keys; it is damaged")
    return data


def _names(path: Path) -> dict[str, str]:
    """The special tokens by role, as texts."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        data = read_object(path / file)
        for name in NAMES:
            value = data.get(f"{name}_token")
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[name] = value
    return found


def _roles(path: Path, data: Json, names: dict[str, str]) -> Roles:
    model = data.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids: dict[str, int] = {}
    if isinstance(vocabulary, dict):
        ids |= {name: id for name, id in vocabulary.items() if type(id) is int}
    elif isinstance(vocabulary, list):
        ids |= {
            row[0]: id for id, row in enumerate(vocabulary) if isinstance(row, list) and row and type(row[0]) is str
        }
    specials: dict[str, int] = {}
    for token in data.get("added_tokens") or []:
        if isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int:
            ids[token["content"]] = token["id"]
            if token.get("special"):
                specials[token["content"]] = token["id"]
    of = {name: ids.get(names.get(name, "")) for name in NAMES}
    config, writing = read_object(path / "config.json"), read_object(path / "generation_config.json")
    bos = of["cls"] if of["cls"] is not None else of["bos"]
    if bos is None:  # T5 begins its answers with the padding
        bos = _number(config.get("decoder_start_token_id"))
    ends = [of["eos"], *_list(config.get("eos_token_id")), *_list(writing.get("eos_token_id"))]
    largest = max(ids.values(), default=0)
    return Roles(
        pad=of["pad"] if of["pad"] is not None else _number(config.get("pad_token_id")),
        bos=bos,
        eos=of["eos"],
        separator=of["sep"],
        unk=of["unk"],
        mask=of["mask"],
        ends=ends_of(specials, *[end for end in ends if end is not None and end <= largest]),
    )


def _number(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _list(value: Any) -> list[int | None]:
    return [_number(one) for one in value] if isinstance(value, list) else [_number(value)]


def _bert(path: Path, names: dict[str, str]) -> Json:
    lines = read_text(path / "vocab.txt").split("\n")
    words = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocabulary = {word: id for id, word in enumerate(words)}
    if len(vocabulary) != len(words):
        raise UserError(f"{path / 'vocab.txt'} repeats a word; it is damaged")
    usual = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    for role, name in usual.items():
        names.setdefault(role, name)
    found = [(names[role], vocabulary.get(names[role])) for role in usual]
    if any(id is None for _, id in found):
        missing = next(name for name, id in found if id is None)
        raise UserError(f"{path / 'vocab.txt'} has no {missing}; it is damaged, or tokenizer_config.json is")
    special = {name: id for name, id in found if id is not None}
    lower = read_object(path / "tokenizer_config.json").get("do_lower_case", True)
    ends = [(names[role], special[names[role]]) for role in ("cls", "sep")]
    return document(
        word_pieces(vocabulary, names["unk"]),
        added=[added(id, name) for name, id in special.items()],
        post_processor=around(ends[:1], ends[1:]),
        **bert_parts(lower=bool(lower)),
    )


def _byte_pairs(path: Path, names: dict[str, str]) -> Json:
    """RoBERTa, where `<s>` and `</s>` are tokens and stand around a text; else GPT-2."""
    vocabulary = read_object(path / "vocab.json")
    if not all(type(id) is int for id in vocabulary.values()):
        raise UserError(f"{path / 'vocab.json'} does not give each token an id; it is damaged")
    lines = read_text(path / "merges.txt").split("\n")
    merges = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(merge) != 2 for merge in merges):
        raise UserError(f"{path / 'merges.txt'} does not hold two tokens a line; it is damaged")
    roberta = {"<s>", "</s>", "<mask>"} <= set(vocabulary)
    usual = (
        {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
        if roberta
        else {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}
    )
    for role, name in usual.items():
        if name in vocabulary:
            names.setdefault(role, name)
    special = [name for name in dict.fromkeys(names.values()) if name in vocabulary]
    post: Json = {**byte_level(), "add_prefix_space": True, "trim_offsets": False}
    if roberta:
        post = around([("<s>", vocabulary["<s>"])], [("</s>", vocabulary["</s>"])])
    return document(
        byte_pairs(vocabulary, merges),
        added=[added(vocabulary[name], name, left=name == names.get("mask")) for name in special],
        pre_tokenizer=byte_level(),
        post_processor=post,
        decoder={**byte_level(), "add_prefix_space": True},
    )
