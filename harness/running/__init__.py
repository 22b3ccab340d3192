"""Running cells: scheduler, engines, the run's data."""
