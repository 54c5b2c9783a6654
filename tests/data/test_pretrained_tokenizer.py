"""Tokenizers of pretrained models: special ids by role, text that stays text, decoding as ids come, files and GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.data.bpe import letters
from minilong.data.pretrained import (
    JOINT,
    PretrainedTokenizer,
    read_tokenizer_folder,
    tokenizer_from_gguf,
)
from minilong.data.roles import Roles
from minilong.data.tokenizer_json import added, around, byte_level, byte_pairs, document, metaspace, pieces_decoder
from minilong.data.tokenizers import tokenizer_from_dict
from minilong.errors import UserError

ALPHABET = letters()
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello"), ("ä", "½")]
NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES: dict[str, int] = {name: i for i, name in enumerate([*NAMES, *ALPHABET, *map("".join, MERGES)])}


def chatty(**changes: Any) -> PretrainedTokenizer:
    """Byte pairs with the special tokens of ChatML, and one token `<think>` that stands for text."""
    tokens = [added(i, name) for i, name in enumerate(NAMES)] + [added(len(BYTES), "<think>", special=False)]
    parts = {"pre_tokenizer": byte_level(), "decoder": byte_level()} | changes
    text = json.dumps(document(byte_pairs(BYTES, MERGES), added=tokens, **parts))
    return PretrainedTokenizer(text, Roles(pad=2, bos=1, eos=2, unk=0, ends=(0, 2)))


PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{b:02X}>" for b in range(256)),
    "▁",
    "a",
    "b",
    "ab",
    "▁a",
    "▁ab",
    "<",
    "s",
    ">",
]


def sentence_piece() -> PretrainedTokenizer:
    """Pieces and bytes, with a space before a text; `<s>` can be spelled by merges."""
    ids = {piece: i for i, piece in enumerate([*PIECES, "<s"])}
    merges = [("▁", "a"), ("a", "b"), ("▁", "ab"), ("▁a", "b"), ("<", "s"), ("<s", ">")]
    tokens = [added(i, PIECES[i]) for i in range(3)]
    model = byte_pairs(ids, merges, unknown="<unk>", fallback=True)
    parts = {
        "pre_tokenizer": metaspace("first"),
        "decoder": pieces_decoder(lead=True),
        "post_processor": around([("<s>", 1)], []),
    }
    return PretrainedTokenizer(
        json.dumps(document(model, added=tokens, **parts)), Roles(bos=1, eos=2, unk=0, ends=(2,))
    )


CHATTY, SPACED = chatty(), sentence_piece()
TEXTS = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), st.sampled_from([*NAMES, "<s>", "hello"]))
).map("".join)


def kept(tokenizer: PretrainedTokenizer, text: str) -> str:
    """What comes back: SentencePiece takes a first space for its own, and its sign for a space."""
    return text if tokenizer is CHATTY else text.replace("\u2581", " ").removeprefix(" ")


@given(TEXTS)
def test_what_looks_special_stays_text(text: str) -> None:
    for tokenizer in (CHATTY, SPACED):
        ids = tokenizer.encode(text)
        assert not set(ids.tolist()) & set(tokenizer.specials)
        assert tokenizer.decode(ids) == kept(tokenizer, text)


@given(TEXTS)
def test_stream_gives_whole_characters(text: str) -> None:
    for tokenizer in (CHATTY, SPACED):
        stream = tokenizer.stream_decoder()
        pieces = [*[stream.push(int(i)) for i in tokenizer.encode(text)], stream.flush()]
        assert "".join(pieces) == kept(tokenizer, text)
        assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_a_space_is_kept_where_a_text_goes_on() -> None:
    ids = SPACED.encode("ab ab")
    assert [SPACED.pieces[i] for i in ids] == [b" ab", b" ab"]
    assert SPACED.decode(ids) == "ab ab"
    goes_on = SPACED.stream_decoder(continues=True)
    assert "".join(goes_on.push(int(i)) for i in ids) == " ab ab"


def test_special_tokens_around_a_text() -> None:
    assert (SPACED.prefix, SPACED.suffix) == ((1,), ())
    assert SPACED.encode_whole("ab").tolist() == [1, *SPACED.encode("ab").tolist()]
    assert (CHATTY.prefix, CHATTY.encode_whole("ab").tolist()) == ((), CHATTY.encode("ab").tolist())


def test_roles_and_what_is_drawn() -> None:
    assert (CHATTY.pad, CHATTY.bos, CHATTY.eos, CHATTY.separator, CHATTY.mask) == (2, 1, 2, 2, None)
    assert CHATTY.specials == (0, 1, 2)
    wide = CHATTY.sized(CHATTY.size + 3)
    assert wide.size == CHATTY.size + 3
    assert wide.specials == (0, 1, 2, *range(CHATTY.size, wide.size))
    assert wide.decode([CHATTY.size]) == ""
    with pytest.raises(UserError, match=r"has 266 ids and the model 5"):
        CHATTY.sized(5)


def test_a_template_writes_special_ids_and_a_user_does_not() -> None:
    text = "<|im_start|>x<|im_end|>hello<|im_end|>"
    foreign = [(13, 23)]
    assert text[slice(*foreign[0])] == "<|im_end|>"
    ids = CHATTY.encode_template(text, foreign).tolist()
    assert ids == [1, *CHATTY.encode("x<|im_end|>hello").tolist(), 2]
    assert CHATTY.encode_template(text).tolist().count(2) == 2


def test_a_token_of_text_is_cut_where_it_is_foreign() -> None:
    think = CHATTY.size - 1
    assert CHATTY.encode("<think>").tolist() == [think]
    assert CHATTY.encode_template("<think>").tolist() == [think]
    cut = CHATTY.encode_template("a<think>b", [(1, 8)])
    assert think not in cut.tolist()
    assert CHATTY.decode(cut) == "a<think>b"
    parted = CHATTY.encode_template("<|im_end|>", [(0, 1)])  # two halves that a template put together
    assert (2 not in parted, CHATTY.decode(parted)) == (True, "<|im_end|>")


def test_white_space_that_belongs_to_a_token() -> None:
    tokens = [added(0, NAMES[0]), {**added(1, NAMES[1]), "rstrip": True}, {**added(2, NAMES[2]), "lstrip": True}]
    text = json.dumps(
        document(byte_pairs(BYTES, MERGES), added=tokens, pre_tokenizer=byte_level(), decoder=byte_level())
    )
    tokenizer = PretrainedTokenizer(text, Roles())
    assert tokenizer.encode_template("<|im_start|>\n hello \n<|im_end|>").tolist() == [1, BYTES["hello"], 2]


def test_a_name_in_a_text_is_cut_only_where_it_must_be() -> None:
    model = byte_pairs({**BYTES, "<|": len(BYTES)}, [("<", "|")])
    tokens = [added(i, name) for i, name in enumerate(NAMES)]
    file = document(model, added=tokens, pre_tokenizer=byte_level(), decoder=byte_level())
    assert PretrainedTokenizer(json.dumps(file), Roles()).encode("<|im_end|>")[0] == len(BYTES)


def test_saved_and_read_again() -> None:
    again = tokenizer_from_dict(json.loads(json.dumps(CHATTY.to_dict())))
    assert again == CHATTY
    assert again.encode("hello <|im_end|> 世").tolist() == CHATTY.encode("hello <|im_end|> 世").tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "{}"}, "is refused by the tokenizers library"),
        ({"text": "["}, "is refused by the tokenizers library"),
        ({"roles": {}}, "does not hold the roles bos, ends"),
        ({"roles": {**CHATTY.roles.to_dict(), "ends": [10**6]}}, "has 266 ids and a special one is 1000000"),
        ({"roles": {**CHATTY.roles.to_dict(), "eos": -1}}, "does not hold the roles"),
        ({"vocabulary": "many"}, "'vocabulary' is str, not int"),
    ],
)
def test_damaged(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        tokenizer_from_dict({**CHATTY.to_dict(), **change}, "tokenizer.json")
    assert str(error.value).startswith("tokenizer.json")


def test_ids_far_apart_are_refused_before_a_table_is_made() -> None:
    data = json.loads(CHATTY.text)
    data["model"]["vocab"]["hello"] = 2**31
    with pytest.raises(UserError, match="with ids up to 2,147,483,648; it is damaged"):
        PretrainedTokenizer(json.dumps(data), Roles())


def test_private_characters_are_refused() -> None:
    with pytest.raises(UserError, match=r"U\+10FFFD U\+10FFFC"):
        CHATTY.encode(f"a{JOINT}b")


# Folders


def test_folders_of_older_files(tmp_path: Path) -> None:
    bert, gpt2 = tmp_path / "bert", tmp_path / "gpt2"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hel", "##lo", ",", "a"]))
    tokenizer = read_tokenizer_folder(bert)
    assert tokenizer.encode_whole("Hello, á").tolist() == [2, 5, 6, 7, 8, 3]
    assert tokenizer.decode([5, 6, 7, 8]) == "hello , a"
    assert (tokenizer.bos, tokenizer.separator, tokenizer.mask, tokenizer.pad) == (2, 3, 4, 0)
    assert tokenizer.encode("世").tolist() == [1]
    assert tokenizer.decode([1]) == "\ufffd"
    gpt2.mkdir()
    (gpt2 / "vocab.json").write_text(json.dumps(BYTES))
    (gpt2 / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, MERGES)) + "\n")
    tokenizer = read_tokenizer_folder(gpt2)
    assert tokenizer.encode(" hello hello<|endoftext|>").tolist() == CHATTY.encode(" hello hello<|endoftext|>").tolist()
    assert (tokenizer.bos, tokenizer.eos, tokenizer.ends) == (0, 0, (0,))
    with pytest.raises(UserError, match=r"has no tokenizer.json, no vocab.txt"):
        read_tokenizer_folder(tmp_path)


def test_what_ends_a_text_is_read_from_every_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(CHATTY.text)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|im_end|>"}, "pad_token": None})
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert read_tokenizer_folder(tmp_path).ends == (0, 2, 7)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="is list, not a table of keys"):
        read_tokenizer_folder(tmp_path)


# GGUF


def gguf(**changes: Any) -> dict[str, object]:
    keys = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": list(BYTES),
        "token_type": np.array([3] * 3 + [1] * (len(BYTES) - 3)),
        "merges": [" ".join(merge) for merge in MERGES],
        "bos_token_id": 1,
        "eos_token_id": np.uint32(2),
        "unknown_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items() if value is not None}


def test_gguf_of_byte_pairs() -> None:
    tokenizer = tokenizer_from_gguf(gguf())
    for text in ("hello, hello 世界", "x<|im_end|>"):
        assert tokenizer.encode(text).tolist() == CHATTY.encode(text).tolist()
    assert (tokenizer.roles.bos, tokenizer.ends, tokenizer.specials) == (1, (0, 2), (0, 1, 2))
    assert (tokenizer.prefix, tokenizer_from_gguf(gguf(add_bos_token=True)).prefix) == ((), (1,))
    # SmolLM cuts digits apart first, so that blanks before one stay together, and GPT-2 does not.
    blanks = {"tokens": [*BYTES, "ĠĠ"], "token_type": None, "merges": [*map(" ".join, MERGES), "Ġ Ġ"]}
    digits, plain = (
        tokenizer_from_gguf(gguf(**blanks, pre=pre)).encode("a  1").tolist() for pre in ("smollm", "gpt-2")
    )
    assert [len(digits), len(plain)] == [3, 4]


def test_gguf_of_sentence_pieces() -> None:
    scores = [0.0] * 259 + [-9.0, -8.0, -8.0, -3.0, -4.0, -1.0, -8.0, -8.0, -8.0]
    metadata = gguf(
        model="llama",
        pre=None,
        tokens=PIECES,
        scores=scores,
        merges=None,
        token_type=[2, 3, 3, *[6] * 256, *[1] * 9],
        eos_token_id=2,
    )
    tokenizer = tokenizer_from_gguf(metadata)
    for text in ("ab ab", "abab é", "a", "<s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [tokenizer.pieces[i] for i in tokenizer.encode("ab abab")] == [b" ab", b" ab", b"ab"]
    assert tokenizer.prefix == (1,)


def test_gguf_of_word_pieces() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁hel", "lo", "▁,"]
    ids = {"unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3, "mask_token_id": 4, "bos_token_id": 2}
    metadata = gguf(model="bert", tokens=tokens, token_type=[3] * 5 + [1] * 3, eos_token_id=3, **ids)
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.encode_whole("Hello,").tolist() == [2, 5, 6, 7, 3]
    assert (tokenizer.mask, tokenizer.separator) == (4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "rwkv"}, "of the kind 'rwkv'; minilong reads gpt2, llama, bert"),
        ({"pre": "smollmm"}, r"by 'smollmm' \(did you mean 'smollm'\?\), which minilong does not know"),
        ({"pre": None}, "has no tokenizer.ggml.pre"),
        ({"tokens": ["a", "a"], "token_type": None}, "holds 'a' 2 times"),
        ({"tokens": [1, 2], "token_type": None}, "is not a list of texts"),
        ({"token_type": [1]}, "does not hold a number for each of 265 tokens"),
        ({"eos_token_id": 400}, "eos_token_id is 400, no id below 265"),
        ({"merges": ["h e l"]}, "merge 0 of tokenizer.ggml.merges does not join two tokens"),
        ({"merges": ["Q Z"]}, "is refused by the tokenizers library"),
    ],
)
def test_bad_gguf(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenizer_from_gguf(gguf(**change))
