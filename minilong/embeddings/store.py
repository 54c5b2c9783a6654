"""A folder of vectors: `vectors.safetensors` with the tables and settings, and `vocabulary.txt` with words and counts.

The folder is written beside its place under another name and renamed once all of it is on the medium: it is there
whole, or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from minilong.embeddings.descent import METHODS, Settings
from minilong.embeddings.models import Model
from minilong.embeddings.text_format import read_text_vectors
from minilong.embeddings.vectors import Vectors
from minilong.errors import UserError
from minilong.text.corpus import WordCounts
from minilong.train.arrays import arrays_from_bytes, arrays_to_bytes, metadata_from_bytes
from minilong.train.files import Disk, make_folders, sync_folder, write_file

ARRAYS, WORDS = "vectors.safetensors", "vocabulary.txt"


@dataclass(frozen=True, eq=False)
class Stored:
    """What a folder holds. `about`: how it was made. `model`: of documents, so that vectors of new ones can follow."""

    vectors: Vectors
    counts: np.ndarray
    about: Mapping[str, str]
    model: Model | None = None
    documents: np.ndarray | None = None


def check_free(folder: Path) -> None:
    """UserError where the folder cannot be made, so that this is known before hours of training."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} exists already; give another --out, or remove it")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise UserError(f"{str(folder)!r} would lie in {str(above)!r}, which is no folder; give another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{str(above)!r} may not be written to; give another --out")


def save(folder: Path, arrays: Mapping[str, np.ndarray], vocabulary: WordCounts, about: Mapping[str, str]) -> None:
    """Write a folder that must not exist yet. arrays: `vectors` (V, d), and what else is to be kept."""
    check_free(folder)
    disk = Disk()
    make_folders(disk, folder.absolute().parent)
    data = arrays_to_bytes(arrays, about)
    listed = "".join(f"{word}\t{count}\n" for word, count in zip(vocabulary.words, vocabulary.counts, strict=True))
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        write_file(disk, partial / ARRAYS, data)
        write_file(disk, partial / WORDS, listed.encode("utf-8"))
        sync_folder(disk, partial)
        os.chmod(partial, 0o755)
        os.replace(partial, folder)
        sync_folder(disk, folder.absolute().parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def save_model(folder: Path, model: Model, about: Mapping[str, str]) -> None:
    """Write word vectors, or a model of documents with all that inference needs."""
    tables = dict(model.tables)
    arrays = {"vectors": tables.pop("words")} if "words" in tables else {}
    if "documents" in tables:
        arrays |= tables
    settings = {name: json.dumps(value) for name, value in asdict(model.settings).items()}
    save(folder, arrays, model.vocabulary, {**settings, **about})


def load(path: Path) -> Stored:
    """The vectors of a folder, or of a file in word2vec's text format. UserError for anything else."""
    if path.is_file() or not path.exists():
        vectors = read_text_vectors(path)
        return Stored(vectors, np.ones(len(vectors), np.int64), {})
    file = path / ARRAYS
    if not file.is_file():
        raise UserError(f"{str(path)!r} holds no {ARRAYS}; give a folder that `minilong embed train` made")
    data = file.read_bytes()
    arrays, about = arrays_from_bytes(data, str(file)), metadata_from_bytes(data, str(file))
    vocabulary = _vocabulary(path / WORDS)
    size = len(vocabulary)
    matrix = arrays.get("vectors", np.zeros((size, 0), np.float32))
    if matrix.shape[:1] != (size,) or matrix.ndim != 2:
        raise UserError(f"{str(path)!r} is damaged: {size} words, and vectors of the shape {matrix.shape}")
    model = _model(arrays, vocabulary, about, str(path)) if "documents" in arrays else None
    return Stored(Vectors(vocabulary.words, matrix), vocabulary.counts, about, model, arrays.get("documents"))


def _vocabulary(path: Path) -> WordCounts:
    words, counts = [], []
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"{str(path)!r} is missing; restore it from a copy, or train anew") from None
    except UnicodeDecodeError:
        raise UserError(f"{str(path)!r} is not UTF-8; it is damaged") from None
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        word, tab, count = line.partition("\t")
        if not word or not tab or not (count.isascii() and count.isdigit()):
            raise UserError(f"line {number} of {str(path)!r} is no word with a count; it is damaged")
        words.append(word)
        counts.append(int(count))
    if len(set(words)) != len(words):
        raise UserError(f"{str(path)!r} repeats a word; it is damaged")
    return WordCounts(tuple(words), np.array(counts, np.int64))


def _model(arrays: dict[str, np.ndarray], vocabulary: WordCounts, about: Mapping[str, str], name: str) -> Model:
    try:
        settings = Settings(**{field.name: json.loads(about[field.name]) for field in fields(Settings)})
        method = METHODS[settings.method]
        tables = {
            **{own: arrays["vectors" if own == "words" else own] for own in method.tables},
            "outputs": arrays["outputs"],
        }
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name!r} is damaged: it lacks {error}; train anew") from None
    wanted = (len(vocabulary) - (settings.negatives == 0), method.output_width(settings.width, settings.window))
    if tables["outputs"].shape != wanted or arrays["documents"].shape[1:] != (settings.width,):
        raise UserError(f"{name!r} is damaged: its tables do not fit its settings; train anew")
    return Model(vocabulary, settings, tables)
