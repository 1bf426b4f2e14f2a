"""Whole models, one module each."""
