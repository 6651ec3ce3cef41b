"""Transports that face clients. They check what HTTP or stdio adds, and see the machinery through `core.ports`."""
