"""Transports that face servers. Each implements `core.ports.Upstream`."""
