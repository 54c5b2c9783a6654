"""Word and document vectors from a corpus: tables made, trained, and kept, so that new documents can follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minilong.embeddings.descent import METHODS, Report, Settings, descend, silent
from minilong.embeddings.huffman import huffman
from minilong.embeddings.noise import Noise
from minilong.embeddings.outputs import HierarchicalSoftmax, NegativeSampling, Output
from minilong.errors import UserError
from minilong.keys import Key
from minilong.text.corpus import END, WordCorpus, WordCounts

WORD_METHODS = ("skip-gram", "cbow")
DOCUMENT_METHODS = ("dbow", "dm", "dm-concat")


@dataclass(frozen=True, eq=False)
class Model:
    """What a training leaves: the vocabulary, the settings, and tables `words`, `documents` and `outputs`, float32."""

    vocabulary: WordCounts
    settings: Settings
    tables: dict[str, np.ndarray]

    @property
    def output(self) -> Output:
        """How words are predicted."""
        return output_of(self.vocabulary, self.settings)

    def infer(self, documents: list[list[str]], *, epochs: int = 50, seed: int = 1, threads: int = 1) -> np.ndarray:
        """Vectors (n, width) of new documents, given as words: trained with all else fixed, `eq:inference`.

        Unknown words are passed over; a document without known ones is the zero vector. The model stays as it is. The
        same documents and seed give the same vectors.
        """
        if "documents" not in self.tables:
            raise ValueError(f"a model of {self.settings.method} has no vectors of documents to infer")
        index = self.vocabulary.index
        numbers = [[index[word] for word in words if word in index] for words in documents]
        width = self.tables["documents"].shape[1]
        vectors = start_vectors(len(numbers), width, Key.of(seed).fold("inference"))
        known = np.array([bool(ids) for ids in numbers], bool)
        if known.any():
            ids = np.array([n for ids in numbers for n in (*ids, END)], np.int32)
            # Counts of the training decide what is thinned out; how many words pass is known from the ids.
            corpus = Unseen(self.vocabulary, ids, len(numbers))
            settings = replace(self.settings, epochs=epochs, seed=seed)
            descend(
                corpus, {**self.tables, "documents": vectors}, self.output, settings,
                learned=["documents"], threads=threads,
            )  # fmt: skip
        vectors[~known] = 0
        return vectors


class Unseen(WordCorpus):
    """Documents in the words of another corpus."""

    @property
    def tokens(self) -> int:
        """Words, ends of units not counted."""
        return int(np.count_nonzero(self.ids != END))


def output_of(vocabulary: WordCounts, settings: Settings) -> Output:
    """Negative sampling, or hierarchical softmax where `negatives` is 0."""
    if settings.negatives:
        return NegativeSampling(Noise(vocabulary.counts), settings.negatives, settings.shared)
    return HierarchicalSoftmax(huffman(vocabulary.counts))


def start_vectors(rows: int, width: int, key: Key) -> np.ndarray:
    """Uniform between -1/2 and 1/2, over the width, as word2vec starts."""
    return ((key.generator().random((rows, width), np.float32) - 0.5) / width).astype(np.float32)


def train_vectors(corpus: WordCorpus, settings: Settings, *, threads: int = 1, report: Report = silent) -> Model:
    """Train word vectors (`skip-gram`, `cbow`) or document vectors (`dbow`, `dm`, `dm-concat`) on a corpus.

    Documents are the corpus's units. UserError for a vocabulary too small to tell words apart.
    """
    method, key, size = METHODS[settings.method], Key.of(settings.seed), len(corpus.vocabulary)
    if size < 2:
        raise UserError("the vocabulary has one word only; give more text, or a lower --min-count")
    rows = size if settings.negatives else size - 1
    width = method.output_width(settings.width, settings.window)
    tables = {"outputs": np.zeros((rows, width), np.float32)}
    for name, count in (("words", size), ("documents", corpus.units)):
        if name in method.tables:
            tables[name] = start_vectors(count, settings.width, key.fold(name))
    output = output_of(corpus.vocabulary, settings)
    descend(corpus, tables, output, settings, learned=[*method.tables, "outputs"], threads=threads, report=report)
    return Model(corpus.vocabulary, settings, tables)
