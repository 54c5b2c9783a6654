"""`minilong embed sentences`: vectors of the sentences of a text, by trained vectors or a trained run; and search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minilong.cli.device import device_options, open_device
from minilong.cli.output import stdin_lines
from minilong.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from minilong.backend import Device
    from minilong.embeddings.store import Stored
    from minilong.text.words import Words

WAYS = ("mean", "first", "max", "sif")
UNITS = ("sentence", "line", "paragraph")

Report = Callable[[int, int], None]


@click.command(name="sentences")
@click.argument("vectors", type=click.Path(path_type=Path))
@click.argument("text")
@click.option("--query", help="Show the sentences nearest to this one.")
@click.option("--unit", type=click.Choice(UNITS), default="sentence", show_default=True, help="What gets a vector.")
@click.option(
    "--pooling",
    type=click.Choice(WAYS),
    default="mean",
    show_default=True,
    help="Of the tokens: their mean, the first ([CLS]), the largest of each component; sif: a mean of words in which "
    "frequent ones count less, less what all sentences share.",
)
@click.option("--layer", type=click.IntRange(0), help="Layers that the tokens of a run come through  [default: all]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write to a safetensors file."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the inference of doc2vec.")
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="Answers.")
@device_options
def command(
    vectors: Path,
    text: str,
    query: str | None,
    unit: str,
    pooling: str,
    layer: int | None,
    out: Path | None,
    seed: int,
    count: int,
    device: str,
    gpu_memory: str | None,
) -> None:
    """Vectors of the sentences of TEXT (a file, a shipped text, or - for lines of standard input).

    VECTORS is a folder or file of word vectors, or the folder of a training run of any task: then a sentence is pooled
    from the states of its tokens. With Doc2Vec its vector is inferred. All have length 1. With --query the nearest
    sentences are shown; with --out all go into a file, with the sentences in its metadata; else each is printed with
    its vector, a JSON object a line.

    \b
    Examples:
      minilong embed sentences vectors book.txt --query "They danced all night."
      minilong embed sentences runs/book-1 book.txt --pooling mean --query "They danced all night."
      minilong embed sentences runs/book-1 book.txt --unit paragraph --out paragraphs.safetensors
      minilong embed sentences vectors book.txt > sentences.jsonl
    """
    from minilong.cli.embed import Shown
    from minilong.text.pieces import units

    if query is not None and out is not None:
        raise UserError("--query shows the nearest sentences and --out writes all vectors; leave out one of the two")
    found = list(dict.fromkeys(stdin_lines() if text == "-" else units([text], unit)))
    shown = Shown(quiet=False)

    def report(done: int, of: int) -> None:
        shown.now(f"sentences {100 * done // max(of, 1):3d}%  {done} of {of}")

    asked = found if query is None else [*found, query]
    try:
        if (vectors / "config.toml").is_file():
            matrix = _by_run(vectors, asked, pooling, layer, open_device(device, gpu_memory), report)
        else:
            if layer is not None:
                raise UserError(f"--layer is for the folder of a run, and {str(vectors)!r} is none; leave it out")
            matrix = _by_vectors(vectors, asked, pooling, seed, of=len(found))
    finally:
        shown.clear()
    if query is not None:
        _answer(found, matrix, count)
    elif out is not None:
        _write(out, found, matrix, {"from": str(vectors), "text": text, "unit": unit, "pooling": pooling})
    else:
        for sentence, row in zip(found, matrix.tolist(), strict=True):
            click.echo(json.dumps({"sentence": sentence, "vector": row}, ensure_ascii=False))


def _by_run(path: Path, texts: list[str], pooling: str, layer: int | None, where: Device, report: Report) -> np.ndarray:
    from minilong.embeddings.sentence_vectors import run_vectors
    from minilong.train.loaded import load

    if pooling == "sif":
        raise UserError("--pooling sif weighs words by how frequent they are, and a run has tokens; take mean")
    return run_vectors(load(path).on(where), texts, pooling=pooling, layer=layer, report=report)


def _by_vectors(path: Path, texts: list[str], pooling: str, seed: int, *, of: int) -> np.ndarray:
    """By a folder of vectors; the first `of` texts say what all of them share."""
    import numpy as np

    from minilong.embeddings.pooling import common_direction, pool_words, smooth_means, without
    from minilong.embeddings.store import load
    from minilong.embeddings.vectors import normalised

    stored = load(path)
    words = _words_of(stored)
    cut = [words(text) for text in texts]
    if stored.model is not None:
        if pooling != "mean":
            raise UserError(f"Doc2Vec infers the vector of a sentence, so --pooling {pooling} has no use; leave it out")
        return normalised(stored.model.infer(cut, seed=seed))
    index = stored.vectors.index
    known = [np.array([index[word] for word in own if word in index], np.int64) for own in cut]
    if pooling != "sif":
        return pool_words(stored.vectors.unit, known, pooling)
    means = smooth_means(stored.vectors.matrix, stored.counts, known)
    return without(means, common_direction(means[:of]))


def _words_of(stored: Stored) -> Words:
    """Cuts a text into words as the training did."""
    from minilong.text.words import stop_words, tokenizer

    languages = json.loads(stored.about.get("option stop_words", "[]"))
    return tokenizer(
        lower=not json.loads(stored.about.get("option keep_case", "false")),
        stop=[word for language in languages for word in stop_words(language)],
    )


def _answer(sentences: list[str], matrix: np.ndarray, count: int) -> None:
    """Print the sentences nearest to the last row of matrix."""
    from minilong.embeddings.search import nearest_rows

    if not matrix[-1].any():
        raise UserError("the query has no word that is known; ask with other words")
    rows, cosines = nearest_rows(matrix[-1:], matrix[:-1], count)
    for row, cosine in zip(rows[0].tolist(), cosines[0].tolist(), strict=True):
        click.echo(f"{cosine:.3f}  {' '.join(sentences[row].split())}")


def _write(path: Path, sentences: list[str], matrix: np.ndarray, about: dict[str, str]) -> None:
    """A safetensors file of `vectors` (n, d), the sentences as a JSON list in its metadata; whole, or not there."""
    from minilong.experiments.cells import write_whole
    from minilong.train.arrays import arrays_to_bytes

    data = arrays_to_bytes({"vectors": matrix}, {"sentences": json.dumps(sentences, ensure_ascii=False), **about})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror}; give another --out") from None
    click.echo(f"wrote {len(sentences)} vectors of {matrix.shape[1]} numbers to {path}", err=True)
