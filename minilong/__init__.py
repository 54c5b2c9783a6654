"""minilong: the long-context Transformer system that a person can audit."""

__version__ = "0.1.0"
