"""Tokenizers and chat templates beside `transformers`: the same ids and texts, for each family of tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilong.data.chat_template import CHATML, PLAIN, ChatTemplate
from minilong.data.pretrained import PretrainedTokenizer, read_tokenizer_folder, tokenizer_from_gguf

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

LEARNT = [
    "It is a truth universally acknowledged, that a single man in possession of a good fortune.",
    "def f(x):\n    return x ** 2  # the square of 12345\n",
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。",
    "naïve café 🙂 👨‍👩‍👧 İstanbul 42nd",
] * 4
TEXTS = [
    *LEARNT[:4],
    "",
    " ",
    "  two leading spaces, and trailing  ",
    "Hello, world!\n\n\tTabs\r\nand 1,234.5 numbers; it's we'll",
    "今天天气不错 123。emoji: 🎉🇫🇷 e\u0301 Ａ ﬁ \u200d",
    "for i in range(10):\n        print(f'{i:>3}')",
    "<s> </s> [CLS] <mask> <|endoftext|> <pad>",
]
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}


def byte_level(size: int = 400) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    made.train_from_iterator(
        LEARNT, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    )
    return made


def gpt2() -> Any:
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level(), **names)


def roberta() -> Any:
    made = byte_level()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    own = {"cls_token": "<s>", "sep_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **SPECIALS, **own)


def bert() -> Any:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(LEARNT[:2], trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def t5() -> Any:
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    made.train_from_iterator(LEARNT, trainer)
    made.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def llama() -> Any:
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Few characters, so that others fall back to their bytes.
    made.train_from_iterator(LEARNT[:2] * 4, trainers.BpeTrainer(vocab_size=420, special_tokens=special))
    data = json.loads(made.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    made = tokenizers.Tokenizer.from_str(json.dumps(data))
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


FAMILIES: dict[str, Callable[[], Any]] = {"gpt2": gpt2, "roberta": roberta, "bert": bert, "t5": t5, "llama": llama}


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PretrainedTokenizer, Any]:
    """A tokenizer saved by `transformers`: read by us, and by them."""
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param]().save_pretrained(folder)
    return read_tokenizer_folder(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_same_ids(pair: tuple[PretrainedTokenizer, Any], text: str) -> None:
    ours, theirs = pair
    plain = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
    if not set(plain) & set(ours.specials) - {ours.roles.unk}:  # Unigram spells special tokens; ours does not
        assert ours.encode(text).tolist() == plain
        assert ours.encode_whole(text).tolist() == theirs.encode(text, split_special_tokens=True)
    assert not set(ours.encode(text).tolist()) & set(ours.specials) - {ours.roles.unk}


@pytest.mark.parametrize("text", TEXTS)
def test_same_text(pair: tuple[PretrainedTokenizer, Any], text: str) -> None:
    ours, theirs = pair
    ids = [int(i) for i in ours.encode_whole(text) if i != ours.roles.unk]  # an unknown token reads U+FFFD here
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_same_special_ids(pair: tuple[PretrainedTokenizer, Any]) -> None:
    ours, theirs = pair
    assert ours.size == len(theirs)
    assert set(theirs.all_special_ids) <= set(ours.specials)
    assert theirs.eos_token_id in (None, *ours.ends)
    assert ours.mask == theirs.mask_token_id


# GGUF


def gguf_keys(theirs: Any, model: str, **own: Any) -> dict[str, Any]:
    """The keys that llama.cpp's converter writes."""
    names = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
    special = set(theirs.all_special_tokens)
    byte = {f"<0x{b:02X}>" for b in range(256)}
    keys = {
        "model": model,
        "tokens": [name for name, _ in names],
        "token_type": [3 if name in special else 6 if name in byte else 1 for name, _ in names],
        "bos_token_id": theirs.bos_token_id,
        "eos_token_id": theirs.eos_token_id,
        "unknown_token_id": theirs.unk_token_id,
        **own,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "deepseek-r1-qwen"])
def test_same_ids_of_gguf_byte_pairs(pre: str) -> None:
    from transformers.integrations.gguf import convert_gguf_tokenizer

    theirs = gpt2()
    merges = json.loads(theirs.backend_tokenizer.to_str())["model"]["merges"]
    keys = gguf_keys(theirs, "gpt2", pre=pre, merges=[" ".join(merge) for merge in merges])
    ours = tokenizer_from_gguf(keys)
    named = {
        "tokenizer_type": "gpt2",
        "pre_tokenizer_type": pre,
        **{name: keys[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges")},
    }
    peer, _ = convert_gguf_tokenizer("llama", named)
    peer.encode_special_tokens = True
    for text in TEXTS:
        assert ours.encode(text).tolist() == peer.encode(text, add_special_tokens=False).ids


def test_same_ids_of_gguf_sentence_pieces() -> None:
    theirs = llama()
    merges = json.loads(theirs.backend_tokenizer.to_str())["model"]["merges"]
    rank = {"".join(merge): place for place, merge in reversed(list(enumerate(merges)))}
    names = sorted(theirs.get_vocab(), key=theirs.get_vocab().__getitem__)
    keys = gguf_keys(theirs, "llama", scores=[-float(rank.get(name, 10**6)) for name in names])
    ours = tokenizer_from_gguf(keys)
    for text in TEXTS:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode_whole(text).tolist() == theirs.encode(text, split_special_tokens=True)


def test_same_ids_of_gguf_word_pieces() -> None:
    theirs = bert()
    ids = {"cls_token_id": 2, "seperator_token_id": 3, "mask_token_id": 4}
    keys = gguf_keys(theirs, "bert", **ids)
    special = set(theirs.all_special_tokens)
    tokens = keys["tokenizer.ggml.tokens"]
    keys["tokenizer.ggml.tokens"] = [
        name if name in special else name[2:] if name.startswith("##") else f"▁{name}" for name in tokens
    ]
    ours = tokenizer_from_gguf(keys)
    for text in TEXTS:
        assert ours.encode_whole(text).tolist() == theirs.encode(text, split_special_tokens=True)


# Templates

TALK = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": "  Hi there  "},
    {"role": "assistant", "content": "Hello! 世界"},
    {"role": "user", "content": "Bye"},
]
LLAMA2 = """{% if messages[0]['role'] == 'system' %}\
{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set rest = messages[1:] %}\
{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}"""
BLOCKS = """
{% set ns = namespace(last=-1) %}
{% for message in messages %}
    {% if message.role == 'user' %}
        {% set ns.last = loop.index0 %}
    {% endif %}
{% endfor %}
{% for message in messages %}
    {% if message.role == 'assistant' %}
{{ '<|a|>' }}{% generation %}{{ message.content }}{% endgeneration %}{{ eos_token }}
    {% elif loop.index0 == ns.last %}
{{ message | tojson }} {{ message.content | length }} {{ strftime_now('%d %b %Y') }}
    {% else %}
{{ message.role | upper }}: {{ message['content'].split(' ') | join('_') }}
        {% continue %}
    {% endif %}
end
{% endfor %}
{% if add_generation_prompt and tools is none %}
<|a|>
{% endif %}
"""


@pytest.mark.parametrize("template", [CHATML, PLAIN, LLAMA2, BLOCKS])
@pytest.mark.parametrize("answer", [True, False])
def test_same_chat(template: str, answer: bool, tmp_path: Path) -> None:
    theirs = llama()
    theirs.save_pretrained(tmp_path)
    ours = ChatTemplate(template, read_tokenizer_folder(tmp_path))
    rendered = ours.render(TALK, answer=answer)
    options = {"chat_template": template, "add_generation_prompt": answer}
    assert rendered.text == theirs.apply_chat_template(TALK, tokenize=False, **options)
    ids = ours.tokenizer.encode_template(rendered.text, rendered.foreign).tolist()
    assert ids == theirs.apply_chat_template(TALK, return_dict=False, **options)
