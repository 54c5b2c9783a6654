"""Layers and models as values: frozen dataclasses whose leaves are arrays. Calling one is a pure function."""

from minilong.nn.attention import MultiHeadAttention
from minilong.nn.average import MovingAverage
from minilong.nn.batchnorm import BatchNorm, BatchState
from minilong.nn.flat import Layout, flatten
from minilong.nn.layers import Dropout, Embedding, FeedForward, LayerNorm, Linear, RMSNorm
from minilong.nn.models import EncoderDecoder, LanguageModel
from minilong.nn.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer
from minilong.nn.view import View

__all__ = [
    "BatchNorm",
    "BatchState",
    "Decoder",
    "DecoderLayer",
    "Dropout",
    "Embedding",
    "Encoder",
    "EncoderDecoder",
    "EncoderLayer",
    "FeedForward",
    "LanguageModel",
    "LayerNorm",
    "Layout",
    "Linear",
    "MovingAverage",
    "MultiHeadAttention",
    "RMSNorm",
    "View",
    "flatten",
]
