"""`minilong info`: what is shipped, what a run holds, what a model would need, and where all this runs."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from minilong.cli.output import console, count, estimate_lines, from_command_line, plain_table, size
from minilong.cli.train import bare, settings_lines
from minilong.errors import UserError
from minilong.models.fields import Rule
from minilong.train.config import RULES, RunConfig, available_threads
from minilong.train.presets import layered, preset_names, read_preset

LIBRARIES = ("numpy", "scipy", "click", "rich", "safetensors", "threadpoolctl", "tokenizers", "matplotlib")


@click.command(name="info", short_help="Show presets, a run, or what a model would need.")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--preset", metavar="NAME", help="Settings, parameters and memory of a preset.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting of --preset.")
@click.option("--devices", is_flag=True, help="List the GPUs that can be used, or say what is missing.")
@click.option("--keys", is_flag=True, help="List every configuration key with its meaning.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    run: Path | None,
    preset: str | None,
    assignments: tuple[str, ...],
    devices: bool,
    keys: bool,
    as_json: bool,
) -> None:
    """Show the presets, the shipped texts and this machine; or a RUN; or what a preset would need; or all keys.

    \b
    Examples:
      minilong info
      minilong info runs/book-1
      minilong info --preset medium --set context=512
      minilong info --keys
      minilong info --devices
    """
    subjects = [name for name in from_command_line(ctx) if name in ("RUN", "--preset", "--devices", "--keys")]
    if len(subjects) > 1:
        raise UserError(f"info shows one thing at a time, not {' and '.join(subjects)}; give one of them")
    if assignments and preset is None:
        raise UserError("--set changes a setting of a preset; give --preset NAME as well")
    if run is not None:
        facts = run_facts(run)
        shown = _run_lines(facts)
    elif preset is not None:
        config = layered(preset=preset, assignments=assignments)
        facts = {"preset": preset, **_needs(config)}
        shown = [*settings_lines(config.to_dict()), *_needs_lines(config)]
    elif devices:
        facts = device_facts()
        shown = _device_lines(facts)
    elif keys:
        facts = {key: _key_facts(key, rule) for key, rule in RULES.items()}
        shown = [f"{key:<20}{_meaning(rule)} [{bare(facts[key]['default'])}]" for key, rule in RULES.items()]
    else:
        facts = overview()
        _show_overview(facts, as_json=as_json)
        return
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(shown))


def device_facts() -> dict[str, Any]:
    """The CPU's threads, the GPUs, and why there is none where there is none."""
    from minilong.backend.device import found_devices

    found, why = found_devices()
    gpus = [
        {"name": str(gpu.device), "about": gpu.name, "capability": gpu.capability, "free": gpu.free, "total": gpu.total}
        for gpu in found
    ]
    return {"cpu": {"threads": available_threads()}, "gpus": gpus, "missing": why or None}


def _device_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{'cpu':<10}{facts['cpu']['threads']} threads"]
    for gpu in facts["gpus"]:
        memory = f"{size(gpu['free'])} of {size(gpu['total'])} free"
        lines.append(f"{gpu['name']:<10}{gpu['about']}, compute capability {gpu['capability']}, {memory}")
    return lines if facts["missing"] is None else [*lines, f"{'cuda':<10}{facts['missing']}"]


def overview() -> dict[str, Any]:
    """Presets with their parameters and memory, shipped texts, and versions for a bug report."""
    from minilong.data.corpora import CORPORA

    presets = {}
    for name in preset_names():
        presets[name] = {"about": read_preset(name)[0], **_needs(layered(preset=name))}
    texts = {name: {"kind": corpus.kind, "about": corpus.description} for name, corpus in CORPORA.items()}
    return {"presets": presets, "texts": texts, "environment": environment()}


def environment() -> dict[str, str | int]:
    """Versions of Python, minilong and its libraries, the BLAS, the system and its cores."""
    import numpy as np

    from minilong import __version__

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    facts: dict[str, str | int] = {"minilong": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    facts |= {"blas": f"{blas.get('name')} {blas.get('version')}", "system": platform.platform(terse=True)}
    return facts | {"machine": platform.machine(), "cores": available_threads(), "executable": sys.executable}


def run_facts(path: Path) -> dict[str, Any]:
    """Settings, step, parameters and the summary of the metrics of a run, every file verified."""
    from minilong.train.estimate import describe
    from minilong.train.loaded import load
    from minilong.train.run import RunFolder

    loaded = load(path, "last")
    config = loaded.config
    with RunFolder.open(path) as folder:
        records = folder.metrics()
    validated = [(value, record) for record in records if isinstance(value := record.get("validation"), float)]
    return {
        "run": str(path),
        "step": loaded.step,
        "steps": config.train.steps,
        "parameters": describe(config, None).parameters,
        "config": config.to_dict(),
        "last": records[-1] if records else None,
        "best": min(validated, key=lambda entry: entry[0])[1] if validated else None,
    }


def _needs(config: RunConfig) -> dict[str, Any]:
    from minilong.train.estimate import describe

    return {"config": config.to_dict(), "estimate": asdict(describe(config, None))}


def _needs_lines(config: RunConfig) -> list[str]:
    from minilong.train.estimate import describe

    return estimate_lines(describe(config, None))


def _run_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        f"run         {facts['run']}",
        f"step        {facts['step']} of {facts['steps']}",
        f"parameters  {count(facts['parameters'])}",
        *settings_lines(facts["config"]),
    ]
    for name in ("best", "last"):
        if facts[name] is not None:
            lines.append(f"{name:<12}{_record(facts[name])}")
    return lines


def _record(record: Mapping[str, object]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.5g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in record.items()
        if value is not None
    )


def _key_facts(key: str, rule: Rule) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    defaults = RunConfig().to_dict()
    default = defaults[section][name] if section else defaults[name]
    return {"about": rule.about, "choices": list(rule.choices), "default": default}


def _meaning(rule: Rule) -> str:
    return f"{rule.about}: {', '.join(rule.choices)}" if rule.choices else rule.about


def _show_overview(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    out = console(stderr=False)
    presets = plain_table("preset", "task", "parameters", "memory", "context", "about")
    for name, entry in facts["presets"].items():
        config, estimate = entry["config"], entry["estimate"]
        needs = count(estimate["parameters"]), size(sum(estimate["memory"].values()))
        presets.add_row(name, config["task"], *needs, str(config["model"]["context"]), entry["about"])
    texts = plain_table("shipped text", "kind", "about")
    for name, entry in facts["texts"].items():
        texts.add_row(name, entry["kind"], entry["about"])
    out.print(presets)
    out.print()
    out.print(texts)
    out.print()
    out.print(", ".join(f"{name} {value}" for name, value in facts["environment"].items()))
