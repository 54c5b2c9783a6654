"""The parts of a `tokenizer.json`, the `tokenizers` library's format, which other files leave to be put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

SPACE = "\u2581"
"""How SentencePiece writes a space."""


def document(
    model: Json,
    *,
    added: Iterable[Json],
    normalizer: Json | None = None,
    pre_tokenizer: Json | None = None,
    post_processor: Json | None = None,
    decoder: Json | None = None,
) -> Json:
    """A whole tokenizer."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def added(id: int, content: str, *, special: bool = True, left: bool = False) -> Json:
    """A token that is found in a text before anything is cut. left: white space before it belongs to it."""
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": left,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def byte_pairs(
    vocabulary: Mapping[str, int],
    merges: Iterable[Sequence[str]],
    *,
    unknown: str | None = None,
    fallback: bool = False,
    whole_words: bool = False,
) -> Json:
    """Byte-pair encoding. fallback: characters without a token become tokens of bytes; whole_words: a word that is a
    token needs no merges."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": fallback,
        "byte_fallback": fallback,
        "ignore_merges": whole_words,
        "vocab": dict(vocabulary),
        "merges": [list(merge) for merge in merges],
    }


def byte_level(*, regex: bool = True) -> Json:
    """Bytes written as visible characters; with `regex`, after a cut into words as GPT-2 cuts them."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def split(pattern: str) -> Json:
    """A cut into what a regular expression finds, and what lies between."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(kind: str, *parts: Json) -> Json:
    """Several steps; `kind` is what the format calls the list of them."""
    return {"type": "Sequence", kind: list(parts)}


def metaspace(scheme: str) -> Json:
    """Spaces as SentencePiece writes them, one put before every text ("always"), the first part ("first"), or none."""
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}


def pieces_decoder(*, lead: bool) -> Json:
    """Back from SentencePiece's pieces and bytes. lead: a text begins with a space that was put there."""
    parts: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip: list[Json] = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if lead else []
    return sequence("decoders", *parts, *strip)


def word_pieces(vocabulary: Mapping[str, int], unknown: str) -> Json:
    """BERT's WordPiece: the longest known piece first."""
    return {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": dict(vocabulary),
    }


def bert_parts(*, lower: bool) -> dict[str, Json]:
    """How BERT cleans and cuts a text, and the way back."""
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": lower,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }


def around(before: Sequence[tuple[str, int]], behind: Sequence[tuple[str, int]]) -> Json:
    """Special tokens before and behind a text, each by name and id."""
    specials = {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in (*before, *behind)}

    def part(name: str, kind: int) -> Json:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> Json:
        return {"Sequence": {"id": name, "type_id": kind}}

    first, last = [part(name, 0) for name, _ in before], [part(name, 0) for name, _ in behind]
    second = [part(name, 1) for name, _ in behind]
    return {
        "type": "TemplateProcessing",
        "single": [*first, text("A", 0), *last],
        "pair": [*first, text("A", 0), *last, text("B", 1), *second],
        "special_tokens": specials,
    }
