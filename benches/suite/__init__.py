"""Ringgear beside its peers, one file per comparison."""
