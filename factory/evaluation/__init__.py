"""Measure how good a run is, by scores, truth, consistency, ablation and study."""
