"""`minilong embed train`: vectors of words or documents from a text; the other `embed` commands ask them."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minilong.cli.embed_ask import analogy, export, nearest, plot, similarity
from minilong.cli.embed_sentences import command as sentences
from minilong.cli.output import count, duration, finite, from_command_line, size
from minilong.errors import UserError

if TYPE_CHECKING:
    from minilong.text.corpus import WordCorpus

ALGORITHMS = {
    "word2vec": ("skip-gram", "cbow"),
    "glove": (),
    "doc2vec": ("dbow", "dm", "dm-concat"),
}
UNITS = {"word2vec": "sentence", "glove": "sentence", "doc2vec": "paragraph"}
NOT_FOR_GLOVE = ("--negatives", "--sample", "--final-lr")
PLAIN_INTERVAL, LIVE_INTERVAL = 10.0, 0.2


@click.group(name="embed", short_help="Train vectors of words or documents, and ask them.")
def command() -> None:
    """Train vectors of words (Word2Vec, GloVe) or of documents (Doc2Vec), and ask them.

    \b
    Examples:
      minilong embed train book.txt --out vectors
      minilong embed nearest vectors marriage
      minilong embed analogy vectors he she brother
      minilong embed similarity vectors wordsim353.tsv
      minilong embed sentences vectors book.txt --query "They danced all night."
      minilong embed plot vectors --out words.png
      minilong embed export vectors vectors.txt
    """


for each in (nearest, analogy, similarity, sentences, plot, export):
    command.add_command(each)


@command.command()
@click.argument("text", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--method", type=click.Choice(list(ALGORITHMS)), default="word2vec", show_default=True)
@click.option(
    "--algorithm",
    type=click.Choice([name for names in ALGORITHMS.values() for name in names]),
    help="skip-gram or cbow of word2vec; dbow, dm or dm-concat of doc2vec  [default: the first]",
)
@click.option("--width", type=click.IntRange(2, 4096), default=100, show_default=True, help="Components of a vector.")
@click.option("--window", type=click.IntRange(1, 100), help="Words on either side.  [default: 5; glove: 10]")
@click.option(
    "--negatives", type=click.IntRange(0, 100), default=5, show_default=True,
    help="Wrong words for each right one; 0: hierarchical softmax.",
)  # fmt: skip
@click.option(
    "--epochs", type=click.IntRange(1, 10_000), help="[default: 5, doc2vec: 20, and more for a short text; glove: 25]"
)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), callback=lambda c, o, v: v and finite(c, o, v),
    help="Learning rate at the start.  [default: 0.025; cbow and dm: 0.075; glove: 0.05]",
)  # fmt: skip
@click.option("--min-count", type=click.IntRange(1), help="Leave out rarer words.  [default: 5; doc2vec: 2]")
@click.option(
    "--sample", type=click.FloatRange(0, 1), default=1e-3, show_default=True,
    help="Thin out words that are more of the text than this; 0: none.",
)  # fmt: skip
@click.option("--stop-words", type=click.Choice(("en", "zh")), multiple=True, help="Leave out words of grammar.")
@click.option("--keep-case", is_flag=True, help="Tell capital and small letters apart.")
@click.option(
    "--unit", type=click.Choice(("sentence", "line", "paragraph", "text")),
    help="What a window does not cross; a document of doc2vec.  [default: sentence; doc2vec: paragraph]",
)  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="At most two are used; no number depends on it.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> None:
    """Train vectors on each TEXT: a file, which may be larger than memory, or the name of a shipped text.

    English is cut into words at what is no letter; sentences with Chinese in them by jieba. Ctrl-C stops without
    leaving anything behind.

    \b
    Examples:
      minilong embed train book.txt --out vectors
      minilong embed train book.txt --out cbow --algorithm cbow --width 50 --stop-words en
      minilong embed train book.txt --out glove --method glove --min-count 3
      minilong embed train book.txt --out paragraphs --method doc2vec
      minilong embed train sanguo --out sanguo --stop-words zh
    """
    from minilong.embeddings.store import check_free

    method, algorithm = options["method"], options["algorithm"]
    if algorithm is not None and algorithm not in ALGORITHMS[method]:
        known = " or ".join(ALGORITHMS[method])
        raise UserError(f"{algorithm!r} is no algorithm of {method}; " + (f"take {known}" if known else "leave it out"))
    refused = [name for name in from_command_line(ctx) if name in NOT_FOR_GLOVE]
    if method == "glove" and refused:
        raise UserError(f"{refused[0]} does not belong to glove, which fits counts; leave it out")
    check_free(options["out"])
    threads = options["threads"] or min(os.cpu_count() or 1, 2)
    shown = Shown(quiet=options["quiet"])
    try:
        corpus = _read(options, shown)
        vocabulary = f"{count(len(corpus.vocabulary))} words, {count(corpus.tokens)} occurrences"
        shown.keep(f"vocabulary  {vocabulary}, {count(corpus.units)} {UNITS[method]}s")
        begin = time.perf_counter()
        if method == "glove":
            _train_glove(corpus, options, shown)
        else:
            _train_words(corpus, options, threads, shown)
        shown.keep(f"done        in {duration(time.perf_counter() - begin)}, saved in {options['out']}")
    finally:
        shown.clear()


class Shown:
    """Progress on stderr: one line rewritten in place on a terminal, else a plain line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.next = time.monotonic() + (0.0 if self.live else PLAIN_INTERVAL)

    def now(self, text: str) -> None:
        """What is going on; may be passed over."""
        if not self.quiet and time.monotonic() >= self.next:
            self._write(f"\r\x1b[K{text}" if self.live else f"{text}\n")
            self.next = time.monotonic() + (LIVE_INTERVAL if self.live else PLAIN_INTERVAL)

    def keep(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self.clear()
            self._write(f"{text}\n")

    def clear(self) -> None:
        """Take the moving line away."""
        if self.live:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a reader that left ends no training
            click.echo(text, nl=False, err=True)


def _read(options: dict[str, Any], shown: Shown) -> WordCorpus:
    """The corpus of the texts, read once."""
    from minilong.text.corpus import read_corpus
    from minilong.text.pieces import find_text, units, with_progress
    from minilong.text.words import stop_words, tokenizer

    total = sum(find_text(source).stat().st_size for source in options["text"])
    stop = [word for language in options["stop_words"] for word in stop_words(language)]
    words = tokenizer(lower=not options["keep_case"], stop=stop)

    def report(passed: int) -> None:
        shown.now(f"reading  {size(passed)} of {size(total)}")

    found = with_progress(units(options["text"], options["unit"] or UNITS[options["method"]]), report)
    least = options["min_count"] or (2 if options["method"] == "doc2vec" else 5)
    folder = options["out"].absolute().parent
    return read_corpus(map(words, found), least, folder=folder if folder.is_dir() else None)


def _about(options: dict[str, Any]) -> dict[str, str]:
    """How the vectors were made, as the folder keeps it; the words of new sentences are cut in the same way."""
    kept = ("text", "unit", "stop_words", "keep_case", "min_count", "seed")
    about = {f"option {name}": json.dumps(options[name]) for name in kept}
    return {**about, "kind": options["method"]}


def _train_words(corpus: WordCorpus, options: dict[str, Any], threads: int, shown: Shown) -> None:
    from minilong.embeddings.descent import Progress, Settings
    from minilong.embeddings.models import train_vectors
    from minilong.embeddings.store import save_model

    algorithm = options["algorithm"] or ALGORITHMS[options["method"]][0]
    settings = Settings(
        method=algorithm,
        width=options["width"],
        window=options["window"] or 5,
        negatives=options["negatives"],
        epochs=options["epochs"] or _epochs(options["method"], corpus.tokens),
        lr=options["lr"] or (0.025 if algorithm in ("skip-gram", "dbow", "dm-concat") else 0.075),
        sample=options["sample"],
        seed=options["seed"],
    )
    last = [0.0]

    def report(at: Progress) -> None:
        last[0] = at.seconds
        speed = at.words / max(at.seconds, 1e-9)
        left = (at.total - at.words) / max(speed, 1.0)
        shown.now(
            f"training {100 * at.words // max(at.total, 1):3d}%  loss {at.loss:.3f}  {count(speed)} words/s"
            f"  {duration(at.seconds)}, {duration(left)} left"
        )

    model = train_vectors(corpus, settings, threads=threads, report=report)
    words = settings.epochs * corpus.tokens
    shown.keep(f"trained     {settings.epochs} epochs of {algorithm}, {count(words / max(last[0], 1e-9))} words/s")
    save_model(options["out"], model, _about(options))


def _epochs(method: str, tokens: int) -> int:
    """5 (doc2vec: 20) for a corpus of a million words or more, and up to 50 (100) for a shorter one."""
    least, most = (20, 100) if method == "doc2vec" else (5, 50)
    return min(max(least, -(-1_000_000 * least // max(tokens, 1))), most)


def _train_glove(corpus: WordCorpus, options: dict[str, Any], shown: Shown) -> None:
    from minilong.embeddings.cooccurrence import count_pairs
    from minilong.embeddings.glove import GloveSettings, train_glove
    from minilong.embeddings.store import save

    settings = GloveSettings(
        options["width"], options["epochs"] or 25, options["lr"] or 0.05, seed=options["seed"]
    )  # fmt: skip
    begin = time.perf_counter()

    def progress(done: int, of: int) -> None:
        shown.now(f"counting {100 * done // of:3d}%")

    pairs = count_pairs(corpus, options["window"] or 10, report=progress)
    shown.keep(f"counted     {count(len(pairs))} pairs in {duration(time.perf_counter() - begin)}")

    def report(done: int, of: int, loss: float, seconds: float) -> None:
        speed = done / max(seconds, 1e-9)
        shown.now(
            f"training {100 * done // of:3d}%  loss {loss:.4f}  {count(speed)} pairs/s"
            f"  {duration(seconds)}, {duration((of - done) / max(speed, 1.0))} left"
        )

    start = time.perf_counter()
    found = train_glove(pairs, settings, report=report)
    seconds = time.perf_counter() - start
    shown.keep(
        f"trained     {settings.epochs} epochs of GloVe, {count(settings.epochs * len(pairs) / seconds)} pairs/s"
    )
    save(options["out"], {"vectors": found.vectors}, corpus.vocabulary, _about(options))
