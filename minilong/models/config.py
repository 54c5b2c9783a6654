"""The shape of a model as a checked value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilong.errors import UserError
from minilong.models.fields import check_fields, setting

KINDS = ("decoder", "encoder-decoder", "encoder")
GATED = ("swiglu", "geglu", "geglu_tanh")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", *GATED)
NORMS = ("pre", "post")
NORMALIZATIONS = ("layer", "rms")
POSITIONS = ("sinusoidal", "cas", "learned", "rotary", "alibi", "t5", "xl", "none")
INITS = ("xavier", "he", "normal")
KERNELS = ("auto", "dense", "blockwise", "naive")
LAYOUTS = ("interleaved", "half")
SCALINGS = ("none", "pi", "ntk", "dynamic", "yarn", "llama3")
RAMPS = ("code", "paper")
DEPTHS = ("stored", "checkpoint", "sqrt", "reversible", "momentum")
MEMORIES = ("none", "xl", "compressive")
COMPRESSORS = ("mean", "max", "conv")
INPUTS = ("scaled", "normed", "plain")
OUTPUTS = ("plain", "transform", "none")
BIASES = ("all", "attention", "qkv", "feed_forward")
READING = ("model", "full", "window", "xl", "h2o", "snapkv")
"""What a trained model may remember while it reads: what it was built for, everything, a window, segments, or the rows
that attention chose: while it reads, or at the end of a prompt."""


@dataclass(frozen=True)
class ModelConfig:
    """What is built: stack, widths, attention heads, norms, positions, initial values. Sizes count components.

    A zero in `head_width`, `kv_heads` or `feed_forward` stands for the usual value; `resolved` writes it out.
    Raises `UserError` naming the key (`model.heads`) for a value that cannot work.
    """

    kind: str = setting("decoder", "stack of layers, chosen by the task unless given", choices=KINDS)
    layers: int = setting(4, "layers of each stack", least=1, most=10_000)
    width: int = setting(128, "components of a token's vector", least=1, most=1_000_000)
    heads: int = setting(4, "attention heads; divides width unless head_width is given", least=1, most=100_000)
    head_width: int = setting(0, "components of a head's vectors (0 = width / heads)", least=0, most=1_000_000)
    kv_heads: int = setting(0, "key and value heads (0 = heads, 1 = multi-query); divides heads", least=0, most=100_000)
    feed_forward: int = setting(0, "hidden units of the feed-forward layer (0 = 4 width)", least=0, most=10_000_000)
    activation: str = setting("gelu_tanh", "non-linearity of the feed-forward layer", choices=ACTIVATIONS)
    norm: str = setting("pre", "normalise before or after each sub-layer", choices=NORMS)
    normalization: str = setting("layer", "layer norm or root-mean-square norm", choices=NORMALIZATIONS)
    position: str = setting("rotary", "position encoding", choices=POSITIONS)
    context: int = setting(128, "tokens that the model sees at once", least=1, most=1_000_000_000)
    dropout: float = setting(0.0, "share of activations set to zero in training", least=0, below=1)
    tied: bool = setting(True, "use one matrix as input embedding and output layer")
    bias: bool = setting(True, "linear layers have a bias (layer norms always do)")
    biases: str = setting("all", "which maps of the layers have it (qkv: attention's without output)", choices=BIASES)
    norm_eps: float = setting(
        0.0, "added under a norm's root (0 = 1e-5, of root-mean-square norm 1e-6)", least=0, below=1
    )
    init: str = setting("xavier", "initial values of weight matrices", choices=INITS)
    attention: str = setting("auto", "how attention is computed; all give the same numbers", choices=KERNELS)
    score_scale: float = setting(0.0, "times the scores (0 = 1 / sqrt(head width))", least=0, below=1000)
    window: int = setting(0, "keys that a query sees, its own included (0 = all)", least=0, most=1_000_000_000)
    sinks: int = setting(0, "first keys that stay visible in spite of the window", least=0, most=1_000_000)
    rope_layout: str = setting("interleaved", "rotary pairs are neighbours, or the two halves", choices=LAYOUTS)
    rope_base: float = setting(10000.0, "longest wavelength of rotary positions over 2 pi", above=1)
    rope_share: float = setting(1.0, "share of a head's components that rotary positions turn", above=0, most=1)
    rope_scaling: str = setting("none", "how rotary positions reach beyond rope_context", choices=SCALINGS)
    rope_factor: float = setting(1.0, "how many times further they reach", least=1)
    rope_context: int = setting(0, "context that they were trained for (0 = context)", least=0, most=1_000_000_000)
    rope_ramp: str = setting("code", "YaRN's ramp as in its code (every published model) or paper", choices=RAMPS)
    depth: str = setting("stored", "how a stack keeps what its derivative needs", choices=DEPTHS)
    momentum: float = setting(0.9, "decay of the velocity (depth = momentum)", least=0, below=1)
    memory: str = setting("none", "recurrence over segments, in training too", choices=MEMORIES)
    segment: int = setting(0, "tokens of a segment (0 = context / 4)", least=0, most=1_000_000_000)
    memory_length: int = setting(0, "tokens before the segment that stay (0 = segment)", least=0, most=1_000_000_000)
    compressed: int = setting(0, "compressed slots before those (0 = memory_length / compression)", least=0)
    compression: int = setting(4, "tokens pooled into a slot", least=1, most=1_000_000)
    compressor: str = setting("mean", "how they are pooled; conv is learnt", choices=COMPRESSORS)

    types: int = setting(0, "kinds of segments with an embedding each (BERT: 2)", least=0, most=1000)
    input: str = setting("scaled", "embeddings times sqrt(width), their sum normalised, or plain", choices=INPUTS)
    output: str = setting("plain", "output projection of states, of states transformed, or none", choices=OUTPUTS)
    output_scale: float = setting(1.0, "times the states that the output projection reads", above=0, below=1000)
    pooler: bool = setting(False, "tell from the first state whether two sentences are neighbours")

    def __post_init__(self) -> None:
        if self.normalization == "batch":  # the article's 9.1 recommends it, so the refusal explains
            from minilong.nn.batchnorm import WHY_NOT_CAUSAL

            raise UserError(f"model.normalization is 'batch', but {WHY_NOT_CAUSAL}")
        check_fields("model", self)
        if not self.head_width and self.width % self.heads:
            near = _divisors_near(self.width, self.heads)
            raise UserError(
                f"model.heads is {self.heads}, which does not divide model.width {self.width}; "
                f"choose {near} heads, or a width that is a multiple of {self.heads}"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            near = _divisors_near(self.heads, self.kv_heads)
            raise UserError(
                f"model.kv_heads is {self.kv_heads}, which does not divide model.heads {self.heads}; "
                f"choose {near}, or 0 for as many as heads"
            )
        if self.position in ("sinusoidal", "xl") and self.width % 2:
            raise UserError(
                f"model.position is {self.position!r}, which fills pairs of components, but model.width is "
                f"{self.width}; choose an even width"
            )
        self._check_rotary()
        self._check_stream()
        self._check_depth()
        self._check_pretraining()
        self._check_biases()

    def _check_rotary(self) -> None:
        if self.position != "rotary":
            if self.rope_share != 1:
                raise UserError(
                    f"model.rope_share is {self.rope_share:g}, but model.position is {self.position!r}; "
                    'set model.position = "rotary"'
                )
            return
        wide = self.head_width or self.width // self.heads
        if wide % 2:
            given = "model.head_width" if self.head_width else f"model.width {self.width} / model.heads {self.heads}"
            raise UserError(
                f"model.position is 'rotary', which turns pairs of components, but a head is {wide} wide "
                f"({given}); choose sizes that give an even head width"
            )
        if self.rope_share == 1:
            return
        from minilong.positions.rotary import turned_width  # arrays, which a command's help does without

        turned = turned_width(wide, self.rope_share)
        if turned < 2 or turned % 2:
            raise UserError(
                f"model.rope_share is {self.rope_share:g}, which turns {turned} of a head's {wide} components, but "
                "they are turned in pairs; choose a share that gives an even number"
            )
        if self.rope_layout != "interleaved":
            raise UserError(
                f"model.rope_share is {self.rope_share:g}, which turns a head's first pairs of neighbours, but "
                f'model.rope_layout is {self.rope_layout!r}; set model.rope_layout = "interleaved"'
            )

    def _check_biases(self) -> None:
        if self.biases != "all" and not self.bias:
            raise UserError(
                f"model.biases is {self.biases!r}, but model.bias is false, so there are none; set model.bias = true"
            )

    def _check_stream(self) -> None:
        if (self.window or self.memory != "none") and self.kind != "decoder":
            key = "window" if self.window else "memory"
            raise UserError(f"model.{key} belongs to a causal model, but model.kind is {self.kind!r}; leave it out")
        if self.sinks and not self.window:
            raise UserError(f"model.sinks is {self.sinks}, but without a window all keys are visible; set model.window")
        if self.window and self.memory != "none":
            raise UserError("model.window and model.memory both say what is remembered; leave out one of the two")
        if self.rope_scaling != "none" and self.position != "rotary":
            raise UserError(
                f"model.rope_scaling is {self.rope_scaling!r}, but model.position is {self.position!r}; "
                'set model.position = "rotary"'
            )
        if self.rope_scaling == "yarn" and (self.rope_context or self.context) < 7:
            raise UserError(
                "model.rope_scaling is 'yarn', which asks how often a pair turns within the trained context, but that "
                f"is {self.rope_context or self.context} tokens; choose pi or ntk"
            )
        if self.rope_scaling == "dynamic" and (self.window or self.memory != "none"):
            raise UserError(
                "model.rope_scaling is 'dynamic', which grows with all that was read, but a window or memory forgets; "
                "choose pi, ntk or yarn"
            )
        if self.memory == "compressive":
            if self.position == "xl":
                raise UserError(
                    "model.position is 'xl', which counts whole distances, but compressed slots lie between "
                    "positions; choose rotary, alibi or t5"
                )
            for key, value in zip(("segment", "memory_length"), self.recurrence, strict=False):
                if value % self.compression:
                    raise UserError(
                        f"model.{key} is {value}, but {self.compression} tokens go into a compressed slot; "
                        f"choose a multiple of model.compression"
                    )
        if self.memory != "none" and self.position in ("sinusoidal", "cas", "learned"):
            raise UserError(
                f"model.memory needs positions that are distances, but model.position is {self.position!r}; "
                "choose rotary, alibi, t5 or xl"
            )

        if self.position == "xl" and self.attention == "blockwise":
            raise UserError(
                "model.position is 'xl', whose scores depend on query and distance, but blockwise attention knows "
                'biases of the distance only; set model.attention = "auto"'
            )

    def _check_depth(self) -> None:
        if self.depth in ("reversible", "momentum"):
            if self.norm != "pre":
                raise UserError(
                    f"model.depth is {self.depth!r}, which adds to a stream that nothing normalises, but model.norm is "
                    f'{self.norm!r}; set model.norm = "pre"'
                )
            if self.memory != "none":
                raise UserError(
                    f"model.depth is {self.depth!r}, which computes layers twice, but model.memory changes between; "
                    "choose depth stored"
                )
        if self.depth in ("checkpoint", "sqrt") and self.memory != "none":
            raise UserError(
                f"model.depth is {self.depth!r}, which computes layers twice, but model.memory changes between; "
                "choose depth stored"
            )

    def _check_pretraining(self) -> None:
        for key, usual in (("types", 0), ("output", "plain"), ("pooler", False)):
            if getattr(self, key) != usual and self.kind != "encoder":
                raise UserError(f"model.{key} belongs to an encoder, but model.kind is {self.kind!r}; leave it out")
        if self.output == "transform" and self.activation in GATED:
            raise UserError(
                "model.output is 'transform', which needs a plain function, but model.activation is "
                f"{self.activation!r}; choose gelu"
            )
        if self.output == "none" and not self.tied:
            raise UserError(
                "model.output is 'none', so that there is no output projection, but model.tied is false; "
                "set model.tied = true"
            )
        if self.output == "none" and self.output_scale != 1:
            raise UserError(
                f"model.output_scale is {self.output_scale:g}, but model.output is 'none', so that nothing is scaled; "
                "leave it out"
            )

    @property
    def recurrence(self) -> tuple[int, int, int]:
        """segment, memory_length and compressed with the usual values where they are zero."""
        if self.memory == "none":
            return self.segment, self.memory_length, self.compressed
        segment = self.segment or max(1, self.context // 4)
        length = self.memory_length or segment
        slots = -(-length // self.compression) if self.memory == "compressive" else 0
        return segment, length, self.compressed or slots

    def resolved(self) -> ModelConfig:
        """The same model with every size written out that a zero stands for.

        A gated network has three matrices instead of two, so 8/3 width keeps the parameter count of 4 width; rounded
        up to a multiple of 8 (Shazeer 2020; Touvron et al. 2023).
        """
        hidden = -(-8 * self.width // 24) * 8 if self.activation in GATED else 4 * self.width
        segment, length, slots = self.recurrence
        return replace(
            self,
            head_width=self.head_width or self.width // self.heads,
            kv_heads=self.kv_heads or self.heads,
            feed_forward=self.feed_forward or hidden,
            rope_context=self.rope_context or self.context,
            segment=segment,
            memory_length=length,
            compressed=slots,
        )


def _divisors_near(number: int, wanted: int) -> str:
    """The divisors of `number` just below and above `wanted`, as text."""
    below = next(n for n in range(min(wanted, number), 0, -1) if number % n == 0)
    above = next((n for n in range(wanted, number + 1) if number % n == 0), below)
    return f"{below}" if below == above else f"{below} or {above}"
