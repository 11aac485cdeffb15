"""Embedding jobs: they read rows of text from files and write embeddings to one file or to a job's folder.

Nothing is imported here, so that a command imports only the modules it needs.
"""
