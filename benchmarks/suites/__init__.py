"""The suites, one module for each kind of measurement.

A suite has a function that takes the settings, measures, and returns its part of the report as plain JSON, and one that
shows that part as tables. A suite returns `None` if it cannot measure here because something is not installed.
"""
