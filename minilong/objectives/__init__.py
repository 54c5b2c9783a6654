"""What a model is trained for: batches and losses."""

from minilong.objectives.causal import causal_loss
from minilong.objectives.sequence import sequence_loss

__all__ = ["causal_loss", "sequence_loss"]
