"""Puts the parts together; no other part knows them all."""
