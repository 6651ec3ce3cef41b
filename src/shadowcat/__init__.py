"""Shadowcat: a proxy for the Model Context Protocol."""
