"""The laws, by the kind of function that they bind. Importing this package registers all of them."""
