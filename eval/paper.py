"""Hold the numbers that the paper prints, Tables 1 to 5: `TABLES`, with their `COLUMNS` and `CAPTIONS`.

Melas-Kyriazi et al., "IM-3D: Iterative Multiview Diffusion and Reconstruction for High-Quality 3D Generation".

A score is (mean, standard deviation over prompts) or, in Table 5, the mean alone: 100 x cosine. None is a dash.
"""

from __future__ import annotations

SOURCES = {
    1: "section 4.1; prompts of MVDream and ImageDream; the first row is the upper bound, SDXL's own images",
    2: "section 4.2",
    3: "section 4.2",
    4: "section A.3",
    5: "section A.4, where IM-3D has 31.3 and 90.5; re-renders in Table 1 have 31.66 and 91.40",
}
"""Where in the paper each table stands, and what is to be known about it."""

Cell = str | float | tuple[float, float] | None

COLUMNS: dict[int, tuple[str, ...]] = {
    1: ("model", "time (min)", "synthesised CLIP text", "synthesised CLIP image", "re-rendered CLIP text",
        "re-rendered CLIP image"),
    2: ("loss / representation", "CLIP text", "CLIP image"),
    3: ("frames", "CLIP text", "CLIP image"),
    4: ("model", "network calls"),
    5: ("model", "CLIP text", "CLIP image"),
}  # fmt: skip

CAPTIONS = {
    1: "Faithfulness to the textual and visual prompts",
    2: "Ablation of loss terms and 3D representation, on re-renders",
    3: "Ablation on using fewer frames, on re-renders",
    4: "Diffusion network calls to generate one 3D asset",
    5: "Further comparison with recent methods",
}

TABLES: dict[int, tuple[tuple[Cell, ...], ...]] = {
    1: (
        ("SDXL [upper bound]", 0.03, 33.33, 100.0, None, None),
        ("MVDream", 72.0, (31.26, 2.9), (76.44, 6.5), (30.63, 2.7), (76.94, 5.2)),
        ("Zero123XL", 10.0, (19.58, 1.3), (60.29, 5.8), (29.06, 3.3), (81.33, 6.9)),
        ("Magic123", 15.0, None, None, (29.51, 4.7), (84.14, 10.2)),
        ("SyncDreamer", 13.0, (27.76, 3.0), (77.26, 7.2), (26.22, 3.4), (74.95, 6.6)),
        ("ImageDream", 120.0, (31.08, 3.4), (85.39, 5.8), (30.73, 2.3), (83.77, 5.2)),
        ("OpenLRM", 0.17, None, None, (29.75, 3.2), (83.08, 9.5)),
        ("One2345++", 0.75, None, None, (29.71, 2.3), (83.78, 6.4)),
        ("IM-3D (paper)", 3.0, (31.92, 1.6), (92.38, 5.1), (31.66, 1.7), (91.40, 5.5)),
    ),
    2: (
        ("IM-3D (paper)", (31.66, 1.7), (91.40, 5.5)),
        ("- LPIPS", (29.38, 2.1), (84.71, 6.4)),
        ("- RGB instead of LPIPS", (29.67, 2.0), (84.99, 5.9)),
        ("- SSIM", (31.53, 1.8), (90.64, 5.7)),
        ("- Mask", (31.43, 1.9), (90.14, 6.0)),
        ("w/ NeRF instead of GS", (30.42, 2.1), (87.37, 5.4)),
    ),
    3: (
        ("16 (paper)", (31.66, 1.7), (91.40, 5.5)),
        ("8 (paper)", (31.38, 1.8), (90.06, 6.3)),
        ("4 (paper)", (30.06, 2.6), (86.96, 8.6)),
    ),
    4: (
        ("ProlificDreamer", 320000.0),
        ("MVDream", 20000.0),
        ("ImageDream", 25000.0),
        ("Zero123XL", 1200.0),
        ("SyncDreamer", 200.0),
        ("IM-3D (paper)", 80.0),
    ),
    5: (
        ("Wonder3D", 29.0, 79.8),
        ("TripoSR", 29.0, 81.5),
        ("LGM", 30.1, 87.9),
        ("Vivid-1-to-3", 29.5, 87.1),
        ("IM-3D (paper)", 31.3, 90.5),
    ),
}
