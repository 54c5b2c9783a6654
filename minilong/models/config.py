"""The shape of a model as a checked value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilong.errors import UserError
from minilong.models.fields import check_fields, setting

KINDS = ("decoder", "encoder-decoder", "encoder")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "swiglu")
NORMS = ("pre", "post")
NORMALIZATIONS = ("layer", "rms")
POSITIONS = ("sinusoidal", "cas", "learned", "rotary", "none")
INITS = ("xavier", "he", "normal")


@dataclass(frozen=True)
class ModelConfig:
    """What is built: stack, widths, attention heads, norms, positions, initial values. Sizes count components.

    A zero in `kv_heads` or `feed_forward` stands for the usual value; `resolved` writes it out.
    Raises `UserError` naming the key (`model.heads`) for a value that cannot work.
    """

    kind: str = setting("decoder", "stack of layers, chosen by the task unless given", choices=KINDS)
    layers: int = setting(4, "layers of each stack", least=1, most=10_000)
    width: int = setting(128, "components of a token's vector", least=1, most=1_000_000)
    heads: int = setting(4, "attention heads; divides width", least=1, most=100_000)
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
    init: str = setting("xavier", "initial values of weight matrices", choices=INITS)

    def __post_init__(self) -> None:
        if self.normalization == "batch":  # the article's 9.1 recommends it, so the refusal explains
            from minilong.nn.batchnorm import WHY_NOT_CAUSAL

            raise UserError(f"model.normalization is 'batch', but {WHY_NOT_CAUSAL}")
        check_fields("model", self)
        if self.width % self.heads:
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
        if self.position == "rotary" and self.head_width % 2:
            raise UserError(
                f"model.position is 'rotary', which turns pairs of components, but a head is {self.head_width} wide "
                f"(model.width {self.width} / model.heads {self.heads}); choose sizes that give an even head width"
            )
        if self.position == "sinusoidal" and self.width % 2:
            raise UserError(
                f"model.position is 'sinusoidal', which fills pairs of components, but model.width is {self.width}; "
                "choose an even width"
            )

    @property
    def head_width(self) -> int:
        """Components of one head's query, key and value vectors."""
        return self.width // self.heads

    def resolved(self) -> ModelConfig:
        """The same model with `kv_heads` and `feed_forward` written out.

        SwiGLU has three matrices instead of two, so 8/3 width keeps the parameter count of 4 width; rounded up to a
        multiple of 8 (Shazeer 2020; Touvron et al. 2023).
        """
        hidden = -(-8 * self.width // 24) * 8 if self.activation == "swiglu" else 4 * self.width
        return replace(self, kv_heads=self.kv_heads or self.heads, feed_forward=self.feed_forward or hidden)


def _divisors_near(number: int, wanted: int) -> str:
    """The divisors of `number` just below and above `wanted`, as text."""
    below = next(n for n in range(min(wanted, number), 0, -1) if number % n == 0)
    above = next((n for n in range(wanted, number + 1) if number % n == 0), below)
    return f"{below}" if below == above else f"{below} or {above}"
