"""Visavis: meet a stranger worth meeting."""
