"""A report as one HTML page."""

from .document import check_packages, page

__all__ = ["check_packages", "page"]
