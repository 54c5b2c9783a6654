"""Small experiments that reproduce published findings on this machine, with seeds, bands and every number on disk."""
