"""From the metadata of a GGUF file to a `tokenizer.json`: llama.cpp stores vocabulary, merges and special ids, and the
name of a way to cut a text into words, which stands here.

What is not known is refused by name: another cut gives other ids, and a model that reads them writes nonsense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from minilong.data.roles import Roles, ends_of
from minilong.data.tokenizer_json import (
    SPACE,
    Json,
    added,
    around,
    bert_parts,
    byte_level,
    byte_pairs,
    document,
    metaspace,
    pieces_decoder,
    sequence,
    split,
    word_pieces,
)
from minilong.errors import UserError, did_you_mean

KEY = "tokenizer.ggml."
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5
"""Kinds of tokens in `token_type`; 1 is text and 6 a byte."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT2 = byte_level()
_DIGITS = sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level())

CUTS: dict[str, Json] = {
    **dict.fromkeys(("gpt-2", "gpt2", "olmo", "mpt"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _DIGITS),
    **{
        name: sequence("pretokenizers", split(pattern), byte_level(regex=False))
        for name, pattern in {
            "llama3": _LLAMA3,
            "llama-v3": _LLAMA3,
            "llama-bpe": _LLAMA3,
            "chatglm-bpe": _LLAMA3,
            "qwen2": _QWEN2,
            "deepseek-r1-qwen": _QWEN2,
        }.items()
    },
}
"""How a text is cut into words, by llama.cpp's name (`src/llama-vocab.cpp` there)."""

Parts = dict[str, Json]
"""Model, and what comes before and behind it."""

WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe")

LONGEST = 128
"""Characters of a token whose merges are looked for."""


def json_of_gguf(metadata: Mapping[str, object]) -> tuple[Json, Roles]:
    """A `tokenizer.json` and the roles of its special ids. UserError for what is damaged or of an unknown kind."""
    kind = _get(metadata, "model", str)
    tokens = _strings(metadata, "tokens")
    types = [int(t) for t in _numbers(metadata, "token_type", len(tokens), [1] * len(tokens))]
    token, times = max(Counter(tokens).items(), key=lambda pair: pair[1])
    if times > 1:
        raise UserError(f"{KEY}tokens holds {token[:40]!r} {times} times; the file is damaged")
    ids = {
        role: _id(metadata, f"{name}_token_id", len(tokens))
        for role, name in {
            "bos": "bos",
            "eos": "eos",
            "unk": "unknown",
            "pad": "padding",
            "separator": "seperator",  # llama.cpp's spelling
            "cls": "cls",
            "mask": "mask",
            "eot": "eot",
            "eom": "eom",
        }.items()
    }
    makers = {"gpt2": _byte_level, "llama": _sentence_piece, "bert": _word_piece}
    if kind not in makers:
        raise UserError(
            f"the tokenizer is of the kind {kind!r}{did_you_mean(kind, makers)}; minilong reads {', '.join(makers)}: "
            "open the model's folder with its tokenizer.json instead"
        )
    specials = {tokens[i]: i for i, t in enumerate(types) if t == CONTROL} | {
        tokens[i]: i for i in ids.values() if i is not None
    }
    roles = Roles(
        pad=ids["pad"],
        bos=ids["bos"] if ids["cls"] is None else ids["cls"],
        eos=ids["eos"],
        separator=ids["separator"],
        unk=ids["unk"],
        mask=ids["mask"],
        ends=ends_of(specials, ids["eos"], ids["eot"], ids["eom"]),
    )
    found = [added(id, token) for token, id in specials.items()]
    found += [added(i, tokens[i], special=False) for i, t in enumerate(types) if t == USER_DEFINED]
    first = roles.bos if _flag(metadata, "add_bos_token", kind) else None
    last = (roles.separator if kind == "bert" else roles.eos) if _flag(metadata, "add_eos_token", kind) else None
    before, behind = ([] if id is None else [(tokens[id], id)] for id in (first, last))
    parts = makers[kind](metadata, tokens, types, roles)
    return document(added=found, post_processor=around(before, behind) if before or behind else None, **parts), roles


def _byte_level(metadata: Mapping[str, object], tokens: list[str], types: list[int], roles: Roles) -> Parts:
    name = _get(metadata, "pre", str)
    if name not in CUTS:
        raise UserError(
            f"the tokenizer cuts texts into words by {name!r}{did_you_mean(name, CUTS)}, which minilong does not know; "
            "open the model's folder with its tokenizer.json instead"
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = byte_pairs(vocabulary, _merges(metadata), whole_words=name in WHOLE_WORDS)
    return {"model": model, "pre_tokenizer": CUTS[name], "decoder": {**byte_level(), "add_prefix_space": True}}


def _sentence_piece(metadata: Mapping[str, object], tokens: list[str], types: list[int], roles: Roles) -> Parts:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    lead = bool(_get(metadata, "add_space_prefix", bool, True))
    unknown = None if roles.unk is None else tokens[roles.unk]
    model = byte_pairs(vocabulary, _scored_merges(metadata, tokens), unknown=unknown, fallback=True)
    before = metaspace("first" if lead else "never")
    return {"model": model, "pre_tokenizer": before, "decoder": pieces_decoder(lead=lead)}


def _word_piece(metadata: Mapping[str, object], tokens: list[str], types: list[int], roles: Roles) -> Parts:
    """llama.cpp marks where a word begins; WordPiece marks where one goes on. The file does not say whether letters are
    lowered: they are where no token has a capital one."""
    names = []
    for token, kind in zip(tokens, types, strict=True):
        bracketed = len(token) > 2 and token[0] == "[" and token[-1] == "]"
        if token.startswith(SPACE):
            names.append(token.removeprefix(SPACE))
        else:
            names.append(token if kind in (UNKNOWN, CONTROL, UNUSED) or bracketed else f"##{token}")
    if roles.unk is None:
        raise UserError(f"the tokenizer has no {KEY}unknown_token_id, which WordPiece needs; the file is damaged")
    lower = not any(c.isupper() for name, kind in zip(names, types, strict=True) if kind == 1 for c in name)
    model = word_pieces({name: i for i, name in enumerate(names)}, names[roles.unk])
    return {"model": model, **bert_parts(lower=lower)}


def _merges(metadata: Mapping[str, object]) -> list[list[str]]:
    merges = [merge.split(" ") for merge in _strings(metadata, "merges")]
    for rank, merge in enumerate(merges):
        if len(merge) != 2:
            raise UserError(f"merge {rank} of {KEY}merges does not join two tokens; the file is damaged")
    return merges


def _scored_merges(metadata: Mapping[str, object], tokens: list[str]) -> list[tuple[str, str]]:
    """The pairs that make each token, best token first: SentencePiece merges whichever pair makes the best token."""
    scores = _numbers(metadata, "scores", len(tokens))
    ids = {token: i for i, token in enumerate(tokens)}
    found: list[tuple[float, int, int, int, tuple[str, str]]] = []
    for number, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        for cut in range(1, min(len(token), LONGEST)):
            pair = token[:cut], token[cut:]
            if pair[0] in ids and pair[1] in ids:
                found.append((-score, number, ids[pair[0]], ids[pair[1]], pair))
    return [pair for *_, pair in sorted(found)]


def _flag(metadata: Mapping[str, object], name: str, kind: str) -> bool:
    """Whether a special token is added. BERT has both, SentencePiece its first one, unless the file says otherwise."""
    usual = kind == "bert" or (kind == "llama" and name == "add_bos_token")
    return bool(_get(metadata, name, bool, usual))


def _id(metadata: Mapping[str, object], name: str, size: int) -> int | None:
    value = metadata.get(KEY + name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < size:
        raise UserError(f"{KEY}{name} is {str(value)[:40]}, no id below {size:,}; the file is damaged")
    return int(value)


def _strings(metadata: Mapping[str, object], name: str) -> list[str]:
    values = _get(metadata, name, list | tuple)
    if not values or not all(isinstance(value, str) for value in values):
        raise UserError(f"{KEY}{name} is not a list of texts; the file is damaged")
    return list(values)


def _numbers(metadata: Mapping[str, object], name: str, size: int, usual: list[int] | None = None) -> list[float]:
    values = _get(metadata, name, list | tuple | np.ndarray, usual)
    if len(values) != size or not all(isinstance(value, int | float | np.number) for value in values):
        raise UserError(f"{KEY}{name} does not hold a number for each of {size:,} tokens; the file is damaged")
    return [float(value) for value in values]


def _get(metadata: Mapping[str, object], name: str, kind: Any, usual: object = None) -> Any:
    value = metadata.get(KEY + name, usual)
    if value is None:
        raise UserError(f"the file has no {KEY}{name}, so it has no tokenizer that minilong can read")
    if not isinstance(value, kind):
        raise UserError(f"{KEY}{name} is {type(value).__name__}, which it cannot be; the file is damaged")
    return value
