"""Official clients of every kind against an official server: straight, and through `shadowcat reverse`."""
