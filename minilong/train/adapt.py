"""A trained language model with another reach: longer contexts, windows, scaled rotary positions, no weight changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilong.attention import KERNELS
from minilong.errors import UserError
from minilong.memory import Full, HeavyHitters, Memory, Quantised, Segments, SnapKV, Window
from minilong.models.build import scheme
from minilong.models.config import ModelConfig
from minilong.nn.models import EncoderDecoder, LanguageModel
from minilong.train.loaded import LoadedRun

GROUP = 32
"""Numbers of a cache in few bits that share a scale."""


def adapt(
    loaded: LoadedRun,
    *,
    context: int | None = None,
    rope_scaling: str | None = None,
    rope_factor: float | None = None,
    rope_ramp: str | None = None,
    attention: str | None = None,
) -> LoadedRun:
    """The same weights in a model that reads `context` tokens at once, with rotary positions scaled.

    With a factor alone the context becomes the one that rotary positions were trained for, times it. UserError for
    learned positions, which end at their table, and for what the configuration refuses.
    """
    old = loaded.config.model.resolved()
    if rope_factor is not None and rope_scaling is None and old.rope_scaling == "none":
        raise UserError("--rope-factor says how far, but not how; give --rope-scaling pi, ntk, dynamic or yarn")
    if rope_scaling not in (None, "none") and rope_factor is None and old.rope_factor == 1:
        raise UserError("--rope-scaling says how, but not how far; give --rope-factor 2, say")
    if context is None:
        context = round(old.rope_context * rope_factor) if rope_factor is not None else old.context
    if context > old.context and old.position == "learned":
        raise UserError(
            f"the run has learned positions for {old.context} tokens and none beyond; give --context {old.context} "
            "or less, or train with another --position"
        )
    new = replace(
        old,
        context=context,
        rope_scaling=rope_scaling or old.rope_scaling,
        rope_factor=old.rope_factor if rope_factor is None else rope_factor,
        rope_ramp=rope_ramp or old.rope_ramp,
        attention=attention or old.attention,
    )
    model = loaded.model
    if isinstance(model, LanguageModel):
        own = scheme(new, causal=model.causal)
        if own.table is not None:
            own = replace(own, table=model.scheme.table)
        # Sinks stay as near as they were in training, however long the text.
        own = replace(own, reach=model.scheme.reach)
        model = replace(model, scheme=own, context=context, stack=_with_kernel(model.stack, new.attention))
    elif isinstance(model, EncoderDecoder) and attention is not None:
        encoder, decoder = (_with_kernel(stack, attention) for stack in (model.encoder, model.decoder))
        model = replace(model, encoder=encoder, decoder=decoder)
    return replace(loaded, config=replace(loaded.config, model=new), model=model)


def _with_kernel(stack: Any, name: str) -> Any:
    """A stack whose attention is computed by this kernel, that to an encoder's output too."""

    def changed(layer: Any) -> Any:
        there = [part for part in ("attention", "cross") if getattr(layer, part, None) is not None]
        return replace(layer, **{part: replace(getattr(layer, part), kernel=KERNELS[name]) for part in there})

    return replace(stack, layers=tuple(map(changed, stack.layers)))


def memory_of(
    loaded: LoadedRun,
    name: str | None = None,
    *,
    window: int | None = None,
    sinks: int | None = None,
    budget: int | None = None,
    cache_bits: int | None = None,
) -> Memory | None:
    """What a model is to remember while it reads, by name; None for what it was built for.

    window: keys kept (default: as many as fit into the context beside the sinks); sinks: first tokens kept for ever
    (default 4). A window or sinks alone mean `window`. budget: rows that h2o and snapkv keep (default: a quarter of the
    context). cache_bits: bits of each number of a cache's older rows. UserError for what does not fit together.
    """
    config = loaded.config.model
    name = name or ("window" if window is not None or sinks is not None else "model")
    if window is not None and name != "window":
        raise UserError(f"--window belongs to --memory window, not to --memory {name}; leave it out")
    if sinks is not None and name not in ("window", "h2o"):
        raise UserError(f"--sinks belongs to --memory window or h2o, not to --memory {name}; leave it out")
    if budget is not None and name not in ("h2o", "snapkv"):
        raise UserError(f"--budget belongs to --memory h2o or snapkv, not to --memory {name}; leave it out")
    if name in ("window", "xl") and config.position in ("sinusoidal", "cas", "learned"):
        raise UserError(
            f"the run has {config.position} positions, which count from the start of the text and end with the "
            "context; a memory that goes on needs rotary, alibi, t5, xl or none"
        )
    memory = _chosen(config, name, window, sinks, budget)
    return memory if cache_bits is None else _in_bits(config, name, memory, cache_bits)


def _chosen(config: ModelConfig, name: str, window: int | None, sinks: int | None, budget: int | None) -> Memory | None:
    """The memory of a name, whose options fit it."""
    if name == "full":
        return Full()
    if name == "xl":
        half = max(1, config.context // 2)
        return Segments(half, config.context - half)
    if name == "window":
        if config.rope_scaling == "dynamic":
            raise UserError(
                "dynamic scaling grows with the text, but a window forgets it; choose another --rope-scaling"
            )
        sinks = 4 if sinks is None else sinks
        window = max(1, config.context - sinks) if window is None else window
        if window < 1 or sinks < 0:
            raise UserError(f"a window of {window} with {sinks} sinks sees nothing; give --window 1 or more")
        return Window(window, sinks)
    return _evicting(config, name, sinks, budget) if name in ("h2o", "snapkv") else None


def _evicting(config: ModelConfig, name: str, sinks: int | None, budget: int | None) -> Memory:
    """A cache that keeps `budget` rows, those that attention chooses among them; other sizes are shares of that."""
    if config.position in ("alibi", "t5", "xl"):
        raise UserError(
            f"--memory {name} keeps other tokens in each head, but {config.position} positions add to each score by "
            "its distance; choose --memory window, or a run with rotary positions"
        )
    if config.rope_scaling == "dynamic":
        raise UserError(
            f"--memory {name} keeps other tokens in each head, but dynamic scaling turns all keys anew; choose another "
            "--rope-scaling"
        )
    if config.kind != "decoder" or config.memory != "none":
        raise UserError(f"--memory {name} chooses from a cache, but the run learnt with segments; leave it out")
    budget = max(2, config.context // 4) if budget is None else budget
    if name == "snapkv":
        return SnapKV(budget, window=max(1, min(32, budget // 2)))
    sinks = min(4, budget // 4) if sinks is None else sinks
    if sinks >= budget:
        raise UserError(f"--sinks {sinks} leave nothing of a --budget of {budget}; give fewer, or a larger budget")
    return HeavyHitters(budget, sinks=sinks, block=max(1, min(64, budget // 4)))


def _in_bits(config: ModelConfig, name: str, memory: Memory | None, bits: int) -> Memory:
    """The same cache with its older rows in few bits."""
    if memory is None and config.memory == "none":
        memory = Window(config.window, config.sinks) if config.window else Full()
    if not isinstance(memory, Full | Window):
        other = f"--memory {name}" if name != "model" else "the segments that the run learnt with"
        raise UserError(f"--cache-bits belongs to a full cache or a window, not to {other}; leave it out")
    recent = GROUP * max(1, min(4, config.context // 256))
    return Quantised(bits, GROUP, recent, memory if isinstance(memory, Window) else None)
