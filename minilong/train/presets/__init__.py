"""Shipped presets, and the order in which settings overrule one another.

Defaults < preset < configuration file < options of the command line < `--set key=value`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilong.errors import UserError, did_you_mean
from minilong.models.fields import show
from minilong.train.config import FILLING_TASKS, KIND_OF_TASK, TASKS, RunConfig, full_key, load_flat

FOLDER = Path(__file__).parent
DEFAULT_PRESET = {task: "small" if task == "lm" else task for task in TASKS}
DEFAULT_TEXT: Mapping[str, tuple[str, ...]] = {
    "lm": ("pride_and_prejudice",),
    "translate": ("libreoffice_help",),
    **dict.fromkeys(("passkey", *FILLING_TASKS), ("pride_and_prejudice",)),
}


def preset_names() -> list[str]:
    """Names of the shipped presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_preset(name: str) -> tuple[str, dict[str, Any]]:
    """The one-line description of a preset and its settings by full key. `UserError` if there is no such preset."""
    if name not in preset_names():
        known = preset_names()
        raise UserError(f"there is no preset {show(name)}{did_you_mean(name, known)}; choose one of {', '.join(known)}")
    about, _, rest = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").partition("\n")
    return about.removeprefix("#").strip(), load_flat(rest, f"preset {name}")


def preset(name: str) -> RunConfig:
    """The configuration of a shipped preset, on its default text."""
    return layered(preset=name)


def layered(
    *,
    preset: str | None = None,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """Build a run from all layers of settings, every derived value written out.

    `preset` is a shipped one; without it the task has its own (`lm` has `small`). `file` is a TOML file of any keys,
    `options` maps keys to values, `assignments` are `key=value` texts. Without a text the task reads its default one;
    a warm-up that no layer above the preset sets shrinks to a tenth of the steps if steps were changed.
    """
    written = read_config_file(file) if file is not None else {}
    typed = {full_key(key): value for key, value in (options or {}).items()}
    typed |= dict(parse_assignment(text) for text in assignments)
    given = written | typed

    base: dict[str, Any] = {}
    if preset is not None:
        base = read_preset(preset)[1]
    elif isinstance(task := given.get("task", "lm"), str) and task in DEFAULT_PRESET:
        base = read_preset(DEFAULT_PRESET[task])[1]
    values = base | given

    task = values.get("task", "lm")
    if isinstance(task, str) and task in KIND_OF_TASK:
        values.setdefault("model.kind", KIND_OF_TASK[task])
        values.setdefault("data.text", DEFAULT_TEXT.get(task, ()))
    steps, warmup = given.get("train.steps"), values.get("train.warmup", 0)
    if "train.warmup" not in given and type(steps) is int and type(warmup) is int:
        values["train.warmup"] = min(warmup, max(steps, 0) // 10)
    context = values.get("model.context")
    longest = values.get("data.max_length", 64)
    pairs = isinstance(task, str) and KIND_OF_TASK.get(task) == "encoder-decoder" and task != "t5"
    if pairs and "data.max_length" not in given and type(context) is int and 1 < context <= longest:
        values["data.max_length"] = context - 1  # a start mark is read beside the sequence
    try:
        return RunConfig.from_flat(values).resolved()
    except UserError as error:
        key = str(error).partition(" ")[0]
        if key in written and key not in typed:
            raise UserError(f"{file}: {error}") from None
        raise


def read_config_file(path: Path) -> dict[str, Any]:
    """Settings of a TOML file by full key. `UserError` names the file: missing, a folder, not text, not TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
        raise UserError(f"there is no configuration file {str(path)!r}{near}; give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}; give the path of a TOML file") from None
    return load_flat(text, str(path))


def parse_assignment(text: str) -> tuple[str, Any]:
    """Full key and value of `key=value`. The value is TOML; anything that is not is taken as a string."""
    key, equals, written = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {show(text)} is not of the form key=value; write for example --set layers=6")
    full, written = full_key(key.strip()), written.strip()
    try:
        table = tomllib.loads(f"value = {written}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return full, written
    value = table["value"]
    whole = len(table) == 1 and isinstance(value, (str, bool, int, float, list))
    return full, value if whole else written
