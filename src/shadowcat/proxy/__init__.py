"""The machinery: sessions, streams and the relay between a client's transport and an upstream's."""
