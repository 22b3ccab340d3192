"""What follows from the results: curves, label savings, tables, figures and the page."""
