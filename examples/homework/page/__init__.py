"""Reports of finished runs: one static HTML page, and the same as Markdown.

``reading`` reads the folders of runs, ``pictures`` their pictures, ``writing`` fills the templates.
"""

from homework.page.reading import Run, read_run, run_folders
from homework.page.writing import write_report

__all__ = ["Run", "read_run", "run_folders", "write_report"]
