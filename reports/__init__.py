"""Analysis of results: curves, label savings, tables, figures and the page."""
