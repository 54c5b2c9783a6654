"""Data: shipped corpora and files (`corpora`), tokenizers, batches for training and evaluation, generated tasks.

Nothing is imported here: each part is imported from its own module.
"""
