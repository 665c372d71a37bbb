"""Speed and memory, as ratios within one run; each module writes its own page."""
