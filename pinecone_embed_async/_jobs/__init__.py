"""Embedding jobs: rows of text in from files; embeddings out to one file, or to a folder of a job that can be resumed.

Nothing is imported here, so that a command imports only the modules that it needs.
"""
