"""Families of published models: config.json and names of `transformers`, to our configurations and names, and back."""

from minilong.models.families.bert import BERT
from minilong.models.families.family import Family
from minilong.models.families.glm import GLM
from minilong.models.families.gpt2 import GPT2
from minilong.models.families.llama import LLAMA
from minilong.models.families.mistral import MISTRAL
from minilong.models.families.places import Place
from minilong.models.families.roberta import ROBERTA
from minilong.models.families.t5 import T5

FAMILIES: dict[str, Family] = {f.model_type: f for f in (BERT, ROBERTA, GPT2, T5, LLAMA, MISTRAL, GLM)}
"""By `model_type`."""

__all__ = ["FAMILIES", "Family", "Place"]
