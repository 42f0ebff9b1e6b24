"""Reports of finished runs: one static HTML page, and the same as Markdown.

``reading`` reads the folders of runs, ``writing`` fills the templates.
"""
