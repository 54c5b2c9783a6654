"""Cutting sentences into words, English and Chinese, and leaving out stop words.

A sentence with a Chinese character in it is cut by jieba (extra `text`), every other one at what is no letter or digit.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from minilong.errors import UserError

Words = Callable[[str], list[str]]
LANGUAGES = ("en", "zh")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*")
_HAS_LETTER = re.compile(r"[^\W_]")


def tokenizer(*, lower: bool = True, stop: Iterable[str] = (), chinese: bool | None = None) -> Words:
    """A function from a sentence to its words.

    English: runs of letters, with apostrophes inside (`don't`), and numbers; hyphens and dashes part words. Chinese:
    jieba's words that hold a letter, a digit or a character. lower: in small letters. stop: words left out, compared
    in small letters. chinese: whether jieba cuts [where a sentence has a Chinese character]. UserError where jieba is
    needed and missing.
    """
    left_out = frozenset(word.lower() for word in stop)
    cut = _jieba() if chinese else None

    def words(sentence: str) -> list[str]:
        nonlocal cut
        text = sentence.lower() if lower else sentence
        if chinese or (chinese is None and _HAN.search(text)):
            cut = cut or _jieba()
            found = [word for word in cut(text) if _HAS_LETTER.search(word) and not any(map(str.isspace, word))]
        else:
            found = [word.replace("’", "'") for word in _WORD.findall(text)]
        return [word for word in found if word.lower() not in left_out] if left_out else found

    return words


@cache
def stop_words(language: str) -> frozenset[str]:
    """The shipped stop words of a language (`en` or `zh`): words of grammar that say little of what a text is about."""
    if language not in LANGUAGES:
        raise UserError(f"there are no stop words for {language!r}; take en or zh")
    text = (files("minilong.data") / f"files/stopwords_{language}.txt").read_text("utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


@cache
def _jieba() -> Callable[[str], Iterable[str]]:
    """jieba's cut with its own dictionary, silent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its regular expressions, and of how it finds its dictionary
            import jieba

            jieba.setLogLevel(logging.WARNING)
            segmenter: Any = jieba.Tokenizer()
            segmenter.initialize()
    except ImportError:
        raise UserError(
            "the text is Chinese, whose words are cut by jieba; install it: pip install 'minilong[text]'"
        ) from None
    return lambda text: segmenter.cut(text)
