"""Detectors behind HTTP and in the browser: `crane serve` and `crane app`."""
