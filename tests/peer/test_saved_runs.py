"""A fine-tuned run that is saved opens in `transformers`, with its tokenizer, and gives the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from minilong.train.finetune import Adapting, settings_for, start_adapters
from minilong.train.loaded import load
from minilong.train.opened import open_source
from minilong.train.saved import save_run

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

TEXT = "the quick brown fox jumps over the lazy dog and runs far away from all of it\n" * 30


def published(folder: Path) -> None:
    """A random Llama with a tokenizer of words, as `transformers` writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "</s>", *sorted(set(TEXT.split()))]
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=48, tie_word_embeddings=True, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def test_fine_tuned_there_and_back(tmp_path: Path) -> None:
    published(tmp_path / "hf")
    (tmp_path / "book.txt").write_text(TEXT)
    open_source(str(tmp_path / "hf")).save(tmp_path / "run")
    given = {"train.steps": 5, "train.lr": 1e-2, "train.threads": 1, "data.length": 16}
    config = settings_for(tmp_path / "run", (str(tmp_path / "book.txt"),), full=False, given=given)
    start_adapters(tmp_path / "run", config, Adapting(2, 4.0, ()), tmp_path / "tuned").run(
        lambda progress: None, lambda: False
    )
    save_run(tmp_path / "tuned", tmp_path / "saved")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "tuned")
    ids = loaded.tokenizer.encode(TEXT[:150])
    assert tokenizer(TEXT[:150], add_special_tokens=False).input_ids == ids.tolist()
    with torch.no_grad():
        right = theirs(torch.tensor(ids[None].astype(np.int64))).logits.numpy()
        before = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
        untouched = before(torch.tensor(ids[None].astype(np.int64))).logits.numpy()
    np.testing.assert_allclose(loaded.model(ids[None]), right, rtol=0, atol=1e-4)
    assert np.abs(right - untouched).max() > 1e-2
