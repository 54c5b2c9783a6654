"""Masked models and T5 of `transformers`, opened here: the same losses in training, the same words in blanks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.data.numbering import numbering_of
from minilong.train.fill import fill, span_beam
from minilong.train.finetune import settings_for
from minilong.train.loaded import LoadedRun, load
from minilong.train.opened import open_source
from minilong.train.source import open_source as open_data

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

TEXT = "The old cat sat on a mat. She saw the dogs run away from it! Birds sang; nobody, it seems, cared at all.\n" * 40
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
LARGE = {"initializer_range": 0.3}
"""Weights large enough that no probability is that of chance."""


def trained(model: Any, trainer: Any, before: Any, decoder: Any) -> Any:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = before, decoder
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def bert(path: Path, kind: str) -> None:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.train_from_iterator([TEXT], trainers.WordPieceTrainer(vocab_size=120, special_tokens=names))
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), **SIZES, **LARGE, max_position_embeddings=40
    )
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), names, strict=True))
    written(path, getattr(transformers, kind)(config), tokenizer, roles)


def roberta(path: Path) -> None:
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=names[:4], initial_alphabet=alphabet)
    tokenizer = trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), **SIZES, **LARGE, type_vocab_size=1, max_position_embeddings=42
    )
    roles = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    written(path, transformers.RobertaForMaskedLM(config), tokenizer, roles)


def t5(path: Path) -> None:
    names = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=100, special_tokens=names, unk_token="<unk>")
    words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer = trained(models.Unigram(), trainer, words, decoders.Metaspace())
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(12))])  # the first has the largest id
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=24,
        d_kv=6,
        d_ff=40,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        initializer_factor=1.5,
    )
    written(path, transformers.T5ForConditionalGeneration(config), tokenizer, {"eos": "</s>", "pad": "<pad>"})


def written(path: Path, model: Any, tokenizer: Any, roles: dict[str, str]) -> None:
    model.save_pretrained(path)
    named = {f"{role}_token": name for role, name in roles.items()}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(path)


FAMILIES = {
    "bert": lambda path: bert(path, "BertForMaskedLM"),
    "bert with pairs": lambda path: bert(path, "BertForPreTraining"),
    "roberta": roberta,
    "t5": t5,
}


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The family, and a folder with `hf`, the opened `run` and a `book.txt`."""
    path = tmp_path_factory.mktemp("opened")
    torch.manual_seed(0)
    FAMILIES[request.param](path / "hf")
    (path / "book.txt").write_text(TEXT)
    open_source(str(path / "hf")).save(path / "run")
    return request.param, path


def theirs(path: Path, family: str) -> Any:
    kind = {
        "t5": transformers.T5ForConditionalGeneration,
        "bert with pairs": transformers.BertForPreTraining,
        "bert": transformers.BertForMaskedLM,
        "roberta": transformers.RobertaForMaskedLM,
    }[family]
    return kind.from_pretrained(path / "hf").eval()


@torch.no_grad()
def test_the_loss_of_training_is_theirs(opened: tuple[str, Path]) -> None:
    family, path = opened
    given = {"train.batch": 3, **({"model.context": 40} if family == "t5" else {})}
    config = settings_for(path / "run", (str(path / "book.txt"),), full=True, given=given)
    loaded = load(path / "run")
    source = open_data(config, loaded.tokenizer)
    model = theirs(path, family)
    for step in range(3):
        batch: Any = source.batch(step)
        lengths = batch.source_lengths if family == "t5" else batch.lengths
        read = batch.source if family == "t5" else batch.inputs
        given_ids = {
            "input_ids": torch.tensor(read, dtype=torch.long),
            "attention_mask": torch.tensor(np.arange(read.shape[1]) < np.asarray(lengths)[:, None]),
            "labels": torch.tensor(batch.targets, dtype=torch.long),
        }
        if family == "bert with pairs":
            assert batch.types is not None
            given_ids |= {"token_type_ids": torch.tensor(batch.types, dtype=torch.long)}
            logits = model(**{k: x for k, x in given_ids.items() if k != "labels"}).prediction_logits
            right = torch.nn.functional.cross_entropy(logits.flatten(0, 1), given_ids["labels"].flatten())
        else:
            right = model(**given_ids).loss
        assert float(source.loss(loaded.model, batch)) == pytest.approx(float(right), rel=1e-5)


@torch.no_grad()
def test_blanks_are_filled_by_what_they_find(opened: tuple[str, Path]) -> None:
    family, path = opened
    loaded, model = load(path / "run"), theirs(path, family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path / "hf")
    if family == "t5":
        spans(loaded, model, tokenizer)
        return
    found = fill(loaded, "She saw the ___ run away.", top=400).candidates[0]
    read = tokenizer(f"She saw the {tokenizer.mask_token} run away.", return_tensors="pt")
    logits = model(**read)["prediction_logits" if family == "bert with pairs" else "logits"]
    place = int((read["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0])
    right = torch.softmax(logits[0, place].double(), -1).numpy()
    special = set(tokenizer.all_special_ids)
    text = np.array(sorted((p for i, p in enumerate(right) if i not in special), reverse=True))
    np.testing.assert_allclose([c.probability for c in found], text[: len(found)], rtol=1e-4, atol=1e-9)


def spans(loaded: LoadedRun, model: Any, tokenizer: Any) -> None:
    """Their probability of our likeliest spans: the tokens of each, and then the end or the next sentinel."""
    source = tokenizer("She saw the <extra_id_0> run away.", return_tensors="pt")
    first, then = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"])
    numbering = numbering_of(loaded.tokenizer, spans=True)
    found = span_beam(loaded.model, numbering, numbering.of_ids(source["input_ids"][0, :-1].numpy()), 1, 8)
    told = fill(loaded, "She saw the ___ run away.", top=8).candidates[0]
    assert len(found) == len(told) == 8
    for (numbers, likelihood), candidate in zip(found, told, strict=True):
        mark, *words = numbering.ids(numbers).tolist()
        assert mark == first
        logits = model(**source, decoder_input_ids=torch.tensor([[0, mark, *words]])).logits[0].double().log_softmax(-1)
        right = sum(float(logits[i + 1, token]) for i, token in enumerate(words))
        right += np.logaddexp(float(logits[len(words) + 1, 1]), float(logits[len(words) + 1, then]))
        assert likelihood == pytest.approx(right, abs=1e-4)
        assert candidate.probability == pytest.approx(np.exp(right), rel=1e-4)
        assert candidate.words == (loaded.tokenizer.decode(words),)
