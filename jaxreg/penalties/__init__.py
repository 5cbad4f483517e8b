"""One penalty per file, named as the literature names it."""

from jaxreg.penalties.elastic_net import ElasticNet
from jaxreg.penalties.group_lasso import GroupLasso
from jaxreg.penalties.l1 import L1
from jaxreg.penalties.l2 import L2

__all__ = ["L1", "L2", "ElasticNet", "GroupLasso"]
