"""What a model is trained for: batches and losses."""

from minilong.objectives.causal import causal_loss
from minilong.objectives.frequency import frequency_loss
from minilong.objectives.masked import masked_loss
from minilong.objectives.next_sentence import next_sentence_accuracy, next_sentence_loss
from minilong.objectives.sequence import sequence_loss

__all__ = [
    "causal_loss",
    "frequency_loss",
    "masked_loss",
    "next_sentence_accuracy",
    "next_sentence_loss",
    "sequence_loss",
]
