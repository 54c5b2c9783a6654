"""The commands that ask trained vectors: neighbours, analogies, agreement with people, a picture, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from minilong.cli.output import console, plain_table
from minilong.errors import UserError

if TYPE_CHECKING:
    from minilong.embeddings.vectors import Vectors

F = TypeVar("F", bound=Callable[..., Any])
COMMON = 60


def _folder(f: F) -> F:
    return click.argument("vectors", type=click.Path(path_type=Path))(f)


def _count(f: F) -> F:
    return click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="Answers.")(f)


def _json(f: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(f)


def _words_of(path: Path) -> Vectors:
    """The word vectors of a folder or a text file."""
    from minilong.embeddings.store import load

    stored = load(path)
    if not stored.vectors.matrix.shape[1]:
        raise UserError(f"{str(path)!r} has vectors of documents only; ask it with `minilong embed sentences`")
    return stored.vectors


def _print(found: list[tuple[str, float]], as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps([{"word": word, "cosine": round(cosine, 6)} for word, cosine in found], ensure_ascii=False)
        )
        return
    table = plain_table("", "")
    for word, cosine in found:
        table.add_row(f"{cosine:.3f}", word)
    console(stderr=False).print(table)


@click.command()
@_folder
@click.argument("word")
@_count
@_json
def nearest(vectors: Path, word: str, count: int, as_json: bool) -> None:
    """The words nearest to WORD by the cosine. VECTORS is a folder, or a file in word2vec's text format.

    \b
    Examples:
      minilong embed nearest vectors marriage
      minilong embed nearest glove.txt france --count 5 --json
    """
    _print(_words_of(vectors).nearest(word, count), as_json)


@click.command()
@_folder
@click.argument("words", nargs=3, required=False, default=None)
@click.option("--file", help="Answer a file of four words a line instead, with `: NAME` before a section.")
@_count
@_json
def analogy(vectors: Path, words: tuple[str, str, str] | None, file: str | None, count: int, as_json: bool) -> None:
    """What is to the third word as the second is to the first: the words nearest to second - first + third.

    \b
    Examples:
      minilong embed analogy vectors he she brother
      minilong embed analogy vectors --file questions-words.txt
    """
    if (words is None) == (file is None):
        raise UserError("give three words, or --file with questions")
    found = _words_of(vectors)
    if words is not None:
        _print(found.analogy(*words, count), as_json)
        return
    from minilong.embeddings.pairs import answer

    answers = answer(found, str(file))
    if as_json:
        click.echo(json.dumps({"right": answers.right, "asked": answers.asked, "missing": answers.missing}))
        return
    table = plain_table("section", "right", "of")
    for name, right, asked in (*answers.sections, ("all", answers.right, answers.asked)):
        table.add_row(name, str(right), str(asked))
    console(stderr=False).print(table)
    click.echo(f"{answers.missing} questions have a word that is not in the vocabulary")


@click.command()
@_folder
@click.argument("file")
@_json
def similarity(vectors: Path, file: str, as_json: bool) -> None:
    """How well cosines rank the word pairs of FILE as people do: Spearman's correlation, from -1 to 1.

    A line of FILE is a pair and a number, parted by tabs, commas or spaces. Pairs with an unknown word are counted.

    \b
    Example:
      minilong embed similarity vectors wordsim353.tsv
    """
    from minilong.embeddings.pairs import agreement

    found = agreement(_words_of(vectors), file)
    if as_json:
        click.echo(json.dumps({"spearman": found.spearman, "pairs": found.pairs, "missing": found.missing}))
    else:
        total = found.pairs + found.missing
        click.echo(
            f"spearman {found.spearman:.3f} over {found.pairs} pairs; "
            f"{found.missing} of {total} ({100 * found.missing / total:.0f}%) have a word that is not in the vocabulary"
        )


@click.command()
@_folder
@click.argument("words", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The picture (PNG).")
def plot(vectors: Path, words: tuple[str, ...], out: Path) -> None:
    """Draw WORDS, or the commonest ones that are no stop words, by their two principal components, with labels.

    \b
    Examples:
      minilong embed plot vectors --out words.png
      minilong embed plot vectors mother father sister brother --out family.png
    """
    from minilong.embeddings.plot import picture
    from minilong.text.words import stop_words

    found = _words_of(vectors)
    grammar = stop_words("en") | stop_words("zh")
    chosen = list(words) or [word for word in found.words[: 20 * COMMON] if word.lower() not in grammar][:COMMON]
    out.write_bytes(picture(found, list(dict.fromkeys(chosen))))
    click.echo(f"drew {len(chosen)} words in {out}", err=True)


@click.command()
@_folder
@click.argument("file", type=click.Path(path_type=Path))
def export(vectors: Path, file: Path) -> None:
    """Write the word vectors to FILE in word2vec's text format, which gensim and others read.

    \b
    Example:
      minilong embed export vectors vectors.txt
    """
    from minilong.embeddings.text_format import write_text

    found = _words_of(vectors)
    write_text(found, file)
    click.echo(f"wrote {len(found)} words to {file}", err=True)
