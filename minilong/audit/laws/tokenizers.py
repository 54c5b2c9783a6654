"""Laws of tokenizers: nothing of a text is lost, nothing is invented, and no text can spell a special token."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.data.bpe import BpeTokenizer, letters
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.roles import Roles
from minilong.data.tokenizer_json import added, byte_level, byte_pairs, document
from minilong.data.tokenizers import ByteTokenizer, CharTokenizer, tokenizer_from_dict
from minilong.data.vocabulary import FIRST, SPECIALS, Tokenizer

Maker = Callable[[str], Tokenizer]

kind("tokenizer", "tokenizer(text)", "A tokenizer that was made from a text, or knows all texts.")

LEARNT = "the theatre; 今天天气不错。 the other 今天 <eos> naïve cafe\u0301 🙂 " * 3
PARTS = (
    "a",
    "b",
    " ",
    "\n",
    "the",
    "é",
    "e\u0301",
    "今",
    "天气",
    "🙂",
    "\u200d",
    "\x00",
    "\ufeff",
    "Ａ",
    *SPECIALS,
    "<pad",
    "\r\n",
)


@lru_cache(maxsize=1)
def learnt() -> BpeTokenizer:
    """A byte-pair encoding with a few merges, also of parts of characters."""
    return BpeTokenizer.train([LEARNT], FIRST + 256 + 40)


@lru_cache(maxsize=1)
def pretrained() -> PretrainedTokenizer:
    """The same byte pairs as a model's file has them, and the special tokens behind them."""
    own = learnt()
    names = ["".join([letters()[byte] for byte in piece]) for piece in own.pieces[FIRST:]]
    model = byte_pairs({name: i for i, name in enumerate(names)}, [(names[a], names[b]) for a, b in own.merges])
    specials = [added(len(names) + i, name) for i, name in enumerate(SPECIALS)]
    file = document(model, added=specials, pre_tokenizer=byte_level(), decoder=byte_level())
    pad, bos, eos, separator = (len(names) + i for i in range(4))
    return PretrainedTokenizer(json.dumps(file), Roles(pad=pad, bos=bos, eos=eos, separator=separator, ends=(eos,)))


subject("tokenizer", "byte tokenizer", code=ByteTokenizer, equation="claim:tokenizers")(lambda text: ByteTokenizer())
subject("tokenizer", "char tokenizer", code=CharTokenizer, equation="claim:tokenizers")(
    lambda text: CharTokenizer.train([text or "a"])
)
if find_spec("tokenizers") is not None:  # of the extra `text`; without it there is no BPE to audit
    subject("tokenizer", "BPE tokenizer", code=BpeTokenizer, equation="claim:tokenizers")(lambda text: learnt())
    subject("tokenizer", "pretrained tokenizer", code=PretrainedTokenizer, equation="claim:tokenizers")(
        lambda text: pretrained()
    )


def text(n: Numbers, *, parts: int) -> dict[str, Any]:
    """Pieces of several scripts, of special tokens' names, and of what editors hide."""
    return {"text": "".join(PARTS[i] for i in n.integers(0, len(PARTS), parts))}


TEXTS = cases(text, parts=(1, 0, 2, 3, 5, 13))


@law("tokenizer", "round-trip", serves="claim:tokenizers", cases=TEXTS)
def round_trip(f: Maker, c: Case, measure: Measure) -> None:
    """Decoding what was encoded gives the text, character by character."""
    tokenizer = f(c["text"])
    found = tokenizer.decode(tokenizer.encode(c["text"]))
    measure.holds(found == c["text"], f"{c['text']!r} comes back as {found!r}")


@law("tokenizer", "stream-is-whole", serves="claim:tokenizers", cases=TEXTS)
def stream_is_whole(f: Maker, c: Case, measure: Measure) -> None:
    """Decoding ids as they come gives, joined, the text of all at once, and never half a character."""
    tokenizer = f(c["text"])
    ids = tokenizer.encode(c["text"])
    stream = tokenizer.stream_decoder()
    pieces = [*[stream.push(int(i)) for i in ids], stream.flush()]
    measure.holds("".join(pieces) == c["text"], f"{c['text']!r} streams as {pieces}")


@law("tokenizer", "specials-apart", serves="claim:tokenizers", cases=TEXTS)
def specials_apart(f: Maker, c: Case, measure: Measure) -> None:
    """No text encodes to a special id, also none that spells its name; special ids decode to nothing."""
    tokenizer = f(c["text"])
    ids = tokenizer.encode(c["text"])
    inside = (ids >= 0) & (ids < tokenizer.size) & ~np.isin(ids, tokenizer.specials)
    measure.holds(np.all(inside), f"{c['text']!r} has the ids {ids.tolist()}")
    mixed = [tokenizer.bos, *ids.tolist(), tokenizer.eos, tokenizer.pad, tokenizer.separator]
    measure.holds(tokenizer.decode(mixed) == c["text"], f"special ids decode to {tokenizer.decode(mixed)!r}")


@law("tokenizer", "saved-is-same", serves="claim:tokenizers", cases=TEXTS)
def saved_is_same(f: Maker, c: Case, measure: Measure) -> None:
    """The tokenizer that is written to a file and read again gives the same ids."""
    tokenizer = f(c["text"])
    again = tokenizer_from_dict(tokenizer.to_dict())
    same = np.array_equal(again.encode(c["text"]), tokenizer.encode(c["text"])) and again.size == tokenizer.size
    measure.holds(same, "the tokenizer read back gives other ids")


class Lowered(ByteTokenizer):
    """Normalises before it encodes."""

    def encode(self, text: str) -> Any:
        import unicodedata

        return super().encode(unicodedata.normalize("NFKC", text).strip())


class HalfCharacters(ByteTokenizer):
    """Streams each id as text of its own."""

    def stream_decoder(self, *, continues: bool = False) -> Any:
        pieces = self.pieces

        class Decoder:
            """Each id's bytes, decoded at once."""

            def push(self, id: int) -> str:
                return pieces[id].decode("utf-8", "replace")

            def flush(self) -> str:
                return ""

        return Decoder()


class Spelling(ByteTokenizer):
    """Finds special tokens in the text."""

    def encode(self, text: str) -> Any:
        place = min((p for s in SPECIALS if (p := text.find(s)) >= 0), default=None)
        if place is None:
            return super().encode(text)
        name = next(s for s in SPECIALS if text.startswith(s, place))
        rest = self.encode(text[place + len(name) :])
        return np.concatenate([super().encode(text[:place]), [SPECIALS.index(name)], rest]).astype(np.int32)


class Reordered(ByteTokenizer):
    """Written as another kind than it is."""

    def to_dict(self) -> dict[str, object]:
        return CharTokenizer("".join(sorted(set("\n aberté今天气🙂"))), "replace").to_dict()


mutant("tokenizer", "normalised and stripped", kills="round-trip",
       met="plausible: NFKC and strip() before encoding, as sentence-piece models do; texts do not come back")(
    lambda text: Lowered())  # fmt: skip
mutant("tokenizer", "half characters in a stream", kills="stream-is-whole",
       met="plausible: decode([id]) for each token; Chinese and emoji become replacement characters")(
    lambda text: HalfCharacters())  # fmt: skip
mutant("tokenizer", "special tokens read out of the text", kills="specials-apart",
       met="transformers' tokenizers parse special tokens in user text by default: a prompt can end the answer")(
    lambda text: Spelling())  # fmt: skip
mutant("tokenizer", "another tokenizer saved", kills="saved-is-same",
       met="plausible: a vocabulary rebuilt from the text at hand when a run is loaded")(
    lambda text: Reordered())  # fmt: skip
