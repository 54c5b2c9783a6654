"""Laws of every tokenizer: lossless, closed to special ids, the same when streamed, whole after a file."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilong.data.tokenizers import (
    FIRST,
    SPECIALS,
    BpeTokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    tokenizer_from_dict,
)
from minilong.errors import UserError

SAMPLE = "It is a truth universally acknowledged, 话说天下大势，分久必合。 the truth is 𝛼\u0301 😀\r\n\t the end. " * 3
TOKENIZERS: dict[str, Tokenizer] = {
    "byte": ByteTokenizer(),
    "char": CharTokenizer.train([SAMPLE, "".join(SPECIALS)]),
    "char-replace": CharTokenizer.train([SAMPLE, "".join(SPECIALS)], unknown="replace"),
    "bpe": BpeTokenizer.train([SAMPLE, "<separator> <separator>"], 340),
}
every = pytest.mark.parametrize("name", TOKENIZERS)
ANY = st.text(st.characters(exclude_categories=["Cs"]))
KNOWN = st.text(st.sampled_from(sorted(set(SAMPLE))))
# Texts that every tokenizer here takes, special tokens spelt out among them.
WITH_SPECIALS = st.lists(st.one_of(KNOWN, st.sampled_from(SPECIALS), st.just(SAMPLE))).map("".join)


def _texts(name: str) -> st.SearchStrategy[str]:
    return WITH_SPECIALS if name.startswith("char") else st.one_of(ANY, WITH_SPECIALS)


@every
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_decoding_the_encoding_is_the_text(name: str, data: st.DataObject) -> None:
    tokenizer, text = TOKENIZERS[name], data.draw(_texts(name))
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@every
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_text_encodes_to_a_special_id(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(data.draw(_texts(name)))
    assert {tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.separator} == set(range(FIRST))
    assert ((ids >= FIRST) & (ids < tokenizer.size)).all()


@every
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_streaming_any_ids_gives_what_decoding_gives(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1)))
    stream = tokenizer.stream_decoder()
    for _ in range(2):  # after a flush it starts afresh
        pieces = [stream.push(token) for token in ids]
        assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)
    assert stream.flush() == ""


@every
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_streaming_gives_each_character_as_soon_as_it_is_whole(name: str, data: st.DataObject) -> None:
    tokenizer, text = TOKENIZERS[name], data.draw(_texts(name))
    stream = tokenizer.stream_decoder()
    shown, sent = "", b""
    for token in tokenizer.encode(text).tolist():
        shown += stream.push(token)
        sent += tokenizer.pieces[token]
        assert shown == sent.decode("utf-8", "ignore")  # all whole characters of what was sent, and no half of one
    assert (shown, stream.flush()) == (text, "")


@every
def test_special_ids_decode_to_nothing(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = [tokenizer.bos, *tokenizer.encode("a truth").tolist(), tokenizer.separator, tokenizer.eos, tokenizer.pad]
    assert tokenizer.decode(ids) == "a truth"
    assert tokenizer.decode([]) == ""


@every
@pytest.mark.parametrize("token", [-1, -100, 10**6])
def test_an_id_outside_the_vocabulary_raises(name: str, token: int) -> None:
    tokenizer = TOKENIZERS[name]
    with pytest.raises(ValueError, match="vocabulary"):
        tokenizer.decode([FIRST, token])
    with pytest.raises(ValueError, match="vocabulary"):
        tokenizer.stream_decoder().push(token)


@every
def test_a_file_gives_the_same_tokenizer_back(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again == tokenizer
    assert again.to_dict() == tokenizer.to_dict()
    assert again.size == tokenizer.size
    assert again.pieces == tokenizer.pieces
    np.testing.assert_array_equal(again.encode(SAMPLE), tokenizer.encode(SAMPLE))


@every
def test_half_a_surrogate_pair_is_an_error_or_unknown(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    if name == "char-replace":
        assert tokenizer.encode("a\udcffa")[1] == FIRST
        return
    with pytest.raises(UserError, match=r"U\+DCFF.*; "):
        tokenizer.encode("a\udcff")


def test_ids_of_the_byte_tokenizer_are_bytes_after_the_special_ids() -> None:
    assert ByteTokenizer().encode("aé").tolist() == [97 + FIRST, 0xC3 + FIRST, 0xA9 + FIRST]
    assert ByteTokenizer().size == 256 + FIRST


def test_characters_are_sorted_by_code_point_after_the_special_ids() -> None:
    plain, replacing = CharTokenizer.train(["b😀", "a日a"]), CharTokenizer.train(["b😀a日"], unknown="replace")
    assert plain.characters == "ab日😀"
    assert plain.encode("😀ab").tolist() == [FIRST + 3, FIRST, FIRST + 1]
    assert (plain.size, plain.unk) == (FIRST + 4, None)
    assert replacing.encode("😀ab").tolist() == [FIRST + 4, FIRST + 1, FIRST + 2]
    assert (replacing.size, replacing.unk) == (FIRST + 5, FIRST)


@pytest.mark.parametrize("character", ["日", "c", "A", "\uffff", "\U0010ffff", "\0"])
def test_an_unknown_character_is_named_or_replaced(character: str) -> None:
    text = f"ab{character}a"
    with pytest.raises(UserError, match=rf"U\+{ord(character):04X}, number 3 of the text.*; leave it out, or train"):
        CharTokenizer.train(["ab😀"]).encode(text)
    replacing = CharTokenizer.train(["ab😀"], unknown="replace")
    assert replacing.decode(replacing.encode(text)) == "ab\ufffda"


def test_no_other_character_is_taken_for_a_known_one() -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)]))
    ids = CharTokenizer.train(["ab"], unknown="replace").encode(text)
    assert np.flatnonzero(ids != FIRST).tolist() == [ord("a"), ord("b")]


def test_bpe_merges_frequent_pairs_and_keeps_bytes_as_the_byte_tokenizer_has_them() -> None:
    bpe = TOKENIZERS["bpe"]
    assert bpe.size == 340
    assert bpe.pieces[:260] == ByteTokenizer().pieces
    assert len(bpe.encode(SAMPLE)) < len(ByteTokenizer().encode(SAMPLE)) / 2
    assert bpe == BpeTokenizer.train([SAMPLE, "<separator> <separator>"], 340)
    a, b, c = b"abc"
    learnt = BpeTokenizer.train(["abc abx", "ab c"], 10_000)  # one merge of a pair that occurs twice, then none is left
    assert learnt.merges == ((a, b),)
    assert BpeTokenizer.train(["abc", "abc"], 10_000).merges == ((a, b), (256, c))


def test_two_merges_may_spell_the_same_token() -> None:
    a, b, c = b"abc"
    bpe = BpeTokenizer.from_merges([[a, b], [b, c], [256, c], [a, 257], [258, 258]])
    assert bpe.pieces[260:] == (b"ab", b"bc", b"abc", b"abcabc")
    assert bpe.encode("abcabc abc").tolist() == [263, ord(" ") + FIRST, 262]


def test_bpe_without_its_library_says_what_to_install_and_still_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    bpe = BpeTokenizer.from_merges([[97, 98]])
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for use in (lambda: bpe.encode("ab"), lambda: BpeTokenizer.train(["ab"], 300)):
        with pytest.raises(UserError, match=r'pip install "minilong\[text\]"'):
            use()
    assert bpe.decode([260]) == "ab"


DAMAGED: dict[str, tuple[object, str]] = {
    "not a table": ([], "F is list, not a table"),
    "no kind": ({}, "kind None"),
    "misspelt kind": ({"kind": "bytes"}, "did you mean 'byte'"),
    "kind of a wrong type": ({"kind": [1]}, r"kind \[1\]"),
    "unknown key": ({"kind": "char", "characters": "ab", "unknown": "error", "x": 1}, "unknown key 'x'"),
    "unknown key of bytes": ({"kind": "byte", "merges": []}, "unknown key 'merges'"),
    "misspelt key": ({"kind": "char", "character": "ab", "unknown": "error"}, "did you mean 'characters'"),
    "missing key": ({"kind": "char", "characters": "ab"}, "no key 'unknown'"),
    "wrong type": ({"kind": "char", "characters": ["a"], "unknown": "error"}, "'characters' is list, not str"),
    "no characters": ({"kind": "char", "characters": "", "unknown": "error"}, "F: a character vocabulary is empty"),
    "unsorted": ({"kind": "char", "characters": "ba", "unknown": "error"}, "F: .*not sorted"),
    "repeated": ({"kind": "char", "characters": "aa", "unknown": "error"}, "F: .*repeats"),
    "surrogate": ({"kind": "char", "characters": "a\ud800", "unknown": "error"}, r"F: .*U\+D800"),
    "unknown choice": ({"kind": "char", "characters": "a", "unknown": "skip"}, "F: .*'skip' is no choice"),
    "merges of a wrong type": ({"kind": "bpe", "merges": "ab"}, "'merges' is str, not list"),
    "merge of three": ({"kind": "bpe", "merges": [[1, 2], [1, 2, 3]]}, "F: merge 1 is"),
    "merge of text": ({"kind": "bpe", "merges": [["a", "b"]]}, "F: merge 0 is"),
    "merge of truth": ({"kind": "bpe", "merges": [[True, 1]]}, "F: merge 0 is"),
    "merge of a later token": ({"kind": "bpe", "merges": [[1, 256]]}, "F: merge 0 is"),
    "negative merge": ({"kind": "bpe", "merges": [[-1, 2]]}, "F: merge 0 is"),
    "repeated merge": ({"kind": "bpe", "merges": [[1, 2], [1, 2]]}, "F: merge 1 repeats"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(case: str) -> None:
    data, message = DAMAGED[case]
    with pytest.raises(UserError, match=message) as caught:
        tokenizer_from_dict(data, "F")
    assert str(caught.value).startswith("F")
    assert str(caught.value).count("F: F") == 0
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 300) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FILES = JSON | st.fixed_dictionaries(
    {"kind": st.sampled_from(["byte", "char", "bpe"]) | JSON},
    optional={"characters": JSON, "unknown": st.sampled_from(["error", "replace"]) | JSON, "merges": JSON},
)


@settings(max_examples=200, deadline=None)
@given(data=FILES)
def test_any_json_is_a_tokenizer_or_an_error_of_the_user(data: object) -> None:
    try:
        tokenizer = tokenizer_from_dict(data)
    except UserError:
        return
    assert tokenizer.to_dict() == data


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CharTokenizer.train([""]), "vocabulary is empty; give"),
        (lambda: CharTokenizer.train(["a"], unknown="skip"), "'skip' is no choice; take"),
        (lambda: BpeTokenizer.train(["a"], 259), "a BPE vocabulary of 259 is too small; give at least 260"),
        (lambda: BpeTokenizer.train(["a\ud800"], 300), r"U\+D800"),
    ],
)
def test_what_can_not_be_trained_is_an_error_of_the_user(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=message):
        make()
