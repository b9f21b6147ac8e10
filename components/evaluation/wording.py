"""Figures in words: a share, and whether two figures lie apart.

What belongs here: phrases that several texts share. What does not: which figures are spoken of (``verdict``,
``blend_study``).
"""

from .intervals import Figure


def percent(figure: Figure) -> str:
    """A share as ``99.1 %``."""
    return f"{100 * figure.value:.1f} %"


def compared(ours: Figure, theirs: Figure) -> str:
    """``clearly above``, ``clearly below`` or ``not clearly different``: whether the 95 % intervals are apart."""
    if ours.ci95 is None or theirs.ci95 is None:
        return "not comparable (no interval)"
    if ours.ci95[0] > theirs.ci95[1]:
        return "clearly above"
    return "clearly below" if ours.ci95[1] < theirs.ci95[0] else "not clearly different"
