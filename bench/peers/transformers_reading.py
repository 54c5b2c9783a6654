"""The library `transformers`' reading with a Llama: its cache, and the logits of the last position only."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM

from ..case import Arrays, Settings, Side
from .arrays import INPUTS, WEIGHTS, group


class Prompt(Side):
    """A prompt is read into a new cache."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        torch.set_num_threads(threads)
        m = settings["model"]
        config = LlamaConfig(
            vocab_size=settings["vocabulary"],
            hidden_size=m["width"],
            intermediate_size=m["feed_forward"],
            num_hidden_layers=m["layers"],
            num_attention_heads=m["heads"],
            num_key_value_heads=m["kv_heads"],
            head_dim=m["head_width"],
            max_position_embeddings=m["context"],
            rms_norm_eps=m["norm_eps"],
            rope_theta=m["rope_base"],
            tie_word_embeddings=True,
        )
        self.model = LlamaForCausalLM(config).eval()
        given = {name: torch.from_numpy(x) for name, x in group(shared, WEIGHTS).items()}
        missing, unexpected = self.model.load_state_dict(given, strict=False)
        if unexpected or missing not in ([], ["lm_head.weight"]):
            raise ValueError(f"missing {missing}, unexpected {unexpected}")
        self.text = torch.from_numpy(group(shared, INPUTS)["text"].astype(np.int64))
        self.shared = {}

    def gate(self) -> dict[str, np.ndarray]:
        return {"logits": self.start()[1].numpy()}

    def run(self) -> None:
        self.start()

    @torch.inference_mode()
    def start(self) -> tuple[Cache, Tensor]:
        """A cache that holds the prompt, and the logits (1, vocabulary) after it."""
        cache = DynamicCache(config=self.model.config)
        return cache, self.extend(self.text[:, : self.settings["prompt"]], cache)

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read on: logits (1, vocabulary) after the last token."""
        logits: Tensor = self.model(tokens, cache=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1]


class Decoding(Prompt):
    """Tokens are read one by one, after a prompt that was read before; every time from a copy of its cache."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.cache, _ = self.start()

    def gate(self) -> dict[str, np.ndarray]:
        return {"logits": torch.cat(self.decoded()).numpy()}

    def run(self) -> None:
        self.decoded()

    @torch.inference_mode()
    def decoded(self) -> list[Tensor]:
        """The logits after each token of the text behind the prompt."""
        cache = deepcopy(self.cache)
        return [self.extend(self.text[:, i : i + 1], cache) for i in range(self.settings["prompt"], self.text.shape[1])]
