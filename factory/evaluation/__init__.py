"""How good a run is: scoring line, truth, consistency, ablation, study."""
