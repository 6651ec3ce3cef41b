"""The server that comes with Shadowcat: small, of both eras, with one tool for each thing that a proxy must carry."""
