"""Side-by-side measurements of job systems: `python -m bench`."""
