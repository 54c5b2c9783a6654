"""The peers' sides. None of them imports minilong: weights and inputs come as arrays."""
