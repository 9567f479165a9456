"""How are runs reported? As pages, plots and tables."""
