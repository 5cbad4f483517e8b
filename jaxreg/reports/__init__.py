"""Numbers, tables and figures about parameters and paths."""

from jaxreg.reports.plots import path_plot, sparsity_plot

__all__ = ["path_plot", "sparsity_plot"]
