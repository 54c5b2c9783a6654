"""Text preparation for embeddings: sentences, words, stop words, and a corpus of word numbers larger than memory."""
