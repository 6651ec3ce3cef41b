"""Tapes, read: looked at, compared, played as the server or as the client."""
