"""Optimise a triangle mesh as signed distances on a tetrahedral grid (Shen et al. 2021; paper A.7)."""
