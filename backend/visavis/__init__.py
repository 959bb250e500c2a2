"""Visavis: meet a stranger worth meeting."""

VERSION = "0.1.0"
