"""The bundled server: small, of both eras, with one tool for each thing that a proxy must carry."""
