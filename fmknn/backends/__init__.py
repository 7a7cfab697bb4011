"""Where training and search run, behind one interface."""
