"""A trained language model with another reach: longer contexts, windows, scaled rotary positions, no weight changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilong.attention import KERNELS
from minilong.errors import UserError
from minilong.memory import Full, Memory, Segments, Window
from minilong.models.build import scheme
from minilong.nn.models import LanguageModel
from minilong.train.loaded import LoadedRun


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
        stack: Any = model.stack
        layers = tuple(_with_kernel(layer, new.attention) for layer in stack.layers)
        model = replace(model, scheme=own, context=context, stack=replace(stack, layers=layers))
    return replace(loaded, config=replace(loaded.config, model=new), model=model)


def _with_kernel(layer: Any, name: str) -> Any:
    return replace(layer, attention=replace(layer.attention, kernel=KERNELS[name]))


def memory_of(
    loaded: LoadedRun, name: str | None = None, *, window: int | None = None, sinks: int | None = None
) -> Memory | None:
    """What a model is to remember while it reads, by name; None for what it was built for.

    window: keys kept (default: as many as fit into the context beside the sinks); sinks: first tokens kept for ever
    (default 4). A window or sinks alone mean `window`. UserError for what does not fit together.
    """
    config = loaded.config.model
    name = name or ("window" if window is not None or sinks is not None else "model")
    if name != "window" and (window is not None or sinks is not None):
        raise UserError(f"--window and --sinks belong to --memory window, not to --memory {name}; leave them out")
    if name in ("window", "xl") and config.position in ("sinusoidal", "cas", "learned"):
        raise UserError(
            f"the run has {config.position} positions, which count from the start of the text and end with the "
            "context; a memory that goes on needs rotary, alibi, t5, xl or none"
        )
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
    return None
