"""Adapters to other frameworks: each is a separate module that imports only its own framework."""
