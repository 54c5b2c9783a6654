"""Texts and sentence pairs from files or from the corpora that ship with minilong, and their split for validation.

What comes out is clean: Unicode without byte order mark, lines ended by line feeds, never empty. What can not be read
so is a `UserError` that says what the file holds instead and how to mend it; nothing is replaced or dropped.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilong.errors import UserError, did_you_mean
from minilong.keys import Key

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Corpus:
    """A shipped corpus. `kind` is `text` (running text) or `pairs` (one pair a line: source, tab, target)."""

    name: str
    file: str
    kind: str
    language: str
    rights: str
    description: str

    @property
    def path(self) -> Path:
        return FILES / self.file


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "pride_and_prejudice",
            "pride_and_prejudice.txt",
            "text",
            "en",
            "public domain",
            "Jane Austen, Pride and Prejudice (1813): 684,768 characters, 75 distinct",
        ),
        Corpus(
            "persuasion",
            "persuasion.txt",
            "text",
            "en",
            "public domain",
            "Jane Austen, Persuasion (1817): 466,854 characters, 75 distinct",
        ),
        Corpus(
            "sanguo",
            "sanguo.txt",
            "text",
            "zh",
            "public domain",
            "三国演义 (Romance of the Three Kingdoms), 120 chapters: 600,067 characters, 3,960 distinct",
        ),
        Corpus(
            "libreoffice_help",
            "libreoffice_help.en-zh.tsv",
            "pairs",
            "en-zh",
            "MPL-2.0 (see NOTICE.md beside the file)",
            "LibreOffice 7.4 help, English and Chinese: 19,919 pairs of paragraphs",
        ),
    )
}

_MARKS = (  # longest first: the mark of UTF-32 begins with that of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def read_text(source: str) -> str:
    """The text of a file, or of the shipped corpus of that name where no such file exists.

    The byte order mark is taken off and line ends become line feeds. Raises `UserError` for whatever is not a text.
    """
    return _read(source, "text")


def read_texts(sources: Iterable[str]) -> list[str]:
    """The texts of several sources, one document each, in the order given."""
    texts = [read_text(source) for source in sources]
    if not texts:
        raise UserError(f"no text is named; give a path, or one of: {_names('text')}")
    return texts


def read_pairs(source: str) -> list[tuple[str, str]]:
    """The (source, target) pairs of a tab-separated file or of the shipped corpus of that name.

    One pair a line with exactly one tab; blank lines are passed over. Raises `UserError` naming the line that has no
    tab, several, or an empty side.
    """
    pairs = []
    for number, line in enumerate(_read(source, "pairs").split("\n"), start=1):
        if not line.strip():
            continue
        sides = line.split("\t")
        if len(sides) != 2:
            found = "no tab" if len(sides) == 1 else f"{len(sides) - 1} tabs"
            raise UserError(f"line {number} of {source!r} has {found}; write one pair a line: source, one tab, target")
        if not sides[0].strip() or not sides[1].strip():
            side = "source" if not sides[0].strip() else "target"
            raise UserError(f"line {number} of {source!r} has an empty {side}; fill it in or take the line out")
        pairs.append((sides[0], sides[1]))
    return pairs


def split_text(text: str, fraction: float) -> tuple[str, str]:
    """Training and validation text: the last `fraction` of the characters validates.

    The cut moves to the nearest line boundary, but never by more than half of the smaller part (a text may be one
    line). The two parts joined are the text. `fraction` 0 gives an empty validation text.
    """
    _check_fraction(fraction)
    if fraction == 0:
        return text, ""
    if len(text) < 2:
        raise UserError(f"a text of {len(text)} characters can not be split; give more text")
    cut = min(max(round(len(text) * (1 - fraction)), 1), len(text) - 1)
    reach = min(cut, len(text) - cut) // 2
    before = text.rfind("\n", 0, cut) + 1
    after = text.find("\n", cut) + 1
    near = [place for place in (before, after) if 0 < place < len(text) and abs(place - cut) <= reach]
    cut = min(near, key=lambda place: abs(place - cut), default=cut)
    return text[:cut], text[cut:]


def split_pairs(
    pairs: Sequence[tuple[str, str]], fraction: float, seed: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Training and validation pairs, drawn by `seed`, without a source sentence that is in both.

    Repeated pairs are kept once. Pairs whose sources differ in case or white space alone stay together, so validation
    has about `fraction` of the pairs, at least one. Both parts keep the order given. A target may be in both parts.
    """
    _check_fraction(fraction)
    unique = list(dict.fromkeys(pairs))
    if fraction == 0:
        return unique, []
    groups: dict[str, list[int]] = {}
    for place, (source, _) in enumerate(unique):
        groups.setdefault(" ".join(source.split()).casefold(), []).append(place)
    if len(groups) < 2:
        raise UserError(f"{len(groups)} distinct source sentences can not be split; give at least 2")
    members = list(groups.values())
    wanted = max(round(len(unique) * fraction), 1)
    held: set[int] = set()
    for group in Key.of(seed).fold("split pairs").generator().permutation(len(members))[:-1]:
        if len(held) >= wanted:
            break
        held.update(members[group])
    train = [pair for place, pair in enumerate(unique) if place not in held]
    return train, [pair for place, pair in enumerate(unique) if place in held]


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise UserError(f"the validation fraction is {fraction}; give a number from 0 to below 1, such as 0.1")


def _names(kind: str) -> str:
    return ", ".join(corpus.name for corpus in CORPORA.values() if corpus.kind == kind)


def _read(source: str, kind: str) -> str:
    path = _find(source, kind)
    try:
        data = path.read_bytes()
    except PermissionError:
        raise UserError(f"{source!r} may not be read; change its permissions (chmod u+r)") from None
    except OSError as error:
        raise UserError(f"{source!r} can not be read: {error.strerror}; copy it to a sound disk or folder") from None
    return _decode(data, source)


def _find(source: str, kind: str) -> Path:
    """The path to read: a file that exists wins over a corpus of the same name (a folder does not)."""
    corpus = CORPORA.get(source)
    path = Path(source)
    try:
        mode = path.stat().st_mode if source else 0
    except PermissionError:
        raise UserError(f"{source!r} may not be read; change the permissions of its folder (chmod u+rx)") from None
    except (OSError, ValueError):  # absent, a name too long, a NUL in the name: no file in any case
        mode = 0
    if mode and not stat.S_ISDIR(mode):
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise UserError(f"{source!r} is a device or a socket; give the path of a text file")
        return path
    if corpus is not None:
        if corpus.kind != kind:
            other = {"text": "running text", "pairs": "pairs of sentences"}
            raise UserError(f"{source!r} holds {other[corpus.kind]}, not {other[kind]}; take one of: {_names(kind)}")
        return corpus.path
    if mode:
        raise UserError(f"{source!r} is a folder; give the path of a text file in it")
    raise UserError(_missing(source, path, kind))


def _missing(source: str, path: Path, kind: str) -> str:
    remedy = f"give a path, or one of: {_names(kind)}"
    if not source:
        return f"the name of a text is empty; {remedy}"
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    except (OSError, ValueError):
        return f"no file {source!r}: the folder {str(path.parent)!r} can not be opened; {remedy}"
    return f"no file and no shipped corpus {source!r}{did_you_mean(path.name, [*CORPORA, *beside])}; {remedy}"


def _decode(data: bytes, source: str) -> str:
    if not data:
        raise UserError(f"{source!r} is empty; give a file with text in it")
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            raise UserError(f"{source!r} is {encoding.upper()}, not UTF-8; {_convert(source, encoding)}")
    if (nul := data.find(b"\0")) >= 0:
        raise UserError(f"{source!r} is binary (a NUL byte at byte offset {nul}); give a plain UTF-8 text file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        remedy = _convert(source, _guess(data))
        raise UserError(f"{source!r} is not UTF-8 (at byte offset {error.start}); {remedy}") from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UserError(f"{source!r} holds only white space; give a file with text in it")
    return text


def _guess(data: bytes) -> str:
    """The likeliest encoding of bytes that are not UTF-8: of Chinese where they decode as such, else of the West."""
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return "latin1"
    return "gb18030"


def _convert(source: str, encoding: str) -> str:
    path = Path(source)
    new = path.with_name(f"{path.stem}.utf8{path.suffix}")
    return f"convert it, for example: iconv -f {encoding} -t utf-8 {shlex.quote(source)} > {shlex.quote(str(new))}"
