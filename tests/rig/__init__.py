"""The stand that proxy tests run on: a server that does as it is told, a client that shows all it hears."""
