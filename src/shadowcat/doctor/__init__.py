"""Asks a server, or a chain of proxies, how it behaves, and says in plain words what that means.

Probing collects facts and judges nothing; judging turns facts into findings and asks nothing. No tool is called that
was not named.
"""
