"""Sentences, words and stop words of English and Chinese."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.errors import UserError
from minilong.text import words as words_module
from minilong.text.sentences import LONGEST, sentences_of, split_sentences
from minilong.text.words import stop_words, tokenizer

SPLIT = [
    ("It rained. She left.", ["It rained.", "She left."]),
    ("Mr. Bennet said no. He did.", ["Mr. Bennet said no.", "He did."]),
    ("J. Austen wrote it. I did not.", ["J. Austen wrote it.", "I did not."]),
    ("So did I. She left.", ["So did I.", "She left."]),
    ("It cost 3.5 pounds... and more.", ["It cost 3.5 pounds... and more."]),
    ("He (the U.S. envoy) left. Then?", ["He (the U.S. envoy) left.", "Then?"]),
    ('"Is it so?" she asked. "Yes!" He went.', ['"Is it so?" she asked.', '"Yes!"', "He went."]),
    ("A title\n\nA line\nand another.\n \nmore", ["A title", "A line\nand another.", "more"]),
    ("今天天气不错。我说：“走吧！”他走了……好", ["今天天气不错。", "我说：“走吧！”", "他走了……", "好"]),
    ("Is it?!  Yes", ["Is it?!", "Yes"]),
    ("  \n\n ", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "sentences"), SPLIT)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


PIECES = st.lists(
    st.sampled_from(["Mr", ".", "!", "”", " ", "\n", "\n\n", "a", "I", "J", "。", "…", "1.5"]), max_size=40
)


@given(PIECES, st.integers(1, 7))
def test_sentences_do_not_depend_on_the_pieces(parts: list[str], size: int) -> None:
    text = "".join(parts)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    whole = split_sentences(text)
    assert list(sentences_of(pieces)) == whole
    assert "".join("".join(whole).split()) == "".join(text.split())


def test_a_sentence_without_an_end_is_cut_and_loses_nothing() -> None:
    text = "word " * (LONGEST // 2)
    whole = split_sentences(text)
    assert len(whole) == 3
    assert max(map(len, whole)) <= LONGEST
    assert list(sentences_of([text[i : i + 1000] for i in range(0, len(text), 1000)])) == whole
    assert " ".join(whole) == text.strip()


def test_english_words() -> None:
    words = tokenizer()
    assert words("It's the Bennets’ well-known 1,000.5 (x_y) café!") == [
        "it's", "the", "bennets", "well", "known", "1,000.5", "x", "y", "café",
    ]  # fmt: skip
    assert tokenizer(lower=False)("The Hague") == ["The", "Hague"]
    assert tokenizer(stop=["The"])("The hague the") == ["hague"]


def test_chinese_words() -> None:
    pytest.importorskip("jieba")
    words = tokenizer(stop=stop_words("zh"))
    assert words("刘备在荆州。") == ["刘备", "荆州"]
    assert tokenizer()("曹操 said 2 words。") == ["曹操", "said", "2", "words"]


def test_without_jieba_chinese_is_refused_and_english_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    words_module._jieba.cache_clear()
    assert tokenizer()("a word") == ["a", "word"]
    with pytest.raises(UserError, match=r"pip install 'minilong\[text\]'"):
        tokenizer()("词")
    words_module._jieba.cache_clear()


def test_stop_words_are_words_of_grammar() -> None:
    english, chinese = stop_words("en"), stop_words("zh")
    assert {"the", "of", "is", "don't"} <= english
    assert {"的", "了", "在"} <= chinese
    assert not {"house", "good", "king"} & english
    assert all(word == word.lower() and word.split() == [word] for word in english | chinese)
    assert 200 < len(english) < 400
    assert 200 < len(chinese) < 500
    with pytest.raises(UserError, match="take en or zh"):
        stop_words("fr")
