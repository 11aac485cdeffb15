"""The suites, one module for each kind of measurement.

A suite has a function that measures, given the settings, and returns its part of the report as plain JSON; and one that
shows that part as tables. It returns `None` for a part that it cannot measure here, because something is not installed.
"""
