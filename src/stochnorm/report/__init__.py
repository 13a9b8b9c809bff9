"""One HTML page on runs that needs nothing else: tables, charts, mistakes; for screen, phone and paper."""

from stochnorm.report.write import report, write_report

__all__ = ["report", "write_report"]
