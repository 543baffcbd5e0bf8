"""Spaces, supernets, training, evaluation, search, fronts, report and command line."""
