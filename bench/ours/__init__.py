"""minilong's sides. Each module imports what it computes with, so that the memory of imports is counted apart."""
