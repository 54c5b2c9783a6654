"""Word and document vectors: Word2Vec, GloVe, Doc2Vec, and what is done with vectors afterwards."""
