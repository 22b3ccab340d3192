"""Study files: settings, and the checked cells that they describe."""
