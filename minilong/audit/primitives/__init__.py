"""Every primitive of the registry under audit: random calls made from its declaration, laws, and wrong rules."""
