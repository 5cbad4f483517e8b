"""One instance of every penalty and constraint with a prox, for leaves of two axes."""

from __future__ import annotations

import jax.numpy as jnp

import jaxreg


def slope(size: int) -> jaxreg.SLOPE:
    """Strengths that fall from 1 to 0.5."""
    return jaxreg.SLOPE(jnp.linspace(1.0, 0.5, size))


def catalogue(size: int) -> dict[str, jaxreg.Penalty]:
    """By name, for leaves of `size` entries and at least 4 in a column."""
    return {**_elementwise(), **_structure(size), **_constraints()}


def _elementwise() -> dict[str, jaxreg.Penalty]:
    return {
        "L1": jaxreg.L1(1.0),
        "L2": jaxreg.L2(1.0),
        "ElasticNet": jaxreg.ElasticNet(1.0, 1.0),
        "Huber": jaxreg.Huber(1.0, knot=1.0),
        "MCP": jaxreg.MCP(1.0, knot=2.0),
        "SCAD": jaxreg.SCAD(1.0, knot=3.7),
        "LogSum": jaxreg.LogSum(1.0, eps=1.0),
        "LHalf": jaxreg.Lp(1.0, 0.5),
        "Lp": jaxreg.Lp(1.0, power=0.75),
        "L0": jaxreg.L0(1.0),
        "TransformedL1": jaxreg.TransformedL1(1.0, scale=1.0),
        "CappedL1": jaxreg.CappedL1(1.0, knot=1.0),
        "PiecewiseAffine": jaxreg.PiecewiseAffine.to_grid(1.0, (-1.0, 0.0, 1.0)),
    }


def _structure(size: int) -> dict[str, jaxreg.Penalty]:
    l1, mcp = jaxreg.L1(1.0), jaxreg.MCP(1.0, knot=2.0)
    return {
        "GroupLasso": jaxreg.GroupLasso(1.0, group_axis=0),
        "SparseGroupLasso": jaxreg.SparseGroupLasso(1.0, 1.0, group_axis=0),
        "LInf": jaxreg.LInf(1.0, group_axis=0),
        "SLOPE": slope(size),
        "TotalVariation": jaxreg.TotalVariation(1.0, axis=0),
        "FusedLasso": jaxreg.FusedLasso(1.0, 1.0, axis=0),
        "TrendFilter": jaxreg.TrendFilter(1.0, order=1, axis=0),
        "NuclearNorm": jaxreg.NuclearNorm(1.0),
        "grouped(MCP)": jaxreg.grouped(mcp, group_axis=0),
        "spectral(MCP)": jaxreg.spectral(mcp),
        "nonnegative(L1)": jaxreg.nonnegative(l1),
        "envelope(L1)": jaxreg.envelope(l1, 1.0),
    }


def _constraints() -> dict[str, jaxreg.Penalty]:
    return {
        "NonNegative": jaxreg.NonNegative(),
        "Box": jaxreg.Box(-1.0, 1.0),
        "L1Ball": jaxreg.L1Ball(1.0),
        "L2Ball": jaxreg.L2Ball(1.0),
        "Simplex": jaxreg.Simplex(),
        "MinMaxNorm": jaxreg.MinMaxNorm(0.5, 1.0, group_axis=1),
        "UnitNorm": jaxreg.UnitNorm(group_axis=1),
        "TopK": jaxreg.TopK(fraction=0.1),
        "TopK over the tree": jaxreg.TopK(fraction=0.1, scope="tree"),
        "NM": jaxreg.NM(2, 4),
        "RankAtMost": jaxreg.RankAtMost(2),
        "SpectralBall": jaxreg.SpectralBall(1.0),
        "Orthogonal": jaxreg.Orthogonal(),
    }
