"""The figures of the paper, each made by one command: see `__main__`."""

FIGURES = {
    "2": "figure_2",
    "3": "figure_3",
    "4": "figure_4",
    "5": "figure_5",
    "6": "figure_6",
    "7": "figure_7",
    "8a": "figure_8a",
    "profiles": "profiles",
    "practice_profiles": "practice_profiles",
    "wall_clock": "wall_clock",
    "depth_width": "depth_width",
}
"""Name to module, each with `run(settings, results)` that returns numbers."""
