"""Reading texts and pairs: what is clean comes out as it is, everything else is one line with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilong.data.corpora import CORPORA, FILES, read_pairs, read_text, read_texts, split_pairs, split_text
from minilong.errors import UserError

LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
FRACTIONS = st.floats(0.001, 0.999)


@pytest.mark.parametrize("name", CORPORA)
def test_each_shipped_corpus_reads_is_described_and_has_its_rights_stated(name: str) -> None:
    corpus = CORPORA[name]
    counts = [
        int(count.replace(",", ""))
        for count in re.findall(r"([\d,]+) (?:characters|distinct|pairs)", corpus.description)
    ]
    if corpus.kind == "text":
        text = read_text(name)
        assert counts == [len(text), len(set(text))]
    else:
        assert counts == [len(read_pairs(name))]
    assert corpus.file in (FILES / "NOTICE.md").read_text("utf-8")


def test_no_file_ships_without_an_entry_in_the_registry() -> None:
    shipped = {path.name for path in FILES.iterdir()} - {"NOTICE.md"}
    words = {f"stopwords_{language}.txt" for language in ("en", "zh")}  # read by text/words.py
    assert shipped == {corpus.file for corpus in CORPORA.values()} | words


def test_a_file_wins_over_a_corpus_of_its_name_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("persuasion").write_text("mine")
    Path("sanguo").mkdir()
    assert read_text("persuasion") == "mine"
    assert read_text("sanguo").startswith("第一回")
    assert read_texts(["persuasion", "persuasion"]) == ["mine", "mine"]


@settings(max_examples=60, deadline=None)
@given(text=LINES, mark=st.sampled_from([b"", b"\xef\xbb\xbf"]), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_text_comes_back_without_mark_and_with_line_feeds(
    tmp_path_factory: pytest.TempPathFactory, text: str, mark: bytes, end: str
) -> None:
    text = "x" + text.replace("\r", "\n")  # the x keeps it from being white space or starting with a mark of its own
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(mark + text.replace("\n", end).encode())
    assert read_text(str(path)) == text


def test_pairs_are_split_at_tabs_and_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes("one\u2028line\t一\n\n  \ntwo \x0b\t二\r\n".encode())
    assert read_pairs(str(path)) == [("one\u2028line", "一"), ("two \x0b", "二")]


def _file(name: str, data: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(data)
        return str(folder / name)

    return make


BAD_TEXTS: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (
        lambda folder: str(folder / "none.txt"),
        "no file and no shipped corpus .*give a path, or one of: pride",
    ),
    "misspelt file": (lambda folder: str(folder / "bok.txt"), "did you mean 'book.txt'"),
    "misspelt corpus": (lambda _: "persuation", "did you mean 'persuasion'"),
    "no such folder": (lambda folder: str(folder / "none" / "book.txt"), "the folder '.*none' can not be opened"),
    "below a file": (lambda folder: str(folder / "book.txt" / "x"), "the folder '.*book.txt' can not be opened"),
    "no name": (lambda _: "", "the name of a text is empty"),
    "NUL in the name": (lambda _: "a\0b", "no file"),
    "name too long": (lambda _: "a" * 5000, "no file"),
    "line end in the name": (lambda _: "a\nb", "no file"),
    "folder": (lambda folder: str(folder), "is a folder; give the path of a text file"),
    "device": (lambda _: "/dev/zero", "is a device"),
    "empty": (_file("e", b""), "is empty; give"),
    "blank": (_file("w", b" \r\n\t\xe3\x80\x80"), "only white space; give"),
    "only a mark": (_file("m", b"\xef\xbb\xbf"), "only white space"),
    "binary": (_file("b", b"PK\x03\x04\0"), "binary .a NUL byte at byte offset 4.; give"),
    "UTF-16": (
        _file("u.txt", "text".encode("utf-16")),
        r"is UTF-16, .*iconv -f utf-16 -t utf-8 \S*u.txt > \S*u.utf8.txt",
    ),
    "UTF-32": (_file("v", "text".encode("utf-32")), "is UTF-32, .*iconv -f utf-32"),
    "GB 18030": (
        _file("g", "话说天下大势".encode("gb18030")),
        "not UTF-8 .at byte offset 0.*iconv -f gb18030 -t utf-8",
    ),
    "Latin-1": (_file("l", "\ufeffd".encode() + "\xe9 \xe9 ".encode("latin1")), "at byte offset 4.*iconv -f latin1"),
    "cut inside a character": (_file("c", "下".encode()[:2]), "not UTF-8 .at byte offset 0"),
    "name to be quoted": (_file("a b", b"\xff"), "iconv .*'.*/a b' > '.*/a b.utf8'"),
    "pairs as text": (lambda _: "libreoffice_help", "holds pairs of sentences, not running text; take one of: pride"),
}

BAD_PAIRS: dict[str, tuple[Callable[[Path], str], str]] = {
    "no tab": (_file("a", b"a\tb\n\nc d\n"), "line 3 of .* has no tab; write"),
    "two tabs": (_file("b", b"a\tb\tc"), "line 1 of .* has 2 tabs; write"),
    "no source": (_file("c", b" \tb"), "line 1 of .* has an empty source; fill"),
    "no target": (_file("d", b"a\tb\nc\t\n"), "line 2 of .* has an empty target; fill"),
    "text as pairs": (lambda _: "sanguo", "holds running text, not pairs of sentences; take one of: libreoffice_help"),
    "misspelt": (lambda _: "libre_office_help", "did you mean 'libreoffice_help'"),
}


def _fails(read: Callable[[str], object], source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_bad_text_is_one_line_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    make, message = BAD_TEXTS[case]
    (tmp_path / "book.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    _fails(read_text, make(tmp_path), message)


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs_are_one_line_with_a_remedy(tmp_path: Path, case: str) -> None:
    make, message = BAD_PAIRS[case]
    _fails(read_pairs, make(tmp_path), message)


@pytest.mark.parametrize("method", ["read_bytes", "stat"])
@pytest.mark.parametrize(
    "error, message",
    [(PermissionError(13, "Permission denied"), "may not be read; change"), (OSError(5, "Input/output error"), "; ")],
)
def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: OSError, message: str
) -> None:
    path = tmp_path / "book.txt"
    path.write_text("text")

    def refuse(self: Path) -> bytes:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, refuse)
        _fails(read_text, str(path), message)


def test_naming_no_text_is_an_error() -> None:
    _fails(lambda _: read_texts([]), "", "no text is named; give a path, or one of: pride")


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab\n", min_size=2, max_size=60), fraction=FRACTIONS)
def test_the_last_part_of_a_text_validates(text: str, fraction: float) -> None:
    train, validation = split_text(text, fraction)
    assert train + validation == text
    assert train
    assert validation
    cut = min(max(len(text) * (1 - fraction), 1), len(text) - 1)
    reach = min(cut, len(text) - cut) / 2 + 1
    assert abs(len(train) - cut) <= reach
    nearest = min((abs(m.end() - cut) for m in re.finditer("\n", text) if m.end() < len(text)), default=len(text))
    if nearest <= reach - 2:
        assert train.endswith("\n")
        assert abs(len(train) - cut) <= nearest + 1


def test_fraction_zero_keeps_everything_for_training() -> None:
    assert split_text("a\nb", 0) == ("a\nb", "")
    assert split_pairs([("a", "b"), ("a", "b")], 0, 1) == ([("a", "b")], [])


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from(["a", "A", "a ", "b", "c", "d e", "D  e", "f"]), st.sampled_from("xyz"))),
    fraction=FRACTIONS,
    seed=st.integers(),
)
def test_no_source_sentence_is_in_both_parts(pairs: list[tuple[str, str]], fraction: float, seed: int) -> None:
    def sources(part: list[tuple[str, str]]) -> set[str]:
        return {"".join(source.split()).lower() for source, _ in part}

    if len(sources(pairs)) < 2:
        _fails(lambda _: split_pairs(pairs, fraction, seed), "", "distinct source sentences can not be split; give")
        return
    train, validation = split_pairs(pairs, fraction, seed)
    assert (train, validation) == split_pairs(list(pairs), fraction, seed)
    assert train
    assert validation
    assert not sources(train) & sources(validation)
    assert sorted(train + validation) == sorted(set(pairs))
    unique = list(dict.fromkeys(pairs))
    assert train == [pair for pair in unique if pair in train]
    assert validation == [pair for pair in unique if pair in validation]


def test_the_share_of_validation_pairs_and_the_seed() -> None:
    pairs = [(str(number), "x") for number in range(1000)]
    train, validation = split_pairs(pairs, 0.1, 1)
    assert (len(train), len(validation)) == (900, 100)
    assert validation != split_pairs(pairs, 0.1, 2)[1]
    assert validation != pairs[-100:]


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_an_error(fraction: float) -> None:
    _fails(lambda _: split_text("a\nb", fraction), "", "validation fraction is .*; give")
    _fails(lambda _: split_pairs([("a", "b"), ("c", "d")], fraction, 1), "", "validation fraction is .*; give")


def test_a_text_of_one_character_can_not_be_split() -> None:
    _fails(lambda _: split_text("a", 0.5), "", "a text of 1 characters can not be split; give")
