"""An experiment that needs data.

Question: Where is the data?
Claim: It is under JAXREG_DATA.
Expected: As the toy.
Cost: a minute.
Command: python -m experiments needy
"""

from .toy import QUICK, Config, cells, measure, plot, summarise, verdict

__all__ = ["QUICK", "Config", "cells", "measure", "plot", "summarise", "verdict"]

REQUIRES = ("digits",)
