"""Models and runs in files: whole or not at all, without pickle."""
