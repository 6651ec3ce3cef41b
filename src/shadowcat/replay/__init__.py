"""Reads tapes: shows them, compares them, plays them as the server or as the client."""
