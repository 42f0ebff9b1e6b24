"""Fair timing: pinned threads, alternation, checks, files of results, targets, reports."""
