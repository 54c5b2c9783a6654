"""The texts of `gensim_beside`: what gensim and minilong ship, and two of Debian's dictionaries."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from minilong.text.pieces import units
from minilong.text.sentences import sentences_of
from minilong.text.words import tokenizer

WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
NOVELS = ("pride_and_prejudice", "persuasion")
DICTIONARIES = ("gcide", "foldoc")
"""The Collaborative International Dictionary of English (5 million words with its quotations), and one of computing."""


def wikipedia() -> Iterator[str]:
    """Sentences of the 106 whole articles in gensim's test data."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath

    pages = extract_pages(io.BytesIO(bz2.decompress(Path(datapath(WIKIPEDIA)).read_bytes())), ("0",))
    for _, text, _ in pages:
        if not text.lower().startswith("#redirect"):
            yield from sentences_of([filter_wiki(text)])


def dictionary(name: str) -> Iterator[str]:
    """Sentences of a dictionary, from Debian's package dict-NAME, which is downloaded and not installed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["apt-get", "download", "-q", f"dict-{name}"], cwd=folder, check=True, capture_output=True)
            (package,) = Path(folder).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.ClickException(f"dict-{name} cannot be had ({error}); leave --dictionaries out") from None
        text = gzip.decompress((Path(folder) / f"usr/share/dictd/{name}.dict.dz").read_bytes())
    yield from sentences_of([text.decode("utf-8", "replace")])


def words_of(text: Iterable[str], *, dictionaries: bool) -> list[list[str]]:
    """The sentences as words: of files with one a line, or of all that is shipped, and of the dictionaries.

    None occurs twice: dictionaries repeat the names of their sources thousands of times.
    """
    cut = tokenizer()
    sources = [units(text, "line")] if text else [wikipedia(), units(NOVELS)]
    sources += [dictionary(name) for name in DICTIONARIES] if dictionaries else []
    found = dict.fromkeys(tuple(cut(sentence)) for source in sources for sentence in source)
    return [list(words) for words in found if len(words) > 1]
