"""minilong: the long-context Transformer system that a person can audit.

Names are imported from the parts of the package, and importing this one loads nothing else:

    from minilong.autodiff import grad, value_and_grad, vjp, ops
    from minilong.nn import LanguageModel, MultiHeadAttention
    from minilong.attention import Mask, dense, naive

`minilong.autodiff.core` is the place to start reading.
"""

__version__ = "0.1.0"
