"""Plots, tables and command lines: what a person sees."""
