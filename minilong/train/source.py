"""What a run reads: tokenizer, training batches by step, validation batches, and the loss that fits them."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from typing import Any

from minilong.data.batches import LanguageBatch, PackedWindows, PairBatch, PairData
from minilong.data.bpe import BpeTokenizer
from minilong.data.corpora import read_pairs, read_texts, split_pairs, split_text
from minilong.data.passkey import Passkey
from minilong.data.recall import RecallTask, recall_task
from minilong.data.tasks import TASKS, Task
from minilong.data.tokenizers import ByteTokenizer, CharTokenizer
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError
from minilong.keys import Key
from minilong.objectives import causal_loss, frequency_loss, masked_loss, sequence_loss
from minilong.train.config import FILLING_TASKS, OPENED_TASKS, RECALL_TASKS, RunConfig
from minilong.train.pretraining import filling_rows, spaced, with_marks

VALIDATION_TOKENS, VALIDATION_PAIRS = 200_000, 1000
"""About how much of what is held out the validations during training cover."""

COUNTED_STEPS = 200
"""Steps whose targets are counted to say how frequent each is."""


@dataclass(frozen=True)
class Source:
    """The data of a run. `batch(step)` is a pure function; `fingerprint` changes with any character of the data.

    answers: held-out rows of a recall task in which the answers alone are targets.
    """

    tokenizer: Tokenizer
    loss: Callable[..., Any]
    batch: Callable[[int], Any]
    validation: tuple[Any, ...]
    characters_per_token: float | None
    tokens_per_step: int
    fingerprint: str
    answers: tuple[LanguageBatch, ...] = ()


def open_source(config: RunConfig, tokenizer: Tokenizer | None = None) -> Source:
    """Read and check everything that the run needs before anything is allocated. A resumed run brings its tokenizer."""
    if config.task in OPENED_TASKS:
        raise UserError(f"task {config.task!r} has no output layer to learn by; open a model that has one")
    if config.task == "lm":
        return _language(config, tokenizer)
    if config.task in RECALL_TASKS:
        return _recall(config, tokenizer)
    if config.task in FILLING_TASKS:
        return _filling(config, tokenizer)
    return _pairs(config, tokenizer) if config.task == "translate" else _generated(config)


def train_tokenizer(config: RunConfig, texts: list[str]) -> Tokenizer:
    """The configured tokenizer, made from the texts.

    Characters are those of all texts, held-out parts included, and all printable ASCII: a prompt or another book in the
    same script can then be read, though a character that the text lacks is one that the model has not learnt.
    """
    if config.data.tokenizer == "pretrained":
        raise UserError(
            "data.tokenizer is 'pretrained', which belongs to a model that was opened; choose char, byte or bpe, or "
            "use `minilong finetune`"
        )
    if config.data.tokenizer == "byte":
        return ByteTokenizer()
    if config.data.tokenizer == "char":
        return CharTokenizer.train([*texts, string.digits + string.ascii_letters + string.punctuation + " \n"])
    return BpeTokenizer.train(texts, config.data.vocabulary)


def held_out(config: RunConfig, fingerprint: str) -> str:
    """The held-out ends of the run's own texts, one after another.

    UserError where the texts are not those of the fingerprint: their ends may then hold what training read.
    """
    if not config.data.text:
        raise UserError("the model was opened, not trained here, so it has no held-out text; name the text to measure")
    texts = read_texts(config.data.text)
    if _fingerprint(texts) != fingerprint:
        raise UserError(
            f"the text of the run ({', '.join(config.data.text)}) changed since the run was started, so its end was "
            "not held out; restore the text, or name the one to measure"
        )
    return "".join(split_text(text, config.data.validation)[1] for text in texts)


def _language(config: RunConfig, tokenizer: Tokenizer | None) -> Source:
    texts = read_texts(config.data.text)
    tokenizer = tokenizer or train_tokenizer(config, texts)
    parts = [_split(name, text, config) for name, text in zip(config.data.text, texts, strict=True)]
    context, size, key = config.row, config.train.batch, _order_key(config)
    train = PackedWindows(
        [tokenizer.encode(a) for a, _ in parts], context, separator=tokenizer.separator, name="the training text"
    )
    encoded = [tokenizer.encode(b) for _, b in parts]
    valid = PackedWindows(
        encoded, context, separator=tokenizer.separator, partial=True, name="the held-out end of the text"
    )
    batches: list[LanguageBatch] = []
    counted = 0
    for batch in valid.sequential(_validation_rows(size, context)):
        batches.append(batch)
        counted += batch.tokens
        if counted >= VALIDATION_TOKENS:
            break
    tokens = sum(len(ids) for ids in encoded)
    return Source(
        tokenizer=tokenizer,
        loss=causal_loss,
        batch=lambda step: train.batch(step, size, key),
        validation=tuple(batches),
        characters_per_token=sum(len(b) for _, b in parts) / tokens,
        tokens_per_step=size * context,
        fingerprint=_fingerprint(texts),
    )


def _split(name: str, text: str, config: RunConfig) -> tuple[str, str]:
    try:
        return split_text(text, config.data.validation)
    except UserError as error:
        raise UserError(f"{name!r}: {error}") from None


def _pairs(config: RunConfig, tokenizer: Tokenizer | None) -> Source:
    pairs = [pair for name in config.data.text for pair in read_pairs(name)]
    tokenizer = tokenizer or train_tokenizer(config, [side for pair in pairs for side in pair])
    train, valid = split_pairs(pairs, config.data.validation, config.train.seed)
    data, held = (_pair_data(part, tokenizer, config.data.max_length) for part in (train, valid))
    every = list(held.sequential(_validation_rows(config.train.batch)))
    thinned = every[
        :: max(1, len(held) // VALIDATION_PAIRS)
    ]  # of all lengths: they come from the shortest to the longest
    key = _order_key(config)
    print_of = _fingerprint([side for pair in pairs for side in pair])
    return _sequences(tokenizer, lambda step: data.batch(step, config.train.batch, key), thinned, print_of)


def _pair_data(pairs: list[tuple[str, str]], tokenizer: Tokenizer, longest: int) -> PairData:
    ids = [(tokenizer.encode(a), tokenizer.encode(b)) for a, b in pairs]
    return PairData(ids, pad=tokenizer.pad, bos=tokenizer.bos, eos=tokenizer.eos, max_length=longest)


def generated_task(config: RunConfig) -> Task:
    """The generated task of a run, with the configured lengths."""
    return replace(TASKS[config.task], shortest=config.data.min_length, longest=config.data.max_length)


def _generated(config: RunConfig) -> Source:
    task = generated_task(config)
    key = _order_key(config)
    return _sequences(
        task.tokenizer,
        lambda step: task.batch(step, config.train.batch, key),
        list(task.sequential(_validation_rows(config.train.batch))),
        _fingerprint([task.name]),
    )


def _recall(config: RunConfig, tokenizer: Tokenizer | None) -> Source:
    texts = read_texts(config.data.text) if config.task == "passkey" else []
    task = open_recall_task(config, texts, tokenizer)
    size, key = config.train.batch, _order_key(config)
    rows = evaluation_rows(config.model.context)
    answers = replace(task, whole=False) if isinstance(task, Passkey) else task
    return Source(
        tokenizer=task.tokenizer,
        loss=causal_loss,
        batch=lambda step: task.batch(step, size, key),
        validation=tuple(task.sequential(rows)),
        characters_per_token=None,
        tokens_per_step=size * config.model.context,
        fingerprint=_fingerprint(texts or [config.task]),
        answers=tuple(answers.sequential(rows)),
    )


def _filling(config: RunConfig, tokenizer: Tokenizer | None) -> Source:
    texts = read_texts(config.data.text)
    marked = with_marks(config, tokenizer or train_tokenizer(config, [spaced(text) for text in texts]))
    parts = zip(*[_split(name, text, config) for name, text in zip(config.data.text, texts, strict=True)], strict=True)
    size, context, key = config.train.batch, config.model.context, _order_key(config)
    train, held = (filling_rows(config, marked, part, key) for part in parts)
    rows = _validation_rows(size, context)
    return Source(
        tokenizer=marked,
        loss=sequence_loss if config.task == "t5" else masked_loss,
        batch=lambda step: train.batch(step, size, key),
        validation=tuple(islice(held.sequential(rows), max(1, VALIDATION_TOKENS // (rows * context)))),
        characters_per_token=None,
        tokens_per_step=size * context,
        fingerprint=_fingerprint(texts),
    )


def loss_by_frequency(source: Source) -> float:
    """The validation loss, in nats per token, of a model that knows how frequent each target is in training."""
    trained = (source.batch(step) for step in range(COUNTED_STEPS))
    return frequency_loss(trained, source.validation, source.tokenizer.size)


def open_recall_task(config: RunConfig, texts: list[str], tokenizer: Tokenizer | None = None) -> RecallTask:
    """The recall task of a run. texts: for a passkey, the whole texts, whose ends are held out."""
    config = config.resolved()
    data, context = config.data, config.model.context
    if config.task != "passkey":
        return recall_task(config.task, context, data.items, data.symbols)
    codec = tokenizer or train_tokenizer(config, texts)
    parts = [_split(name, text, config) for name, text in zip(data.text, texts, strict=True)]
    train, held = (codec.encode("\n".join(part)) for part in zip(*parts, strict=True))
    whole = data.loss_on == "text"
    return Passkey(
        context, codec=codec, text=train, held_out_text=held, items=data.items, digits=data.digits, whole=whole
    )


def evaluation_rows(context: int) -> int:
    """Rows of a batch that is only looked at: few enough that a long context goes one row at a time."""
    return max(1, min(32, 8192 // context))


def _sequences(
    tokenizer: Tokenizer, batch: Callable[[int], PairBatch], validation: list[PairBatch], fingerprint: str
) -> Source:
    return Source(tokenizer, sequence_loss, batch, tuple(validation), None, batch(0).tokens, fingerprint)


def _fingerprint(texts: list[str]) -> str:
    """A digest of texts and of where one ends."""
    digest = blake2b(digest_size=16)
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def validation_text_pairs(config: RunConfig) -> list[tuple[str, str]]:
    """The held-out sentence pairs of a translation run."""
    if config.task != "translate":
        raise UserError(f"task {config.task!r} has no sentence pairs; use a run of task 'translate'")
    pairs = [pair for name in config.data.text for pair in read_pairs(name)]
    return split_pairs(pairs, config.data.validation, config.train.seed)[1]


def _validation_rows(batch: int, context: int = 1) -> int:
    """Rows of a validation batch: those of a step, or 32 where they are short (8,192 tokens in all)."""
    return max(batch, min(32, 8192 // context))


def _order_key(config: RunConfig) -> Key:
    return Key.of(config.train.seed).fold("order")


def sample_source(config: RunConfig) -> str:
    """A held-out source sentence, to show what a run answers."""
    if config.task == "translate":
        fitting = [a for a, _ in validation_text_pairs(config) if len(a) <= config.data.max_length]
        return fitting[0] if fitting else ""
    task = generated_task(config)
    return task.tokenizer.decode(next(task.sequential(1)).source[0])


def sample_row(config: RunConfig, tokenizer: Tokenizer) -> LanguageBatch:
    """A held-out row of a recall run, the answers alone as targets."""
    texts = read_texts(config.data.text) if config.task == "passkey" else []
    task = open_recall_task(config, texts, tokenizer)
    return next((replace(task, whole=False) if isinstance(task, Passkey) else task).sequential(1, 1))
