"""Continue a text with a language model, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np

from minilong.data.vocabulary import FIRST, Tokenizer
from minilong.errors import UserError
from minilong.keys import Key
from minilong.memory import Memory
from minilong.train.config import COMMAND_OF_TASK, available_threads
from minilong.train.loaded import LoadedRun, as_row, finite, ready_to_read
from minilong.train.reader import RaggedReader, Reader


def generate(
    loaded: LoadedRun,
    prompt: str,
    *,
    length: int,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    memory: Memory | None = None,
) -> Iterator[str]:
    """Pieces of text that continue the prompt, `length` tokens in all; the same seed gives the same text.

    memory: what the model remembers of the text (`train.reader`). A model that remembers everything sees at most its
    last `context` tokens, and at least half as many. Without a prompt it continues a line break. Special tokens are not
    drawn, but for those by which a pretrained model ends its text; there the text ends.
    """
    tokenizer = language_tokenizer(loaded)
    tokens = as_row(_prompt(tokenizer, prompt))
    numbers = Key.of(seed).fold("generate").generator()
    decoder, never = tokenizer.stream_decoder(continues=True), undrawn(tokenizer)
    reader = Reader(loaded.model, memory, length=tokens.shape[1] + length, threads=available_threads())
    with ready_to_read():
        for _ in range(length):
            with np.errstate(all="ignore"):  # `finite` says it in words
                logits = reader.read(tokens)[0]
            token = choose(finite(logits), numbers, temperature=temperature, top_k=top_k, top_p=top_p, never=never)
            if token in tokenizer.ends:
                break
            tokens = as_row(np.array([token]))
            if piece := decoder.push(token):
                yield piece
    if rest := decoder.flush():
        yield rest


def generate_batch(
    loaded: LoadedRun,
    prompts: Sequence[str],
    *,
    length: int,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    memory: Memory | None = None,
) -> list[str]:
    """The continuation of each prompt, all made together: each as `generate` makes it alone with the same seed.

    UserError where prompts of several lengths do not fit (see `RaggedReader`).
    """
    tokenizer = language_tokenizer(loaded)
    encoded = [_prompt(tokenizer, prompt) for prompt in prompts]
    never, ended = undrawn(tokenizer), np.zeros(len(prompts), bool)
    numbers = [Key.of(seed).fold("generate").generator() for _ in prompts]
    written: list[list[int]] = [[] for _ in prompts]
    with ready_to_read():
        try:
            reader = RaggedReader(loaded.model, encoded, memory, new=length, threads=available_threads())
            tokens = reader.prompts
            for _ in range(length):
                with np.errstate(all="ignore"):
                    logits = finite(reader.read(tokens))
                for row, own, text in zip(logits, numbers, written, strict=True):
                    text.append(choose(row, own, temperature=temperature, top_k=top_k, top_p=top_p, never=never))
                tokens = np.array([text[-1:] for text in written], np.int32)
                ended |= np.isin(tokens[:, 0], tokenizer.ends)
                if ended.all():
                    break
        except ValueError as error:
            raise UserError(f"{error}; give the prompts one at a time, or a shorter --length") from error
    return [_continuation(tokenizer, text) for text in written]


def language_tokenizer(loaded: LoadedRun) -> Tokenizer:
    if loaded.config.model.kind != "decoder":
        task = loaded.config.task
        raise UserError(f"the run learnt the task {task!r}; use `minilong {COMMAND_OF_TASK[task]}`")
    return loaded.tokenizer


def _prompt(tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    return np.array([*tokenizer.prefix, *tokenizer.encode(prompt or "\n")], np.int32)


def _continuation(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids up to the first that ends it."""
    decoder = tokenizer.stream_decoder(continues=True)
    own = takewhile(lambda id: id not in tokenizer.ends, ids)
    return "".join([*map(decoder.push, own), decoder.flush()])


def undrawn(tokenizer: Tokenizer) -> np.ndarray:
    """Ids that are never drawn: those that stand for no text, and end none."""
    return np.array([id for id in tokenizer.specials if id not in tokenizer.ends], np.intp)


def choose(
    logits: np.ndarray,
    numbers: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    never: np.ndarray | range = range(FIRST),
) -> int:
    """Draw a token from softmax(logits / temperature) (`eq:sampling`), among the `top_k` likeliest, and among the
    fewest likeliest that together reach the probability `top_p`. Temperature 0 takes the likeliest. never: ids that are
    not drawn."""
    scores = np.array(logits, np.float64)
    scores[never] = -np.inf
    if temperature == 0:
        return int(scores.argmax())
    order = np.argsort(-scores, kind="stable")[: len(scores) - len(never)]  # rounding may send the draw to the last
    if top_k:
        order = order[:top_k]
    with np.errstate(over="ignore"):  # a tiny temperature: all but the likeliest get probability zero
        p = np.exp((scores[order] - scores[order[0]]) / temperature)
    p /= p.sum()
    if top_p < 1:
        count = int(np.searchsorted(np.cumsum(p), top_p)) + 1
        order, p = order[:count], p[:count] / p[:count].sum()
    place = int(np.searchsorted(np.cumsum(p), numbers.random(), side="right"))
    return int(order[min(place, len(order) - 1)])
